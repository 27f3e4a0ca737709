//! Runs jobs when they are due, unless another service does, and tells how they stand.
//!
//! The work is children's, of lower priority: what they take and how they end does not touch the hooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::error::one_line;
use crate::health::ScheduledJob;
use crate::jobs::child::Launch;
use crate::jobs::decide::Due;
use crate::jobs::lease::Watch;
use crate::jobs::perform::perform;
use crate::jobs::record::{RunId, RunRecord};
use crate::jobs::runs::{Runs, Turn, Wanted};
use crate::jobs::status::JobStatus;
use crate::jobs::{Job, Lane};

/// How often a job is looked at in the repository although nothing is known to be due: others run it, too.
const LOOK: Duration = Duration::from_secs(300);
/// Between two looks at the clock, which may have been set.
const TICK: Duration = Duration::from_secs(20);
/// After another one was first, and after a lease must have expired.
const SOON: Duration = Duration::from_millis(200);
/// After the repository could not be read.
const TROUBLE: Duration = Duration::from_secs(30);
/// Records that are shown.
const SHOWN: usize = 50;

/// What runs, and how.
#[derive(Debug, Clone)]
pub struct JobsOptions {
    pub jobs: Vec<Job>,
    pub runs: Runs,
    pub launch: Launch,
    /// Otherwise the jobs are only looked at.
    pub begins: bool,
}

/// How the jobs stand.
#[derive(Debug, Clone, Default)]
pub struct JobsSnapshot {
    /// In order; empty until they were looked at.
    pub jobs: Arc<[JobStatus]>,
    /// Runs that have ended, the newest first.
    pub recent: Arc<[RunRecord]>,
    /// Why they could not be looked at.
    pub failed: Option<String>,
    pub looked_at: Option<DateTime<Utc>>,
}

/// The jobs with a schedule, as they are judged.
pub fn scheduled(jobs: &[JobStatus]) -> Vec<ScheduledJob> {
    let scheduled = jobs.iter().filter(|job| job.cron.is_some());
    let judged = scheduled.map(|job| ScheduledJob {
        name: job.job.clone(),
        failures: job.failures_in_a_row,
        why: job.last.as_ref().and_then(|last| last.why.clone()),
        is_running: job.running.is_some(),
        ran: job.last.is_some(),
        due_since: job.due_since,
        stale_before: job.stale_before,
    });
    judged.collect()
}

/// A job, and what is known of it.
struct Attended {
    job: Arc<Job>,
    watch: Watch,
    /// When to look again.
    next: Instant,
    /// When it is due, by the wall.
    due: Option<DateTime<Utc>>,
    is_running: bool,
    status: Option<JobStatus>,
    failed: Option<String>,
}

/// The owner of the jobs.
pub struct JobsOwner {
    options: JobsOptions,
    attended: Vec<Attended>,
    recent: BTreeMap<RunId, RunRecord>,
    running: JoinSet<(usize, anyhow::Result<RunRecord>)>,
    told: watch::Sender<JobsSnapshot>,
    stop: watch::Receiver<bool>,
}

impl JobsOwner {
    /// Runs the jobs until `stop` says so.
    pub fn new(
        options: JobsOptions,
        stop: watch::Receiver<bool>,
    ) -> (Self, watch::Receiver<JobsSnapshot>) {
        let (told, heard) = watch::channel(JobsSnapshot::default());
        let attend = |job: &Job| Attended {
            job: Arc::new(job.clone()),
            watch: Watch::default(),
            next: Instant::now(),
            due: None,
            is_running: false,
            status: None,
            failed: None,
        };
        let owner = Self {
            attended: options.jobs.iter().map(attend).collect(),
            recent: BTreeMap::new(),
            running: JoinSet::new(),
            options,
            told,
            stop,
        };
        (owner, heard)
    }

