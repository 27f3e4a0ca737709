//! Archived WAL, and the timelines that it is of.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::postgres::catalog::{Gap, Unusable, WalRange, WalRanges};
use crate::postgres::types::{
    HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId,
};

answer! {
    /// Archived WAL.
    pub struct Wal {
        /// Bytes in a segment.
        segment_bytes: u64,
        pub ranges: Vec<Range>,
        gaps: Vec<MissingWal>,
    }
}

impl Wal {
    /// Ranges, and the gaps between them.
    pub fn of(ranges: &WalRanges, gaps: &[Gap]) -> Self {
        let size = ranges.segment_size();
        Self {
            segment_bytes: size.bytes(),
            ranges: ranges.iter().map(|range| Range::of(range, size)).collect(),
            gaps: gaps.iter().map(Into::into).collect(),
        }
    }
}

answer! {
    /// Segments of one timeline without a gap between them.
    pub struct Range {
        pub timeline: TimelineId,
        pub first: SegmentName,
        pub last: SegmentName,
        pub start_lsn: Lsn,
        /// The first LSN after it.
        pub end_lsn: Lsn,
        pub segments: u64,
        pub stored_bytes: u64,
        first_stored: DateTime<Utc>,
        pub last_stored: DateTime<Utc>,
    }
}

impl Range {
    fn of(range: &WalRange, size: SegmentSize) -> Self {
        let WalRange {
            first,
            last,
            segments,
            stored_bytes,
            first_stored,
            last_stored,
        } = *range;
        let (start_lsn, end_lsn) = (first.start(size), last.end(size));
        let timeline = range.timeline();
        Self {
            timeline,
            first,
            last,
            start_lsn,
            end_lsn,
            segments,
            stored_bytes,
            first_stored,
            last_stored,
        }
    }
}

answer! {
    /// Segments that are missing although later ones are there.
    pub struct MissingWal {
        timeline: TimelineId,
        first_missing: SegmentName,
        last_missing: SegmentName,
        segments: u64,
    }
}

impl From<&Gap> for MissingWal {
    fn from(
        &Gap {
            first_missing,
            last_missing,
            segments,
        }: &Gap,
    ) -> Self {
        Self {
            timeline: first_missing.timeline,
            first_missing,
            last_missing,
            segments,
        }
    }
}

answer! {
    /// The tree of timelines.
    pub struct Timelines {
        pub timelines: Vec<Timeline>,
    }

    /// A timeline and where it left its parent.
    pub struct Timeline {
        pub timeline: TimelineId,
        /// Absent for the first one, and when it is not known.
        pub parent?: Parent,
        pub history: History,
        /// Why the history file cannot be used.
        pub damage?: String,
    }
}

impl Timelines {
    /// Timelines, by what is known of their history files.
    pub fn of(
        timelines: impl IntoIterator<Item = TimelineId>,
        known: &BTreeMap<TimelineId, TimelineHistory>,
        damaged: &BTreeMap<TimelineId, Unusable>,
    ) -> Self {
        let timeline = |timeline: TimelineId| {
            let (history, damage) = (known.get(&timeline), damaged.get(&timeline));
            Timeline {
                timeline,
                parent: history
                    .and_then(|history| history.ancestors.last())
                    .map(Into::into),
                history: match (history, damage) {
                    (Some(_), _) => History::Known,
                    (None, Some(unusable)) if unusable.newer => History::Newer,
                    (None, Some(_)) => History::Damaged,
                    (None, None) if timeline == TimelineId(1) => History::None,
                    (None, None) => History::Missing,
                },
                damage: damage.map(|unusable| unusable.why.clone()),
            }
        };
        Self {
            timelines: timelines.into_iter().map(timeline).collect(),
        }
    }
}

answer! {
    /// The timeline that another one left.
    pub struct Parent {
        pub timeline: TimelineId,
        /// The first byte that is not the parent's.
        pub switch_lsn: Lsn,
        /// As the history file says.
        pub reason: String,
    }
}

impl From<&HistoryEntry> for Parent {
    fn from(entry: &HistoryEntry) -> Self {
        Self {
            timeline: entry.timeline,
            switch_lsn: entry.switch_lsn,
            reason: entry.reason.clone(),
        }
    }
}

/// What is known of a timeline's history file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// The first timeline has none.
    None,
    Known,
    /// It is not archived, so where the timeline comes from is not known.
    Missing,
    Damaged,
    /// It is whole, and a newer Walden wrote it.
    Newer,
}
