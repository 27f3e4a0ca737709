//! A run: the child works, the runner keeps the lease and looks whether it is to end.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::child::{Child, ChildEnd, Launch};
use super::clock::Boot;
use super::job::Job;
use super::lease::Held;
use super::record::{RunRecord, RunState};
use super::runs::Runs;
use crate::error::one_line;

/// Signs in the time of a lease.
const SIGNS: u32 = 4;
/// How often it is looked at least whether somebody asked the run to end.
const LOOK: Duration = Duration::from_secs(3);
/// What was asked to end has so long for it.
const GRACE: Duration = Duration::from_secs(20);

/// Why a run is to end before its child has ended.
type Ending = (RunState, String);

/// Runs a job whose lease is held, until its child has ended, and keeps how that was. Errors: what is kept is not known;
/// the lease expires by itself.
pub async fn perform(
    runs: &Runs,
    job: &Job,
    held: Held,
    launch: &Launch,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<RunRecord> {
    let began = runs.leases.clock.boot();
    tracing::info!("job {}: run {} begins", job.name, held.holder.run);
    let mut run = Run {
        runs,
        job,
        held,
        began,
    };
    let started = Child::start(launch, &job.arguments, run.held.valid_until()).await;
    let (ending, end) = match started {
        Ok(child) => run.watch_over(child, stop).await,
        Err(error) => (
            Some((
                RunState::Failed,
                format!("its process cannot be started: {error}"),
            )),
            None,
        ),
    };
    let (state, why) = how(ending, end.as_ref());
    let mut record = runs.record(job.name, &run.held.holder, state, why);
    if let Some(end) = end {
        record.exit_code = end.status.code();
        record.output = Some(end.output).filter(|output| !output.is_empty());
    }
    let kept = runs.finish(run.held, record).await?;
    tell(&kept);
    Ok(kept)
}

/// How a run ended, by what was asked of it and how its child ended.
fn how(ending: Option<Ending>, end: Option<&ChildEnd>) -> (RunState, Option<String>) {
    match (ending, end) {
        (_, Some(end)) if end.status.success() => (RunState::Succeeded, None),
        (Some((state, why)), _) => (state, Some(why)),
        (None, Some(end)) => (RunState::Failed, Some(end.why())),
        (None, None) => (RunState::Failed, None),
    }
}

fn tell(record: &RunRecord) {
    let RunRecord { job, id, state, .. } = record;
    let why = record.why.as_deref().unwrap_or_default();
    let why = why.lines().next().unwrap_or_default();
    match state {
        RunState::Succeeded => tracing::info!("job {job}: run {id} succeeded"),
        RunState::Cancelled | RunState::Stopped => {
            tracing::info!("job {job}: run {id} {state}: {why}")
        }
        _ => tracing::warn!("job {job}: run {id} {state}: {why}"),
    }
}

/// A run under way.
struct Run<'a> {
    runs: &'a Runs,
    job: &'a Job,
    held: Held,
    began: Boot,
}

impl Run<'_> {
    /// Until the child has ended; how it was ended, if it was, and what it left.
    async fn watch_over(
        &mut self,
        mut child: Child,
        mut stop: watch::Receiver<bool>,
    ) -> (Option<Ending>, Option<ChildEnd>) {
        let lease = self.held.holder.lease();
        let (mut sign, mut look) = (interval(lease / SIGNS), interval(LOOK.min(lease / SIGNS)));
        sign.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ending, mut kill_at): (Option<Ending>, _) = (None, None);
        let status = loop {
            let asked = tokio::select! {
                biased;
                status = child.wait() => break status,
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    child.kill();
                    kill_at = None;
                    None
                }
                _ = sign.tick() => self.give_sign(&mut child).await,
                _ = look.tick(), if ending.is_none() => self.is_to_end().await,
                () = async { drop(stop.wait_for(|stop| *stop).await) }, if ending.is_none() => {
                    Some((RunState::Stopped, "its runner was told to end".into()))
                }
            };
            match asked {
                // Whoever has the lease now begins anew.
                Some(asked @ (RunState::Interrupted, _)) => {
                    child.kill();
                    ending = Some(asked);
                }
                Some(asked) if ending.is_none() => {
                    child.terminate();
                    kill_at = Some(Instant::now() + GRACE);
                    ending = Some(asked);
                }
                _ => (),
            }
        };
        match status {
            Ok(status) => (ending, Some(child.end(status).await)),
            Err(error) => {
                let why = format!("how its process ended is not known: {error}");
                (Some((RunState::Failed, why)), None)
            }
        }
    }

    /// Renews the lease; the end, if it is lost.
    async fn give_sign(&mut self, child: &mut Child) -> Option<Ending> {
        let lost = || {
            Some((
                RunState::Interrupted,
                "its runner lost the lease".to_string(),
            ))
        };
        let left = self.held.valid_until().since(self.runs.leases.clock.boot());
        match timeout(left, self.runs.leases.renew(&mut self.held)).await {
            Ok(Ok(true)) => {
                child.allow(self.held.valid_until()).await;
                None
            }
            Ok(Ok(false)) => lost(),
            Ok(Err(error)) => {
                tracing::debug!("job {}: no sign: {}", self.job.name, one_line(&error));
                self.is_over().then(lost).flatten()
            }
            Err(_) => lost(),
        }
    }

    fn is_over(&self) -> bool {
        self.runs.leases.clock.boot() >= self.held.valid_until()
    }

    /// Whether the run takes too long, or somebody asked it to end.
    async fn is_to_end(&self) -> Option<Ending> {
        if self.runs.leases.clock.boot().since(self.began) > self.job.deadline {
            let why = format!(
                "it took longer than {:.0} s",
                self.job.deadline.as_secs_f32()
            );
            return Some((RunState::TimedOut, why));
        }
        let left = self.held.valid_until().since(self.runs.leases.clock.boot());
        // What cannot be found out now is asked again soon.
        let asked = timeout(left, self.runs.is_cancelled(&self.held)).await;
        let is_asked = matches!(asked, Ok(Ok(true)));
        is_asked.then(|| (RunState::Cancelled, "somebody asked for it".into()))
    }
}
