//! Getting one WAL file back: whole, verified and renamed into place; or the proof that there is none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::absent::{Proof, Verdict, is_beyond, judge};
use super::{Retry, miss, retry};
use crate::codec::{Damaged, open_envelope, unseal};
use crate::error::{Hint, find, with_hint};
use crate::postgres::catalog::{WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{SegmentName, WalFileName};
use crate::repo::ObjectError;
use crate::storage::Key;

/// How long a gap is watched before it is called one, when what shows it was stored this recently: segments are stored
/// several at a time, so a later one can be there before an earlier one.
const GAP_GRACE: Duration = Duration::from_secs(10);

/// Gets WAL files of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    cluster: Cluster,
    retry: Retry,
}

/// An answer. That there is none is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// The file is in its place, whole.
    Delivered,
    /// The repository has no such file, and nothing shows that it should.
    Absent,
}

/// The segment is missing although WAL goes on after it.
#[derive(Debug, thiserror::Error)]
#[error("WAL segment \"{missing}\" is missing in {store}, but WAL goes on after it: \"{}\" is there", proof.shown_by)]
pub struct Gap {
    pub missing: SegmentName,
    pub store: String,
    pub proof: Proof,
}

impl Fetcher {
    /// For a cluster.
    pub fn new(cluster: Cluster, retry: Retry) -> Self {
        Self { cluster, retry }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Puts the file `name` at `destination`, replacing what is there, or says that there is none. Segments from
    /// `end` on are absent without looking. Errors: [`Gap`], a damaged object, a repository that does not answer.
    pub async fn fetch(
        &self,
        name: &WalFileName,
        destination: &Path,
        end: Option<SegmentName>,
    ) -> anyhow::Result<Fetched> {
        let beside = beside(destination)?;
        match self.obtain(name, &beside, end).await? {
            false => Ok(Fetched::Absent),
            true => {
                let renamed = fs::rename(&beside, destination);
                renamed.with_context(|| format!("cannot put \"{name}\" at \"{}\"", destination.display()))?;
                Ok(Fetched::Delivered)
            }
        }
    }

    /// Makes the file `path` of the content of `name`, or says (`false`) that the repository proves there is none.
    pub async fn obtain(&self, name: &WalFileName, path: &Path, end: Option<SegmentName>) -> anyhow::Result<bool> {
        let size = self.cluster.description.segment_size;
        if let WalFileName::Segment(segment) = name
            && is_beyond(end, *segment, size)
        {
            return Ok(false);
        }
        let begin = Instant::now();
        for attempt in 0.. {
            if self.retrieve(name, path).await? {
                return Ok(true);
            }
            let what = format!("cannot tell whether there is a \"{name}\"");
            let Some(gap) = self.retry.run(&what, || self.explain(name)).await? else { return Ok(false) };
            let pause = retry::pause(attempt);
            if gap.proof.age > GAP_GRACE || begin.elapsed() + pause > GAP_GRACE.min(self.retry.timeout) {
                return Err(gap).hint(
                    "recovery cannot pass a gap: bring the segment from the server's pg_wal or from another copy with \
                     `walden wal push`, or restore to a target before it",
                );
            }
            sleep(pause).await;
        }
        unreachable!("the loop above ends by returning")
    }

    /// Makes the file `path` of the content of `name`, verified; `false` when the repository has no such object, which
    /// alone proves nothing. `path` must not exist and is removed again on an error.
    pub async fn retrieve(&self, name: &WalFileName, path: &Path) -> anyhow::Result<bool> {
        let key = self.cluster.layout.wal(name);
        let what = format!("cannot fetch \"{name}\"");
        let get = || self.cluster.repository.get_sealed(&key, WAL_KIND);
        let object = self.retry.run(&what, get).await.map_err(|error| with_repair_hint(error, &key))?;
        let Some(object) = object else { return Ok(false) };
        let (this, name, path) = (self.clone(), *name, path.to_path_buf());
        let write = move || this.write_out(&name, &key, &object, &path);
        tokio::task::spawn_blocking(write).await?.context(what)?;
        Ok(true)
    }

    /// What it means that `name` is not in the repository; `None`: that it never was.
    async fn explain(&self, name: &WalFileName) -> anyhow::Result<Option<Gap>> {
        miss::confirm(&self.cluster).await?;
        let WalFileName::Segment(missing) = *name else { return Ok(None) };
        let facts = miss::gather(&self.cluster, missing).await?;
        Ok(match judge(missing, self.cluster.description.segment_size, &facts) {
            Verdict::End => None,
            Verdict::Gap(proof) => Some(Gap { missing, store: self.cluster.repository.describe(), proof }),
        })
    }

    fn write_out(&self, name: &WalFileName, key: &Key, object: &Bytes, path: &Path) -> anyhow::Result<()> {
        let damaged = |source| with_repair_hint(self.cluster.repository.damaged(key, source).into(), key);
        self.check_description(name, object).map_err(damaged)?;
        let mut file = create(path)?;
        let written = unseal(WAL_KIND, object, &mut file);
        let result = match written {
            Ok(Ok(_)) => file.flush().map_err(Into::into),
            Ok(Err(source)) => Err(damaged(source)),
            Err(error) => Err(error)
                .with_context(|| format!("cannot write \"{}\"", path.display()))
                .hint("check the space and the permissions there"),
        };
        if result.is_err() {
            // Best effort: it is not where PostgreSQL looks.
            let _ = fs::remove_file(path);
        }
        result
    }

    /// An object may be whole and yet be another file's, after repairs by hand.
    fn check_description(&self, name: &WalFileName, object: &[u8]) -> Result<(), Damaged> {
        let header = open_envelope(WAL_KIND, object)?.header;
        let described: WalDescription = serde_json::from_value(header.about)
            .map_err(|error| Damaged(format!("its header does not describe a WAL file: {error}")))?;
        let ours = &self.cluster.description;
        if described.name != *name || described.system_identifier != ours.system_identifier {
            return Err(Damaged(format!(
                "it holds \"{}\" of the server with system identifier {}",
                described.name, described.system_identifier
            )));
        }
        let expected = ours.segment_size.bytes();
        match name {
            WalFileName::Segment(_) if header.plain.size != expected => {
                Err(Damaged(format!("it holds {} bytes, a segment has {expected}", header.plain.size)))
            }
            _ => Ok(()),
        }
    }
}

fn with_repair_hint(error: anyhow::Error, key: &Key) -> anyhow::Error {
    match find::<ObjectError>(&error) {
        Some(ObjectError::Damaged { .. }) => with_hint(
            error,
            format!(
                "repair the repository: bring back object \"{key}\" from a copy of it, or restore to a target before it"
            ),
        ),
        _ => {
            with_hint(error, "check that the repository is reachable and can be read; recovery goes on from here then")
        }
    }
}

/// A new name beside `path`, on the same file system.
fn beside(path: &Path) -> anyhow::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.file_name().is_none() {
        return Err(anyhow!("\"{}\" is no place for a file", path.display()));
    }
    Ok(folder.join(format!(".walden-fetch-{:016x}", getrandom::u64()?)))
}

fn create(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error: io::Error| error)
        .with_context(|| format!("cannot make \"{}\"", path.display()))
        .hint("the folder must exist and be writable by the user who runs Walden")
}
