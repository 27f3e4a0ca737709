//! The paths of timelines, as far as they are known.

use std::collections::{BTreeMap, BTreeSet};

use super::item::{BackupWal, Holdings, WalFacts, WalPlace};
use crate::postgres::catalog::{TimelinePath, WalRange};
use crate::postgres::types::{TimelineHistory, TimelineId};

/// The paths of timelines that are known, and what is not.
pub(super) struct Paths<'a> {
    pub wal: &'a WalFacts,
    pub known: BTreeMap<TimelineId, TimelinePath>,
    /// Timelines that something lies on, and nobody can tell where they come from.
    pub unknown: BTreeSet<TimelineId>,
}

impl<'a> Paths<'a> {
    pub fn new(holdings: &'a Holdings) -> Self {
        let (wal, mut unknown) = (&holdings.wal, BTreeSet::new());
        let mut histories = wal.histories.clone();
        let of_items = holdings
            .items
            .iter()
            .filter_map(|item| item.wal)
            .flat_map(|wal| [wal.start, wal.stop]);
        let seen = wal
            .ranges
            .iter()
            .map(WalRange::timeline)
            .chain(of_items.map(|place| place.timeline));
        for timeline in seen.chain(wal.unread_histories.keys().copied()) {
            if wal.unread_histories.contains_key(&timeline) {
                unknown.insert(timeline);
            } else if timeline == TimelineId(1) {
                histories
                    .entry(timeline)
                    .or_insert_with(|| TimelineHistory::root(timeline));
            } else if !histories.contains_key(&timeline) {
                unknown.insert(timeline);
            }
        }
        let size = wal.ranges.segment_size();
        let path = |(timeline, history)| (timeline, TimelinePath::new(history, size));
        Self {
            wal,
            known: histories.into_iter().map(path).collect(),
            unknown,
        }
    }

    /// The known ones, that of the newest timeline first.
    pub fn newest_first(&self) -> impl Iterator<Item = &TimelinePath> + '_ {
        self.known.values().rev()
    }
}

/// Whether a base backup lies on a path wholly.
pub(super) fn carries(path: &TimelinePath, wal: Option<BackupWal>) -> bool {
    let holds = |place: WalPlace| path.holds(place.timeline, place.lsn);
    wal.is_some_and(|wal| holds(wal.start) && holds(wal.stop))
}
