//! Getting one WAL file back: whole, verified and renamed into place; or the proof that there is none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep};

use super::absence::{Absence, GapEvidence, is_beyond, judge, judge_history};
use super::gap_evidence;
use super::limit::within;
use crate::codec::{Damaged, EnvelopeHeader, VerifyLevel};
use crate::error::{Hint, find, with_hint};
use crate::owner;
use crate::postgres::catalog::{BackupDescription, ClusterDescription, WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::protection::load_expired;
use crate::postgres::types::{SegmentName, TimelineId, WalFileName};
use crate::repo::{ObjectError, SealedObject, repair_or_wait, reread};
use crate::storage::{Key, pause};

/// How long a gap is watched before it is called one, unless what shows it was stored longer ago than storing takes:
/// segments are stored several at a time, so a later one can be there before an earlier one whose connection stalls.
const GAP_GRACE: Duration = Duration::from_secs(30);

/// Gets WAL files of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    cluster: Cluster,
    /// For one access to the repository.
    limit: Duration,
    /// For watching a gap.
    grace: Duration,
    /// For decompressing and writing: as many at once as there are cores to do it.
    workers: Arc<Semaphore>,
    /// Complete backups, as far as they were needed: they tell what WAL there must be.
    backups: Arc<Mutex<BTreeMap<BackupId, BackupDescription>>>,
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
pub struct GapError {
    pub missing: SegmentName,
    pub store: String,
    pub proof: GapEvidence,
}

/// The segment was deleted on purpose: it was not the end of the archive.
#[derive(Debug, thiserror::Error)]
#[error("WAL segment \"{missing}\" was deleted by retention in {store}")]
pub struct ExpiredError {
    pub missing: SegmentName,
    pub store: String,
}

/// The history file is missing although its timeline exists.
#[derive(Debug, thiserror::Error)]
#[error(
    "timeline history file \"{}\" is missing in {store}, but timeline {timeline} exists: \"{}\" is there",
    WalFileName::History(*timeline),
    proof.shown_by
)]
pub struct HistoryLost {
    pub timeline: TimelineId,
    pub store: String,
    pub proof: GapEvidence,
}

/// A miss that is not the end of the archive.
struct Lost {
    error: anyhow::Error,
    /// How long ago what shows it was stored.
    age: Duration,
}

impl Fetcher {
    /// For a cluster; waits for the repository no longer than `limit`, decompresses `workers` files at once.
    pub fn new(cluster: Cluster, limit: Duration, workers: usize) -> Self {
        let workers = Arc::new(Semaphore::new(workers.max(1)));
        Self {
            cluster,
            limit,
            grace: GAP_GRACE,
            workers,
            backups: Arc::default(),
        }
    }

