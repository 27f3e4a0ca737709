use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

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

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job, as `walden jobs list` names it.
    #[arg(value_name = "JOB")]
    job: String,
    /// Do what the schedule says: wait for the jitter, run for the newest moment that nobody ran for, else do nothing.
    #[arg(long)]
    scheduled: bool,
    /// Wait while another one runs the job, then run it.
    #[arg(long)]
    wait: bool,
}

/// Runs a job.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let jobs = kinds::jobs(&context.settings)?;
    let job = named(&jobs, &args.job)?;
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

async fn attempt(
    context: &Context,
    runs: &Runs,
    job: &Job,
    args: &Args,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Exit> {
    let begun = tokio::select! {
        begun = begin(runs, job, args, context.settings.schedule.jitter) => begun?,
        () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(Exit::Interrupted),
    };
    let held = match begun {
        Begun::Ours(held) => held,
        Begun::NothingToDo => {
            tracing::info!("job {}: nothing is due", job.name);
            return Ok(Exit::Success);
        }
        Begun::Elsewhere(holder) => {
            let error = anyhow::anyhow!(
                "job {} runs already: run {} on {}",
                job.name,
                holder.run,
                holder.host
            );
            let error = with_hint(
                error,
                "wait for it by `--wait`, or end it by `walden jobs cancel`",
            );
            super::super::exit::print_error(&error);
            return Ok(Exit::RunsElsewhere);
        }
    };
    let record = perform(runs, job, *held, &launch(&context.settings), stop).await?;
    match context.format {
        Format::Json => print_json(&record)?,
        Format::Table => print_text(record.output.as_deref().unwrap_or_default())?,
    }
    Ok(exit(&record))
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
        true => Wanted::Scheduled,
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
                wait
            }
            Turn::Idle(..) => return Ok(Begun::NothingToDo),
        };
        // A lease that is looked at just in time has not expired yet.
        sleep(pause + AGAIN).await;
    }
}
