//! `walden wal`: WAL files, one by one and altogether.

use clap::Subcommand;

use super::{Context, Exit, wal_hooks};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Store one WAL file, as archive_command does without a service.
    Push(wal_hooks::PushArgs),
    /// Get one WAL file back, as restore_command does without a service. Exit codes: 0 delivered, 1 the repository
    /// proves that there is no such file, 200 not known.
    Fetch(wal_hooks::FetchArgs),
}

/// Runs the verb. The hooks run once for each WAL file, so they do without threads that they do not need.
pub fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Push(args) => context.block_on_one_thread(wal_hooks::push(context, &args)),
        Verb::Fetch(args) => context.block_on_one_thread(wal_hooks::fetch(context, &args)),
    }
}
