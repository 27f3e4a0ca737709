//! `walden repo`: a cluster's objects as a whole: copied, verified, counted.
//!
//! The work is in `postgres::repository`. Here are arguments, progress, tables and JSON. Exit code 3 means that something
//! is damaged or missing, and the output names it.

mod copy;
mod stats;
mod verify;

use clap::Subcommand;

use super::{Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: RepoVerb,
}

#[derive(Debug, Subcommand)]
enum RepoVerb {
    /// Copy the cluster, or one backup with the WAL that it needs, into another repository, and show that the copy
    /// leads as far as the original. What is there already is not copied again. Exit code 3 when anything is not there.
    Copy(copy::Args),
    /// Read backups and WAL back and check every object, and that nothing is missing. Exit code 3 when something is
    /// damaged, missing or could not be read.
    Verify(verify::Args),
    /// Show what the cluster takes: objects and bytes by kind, timeline and backup. Only lists, and reads the headers of
    /// manifests.
    Stats,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        RepoVerb::Copy(args) => copy::run(context, &args).await,
        RepoVerb::Verify(args) => verify::run(context, &args).await,
        RepoVerb::Stats => stats::run(context).await,
    }
}

/// Completes when the process is asked to end.
pub async fn asked_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
