//! One object from one repository into the other: read whole, verified, stored where nothing is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use serde::Serialize;

use super::proof::{Snapshot, needed};
use super::{CopyOptions, CopyProgress};
use crate::budget::Budget;
use crate::error::{Hint, one_line, with_hint};
use crate::postgres::archive::verify::check_object;
use crate::postgres::backup::manifest;
use crate::postgres::backup::wal::is_proven;
use crate::postgres::catalog::{BackupDescription, WAL_KIND};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, PackName};
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::repository::verify::read_back;
use crate::postgres::repository::{MAX_TOLD, MAX_UNREAD, TaskPool, pack_sizes, whole_pack};
use crate::postgres::types::WalFileName;
use crate::repo::{ObjectError, SealedObject, is_unusable, reread};
use crate::storage::{Key, PutMode, PutOutcome};

/// What to do when a repository did not answer.
const AGAIN: &str = "run the same again once the repository answers: what was copied is not copied again";

/// Why an object that was listed is missing.
const VANISHED: &str = "it vanished during the copy";

/// Which repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CopySide {
    Source,
    Destination,
}

/// An object that is not at the destination as it must be; and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyFailure {
    pub object: String,
    /// Where the problem lies.
    pub at: CopySide,
    pub problem: ProblemKind,
    pub why: String,
}

/// Objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CopyCount {
    pub copied: u64,
    /// Stored bytes of those copied.
    pub copied_bytes: u64,
    /// There already, and as far as it was looked at the same.
    pub present: u64,
    /// Of these, the ones that were not read: compared by header (WAL files, manifests) or size (packs) only.
    pub not_read: u64,
}

/// Objects by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// WAL files of all kinds.
    pub wal: CopyCount,
    pub packs: CopyCount,
    /// Backups, by their manifests.
    pub backups: CopyCount,
    /// Recordings of names.
    pub names: CopyCount,
    /// Idle markers.
    pub idle: CopyCount,
}

/// How an object came to be at the destination, or how it is known that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Copied,
    /// It was there; it is read back with its backup.
    Present,
    /// It was there, and is not read.
    NotRead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyGroup {
    Wal,
    Packs,
    Backups,
    Names,
    Idle,
}

#[derive(Debug, Default)]
struct CopyTally {
    counts: Counts,
    failures: Vec<CopyFailure>,
    more_failures: u64,
    unread: u64,
}

/// What all work of one copy shares.
pub struct Copier {
    pub source: Cluster,
    pub destination: Cluster,
    pub workers: usize,
    budget: Budget,
    progress: Arc<CopyProgress>,
    tally: Mutex<CopyTally>,
    /// Names that were listed are in another recording by now, which the next listing shows.
    pub merged: AtomicBool,
}

/// What is to be done about a pack that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackAction {
    Copy(u64),
    Present,
    Fail(ProblemKind),
}

/// Decides by the pack's size at the source and at the destination; the manifest needs `least` bytes of it.
fn step(source: Option<u64>, destination: Option<u64>, least: u64) -> PackAction {
    match (source, destination) {
        (None, None) => PackAction::Fail(ProblemKind::Missing),
        (Some(size), _) if size < least => PackAction::Fail(ProblemKind::Damaged),
        (Some(size), None) => PackAction::Copy(size),
        (Some(size), Some(there)) if size != there => PackAction::Fail(ProblemKind::Conflict),
        // Lost at the source since an earlier copy.
        (None, Some(there)) if there < least => PackAction::Fail(ProblemKind::Missing),
        _ => PackAction::Present,
    }
}

impl Copier {
    /// Nothing copied yet.
    pub fn new(source: Cluster, destination: Cluster, options: &CopyOptions, progress: Arc<CopyProgress>) -> Self {
        let (workers, budget) = (options.workers, Budget::new(options.memory));
        Self { source, destination, workers, budget, progress, tally: Mutex::default(), merged: AtomicBool::new(false) }
    }

