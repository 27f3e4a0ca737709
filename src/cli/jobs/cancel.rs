use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep};

use super::super::{Context, Exit, print_text};
use super::{kinds, named, runs_of};
use crate::error::with_hint;
use crate::jobs::Job;
use crate::jobs::lease::{Holder, Standing, Watch};
use crate::jobs::record::RunId;
use crate::jobs::runs::Runs;

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(500);
/// Beyond the time of the lease and of ending.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run or the job, as `walden jobs list` names it.
    #[arg(value_name = "RUN|JOB")]
    run: String,
}

/// Asks a run to end, and waits until it has. Exit code 1 when nothing runs, or it does not end.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let jobs = kinds::jobs(&context.settings);
    if args.run.parse::<RunId>().is_err() {
        named(&jobs, &args.run)?;
    }
    let cluster = context.cluster().await?;
    let runs = runs_of(&context.settings, &cluster);
    let Some((job, holder)) = find(&jobs, &runs, &args.run).await? else {
        let error = anyhow!("\"{}\" is not running", args.run);
        return Err(with_hint(error, "`walden jobs list` shows what runs"));
    };
    runs.cancel(job, &holder.run, &runs.host).await?;
    let (mut watch, until) = (Watch::default(), Instant::now() + holder.lease() + PATIENCE);
    loop {
        let seen = runs.leases.look(job).await?;
        let standing = watch.standing(seen.as_ref(), runs.leases.clock.boot());
        let current = seen.and_then(|seen| seen.object.holder);
        if current.is_none_or(|current| current.run != holder.run) {
            break;
        }
        if standing == Standing::Expired {
            let error = anyhow!(
                "run {} of job {job} gives no sign: its runner on \"{}\" is dead or stopped",
                holder.run,
                holder.host
            );
            return Err(with_hint(
                error,
                "the next run of the job will tell that it was interrupted",
            ));
        }
        if Instant::now() > until {
            let error = anyhow!(
                "run {} of job {job} was asked to end, and has not yet",
                holder.run
            );
            return Err(with_hint(error, "ask again in a moment"));
        }
        sleep(LOOK).await;
    }
    let record = runs.history.read(job, &holder.run).await?;
    let state = record.map_or("ended".into(), |record| record.state.to_string());
    print_text(&format!("run {} of job {job}: {state}\n", holder.run))?;
    Ok(Exit::Success)
}

/// Who runs what was named.
async fn find(
    jobs: &[Job],
    runs: &Runs,
    name: &str,
) -> anyhow::Result<Option<(&'static str, Holder)>> {
    for job in jobs {
        let seen = runs.leases.look(job.name).await?;
        if let Some(holder) = seen.and_then(|seen| seen.object.holder)
            && (job.name == name || holder.run.to_string() == name)
        {
            return Ok(Some((job.name, holder)));
        }
    }
    Ok(None)
}