    /// Watches a gap no longer than this, for who asks again anyway.
    pub fn watching_gaps(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How long it waits for the repository.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The cluster whose WAL is fetched.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Puts the file `name` at `destination`, replacing what is there, or says that there is none. Segments from
    /// `end` on are absent without looking. Errors: [`GapError`], a damaged object, a repository that does not answer.
    pub async fn fetch(
        &self,
        name: &WalFileName,
        destination: &Path,
        end: Option<SegmentName>,
    ) -> anyhow::Result<Fetched> {
        let beside = beside(destination)?;
        // A process that was killed within this left it.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(anyhow!(error))
                    .with_context(|| format!("cannot remove \"{}\"", beside.display()))
                    .hint("let the user who runs Walden write to the folder");
            }
            // Any other trouble with the folder shows when the file is made.
            _ => (),
        }
        match self.obtain(name, &beside, end).await? {
            false => Ok(Fetched::Absent),
            true => {
                let renamed = fs::rename(&beside, destination)
                    .inspect_err(|_| drop(fs::remove_file(&beside)));
                renamed.with_context(|| {
                    format!("cannot put \"{name}\" at \"{}\"", destination.display())
                })?;
                Ok(Fetched::Delivered)
            }
        }
    }

    /// Makes the file `path` of the content of `name`, or says (`false`) that the repository proves there is none.
    pub async fn obtain(
        &self,
        name: &WalFileName,
        path: &Path,
        end: Option<SegmentName>,
    ) -> anyhow::Result<bool> {
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
            let Some(lost) = within(self.limit, &what, self.explain(name)).await? else {
                return Ok(false);
            };
            let pause = pause(attempt);
            if lost.age > self.limit + GAP_GRACE
                || begin.elapsed() + pause > self.grace.min(self.limit)
            {
                return Err(lost.error);
            }
            sleep(pause).await;
        }
        unreachable!("the loop above ends by returning")
    }

    /// Makes the file `path` of the content of `name`, verified; `false` when the repository has no such object, which
    /// alone proves nothing. `path` must not exist and is removed again on an error.
    pub async fn retrieve(&self, name: &WalFileName, path: &Path) -> anyhow::Result<bool> {
        reread(is_damaged, || self.retrieve_once(name, path)).await
    }

    async fn retrieve_once(&self, name: &WalFileName, path: &Path) -> anyhow::Result<bool> {
        let key = self.cluster.layout.wal(name);
        let what = format!("cannot fetch \"{name}\"");
        let longest = name.longest(self.cluster.description.segment_size);
        let get = self.cluster.repository.get_sealed(&key, WAL_KIND, longest);
        let object = within(self.limit, &what, get)
            .await
            .map_err(|error| with_repair_hint(error, &key))?;
        let Some(object) = object else {
            return Ok(false);
        };
        let _place = self.workers.acquire().await?;
        let (this, name, path) = (self.clone(), *name, path.to_path_buf());
        let write = move || this.write_out(&name, &key, &object, &path);
        tokio::task::spawn_blocking(write).await?.context(what)?;
        Ok(true)
    }

    /// What it means that `name` is not in the repository; `None`: that it never was.
    async fn explain(&self, name: &WalFileName) -> anyhow::Result<Option<Lost>> {
        // On both sides: a disk that was mounted or unmounted meanwhile had nothing to show.
        gap_evidence::confirm(&self.cluster).await?;
        let facts =
            gap_evidence::gather(&self.cluster, name, &mut *self.backups.lock().await).await?;
        gap_evidence::confirm(&self.cluster).await?;
        let store = self.cluster.repository.describe();
        let lost = match *name {
            // Whatever else shows.
            WalFileName::Segment(missing)
                if load_expired(&self.cluster).await?.contains(missing) =>
            {
                Lost {
                    age: Duration::MAX,
                    error: with_hint(
                        ExpiredError { missing, store }.into(),
                        "restore to a moment that is still kept: `walden target` shows them",
                    ),
                }
            }
            WalFileName::Segment(missing) => {
                match judge(missing, self.cluster.description.segment_size, &facts) {
                    Absence::End => return Ok(None),
                    Absence::Gap(proof) => Lost {
                        age: proof.age,
                        error: with_hint(
                            GapError {
                                missing,
                                store,
                                proof,
                            }
                            .into(),
                            "bring the segment from the server's pg_wal or a copy with `walden wal push`, or \
                         restore to before the gap",
                        ),
                    },
                }
            }
            WalFileName::History(timeline) => match judge_history(timeline, &facts) {
                Absence::End => return Ok(None),
                Absence::Gap(proof) => Lost {
                    age: proof.age,
                    error: with_hint(
                        HistoryLost {
                            timeline,
                            store,
                            proof,
                        }
                        .into(),
                        format!(
                            "store it again with `walden wal push <data directory>/pg_wal/{name}`; every \
                             server on that timeline has it"
                        ),
                    ),
                },
            },
            WalFileName::Partial(_) | WalFileName::Backup { .. } | WalFileName::Aside { .. } => {
                return Ok(None);
            }
        };
        Ok(Some(lost))
    }

    fn write_out(
        &self,
        name: &WalFileName,
        key: &Key,
        object: &SealedObject,
        path: &Path,
    ) -> anyhow::Result<()> {
        let damaged = |error: ObjectError| with_repair_hint(error.into(), key);
        let described = check_description(&self.cluster.description, name, object.header());
        described.map_err(|source| damaged(object.damaged(source)))?;
        let mut file = create(path)?;
        let result = match object.unseal(VerifyLevel::Stored, &mut file) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(damaged(error)),
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
}

/// What an object says that it holds. It may be whole and yet be another file's, after repairs by hand.
pub(super) fn check_description(
    ours: &ClusterDescription,
    name: &WalFileName,
    header: &EnvelopeHeader,
) -> Result<WalDescription, Damaged> {
    let described: WalDescription = header
        .about
        .read()
        .map_err(|error| Damaged(format!("its header does not describe a WAL file: {error}")))?;
    if described.name != name.handed_over() || described.system_identifier != ours.system_identifier
    {
        return Err(Damaged(format!(
            "it holds \"{}\" of the server with system identifier {}",
            described.name, described.system_identifier
        )));
    }
    let expected = ours.segment_size.bytes();
    match name {
        WalFileName::Segment(_) if header.plain.size != expected => Err(Damaged(format!(
            "it holds {} bytes, a segment has {expected}",
            header.plain.size
        ))),
        _ => Ok(described),
    }
}

fn is_damaged(error: &anyhow::Error) -> bool {
    matches!(
        find::<ObjectError>(error),
        Some(ObjectError::Damaged { .. })
    )
}

pub(super) fn with_repair_hint(error: anyhow::Error, key: &Key) -> anyhow::Error {
    let repair = "repair the repository: bring back object";
    repair_or_wait(
        error,
        format!("{repair} \"{key}\" from a copy of it, or restore to a target before it"),
    )
}

/// A name beside `path`, on the same file system; always the same, so that at most one is ever left there.
fn beside(path: &Path) -> anyhow::Result<PathBuf> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else {
        return Err(anyhow!("\"{}\" cannot name a file", path.display()));
    };
    let mut own = OsString::from(".walden-fetch-");
    own.push(name);
    Ok(folder.join(own))
}

fn create(path: &Path) -> anyhow::Result<File> {
    // Root also fetches by hand, into the server's folder.
    let file = owner::create(path, |made| {
        owner::inherit(made, path.parent().unwrap_or(path))
    });
    file.with_context(|| format!("cannot make \"{}\"", path.display()))
        .hint("make the folder, and let the user who runs Walden write to it")
}
