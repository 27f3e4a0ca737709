//! What planning asks of an index of the WAL: in which segments to look. The exact place comes from the segment itself.

use crate::postgres::types::{Lsn, SegmentName, TimelineId};
use crate::postgres::wal::{Commit, Timestamp, Xid};

/// An index of one cluster's WAL.
///
/// Segments are asked for by timeline and number, `from..until`, and answered by number. A record belongs to the segment
/// that holds its last byte: it can be replayed only once that one is there. A timeline's first segment begins with a
/// copy of its parent's, and answers for the copy, too; what crosses into it comes from the parent's segment before.
///
/// An answer that a segment without a summary could change is [`Unknown::Segment`]; one that lies behind broken WAL is
/// [`Unknown::Broken`]. What lies behind the answer does not matter: of several reasons the first one is told.
pub trait Moments {
    /// The first segment with a commit or abort, also a prepared transaction's, later than `time`; `or_at`: not earlier.
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> Result<Option<u64>, Unknown>;

    /// The segments that may hold the commit or abort of a transaction, ascending; the id is without its epoch.
    fn ending(&self, xid: Xid, timeline: TimelineId, from: u64, until: u64) -> Result<Vec<u64>, Unknown>;

    /// Where restore points of a name are, or may be.
    fn restore_points(&self, name: &str, timeline: TimelineId, from: u64, until: u64) -> Result<Vec<Point>, Unknown>;

    /// The commits of a timeline that are nearest to the segment that holds `lsn`; that segment itself is left out.
    fn around(&self, timeline: TimelineId, lsn: Lsn) -> Result<Around, Unknown>;
}

/// A restore point, or a segment that may have one. They are told by segment, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The segment has more restore points than are named: only the segment itself tells which.
    Unnamed { segment: u64 },
    /// Where its record begins, and when it was made.
    Named { segment: u64, lsn: Lsn, time: Timestamp },
}

impl Point {
    /// Number of the segment that it is, or may be, in.
    pub fn segment(&self) -> u64 {
        match self {
            Self::Unnamed { segment } | Self::Named { segment, .. } => *segment,
        }
    }
}

/// The nearest commits on both sides of a segment, on one timeline and without a segment missing between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// The last one that belongs to a segment before.
    pub before: Option<Commit>,
    /// The first one that belongs to a segment after.
    pub after: Option<Commit>,
}

/// The index cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Archived, but not summarised: the first such segment that matters.
    #[error("what WAL segment {0} holds is not known yet")]
    Segment(SegmentName),
    /// Replay comes to an end here: the record at `lsn` is not valid, or is not the one that follows.
    #[error("WAL segment {segment} is broken at {lsn}: nothing behind it can be replayed")]
    Broken { segment: SegmentName, lsn: Lsn },
    /// There is no index.
    #[error("WAL is not indexed here")]
    NoIndex,
    /// The index itself cannot be read.
    #[error("the local index cannot be read: {0}")]
    Failed(String),
}

/// No index. Moments that need none can be planned nevertheless.
#[derive(Debug, Clone, Copy)]
pub struct NoIndex;

impl Moments for NoIndex {
    fn first_later(&self, _: TimelineId, _: u64, _: u64, _: Timestamp, _: bool) -> Result<Option<u64>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn ending(&self, _: Xid, _: TimelineId, _: u64, _: u64) -> Result<Vec<u64>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn restore_points(&self, _: &str, _: TimelineId, _: u64, _: u64) -> Result<Vec<Point>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn around(&self, _: TimelineId, _: Lsn) -> Result<Around, Unknown> {
        Err(Unknown::NoIndex)
    }
}
