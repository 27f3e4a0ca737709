//! `walden wal push|fetch`: what the hook programs run when no service answers.

use std::path::PathBuf;

use super::{Context, Exit};
use crate::error::Hint;
use crate::postgres::archive::push::wal_file_name;
use crate::postgres::archive::{Fetched, Fetcher, Pusher};
use crate::postgres::types::{SegmentName, WalFileName};

#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// The file, as PostgreSQL's %p.
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    /// The WAL file's name, as PostgreSQL's %f.
    name: String,
    /// Where to put it, as PostgreSQL's %p.
    destination: PathBuf,
    /// Answer that there is no such file for this segment and all later ones, on every timeline, without looking.
    #[arg(long, value_name = "SEGMENT")]
    end: Option<SegmentName>,
}

/// Stores a file.
pub async fn push(context: &Context, args: &PushArgs) -> anyhow::Result<Exit> {
    // Before the repository is opened: a wrong name is told as such.
    wal_file_name(&args.path)?;
    let wal = &context.settings.wal;
    let pusher = Pusher::new(context.cluster().await?, wal.compression_level, wal.timeout);
    let stored = pusher.push(&args.path).await?;
    tracing::debug!("\"{}\": {stored:?}", args.path.display());
    Ok(Exit::Success)
}

/// Gets a file. An error leaves open whether there is such a file, whatever it is: `cli::main` turns it into
/// [`Exit::Unknown`].
pub async fn fetch(context: &Context, args: &FetchArgs) -> anyhow::Result<Exit> {
    let name: WalFileName = args.name.parse().hint("PostgreSQL puts the name in the place of %f in restore_command")?;
    let fetcher = Fetcher::new(context.cluster().await?, context.settings.wal.timeout, 1);
    match fetcher.fetch(&name, &args.destination, args.end).await? {
        Fetched::Delivered => Ok(Exit::Success),
        Fetched::Absent => Ok(Exit::Absent),
    }
}
