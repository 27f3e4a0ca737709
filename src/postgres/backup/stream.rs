//! The transfer: BASE_BACKUP's events into the pipeline.

use anyhow::{Context, bail, ensure};

use super::outside::OutsideFile;
use super::pipeline::Pipeline;
use super::warnings::Warnings;
use super::{BackupObserver, BackupStep};
use crate::error::{find, one_line};
use crate::postgres::catalog::TablespaceDescription;
use crate::postgres::replication::{BackupEvent, BackupPosition, ChecksumFailures, Tablespace};

/// Where a backup's events come from: a server.
pub trait BackupEvents {
    /// The next event; `None` after the last. [`ChecksumFailures`] takes the last one's place when pages are bad.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Option<BackupEvent>>>;
}

/// What the server said about a backup that was transferred whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    pub start: BackupPosition,
    pub end: BackupPosition,
    pub tablespaces: Vec<TablespaceDescription>,
    /// The server's messages on bad pages.
    pub checksum_failures: Vec<String>,
    /// All that it warned of.
    pub warnings: Vec<String>,
}

/// Where the backup starts, and the server's tablespaces.
async fn begin(
    events: &mut impl BackupEvents,
    warnings: &mut Warnings,
) -> anyhow::Result<(BackupPosition, Vec<Tablespace>)> {
    let start = match after_warnings(events, warnings).await? {
        Some(BackupEvent::Start(position)) => position,
        other => bail!("the server began a base backup with {other:?}"),
    };
    tracing::info!(
        "the backup starts at {} on timeline {}",
        start.lsn,
        start.timeline
    );
    match after_warnings(events, warnings).await? {
        Some(BackupEvent::Tablespaces(list)) => Ok((start, list)),
        other => bail!("the server sent {other:?} in place of the tablespace list"),
    }
}

/// Feeds everything that the server sends to `pipeline`. Errors: also [`super::warnings::LeftOut`], at once: while the
/// server estimates the size it walks all folders, so mostly before anything is copied.
pub async fn transfer(
    events: &mut impl BackupEvents,
    pipeline: &mut Pipeline,
    outside: &[OutsideFile],
    observer: BackupObserver<'_>,
) -> anyhow::Result<Transferred> {
    observer(BackupStep::Checkpoint);
    let mut warnings = Warnings::default();
    let (start, tablespaces) = begin(events, &mut warnings).await?;
    let total = tablespaces
        .iter()
        .map(|one| one.size_kib.map(|kib| kib * 1024))
        .sum::<Option<u64>>();
    for file in outside {
        pipeline.add_file(file.facts(), &file.content).await?;
    }
    let mut done = 0;
    let (end, checksum_failures) = loop {
        match after_warnings(events, &mut warnings).await {
            Ok(Some(BackupEvent::Data(bytes))) => {
                done += bytes.len() as u64;
                pipeline.feed(bytes).await?;
                observer(BackupStep::Streaming { done, total });
            }
            Ok(Some(BackupEvent::ArchiveStart { tablespace_oid, .. })) => {
                pipeline.begin_archive(tablespace_oid)
            }
            Ok(Some(BackupEvent::ArchiveEnd)) => pipeline.end_archive()?,
            Ok(Some(BackupEvent::Progress(_))) => {}
            Ok(Some(BackupEvent::End(position))) => break (position, Vec::new()),
            Ok(Some(other)) => bail!("the server sent {other:?} within the archives"),
            Ok(None) => bail!("the server ended a base backup before its end"),
            Err(error) => break bad_pages(error, &warnings)?,
        }
    };
    let described = tablespaces
        .iter()
        .filter_map(describe)
        .collect::<anyhow::Result<_>>()?;
    ensure!(
        start.timeline == end.timeline && start.lsn < end.lsn,
        "the server says that the backup from {} on timeline {} ends at {} on timeline {}",
        start.lsn,
        start.timeline,
        end.lsn,
        end.timeline
    );
    let warnings = warnings.into_lines();
    Ok(Transferred {
        start,
        end,
        tablespaces: described,
        checksum_failures,
        warnings,
    })
}

/// The next event that is no warning.
async fn after_warnings(
    events: &mut impl BackupEvents,
    warnings: &mut Warnings,
) -> anyhow::Result<Option<BackupEvent>> {
    loop {
        match events.next().await? {
            Some(BackupEvent::Warning(warning)) => warnings.note(&warning)?,
            other => return Ok(other),
        }
    }
}

/// A backup that is complete but for bad pages; any other error stays one.
fn bad_pages(
    error: anyhow::Error,
    warnings: &Warnings,
) -> anyhow::Result<(BackupPosition, Vec<String>)> {
    let Some(ChecksumFailures { end }) = find(&error) else {
        return Err(error);
    };
    Ok((*end, warnings.bad_pages(one_line(&error))))
}

fn describe(tablespace: &Tablespace) -> Option<anyhow::Result<TablespaceDescription>> {
    let oid = tablespace.oid?;
    let location = tablespace
        .location
        .clone()
        .with_context(|| format!("tablespace {oid} has no location"));
    Some(location.map(|location| TablespaceDescription { oid, location }))
}
