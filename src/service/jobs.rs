//! Runs jobs when they are due, unless another service does, and tells how they stand.
//!
//! The work is children's, of lower priority: what they take and how they end does not touch the hooks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::error::one_line;
use crate::health::{RunCount, ScheduledJob};
use crate::jobs::child::Launch;
use crate::jobs::decide::Due;
use crate::jobs::lease::Watch;
use crate::jobs::perform::perform;
use crate::jobs::record::{RunId, RunRecord, RunState};
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
    /// How runs ended in 30 days.
    pub runs: RunCount,
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
        ended_at: job.last.as_ref().map(|last| last.ended_at),
        succeeded_at: job.last_success.as_ref().map(|last| last.ended_at),
        due_since: job.due_since,
        unattended: job.unattended,
        stale_before: job.stale_before,
    });
    judged.collect()
}

/// How long back runs are counted.
pub const COUNTED: TimeDelta = TimeDelta::days(30);

/// How many succeeded, and how many failed.
pub fn counted<'a>(ends: impl IntoIterator<Item = &'a RunState>) -> RunCount {
    let mut count = RunCount::default();
    for end in ends {
        match end {
            RunState::Succeeded => count.succeeded += 1,
            RunState::Failed | RunState::TimedOut | RunState::Interrupted => count.failed += 1,
            RunState::Cancelled | RunState::Stopped => (),
        }
    }
    count
}

/// A job, and what is known of it.
struct Attended {
    job: Arc<Job>,
    watch: Watch,
    /// When to look again.
    next: Instant,
    /// When it is due, by the wall.
    due: Option<DateTime<Utc>>,
    /// The task of our run.
    running: Option<task::Id>,
    status: Option<JobStatus>,
    failed: Option<String>,
}

