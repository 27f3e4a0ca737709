//! `walden wal`: what is archived, and whether it is whole.

pub mod hooks;
mod list;
mod show;
mod verify;

use clap::Subcommand;

use super::{Context, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: WalVerb,
}

#[derive(Debug, Subcommand)]
enum WalVerb {
    /// Store one WAL file, as archive_command does without a service.
    Push(hooks::PushArgs),
    /// Get one WAL file back, as restore_command does without a service. Exit codes: 0 delivered, 1 the repository
    /// proves that there is no such file, 200 not known, 75 not known to a standby.
    Fetch(hooks::FetchArgs),
    /// List the archived WAL of each timeline, and the gaps in it.
    List,
    /// Show what one segment holds: ends of transactions, what was dropped, changed rows.
    Show(show::Args),
    /// Read archived WAL back and check every object, its identity, and that nothing is missing. Exit code 3 when
    /// something is wrong.
    Verify(verify::Args),
}

/// Runs the verb. The hooks run once for each WAL file, so they do without threads that they do not need.
pub fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    match args.verb {
        WalVerb::Push(args) => context.block_on_hook(hooks::push(context, &args)),
        WalVerb::Fetch(args) => context.block_on_hook(hooks::fetch(context, &args)),
        WalVerb::List => context.block_on(list::run(context)),
        WalVerb::Show(args) => context.block_on(show::run(context, &args)),
        WalVerb::Verify(args) => context.block_on(verify::run(context, &args)),
    }
}
