//! Beginning and ending runs: what is due, the lease, and the records, in the order that loses nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};

use super::clock::Clock;
use super::decide::{Due, due};
use super::format::FORMAT;
use super::history::History;
use super::job::Job;
use super::keys::JobKeys;
use super::lease::{Held, Holder, Latest, Leases, Standing, Watch};
use super::record::{Memory, Purpose, RetryPolicy, RunId, RunRecord, RunState};
use super::status::JobStatus;
use crate::error::one_line;
use crate::storage::{Key, PutMode, Storage};

/// What a run is begun for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What the schedule says. One that is new counts from so long before now.
    Scheduled(Duration),
    /// Somebody asks for it.
    Now,
}

impl Wanted {
    /// What the schedule says, from now on.
    pub const SCHEDULED: Self = Self::Scheduled(Duration::ZERO);
}

/// What came of the wish to run a job.
#[derive(Debug)]
pub enum Turn {
    /// It is ours to run.
    Run(Box<Held>),
    /// Somebody runs it, and has so much time to give a sign.
    Running(Box<Holder>, Memory, Duration),
    /// Nobody runs it, and it is not due.
    Idle(Memory, Due),
    /// Another one was first: look again.
    Again,
}

/// The runs of a cluster's jobs, as one runner sees them.
#[derive(Debug, Clone)]
pub struct Runs {
    pub leases: Leases,
    pub history: History,
    pub retry: RetryPolicy,
    /// How long others wait for a sign.
    pub lease: Duration,
    /// How long records are kept.
    pub age: Duration,
    pub host: String,
}

impl Runs {
    /// Of the jobs whose keys lie below `folder`.
    pub fn new(
        storage: Arc<dyn Storage>,
        folder: String,
        clock: Arc<dyn Clock>,
        host: String,
        retry: RetryPolicy,
        [lease, age]: [Duration; 2],
    ) -> Self {
        let keys = JobKeys::new(folder);
        Self {
            leases: Leases {
                storage: storage.clone(),
                keys: keys.clone(),
                clock,
            },
            history: History { storage, keys },
            retry,
            lease,
            age,
            host,
        }
    }

    /// Begins a run if that is wanted, due, and nobody else's. `watch` is what this runner saw of the job before.
    pub async fn consider(
        &self,
        job: &Job,
        watch: &mut Watch,
        wanted: Wanted,
    ) -> anyhow::Result<Turn> {
        let seen = self.leases.look(job.name).await?;
        let standing = watch.standing(seen.as_ref(), self.leases.clock.boot());
        let now = self.wall();
        let known_from = match wanted {
            Wanted::Scheduled(before) => now - before,
            Wanted::Now => now,
        };
        let (memory, is_over) = match (&seen, standing) {
            (None, _) => (Memory::new(known_from), false),
            (Some(seen), Standing::Held(left)) => {
                let object = seen.object.clone();
                let holder = object.holder.context("a held lease has a holder")?;
                return Ok(Turn::Running(Box::new(holder), object.memory, left));
            }
            (Some(seen), Standing::Free) => (seen.object.memory.clone(), false),
            (Some(seen), Standing::Expired) => (self.bury(job, seen).await?, true),
        };
        let schedule = job.schedule.as_ref();
        let known = schedule.and_then(|schedule| memory.knowing(schedule, known_from));
        let is_news = is_over || known.is_some();
        let memory = known.unwrap_or(memory);
        let due = match wanted {
            Wanted::Scheduled(_) => {
                let stored_at = seen.as_ref().map_or(now, |seen| seen.stored_at.into());
                due(schedule, &memory, stored_at, now, &self.host)
            }
            Wanted::Now => Due::Now(Purpose::asked_for()),
        };
        self.begin(job, seen.as_ref(), memory, due, is_news).await
    }

    /// Takes the lease for what is due; else says what is news.
    async fn begin(
        &self,
        job: &Job,
        seen: Option<&Latest>,
        memory: Memory,
        due: Due,
        is_news: bool,
    ) -> anyhow::Result<Turn> {
        match due {
            Due::Now(purpose) => {
                let holder = self.holder(purpose)?;
                let taken = self.leases.take(job.name, seen, holder, memory).await?;
                Ok(taken.map_or(Turn::Again, |held| Turn::Run(Box::new(held))))
            }
            due if is_news => match self.leases.note(job.name, seen, &memory).await? {
                true => Ok(Turn::Idle(memory, due)),
                false => Ok(Turn::Again),
            },
            due => Ok(Turn::Idle(memory, due)),
        }
    }

