use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::chain::{Chains, Fault, Found, in_both, in_order, trimmed, verify};
use super::record::{Act, Evidence, Head, Record, Verdict, Who};
use crate::codec::Digest;
use crate::error::one_line;
use crate::storage::{Key, PutMode, PutOutcome, Storage, StorageError, Walk, get_all};

/// Bytes of a record at most.
const LONGEST: u64 = 4 << 20;
/// Records that are read at once.
pub(super) const READERS: usize = 16;
/// Others of the same name that may come between.
const ATTEMPTS: u32 = 50;
/// Records that are looked at for one that is wanted.
pub(super) const LOOK_BACK: usize = 1000;
/// How long the newest records may take to come before one is written without them.
const PATIENCE: Duration = Duration::from_secs(30);
/// On so many days a clock must show a time before records grow old by it.
const DAYS_TO_BELIEVE: usize = 3;
/// Records that the store may not give before it counts as not answering.
const MAX_UNREAD: usize = 16;

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
    /// The repository's id. Its beginning is part of a writer's name: so a copy can have records of its own, too.
    pub repository: String,
}

/// Names and times of the records that are there, by writer and number.
type Listed = BTreeMap<String, BTreeMap<u64, SystemTime>>;

/// The newest records that are there when one is added.
#[derive(Debug, Default)]
struct Seen {
    /// The newest number of its own chain; 0: there is none.
    own: u64,
    heads: BTreeMap<String, Head>,
    unread: BTreeMap<String, String>,
}

/// What came of looking for a record.
#[derive(Debug)]
pub enum LookBack {
    Enough,
    Found(Box<Record>),
    None,
}

/// What came of copying records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RecordsCopied {
    /// Bytes of each.
    pub copied: Vec<u64>,
    pub present: u64,
    /// The source did not give them, and why.
    pub unread: Vec<(Key, String)>,
    /// The destination has others of that name.
    pub conflicts: Vec<Key>,
}

impl Journal {
    /// Adds a record to the chain of whoever did it. Others of its name may do so at once: each number is created once. A
    /// newest record that does not come is noted, and holds nothing up. Errors: the store took no record.
    pub async fn append(&self, who: &Who, evidence: Evidence) -> anyhow::Result<RecordId> {
        let writer = self.writer(who);
        for _ in 0..ATTEMPTS {
            let mut seen = self.seen(&writer).await?;
            let number = seen.own + 1;
            let record = Record {
                writer: writer.clone(),
                number,
                previous: seen.heads.remove(&writer).map(|head| head.digest),
                others: seen.heads,
                unread: seen.unread,
                who: who.clone(),
                walden: env!("CARGO_PKG_VERSION").into(),
                evidence: evidence.clone(),
            };
            let (key, body) = (self.key(&writer, number), written(record)?.into());
            match self.storage.put(&key, body, PutMode::CreateOnly).await? {
                PutOutcome::Stored => return Ok(RecordId { writer, number }),
                PutOutcome::AlreadyExists => continue,
            }
        }
        bail!("others of the name \"{writer}\" add records all the time")
    }

    /// The newest record of a user that is wanted, among the last few; nothing where the very newest `is_enough`.
    pub async fn look_back(
        &self,
        who: &Who,
        is_enough: impl Fn(&Record) -> bool,
        is_wanted: impl Fn(&Record) -> bool,
    ) -> anyhow::Result<LookBack> {
        let writer = self.writer(who);
        let numbers = self.list().await?.remove(&writer).unwrap_or_default();
        for (at, number) in numbers.into_keys().rev().take(LOOK_BACK).enumerate() {
            let found = self.read(&writer, number).await?;
            let Some(Ok(record)) = found.map(|found| found.record) else {
                continue;
            };
            if at == 0 && is_enough(&record) {
                return Ok(LookBack::Enough);
            }
            if is_wanted(&record) {
                return Ok(LookBack::Found(Box::new(record)));
            }
        }
        Ok(LookBack::None)
    }

    /// The name of a user's chain here.
    pub fn writer(&self, who: &Who) -> String {
        let id = self.repository.get(..8).unwrap_or(&self.repository);
        format!("{}-{id}", who.name())
    }

