//! Which transactions ended in a segment.

use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use super::fact::TransactionEnd;
use super::record::Xid;
use super::timestamp::Timestamp;
use crate::postgres::types::Lsn;

/// Ended transactions that a summary names at most.
pub const ENDED: usize = 128;

/// Commits and rollbacks, also of prepared transactions, and rollbacks of subtransactions, which WAL does not tell
/// apart. Recovery to a time stops before the first of them that is later, of whatever kind (xlogrecovery.c,
/// recoveryStopsBefore).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub count: u64,
    pub min_time: Option<Timestamp>,
    pub max_time: Option<Timestamp>,
    /// The newest transaction or subtransaction among them.
    pub newest: Option<Xid>,
    /// One has more subtransactions, with larger numbers than those of it that were read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A transaction or subtransaction that ended. In JSON a list of the fields, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "ListedEnd", from = "ListedEnd")]
pub struct Ended {
    pub xid: Xid,
    /// The transaction it was part of, with which it ended: itself, unless it is a subtransaction. Also itself if it is
    /// one that was rolled back alone.
    pub top: Xid,
    /// Of the commit or rollback.
    pub lsn: Lsn,
    pub time: Timestamp,
    pub committed: bool,
}

type ListedEnd = (Xid, Xid, Lsn, Timestamp, bool);

impl From<Ended> for ListedEnd {
    fn from(ended: Ended) -> Self {
        (ended.xid, ended.top, ended.lsn, ended.time, ended.committed)
    }
}

impl From<ListedEnd> for Ended {
    fn from((xid, top, lsn, time, committed): ListedEnd) -> Self {
        Self {
            xid,
            top,
            lsn,
            time,
            committed,
        }
    }
}

/// Counts ends while records pass, and holds those of the oldest transactions.
#[derive(Debug, Default)]
pub(super) struct EndCounter {
    ends: Ends,
    /// What the others are compared with: numbers go round, and those in use are less than 2^31 apart.
    base: Option<Xid>,
    /// Of the newest one, how much newer than `base`.
    newest: Option<i32>,
    /// How much newer than `base`, the newest on top.
    oldest: BinaryHeap<(i32, Ended)>,
    left_out: u64,
}

impl EndCounter {
    pub fn add(&mut self, end: &TransactionEnd<'_>, lsn: Lsn) {
        self.ends.count += 1;
        self.ends.min_time = Some(
            self.ends
                .min_time
                .map_or(end.time, |time| time.min(end.time)),
        );
        self.ends.max_time = self.ends.max_time.max(Some(end.time));
        self.ends.cut |= end.subxids_cut;
        for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
            self.consider(Ended {
                xid,
                top: end.xid,
                lsn,
                time: end.time,
                committed: end.committed,
            });
        }
    }

    fn consider(&mut self, ended: Ended) {
        if ended.xid == 0 {
            // Of a prepared transaction whose record was cut: it says its number at its end.
            self.left_out += 1;
            return;
        }
        let newer = ended.xid.wrapping_sub(*self.base.get_or_insert(ended.xid)) as i32;
        self.newest = self.newest.max(Some(newer));
        if self.oldest.len() < ENDED {
            return self.oldest.push((newer, ended));
        }
        self.left_out += 1;
        if let Some(mut newest) = self.oldest.peek_mut()
            && newer < newest.0
        {
            *newest = (newer, ended);
        }
    }

    /// What was counted, those of the oldest transactions, and how many more there were.
    pub fn finish(self) -> (Ends, Vec<Ended>, u64) {
        let newest = self
            .base
            .zip(self.newest)
            .map(|(base, newer)| base.wrapping_add(newer as u32));
        let oldest = self
            .oldest
            .into_sorted_vec()
            .into_iter()
            .map(|(_, ended)| ended);
        (
            Ends {
                newest,
                ..self.ends
            },
            oldest.collect(),
            self.left_out,
        )
    }
}
