//! Rows changed in a segment, by transaction and relation file.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::facts::RowChange;
use super::record::{RelFileLocator, Xid};
use super::timestamp::Timestamp;
use super::transactions::TransactionEnd;
use crate::postgres::types::Lsn;

/// Entries of a summary: those with the most rows.
pub const ENTRIES: usize = 64;
/// Entries and ended transactions held while counting. At twice as many the smaller half goes.
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

/// Counts rows while records pass.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    open: HashMap<(Xid, RelFileLocator), RowCounts>,
    /// The change counted last: rows of one statement come in a row.
    recent: Option<((Xid, RelFileLocator), RowCounts)>,
    ended: HashMap<Xid, Ended>,
    left_out: u64,
    largest_left_out: u64,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    /// Itself, or the transaction that it belonged to.
    xid: Xid,
    commit: Option<(Lsn, Timestamp)>,
}

impl RowCounter {
    pub fn add(&mut self, xid: Xid, file: RelFileLocator, change: RowChange, rows: u32) {
        let key = (xid, file);
        match &mut self.recent {
            Some((recent, counts)) if *recent == key => return counts.add(change, u64::from(rows)),
            _ => self.settle(),
        }
        let mut counts = self.open.remove(&key).unwrap_or_default();
        counts.add(change, u64::from(rows));
        self.recent = Some((key, counts));
    }

    /// Puts what was counted last to the rest.
    fn settle(&mut self) {
        if let Some((key, counts)) = self.recent.take() {
            self.open.insert(key, counts);
            self.bound();
        }
    }

    pub fn end(&mut self, end: &TransactionEnd<'_>, lsn: Lsn) {
        let commit = end.committed.then_some((lsn, end.time));
        for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
            self.ended.insert(xid, Ended { xid: end.xid, commit });
            self.bound();
        }
    }

    /// Keeps memory bounded: forgets the smaller entries, and the ends that no entry needs.
    fn bound(&mut self) {
        if self.open.len().max(self.ended.len()) < 2 * HELD {
            return;
        }
        if let Some((key, counts)) = self.recent.take() {
            self.open.insert(key, counts);
        }
        if self.open.len() > HELD {
            self.prune();
        }
        let open: HashSet<Xid> = self.open.keys().map(|(xid, _)| *xid).collect();
        self.ended.retain(|xid, _| open.contains(xid));
    }

    /// Forgets all but the [`HELD`] largest entries.
    fn prune(&mut self) {
        let mut weights: Vec<(u64, u64)> = self.open.values().map(RowCounts::weight).collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let least = weights[HELD];
        // Of those that are as large as the first to go, none stays.
        let (left_out, largest) = (&mut self.left_out, &mut self.largest_left_out);
        self.open.retain(|_, counts| {
            let kept = counts.weight() > least;
            if !kept {
                *left_out += 1;
                *largest = (*largest).max(counts.changed());
            }
            kept
        });
    }

    /// What was counted, by the transactions that did it as far as they are known.
    pub fn finish(mut self) -> Rows {
        self.settle();
        let mut sums: HashMap<(Xid, RelFileLocator), (RowCounts, Option<(Lsn, Timestamp)>)> = HashMap::new();
        for ((xid, file), counts) in self.open {
            let ended = self.ended.get(&xid);
            if ended.is_some_and(|ended| ended.commit.is_none()) {
                continue;
            }
            let sum = sums.entry((ended.map_or(xid, |ended| ended.xid), file)).or_default();
            sum.0.merge(counts);
            sum.1 = sum.1.or(ended.and_then(|ended| ended.commit));
        }
        let mut largest: Vec<RowsOf> =
            sums.into_iter().map(|((xid, file), (counts, commit))| RowsOf { xid, file, counts, commit }).collect();
        largest.sort_by_key(|rows| (std::cmp::Reverse(rows.counts.weight()), rows.xid, rows.file));
        let beyond = largest.split_off(largest.len().min(ENTRIES));
        let most = beyond.first().map_or(0, |rows| rows.counts.changed());
        Rows {
            largest,
            left_out: self.left_out + beyond.len() as u64,
            largest_left_out: self.largest_left_out.max(most),
        }
    }
}
