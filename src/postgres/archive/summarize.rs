//! What one archived segment holds: by its header, or by reading it.

use std::io::{self, Read, Write};

use anyhow::anyhow;

use super::fetch::{check_description, with_repair_hint};
use crate::codec::{Check, Damaged, open_envelope, unseal};
use crate::error::with_hint;
use crate::postgres::catalog::{Look, Probe, Question, Seen, WAL_KIND};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, WalFileName};
use crate::postgres::wal::{STORED, Seam, Summarizer, Summary, join};
use crate::storage::Key;

/// The summary of a segment: the one in its header, else one made from its content. `None`: the repository has no such
/// segment. Errors: it is damaged or another's, or the store did not answer.
pub async fn summary_of(cluster: &Cluster, segment: SegmentName) -> anyhow::Result<Option<Summary>> {
    let name = WalFileName::Segment(segment);
    let key = cluster.layout.wal(&name);
    let header = cluster.repository.header(&key, WAL_KIND).await;
    let Some(header) = header.map_err(|error| with_repair_hint(error.into(), &key))? else { return Ok(None) };
    let described = check_description(&cluster.description, &name, header);
    match described.map_err(|source| damaged(cluster, &key, source))?.summary {
        Some(summary) => Ok(Some(*summary)),
        None => summarize(cluster, segment).await,
    }
}

/// The summary that an object of this size has in its header; `None`: it has none, or there is no such object. Errors:
/// it is damaged or another's, or the store did not answer.
pub async fn stored_summary(
    cluster: &Cluster,
    segment: SegmentName,
    size: u64,
) -> anyhow::Result<Option<Box<Summary>>> {
    let name = WalFileName::Segment(segment);
    let key = cluster.layout.wal(&name);
    let header = cluster.repository.header_of(&key, size, WAL_KIND).await;
    let Some(header) = header.map_err(|error| with_repair_hint(error.into(), &key))? else { return Ok(None) };
    let described = check_description(&cluster.description, &name, header);
    Ok(described.map_err(|source| damaged(cluster, &key, source))?.summary)
}

/// The summary of a segment, made from its content; the same as the one in its header. `None` and errors: as of
/// [`summary_of`].
pub async fn summarize(cluster: &Cluster, segment: SegmentName) -> anyhow::Result<Option<Summary>> {
    let summarizer = Summarizer::new(segment.start(cluster.description.segment_size));
    let read = read(cluster, segment, summarizer, Summarizer::push).await?;
    Ok(read.map(|summarizer| fitted(summarizer.finish())))
}

/// Answers the planner's question about a segment. Errors: it is damaged, another's or not there, or the store did not
/// answer.
pub async fn look(cluster: &Cluster, question: &Question) -> anyhow::Result<Seen> {
    let (segment, probe) = (question.segment, |start| Probe::new(question.clone(), start));
    let matters = |earlier: &Summary, later: &Summary| match question.look {
        Look::Record | Look::Change(_) | Look::InPlace { .. } => true,
        Look::Later { .. } | Look::End(_) | Look::RestorePoint(_) => may_end(earlier, later),
    };
    let read = read_joined(cluster, segment, matters, probe, Probe::push).await?;
    Ok(read.ok_or_else(|| vanished(segment))?.finish())
}

/// Hands the content of a segment to the state made by `begin`, which is told where reading starts: also that of the
/// segments that hold the beginning of the record that the segment begins with, if it `matters`.
async fn read_joined<S: Send + 'static>(
    cluster: &Cluster,
    segment: SegmentName,
    matters: impl Fn(&Summary, &Summary) -> bool,
    begin: impl FnOnce(Lsn) -> S,
    push: fn(&mut S, &[u8]),
) -> anyhow::Result<Option<S>> {
    let Some(summary) = summary_of(cluster, segment).await? else { return Ok(None) };
    let segments = reading_for(cluster, segment, summary, matters).await?;
    let mut state = begin(segments.first().unwrap_or(&segment).start(cluster.description.segment_size));
    for name in segments {
        state = read(cluster, name, state, push).await?.ok_or_else(|| vanished(name))?;
    }
    Ok(Some(state))
}

