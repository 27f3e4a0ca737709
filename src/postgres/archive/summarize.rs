//! What one archived segment holds: by its header, or by reading it.

use std::io::{self, Read, Write};
use std::ops::Range;

use super::fetch::{check_description, with_repair_hint};
use crate::codec::{Damaged, VerifyLevel};
use crate::postgres::catalog::{WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, WalFileName};
use crate::postgres::wal::{STORED, Summarizer, Summary};
use crate::repo::{is_damage, reread};
use crate::storage::Key;

/// The summary of a segment: the one in its header, else one made from its content. `None`: the repository has no such
/// segment. Errors: it is damaged or another's, also when it is read once more; or the store did not answer.
pub async fn summary_of(
    cluster: &Cluster,
    segment: SegmentName,
) -> anyhow::Result<Option<Summary>> {
    reread(is_damage, || summary_once(cluster, segment)).await
}

async fn summary_once(cluster: &Cluster, segment: SegmentName) -> anyhow::Result<Option<Summary>> {
    let key = cluster.layout.wal(&WalFileName::Segment(segment));
    let Some(meta) = cluster.repository.storage().head(&key).await? else {
        return Ok(None);
    };
    match stored_summary(cluster, segment, meta.size).await? {
        Some(summary) => Ok(Some(*summary)),
        None => summarize(cluster, segment).await,
    }
}

/// What a segment's envelope tells; whether its body is there is not looked at.
pub(super) struct Described {
    pub about: WalDescription,
    /// Where in the object its body lies.
    pub body: Range<u64>,
}

/// `None` and errors: as of [`summary_of`].
pub(super) async fn described(
    cluster: &Cluster,
    segment: SegmentName,
) -> anyhow::Result<Option<Described>> {
    let name = WalFileName::Segment(segment);
    let key = cluster.layout.wal(&name);
    let envelope = cluster.repository.envelope(&key, WAL_KIND).await;
    let Some(envelope) = envelope.map_err(|error| with_repair_hint(error.into(), &key))? else {
        return Ok(None);
    };
    let body = envelope.len..envelope.len.saturating_add(envelope.header.stored.size);
    let about = check_description(&cluster.description, &name, &envelope.header);
    Ok(Some(Described {
        about: about.map_err(|source| damaged(cluster, &key, source))?,
        body,
    }))
}

/// The summary that an object of this size has in its header; `None`: it has none, or there is no such object. Errors:
/// it is damaged or another's, or the store did not answer. Read only once.
pub async fn stored_summary(
    cluster: &Cluster,
    segment: SegmentName,
    size: u64,
) -> anyhow::Result<Option<Box<Summary>>> {
    let name = WalFileName::Segment(segment);
    let key = cluster.layout.wal(&name);
    let header = cluster.repository.header_once(&key, size, WAL_KIND).await;
    let Some(header) = header.map_err(|error| with_repair_hint(error.into(), &key))? else {
        return Ok(None);
    };
    let described = check_description(&cluster.description, &name, &header);
    Ok(described
        .map_err(|source| damaged(cluster, &key, source))?
        .summary)
}

/// The summary of a segment, made from its content; the same as the one in its header. `None` and errors: as of
/// [`summary_of`], but read only once.
pub(super) async fn summarize(
    cluster: &Cluster,
    segment: SegmentName,
) -> anyhow::Result<Option<Summary>> {
    let size = cluster.description.segment_size;
    let summarizer = Summarizer::new(segment.start(size), size);
    let read = read(cluster, segment, summarizer, Summarizer::push).await?;
    Ok(read.map(|summarizer| fitted(summarizer.finish())))
}

/// Hands the content of a segment to `state`, piece by piece, on the blocking pool; what it became is given back only if
/// all of the content was right. `None`: the repository has no such segment.
pub(super) async fn read<S: Send + 'static>(
    cluster: &Cluster,
    segment: SegmentName,
    state: S,
    push: fn(&mut S, &[u8]),
) -> anyhow::Result<Option<S>> {
    let name = WalFileName::Segment(segment);
    let key = cluster.layout.wal(&name);
    let longest = cluster.description.segment_size.bytes();
    let object = cluster.repository.get_sealed(&key, WAL_KIND, longest).await;
    let Some(object) = object.map_err(|error| with_repair_hint(error.into(), &key))? else {
        return Ok(None);
    };
    let cluster = cluster.clone();
    let work = move || {
        let described = check_description(&cluster.description, &name, object.header());
        described.map_err(|source| damaged(&cluster, &key, source))?;
        let mut pieces = ChunkWriter { state, push };
        object
            .unseal(VerifyLevel::Stored, &mut pieces)?
            .map_err(|error| with_repair_hint(error.into(), &key))?;
        Ok(Some(pieces.state))
    };
    tokio::task::spawn_blocking(work).await?
}

fn damaged(cluster: &Cluster, key: &Key, source: Damaged) -> anyhow::Error {
    with_repair_hint(cluster.repository.damaged(key, source).into(), key)
}

/// Takes what is written to it.
struct ChunkWriter<S> {
    state: S,
    push: fn(&mut S, &[u8]),
}

impl<S> Write for ChunkWriter<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.push)(&mut self.state, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A segment that is summarised while it is read.
pub struct Summarized<R> {
    source: R,
    summarizer: Summarizer,
}

impl<R: Read> Summarized<R> {
    /// `start` is the segment's first LSN.
    pub fn new(source: R, start: Lsn, size: SegmentSize) -> Self {
        Self {
            source,
            summarizer: Summarizer::new(start, size),
        }
    }

    /// The summary of what was read, as it is stored.
    pub fn finish(self) -> Summary {
        fitted(self.summarizer.finish())
    }
}

impl<R: Read> Read for Summarized<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.summarizer.push(&buffer[..read]);
        Ok(read)
    }
}

fn fitted(mut summary: Summary) -> Summary {
    summary.truncate_to(STORED);
    summary
}