    /// All records; those that the store does not give are among them. Errors: it does not answer.
    pub async fn load(&self) -> anyhow::Result<Chains> {
        let listed = self.list().await?;
        let names = listed.into_iter().flat_map(|(writer, numbers)| {
            numbers
                .into_keys()
                .map(move |number| (writer.clone(), number))
        });
        let reads: Vec<_> = names
            .map(|(writer, number)| async move {
                let read = self.read(&writer, number).await;
                (writer, number, read)
            })
            .collect();
        let mut reads = stream::iter(reads).buffered(READERS);
        let (mut chains, mut unread) = (Chains::new(), 0);
        while let Some((writer, number, read)) = reads.next().await {
            let found = match read {
                Ok(None) => continue,
                Ok(Some(found)) => found,
                Err(error) => {
                    unread += 1;
                    if unread > MAX_UNREAD {
                        return Err(error);
                    }
                    let (digest, record) = (None, Err(one_line(&error)));
                    Found {
                        number,
                        digest,
                        record,
                    }
                }
            };
            chains.entry(writer).or_default().push(found);
        }
        Ok(chains)
    }

    /// All records, and what is wrong with them. Records come and go while they are listed: so what looks wrong is looked at
    /// once more. Errors: the store does not answer.
    pub async fn verified(&self) -> anyhow::Result<(Chains, Vec<Fault>)> {
        let chains = self.load().await?;
        let faults = verify(&chains);
        if faults.is_empty() {
            return Ok((chains, faults));
        }
        let chains = self.load().await?;
        let faults = in_both(&faults, verify(&chains));
        Ok((chains, faults))
    }

