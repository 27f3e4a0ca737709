//! One object from one repository into the other: read whole, verified, stored where nothing is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use bytes::Bytes;
use serde::Serialize;

use super::{CopyOptions, CopyProgress};
use crate::budget::Budget;
use crate::error::{Hint, with_hint};
use crate::postgres::archive::verify::check_object;
use crate::postgres::catalog::WAL_KIND;
use crate::postgres::cluster::Cluster;
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::repository::{MAX_TOLD, MAX_UNREAD};
use crate::postgres::types::WalFileName;
use crate::repo::{ObjectError, reread};
use crate::storage::{Key, PutMode, PutOutcome};

/// What to do when a repository did not answer.
pub(super) const AGAIN: &str =
    "run the same again once the repository answers: what was copied is not copied again";

/// ObjectProblem an object that was listed is missing.
const VANISHED: &str = "it vanished during the copy";

/// The side of a copy on which something happened.
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
    /// Logical dumps.
    pub dumps: CopyCount,
    /// Recordings of names.
    pub names: CopyCount,
    /// Idle markers.
    pub idle: CopyCount,
    /// Records of what was done.
    pub evidence: CopyCount,
}

/// How an object came to be at the destination, or how it is known that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
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
    Dumps,
    Names,
    Idle,
    Evidence,
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
    pub(super) budget: Budget,
    pub(super) progress: Arc<CopyProgress>,
    tally: Mutex<CopyTally>,
    /// Names that were listed are in another recording by now, which the next listing shows.
    pub merged: AtomicBool,
}

impl Copier {
    /// Nothing copied yet.
    pub fn new(
        source: Cluster,
        destination: Cluster,
        options: &CopyOptions,
        progress: Arc<CopyProgress>,
    ) -> Self {
        let (workers, budget) = (options.workers, Budget::new(options.memory));
        Self {
            source,
            destination,
            workers,
            budget,
            progress,
            tally: Mutex::default(),
            merged: AtomicBool::new(false),
        }
    }

