//! Records of deletions, numbered. An intent says what is to be deleted before the first deletion, so that whoever comes
//! after a crash goes on; an outcome says what was. Whoever meets a hole in the WAL learns here that it was made on
//! purpose.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::content::{get, list, put};
use super::needs::Needs;
use crate::postgres::catalog::{ExpiredWal, WalRanges, WalSpan, without};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, DumpId, ExpiryRecord, ObjectKind};
use crate::storage::{PutMode, StorageError};

/// Records that are kept: each outcome tells all that earlier ones told.
const KEPT: usize = 32;
/// Names of deleted backups that are remembered, and as many of dumps, so that no copy brings them back.
const REMEMBERED: usize = 10_000;

/// What is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryIntent {
    /// Of the plan that was printed.
    pub digest: String,
    pub made_at: DateTime<Utc>,
    /// Host and process, for people.
    pub made_by: String,
    pub deletes: Needs,
}

/// What was not deleted; and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftItem {
    pub item: String,
    pub why: String,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryOutcome {
    pub ended_at: DateTime<Utc>,
    pub deleted: Needs,
    pub left: Vec<LeftItem>,
    /// All WAL that was ever deleted on purpose.
    pub expired: Vec<WalSpan>,
    /// The backups that were, as far as a copy could bring them back.
    pub gone_backups: BTreeSet<BackupId>,
    /// The dumps that were, as far as a copy could bring them back.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone_dumps: BTreeSet<String>,
    /// An earlier deletion that was interrupted, and still is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<ExpiryIntent>,
}

/// An intent, or why it cannot be understood.
pub type StoredIntent = Result<ExpiryIntent, String>;

/// The numbers of the records that there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordNumbers {
    intents: BTreeSet<u32>,
    done: BTreeSet<u32>,
}

impl RecordNumbers {
    /// The number of the next intent.
    pub fn next(&self) -> u32 {
        let newest = self.intents.last().max(self.done.last());
        newest.map_or(1, |newest| newest + 1)
    }
}

/// Which records there are; `None`: none. Errors: the store did not answer.
pub async fn newest_records(cluster: &Cluster) -> Result<Option<RecordNumbers>, StorageError> {
    let mut numbers = RecordNumbers::default();
    for meta in list(cluster, cluster.layout.expiry_folder()).await? {
        if let Some(ObjectKind::Expiry(record)) = cluster.object_kind(&meta.key) {
            let of_kind = match record.done {
                true => &mut numbers.done,
                false => &mut numbers.intents,
            };
            of_kind.insert(record.number);
        }
    }
    Ok(Some(numbers).filter(|numbers| *numbers != RecordNumbers::default()))
}

/// What has been deleted on purpose, and by which record it is told last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expiry {
    pub numbers: RecordNumbers,
    /// Also what is being deleted now.
    pub expired: ExpiredWal,
    pub gone_backups: BTreeSet<BackupId>,
    /// Objects of them may be left.
    pub gone_dumps: BTreeSet<String>,
    /// The newest intent without an outcome: it was interrupted, or is being carried out.
    pub open: Option<ExpiryIntent>,
}

impl Expiry {
    /// Reads it. Records that cannot be understood tell nothing. Errors: the store did not answer.
    pub async fn load(cluster: &Cluster) -> Result<Self, StorageError> {
        let Some(numbers) = newest_records(cluster).await? else {
            return Ok(Self::default());
        };
        let (mut outcome, mut told) = (ExpiryOutcome::default(), 0);
        for number in numbers.done.iter().rev() {
            match find_outcome(cluster, *number).await? {
                Some(Ok(newest)) => {
                    (outcome, told) = (newest, *number);
                    break;
                }
                Some(Err(why)) => {
                    tracing::debug!("record {number} of a deletion cannot be understood: {why}");
                }
                None => (),
            }
        }
        let mut open: Vec<ExpiryIntent> = outcome.open.into_iter().collect();
        for number in numbers.intents.range(told + 1..) {
            if let Some(Ok(intent)) = find_intent(cluster, *number).await? {
                open.push(intent);
            }
        }
        for ExpiryIntent { deletes, .. } in &open {
            outcome.expired.extend(&deletes.wal);
            outcome.gone_backups.extend(deletes.backups.iter().cloned());
            outcome.gone_dumps.extend(deletes.dumps.iter().cloned());
        }
        Ok(Self {
            numbers,
            expired: ExpiredWal::new(outcome.expired, cluster.description.segment_size),
            gone_backups: outcome.gone_backups,
            gone_dumps: outcome.gone_dumps,
            open: open.pop(),
        })
    }

