use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::chain::{Chains, Found, heads, trimmed};
use super::record::{Act, Evidence, Head, Record, Who};
use crate::codec::Digest;
use crate::storage::{Key, PutMode, PutOutcome, Storage, StorageError, Walk, get_all};

/// Bytes of a record at most.
const LONGEST: u64 = 4 << 20;
/// Records that are read at once.
const READERS: usize = 16;
/// Others of the same name that may come between.
const ATTEMPTS: u32 = 50;

/// Which record it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordId {
    pub writer: String,
    pub number: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.writer, self.number)
    }
}

/// The records of a cluster, below one folder: `<folder><writer>/<number, ten digits>.json`.
#[derive(Debug, Clone)]
pub struct Journal {
    pub storage: Arc<dyn Storage>,
    /// Ends with `/`.
    pub folder: String,
}

/// Names and times of the records that are there, by writer and number.
type Listed = BTreeMap<String, BTreeMap<u64, SystemTime>>;

impl Journal {
    /// Adds a record to the chain of whoever did it. Others of its name may do so at once: each number is created once.
    pub async fn append(&self, who: &Who, evidence: Evidence) -> anyhow::Result<RecordId> {
        let writer = who.writer();
        for _ in 0..ATTEMPTS {
            let mut others = self.heads().await?;
            let own = others.remove(&writer);
            let number = own.map_or(1, |head| head.number + 1);
            let record = Record {
                writer: writer.clone(),
                number,
                previous: own.map(|head| head.digest),
                others,
                who: who.clone(),
                walden: env!("CARGO_PKG_VERSION").into(),
                evidence: evidence.clone(),
            };
            let body = serde_json::to_vec_pretty(&record)?.into();
            let key = self.key(&writer, number);
            match self.storage.put(&key, body, PutMode::CreateOnly).await? {
                PutOutcome::Stored => return Ok(RecordId { writer, number }),
                PutOutcome::AlreadyExists => continue,
            }
        }
        bail!("others of the name \"{writer}\" add records all the time")
    }

    /// All records. Errors: the store did not answer.
    pub async fn load(&self) -> anyhow::Result<Chains> {
        let listed = self.list().await?;
        let names = listed
            .iter()
            .flat_map(|(writer, numbers)| numbers.keys().map(move |number| (writer, *number)));
        let reads: Vec<_> = names
            .map(|(writer, number)| async move {
                let found = self.read(writer, number).await?;
                anyhow::Ok(found.map(|found| (writer.clone(), found)))
            })
            .collect();
        let found: Vec<_> = stream::iter(reads).buffered(READERS).try_collect().await?;
        let mut chains = Chains::new();
        for (writer, found) in found.into_iter().flatten() {
            chains.entry(writer).or_default().push(found);
        }
        Ok(chains)
    }

    /// Removes what is older than `age` before the newest record, by the store's clock, the oldest first; how many. The
    /// newest of each chain stays. What is removed is told by a record before.
    pub async fn trim(
        &self,
        who: &Who,
        age: Duration,
        now: chrono::DateTime<chrono::Utc>,
    ) -> anyhow::Result<u64> {
        let listed = self.list().await?;
        let newest = listed.values().flat_map(BTreeMap::values).max();
        let Some(oldest) = newest.and_then(|newest| newest.checked_sub(age)) else {
            return Ok(0);
        };
        let mut going: Vec<(&String, u64)> = Vec::new();
        for (writer, numbers) in &listed {
            let last = numbers.keys().next_back();
            let old = numbers
                .iter()
                .take_while(|(number, stored)| **stored < oldest && Some(*number) != last);
            going.extend(old.map(|(number, _)| (writer, *number)));
        }
        if going.is_empty() {
            return Ok(0);
        }
        self.tell_trim(who, &going, now).await?;
        for (writer, number) in &going {
            self.storage.delete(&self.key(writer, *number)).await?;
        }
        Ok(going.len() as u64)
    }

    /// Says up to where each chain goes, and all that earlier trims said.
    async fn tell_trim(
        &self,
        who: &Who,
        going: &[(&String, u64)],
        now: chrono::DateTime<chrono::Utc>,
    ) -> anyhow::Result<()> {
        let chains = self.load().await?;
        let mut removed = trimmed(&chains);
        for (writer, number) in going {
            let found = chains
                .get(*writer)
                .and_then(|chain| chain.iter().find(|found| found.number == *number));
            let found = found
                .with_context(|| format!("record {number} of {writer} went while it was read"))?;
            let (number, digest) = (*number, found.digest);
            removed.insert((*writer).clone(), Head { number, digest });
        }
        let evidence = Evidence {
            act: Act::Trim,
            subject: crate::plain::counted(going.len() as u64, "record"),
            began: now,
            ended: now,
            verdict: super::record::Verdict::Passed,
            reason: String::new(),
            phases: Vec::new(),
            checks: Vec::new(),
            rto_seconds: None,
            rpo_seconds: None,
            details: serde_json::json!({ "removed": removed }),
        };
        self.append(who, evidence).await.map(drop)
    }

