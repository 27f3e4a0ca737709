//! Timelines that go on beside a path: what a clone, or the server that was left behind, wrote after they parted. Pure.

use std::fmt;

use chrono::{DateTime, Utc};

use super::facts::{Facts, PlanInput};
use super::path::TimelinePath;
use super::stop_at::Transaction;
use super::target::{RestoreRequest, Target, postgresql_time};
use crate::postgres::types::{Lsn, TimelineHistory, TimelineId};

/// Where a window or the archived WAL of a timeline begins or ends, and when that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowEdge {
    pub lsn: Lsn,
    /// Of a backup's end, or of the last commit in the segments before, by the server's clock; absent when not known.
    pub time: Option<DateTime<Utc>>,
}

/// A timeline with archived WAL that a path does not lead through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherTimeline {
    pub timeline: TimelineId,
    /// Where it and the path part.
    pub left_at: Lsn,
    /// Where its archived WAL ends, and its last transaction, if that is known.
    pub to: WindowEdge,
    /// The first transaction behind that place, or one shortly before it.
    first: Option<DateTime<Utc>>,
    /// What was asked for may lie before its end.
    pub reaches: bool,
}

impl fmt::Display for OtherTimeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            timeline,
            left_at,
            to,
            ..
        } = self;
        write!(
            f,
            "timeline {timeline} goes on beside it from {left_at} to {}",
            to.lsn
        )?;
        if let Some(time) = to.time {
            write!(f, ", its last transaction at {}", postgresql_time(time))?;
        }
        write!(f, ": ask for it with --timeline {timeline}")
    }
}

impl OtherTimeline {
    fn reaches(&self, request: &RestoreRequest) -> bool {
        match &request.target {
            Target::Time(time) => self.to.time.is_none_or(|last| *time < last),
            Target::Lsn(lsn) => *lsn < self.to.lsn,
            _ => true,
        }
    }

    /// Whether what was asked for could be meant of it.
    fn concerns(&self, request: &RestoreRequest) -> bool {
        match &request.target {
            Target::Latest | Target::Xid(_) | Target::Name(_) => true,
            Target::Lsn(lsn) => *lsn > self.left_at,
            Target::Time(time) => self.first.is_none_or(|first| first <= *time),
            // Of one timeline, or of a backup.
            Target::Event(_) | Target::Immediate => false,
        }
    }
}

/// Those that could be meant by a request that a path is followed for.
pub(super) fn meant(
    known: &PlanInput<'_>,
    path: &TimelinePath,
    request: &RestoreRequest,
) -> Vec<OtherTimeline> {
    let others = other_timelines(known, path)
        .into_iter()
        .filter(|other| other.concerns(request));
    others
        .map(|other| OtherTimeline {
            reaches: other.reaches(request),
            ..other
        })
        .collect()
}

/// All timelines that go on beside a path, by number.
pub(super) fn other_timelines(known: &PlanInput<'_>, path: &TimelinePath) -> Vec<OtherTimeline> {
    let mut timelines: Vec<TimelineId> = known
        .facts
        .ranges
        .iter()
        .map(|range| range.timeline())
        .collect();
    timelines.dedup();
    let others = timelines
        .into_iter()
        .filter(|timeline| *timeline != path.timeline());
    others
        .filter_map(|timeline| other(known, path.history(), &history(known.facts, timeline)?))
        .collect()
}

fn history(facts: &Facts, timeline: TimelineId) -> Option<TimelineHistory> {
    let root = || (timeline == TimelineId(1)).then(|| TimelineHistory::root(timeline));
    facts.histories.get(&timeline).cloned().or_else(root)
}

fn other(
    known: &PlanInput<'_>,
    path: &TimelineHistory,
    history: &TimelineHistory,
) -> Option<OtherTimeline> {
    let (ranges, timeline) = (&known.facts.ranges, history.timeline);
    let size = ranges.segment_size();
    let left_at = path.parts_from(history)?;
    let last = ranges.of(timeline).last()?;
    let end = ranges.end(last);
    if end <= left_at {
        return None;
    }
    let from = (left_at.0 / size.bytes()).max(last.first.number(size));
    let until = last.last.number(size) + 1;
    let time = |commit| Transaction::from(commit).time;
    let (first, to) = match known.index.last_commit(timeline, from, until) {
        // All that it has of its own is no transaction.
        Ok(None) => return None,
        Ok(Some(last)) if last.lsn < left_at => return None,
        Ok(Some(last)) => (
            known
                .index
                .first_commit(timeline, from, until)
                .ok()
                .flatten(),
            Some(last),
        ),
        Err(_) => (None, None),
    };
    let to = WindowEdge {
        lsn: end,
        time: to.map(time),
    };
    Some(OtherTimeline {
        timeline,
        left_at,
        to,
        first: first.map(time),
        reaches: true,
    })
}
