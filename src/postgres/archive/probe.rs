//! Answering what the planner asks about the records of one segment: from some parts of it where headers tell which,
//! else from all of it.

use std::iter::once;

use anyhow::{Context, anyhow};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};

use super::fetch::with_repair_hint;
use super::summarize::{Described, described, read, summary_of};
use crate::codec::{Damaged, sealed_bound};
use crate::error::{find, with_hint};
use crate::postgres::catalog::{
    Before, Headers, PartialRead, Probe, ProbeQuery, ProbeResult, ProbeTarget, ReadPlan,
    WalDescription, reading,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{SegmentName, TimelineId, WalFileName};
use crate::postgres::wal::{Boundary, Summary, join};
use crate::repo::{FramePlace, Frames, ObjectError, is_damage, reread};

/// Answers the planner's query about a segment. Errors: it is damaged, another's or not there, or the store did not
/// answer.
pub async fn probe(cluster: &Cluster, query: &ProbeQuery) -> anyhow::Result<ProbeResult> {
    match probe_parts(cluster, query).await? {
        Some(result) => Ok(result),
        None => probe_whole(cluster, query).await,
    }
}

/// Answers from headers and a few parts; `None` where that does not do.
pub(super) async fn probe_parts(
    cluster: &Cluster,
    query: &ProbeQuery,
) -> anyhow::Result<Option<ProbeResult>> {
    let segment = query.segment;
    // The one before is nearly always needed, too; what takes long is to parse them.
    let mut reading_before = JoinSet::new();
    let shared = cluster.clone();
    reading_before.spawn(async move { summary_before(&shared, segment, segment.timeline).await });
    let Some(Described { about, body }) = described(cluster, segment).await? else {
        return Ok(None);
    };
    let WalDescription {
        summary: Some(summary),
        frames,
        ..
    } = about
    else {
        return Ok(None);
    };
    let stored = frames
        .iter()
        .try_fold(0u64, |sum, frame| sum.checked_add(*frame));
    if stored != Some(body.end - body.start)
        || stored > Some(sealed_bound(cluster.description.segment_size.bytes()))
    {
        return Ok(None);
    }
    let before = match summary.first_timeline {
        Some(timeline) if timeline != segment.timeline => {
            summary_before(cluster, segment, timeline).await
        }
        _ => reading_before
            .join_next()
            .await
            .context("one is being read")??,
    };
    let Some(crossed) = crossed(&summary, before) else {
        return Ok(None);
    };
    let description = &cluster.description;
    let headers = Headers {
        summary: &summary,
        crossed: crossed.as_deref(),
        system_identifier: description.system_identifier,
        size: description.segment_size,
    };
    let parts = Parts {
        cluster,
        segment,
        body: body.start,
        frames: &frames,
    };
    let read = match reading(query, &headers, frames.len()) {
        ReadPlan::Nothing(result) => return Ok(Some(result)),
        ReadPlan::Parts(partial) => read_partly(&parts, &partial).await,
        ReadPlan::Whole => return Ok(None),
    };
    match read {
        Err(error) if matches!(find(&error), Some(ObjectError::Damaged { .. })) => {
            tracing::debug!("{error:#}: reading all of it");
            Ok(None)
        }
        read => read,
    }
}

/// What the record tells that crosses into a segment, as far as there is one; `None` where all must be read to know.
#[allow(clippy::option_option)]
fn crossed(
    summary: &Summary,
    before: anyhow::Result<Option<Box<Summary>>>,
) -> Option<Option<Box<Summary>>> {
    match (&summary.head, before) {
        (None, _) | (_, Ok(None)) => Some(None),
        (_, Ok(Some(before))) => match join(&before, before.tail.as_ref(), summary) {
            Ok(Boundary::Crossed(crossed)) => Some(Some(crossed)),
            _ => None,
        },
        // ReadPlan all of it says what is wrong.
        (_, Err(_)) => None,
    }
}

/// How many parts are read one behind the other: an answer that needs more is rare.
const MOST_PARTS: usize = 4;

async fn read_partly(
    parts: &Parts<'_>,
    partial: &PartialRead<'_>,
) -> anyhow::Result<Option<ProbeResult>> {
    let (mut probe, mut behind) = (partial.probe(), partial.wanted);
    let (found, after) = loop {
        if behind == parts.frames.len() || behind == partial.wanted + MOST_PARTS {
            return Ok(None);
        }
        let Some(read) = parts.push(behind, probe, partial.part).await? else {
            return Ok(None);
        };
        (probe, behind) = (read, behind + 1);
        if let Some(found) = partial.found(&probe) {
            break found;
        }
    };
    let before = match partial.before(&probe, found) {
        None => return Ok(None),
        Some(Before::Is(commit)) => commit,
        Some(Before::BeginsIn(part)) => {
            let mut probe = partial.probe_before(part, found);
            for number in part.. {
                if number == parts.frames.len() || number == part + MOST_PARTS {
                    return Ok(None);
                }
                let Some(read) = parts.push(number, probe, partial.part).await? else {
                    return Ok(None);
                };
                probe = read;
                if partial.is_beyond(&probe, part) {
                    break;
                }
            }
            // Else they were rollbacks.
            let Some(commit) = probe.so_far().and_then(|result| result.before) else {
                return Ok(None);
            };
            Some(commit)
        }
    };
    Ok(Some(ProbeResult {
        found: Some(found),
        before,
        after,
        ..ProbeResult::default()
    }))
}

/// The parts of a segment as it is stored.
struct Parts<'a> {
    cluster: &'a Cluster,
    segment: SegmentName,
    /// Where in the object its body begins.
    body: u64,
    /// Bytes of each.
    frames: &'a [u64],
}

