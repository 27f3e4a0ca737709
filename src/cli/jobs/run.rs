use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::exit::print_error;
use super::super::{Context, Exit, Format, print_json, print_text};
use super::{kinds, launch, named, runs_of};
use crate::error::with_hint;
use crate::jobs::Job;
use crate::jobs::decide::Due;
use crate::jobs::lease::{Held, Holder, Watch};
use crate::jobs::perform::perform;
use crate::jobs::record::{RunRecord, RunState};
use crate::jobs::runs::{Runs, Turn, Wanted};

/// After another one was first.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a lease that another one has is looked at, at least so many times in its time.
const LOOKS: u32 = 8;
/// cron and systemd begin so late at most: a job seen for the first time at its very moment runs.
const STARTS: Duration = Duration::from_secs(120);
/// Clocks are set, machines sleep, and others work, while one waits.
const WAKE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job, as `walden jobs list` names it.
    #[arg(value_name = "JOB")]
    job: String,
    /// Do what the schedule says: wait for the jitter, run for the newest moment that nobody ran for, and try again what
    /// fails; else do nothing.
    #[arg(long)]
    scheduled: bool,
    /// Wait while another one runs the job, then run it.
    #[arg(long)]
    wait: bool,
}

/// Runs a job.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let jobs = kinds::jobs(&context.settings);
    let job = named(&jobs, &args.job)?;
    if !args.scheduled {
        kinds::runnable(job)?;
    }
    let cluster = context.cluster().await?;
    let runs = runs_of(&context.settings, &cluster);
    let (stopping, stop) = watch::channel(false);
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let work = attempt(context, &runs, job, args, stop);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.send_replace(true);
    }
}

/// One run; for the schedule also those that try again what failed.
async fn attempt(
    context: &Context,
    runs: &Runs,
    job: &Job,
    args: &Args,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Exit> {
    let (mut last, mut stopping) = (None, stop.clone());
    let end = loop {
        let begun = tokio::select! {
            begun = begin(runs, job, args, context.settings.schedule.jitter) => begun?,
            () = async { drop(stopping.wait_for(|stop| *stop).await) } => break Some(Exit::Interrupted),
        };
        match begun {
            Begun::Ours(held) => {
                let launch = launch(&context.settings);
                let record = perform(runs, job, *held, &launch, stop.clone()).await?;
                let is_over = !args.scheduled || !is_tried_again(record.state);
                last = Some(record);
                if is_over {
                    break None;
                }
            }
            // What this one failed to do is settled, or another one does it.
            _ if last.is_some() => break None,
            Begun::NothingToDo => {
                tracing::debug!("job {}: nothing is due", job.name);
                break Some(Exit::Success);
            }
            Begun::Elsewhere(holder) => {
                print_error(&runs_already(job, &holder));
                break Some(Exit::RunsElsewhere);
            }
        }
    };
    if let Some(record) = &last {
        match context.format {
            Format::Json => print_json(record)?,
            Format::Table => print_text(record.output.as_deref().unwrap_or_default())?,
        }
    }
    Ok(end.or(last.as_ref().map(exit)).unwrap_or(Exit::Success))
}

fn runs_already(job: &Job, holder: &Holder) -> anyhow::Error {
    let (name, run, host) = (job.name, &holder.run, &holder.host);
    with_hint(
        anyhow::anyhow!("job {name} runs already: run {run} on {host}"),
        "wait for it by `--wait`, or end it by `walden jobs cancel`",
    )
}

/// Whether the schedule may want another run for the same moment.
fn is_tried_again(state: RunState) -> bool {
    matches!(
        state,
        RunState::Failed | RunState::TimedOut | RunState::Interrupted
    )
}

/// The stable exit codes.
fn exit(record: &RunRecord) -> Exit {
    match (record.state, record.exit_code) {
        (RunState::Succeeded, _) => Exit::Success,
        (RunState::Cancelled, _) => Exit::Cancelled,
        (RunState::TimedOut, _) => Exit::TimedOut,
        (RunState::Interrupted | RunState::Stopped, _) => Exit::Interrupted,
        (RunState::Failed, Some(code)) if code == i32::from(Exit::Unsound.code()) => Exit::Unsound,
        (RunState::Failed, Some(code)) if code == i32::from(Exit::Refused.code()) => Exit::Refused,
        (RunState::Failed, _) => Exit::Failed,
    }
}

/// How the wish to run ended.
enum Begun {
    Ours(Box<Held>),
    NothingToDo,
    Elsewhere(Box<Holder>),
}

async fn begin(runs: &Runs, job: &Job, args: &Args, jitter: Duration) -> anyhow::Result<Begun> {
    let wanted = match args.scheduled {
        true => Wanted::Scheduled(STARTS),
        false => Wanted::Now,
    };
    let (mut watch, mut seen) = (Watch::default(), None);
    loop {
        let pause = match runs.consider(job, &mut watch, wanted).await? {
            Turn::Run(held) => return Ok(Begun::Ours(held)),
            Turn::Again => AGAIN,
            // Its runner may be dead: then nothing comes from it.
            Turn::Running(holder, _, left) if args.wait => left.min(holder.lease() / LOOKS),
            Turn::Running(holder, _, left) => {
                let shows_life = seen.is_some_and(|seen| left > seen);
                if shows_life {
                    return Ok(Begun::Elsewhere(holder));
                }
                seen = Some(left);
                left.min(holder.lease() / LOOKS)
            }
            // cron and systemd start this at the moment itself.
            Turn::Idle(_, Due::At(begin)) => {
                let wait = (begin - runs.leases.clock.wall())
                    .to_std()
                    .unwrap_or_default();
                if wait > jitter {
                    return Ok(Begun::NothingToDo);
                }
                wait.min(WAKE)
            }
            // Nobody else may come for it.
            Turn::Idle(_, Due::Retry(at)) => {
                let wait = at - runs.leases.clock.wall();
                wait.to_std().unwrap_or_default().min(WAKE)
            }
            Turn::Idle(..) => return Ok(Begun::NothingToDo),
        };
        // A lease that is looked at just in time has not expired yet.
        sleep(pause + AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::record::LASTING;

    #[test]
    fn what_another_try_does_not_change_has_these_codes() {
        let codes = [Exit::Usage, Exit::Unsound, Exit::Refused].map(|exit| i32::from(exit.code()));
        assert_eq!(codes, LASTING);
    }
}
