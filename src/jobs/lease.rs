//! One runner for a job, whoever wants to run it: a lease made of numbered objects, each created only once.
//!
//! The object with the highest number is the lease. Its holder creates the next one again and again, and removes old ones.
//! Who wants it creates the next one, too: at once where nobody holds it, else when the same object was the highest for
//! the lease's time, by the taker's own CLOCK_BOOTTIME. So clocks need not agree. The holder counts the same time from
//! before it began to create its object, a little shorter: when another can have the lease, it knows that it has lost it,
//! also after it was stopped for long.
//!
//! A number that was removed can be created once more, by a taker that slept: it then sees the higher ones.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::clock::{Boot, Clock};
use super::format::{FORMAT, parse};
use super::keys::JobKeys;
use super::record::{Memory, Purpose, RunId};
use crate::storage::{FEW_LINES, ListEntry, PutMode, PutOutcome, Storage, get_all, list_all};

/// The holder gives up earlier than others take, by this part of the lease's time.
const MARGIN: u32 = 8;
/// Longer leases are not waited for: the object was damaged.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often the highest object is asked for again when it went meanwhile.
const LOOKS: usize = 10;
/// Old objects that are removed at a time.
const REMOVED: usize = 100;

/// Who runs a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub run: RunId,
    #[serde(flatten)]
    pub purpose: Purpose,
    pub started_at: DateTime<Utc>,
    pub host: String,
    pub pid: u32,
    pub lease_milliseconds: u64,
}

impl Holder {
    /// After this without a new object, others take over.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_milliseconds).min(LONGEST)
    }
}

/// An object of the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseObject {
    pub format: u32,
    /// `None`: nobody runs the job.
    pub holder: Option<Holder>,
    pub memory: Memory,
}

/// The lease as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    pub generation: u64,
    pub object: LeaseObject,
    /// By the store's clock.
    pub stored_at: SystemTime,
}

/// The lease in one's hands.
#[derive(Debug)]
pub struct Held {
    pub job: String,
    pub holder: Holder,
    pub memory: Memory,
    generation: u64,
    valid_until: Boot,
    /// Whether a call for the next object was begun whose end is not known.
    in_doubt: bool,
}

impl Held {
    /// Until when nobody else has it.
    pub fn valid_until(&self) -> Boot {
        self.valid_until
    }
}

/// How a lease stands for who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Free,
    /// Somebody has it, and has so much time to give a sign.
    Held(Duration),
    /// Its holder gave no sign for the lease's time.
    Expired,
}

/// What a waiting one saw, and since when. Pure.
#[derive(Debug, Default)]
pub struct Watch(Option<(u64, Boot)>);

impl Watch {
    /// Takes in what was seen just before `now`.
    pub fn standing(&mut self, latest: Option<&Latest>, now: Boot) -> Standing {
        let Some((latest, holder)) =
            latest.and_then(|latest| Some((latest, latest.object.holder.as_ref()?)))
        else {
            self.0 = None;
            return Standing::Free;
        };
        let since = match self.0 {
            Some((generation, since)) if generation == latest.generation => since,
            _ => now,
        };
        self.0 = Some((latest.generation, since));
        let (waited, lease) = (now.since(since), holder.lease());
        match waited >= lease {
            true => Standing::Expired,
            false => Standing::Held(lease - waited),
        }
    }
}

/// The leases of a cluster's jobs.
#[derive(Debug, Clone)]
pub struct Leases {
    pub storage: Arc<dyn Storage>,
    pub keys: JobKeys,
    pub clock: Arc<dyn Clock>,
}

impl Leases {
    /// The lease as it is; `None`: nobody ever looked after the job. Errors: it cannot be read, or a newer Walden wrote
    /// it.
    pub async fn look(&self, job: &str) -> anyhow::Result<Option<Latest>> {
        for _ in 0..LOOKS {
            let Some((generation, stored_at)) = self.generations(job).await?.pop() else {
                return Ok(None);
            };
            let key = self.keys.lease(job, generation);
            // It may have been the highest, and be removed by now.
            let Some(bytes) = get_all(&*self.storage, &key, FEW_LINES).await? else {
                continue;
            };
            let object = parse(&key, &bytes, "a lease of a job")?;
            return Ok(Some(Latest {
                generation,
                object,
                stored_at,
            }));
        }
        Err(anyhow!(
            "the lease of job {job} changes too fast to be read"
        ))
    }

