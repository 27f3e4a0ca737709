//! What planning asks of an index of the WAL: in which segments to look. The exact place comes from the segment itself.

use crate::postgres::types::{Lsn, SegmentName, TimelineId};
use crate::postgres::wal::{Commit, TablespaceMade, Timestamp, Xid};

/// An index of one cluster's WAL.
///
/// Segments are asked for by timeline and number, `from..until`, and answered by number. A record belongs to the segment
/// that holds its last byte: it can be replayed only once that one is there. A timeline's first segment begins with a
/// copy of its parent's, and answers for the copy, too; what crosses into it comes from the parent's segment before.
///
/// All segments that are asked for are archived. An answer that one which the index does not have, or has without its
/// summary, could change is [`Unknown::Segment`]; one that lies behind broken WAL is [`Unknown::Broken`]. What lies behind
/// the answer does not matter: of several reasons the first one is told.
pub trait WalIndex {
    /// The first segment with a commit or abort, also a prepared transaction's, later than `time`; `or_at`: not earlier.
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> Result<Option<u64>, Unknown>;

    /// The segments that may hold the commit or abort of a transaction; the id is without its epoch.
    fn ending(
        &self,
        xid: Xid,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<u64>, Unknown>;

    /// Where restore points of a name are, or may be.
    fn restore_points(
        &self,
        name: &str,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<Point>, Unknown>;

    /// The first commit of the segments `from..until`; `None`: there is none.
    fn first_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown>;

    /// The last commit that replay of all of these segments gets to. WAL may be broken in the last one: what lies before
    /// that counts.
    fn last_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown>;

    /// The tablespaces that replay of these segments makes outside the data directory. OID 0: more than are named.
    fn tablespaces(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<TablespaceMade>, Unknown>;

    /// Whether replay gets into a segment from the one before, which for the first of a timeline is the parent's:
    /// [`Unknown::Broken`] if it is known that it does not. The other questions leave out what lies before their first
    /// segment, but tell whether what crosses into that one is known.
    fn check_boundary(&self, timeline: TimelineId, number: u64) -> Result<(), Unknown>;
}

/// A restore point, or a segment that may have one. They are told by segment, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The segment has more restore points than are named: only the segment itself tells which.
    Unnamed { segment: u64 },
    /// Where its record begins, and when it was made.
    Named {
        segment: u64,
        lsn: Lsn,
        time: Timestamp,
    },
}

impl Point {
    /// Number of the segment that it is, or may be, in.
    pub fn segment(&self) -> u64 {
        match self {
            Self::Unnamed { segment } | Self::Named { segment, .. } => *segment,
        }
    }
}

/// What an index knows for sure, ascending, up to where that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPrefix<T> {
    pub found: Vec<T>,
    /// Why there may be more; `None`: this is all.
    pub more: Option<Unknown>,
}

/// The index cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Archived, but not in the index, or without its summary or what crosses into it: the first such segment that matters.
    #[error("what WAL segment {0} holds is not known yet")]
    Segment(SegmentName),
    /// Replay comes to an end here: the record at `lsn` is not valid, or is not the one that follows.
    #[error("WAL segment {segment} cannot be replayed beyond {lsn}")]
    Broken { segment: SegmentName, lsn: Lsn },
    /// There is no index.
    #[error("WAL is not indexed here")]
    NoIndex,
    /// The index itself cannot be read.
    #[error("the local index cannot be read: {0}")]
    Failed(String),
}

/// No index. Targets that need none can be planned nevertheless.
#[derive(Debug, Clone, Copy)]
pub struct NoIndex;

impl WalIndex for NoIndex {
    fn first_later(
        &self,
        _: TimelineId,
        _: u64,
        _: u64,
        _: Timestamp,
        _: bool,
    ) -> Result<Option<u64>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn ending(&self, _: Xid, _: TimelineId, _: u64, _: u64) -> Result<KnownPrefix<u64>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn restore_points(
        &self,
        _: &str,
        _: TimelineId,
        _: u64,
        _: u64,
    ) -> Result<KnownPrefix<Point>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn first_commit(&self, _: TimelineId, _: u64, _: u64) -> Result<Option<Commit>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn last_commit(&self, _: TimelineId, _: u64, _: u64) -> Result<Option<Commit>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn tablespaces(
        &self,
        _: TimelineId,
        _: u64,
        _: u64,
    ) -> Result<KnownPrefix<TablespaceMade>, Unknown> {
        Err(Unknown::NoIndex)
    }

    fn check_boundary(&self, _: TimelineId, _: u64) -> Result<(), Unknown> {
        Err(Unknown::NoIndex)
    }
}