/// The owner of the jobs.
pub struct JobsOwner {
    options: JobsOptions,
    attended: Vec<Attended>,
    recent: BTreeMap<RunId, RunRecord>,
    /// How the runs of 30 days ended.
    ends: BTreeMap<RunId, Option<RunState>>,
    running: JoinSet<anyhow::Result<RunRecord>>,
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
            running: None,
            status: None,
            failed: None,
        };
        let owner = Self {
            attended: options.jobs.iter().map(attend).collect(),
            recent: BTreeMap::new(),
            ends: BTreeMap::new(),
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
                Some(ended) = self.running.join_next_with_id() => self.ended(ended).await,
                () = sleep_until(next) => (),
            }
        }
        // Each is told by itself, and gives its lease back.
        while let Some(ended) = self.running.join_next_with_id().await {
            self.ended(ended).await;
        }
        Ok(())
    }

    /// When something may be to be done.
    fn next_look(&self) -> Instant {
        let first = self.attended.iter().map(|one| one.next).min();
        let tick = Instant::now() + TICK;
        first.map_or(tick, |first| first.min(tick))
    }

    /// Looks at all jobs whose time has come, by either clock.
    async fn look(&mut self) {
        for at in self.in_turn() {
            let now = self.options.runs.leases.clock.wall();
            let one = &self.attended[at];
            // One that runs is looked at, too: a run that hangs makes nothing, and what it made grows old.
            let is_due = one.running.is_none() && one.due.is_some_and(|due| due <= now);
            if is_due || one.next <= Instant::now() {
                let begins = self.options.begins && self.is_free(one.job.lane);
                self.look_at(at, begins).await;
            }
        }
    }

    /// Who has waited longest comes first: a job that is always due must not keep the others from its lane.
    fn in_turn(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.attended.len()).collect();
        all.sort_by_key(|at| {
            let due = self.attended[*at].due;
            (due.is_none(), due)
        });
        all
    }

    fn is_free(&self, lane: Lane) -> bool {
        !self
            .attended
            .iter()
            .any(|one| one.running.is_some() && one.job.lane == lane)
    }

    async fn look_at(&mut self, at: usize, begins: bool) {
        let runs = self.options.runs.clone();
        let pause = match begins {
            true => self.consider(at, &runs).await,
            // What is due waits for its lane, which tells when it is free.
            false if self.options.begins && self.attended[at].running.is_none() => Ok(TICK),
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
                // Also of what waits for its lane.
                one.due = status.next.filter(|_| self.options.begins);
                one.status = Some(status);
            }
            Err(error) => self.trouble(at, &error),
        }
    }

    /// Begins a run if one is due; how long to wait for the next look.
    async fn consider(&mut self, at: usize, runs: &Runs) -> anyhow::Result<Duration> {
        let one = &mut self.attended[at];
        let considered = runs.consider(&one.job, &mut one.watch, Wanted::SCHEDULED);
        Ok(match considered.await? {
            Turn::Run(held) => {
                let (launch, stop) = (self.options.launch.clone(), self.stop.clone());
                let (runs, job) = (runs.clone(), one.job.clone());
                let run = async move { perform(&runs, &job, *held, &launch, stop).await };
                one.running = Some(self.running.spawn(run).id());
                LOOK
            }
            Turn::Again => SOON,
            Turn::Running(_, _, left) => (left + SOON).min(LOOK),
            Turn::Idle(_, due) => {
                let due = match due {
                    Due::At(time) | Due::Retry(time) => Some(time),
                    Due::Now(_) | Due::Never => None,
                };
                until(due, runs.leases.clock.wall())
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

    /// A run of ours has ended. One whose task failed is told when its lease has expired, and costs the hooks nothing.
    async fn ended(&mut self, ended: Result<(task::Id, anyhow::Result<RunRecord>), JoinError>) {
        let (task, ended) = ended.unwrap_or_else(|error| (error.id(), Err(error.into())));
        for one in &mut self.attended {
            // What waited for the lane has its turn.
            one.next = Instant::now();
        }
        let of_task = |one: &Attended| one.running == Some(task);
        if let Some(at) = self.attended.iter().position(of_task) {
            self.attended[at].running = None;
            match ended {
                Ok(record) => drop(self.recent.insert(record.id.clone(), record)),
                Err(error) => self.trouble(at, &error),
            }
        }
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
        let counted_since = self.options.runs.leases.clock.wall() - COUNTED;
        let (known, ends) = (&mut self.recent, &mut self.ends);
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
            history.ends(ends, counted_since).await
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
            runs: counted(self.ends.values().flatten()),
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

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::jobs::clock::{Boot, Clock, MachineClock};
    use crate::jobs::record::{Memory, RetryPolicy};
    use crate::jobs::schedule::Schedule;
    use crate::storage::{MemoryStorage, PutMode, PutOutcome};

    /// Panics in all tasks but the first that asks.
    #[derive(Debug, Default)]
    struct Panicking(OnceLock<task::Id>);

    impl Clock for Panicking {
        fn wall(&self) -> DateTime<Utc> {
            MachineClock.wall()
        }

        fn boot(&self) -> Boot {
            let own = task::id();
            assert_eq!(*self.0.get_or_init(|| own), own, "a fault");
            MachineClock.boot()
        }
    }

    fn options(clock: Arc<dyn Clock>, jobs: Vec<Job>) -> JobsOptions {
        let retry = RetryPolicy {
            retries: 0,
            after: Duration::ZERO,
        };
        let times = [Duration::from_secs(60); 2];
        let (folder, host) = ("main/jobs/".into(), "host".into());
        let storage = Arc::new(MemoryStorage::default());
        JobsOptions {
            jobs,
            runs: Runs::new(storage, folder, clock, host, retry, times),
            launch: Launch {
                program: "/bin/true".into(),
                leading: Vec::new(),
            },
            begins: true,
        }
    }

    fn job(name: &'static str, cron: &str) -> Job {
        let schedule = Schedule::new(
            cron.parse().unwrap(),
            "UTC".parse().unwrap(),
            Duration::ZERO,
        );
        Job {
            name,
            schedule: Some(schedule),
            lane: Lane::Long,
            deadline: Duration::from_secs(60),
            arguments: Ok(Vec::new()),
        }
    }

    /// All moments since long are still to be done.
    async fn overdue(options: &JobsOptions, at: usize, days: i64) {
        let (job, leases) = (&options.jobs[at], &options.runs.leases);
        let since = Utc::now() - TimeDelta::days(days);
        let memory = Memory::new(since);
        let memory = memory.knowing(job.schedule.as_ref().unwrap(), since);
        let body = serde_json::json!({ "format": 1, "holder": null, "memory": memory });
        let key = leases.keys.lease(job.name, 0);
        let put = leases
            .storage
            .put(&key, body.to_string().into(), PutMode::CreateOnly);
        assert_eq!(put.await.unwrap(), PutOutcome::Stored);
    }

    #[tokio::test]
    async fn a_panic_of_a_run_is_told_and_ends_nothing_else() {
        let jobs = vec![job("dump", "0 0 * * *")];
        let options = options(Arc::new(Panicking::default()), jobs);
        overdue(&options, 0, 3).await;
        let (stopping, stop) = watch::channel(false);
        let (owner, mut heard) = JobsOwner::new(options, stop);
        let part = tokio::spawn(owner.run());
        let fails = heard.wait_for(|snapshot| snapshot.failed.is_some());
        let failed = fails.await.unwrap().failed.clone().unwrap();
        assert!(failed.contains("panicked"), "{failed}");
        stopping.send_replace(true);
        part.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn of_jobs_of_one_lane_the_one_that_waited_longest_comes_first() {
        let jobs = vec![job("backup", "* * * * *"), job("verify", "0 0 1 * *")];
        let options = options(Arc::new(MachineClock), jobs);
        overdue(&options, 0, 40).await;
        overdue(&options, 1, 40).await;
        let (_stopping, stop) = watch::channel(false);
        let (mut owner, _heard) = JobsOwner::new(options, stop);
        // Nothing is known of them yet, so the first one begins; then it is due again at once.
        owner.look().await;
        assert!(owner.attended[0].running.is_some() && owner.attended[1].running.is_none());
        // Also while it runs it is looked at.
        owner.attended[0].status = None;
        owner.attended[0].next = Instant::now();
        owner.look().await;
        let status = owner.attended[0].status.as_ref().unwrap();
        assert!(owner.attended[0].running.is_some() && status.stale_before.is_some());
        assert!(owner.next_look() > Instant::now());
        let ended = owner.running.join_next_with_id().await.unwrap();
        owner.ended(ended).await;
        owner.attended[0].due = Some(Utc::now());
        owner.look().await;
        assert!(owner.attended[0].running.is_none() && owner.attended[1].running.is_some());
    }
}
