//! `walden schedule`: when jobs run.

mod install;
mod show;
mod units;

use clap::Subcommand;

use super::{Context, Exit};

/// What to do where there is no schedule.
const NOTHING_SCHEDULED: &str =
    "say in section schedule when jobs run, such as `backup = \"0 2 * * 0\"`";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: ScheduleVerb,
}

#[derive(Debug, Subcommand)]
enum ScheduleVerb {
    /// Show the coming runs. Reads the configuration alone.
    Show(show::Args),
    /// Write what makes cron or systemd run the jobs as the configuration says. Files that others made stay.
    Install(install::Args),
}

/// Runs the verb.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    match &args.verb {
        ScheduleVerb::Show(args) => show::run(context, args),
        ScheduleVerb::Install(args) => install::run(context, args),
    }
}
