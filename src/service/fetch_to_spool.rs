//! Puts files into the spool.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::spool::Spool;
use crate::error::Hint;
use crate::postgres::archive::Fetcher;
use crate::postgres::types::{SegmentName, TimelineHistory, WalFileName};

/// Fetches a file into the spool, which may have been tidied away just now.
pub async fn obtain_into(
    fetcher: &Fetcher,
    spool: &Spool,
    name: WalFileName,
    place: &Path,
    end: Option<SegmentName>,
) -> anyhow::Result<bool> {
    let first = fetcher.obtain(&name, place, end).await;
    if first.is_ok() || spool.exists() {
        return first;
    }
    make(spool).await?;
    fetcher.obtain(&name, place, end).await
}

/// Looks for a file, without a proof when there is none.
pub async fn retrieve(
    fetcher: &Fetcher,
    spool: &Spool,
    name: WalFileName,
    place: &Path,
) -> anyhow::Result<bool> {
    make(spool).await?;
    fetcher.retrieve(&name, place).await
}

/// Makes a file durable, as far as that goes: PostgreSQL syncs it again, and tells when that fails.
pub async fn sync(place: PathBuf) {
    let synced = tokio::task::spawn_blocking(move || File::open(place)?.sync_data()).await;
    if let Ok(Err(error)) = synced {
        tracing::debug!("cannot sync a fetched file: {error}");
    }
}

pub async fn make(spool: &Spool) -> anyhow::Result<()> {
    let owned = spool.clone();
    let made = tokio::task::spawn_blocking(move || owned.make()).await?;
    made.context("cannot make the spool folder beside the destination")
        .hint("make the destination's folder, and let the user who runs `walden serve` write to it")
}

/// The history that was just fetched; what cannot be read only costs fetching ahead.
pub async fn read_history(place: &Path, name: WalFileName) -> Option<TimelineHistory> {
    let content = tokio::fs::read(place).await.ok()?;
    TimelineHistory::parse(name.timeline(), &String::from_utf8_lossy(&content)).ok()
}

/// A folder that has two names, by a link, is one server's: two spools would clear each other.
pub async fn by_real_folder(destination: PathBuf) -> PathBuf {
    let (Some(folder), Some(name)) = (destination.parent(), destination.file_name()) else {
        return destination;
    };
    tokio::fs::canonicalize(folder)
        .await
        .map_or_else(|_| destination.clone(), |folder| folder.join(name))
}
