//! `walden dump`: logical dumps.

mod chosen;
mod confirm;
mod delete;
mod drop_old;
mod export;
mod found;
mod list;
mod progress;
mod restore;
mod restored;
mod show;
mod take;
mod verify;

use super::{Context, Exit};
use crate::postgres::layout::DumpFormat;

pub use found::dump_of;

/// Arguments of `walden dump`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: DumpVerb,
}

impl Args {
    /// Whether `--format` may name a format of `pg_dump`.
    pub fn takes_dump_format(&self) -> bool {
        matches!(self.verb, DumpVerb::Take(_))
    }
}

#[derive(Debug, clap::Subcommand)]
enum DumpVerb {
    /// Dump databases by pg_dump into the repository. --format names pg_dump's format, too: custom, directory or plain.
    Take(take::Args),
    /// List the dumps.
    List(list::Args),
    /// Show everything that is known of a dump.
    Show(show::Args),
    /// Read dumps whole: every byte against its digest, and by pg_restore --list.
    Verify(verify::Args),
    /// Delete dumps, after showing what goes.
    Delete(delete::Args),
    /// Write a dump to files that pg_restore and psql take, or to standard output.
    Export(export::Args),
    /// Restore a dump as a database. The old one of its name is kept beside it until `drop-old`.
    Restore(Box<restore::Args>),
    /// Drop the databases that restores replaced and kept.
    DropOld(drop_old::Args),
}

/// Runs the verb.
pub async fn run(
    context: &Context,
    args: Args,
    format: Option<DumpFormat>,
) -> anyhow::Result<Exit> {
    match args.verb {
        DumpVerb::Take(args) => take::run(context, args, format).await,
        DumpVerb::List(args) => list::run(context, &args).await,
        DumpVerb::Show(args) => show::run(context, &args).await,
        DumpVerb::Verify(args) => verify::run(context, &args).await,
        DumpVerb::Delete(args) => delete::run(context, &args).await,
        DumpVerb::Export(args) => export::run(context, &args).await,
        DumpVerb::Restore(args) => restore::run(context, *args).await,
        DumpVerb::DropOld(args) => drop_old::run(context, &args).await,
    }
}