    /// Works until told to stop, then ends what runs.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.read_recent().await;
        loop {
            let mut stop = self.stop.clone();
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
                () = self.look() => (),
            }
            self.read_news().await;
            self.tell();
            let next = self.next_look();
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
                Some(ended) = self.running.join_next() => self.settle(ended).await,
                () = sleep_until(next) => (),
            }
        }
        // Each is told by itself, and gives its lease back.
        while let Some(ended) = self.running.join_next().await {
            self.settle(ended).await;
        }
        Ok(())
    }

    /// A run whose task failed is not begun again by this service, and costs the hooks nothing.
    async fn settle(
        &mut self,
        ended: Result<(usize, anyhow::Result<RunRecord>), tokio::task::JoinError>,
    ) {
        match ended {
            Ok(ended) => self.ended(ended).await,
            Err(error) => tracing::error!("a job's task failed: {error}"),
        }
    }

    /// When something may be to be done.
    fn next_look(&self) -> Instant {
        let waiting = self.attended.iter().filter(|one| !one.is_running);
        let first = waiting.map(|one| one.next).min();
        let tick = Instant::now() + TICK;
        first.map_or(tick, |first| first.min(tick))
    }

    /// Looks at all jobs whose time has come, by either clock.
    async fn look(&mut self) {
        for at in 0..self.attended.len() {
            let now = self.options.runs.leases.clock.wall();
            let one = &self.attended[at];
            let is_due = one.due.is_some_and(|due| due <= now);
            if one.is_running || !(is_due || one.next <= Instant::now()) {
                continue;
            }
            let begins = self.options.begins && self.is_free(one.job.lane);
            self.look_at(at, begins).await;
        }
    }

    fn is_free(&self, lane: Lane) -> bool {
        !self
            .attended
            .iter()
            .any(|one| one.is_running && one.job.lane == lane)
    }

    async fn look_at(&mut self, at: usize, begins: bool) {
        let runs = self.options.runs.clone();
        let pause = match begins {
            true => self.consider(at, &runs).await,
            // What is due waits for its lane, which tells when it is free.
            false if self.options.begins => Ok(TICK),
            false => Ok(LOOK),
        };
        let one = &mut self.attended[at];
        // Read once more, since that is what others are told of.
        let looked = match pause {
            Ok(pause) => {
                one.next = Instant::now() + pause;
                runs.status(&one.job, &mut one.watch).await
            }
            Err(error) => Err(error),
        };
        match looked {
            Ok(status) => {
                if one.failed.take().is_some() {
                    tracing::info!("job {}: it can be looked after again", one.job.name);
                }
                one.status = Some(status);
            }
            Err(error) => self.trouble(at, &error),
        }
    }

    /// Begins a run if one is due; how long to wait for the next look.
    async fn consider(&mut self, at: usize, runs: &Runs) -> anyhow::Result<Duration> {
        let one = &mut self.attended[at];
        let considered = runs.consider(&one.job, &mut one.watch, Wanted::Scheduled);
        Ok(match considered.await? {
            Turn::Run(held) => {
                one.is_running = true;
                let (launch, stop) = (self.options.launch.clone(), self.stop.clone());
                let (runs, job) = (runs.clone(), one.job.clone());
                self.running.spawn(async move {
                    let ended = perform(&runs, &job, *held, &launch, stop).await;
                    (at, ended)
                });
                LOOK
            }
            Turn::Again => SOON,
            Turn::Running(_, _, left) => {
                one.due = None;
                (left + SOON).min(LOOK)
            }
            Turn::Idle(_, due) => {
                one.due = match due {
                    Due::At(time) => Some(time),
                    Due::Now(_) | Due::Never => None,
                };
                until(one.due, runs.leases.clock.wall())
            }
        })
    }

    fn trouble(&mut self, at: usize, error: &anyhow::Error) {
        let (one, why) = (&mut self.attended[at], one_line(error));
        // Once, not each time.
        if one.failed.is_none() {
            tracing::warn!("job {}: it cannot be looked after: {why}", one.job.name);
        }
        one.failed = Some(why);
        one.next = Instant::now() + TROUBLE;
    }

    /// A run of ours has ended.
    async fn ended(&mut self, (at, ended): (usize, anyhow::Result<RunRecord>)) {
        match ended {
            Ok(record) => drop(self.recent.insert(record.id.clone(), record)),
            Err(error) => self.trouble(at, &error),
        }
        // What waited for the lane has its turn.
        for one in &mut self.attended {
            one.next = Instant::now();
        }
        self.attended[at].is_running = false;
        self.read_recent().await;
    }

    /// Reads the records of runs that others ended.
    async fn read_news(&mut self) {
        let oldest = self.recent.keys().next();
        let statuses = self.attended.iter().filter_map(|one| one.status.as_ref());
        let last = statuses.filter_map(|status| Some(&status.last.as_ref()?.id));
        let is_news =
            |id: &&RunId| !self.recent.contains_key(id) && oldest.is_none_or(|oldest| *id > oldest);
        if last.into_iter().any(|id| is_news(&id)) {
            self.read_recent().await;
        }
    }

    /// Reads records that are new.
    async fn read_recent(&mut self) {
        let history = &self.options.runs.history;
        let known = &mut self.recent;
        let read = async {
            let since = known.keys().next().map(ToString::to_string);
            let all = history.runs(since).await?;
            for (id, job) in all.iter().rev().take(SHOWN) {
                if !known.contains_key(id)
                    && let Some(record) = history.read(job, id).await?
                {
                    known.insert(id.clone(), record);
                }
            }
            anyhow::Ok(())
        };
        if let Err(error) = read.await {
            tracing::debug!("the records of jobs cannot be read: {}", one_line(&error));
        }
        while self.recent.len() > SHOWN {
            self.recent.pop_first();
        }
    }

    fn tell(&self) {
        let failed = self.attended.iter().find_map(|one| {
            let why = one.failed.as_ref()?;
            Some(format!("job {}: {why}", one.job.name))
        });
        self.told.send_replace(JobsSnapshot {
            jobs: self
                .attended
                .iter()
                .filter_map(|one| one.status.clone())
                .collect(),
            recent: self.recent.values().rev().cloned().collect(),
            failed,
            looked_at: Some(self.options.runs.leases.clock.wall()),
        });
    }
}

/// How long to wait for a moment on the wall, at most until the next look.
fn until(due: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Duration {
    let wait = due.map(|due| (due - now).to_std().unwrap_or_default());
    wait.map_or(LOOK, |wait| wait.min(LOOK))
}
