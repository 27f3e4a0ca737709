//! Rows changed in a segment, by transaction and relation file.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use super::fact::{RowChange, TransactionEnd};
use super::record::{RelFileLocator, Xid};
use super::timestamp::Timestamp;
use crate::postgres::types::Lsn;

/// Entries of a summary: those with the most rows.
pub const ENTRIES: usize = 64;
/// Entries of open transactions held while counting. At twice as many the smaller half goes.
const HELD: usize = 16_384;
/// As many as there are transactions at a time on most servers.
const SPARE: usize = 64;

/// Rows that one transaction changed in one relation file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowCounts {
    #[serde(skip_serializing_if = "is_zero")]
    pub inserted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub updated: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub deleted: u64,
    /// Moved to another partition by UPDATE: gone here, inserted there.
    #[serde(skip_serializing_if = "is_zero")]
    pub moved: u64,
}

fn is_zero(rows: &u64) -> bool {
    *rows == 0
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
    /// LSN and time of its commit; without one it went on beyond this segment. What was rolled back here is not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<(Lsn, Timestamp)>,
}

/// The largest changes of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChanges {
    /// At most [`ENTRIES`], most rows changed first.
    pub largest: Vec<RowsOf>,
    /// Entries that did not fit.
    pub left_out: u64,
    /// Rows changed by the largest of those; counts of `largest` may be short by as much.
    pub largest_left_out: u64,
    /// The newest transaction or subtransaction that changed rows and did not end here, also if it is not listed.
    pub newest_open: Option<Xid>,
}

/// Counts rows while records pass. Holds what transactions did that are still open, and the largest of the others.
#[derive(Debug, Default)]
pub(super) struct RowCounter {
    open: HashMap<Xid, Files, BuildHasherDefault<XidHasher>>,
    /// Entries of all of them.
    held: usize,
    /// Emptied ones, which serve again: most transactions are over after a few records.
    spare: Vec<Files>,
    rows: RowChanges,
    /// The least that still gets among the largest.
    least: (u64, u64),
    /// The newest open transaction that is no longer held.
    newest_gone: Option<Xid>,
}

/// What one transaction did, by file.
#[derive(Debug, Default)]
struct Files {
    /// The first ones, at most [`FEW`]: mostly all of them.
    few: Vec<(RelFileLocator, RowCounts)>,
    many: BTreeMap<RelFileLocator, RowCounts>,
}

/// Files that are looked for one by one.
const FEW: usize = 8;

impl Files {
    /// Changes the counts of a file; says whether it is a new one.
    #[inline]
    fn change(&mut self, file: RelFileLocator, change: impl FnOnce(&mut RowCounts)) -> bool {
        // Mostly they differ by their numbers alone.
        let same = |known: &RelFileLocator| known.number == file.number && *known == file;
        if let Some((_, counts)) = self.few.iter_mut().rfind(|(known, _)| same(known)) {
            change(counts);
            return false;
        }
        if self.few.len() < FEW && self.many.is_empty() {
            let mut counts = RowCounts::default();
            change(&mut counts);
            self.few.push((file, counts));
            return true;
        }
        let before = self.many.len();
        change(self.many.entry(file).or_default());
        self.many.len() > before
    }

    fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    fn iter(&self) -> impl Iterator<Item = (RelFileLocator, RowCounts)> {
        let many = self.many.iter().map(|(file, counts)| (*file, *counts));
        self.few.iter().copied().chain(many)
    }
}

/// Transaction numbers come in order: one multiplication spreads them well enough. Who chooses them, by making up WAL, can
/// have them meet: that costs time, in a map of at most 2 × [`HELD`] entries.
#[derive(Debug, Default)]
struct XidHasher(u64);

impl Hasher for XidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, xid: u32) {
        self.0 = (self.0 ^ u64::from(xid))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(32);
    }
}