fn vanished(name: SegmentName) -> anyhow::Error {
    let error = anyhow!("WAL segment \"{name}\" vanished while the archive was read");
    with_hint(error, "find out with `walden wal list` what is missing")
}

/// The segments to read, in order, for what ends in `segment`: also those that hold the beginning of the record that it
/// begins with, if that one matters. Where they are not archived, or broken, no recovery gets to the record.
async fn reading_for(
    cluster: &Cluster,
    segment: SegmentName,
    summary: Summary,
    matters: impl Fn(&Summary, &Summary) -> bool,
) -> anyhow::Result<Vec<SegmentName>> {
    let mut segments = vec![segment];
    let mut later = summary;
    // A record that began before and goes on behind is followed further back.
    while let Some(head) = &later.head
        && (segments.len() == 1 || head.end.is_none())
        && let Some(name) = before(segments[0], &later, cluster.description.segment_size)
        && let Some(earlier) = summary_of(cluster, name).await?
    {
        if earlier.stop.is_some() || (segments.len() == 1 && !matters(&earlier, &later)) {
            break;
        }
        segments.insert(0, name);
        later = earlier;
    }
    Ok(segments)
}

/// The segment before, on the timeline that was written there.
fn before(segment: SegmentName, summary: &Summary, size: SegmentSize) -> Option<SegmentName> {
    let number = segment.number(size).checked_sub(1)?;
    Some(SegmentName::from_number(summary.first_timeline.unwrap_or(segment.timeline), number, size))
}

/// Whether the record that crosses from one segment to the next may be the end of a transaction or a restore point.
fn may_end(earlier: &Summary, later: &Summary) -> bool {
    match join(earlier, earlier.tail.as_ref(), later) {
        Ok(Seam::Crossed(crossed)) => crossed.ends.count > 0 || !crossed.events.is_empty(),
        Ok(Seam::Clean) => false,
        Ok(Seam::GoesOn(_)) | Err(_) => true,
    }
}

/// Hands the content of a segment to `state`, piece by piece, on the blocking pool; what it became is given back only if
/// all of the content was right. `None`: the repository has no such segment.
async fn read<S: Send + 'static>(
    cluster: &Cluster,
    segment: SegmentName,
    state: S,
    push: fn(&mut S, &[u8]),
) -> anyhow::Result<Option<S>> {
    let name = WalFileName::Segment(segment);
    let key = cluster.layout.wal(&name);
    let longest = cluster.description.segment_size.bytes();
    let object = cluster.repository.get_sealed(&key, WAL_KIND, longest).await;
    let Some(object) = object.map_err(|error| with_repair_hint(error.into(), &key))? else { return Ok(None) };
    let cluster = cluster.clone();
    let work = move || {
        let damaged = |source| damaged(&cluster, &key, source);
        let header = open_envelope(WAL_KIND, &object).map_err(damaged)?.header;
        check_description(&cluster.description, &name, header).map_err(damaged)?;
        let mut pieces = Pieces { state, push };
        unseal(WAL_KIND, &object, Check::Stored, &mut pieces)?.map_err(damaged)?;
        Ok(Some(pieces.state))
    };
    tokio::task::spawn_blocking(work).await?
}

fn damaged(cluster: &Cluster, key: &Key, source: Damaged) -> anyhow::Error {
    with_repair_hint(cluster.repository.damaged(key, source).into(), key)
}

/// Takes what is written to it.
struct Pieces<S> {
    state: S,
    push: fn(&mut S, &[u8]),
}

impl<S> Write for Pieces<S> {
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
    pub fn new(source: R, start: Lsn) -> Self {
        Self { source, summarizer: Summarizer::new(start) }
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
    summary.fit(STORED);
    summary
}
