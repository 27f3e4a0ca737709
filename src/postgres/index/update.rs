//! Brings the index up to date with the repository: what is archived, then what that holds, by headers where they tell.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::task::JoinSet;

pub use super::listing::ListScope;
use super::listing::Listing;
use super::{Archived, Index, listing, on_index, recordings};
use crate::error::{one_line, with_hint};
use crate::postgres::archive::gap_evidence::confirm_wal;
use crate::postgres::archive::summarize::{stored_summary, summary_of};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::ObjectKind;
use crate::postgres::types::{SegmentName, TimelineId, WalFileName};
use crate::postgres::wal::Summary;
use crate::repo::{is_damage, is_unusable};
use crate::storage::{Key, ListEntry, Pages};

/// Headers and other small objects read at once.
const PARALLEL_READS: usize = 16;
/// Segments put into the index at once.
const BATCH: usize = 256;
/// Recordings of names that are listed again: another host's clock may be late.
const NAMES_AGAIN: u32 = 256;
/// Damaged ones that are read again each time.
const DAMAGED_AGAIN: usize = 16;

/// How far the reading of segments is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexProgress {
    pub done: u64,
    pub total: u64,
}

/// Told while segments are read.
pub type IndexObserver<'a> = &'a (dyn Fn(IndexProgress) + Sync);

/// What a listing of the repository told.
#[derive(Debug, Clone)]
pub struct ListingResult {
    /// Timelines that have a history file.
    pub histories: Vec<TimelineId>,
    /// Some segments were gone: what follows them has to be read again.
    pub gone: bool,
}

/// Notes which segments are archived, not what they hold. Errors: as of [`update`]; there is no WAL at all where there are
/// backups; or something went while it was listed anew.
pub async fn list(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
) -> anyhow::Result<ListingResult> {
    let _alone = match on_index(index, |index| index.is_whole()).await? {
        true => None,
        // This takes long: who waits for it finds little new.
        false => Some(index.listing.lock().await),
    };
    let listed = list_confirmed(index, cluster, scope).await?;
    index.note_listed();
    Ok(listed)
}

/// That everything was listed, and what is gone, counts only when it is certain that it was the repository.
async fn list_confirmed(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
) -> anyhow::Result<ListingResult> {
    for _ in 0..2 {
        let Listing {
            histories,
            whole,
            gone,
            cleared,
        } = listing::list(index, cluster, scope).await?;
        // The empty folder below an unmounted disk has no segments either.
        cluster.confirm().await?;
        let some_gone = !gone.is_empty();
        if some_gone {
            // WAL can also lie on a disk of its own.
            confirm_wal(cluster).await?;
            let count: usize = gone.iter().map(|gone| gone.segments.len()).sum();
            tracing::info!(
                "{count} WAL segments that were indexed are gone from the repository: they are forgotten"
            );
            on_index(index, move |index| index.remove(&gone)).await?;
        }
        if whole {
            let kept = histories.clone();
            on_index(index, move |index| index.keep_histories(&kept)).await?;
        }
        let is_empty = on_index(index, |index| index.is_empty()).await?;
        if !is_empty || !confirm_wal(cluster).await? {
            on_index(index, move |index| index.listed_since(cleared)).await?;
            return Ok(ListingResult {
                histories,
                gone: some_gone,
            });
        }
        // It came meanwhile, or the disk that it is on.
    }
    Err(with_hint(
        anyhow!("no WAL is listed where there is some"),
        "look at the repository with `walden wal list`",
    ))
}

/// Brings the index up to date, but for segments without a summary: for those there is [`decode`]. Errors: the
/// repository did not answer or is another's, or the index cannot be written; what was read until then stays.
pub async fn update(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
    progress: IndexObserver<'_>,
) -> anyhow::Result<()> {
    list(index, cluster, scope).await?;
    take_in(index, cluster, scope, progress).await
}

/// [`update`] after a listing.
pub async fn take_in(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
    progress: IndexObserver<'_>,
) -> anyhow::Result<()> {
    read_names(index, cluster, scope).await?;
    if scope == ListScope::All {
        on_index(index, |index| index.retry_unreadable()).await?;
    }
    read_headers(index, cluster, progress).await
}