impl RowCounter {
    pub fn add(&mut self, xid: Xid, file: RelFileLocator, change: RowChange, rows: u32) {
        let files = self
            .open
            .entry(xid)
            .or_insert_with(|| self.spare.pop().unwrap_or_default());
        if files.change(file, |counts| counts.add(change, u64::from(rows))) {
            self.held += 1;
        }
        if self.held >= 2 * HELD {
            self.prune();
        }
    }

    /// A transaction ended, with the subtransactions that were not rolled back before.
    pub fn end(&mut self, end: &TransactionEnd<'_>, lsn: Lsn) {
        let mut sums = self.take(end.xid);
        for xid in end.subxids.iter() {
            let files = self.take(xid);
            for (file, counts) in files.iter() {
                sums.change(file, |sum| sum.merge(counts));
            }
            self.spare(files);
        }
        if end.committed {
            for (file, counts) in sums.iter() {
                self.rank(RowsOf {
                    xid: end.xid,
                    file,
                    counts,
                    commit: Some((lsn, end.time)),
                });
            }
        }
        self.spare(sums);
    }

    /// What one transaction did, which is no longer held.
    fn take(&mut self, xid: Xid) -> Files {
        let files = self.open.remove(&xid).unwrap_or_default();
        self.held -= files.len();
        files
    }

    /// Keeps the room that it takes.
    fn spare(&mut self, mut files: Files) {
        if files.few.capacity() > 0 && self.spare.len() < SPARE {
            files.few.clear();
            if !files.many.is_empty() {
                files.many.clear();
            }
            self.spare.push(files);
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
        rows.largest
            .sort_by_key(|rows| (Reverse(rows.counts.weight()), rows.xid, rows.file));
        for beyond in rows.largest.split_off(rows.largest.len().min(ENTRIES)) {
            rows.leave_out(&beyond.counts);
        }
        self.least = rows
            .largest
            .last()
            .map_or((0, 0), |rows| rows.counts.weight());
    }

    /// Forgets the smaller half of what open transactions did.
    fn prune(&mut self) {
        let entries = self.open.values().flat_map(Files::iter);
        let mut weights: Vec<(u64, u64)> = entries.map(|(_, counts)| counts.weight()).collect();
        let middle = weights.len() / 2;
        let (_, middle, _) = weights.select_nth_unstable(middle);
        let (middle, rows) = (*middle, &mut self.rows);
        self.held = 0;
        let mut stays = |counts: &RowCounts| {
            let stays = counts.weight() > middle;
            if !stays {
                rows.leave_out(counts);
            }
            stays
        };
        let mut gone = self.newest_gone;
        self.open.retain(|xid, files| {
            files.few.retain(|(_, counts)| stays(counts));
            files.many.retain(|_, counts| stays(counts));
            self.held += files.len();
            if files.len() == 0 {
                gone = newer(gone, *xid);
            }
            files.len() > 0
        });
        self.newest_gone = gone;
    }

    /// What was counted.
    pub fn finish(mut self) -> RowChanges {
        self.rows.newest_open = self.newest_gone;
        for (xid, files) in std::mem::take(&mut self.open) {
            self.rows.newest_open = newer(self.rows.newest_open, xid);
            for (file, counts) in files.iter() {
                self.rank(RowsOf {
                    xid,
                    file,
                    counts,
                    commit: None,
                });
            }
        }
        self.cut();
        self.rows
    }
}

/// The newer one of two transactions: numbers go round, and those in use are less than 2^31 apart. 0 is none.
fn newer(one: Option<Xid>, other: Xid) -> Option<Xid> {
    match one {
        _ if other == 0 => one,
        Some(one) if (one.wrapping_sub(other) as i32) > 0 => Some(one),
        _ => Some(other),
    }
}

impl RowChanges {
    pub(super) fn leave_out(&mut self, counts: &RowCounts) {
        self.left_out += 1;
        self.largest_left_out = self.largest_left_out.max(counts.changed());
    }
}