    /// The newest record of each chain.
    async fn heads(&self) -> anyhow::Result<BTreeMap<String, Head>> {
        let mut newest = Chains::new();
        for (writer, numbers) in self.list().await? {
            let Some(number) = numbers.keys().next_back() else {
                continue;
            };
            let found = self.read(&writer, *number).await?;
            newest.insert(writer, Vec::from_iter(found));
        }
        Ok(heads(&newest))
    }

    async fn list(&self) -> Result<Listed, StorageError> {
        let (mut walk, mut listed) = (Walk::new(self.folder.clone()), Listed::new());
        while let Some(meta) = walk.next(&*self.storage).await? {
            if let Some((writer, number)) = self.parse(&meta.key) {
                listed
                    .entry(writer)
                    .or_default()
                    .insert(number, meta.modified);
            }
        }
        Ok(listed)
    }

    async fn read(&self, writer: &str, number: u64) -> anyhow::Result<Option<Found>> {
        let bytes = get_all(&*self.storage, &self.key(writer, number), LONGEST).await?;
        Ok(bytes.map(|bytes| Found {
            number,
            digest: Digest::of(&bytes),
            record: serde_json::from_slice(&bytes).map_err(|why| why.to_string()),
        }))
    }

    fn key(&self, writer: &str, number: u64) -> Key {
        Key::new(format!("{}{writer}/{number:010}.json", self.folder))
            .expect("names of writers make keys")
    }

    /// The writer and the number of a key; `None` for others.
    fn parse(&self, key: &Key) -> Option<(String, u64)> {
        let rest = key.as_str().strip_prefix(&self.folder)?;
        let (writer, number) = rest.strip_suffix(".json")?.split_once('/')?;
        let number = number.parse().ok()?;
        (self.key(writer, number) == *key).then(|| (writer.to_string(), number))
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::verify;
    use super::super::record::testing::evidence;
    use super::*;
    use crate::storage::MemoryStorage;

    fn journal() -> Journal {
        Journal {
            storage: Arc::new(MemoryStorage::default()),
            folder: "main/evidence/".into(),
        }
    }

    fn who(user: &str) -> Who {
        Who {
            user: user.into(),
            host: "db1".into(),
            token: None,
        }
    }

    #[tokio::test]
    async fn many_that_write_at_once_make_one_chain_each() {
        let journal = journal();
        let all = ["a", "b", "a", "a", "b", "a"].map(|user| {
            let journal = journal.clone();
            tokio::spawn(async move {
                journal
                    .append(&who(user), evidence(Act::Drill))
                    .await
                    .unwrap()
            })
        });
        for one in all {
            one.await.unwrap();
        }
        let chains = journal.load().await.unwrap();
        let counts: Vec<usize> = chains.values().map(Vec::len).collect();
        assert_eq!((counts, verify(&chains)), (vec![4, 2], Vec::new()));
    }

    #[tokio::test]
    async fn a_record_that_somebody_changed_or_removed_is_found_out() {
        let journal = journal();
        for _ in 0..4 {
            journal
                .append(&who("a"), evidence(Act::Restore))
                .await
                .unwrap();
        }
        let key = journal.key("a-at-db1", 2);
        let text = get_all(&*journal.storage, &key, LONGEST)
            .await
            .unwrap()
            .unwrap();
        let other = String::from_utf8_lossy(&text).replace("passed", "failed");
        let put = journal
            .storage
            .put(&key, other.into(), PutMode::Overwrite)
            .await;
        assert_eq!(put.unwrap(), PutOutcome::Stored);
        assert_eq!(verify(&journal.load().await.unwrap())[0].number, 3);
        journal.storage.delete(&key).await.unwrap();
        assert_eq!(verify(&journal.load().await.unwrap())[0].number, 2);
    }

    #[tokio::test]
    async fn old_records_go_and_the_chain_stays_sound_at_each_crash() {
        use crate::storage::faulty::{CrashPoint, FaultyStorage};
        for stop_at in 0.. {
            let journal = journal();
            for _ in 0..3 {
                journal
                    .append(&who("a"), evidence(Act::Restore))
                    .await
                    .unwrap();
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
            journal
                .append(&who("b"), evidence(Act::Restore))
                .await
                .unwrap();
            let faulty = Arc::new(FaultyStorage::new(
                journal.storage.clone(),
                stop_at,
                CrashPoint::After,
            ));
            let broken = Journal {
                storage: faulty.clone(),
                ..journal.clone()
            };
            let age = Duration::from_millis(8);
            let done = broken
                .trim(&who("b"), age, chrono::DateTime::UNIX_EPOCH)
                .await;
            assert_eq!(verify(&journal.load().await.unwrap()), [], "{stop_at}");
            if !faulty.stopped() {
                assert_eq!(done.unwrap(), 2);
                assert_eq!(journal.load().await.unwrap()["a-at-db1"].len(), 1);
                return;
            }
        }
    }
}
