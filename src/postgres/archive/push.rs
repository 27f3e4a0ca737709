//! Storing one WAL file: check whose it is, read it once, store it under a name that is written once.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};

use super::aside::{self, AsideReason};
use super::encoded::{EncodedFile, Fingerprint, Odd};
use super::file_identity::{self, ForeignFile};
use super::limit::within;
use super::summarize::Summarized;
use crate::codec::{Compressed, Digest, EnvelopeHeader, Sealer, sealed_bound};
use crate::error::{Hint, find, with_hint};
use crate::postgres::catalog::{ClusterDescription, WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{
    LONGEST_SMALL_FILE, LongPageHeader, SegmentName, SegmentSize, WalFileName,
};
use crate::repo::{ObjectError, PutSealed, UPGRADE};
use crate::storage::Key;

/// Stores WAL files of one cluster. Cheap to clone; clones share buffers.
#[derive(Clone)]
pub struct Pusher {
    cluster: Cluster,
    level: i32,
    /// For one access to the repository.
    limit: Duration,
    sealers: Arc<Mutex<Vec<Sealer>>>,
}

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// This push stored the object.
    Now,
    /// The same content was stored before.
    Before,
    /// It lies beside its name, stored now or before.
    Aside,
}

/// The name is taken by other content.
#[derive(Debug, thiserror::Error)]
#[error(
    "WAL file \"{name}\" is archived already with other content: object \"{key}\" in {store}, archived at \
     {kept_at}, has {kept_size} bytes with digest {kept}; the file \"{path}\", read at {found_at}, has {found_size} \
     bytes with digest {found}"
)]
pub struct Conflict {
    pub name: WalFileName,
    pub key: String,
    pub store: String,
    pub kept_at: String,
    pub kept: Digest,
    pub kept_size: u64,
    pub path: String,
    pub found_at: String,
    pub found: Digest,
    pub found_size: u64,
}

const CONFLICT_HINT: &str = "does a second server or a restored copy archive under this cluster name? Turn its archiving off, or \
     give it a `cluster.name` of its own (`walden init`). If the stored file is the wrong one, take a base \
     backup under another cluster name";

impl Pusher {
    /// Compresses at zstd level `level`, waits for the repository no longer than `limit`.
    pub fn new(cluster: Cluster, level: i32, limit: Duration) -> Self {
        Self {
            cluster,
            level,
            limit,
            sealers: Arc::default(),
        }
    }

    /// The cluster that the WAL must belong to.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stores the file at `path`; durable when this returns. Errors: [`ForeignFile`], [`Conflict`], a file that cannot be
    /// read, a repository that does not answer.
    pub async fn push(&self, path: &Path) -> anyhow::Result<PushOutcome> {
        let (this, owned) = (self.clone(), path.to_path_buf());
        let prepared = tokio::task::spawn_blocking(move || this.prepare(&owned)).await??;
        self.store(&prepared).await
    }

    /// Whether the repository has an object of this file's name. An answer that does not come counts as no.
    pub async fn holds(&self, path: &Path) -> bool {
        let Ok(name) = wal_file_name(path) else {
            return false;
        };
        let key = self.cluster.layout.wal(&name);
        let head = self.cluster.repository.storage().head(&key);
        matches!(
            tokio::time::timeout(self.limit, head).await,
            Ok(Ok(Some(_)))
        )
    }

    /// Checks, reads and compresses the file at `path`. Blocking: takes a core for a while.
    pub fn prepare(&self, path: &Path) -> anyhow::Result<EncodedFile> {
        self.prepare_at(path, Utc::now())
            .with_context(|| format!("cannot archive \"{}\"", path.display()))
    }

    /// Stores what was prepared; durable when this returns.
    pub async fn store(&self, prepared: &EncodedFile) -> anyhow::Result<PushOutcome> {
        if let Some(Odd::Aside(why)) = &prepared.odd {
            return self.store_aside(prepared, why, None).await;
        }
        let key = self.cluster.layout.wal(&prepared.name);
        match self.put(prepared, &key).await? {
            PutSealed::Stored => {
                prepared.tell();
                Ok(PushOutcome::Now)
            }
            PutSealed::SameContent => Ok(PushOutcome::Before),
            PutSealed::OtherContent(kept) => {
                self.store_aside(prepared, &AsideReason::Taken, Some(&kept))
                    .await
            }
        }
    }

