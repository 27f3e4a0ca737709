//! `walden backup`: take, list, show, verify and delete base backups.
//!
//! Taking and deleting happen in `postgres::backup`, verifying in `postgres::repository`. Here are arguments, progress,
//! tables and JSON. Only `delete` removes anything, and it prints first what goes.

mod delete;
mod list;
mod progress;
mod show;
mod take;
mod verify;

use clap::Subcommand;

use super::{Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: BackupVerb,
}

#[derive(Debug, Subcommand)]
enum BackupVerb {
    /// Take a base backup now. It is complete when all WAL that it needs is in the repository.
    Take(take::Args),
    /// List the base backups.
    List,
    /// Show everything that is known of a base backup.
    Show(show::Args),
    /// Read base backups whole and check every frame, every file and the WAL that they need.
    Verify(verify::Args),
    /// Delete a base backup, after showing what can no longer be restored without it.
    Delete(delete::Args),
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        BackupVerb::Take(args) => take::run(context, args).await,
        BackupVerb::List => list::run(context).await,
        BackupVerb::Show(args) => show::run(context, &args).await,
        BackupVerb::Verify(args) => verify::run(context, &args).await,
        BackupVerb::Delete(args) => delete::run(context, &args).await,
    }
}