/// What all segments hold that are noted as archived.
pub(super) async fn read_listed(
    index: &Arc<Index>,
    cluster: &Cluster,
    progress: IndexObserver<'_>,
) -> anyhow::Result<()> {
    read_headers(index, cluster, progress).await?;
    while decode(index, cluster, BATCH).await? > 0 {}
    Ok(())
}

/// Reads segments that are not indexed, the content of those whose objects have no summary, at most so many, and puts in
/// what they hold; how many that were. Errors: as of [`update`].
pub async fn decode(index: &Arc<Index>, cluster: &Cluster, most: usize) -> anyhow::Result<usize> {
    let waiting = on_index(index, move |index| index.not_indexed(None, most)).await?;
    for segment in &waiting {
        let read = summary_of(cluster, segment.name).await;
        put(index, vec![(*segment, missing(segment.name, read))]).await?;
    }
    Ok(waiting.len())
}

/// [`update`], then [`decode`] until nothing is left; what could not be read before is tried again.
pub async fn complete(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
    progress: IndexObserver<'_>,
) -> anyhow::Result<()> {
    on_index(index, |index| index.retry_unreadable()).await?;
    update(index, cluster, scope, progress).await?;
    while decode(index, cluster, BATCH).await? > 0 {}
    Ok(())
}

/// What became of reading a segment: `None` when its object has no summary.
type SummaryRead = anyhow::Result<Option<Box<Summary>>>;

fn missing(name: SegmentName, read: anyhow::Result<Option<Summary>>) -> SummaryRead {
    let summary =
        read?.with_context(|| format!("segment \"{name}\" vanished while the archive was read"))?;
    Ok(Some(Box::new(summary)))
}

/// Puts in what was read, and notes what cannot be read; how many have no summary. Errors: the store did not answer.
async fn put(index: &Arc<Index>, reads: Vec<(Archived, SummaryRead)>) -> anyhow::Result<u64> {
    let (mut summaries, mut damaged, mut without) = (Vec::new(), Vec::new(), 0);
    for (segment, read) in reads {
        match read {
            Ok(Some(summary)) => summaries.push((segment, summary)),
            Ok(None) => without += 1,
            Err(error) if is_unusable(&error) => damaged.push((segment, one_line(&error))),
            Err(error) => return Err(error),
        }
    }
    summaries.sort_by_key(|(segment, _)| segment.name);
    on_index(index, move |index| {
        index.learn(&summaries)?;
        damaged
            .iter()
            .try_for_each(|(segment, why)| index.give_up(segment, why))?;
        Ok(without)
    })
    .await
}

/// Reads a header; twice, if need be: bytes can also be damaged on their way here, and the object may have been replaced
/// since it was listed.
async fn read_header(cluster: &Cluster, Archived { name, bytes, .. }: Archived) -> SummaryRead {
    match stored_summary(cluster, name, bytes).await {
        Err(error) if is_damage(&error) => {
            let key = cluster.layout.wal(&WalFileName::Segment(name));
            let Some(meta) = cluster.repository.storage().head(&key).await? else {
                return Ok(None);
            };
            stored_summary(cluster, name, meta.size).await
        }
        read => read,
    }
}

/// Reads the headers of all segments that are not in the index, also of those that what was read shows to be read again.
pub(super) async fn read_headers(
    index: &Arc<Index>,
    cluster: &Cluster,
    progress: IndexObserver<'_>,
) -> anyhow::Result<()> {
    let (mut so_far, mut without) = (IndexProgress::default(), 0);
    loop {
        let left = on_index(index, |index| index.count_not_indexed()).await?;
        so_far.total = so_far.done + left.saturating_sub(without);
        progress(so_far);
        if left <= without {
            return Ok(());
        }
        let mut after = None;
        without = 0;
        loop {
            let waiting = on_index(index, move |index| index.not_indexed(after, BATCH)).await?;
            let Some(last) = waiting.last() else { break };
            after = Some(last.name);
            so_far.done += waiting.len() as u64;
            let reads = side_by_side(waiting, |segment| {
                let cluster = cluster.clone();
                async move { (segment, read_header(&cluster, segment).await) }
            });
            without += put(index, reads.await?).await?;
            so_far.total = so_far.total.max(so_far.done);
            progress(so_far);
        }
    }
}