    /// Keeps a file beside its name; durable when this returns. Errors: the name has other content, and may not.
    async fn store_aside(
        &self,
        prepared: &EncodedFile,
        why: &AsideReason,
        kept: Option<&EnvelopeHeader>,
    ) -> anyhow::Result<PushOutcome> {
        let own = self.cluster.layout.wal(&prepared.name);
        if let Some(kept) = kept {
            let compare =
                aside::may_differ(&self.cluster, &prepared.description, &prepared.path, kept);
            if !within(
                self.limit,
                &format!("cannot archive \"{}\"", prepared.name),
                compare,
            )
            .await?
            {
                return Err(self.conflict(prepared, &own.to_string(), kept));
            }
        }
        let name = aside::name(&prepared.name, &prepared.sealed.header.plain.digest);
        let name = name.with_context(|| format!("\"{}\" has no other name", prepared.name))?;
        let key = self.cluster.layout.wal(&name);
        match self.put(prepared, &key).await? {
            PutSealed::Stored => {
                let told = format!(
                    "\"{}\" is archived aside, as \"{name}\": {why}",
                    prepared.name
                );
                match prepared.name {
                    WalFileName::Segment(_) if !matches!(why, AsideReason::Left { .. }) => {
                        tracing::warn!("{told}")
                    }
                    _ => tracing::info!("{told}"),
                }
                Ok(PushOutcome::Aside)
            }
            PutSealed::SameContent => Ok(PushOutcome::Aside),
            PutSealed::OtherContent(kept) => Err(self.conflict(prepared, &key.to_string(), &kept)),
        }
    }

    async fn put(&self, prepared: &EncodedFile, key: &Key) -> anyhow::Result<PutSealed> {
        let put = self.cluster.repository.put_sealed(key, &prepared.sealed);
        let error = match within(
            self.limit,
            &format!("cannot archive \"{}\"", prepared.name),
            put,
        )
        .await
        {
            Ok(put) => return Ok(put),
            Err(error) => error,
        };
        Err(match find::<ObjectError>(&error) {
            Some(ObjectError::Damaged { .. }) => with_hint(
                error,
                "repair the object from a copy, or move it away so that it can be stored again",
            ),
            Some(ObjectError::Newer { .. }) => with_hint(error, UPGRADE),
            Some(ObjectError::Storage(_) | ObjectError::Unchecked { .. }) => with_hint(
                error,
                "check the repository's space, permissions and connection; PostgreSQL keeps the file and \
                 tries again",
            ),
            Some(ObjectError::Absent { .. }) | None => error,
        })
    }

    /// Gives buffers back that serve between pushes.
    pub fn trim(&self) {
        self.sealers().clear();
    }