    /// What is told from now on: all that was told before and what was `deleted` now, but for what is there. An interrupted
    /// deletion still is.
    pub fn outcome<'a>(
        &self,
        deleted: Needs,
        wal: &WalRanges,
        backups: impl IntoIterator<Item = &'a BackupId>,
    ) -> ExpiryOutcome {
        let size = wal.segment_size();
        let there = without(wal.spans(), &deleted.wal, size);
        let spans = [self.expired.spans(), &deleted.wal].concat();
        let expired = ExpiredWal::new(without(spans, &there, size), size);
        let backups: BTreeSet<&BackupId> = backups.into_iter().collect();
        let is_gone = |id: &&BackupId| deleted.backups.contains(*id) || !backups.contains(*id);
        let gone = self.gone_backups.union(&deleted.backups).filter(is_gone);
        let gone: Vec<_> = gone.cloned().collect();
        let oldest = gone.len().saturating_sub(REMEMBERED);
        ExpiryOutcome {
            ended_at: Utc::now(),
            expired: expired.spans().to_vec(),
            gone_backups: gone[oldest..].iter().cloned().collect(),
            gone_dumps: self.gone_dumps.clone(),
            open: self.open.clone(),
            deleted,
            left: Vec::new(),
        }
    }

    /// The dumps that are told as deleted from now on: the newest ones that are not there, and all of which objects are `left`.
    pub fn gone_dumps(
        &self,
        deleted: &BTreeSet<String>,
        left: &BTreeSet<String>,
        is_there: impl Fn(&String) -> bool,
    ) -> BTreeSet<String> {
        let known = self.gone_dumps.iter().filter(|name| !is_there(name));
        let mut gone: Vec<&String> = known.chain(deleted).collect();
        gone.sort_by_cached_key(|name| name.parse().ok().map(|id: DumpId| id.time()));
        let newest = gone.into_iter().rev().take(REMEMBERED);
        newest.chain(left).cloned().collect()
    }
}

/// The WAL that was deleted on purpose, or is being deleted. Errors: the store did not answer.
pub async fn load_expired(cluster: &Cluster) -> Result<ExpiredWal, StorageError> {
    Ok(Expiry::load(cluster).await?.expired)
}

/// An intent, by its number; `None`: there is none.
pub async fn find_intent(
    cluster: &Cluster,
    number: u32,
) -> Result<Option<StoredIntent>, StorageError> {
    let record = ExpiryRecord {
        number,
        done: false,
    };
    get(cluster, &cluster.layout.expiry(record)).await
}

async fn find_outcome(
    cluster: &Cluster,
    number: u32,
) -> Result<Option<Result<ExpiryOutcome, String>>, StorageError> {
    let record = ExpiryRecord { number, done: true };
    get(cluster, &cluster.layout.expiry(record)).await
}

/// Stores an intent; false: another one has the number. Errors: the store's.
pub async fn put_intent(
    cluster: &Cluster,
    number: u32,
    intent: &ExpiryIntent,
) -> Result<bool, StorageError> {
    let record = ExpiryRecord {
        number,
        done: false,
    };
    let key = cluster.layout.expiry(record);
    put(cluster, &key, intent, PutMode::CreateOnly).await
}

/// Stores an outcome; false: somebody else ended this deletion. Errors: the store's.
pub async fn put_outcome(
    cluster: &Cluster,
    number: u32,
    outcome: &ExpiryOutcome,
) -> Result<bool, StorageError> {
    let key = cluster.layout.expiry(ExpiryRecord { number, done: true });
    put(cluster, &key, outcome, PutMode::CreateOnly).await
}

/// Removes old records. Errors: the store's.
pub async fn trim_records(cluster: &Cluster) -> Result<(), StorageError> {
    let Some(numbers) = newest_records(cluster).await? else {
        return Ok(());
    };
    // The newest outcome tells all; it stays.
    let old = |all: &BTreeSet<u32>| -> Vec<u32> { all.iter().rev().skip(KEPT).copied().collect() };
    let intents = old(&numbers.intents)
        .into_iter()
        .map(|number| (number, false));
    let done = old(&numbers.done).into_iter().map(|number| (number, true));
    for (number, done) in intents.chain(done) {
        let key = cluster.layout.expiry(ExpiryRecord { number, done });
        cluster.repository.storage().delete(&key).await?;
    }
    Ok(())
}
