//! `walden wal push|fetch`: what the hook programs run when no service answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep};

use super::{Context, Exit};
use crate::config::Settings;
use crate::data_directory::{STANDBY_PATIENCE, STOP_CHECK, gives_up, is_in_haste};
use crate::error::{Hint, with_hint};
use crate::postgres::archive::push::wal_file_name;
use crate::postgres::archive::{Fetched, Fetcher, Pusher, refuse_other_cluster};
use crate::postgres::types::{SegmentName, WalFileName};
use crate::service::standby_retry::retry_for_standby;
use crate::storage::until;

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

/// Stores a file. Errors: also that PostgreSQL is stopping and this takes too long.
pub async fn push(context: &Context, args: &PushArgs) -> anyhow::Result<Exit> {
    tokio::select! {
        pushed = store(context, args) => pushed,
        stopping = server_stops(&args.path) => Err(stopping),
    }
}

/// Comes back when the server stops and has waited long enough.
async fn server_stops(file: &Path) -> anyhow::Error {
    let began = Instant::now();
    while !gives_up(file, began.elapsed()) {
        sleep(STOP_CHECK).await;
    }
    let error = anyhow!(
        "PostgreSQL is stopping, and the repository has not stored \"{}\" yet",
        file.display()
    );
    with_hint(
        error,
        "nothing is lost: PostgreSQL keeps the file and hands it over again once it runs",
    )
}

async fn store(context: &Context, args: &PushArgs) -> anyhow::Result<Exit> {
    // Before the repository is opened: a wrong name is told as such.
    wal_file_name(&args.path)?;
    let wal = &context.settings.wal;
    let cluster = context.cluster().await?;
    refuse_other_cluster(
        &args.path,
        cluster.description.system_identifier,
        "archive-command",
    )
    .await?;
    let pusher = Pusher::new(cluster, wal.compression_level, wal.timeout);
    let stored = pusher.push(&args.path).await?;
    tracing::debug!("\"{}\": {stored:?}", args.path.display());
    Ok(Exit::Success)
}

/// What a standby waits for keeps it from streaming, and it asks again by itself: then trouble is told at once. Bytes
/// that come may take as long as they always may. A history file, on which its timeline may hang, is worth repetitions.
fn bounded_for_standby(context: &Context, history: bool) -> Context {
    let mut context = context.clone();
    let Settings {
        repository,
        s3,
        wal,
        ..
    } = &mut context.settings;
    match history {
        true => wal.timeout = wal.timeout.min(STANDBY_PATIENCE),
        false => repository.retries = 0,
    }
    s3.connect_timeout = s3.connect_timeout.min(STANDBY_PATIENCE);
    s3.response_timeout = s3.response_timeout.min(STANDBY_PATIENCE);
    context
}

/// Gets a file. An error leaves open whether there is such a file, whatever it is: `cli::main` turns it into
/// [`Exit::Unknown`].
pub async fn fetch(context: &Context, args: &FetchArgs) -> anyhow::Result<Exit> {
    let name: WalFileName = args
        .name
        .parse()
        .hint("PostgreSQL puts the name in the place of %f in restore_command")?;
    let history = matches!(name, WalFileName::History(_));
    let attempt = || async {
        let haste = is_in_haste(Some(&args.destination), history);
        match haste.then(|| bounded_for_standby(context, history)) {
            None => fetch_once(context, args, &name, None).await,
            Some(context) => {
                let fetching = fetch_once(&context, args, &name, Some(STANDBY_PATIENCE));
                match history {
                    true => until(Instant::now() + STANDBY_PATIENCE, fetching).await,
                    false => fetching.await.map_err(|error| {
                        with_hint(error, "a promotion now would end before this file")
                    }),
                }
            }
        }
    };
    retry_for_standby(
        context.settings.wal.timeout,
        &args.destination,
        &name,
        attempt,
    )
    .await
}

async fn fetch_once(
    context: &Context,
    args: &FetchArgs,
    name: &WalFileName,
    grace: Option<Duration>,
) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    refuse_other_cluster(
        &args.destination,
        cluster.description.system_identifier,
        "restore-command",
    )
    .await?;
    let mut fetcher = Fetcher::new(cluster, context.settings.wal.timeout, 1);
    if let Some(grace) = grace {
        fetcher = fetcher.watching_gaps(grace);
    }
    match fetcher.fetch(name, &args.destination, args.end).await? {
        Fetched::Delivered => Ok(Exit::Success),
        Fetched::Absent => Ok(Exit::Absent),
    }
}
