//! An index of no more than the WAL that one restore replays, for where none is kept.

use std::sync::Arc;

use anyhow::anyhow;

use super::update::{IndexObserver, read_listed};
use super::{Archived, Index, on_index};
use crate::error::with_hint;
use crate::postgres::catalog::WalPiece;
use crate::postgres::cluster::Cluster;
use crate::postgres::load;
use crate::postgres::types::WalFileName;

/// Segments put into the index at once.
const BATCH: usize = 1000;

/// What this WAL holds, from an index that is gone afterwards. Errors: as of [`update`](super::update::update), or not all
/// of it is there.
pub async fn index_of(
    cluster: &Cluster,
    wal: &[WalPiece],
    progress: IndexObserver<'_>,
) -> anyhow::Result<Arc<Index>> {
    let index = Arc::new(Index::temporary(cluster)?);
    let is_wanted = |name| wal.iter().any(|piece| piece.contains(name));
    let (mut listing, mut found, mut count) = (load::list_wal(cluster), Vec::new(), 0);
    loop {
        let next = listing.next().await?;
        if let Some((Some(WalFileName::Segment(name)), meta)) = &next
            && is_wanted(*name)
        {
            count += 1;
            found.push(Archived {
                name: *name,
                bytes: meta.size,
                stored_at: meta.modified.into(),
            });
        }
        if found.len() == BATCH || next.is_none() {
            let found = std::mem::take(&mut found);
            on_index(&index, move |index| index.list(&found)).await?;
        }
        if next.is_none() {
            break;
        }
    }
    let expected: u64 = wal.iter().map(|piece| piece.segments).sum();
    if count < expected {
        let gone = anyhow!(
            "{} of {expected} WAL segments went from the repository while it was read",
            expected - count
        );
        return Err(with_hint(
            gone,
            "find out with `walden wal list` what is missing, then try again",
        ));
    }
    read_listed(&index, cluster, progress).await?;
    Ok(index)
}
