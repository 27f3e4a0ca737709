//! Whether replay gets through the WAL to a place: a server takes broken WAL for the end of all.

use super::probe::{ProbeResult, ProbeTarget};
use super::refuse::{NoPlan, Refusal, Searched};
use super::stop_at::StopAt;
use super::stop_point::{Search, StopPoint};
use super::wal_index::Unknown;
use crate::postgres::types::{Lsn, SegmentName, TimelineId};
use crate::postgres::wal::Timestamp;

/// Segments that are not known, and are passed over to find broken WAL behind them.
const UNKNOWN: usize = 16;

/// What is known of whether replay gets through some segments.
#[derive(Debug, Default)]
pub(super) struct ReplayContinuity {
    /// Where it is known to end.
    pub broken: Option<(SegmentName, Lsn)>,
    /// The first segment that is not known, and may be broken.
    pub unknown: Option<SegmentName>,
}

impl Search<'_> {
    /// Where the WAL of a segment is broken replay ends. Only at the end of all WAL, and behind the backup, is that no more
    /// than its end, unless it goes on in a way that no replay may follow.
    pub(super) fn broken(&self, segment: SegmentName, lsn: Lsn) -> Searched<()> {
        let number = segment.number(self.size());
        let result = self.probe(number, lsn, ProbeTarget::Record)?;
        // What was archived once followed on the segment before.
        let is_boundary = || match self.known.index.check_boundary(segment.timeline, number) {
            Err(Unknown::Broken { lsn: boundary, .. }) => boundary == lsn,
            _ => false,
        };
        if number + 1 == self.end() && lsn >= self.from && !result.is_minimal && !is_boundary() {
            return Ok(());
        }
        Err(self.refuse_broken(segment, lsn, result))
    }

    /// The refusal of what lies behind broken WAL.
    pub(super) fn refuse_broken(
        &self,
        segment: SegmentName,
        lsn: Lsn,
        result: ProbeResult,
    ) -> NoPlan<Refusal> {
        let number = segment.number(self.size());
        let last = result
            .before
            .or_else(|| self.commit_before(number).ok().flatten());
        Refusal::broken(segment, lsn, self.path.timeline(), last).into()
    }

    /// Refuses WAL that is known to be broken between where replay starts and a place; notes what ends there, or may. What
    /// is not known is left to replay, as ever without an index.
    pub(super) fn check_whole(&self, start: Lsn, place: &mut StopPoint) -> Searched<()> {
        let until = if place.stop == StopAt::End {
            place.until
        } else {
            place.until - 1
        };
        for (timeline, first, end) in self.segment_ranges(self.number(start)) {
            let whole = self
                .wholeness(timeline, first.min(until), end.min(until))
                .map_err(NoPlan::Unknown)?;
            if let Some(segment) = whole.unknown {
                let note = format!(
                    "what segment {segment} holds is not known: if its WAL is broken, recovery ends there"
                );
                place.notes.push(note);
            }
            if let Some((segment, lsn)) = whole.broken {
                self.broken(segment, lsn)?;
                place
                    .notes
                    .push(format!("WAL breaks off at {lsn} in segment {segment}, the last one: recovery ends there"));
            }
            // Replay gets into the segment of the place, too.
            if first < until
                && (first..end).contains(&until)
                && let Err(Unknown::Broken { segment, lsn }) =
                    self.known.index.check_boundary(timeline, until)
                && place.stop != StopAt::End
            {
                return Err(self.refuse_broken(segment, lsn, ProbeResult::default()));
            }
        }
        self.check_forks(start, place.until)
    }

    /// What is known of whether replay gets through these segments. What lies before them does not matter. Errors: the index
    /// cannot be read.
    pub(super) fn wholeness(
        &self,
        timeline: TimelineId,
        first: u64,
        until: u64,
    ) -> Result<ReplayContinuity, Unknown> {
        let (mut first, mut whole) = (first, ReplayContinuity::default());
        // Behind what is not known there may be what is; an index that is being made knows little.
        for _ in 0..UNKNOWN {
            match self
                .known
                .index
                .first_later(timeline, first, until, Timestamp(i64::MAX), false)
            {
                Err(Unknown::Broken { segment, lsn }) => {
                    whole.broken = Some((segment, lsn));
                    break;
                }
                // One that is known, but not what crosses into it, is asked for once more: what crosses does not matter then.
                Err(Unknown::Segment(segment)) => {
                    whole.unknown = whole.unknown.or(Some(segment));
                    first = segment.number(self.size()).max(first + 1);
                }
                Err(failed @ Unknown::Failed(_)) => return Err(failed),
                Err(Unknown::NoIndex) | Ok(_) => break,
            }
        }
        Ok(whole)
    }

    /// Refuses a path on which a timeline does not follow on its parent, in the segments from a start up to a number. That
    /// is damage also at the end of all WAL: the server that began the timeline had what lies before.
    pub(super) fn check_forks(&self, start: Lsn, until: u64) -> Searched<()> {
        let segment_ranges: Vec<_> = self.segment_ranges(self.number(start)).collect();
        for pair in segment_ranges.windows(2) {
            let ((parent, ..), (timeline, first, _)) = (pair[0], pair[1]);
            if first < until
                && let Some((segment, lsn)) = self.torn_fork(timeline, first)
            {
                let last = self.commit_before(first).ok().flatten();
                return Err(Refusal::broken(segment, lsn, parent, last).into());
            }
        }
        Ok(())
    }

    /// Where replay ends instead of going on with a timeline, whose first segment has that number; `None`: nowhere, as far
    /// as is known.
    pub(super) fn torn_fork(&self, timeline: TimelineId, first: u64) -> Option<(SegmentName, Lsn)> {
        match self.known.index.check_boundary(timeline, first) {
            Err(Unknown::Broken { segment, lsn }) => {
                Some((segment, lsn.min(segment.start(self.size()))))
            }
            _ => None,
        }
    }
}