impl Parts<'_> {
    /// Reads a part, of `plain` bytes, and hands it over. `None`: there is no such object any more. Errors: it is damaged, or
    /// the store did not answer.
    async fn push(&self, number: usize, probe: Probe, plain: u64) -> anyhow::Result<Option<Probe>> {
        let repository = self.cluster.repository.clone();
        let key = self.cluster.layout.wal(&WalFileName::Segment(self.segment));
        let offset = self.body + self.frames[..number].iter().sum::<u64>();
        let place = FramePlace {
            key: key.clone(),
            offset,
            length: self.frames[number],
        };
        let (runtime, length) = (Handle::current(), plain as usize);
        let push = move || {
            let mut probe = Some(probe);
            let take = |_: &[()], opened: Result<&[u8], ObjectError>| {
                match opened {
                    Ok(plain) if plain.len() < length => {
                        let why =
                            format!("a frame holds {} bytes, {length} are expected", plain.len());
                        return Err(repository.damaged(&place.key, Damaged(why)).into());
                    }
                    Ok(plain) => probe.iter_mut().for_each(|probe| push(probe, plain)),
                    Err(ObjectError::Absent { .. }) => probe = None,
                    Err(error) => return Err(error.into()),
                }
                Ok(())
            };
            Frames::new(repository.clone(), length).each(
                &runtime,
                once((place.clone(), ())),
                take,
            )?;
            Ok(probe)
        };
        spawn_blocking(push)
            .await?
            .map_err(|error| with_repair_hint(error, &key))
    }
}

/// The summary that the header of the segment before one has, on a timeline; `None` where that one is not archived, or
/// broken. Errors: there is no summary, it is damaged or another's, or the store did not answer.
async fn summary_before(
    cluster: &Cluster,
    segment: SegmentName,
    timeline: TimelineId,
) -> anyhow::Result<Option<Box<Summary>>> {
    let size = cluster.description.segment_size;
    let Some(number) = segment.number(size).checked_sub(1) else {
        return Ok(None);
    };
    let name = SegmentName::from_number(timeline, number, size);
    let Some(Described { about, .. }) = described(cluster, name).await? else {
        return Ok(None);
    };
    let summary = about
        .summary
        .with_context(|| format!("WAL segment \"{name}\" has no summary in its header"))?;
    Ok(Some(summary).filter(|summary| summary.stop.is_none()))
}

/// Bytes that are read before it is result whether that was enough.
const PIECE: usize = 64 << 10;

/// Hands content over until there is an answer.
fn push(probe: &mut Probe, plain: &[u8]) {
    for piece in plain.chunks(PIECE) {
        probe.push(piece);
        if probe.is_answered() {
            break;
        }
    }
}

/// Answers from all of the segment.
pub(super) async fn probe_whole(
    cluster: &Cluster,
    query: &ProbeQuery,
) -> anyhow::Result<ProbeResult> {
    let segment = query.segment;
    let Some(summary) = summary_of(cluster, segment).await? else {
        return Err(vanished(segment));
    };
    let matters = |earlier: &Summary, later: &Summary| match query.target {
        ProbeTarget::Record | ProbeTarget::Change(_) | ProbeTarget::InPlace { .. } => true,
        ProbeTarget::Later { .. } | ProbeTarget::End(_) | ProbeTarget::RestorePoint(_) => {
            may_end(earlier, later)
        }
    };
    let segments = reading_for(cluster, segment, summary, matters).await?;
    let begin = segments
        .first()
        .unwrap_or(&segment)
        .start(cluster.description.segment_size);
    let read_all = async || {
        let mut probe = Probe::new(query.clone(), begin);
        for name in &segments {
            probe = read(cluster, *name, probe, Probe::push)
                .await?
                .ok_or_else(|| vanished(*name))?;
        }
        Ok(probe.finish())
    };
    reread(is_damage, read_all).await
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
        && let Some((name, earlier)) = earlier(cluster, segments[0], &later).await?
    {
        if segments.len() == 1 && !matters(&earlier, &later) {
            break;
        }
        segments.insert(0, name);
        later = earlier;
    }
    Ok(segments)
}

/// The segment that holds more of the record that a segment begins with, on the timeline that was written there; `None`
/// without such a record, and where that segment is not archived, or broken.
async fn earlier(
    cluster: &Cluster,
    segment: SegmentName,
    summary: &Summary,
) -> anyhow::Result<Option<(SegmentName, Summary)>> {
    let size = cluster.description.segment_size;
    let number = summary
        .head
        .as_ref()
        .and_then(|_| segment.number(size).checked_sub(1));
    let Some(number) = number else {
        return Ok(None);
    };
    let name = SegmentName::from_number(
        summary.first_timeline.unwrap_or(segment.timeline),
        number,
        size,
    );
    let summary = summary_of(cluster, name)
        .await?
        .filter(|summary| summary.stop.is_none());
    Ok(summary.map(|summary| (name, summary)))
}

/// Whether the record that crosses from one segment to the next may be the end of a transaction or a restore point.
fn may_end(earlier: &Summary, later: &Summary) -> bool {
    match join(earlier, earlier.tail.as_ref(), later) {
        Ok(Boundary::Crossed(crossed)) => crossed.ends.count > 0 || !crossed.events.is_empty(),
        Ok(Boundary::Clean) => false,
        Ok(Boundary::GoesOn(_)) | Err(_) => true,
    }
}
