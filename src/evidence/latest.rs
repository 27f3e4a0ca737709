//! The newest records, kept in memory and renewed: what is there is written once, so only what is new is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::journal::Journal;
use super::record::Record;

/// Records that are read at once.
const READERS: usize = 16;

/// The newest records as they were read, without their details, which may be long.
#[derive(Debug, Clone, Default)]
pub struct LatestRecords {
    /// `None`: it cannot be understood. `walden evidence verify` tells of it.
    records: BTreeMap<(String, u64), Option<Arc<Record>>>,
    /// Older ones that are not among them.
    pub left_out: u64,
    /// Those that the store did not give. They are read again the next time.
    pub refused: u64,
}

impl LatestRecords {
    /// Reads what is new, and forgets what is gone or older than the newest `most`. Who stops waiting keeps what was read until
    /// then. Errors: the store does not answer.
    pub async fn renew(&mut self, journal: &Journal, most: usize) -> anyhow::Result<()> {
        let listed = journal.list().await?.into_iter();
        let mut names: Vec<_> = listed
            .flat_map(|(writer, numbers)| {
                let numbers = numbers.into_iter();
                numbers.map(move |(number, stored)| (stored, (writer.clone(), number)))
            })
            .collect();
        names.sort();
        let left_out = names.len().saturating_sub(most);
        let names = names.into_iter().skip(left_out).map(|(_, name)| name);
        let names: BTreeSet<(String, u64)> = names.collect();
        self.records.retain(|name, _| names.contains(name));
        (self.left_out, self.refused) = (left_out as u64, 0);
        let new = names
            .into_iter()
            .filter(|name| !self.records.contains_key(name));
        let reads: Vec<_> = new
            .map(|name| async {
                let read = journal.read(&name.0, name.1).await;
                (name, read)
            })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(READERS);
        while let Some((name, read)) = reads.next().await {
            match read {
                Ok(Some(found)) => {
                    let record = found.record.ok().map(shortened).map(Arc::new);
                    self.records.insert(name, record);
                }
                // Too old by now.
                Ok(None) => (),
                Err(_) => self.refused += 1,
            }
        }
        Ok(())
    }

    /// The records, the newest first.
    pub fn newest_first(&self) -> Vec<Arc<Record>> {
        let mut records: Vec<_> = self.records.values().flatten().cloned().collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.evidence.ended));
        records
    }
}

fn shortened(mut record: Record) -> Record {
    record.evidence.details = Value::Null;
    record.others.clear();
    record
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::evidence;
    use super::super::record::{Act, Who};
    use super::*;
    use crate::storage::counting::CountingStorage;
    use crate::storage::{MemoryStorage, PutMode};

    #[tokio::test]
    async fn what_is_new_is_read_once_and_the_oldest_are_left_out() {
        let counting = Arc::new(CountingStorage::new(Arc::new(MemoryStorage::default())));
        let journal = Journal {
            storage: counting.clone(),
            folder: "main/evidence/".into(),
            repository: "0123456789".into(),
        };
        let who = Who {
            user: "a".into(),
            host: "h".into(),
            token: None,
            settings: None,
        };
        let add = async || {
            let drill = evidence(Act::Drill);
            journal.append(&who, drill).await.unwrap();
        };
        for _ in 0..3 {
            add().await;
        }
        let mut recent = LatestRecords::default();
        recent.renew(&journal, 10).await.unwrap();
        assert_eq!((recent.newest_first().len(), recent.left_out), (3, 0));
        let reads = async |recent: &mut LatestRecords, most| {
            counting.forget();
            recent.renew(&journal, most).await.unwrap();
            let calls = counting.calls();
            calls.iter().filter(|call| call.starts_with("get")).count()
        };
        assert_eq!(reads(&mut recent, 10).await, 0);
        add().await;
        assert_eq!(reads(&mut recent, 10).await, 1);
        assert_eq!(reads(&mut recent, 2).await, 0);
        assert_eq!((recent.newest_first().len(), recent.left_out), (2, 2));
        let key = crate::storage::Key::new("main/evidence/x-at-h/0000000001.json").unwrap();
        let put = journal.storage.put(&key, "{".into(), PutMode::CreateOnly);
        let _ = put.await.unwrap();
        assert_eq!(
            reads(&mut recent, 10).await,
            3,
            "also one that says nothing"
        );
        assert_eq!(reads(&mut recent, 10).await, 0);
        assert_eq!((recent.newest_first().len(), recent.refused), (4, 0));
    }
}