    /// What was copied and what was not, and how many failures are not listed.
    pub fn results(&self) -> (Counts, Vec<CopyFailure>, u64) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failures = std::mem::take(&mut tally.failures);
        failures.sort_by(|a, b| a.object.cmp(&b.object));
        (tally.counts, failures, tally.more_failures)
    }

    pub(super) fn count(&self, group: CopyGroup, bytes: u64, came: Came) -> bool {
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
        self.tally(group, bytes, came);
        true
    }

    /// Counts what the progress has seen already.
    pub(super) fn tally(&self, group: CopyGroup, bytes: u64, came: Came) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match group {
            CopyGroup::Wal => &mut tally.counts.wal,
            CopyGroup::Packs => &mut tally.counts.packs,
            CopyGroup::Backups => &mut tally.counts.backups,
            CopyGroup::Dumps => &mut tally.counts.dumps,
            CopyGroup::Names => &mut tally.counts.names,
            CopyGroup::Idle => &mut tally.counts.idle,
            CopyGroup::Evidence => &mut tally.counts.evidence,
        };
        match came {
            Came::Copied => {
                (count.copied, count.copied_bytes) = (count.copied + 1, count.copied_bytes + bytes)
            }
            Came::Present => count.present += 1,
            Came::NotRead => {
                (count.present, count.not_read) = (count.present + 1, count.not_read + 1)
            }
        }
    }

    /// Notes that an object is not at the destination as it must be; false. Errors: the source is gone.
    pub fn failed(
        &self,
        at: CopySide,
        key: &Key,
        problem: ProblemKind,
        why: String,
    ) -> anyhow::Result<bool> {
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
        if tally
            .failures
            .iter()
            .any(|failure| failure.object == object && failure.problem == problem)
        {
            return Ok(false);
        }
        match tally.failures.len() < MAX_TOLD {
            true => tally.failures.push(CopyFailure {
                object,
                at,
                problem,
                why,
            }),
            false => tally.more_failures += 1,
        }
        Ok(false)
    }

    /// What was read of an object of the source; `None` after noting that it is not there, or why it is of no use.
    pub(super) fn given<T>(
        &self,
        key: &Key,
        read: Result<Option<T>, ObjectProblem>,
    ) -> anyhow::Result<Option<T>> {
        match read {
            Ok(Some(given)) => Ok(Some(given)),
            Ok(None) => self
                .failed(CopySide::Source, key, ProblemKind::Missing, VANISHED.into())
                .map(|_| None),
            Err(ObjectProblem { problem, why }) => self
                .failed(CopySide::Source, key, problem, why)
                .map(|_| None),
        }
    }

    /// Copies a WAL file, of which only the name is known.
    pub async fn named_wal(&self, name: WalFileName) -> anyhow::Result<bool> {
        let key = self.source.layout.wal(&name);
        let there = self
            .destination
            .repository
            .storage()
            .head(&key)
            .await
            .hint(AGAIN)?
            .map(|meta| meta.size);
        let ours = self
            .source
            .repository
            .storage()
            .head(&key)
            .await
            .hint(AGAIN)?;
        match ours {
            Some(ours) => self.wal(name, ours.size, there).await,
            None => self.failed(
                CopySide::Source,
                &key,
                ProblemKind::Missing,
                VANISHED.into(),
            ),
        }
    }

    /// Copies a WAL file, or compares it with what is `there`; sizes in stored bytes.
    pub async fn wal(
        &self,
        name: WalFileName,
        size: u64,
        there: Option<u64>,
    ) -> anyhow::Result<bool> {
        let key = self.source.layout.wal(&name);
        if let Some(there) = there {
            return self.compare(&key, size, there).await;
        }
        let _share = self.budget.share(size).await;
        let longest = name.longest(self.source.description.segment_size);
        let read = async || {
            let read = self
                .source
                .repository
                .get_sealed(&key, WAL_KIND, longest)
                .await?;
            let Some(object) = read else { return Ok(None) };
            check_object(&self.source, name, object.clone()).await?;
            Ok(Some(object.into_bytes()))
        };
        let Some(object) = self.given(&key, reread(ObjectProblem::is_damage, read).await)? else {
            return Ok(false);
        };
        let size = object.len() as u64;
        match self.put(&key, object).await? {
            PutOutcome::Stored => Ok(self.count(CopyGroup::Wal, size, Came::Copied)),
            PutOutcome::AlreadyExists => match self
                .destination
                .repository
                .storage()
                .head(&key)
                .await
                .hint(AGAIN)?
            {
                Some(there) => self.compare(&key, size, there.size).await,
                None => self.failed(
                    CopySide::Destination,
                    &key,
                    ProblemKind::Missing,
                    VANISHED.into(),
                ),
            },
        }
    }

    pub(super) async fn put(&self, key: &Key, object: Bytes) -> anyhow::Result<PutOutcome> {
        self.destination
            .repository
            .storage()
            .put(key, object.into(), PutMode::CreateOnly)
            .await
            .hint(AGAIN)
    }

    /// Compares a WAL file in both repositories by the headers.
    async fn compare(&self, key: &Key, size: u64, there: u64) -> anyhow::Result<bool> {
        let ours = reread(ObjectError::is_damage, || {
            self.source.repository.header_once(key, size, WAL_KIND)
        })
        .await;
        let Some(ours) = self.given(key, ours.map_err(ObjectProblem::from))? else {
            return Ok(false);
        };
        let theirs = || {
            self.destination
                .repository
                .header_once(key, there, WAL_KIND)
        };
        match reread(ObjectError::is_damage, theirs).await {
            Ok(Some(theirs)) if theirs.plain == ours.plain => {
                Ok(self.count(CopyGroup::Wal, size, Came::NotRead))
            }
            Ok(Some(theirs)) => {
                let why = format!(
                    "its content has {} bytes and digest {}, the source's has {} and {}",
                    theirs.plain.size, theirs.plain.digest, ours.plain.size, ours.plain.digest
                );
                self.failed(CopySide::Destination, key, ProblemKind::Conflict, why)
            }
            Ok(None) => self.failed(
                CopySide::Destination,
                key,
                ProblemKind::Missing,
                VANISHED.into(),
            ),
            Err(ObjectError::Storage(error)) => Err(error).hint(AGAIN),
            Err(error) => {
                let ObjectProblem { problem, why } = error.into();
                self.failed(CopySide::Destination, key, problem, why)
            }
        }
    }

    /// Copies a recording of names, whose name is random, or an idle marker, whose name says it all; unless it is there.
    pub async fn small(
        &self,
        key: Key,
        group: CopyGroup,
        (kind, most): (&str, u64),
    ) -> anyhow::Result<bool> {
        if self
            .destination
            .repository
            .storage()
            .head(&key)
            .await
            .hint(AGAIN)?
            .is_some()
        {
            return Ok(self.count(group, 0, Came::NotRead));
        }
        let read = self.source.repository.get_verified(&key, kind, most).await;
        if group == CopyGroup::Names && matches!(read, Ok(None)) {
            self.merged.store(true, Ordering::SeqCst);
            return Ok(true);
        }
        let Some(object) = self.given(&key, read.map_err(ObjectProblem::from))? else {
            return Ok(false);
        };
        self.store(&key, object.into_bytes(), group, Came::NotRead)
            .await
    }

    /// Stores an object; one that is there by now came from another copy that runs, or from a put whose answer was lost:
    /// it counts as `there`.
    pub(super) async fn store(
        &self,
        key: &Key,
        object: Bytes,
        group: CopyGroup,
        there: Came,
    ) -> anyhow::Result<bool> {
        let size = object.len() as u64;
        Ok(match self.put(key, object).await? {
            PutOutcome::Stored => self.count(group, size, Came::Copied),
            PutOutcome::AlreadyExists => self.count(group, size, there),
        })
    }
}