    fn prepare_at(&self, path: &Path, now: DateTime<Utc>) -> anyhow::Result<EncodedFile> {
        let name = wal_file_name(path)?;
        let mut file = File::open(path).hint("let the user who runs Walden read the file")?;
        let before = file.metadata()?;
        let cluster = &self.cluster.description;
        let mut description = WalDescription {
            name,
            system_identifier: cluster.system_identifier,
            timeline: name.timeline(),
            major: None,
            archived_at: now,
            frames: Vec::new(),
            summary: None,
        };
        let (compressed, odd) = match name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                self.prepare_segment(path, &mut file, &segment, &mut description)?
            }
            _ => self.prepare_small(path, &mut file, &name)?,
        };
        let (before, after) = (Fingerprint::of(&before), Fingerprint::of(&file.metadata()?));
        if before != after {
            let error = anyhow!("the file changed while it was being read");
            return Err(with_hint(
                error,
                "does something else write to pg_wal? PostgreSQL hands over finished files only",
            ));
        }
        let fingerprint = after.is_settled(SystemTime::now()).then_some(after);
        let sealed = compressed.seal(WAL_KIND, &description);
        Ok(EncodedFile {
            name,
            path: path.to_path_buf(),
            description,
            sealed,
            odd,
            fingerprint,
        })
    }

    fn prepare_segment(
        &self,
        path: &Path,
        file: &mut File,
        segment: &SegmentName,
        description: &mut WalDescription,
    ) -> anyhow::Result<(Compressed, Option<Odd>)> {
        let (cluster, length) = (&self.cluster.description, file.metadata()?.len());
        let mut first = [0; LongPageHeader::LEN];
        let read = file.read_at(&mut first, 0)?;
        let mut aside = None;
        match file_identity::check_segment(cluster, segment, length, &first[..read]) {
            Err(ForeignFile::Header(_) | ForeignFile::Address { .. })
                if aside::is_not_written(cluster, segment, file)? =>
            {
                aside = Some(AsideReason::NotWritten);
            }
            major => description.major = Some(major.map_err(refused)?),
        }
        let size = cluster.segment_size;
        let mut source = Summarized::new(file, segment.start(size), size);
        let compressed = self.compress(&mut source, length, size.part())?;
        description.frames = compressed.frames().to_vec();
        let summary = source.finish();
        if let (WalFileName::Segment(_), Some(stop)) = (description.name, &summary.stop) {
            aside = aside.or_else(|| aside::left(path, segment, stop.lsn));
        }
        description.summary = aside.is_none().then(|| Box::new(summary));
        Ok((compressed, aside.map(Odd::Aside)))
    }

    /// Of a history or backup history file.
    fn prepare_small(
        &self,
        path: &Path,
        file: &mut File,
        name: &WalFileName,
    ) -> anyhow::Result<(Compressed, Option<Odd>)> {
        let cluster = &self.cluster.description;
        check_data_directory(cluster, path).map_err(refused)?;
        let length = file.metadata()?.len();
        let content = read_small(file, length)?;
        let unreadable = match name {
            WalFileName::History(timeline) => file_identity::check_history(*timeline, &content),
            WalFileName::Backup { segment, offset } => {
                file_identity::check_backup(cluster, segment, *offset, &content)
            }
            _ => Ok(None),
        };
        Ok((
            self.compress_small(&content)?,
            unreadable.map_err(refused)?.map(Odd::Unreadable),
        ))
    }

    fn compress_small(&self, content: &[u8]) -> anyhow::Result<Compressed> {
        let size = content.len() as u64;
        self.compress(&mut &content[..], size, size)
    }

    fn compress(&self, source: &mut dyn Read, size: u64, frame: u64) -> anyhow::Result<Compressed> {
        let kept = self.sealers().pop();
        let mut sealer = kept.map_or_else(|| Sealer::new(self.level), Ok)?;
        let compressed = sealer.compress(source, size, frame)?;
        self.sealers().push(sealer);
        Ok(compressed)
    }

    fn sealers(&self) -> std::sync::MutexGuard<'_, Vec<Sealer>> {
        self.sealers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conflict(&self, prepared: &EncodedFile, key: &str, kept: &EnvelopeHeader) -> anyhow::Error {
        let archived_at = |header: &EnvelopeHeader| {
            let about = header.about.read::<serde_json::Value>().unwrap_or_default();
            about["archived_at"]
                .as_str()
                .unwrap_or("an unknown time")
                .to_string()
        };
        let found = &prepared.sealed.header;
        let conflict = Conflict {
            name: prepared.name,
            key: key.to_string(),
            store: self.cluster.repository.describe(),
            kept_at: archived_at(kept),
            kept: kept.plain.digest,
            kept_size: kept.plain.size,
            path: prepared.path.display().to_string(),
            found_at: archived_at(found),
            found: found.plain.digest,
            found_size: found.plain.size,
        };
        with_hint(conflict.into(), CONFLICT_HINT)
    }
}

fn refused(refused: ForeignFile) -> anyhow::Error {
    let hint = refused.hint();
    with_hint(refused.into(), hint)
}

/// The WAL file that a path names.
pub fn wal_file_name(path: &Path) -> anyhow::Result<WalFileName> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hint = "give the path of a WAL file: %p in archive_command";
    match name.parse().hint(hint)? {
        WalFileName::Aside { .. } => {
            Err(anyhow!("\"{name}\" is no name that PostgreSQL gives")).hint(hint)
        }
        name => Ok(name),
    }
}

/// Bytes in memory that preparing a file may take: all that compression can make of it.
pub fn worst_memory(name: &WalFileName, segment_size: SegmentSize) -> u64 {
    match name {
        WalFileName::Segment(_) | WalFileName::Partial(_) => sealed_bound(segment_size.bytes()),
        WalFileName::History(_) | WalFileName::Backup { .. } | WalFileName::Aside { .. } => {
            2 * LONGEST_SMALL_FILE
        }
    }
}

/// Refuses a file beside another cluster's `global/pg_control`.
fn check_data_directory(cluster: &ClusterDescription, path: &Path) -> Result<(), ForeignFile> {
    let control = path
        .parent()
        .and_then(Path::parent)
        .map(|data| std::fs::read(data.join("global/pg_control")));
    match control {
        Some(Ok(bytes)) => file_identity::check_control(cluster, &bytes),
        _ => Ok(()),
    }
}

fn read_small(file: &mut File, size: u64) -> anyhow::Result<Vec<u8>> {
    if size > LONGEST_SMALL_FILE {
        let error = anyhow!(
            "the file has {size} bytes, files of its kind have at most {LONGEST_SMALL_FILE}"
        );
        return Err(with_hint(
            error,
            "look at the file: PostgreSQL writes only a few lines to such a one",
        ));
    }
    let mut content = Vec::new();
    file.take(LONGEST_SMALL_FILE).read_to_end(&mut content)?;
    Ok(content)
}