    /// What was copied and what was not, and how many failures are not listed.
    pub fn results(&self) -> (Counts, Vec<CopyFailure>, u64) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failures = std::mem::take(&mut tally.failures);
        failures.sort_by(|a, b| a.object.cmp(&b.object));
        (tally.counts, failures, tally.more_failures)
    }

    fn count(&self, group: CopyGroup, bytes: u64, came: Came) -> bool {
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match group {
            CopyGroup::Wal => &mut tally.counts.wal,
            CopyGroup::Packs => &mut tally.counts.packs,
            CopyGroup::Backups => &mut tally.counts.backups,
            CopyGroup::Names => &mut tally.counts.names,
            CopyGroup::Idle => &mut tally.counts.idle,
        };
        match came {
            Came::Copied => (count.copied, count.copied_bytes) = (count.copied + 1, count.copied_bytes + bytes),
            Came::Present => count.present += 1,
            Came::NotRead => (count.present, count.not_read) = (count.present + 1, count.not_read + 1),
        }
        true
    }

    /// Notes that an object is not at the destination as it must be; false. Errors: the source is gone.
    pub fn failed(&self, at: CopySide, key: &Key, problem: ProblemKind, why: String) -> anyhow::Result<bool> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if problem == ProblemKind::Unread {
            tally.unread += 1;
            if tally.unread > MAX_UNREAD {
                return Err(with_hint(
                    anyhow!("more than {MAX_UNREAD} objects cannot be read, the last: {why}"),
                    AGAIN,
                ));
            }
        }
        let object = key.to_string();
        // A pack that several backups need is told once.
        if tally.failures.iter().any(|failure| failure.object == object && failure.problem == problem) {
            return Ok(false);
        }
        match tally.failures.len() < MAX_TOLD {
            true => tally.failures.push(CopyFailure { object, at, problem, why }),
            false => tally.more_failures += 1,
        }
        Ok(false)
    }

    /// What was read of an object of the source; `None` after noting that it is not there, or why it is of no use.
    fn given<T>(&self, key: &Key, read: Result<Option<T>, ObjectProblem>) -> anyhow::Result<Option<T>> {
        match read {
            Ok(Some(given)) => Ok(Some(given)),
            Ok(None) => self.failed(CopySide::Source, key, ProblemKind::Missing, VANISHED.into()).map(|_| None),
            Err(ObjectProblem { problem, why }) => self.failed(CopySide::Source, key, problem, why).map(|_| None),
        }
    }

    /// Copies a WAL file, of which only the name is known.
    pub async fn named_wal(&self, name: WalFileName) -> anyhow::Result<bool> {
        let key = self.source.layout.wal(&name);
        let there = self.destination.repository.storage().head(&key).await.hint(AGAIN)?.map(|meta| meta.size);
        let ours = self.source.repository.storage().head(&key).await.hint(AGAIN)?;
        match ours {
            Some(ours) => self.wal(name, ours.size, there).await,
            None => self.failed(CopySide::Source, &key, ProblemKind::Missing, VANISHED.into()),
        }
    }

    /// Copies a WAL file, or compares it with what is `there`; sizes in stored bytes.
    pub async fn wal(&self, name: WalFileName, size: u64, there: Option<u64>) -> anyhow::Result<bool> {
        let key = self.source.layout.wal(&name);
        if let Some(there) = there {
            return self.compare(&key, size, there).await;
        }
        let _share = self.budget.share(size).await;
        let longest = name.longest(self.source.description.segment_size);
        let read = async || {
            let read = self.source.repository.get_sealed(&key, WAL_KIND, longest).await?;
            let Some(object) = read else { return Ok(None) };
            check_object(&self.source, name, object.clone()).await?;
            Ok(Some(object.into_bytes()))
        };
        let Some(object) = self.given(&key, reread(ObjectProblem::is_damage, read).await)? else { return Ok(false) };
        let size = object.len() as u64;
        match self.put(&key, object).await? {
            PutOutcome::Stored => Ok(self.count(CopyGroup::Wal, size, Came::Copied)),
            PutOutcome::AlreadyExists => match self.destination.repository.storage().head(&key).await.hint(AGAIN)? {
                Some(there) => self.compare(&key, size, there.size).await,
                None => self.failed(CopySide::Destination, &key, ProblemKind::Missing, VANISHED.into()),
            },
        }
    }

    async fn put(&self, key: &Key, object: Bytes) -> anyhow::Result<PutOutcome> {
        self.destination.repository.storage().put(key, object.into(), PutMode::CreateOnly).await.hint(AGAIN)
    }

    /// Compares a WAL file in both repositories by the headers.
    async fn compare(&self, key: &Key, size: u64, there: u64) -> anyhow::Result<bool> {
        let ours = reread(ObjectError::is_damage, || self.source.repository.header_once(key, size, WAL_KIND)).await;
        let Some(ours) = self.given(key, ours.map_err(ObjectProblem::from))? else { return Ok(false) };
        let theirs = || self.destination.repository.header_once(key, there, WAL_KIND);
        match reread(ObjectError::is_damage, theirs).await {
            Ok(Some(theirs)) if theirs.plain == ours.plain => Ok(self.count(CopyGroup::Wal, size, Came::NotRead)),
            Ok(Some(theirs)) => {
                let why = format!(
                    "its content has {} bytes and digest {}, the source's has {} and {}",
                    theirs.plain.size, theirs.plain.digest, ours.plain.size, ours.plain.digest
                );
                self.failed(CopySide::Destination, key, ProblemKind::Conflict, why)
            }
            Ok(None) => self.failed(CopySide::Destination, key, ProblemKind::Missing, VANISHED.into()),
            Err(ObjectError::Storage(error)) => Err(error).hint(AGAIN),
            Err(error) => {
                let ObjectProblem { problem, why } = error.into();
                self.failed(CopySide::Destination, key, problem, why)
            }
        }
    }

    /// Copies a recording of names, whose name is random, or an idle marker, whose name says it all; unless it is there.
    pub async fn small(&self, key: Key, group: CopyGroup, (kind, most): (&str, u64)) -> anyhow::Result<bool> {
        if self.destination.repository.storage().head(&key).await.hint(AGAIN)?.is_some() {
            return Ok(self.count(group, 0, Came::NotRead));
        }
        let read = self.source.repository.get_verified(&key, kind, most).await;
        if group == CopyGroup::Names && matches!(read, Ok(None)) {
            self.merged.store(true, Ordering::SeqCst);
            return Ok(true);
        }
        let Some(object) = self.given(&key, read.map_err(ObjectProblem::from))? else { return Ok(false) };
        let object = object.into_bytes();
        let size = object.len() as u64;
        let came = match self.put(&key, object).await? {
            PutOutcome::Stored => Came::Copied,
            PutOutcome::AlreadyExists => Came::NotRead,
        };
        Ok(self.count(group, size, came))
    }

    fn phase(&self, phase: String) {
        *self.progress.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Copies a backup: the packs, then, after reading them back, the manifest. The WAL it needs was copied before.
    pub async fn backup(self: &Arc<Self>, before: &Snapshot, backup: &BackupDescription) -> anyhow::Result<()> {
        let (key, kind) = (self.source.layout.manifest(&backup.id), manifest::KIND);
        self.phase(format!("backup {}", backup.id));
        // Not of the budget: there is one manifest at a time, and its packs must find room beside it.
        let read = self.source.repository.get_verified(&key, kind, manifest::LONGEST).await;
        let Some(manifest) = self.given(&key, read.map_err(ObjectProblem::from))? else { return Ok(()) };
        let scanned = manifest.clone();
        let scan = tokio::task::spawn_blocking(move || manifest::needed_packs(&scanned));
        let packs = match scan.await.context("the thread that reads a manifest failed")? {
            Ok(packs) => packs,
            Err(error) => return self.failed(CopySide::Source, &key, ProblemKind::Damaged, one_line(&error)).map(drop),
        };
        let present = match self.destination.repository.header(&key, kind).await {
            Ok(theirs) if theirs.as_ref().is_some_and(|theirs| theirs.plain != manifest.header().plain) => {
                let why = "the destination has another backup of that name".to_string();
                return self.failed(CopySide::Destination, &key, ProblemKind::Conflict, why).map(drop);
            }
            Ok(theirs) => theirs.is_some(),
            Err(ObjectError::Storage(error)) => return Err(error).hint(AGAIN),
            Err(error) => {
                let ObjectProblem { problem, why } = error.into();
                return self.failed(CopySide::Destination, &key, problem, why).map(drop);
            }
        };
        // The packs of a backup that is there are not read back.
        let there = if present { Came::NotRead } else { Came::Present };
        let whole = self.packs(&backup.id, packs, there).await?;
        if present {
            self.count(CopyGroup::Backups, 0, Came::NotRead);
        } else if whole && self.has_wal(before, backup).await? && self.reads_back(&backup.id, manifest.clone()).await? {
            let object = manifest.into_bytes();
            let size = object.len() as u64;
            match self.put(&key, object).await? {
                PutOutcome::Stored => drop(self.count(CopyGroup::Backups, size, Came::Copied)),
                PutOutcome::AlreadyExists => drop(self.count(CopyGroup::Backups, 0, Came::NotRead)),
            }
        }
        Ok(())
    }

    /// Copies packs; whether all are at the destination. Those that were `there` before count as that.
    async fn packs(
        self: &Arc<Self>,
        id: &BackupId,
        needed: BTreeMap<PackName, u64>,
        there: Came,
    ) -> anyhow::Result<bool> {
        let mut pool = TaskPool::new(self.workers);
        let mut whole = true;
        let mut sizes: BTreeMap<BackupId, [BTreeMap<Key, u64>; 2]> = BTreeMap::new();
        for (pack, least) in needed {
            if !sizes.contains_key(&pack.backup) {
                let both = [
                    pack_sizes(&self.source, &pack.backup).await.hint(AGAIN)?,
                    pack_sizes(&self.destination, &pack.backup).await.hint(AGAIN)?,
                ];
                sizes.insert(pack.backup.clone(), both);
            }
            let key = self.source.layout.pack(&pack);
            let size = |side: usize| sizes.get(&pack.backup).and_then(|both| both[side].get(&key).copied());
            whole &= match step(size(0), size(1), least) {
                PackAction::Present => self.count(CopyGroup::Packs, size(1).unwrap_or_default(), there),
                PackAction::Copy(size) => {
                    let copier = self.clone();
                    pool.add(async move { copier.pack(&key, size, there).await }).await?;
                    true
                }
                PackAction::Fail(problem) => {
                    let why = match problem {
                        ProblemKind::Conflict => "its size is not that of the source's".to_string(),
                        ProblemKind::Damaged => format!("it has not the {least} bytes that backup {id} needs"),
                        _ => format!("backup {id} needs it, and there is no such object"),
                    };
                    let at = if problem == ProblemKind::Conflict { CopySide::Destination } else { CopySide::Source };
                    self.failed(at, &key, problem, why)?
                }
            };
        }
        Ok(pool.finish().await? && whole)
    }

    async fn pack(&self, key: &Key, size: u64, there: Came) -> anyhow::Result<bool> {
        let _share = self.budget.share(size).await;
        let read = whole_pack(&self.source, key).await.map(|(object, _)| Some(object));
        let Some(object) = self.given(key, read)? else { return Ok(false) };
        let size = object.len() as u64;
        match self.put(key, object).await? {
            PutOutcome::Stored => Ok(self.count(CopyGroup::Packs, size, Came::Copied)),
            // Stored by another copy that runs, or by a put whose answer was lost.
            PutOutcome::AlreadyExists => Ok(self.count(CopyGroup::Packs, size, there)),
        }
    }

    /// Whether the destination has all WAL of a backup that the source has: what the source lacks is its own loss.
    async fn has_wal(&self, before: &Snapshot, backup: &BackupDescription) -> anyhow::Result<bool> {
        for name in needed(backup).files(backup.segment_size) {
            match is_proven(&self.destination, &name).await {
                Ok(true) => (),
                Ok(false) if before.has(&name) => return Ok(false),
                Ok(false) => (),
                Err(error) if !is_unusable(&error) => return Err(error).hint(AGAIN),
                Err(error) => {
                    let ObjectProblem { problem, why } = ObjectProblem::unusable(&error);
                    return self.failed(CopySide::Destination, &self.destination.layout.wal(&name), problem, why);
                }
            }
        }
        Ok(true)
    }

    /// Reads all files of a backup from the destination; whether all have the digests of the `manifest`.
    async fn reads_back(&self, id: &BackupId, manifest: SealedObject) -> anyhow::Result<bool> {
        self.phase(format!("reading backup {id} back"));
        let findings = read_back(&self.destination, id, manifest, self.workers).await.hint(AGAIN)?;
        for damage in findings.damages() {
            let key = Key::new(damage.object).unwrap_or_else(|_| self.destination.layout.manifest(id));
            self.failed(CopySide::Destination, &key, damage.problem, damage.why.to_string())?;
        }
        Ok(findings.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_copied_once_and_never_over_another() {
        assert_eq!(step(Some(10), None, 10), PackAction::Copy(10));
        assert_eq!(step(Some(10), Some(10), 10), PackAction::Present);
        assert_eq!(step(Some(10), Some(9), 5), PackAction::Fail(ProblemKind::Conflict));
        assert_eq!(step(Some(9), None, 10), PackAction::Fail(ProblemKind::Damaged));
        assert_eq!(step(None, None, 10), PackAction::Fail(ProblemKind::Missing));
        assert_eq!(step(None, Some(10), 10), PackAction::Present);
        assert_eq!(step(None, Some(9), 10), PackAction::Fail(ProblemKind::Missing));
    }
}
