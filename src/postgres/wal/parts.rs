//! In which parts of a segment the records begin that end transactions.

use serde::{Deserialize, Serialize};

use super::fact::TransactionEnd;
use super::record::Xid;
use super::timestamp::Timestamp;
use crate::postgres::types::{Lsn, SegmentSize};

/// The commits and rollbacks whose record begins in one part: the latest one's time, and the oldest and the newest of
/// their transactions and subtransactions, 0 without a number. In JSON a list of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEnds(Timestamp, Xid, Xid);

impl PartEnds {
    /// The latest one's time.
    pub fn latest(&self) -> Timestamp {
        self.0
    }

    /// Whether this transaction or subtransaction may be among them. Numbers go round.
    pub fn may_hold(&self, xid: Xid) -> bool {
        let Self(_, oldest, newest) = *self;
        oldest != 0 && xid.wrapping_sub(oldest) <= newest.wrapping_sub(oldest)
    }
}

/// Counts ends by part while records pass; of a record that was joined, none.
#[derive(Debug, Default)]
pub(super) struct PartCounter {
    start: Lsn,
    /// Bytes of a part.
    part: u64,
    parts: Vec<Option<PartEnds>>,
}

impl PartCounter {
    /// Of the segment that begins at `start`.
    pub fn new(start: Lsn, size: SegmentSize) -> Self {
        let part = size.part();
        Self {
            start,
            part,
            parts: vec![None; (size.bytes() / part) as usize],
        }
    }

    /// Adds the end whose record begins at `lsn`.
    pub fn add(&mut self, end: &TransactionEnd<'_>, lsn: Lsn) {
        let part = lsn
            .0
            .saturating_sub(self.start.0)
            .checked_div(self.part)
            .and_then(|part| self.parts.get_mut(part as usize));
        let Some(ends) = part else { return };
        let PartEnds(latest, oldest, newest) = ends.get_or_insert(PartEnds(end.time, 0, 0));
        *latest = end.time.max(*latest);
        for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
            let is_older = |than: Xid| (xid.wrapping_sub(than) as i32) < 0;
            // Of a prepared transaction whose record was cut the number is not known.
            if xid != 0 && (*oldest == 0 || is_older(*oldest)) {
                *oldest = xid;
            }
            if xid != 0 && (*newest == 0 || !is_older(*newest)) {
                *newest = xid;
            }
        }
    }

    pub fn finish(self) -> Vec<Option<PartEnds>> {
        self.parts
    }
}
