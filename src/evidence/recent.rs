//! What was done, kept up to date: each record is read once.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::journal::Journal;
use super::record::Evidence;

/// Records that are read at once.
const READERS: usize = 16;
/// Of each writer so many are known, the newest.
const KNOWN: usize = 200;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct RecentActs {
    known: BTreeMap<(String, u64), Option<Evidence>>,
}

impl RecentActs {
    /// What was done lately. One that cannot be read is left out: `walden evidence verify` tells of it. Errors: the store did
    /// not answer.
    pub async fn refresh(&mut self, journal: &Journal) -> anyhow::Result<Vec<&Evidence>> {
        let names = journal.newest(KNOWN).await?;
        self.known.retain(|name, _| names.contains(name));
        let new = names
            .into_iter()
            .filter(|name| !self.known.contains_key(name));
        let reads: Vec<_> = new
            .map(|name| async {
                let found = journal.read(&name.0, name.1).await?;
                let evidence = found.and_then(|found| found.record.ok());
                anyhow::Ok((name, evidence.map(|record| record.evidence)))
            })
            .collect();
        let read: Vec<_> = stream::iter(reads).buffered(READERS).try_collect().await?;
        self.known.extend(read);
        Ok(self.known.values().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::record::testing::evidence;
    use super::super::record::{Act, Who};
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::counting::CountingStorage;

    #[tokio::test]
    async fn each_record_is_read_once() {
        let storage = Arc::new(CountingStorage::new(Arc::new(MemoryStorage::default())));
        let journal = Journal {
            storage: storage.clone(),
            folder: "main/evidence/".into(),
            repository: "0123456789abcdef".into(),
        };
        let (user, host) = ("a".to_string(), "db1".to_string());
        let who = Who {
            user,
            host,
            token: None,
            settings: None,
        };
        let mut recent = RecentActs::default();
        assert!(recent.refresh(&journal).await.unwrap().is_empty());
        for count in 1..4 {
            journal.append(&who, evidence(Act::Drill)).await.unwrap();
            storage.forget();
            assert_eq!(recent.refresh(&journal).await.unwrap().len(), count);
            let gets = storage
                .calls()
                .iter()
                .filter(|call| **call == "get")
                .count();
            assert_eq!(gets, 1);
        }
    }
}