    /// Removes what is older than `age` before the newest record, by the store's clock, the oldest first; how many. A clock
    /// that was wrong for two days makes nothing old. The newest of each chain stays. What is removed is told by a record before.
    pub async fn trim(
        &self,
        who: &Who,
        age: Duration,
        now: chrono::DateTime<chrono::Utc>,
    ) -> anyhow::Result<u64> {
        let listed = self.list().await?;
        let stored = listed.values().flat_map(BTreeMap::values).copied();
        let reference = reference(stored.collect()).map(|newest| newest.min(now.into()));
        let Some(oldest) = reference.and_then(|reference| reference.checked_sub(age)) else {
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

    /// Says up to where each chain goes, and all that earlier trims said; nothing where one of these says it already.
    async fn tell_trim(
        &self,
        who: &Who,
        going: &[(&String, u64)],
        now: chrono::DateTime<chrono::Utc>,
    ) -> anyhow::Result<()> {
        let chains = self.load().await?;
        let told = trimmed(&chains);
        let mut removed = told.clone();
        for (writer, number) in going {
            let chain = chains.get(*writer).into_iter().flatten();
            // One that is gone by now was told by whoever removed it.
            let Some(found) = chain.into_iter().find(|found| found.number == *number) else {
                continue;
            };
            let digest = found.digest.with_context(|| {
                format!("record {number} of {writer} is to go, and cannot be read")
            })?;
            let head = Head {
                number: *number,
                digest,
            };
            let known = removed.entry((*writer).clone()).or_insert(head);
            if known.number < head.number {
                *known = head;
            }
        }
        if removed == told {
            return Ok(());
        }
        let evidence = Evidence {
            act: Act::Trim,
            subject: crate::plain::counted(going.len() as u64, "record"),
            scope: None,
            began: now,
            ended: now,
            verdict: Verdict::Passed,
            reason: String::new(),
            phases: Vec::new(),
            checks: Vec::new(),
            rto_seconds: None,
            rpo_seconds: None,
            details: json!({ "removed": removed }),
        };
        self.append(who, evidence).await.map(drop)
    }

    /// Copies all records that the other one has not, as they are, in an order in which it holds together at each moment. What
    /// it has removed as too old is not brought back. Errors: a store does not answer.
    pub async fn copy_to(&self, other: &Self) -> anyhow::Result<RecordsCopied> {
        let (chains, theirs) = (self.load().await?, other.load().await?);
        let (gone, mut copied) = (trimmed(&theirs), RecordsCopied::default());
        for (writer, found) in in_order(&chains) {
            let (key, number) = (self.key(writer, found.number), found.number);
            if gone.get(writer).is_some_and(|gone| number <= gone.number) {
                continue;
            }
            let there = theirs.get(writer).into_iter().flatten();
            if let Some(there) = there.into_iter().find(|there| there.number == number) {
                match (&there.digest, &found.digest) {
                    (Some(there), Some(here)) if there == here => copied.present += 1,
                    (Some(_), Some(_)) => copied.conflicts.push(key),
                    _ => copied
                        .unread
                        .push((key, "only one of the two could be read".into())),
                }
                continue;
            }
            let bytes = match get_all(&*self.storage, &key, LONGEST).await {
                Ok(Some(bytes)) => bytes,
                // Too old by now.
                Ok(None) => continue,
                // Later ones name it: without it they would look as if it had been removed.
                Err(error) => {
                    copied.unread.push((key, one_line(&error.into())));
                    break;
                }
            };
            let (size, to) = (bytes.len() as u64, other.key(writer, number));
            match other
                .storage
                .put(&to, bytes.into(), PutMode::CreateOnly)
                .await?
            {
                PutOutcome::Stored => copied.copied.push(size),
                PutOutcome::AlreadyExists => copied.present += 1,
            }
        }
        Ok(copied)
    }

    /// The newest record of each chain, for a record of `writer`.
    async fn seen(&self, writer: &str) -> anyhow::Result<Seen> {
        let (listed, deadline) = (self.list().await?, Instant::now() + PATIENCE);
        let newest = listed.into_iter().filter_map(|(writer, numbers)| {
            let (number, _) = numbers.into_iter().next_back()?;
            Some((writer, number))
        });
        let reads: Vec<_> = newest
            .map(|(writer, number)| async move {
                let read = timeout_at(deadline, self.read(&writer, number)).await;
                (writer, number, read)
            })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(READERS);
        let mut seen = Seen::default();
        while let Some((of, number, read)) = reads.next().await {
            if of == writer {
                seen.own = number;
            }
            let why = match read {
                Ok(Ok(found)) => {
                    let digest = found.and_then(|found| found.digest);
                    let head = digest.map(|digest| Head { number, digest });
                    seen.heads.extend(head.map(|head| (of, head)));
                    continue;
                }
                Ok(Err(error)) => one_line(&error),
                Err(_) => format!("record {number} did not come within {PATIENCE:?}"),
            };
            seen.unread.insert(of, why);
        }
        Ok(seen)
    }

    pub(super) async fn list(&self) -> Result<Listed, StorageError> {
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

    pub(super) async fn read(&self, writer: &str, number: u64) -> anyhow::Result<Option<Found>> {
        let bytes = get_all(&*self.storage, &self.key(writer, number), LONGEST).await?;
        Ok(bytes.map(|bytes| Found {
            number,
            digest: Some(Digest::of(&bytes)),
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

/// The time from which ages count: the newest one of the third newest day. Where there are fewer days, the newest of all.
fn reference(mut stored: Vec<SystemTime>) -> Option<SystemTime> {
    let day = |time: &SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs() / 86400
    };
    let days: BTreeSet<u64> = stored.iter().map(day).collect();
    if let Some(last) = days.iter().nth_back(DAYS_TO_BELIEVE - 1) {
        stored.retain(|time| day(time) <= *last);
    }
    stored.into_iter().max()
}

/// The bytes of a record that can be read again: details that are too long are left out. Errors: the rest is, too.
fn written(mut record: Record) -> anyhow::Result<Vec<u8>> {
    let body = serde_json::to_vec_pretty(&record)?;
    if body.len() as u64 <= LONGEST {
        return Ok(body);
    }
    let why = format!("left out: with them the record has {} bytes", body.len());
    record.evidence.details = json!(why);
    let body = serde_json::to_vec_pretty(&record)?;
    let (size, most) = (body.len(), LONGEST);
    ensure!(
        size as u64 <= most,
        "the record has {size} bytes, and may have {most}"
    );
    Ok(body)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
