use anyhow::anyhow;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::super::exit::print_error;
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use super::progress::BackupProgress;
use crate::config;
use crate::error::{one_line, with_hint};
use crate::plain::counted;
use crate::postgres::backup::manifest;
use crate::postgres::backup::packer::PackOptions;
use crate::postgres::backup::take::{TakeOptions, take};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::check::{ServerFolders, refuse_inside};
use crate::postgres::cluster::Cluster;
use crate::postgres::names;
use crate::postgres::replication::{Checkpoint, ConnInfo, ResolveConnInfo};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Words to know the backup by.
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// How the server makes the first checkpoint: at once, or paced so that it disturbs less. Else
    /// `backup.checkpoint` decides.
    #[arg(long, value_enum)]
    checkpoint: Option<Pace>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Pace {
    Fast,
    Spread,
}

/// Takes a backup. Exit code 3 when the server found bad pages in it, or not all came.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    refuse_inside(
        &context.settings.repository.url,
        &ServerFolders::gather(&context.settings).await.0,
    )?;
    let options = options(&context.settings.backup, args);
    let resolve = || ConnInfo::from_process(context.settings.postgresql.dsn.expose());
    let (request, mut stop) = watch::channel(false);
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let progress = BackupProgress::new();
    let observer = |event| progress.show(event);
    let taking = take(&cluster, &resolve, &options, &observer, &mut stop);
    tokio::pin!(taking);
    let taken = loop {
        tokio::select! {
            taken = &mut taking => break taken,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("interrupted: giving the backup up");
        request.send_replace(true);
    };
    progress.end();
    let taken = taken?;
    record_names(context, &cluster, &resolve).await;
    report(context, &taken)
}

/// What relations are called now. The backup is whole without.
async fn record_names(context: &Context, cluster: &Cluster, resolve: ResolveConnInfo<'_>) {
    let folder = &context.settings.catalog.cache;
    if let Err(error) = names::record_alone(cluster, folder, resolve).await {
        tracing::warn!(
            "the names of relations are not recorded with this backup: {}",
            one_line(&error)
        );
    }
}

fn options(settings: &config::Backup, args: Args) -> TakeOptions {
    let checkpoint = match (args.checkpoint, settings.checkpoint) {
        (Some(Pace::Fast), _) | (None, config::Checkpoint::Fast) => Checkpoint::Fast,
        (Some(Pace::Spread), _) | (None, config::Checkpoint::Spread) => Checkpoint::Spread,
    };
    TakeOptions {
        label: args.label,
        checkpoint,
        max_rate_kib: settings
            .max_rate
            .map(|rate| u32::try_from(rate / 1024).unwrap_or(u32::MAX)),
        verify_checksums: settings.verify_checksums,
        pack: PackOptions {
            compression_level: settings.compression_level,
            workers: settings.workers,
            pack_size: settings.pack_size as u64,
            longest_manifest: manifest::LONGEST,
        },
        wal_timeout: settings.wal_timeout,
    }
}

fn report(context: &Context, backup: &BackupDescription) -> anyhow::Result<Exit> {
    match context.format {
        Format::Json => print_json(backup)?,
        Format::Table => print_text(&in_words(backup))?,
    }
    if backup.is_sound() {
        return Ok(Exit::Success);
    }
    if !backup.left_out.is_empty() {
        let parts = backup.left_out.join(", ");
        let error = anyhow!(
            "backup {} cannot be used: the server did not send {parts}",
            backup.id
        );
        let hint =
            "see whether a disk is not mounted there; then take another backup and delete this one";
        print_error(&with_hint(error, hint));
        return Ok(Exit::Unsound);
    }
    tracing::warn!(
        "the server found pages that do not match their checksums; the backup is kept, and is restored only when it is \
         asked for by name: {}",
        backup.checksum_failures.join("; ")
    );
    Ok(Exit::Unsound)
}

fn in_words(backup: &BackupDescription) -> String {
    let seconds = (backup.stopped_at - backup.started_at).as_seconds_f64();
    format!(
        "backup {}: {}, {} stored as {} in {seconds:.1} s; timeline {}, {} to {}\n",
        backup.id,
        counted(backup.file_count, "file"),
        bytes(backup.plain_bytes),
        bytes(backup.stored_bytes),
        backup.timeline,
        backup.start_lsn,
        backup.stop_lsn,
    )
}
