//! Rows changed in a segment, by transaction and relation file.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::facts::RowChange;
use super::record::{RelFileLocator, Xid};
use super::timestamp::Timestamp;
use super::transactions::TransactionEnd;
use crate::postgres::types::Lsn;

/// Entries of a summary: those with the most rows.
pub const ENTRIES: usize = 64;
/// Entries of open transactions held while counting. At twice as many the smaller half goes.
const HELD: usize = 16_384;

/// Rows that one transaction changed in one relation file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Moved to another partition by UPDATE: gone here, inserted there.
    pub moved: u64,
}

impl RowCounts {
    fn add(&mut self, change: RowChange, rows: u64) {
        match change {
            RowChange::Inserted => self.inserted += rows,
            RowChange::TakenBack => self.inserted = self.inserted.saturating_sub(rows),
            RowChange::Updated => self.updated += rows,
            RowChange::Deleted => self.deleted += rows,
            RowChange::Moved => self.moved += rows,
        }
    }

    fn merge(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.moved += other.moved;
    }

    /// Rows that are not what they were; what is lost counts, what is new does not.
    pub fn changed(&self) -> u64 {
        self.updated + self.deleted + self.moved
    }

    fn weight(&self) -> (u64, u64) {
        (self.changed(), self.inserted)
    }
}

/// What one transaction did to one relation file in this segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsOf {
    /// The transaction; a subtransaction if its end is not in this segment, and WAL does not say whose it is.
    pub xid: Xid,
    pub file: RelFileLocator,
    #[serde(flatten)]
    pub counts: RowCounts,
    /// Its commit; without one it went on beyond this segment. What was rolled back here is not listed.
    pub commit: Option<(Lsn, Timestamp)>,
}

/// The largest changes of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// At most [`ENTRIES`], most rows changed first.
    pub largest: Vec<RowsOf>,
    /// Entries that did not fit.
    pub left_out: u64,
    /// Rows changed by the largest of those; counts of `largest` may be short by as much.
    pub largest_left_out: u64,
}

/// Counts rows while records pass. Holds what transactions did that are still open, and the largest of the others.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    open: BTreeMap<(Xid, RelFileLocator), RowCounts>,
    rows: Rows,
    /// The least that still gets among the largest.
    least: (u64, u64),
}

impl RowCounter {
    pub fn add(&mut self, xid: Xid, file: RelFileLocator, change: RowChange, rows: u32) {
        self.open.entry((xid, file)).or_default().add(change, u64::from(rows));
        if self.open.len() >= 2 * HELD {
            self.prune();
        }
    }

    /// A transaction ended, with the subtransactions that were not rolled back before.
    pub fn end(&mut self, end: &TransactionEnd<'_>, lsn: Lsn) {
        let mut sums: Vec<(RelFileLocator, RowCounts)> = Vec::new();
        for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
            if self.open.is_empty() {
                break;
            }
            self.take(xid, &mut sums);
        }
        if !end.committed {
            return;
        }
        sums.sort_unstable_by_key(|(file, _)| *file);
        sums.dedup_by(|(next, more), (file, counts)| {
            let same = next == file;
            if same {
                counts.merge(*more);
            }
            same
        });
        for (file, counts) in sums {
            self.rank(RowsOf { xid: end.xid, file, counts, commit: Some((lsn, end.time)) });
        }
    }

    /// Moves what one transaction did.
    fn take(&mut self, xid: Xid, sums: &mut Vec<(RelFileLocator, RowCounts)>) {
        let first = RelFileLocator { tablespace: 0, database: 0, number: 0 };
        while let Some((&key, _)) = self.open.range((xid, first)..).next().filter(|((found, _), _)| *found == xid) {
            sums.extend(self.open.remove(&key).map(|counts| (key.1, counts)));
        }
    }

    /// Lists an entry, if it is large enough.
    fn rank(&mut self, rows: RowsOf) {
        if self.rows.largest.len() >= ENTRIES && rows.counts.weight() <= self.least {
            return self.rows.leave_out(&rows.counts);
        }
        self.rows.largest.push(rows);
        if self.rows.largest.len() >= 2 * ENTRIES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let rows = &mut self.rows;
        rows.largest.sort_by_key(|rows| (Reverse(rows.counts.weight()), rows.xid, rows.file));
        for beyond in rows.largest.split_off(rows.largest.len().min(ENTRIES)) {
            rows.leave_out(&beyond.counts);
        }
        self.least = rows.largest.last().map_or((0, 0), |rows| rows.counts.weight());
    }

    /// Forgets the smaller half of what open transactions did.
    fn prune(&mut self) {
        let mut weights: Vec<(u64, u64)> = self.open.values().map(RowCounts::weight).collect();
        let (_, middle, _) = weights.select_nth_unstable(HELD);
        let (middle, rows) = (*middle, &mut self.rows);
        self.open.retain(|_, counts| {
            let kept = counts.weight() > middle;
            if !kept {
                rows.leave_out(counts);
            }
            kept
        });
    }

    /// What was counted.
    pub fn finish(mut self) -> Rows {
        for ((xid, file), counts) in std::mem::take(&mut self.open) {
            self.rank(RowsOf { xid, file, counts, commit: None });
        }
        self.cut();
        self.rows
    }
}

impl Rows {
    fn leave_out(&mut self, counts: &RowCounts) {
        self.left_out += 1;
        self.largest_left_out = self.largest_left_out.max(counts.changed());
    }
}
