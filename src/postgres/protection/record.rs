//! Records of deletions, numbered. An intent says what is to be deleted before the first deletion, so that whoever comes
//! after a crash goes on; an outcome says what was. Whoever meets a hole in the WAL learns here that it was made on
//! purpose.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::content::{get, list, put};
use super::needs::Needs;
use crate::postgres::catalog::{ExpiredWal, WalSpan};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, ExpiryRecord, ObjectKind};
use crate::storage::{PutMode, StorageError};

/// Records that are kept: each outcome tells all that earlier ones told.
const KEPT: usize = 32;

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
    /// The newest intent without an outcome: it was interrupted, or is being carried out.
    pub open: Option<ExpiryIntent>,
}

impl Expiry {
    /// Reads it. Records that cannot be understood tell nothing. Errors: the store did not answer.
    pub async fn load(cluster: &Cluster) -> Result<Self, StorageError> {
        let Some(numbers) = newest_records(cluster).await? else {
            return Ok(Self::default());
        };
        let (mut spans, mut gone_backups, mut told, mut open) =
            (Vec::new(), BTreeSet::new(), 0, None);
        for number in numbers.done.iter().rev() {
            match find_outcome(cluster, *number).await? {
                Some(Ok(outcome)) => {
                    (spans, gone_backups) = (outcome.expired, outcome.gone_backups);
                    told = *number;
                    break;
                }
                Some(Err(why)) => {
                    tracing::debug!("record {number} of a deletion cannot be understood: {why}");
                }
                None => (),
            }
        }
        for number in numbers.intents.range(told + 1..) {
            if let Some(Ok(intent)) = find_intent(cluster, *number).await? {
                spans.extend(intent.deletes.wal.iter().copied());
                gone_backups.extend(intent.deletes.backups.iter().cloned());
                open = Some(intent);
            }
        }
        let expired = ExpiredWal::new(spans, cluster.description.segment_size);
        Ok(Self {
            numbers,
            expired,
            gone_backups,
            open,
        })
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
