//! A run: the child works, the runner keeps the lease and looks whether it is to end.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::child::{Child, ChildEnd, Launch};
use super::clock::Boot;
use super::job::{Job, Missing};
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
/// Removing what is old may delay the next sign by this.
const TIDYING: Duration = Duration::from_secs(2);
/// A service manager tells a runner and its child to end at once, and the child may be the faster one.
const TOLD_AS_WELL: Duration = Duration::from_millis(500);

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
    let until = run.held.valid_until();
    let started = match &job.arguments {
        Ok(arguments) => Child::start(launch, arguments, until)
            .await
            .map_err(|error| format!("its process cannot be started: {error}")),
        Err(Missing { what, hint }) => Err(format!("{what}\nHINT: {hint}")),
    };
    let (ending, end) = match started {
        Ok(child) => run.watch_over(child, stop).await,
        Err(why) => (Some((RunState::Failed, why)), None),
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

fn stopped() -> Ending {
    (RunState::Stopped, "its runner was told to end".into())
}

/// Whether that comes within a time.
async fn is_told_to_end(stop: &mut watch::Receiver<bool>, within: Duration) -> bool {
    let told = timeout(within, stop.wait_for(|stop| *stop)).await;
    matches!(told, Ok(Ok(_)))
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
                _ = sign.tick() => self.give_sign(&mut child, &mut sign).await,
                _ = look.tick(), if ending.is_none() => self.is_to_end().await,
                () = async { drop(stop.wait_for(|stop| *stop).await) }, if ending.is_none() => {
                    Some(stopped())
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
        let failed = !status.as_ref().is_ok_and(ExitStatus::success);
        if failed && ending.is_none() && is_told_to_end(&mut stop, TOLD_AS_WELL).await {
            ending = Some(stopped());
        }
        match status {
            Ok(status) => (ending, Some(child.end(status).await)),
            Err(error) => {
                let why = format!("how its process ended is not known: {error}");
                (Some((RunState::Failed, why)), None)
            }
        }
    }

    /// Renews the lease; the end, if it is lost. A call that gets no answer leaves time for another one, which comes soon.
    async fn give_sign(&mut self, child: &mut Child, sign: &mut Interval) -> Option<Ending> {
        let lost = || (RunState::Interrupted, "its runner lost the lease".into());
        let leases = &self.runs.leases;
        let left = self.held.valid_until().since(leases.clock.boot());
        let patience = (left / 3).max(LOOK).min(left);
        match timeout(patience, leases.renew(&mut self.held)).await {
            Ok(Ok(true)) => {
                child.allow(self.held.valid_until()).await;
                let tidying = TIDYING.min(self.held.holder.lease() / (4 * SIGNS));
                let _ = timeout(tidying, leases.remove_old(&self.held)).await;
                return None;
            }
            Ok(Ok(false)) => return Some(lost()),
            Ok(Err(error)) => {
                tracing::debug!("job {}: no sign: {}", self.job.name, one_line(&error));
            }
            Err(_) => tracing::debug!("job {}: no sign: no answer in time", self.job.name),
        }
        sign.reset_after(LOOK.min(sign.period()));
        self.is_over().then(lost)
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
        // What cannot be found out now is asked again soon: the next sign must not wait for it.
        let patience = LOOK.min(self.held.holder.lease() / (2 * SIGNS));
        let asked = timeout(patience, self.runs.is_cancelled(&self.held)).await;
        let is_asked = matches!(asked, Ok(Ok(true)));
        is_asked.then(|| (RunState::Cancelled, "somebody asked for it".into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::clock::MachineClock;
    use super::super::job::Lane;
    use super::super::lease::Watch;
    use super::super::record::RetryPolicy;
    use super::super::runs::{Turn, Wanted};
    use super::*;
    use crate::storage::MemoryStorage;

    fn runs() -> Runs {
        let retry = RetryPolicy {
            retries: 1,
            after: Duration::ZERO,
        };
        Runs::new(
            Arc::new(MemoryStorage::default()),
            "main/jobs/".into(),
            Arc::new(MachineClock),
            "a".into(),
            retry,
            [Duration::from_secs(60); 2],
        )
    }

    fn job(arguments: Result<Vec<String>, Missing>) -> Job {
        Job {
            name: "copy",
            schedule: None,
            lane: Lane::Long,
            deadline: Duration::from_secs(60),
            arguments,
        }
    }

    /// How a run of a script ends, which may be told to end.
    async fn end(arguments: Result<&str, Missing>, stop: watch::Receiver<bool>) -> RunRecord {
        let job = job(arguments.map(|script| vec![script.to_string()]));
        let launch = Launch {
            program: "/bin/sh".into(),
            leading: vec!["-c".into()],
        };
        let runs = runs();
        let mut watch = Watch::default();
        let turn = runs.consider(&job, &mut watch, Wanted::Now).await;
        let Turn::Run(held) = turn.unwrap() else {
            panic!("nobody has it")
        };
        perform(&runs, &job, *held, &launch, stop).await.unwrap()
    }

    #[tokio::test]
    async fn a_child_that_a_service_manager_ends_first_was_stopped() {
        let (stopping, stop) = watch::channel(false);
        let told = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stopping.send_replace(true);
            stopping
        });
        let ended = end(Ok("kill -TERM $$; exit 1"), stop).await;
        assert_eq!(ended.state, RunState::Stopped, "{ended:?}");
        drop(told.await.unwrap());
        let (_stopping, stop) = watch::channel(false);
        let ended = end(Ok("kill -TERM $$; exit 1"), stop.clone()).await;
        assert_eq!(ended.state, RunState::Failed, "{ended:?}");
        let ended = end(Ok("echo done"), stop).await;
        assert_eq!(
            (ended.state, ended.output.as_deref()),
            (RunState::Succeeded, Some("done\n"))
        );
    }

    #[tokio::test]
    async fn a_job_that_lacks_a_setting_says_so() {
        let (_stopping, stop) = watch::channel(false);
        let missing = Missing {
            what: "it is not set",
            hint: "set it",
        };
        let ended = end(Err(missing), stop).await;
        assert_eq!(
            (ended.state, ended.why.as_deref()),
            (RunState::Failed, Some("it is not set\nHINT: set it"))
        );
    }
}
