//! `walden jobs`: what runs by itself, or would.
//!
//! Runs are children of this executable ([`crate::jobs`]). The service and `walden jobs run` begin them in one way.

mod cancel;
pub mod kinds;
mod list;
mod run;
mod show;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use anyhow::anyhow;
use chrono::Utc;
use clap::Subcommand;

use super::exit::wrong_usage;
use super::{Context, Exit};
use crate::config::{Settings, SettingsSource};
use crate::error::with_hint;
use crate::health::SeenJobs;
use crate::jobs::Job;
use crate::jobs::child::Launch;
use crate::jobs::clock::MachineClock;
use crate::jobs::lease::Watch;
use crate::jobs::record::RetryPolicy;
use crate::jobs::runs::Runs;
use crate::jobs::status::JobStatus;
use crate::postgres::check::LookAtJobs;
use crate::postgres::cluster::Cluster;
use crate::service::jobs::{COUNTED, counted, scheduled};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: JobsVerb,
}

#[derive(Debug, Subcommand)]
enum JobsVerb {
    /// List the jobs with their last and next runs; or the last runs.
    List(list::Args),
    /// Show all that is kept of a run.
    Show(show::Args),
    /// Run a job now, unless somebody runs it. For cron and systemd: `--scheduled`.
    #[command(
        after_help = "Exit codes: 0 it succeeded, or with --scheduled nothing was due; 1 it failed; 2 wrong usage; 3 its verb found damage or gaps; 4 its verb refused; 5 another one runs it; 6 cancelled; 7 over its deadline; 8 its lease was lost, or this process was told to end."
    )]
    Run(run::Args),
    /// Ask a run to end, on whatever machine, and wait until it has.
    Cancel(cancel::Args),
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        JobsVerb::List(args) => list::run(context, &args).await,
        JobsVerb::Show(args) => show::run(context, &args).await,
        JobsVerb::Run(args) => run::run(context, &args).await,
        JobsVerb::Cancel(args) => cancel::run(context, &args).await,
    }
}

/// The runs of a cluster's jobs.
pub fn runs_of(settings: &Settings, cluster: &Cluster) -> Runs {
    let schedule = &settings.schedule;
    let retry = RetryPolicy {
        retries: schedule.retries,
        after: schedule.retry_after,
    };
    let host = rustix::system::uname();
    Runs::new(
        cluster.repository.shared_storage(),
        cluster.layout.jobs_folder(),
        Arc::new(MachineClock),
        host.nodename().to_string_lossy().into_owned(),
        retry,
        [schedule.lease, schedule.history],
    )
}

/// How all jobs stand. Errors: one lacks a setting, or the store did not answer.
pub async fn statuses(settings: &Settings, cluster: &Cluster) -> anyhow::Result<Vec<JobStatus>> {
    let (runs, mut statuses) = (runs_of(settings, cluster), Vec::new());
    for job in kinds::jobs(settings) {
        statuses.push(runs.status(&job, &mut Watch::default()).await?);
    }
    Ok(statuses)
}

/// The same for who judges them.
pub fn look(settings: &Settings) -> LookAtJobs {
    let settings = Arc::new(settings.clone());
    Box::new(move |cluster| {
        let settings = settings.clone();
        Box::pin(async move {
            let jobs = scheduled(&statuses(&settings, &cluster).await?);
            let (history, mut ends) = (runs_of(&settings, &cluster).history, BTreeMap::new());
            history.ends(&mut ends, Utc::now() - COUNTED).await?;
            let runs = counted(ends.values().flatten());
            Ok(SeenJobs { jobs, runs })
        })
    })
}

/// How the children find the same settings.
pub fn launch(settings: &Settings) -> Launch {
    let config: Vec<OsString> = match &settings.source {
        SettingsSource::File(file) => vec!["--config".into(), file.into()],
        SettingsSource::Environment => Vec::new(),
    };
    Launch::ourselves([vec!["--leased".into()], config].concat())
}

/// The job of a name. Errors: there is none: wrong usage.
fn named<'a>(jobs: &'a [Job], name: &str) -> anyhow::Result<&'a Job> {
    jobs.iter().find(|job| job.name == name).ok_or_else(|| {
        let names: Vec<&str> = jobs.iter().map(|job| job.name).collect();
        wrong_usage(with_hint(
            anyhow!("there is no job \"{name}\""),
            format!("name one of {}", names.join(", ")),
        ))
    })
}
