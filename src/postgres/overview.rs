//! What is kept of a cluster and what can be restored of it, read once: for verbs that tell how it stands.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::task::spawn_blocking;

use super::catalog::{
    Facts, Gap, NoIndex, WalIndex, WalPiece, WalRanges, Windows, missing_wal, windows,
};
use super::cluster::Cluster;
use super::index::partial::index_of;
use super::index::update::{ListScope, list, take_in};
use super::index::{Index, on_index};
use super::layout::IdleMarker;
use super::load::{LoadedHistories, facts, load, load_backups, load_idle};
use super::protection::load_expired;
use crate::config;
use crate::error::one_line;
use crate::health::{Health, Now};

/// Segments at the end of the archive whose headers are read where no index is kept.
const TAIL: u64 = 64;

/// What is kept, and what follows from it.
#[derive(Debug)]
pub struct Overview {
    pub facts: Facts,
    pub windows: Windows,
    /// Ranges of WAL that are missing.
    pub gaps: Vec<Gap>,
}

impl Overview {
    /// Reads it, with the index in `cache` if one is kept there. `prove` says what the server proved last of this WAL.
    /// Errors: the repository did not answer.
    pub async fn read(
        cluster: &Cluster,
        cache: &Path,
        prove: impl AsyncFnOnce(&WalRanges) -> Option<IdleMarker>,
    ) -> anyhow::Result<Self> {
        let indexed = match Index::is_in(cache, cluster) {
            true => with_index(cluster, cache).await,
            false => Err(anyhow::anyhow!("no index is kept")),
        };
        let (mut facts, index) = match indexed {
            Ok((facts, index)) => (facts, Some(index)),
            Err(error) => {
                tracing::debug!(
                    "the archive is read without its index: {}",
                    one_line(&error)
                );
                (load(cluster).await?, None)
            }
        };
        facts.idle.extend(prove(&facts.ranges).await);
        let index: Arc<dyn WalIndex + Send + Sync> = match index {
            Some(index) => index,
            None => match tail(&facts) {
                Some(tail) => index_of(cluster, &[tail], &|_| ()).await?,
                None => Arc::new(NoIndex),
            },
        };
        let derive = move || {
            let (windows, gaps) = (windows(&facts, &*index), missing_wal(&facts));
            Self {
                facts,
                windows,
                gaps,
            }
        };
        Ok(spawn_blocking(derive).await?)
    }

    /// How it stands.
    pub fn health(&self, limits: &config::Health, now: impl Into<Now>) -> Health {
        Health::of(&self.facts, &self.windows, &self.gaps, limits, now)
    }
}

async fn with_index(cluster: &Cluster, cache: &Path) -> anyhow::Result<(Facts, Arc<Index>)> {
    let index = Arc::new(Index::open(cache, cluster)?);
    // Backups first: the WAL of one that was complete by then is in the listing that follows.
    let backups = load_backups(cluster).await?;
    let listed = list(&index, cluster, ListScope::New).await?;
    take_in(&index, cluster, ListScope::New, &|_| ()).await?;
    let mut histories = LoadedHistories::default();
    histories.refresh(cluster, &listed.histories).await?;
    let ranges = on_index(&index, |index| index.ranges())
        .await?
        .context("the index is being made anew")?
        .with_expired(load_expired(cluster).await?);
    let idle = load_idle(cluster, &ranges).await?;
    Ok((facts(cluster, backups, ranges, histories, idle), index))
}

/// The end of the newest timeline's WAL.
fn tail(facts: &Facts) -> Option<WalPiece> {
    let (range, size) = (facts.ranges.iter().last()?, facts.ranges.segment_size());
    let segments = range.segments.min(TAIL);
    let first = crate::postgres::types::SegmentName::from_number(
        range.timeline(),
        range.last.number(size) + 1 - segments,
        size,
    );
    Some(WalPiece {
        first,
        last: range.last,
        segments,
        stored_bytes: 0,
    })
}