    /// How a job stands, without doing anything. `watch` is what was seen of it before.
    pub async fn status(&self, job: &Job, watch: &mut Watch) -> anyhow::Result<JobStatus> {
        let seen = self.leases.look(job.name).await?;
        let standing = watch.standing(seen.as_ref(), self.leases.clock.boot());
        let (holder, memory, stored_at) = match seen {
            Some(Latest {
                object, stored_at, ..
            }) => (object.holder, object.memory, stored_at.into()),
            None => (None, Memory::new(self.wall()), self.wall()),
        };
        let (now, schedule) = (self.wall(), job.schedule.as_ref());
        let known = schedule.and_then(|schedule| memory.knowing(schedule, now));
        let memory = known.unwrap_or(memory);
        let due = due(schedule, &memory, stored_at, now, &self.host);
        let holder = holder.filter(|_| standing != Standing::Expired);
        Ok(JobStatus::of(job, holder.as_ref(), &memory, &due, now))
    }

    fn holder(&self, purpose: Purpose) -> anyhow::Result<Holder> {
        let started_at = self.wall();
        Ok(Holder {
            run: RunId::new(started_at, getrandom::u32()?),
            purpose,
            started_at,
            host: self.host.clone(),
            pid: std::process::id(),
            lease_milliseconds: u64::try_from(self.lease.as_millis())?,
        })
    }

    /// Keeps a record of a run whose runner gave no sign; what is known then.
    async fn bury(&self, job: &Job, seen: &Latest) -> anyhow::Result<Memory> {
        let (memory, holder) = (&seen.object.memory, &seen.object.holder);
        let holder = holder.as_ref().context("an expired lease has a holder")?;
        let why = format!(
            "its runner on \"{}\" gave no sign for {:.0} s",
            holder.host,
            holder.lease().as_secs_f32()
        );
        let record = self.record(job.name, holder, RunState::Interrupted, Some(why));
        Ok(memory.after(&self.history.keep(record).await?, self.retry))
    }

    /// A record of a run that has ended by now.
    pub fn record(
        &self,
        job: &str,
        holder: &Holder,
        state: RunState,
        why: Option<String>,
    ) -> RunRecord {
        RunRecord {
            format: FORMAT,
            id: holder.run.clone(),
            job: job.to_string(),
            state,
            why,
            purpose: holder.purpose.clone(),
            started_at: holder.started_at,
            ended_at: self.wall(),
            host: holder.host.clone(),
            pid: holder.pid,
            exit_code: None,
            output: None,
        }
    }

    /// Keeps how a run ended, gives the lease back, and removes what is old. What is kept: when the lease was lost,
    /// another one may have told already.
    pub async fn finish(&self, mut held: Held, record: RunRecord) -> anyhow::Result<RunRecord> {
        let kept = self.history.keep(record).await?;
        // The run is no worse for what fails from here on: others take the lease when it has expired.
        if let Err(error) = self.give_back(&mut held, &kept).await {
            tracing::warn!(
                "job {}: run {} is told, and leaves objects behind: {}",
                held.job,
                kept.id,
                one_line(&error)
            );
        }
        Ok(kept)
    }

    async fn give_back(&self, held: &mut Held, kept: &RunRecord) -> anyhow::Result<()> {
        let memory = held.memory.after(kept, self.retry);
        self.leases.release(held, &memory).await?;
        let storage = &self.history.storage;
        storage.delete(&self.cancel_key(held)).await?;
        self.history.trim(kept, self.age).await
    }

    /// Asks a run to end. Its runner looks every few seconds.
    pub async fn cancel(&self, job: &str, run: &RunId, who: &str) -> anyhow::Result<()> {
        let key = self.leases.keys.cancel(job, run);
        let body = serde_json::json!({ "by": who, "at": self.wall() });
        let storage = &self.history.storage;
        let put = storage.put(&key, body.to_string().into(), PutMode::CreateOnly);
        let _ = put.await?;
        Ok(())
    }

    /// Whether somebody asked the run to end.
    pub async fn is_cancelled(&self, held: &Held) -> anyhow::Result<bool> {
        let asked = self.history.storage.head(&self.cancel_key(held)).await?;
        Ok(asked.is_some())
    }

    fn cancel_key(&self, held: &Held) -> Key {
        self.leases.keys.cancel(&held.job, &held.holder.run)
    }

    fn wall(&self) -> DateTime<Utc> {
        self.leases.clock.wall()
    }
}