    /// All numbers that there are, and when each was stored, in order.
    async fn generations(&self, job: &str) -> anyhow::Result<Vec<(u64, SystemTime)>> {
        let entries = list_all(&*self.storage, &self.keys.job_folder(job)).await?;
        let mut generations: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                ListEntry::Object(meta) => {
                    Some((self.keys.parse_lease(job, &meta.key)?, meta.modified))
                }
                ListEntry::Folder(_) => None,
            })
            .collect();
        generations.sort_unstable();
        Ok(generations)
    }

    /// Takes the lease behind what was seen, which must be free or expired; `memory` is what is known by then. `None`:
    /// another one was first.
    pub async fn take(
        &self,
        job: &str,
        seen: Option<&Latest>,
        holder: Holder,
        memory: Memory,
    ) -> anyhow::Result<Option<Held>> {
        let began = self.clock.boot();
        let held = Held {
            job: job.to_string(),
            generation: seen.map_or(0, |seen| seen.generation + 1),
            valid_until: valid_until(began, &holder),
            holder,
            memory,
            in_doubt: false,
        };
        let object = object(Some(&held.holder), &held.memory);
        // Nothing old is removed here: that may take long, or be forbidden.
        let is_ours = self.create(job, held.generation, &object).await?.is_some();
        Ok((is_ours && self.clock.boot() < held.valid_until).then_some(held))
    }

    /// Says what is known of a job that nobody runs, where that was seen to be so. `false`: another one was first.
    pub async fn note(
        &self,
        job: &str,
        seen: Option<&Latest>,
        memory: &Memory,
    ) -> anyhow::Result<bool> {
        let generation = seen.map_or(0, |seen| seen.generation + 1);
        let old = self.create(job, generation, &object(None, memory)).await?;
        Ok(self.cleared(job, old).await)
    }

    /// Creates an object; the numbers that are then past. `None`: another one was first.
    async fn create(
        &self,
        job: &str,
        generation: u64,
        object: &LeaseObject,
    ) -> anyhow::Result<Option<Vec<u64>>> {
        if !self.put(job, generation, object).await? {
            return Ok(None);
        }
        let all = self.generations(job).await?;
        if all.last().is_some_and(|(last, _)| *last > generation) {
            // What was seen is long past: the number was free because it had been removed.
            self.remove(job, generation).await;
            return Ok(None);
        }
        let numbers = all.iter().map(|(number, _)| *number);
        Ok(Some(
            numbers.filter(|number| number + 1 < generation).collect(),
        ))
    }

    /// Removes the numbers that are past, until one cannot be; whether there were any to tell: an object was created.
    async fn cleared(&self, job: &str, old: Option<Vec<u64>>) -> bool {
        for number in old.iter().flatten().take(REMOVED) {
            if !self.remove(job, *number).await {
                break;
            }
        }
        old.is_some()
    }

    async fn put(&self, job: &str, generation: u64, object: &LeaseObject) -> anyhow::Result<bool> {
        let key = self.keys.lease(job, generation);
        let body = serde_json::to_vec(object)?.into();
        let put = self.storage.put(&key, body, PutMode::CreateOnly).await?;
        Ok(put == PutOutcome::Stored)
    }

    /// What stays does no harm: whoever gives the lease back next removes it.
    async fn remove(&self, job: &str, generation: u64) -> bool {
        let key = self.keys.lease(job, generation);
        let removed = self.storage.delete(&key).await;
        if let Err(error) = &removed {
            tracing::debug!("{error}: {:#}", error.source);
        }
        removed.is_ok()
    }

    /// Gives a sign. `false`: the lease is lost. Errors: not known; it is valid as long as it was.
    pub async fn renew(&self, held: &mut Held) -> anyhow::Result<bool> {
        self.count_own(held).await?;
        let began = self.clock.boot();
        if began >= held.valid_until {
            return Ok(false);
        }
        let generation = held.generation + 1;
        let object = object(Some(&held.holder), &held.memory);
        let is_created = self.put(&held.job, generation, &object).await?;
        // Later than that another one may have taken it, and removed what would have been in our way.
        if !is_created || self.clock.boot() >= held.valid_until {
            held.valid_until = began;
            return Ok(false);
        }
        held.generation = generation;
        held.valid_until = valid_until(began, &held.holder);
        held.in_doubt = false;
        Ok(true)
    }

    /// Removes what the last sign left behind. It may be given up at any time.
    pub async fn remove_old(&self, held: &Held) {
        if let Some(old) = held.generation.checked_sub(2) {
            self.remove(&held.job, old).await;
        }
    }

    /// Counts an object that was stored although the answer said otherwise. It makes the lease no longer.
    async fn count_own(&self, held: &mut Held) -> anyhow::Result<()> {
        if !held.in_doubt {
            held.in_doubt = true;
            return Ok(());
        }
        let key = self.keys.lease(&held.job, held.generation + 1);
        let there = get_all(&*self.storage, &key, FEW_LINES).await?;
        let there = there.and_then(|bytes| serde_json::from_slice::<LeaseObject>(&bytes).ok());
        if there.is_some_and(|there| there.holder.as_ref() == Some(&held.holder)) {
            held.generation += 1;
        }
        Ok(())
    }

    /// Gives the lease back, and says what is known now. `false`: another one has it, and knows already.
    pub async fn release(&self, held: &mut Held, memory: &Memory) -> anyhow::Result<bool> {
        self.count_own(held).await?;
        held.valid_until = self.clock.boot();
        let object = object(None, memory);
        let old = self.create(&held.job, held.generation + 1, &object).await?;
        Ok(self.cleared(&held.job, old).await)
    }
}

fn object(holder: Option<&Holder>, memory: &Memory) -> LeaseObject {
    LeaseObject {
        format: FORMAT,
        holder: holder.cloned(),
        memory: memory.clone(),
    }
}

fn valid_until(began: Boot, holder: &Holder) -> Boot {
    let lease = holder.lease();
    began.plus(lease - lease / MARGIN)
}

#[cfg(test)]
#[path = "lease_model.rs"]
mod model;
#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
