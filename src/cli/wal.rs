//! `walden wal`: what is archived, and whether it is whole.

mod list;
mod verify;

use clap::Subcommand;

use super::{Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the archived WAL of each timeline, and the gaps in it.
    List,
    /// Read archived WAL back and check every object, its identity, and that nothing is missing. Exit code 3 when
    /// something is wrong.
    Verify(verify::Args),
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::List => list::run(context).await,
        Verb::Verify(args) => verify::run(context, &args).await,
    }
}