/// Reads [`PARALLEL_READS`] things at once.
async fn side_by_side<I, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    items: Vec<I>,
    read: impl Fn(I) -> F,
) -> anyhow::Result<Vec<T>> {
    let (mut reads, mut done) = (JoinSet::new(), Vec::with_capacity(items.len()));
    for item in items {
        if reads.len() >= PARALLEL_READS
            && let Some(read) = reads.join_next().await
        {
            done.push(read?);
        }
        reads.spawn(read(item));
    }
    while let Some(read) = reads.join_next().await {
        done.push(read?);
    }
    Ok(done)
}

/// Whether a key is a recording's. What else lies there is foreign.
fn is_recording(cluster: &Cluster, key: &Key) -> bool {
    matches!(cluster.object_kind(key), Some(ObjectKind::Names(_)))
}

/// Puts in names that were recorded since. A recording that cannot be read is passed over, and read again later: a
/// name is missing until then. Errors: the store did not answer.
pub async fn read_names(
    index: &Arc<Index>,
    cluster: &Cluster,
    scope: ListScope,
) -> anyhow::Result<()> {
    let after = match scope {
        ListScope::New => on_index(index, |index| index.recording_before(NAMES_AGAIN)).await?,
        ListScope::All => None,
    };
    let passed_over = on_index(index, |index| index.passed_over()).await?;
    let mut again = passed_over
        .iter()
        .map(Key::new)
        .collect::<Result<Vec<Key>, _>>()?;
    again.retain(|key| is_recording(cluster, key));
    if scope == ListScope::New {
        again.truncate(DAMAGED_AGAIN);
    }
    let mut gone = load_names(index, cluster, again).await?;
    let folder = cluster.layout.names_folder();
    let stamp = cluster.repository.storage().stamp(&folder).await?;
    if scope == ListScope::All || !index.rests(&folder, stamp) {
        gone |= read_names_after(index, cluster, after).await?;
        index.note_stamp(&folder, stamp);
    }
    // What is gone was merged into one that may lie before what is listed now.
    if gone {
        read_names_after(index, cluster, None).await?;
    }
    Ok(())
}

/// Puts in the names behind a recording; true if some were gone that had been listed.
async fn read_names_after(
    index: &Arc<Index>,
    cluster: &Cluster,
    after: Option<String>,
) -> anyhow::Result<bool> {
    let mut gone = false;
    let mut pages = Pages::new(cluster.layout.names_folder(), after);
    while let Some(page) = pages.next(cluster.repository.storage()).await? {
        let keys = page.into_iter().filter_map(|entry| match entry {
            ListEntry::Object(meta) if is_recording(cluster, &meta.key) => Some(meta.key),
            _ => None,
        });
        let keys = keys.collect();
        let new = on_index(index, move |index| index.not_recorded(keys)).await?;
        gone |= load_names(index, cluster, new).await?;
    }
    Ok(gone)
}

/// Puts in the names that these objects hold; true if one of them is gone.
async fn load_names(index: &Arc<Index>, cluster: &Cluster, keys: Vec<Key>) -> anyhow::Result<bool> {
    let mut gone = false;
    let reads = side_by_side(keys, |key: Key| {
        let cluster = cluster.clone();
        async move { (recordings::load(&cluster, &key).await, key) }
    });
    for (read, key) in reads.await? {
        match read {
            Ok(Some(names)) => {
                on_index(index, move |index| index.add_names(key.as_str(), &names)).await?
            }
            Ok(None) => {
                gone = true;
                on_index(index, move |index| index.forget_recording(key.as_str())).await?;
            }
            Err(error) if is_unusable(&error) => {
                tracing::info!("names are passed over: {}", one_line(&error));
                on_index(index, move |index| index.pass_over(key.as_str())).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}
