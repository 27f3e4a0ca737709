//! What lies beside WAL and means nothing without it: backup history files, partial segments, idle markers. Pure.

use std::collections::BTreeMap;

use crate::postgres::catalog::{ExpiredWal, WalRanges, WalSpan, without};
use crate::postgres::protection::Needs;
use crate::postgres::types::{Lsn, SegmentName, TimelineHistory, TimelineId, WalFileName};

/// The WAL that went, now or earlier, and what is there of it.
pub struct GoneWal<'a> {
    gone: ExpiredWal,
    there: WalRanges,
    histories: &'a BTreeMap<TimelineId, TimelineHistory>,
}

impl<'a> GoneWal<'a> {
    /// All that was let go, and `deleted` just now.
    pub fn new(
        expired: &ExpiredWal,
        deleted: &[WalSpan],
        before: &WalRanges,
        histories: &'a BTreeMap<TimelineId, TimelineHistory>,
    ) -> Self {
        let (there, size) = (before.without(deleted), before.segment_size());
        let spans = [expired.spans(), deleted].concat();
        let gone = ExpiredWal::new(without(spans, &there.spans(), size), size);
        Self {
            gone,
            there,
            histories,
        }
    }

    /// Whether what is named after a segment goes: the segment went, or all before it did and it was never
    /// whole, as where a timeline ended with a promotion. What is in use stays.
    pub fn takes_along(&self, segment: SegmentName, used: &[Needs]) -> bool {
        let size = self.there.segment_size();
        let is_used = used.iter().any(|needs| needs.has_segment(segment));
        if is_used || self.there.contains(segment) {
            return false;
        }
        let Some(number) = segment.number(size).checked_sub(1) else {
            return self.gone.contains(segment);
        };
        let on = |timeline| SegmentName::from_number(timeline, number, size);
        let start = on(segment.timeline).start(size);
        let history = self.histories.get(&segment.timeline);
        let ancestors = history.into_iter().flat_map(|history| &history.ancestors);
        // What an ancestor wrote after it was left leads to nothing here.
        let leading = ancestors.filter(|entry| entry.switch_lsn > start);
        let timelines = leading
            .map(|entry| entry.timeline)
            .chain([segment.timeline]);
        let before: Vec<SegmentName> = timelines.map(on).collect();
        let is_there = |name: &SegmentName| self.there.contains(*name);
        let is_gone = |name: &SegmentName| self.gone.contains(*name);
        is_gone(&segment) || !before.iter().any(is_there) && before.iter().any(is_gone)
    }

    /// Whether an idle marker goes: the WAL before its place went. All of that was archived once, so where nothing of it is
    /// known it is newer than what is known.
    pub fn takes_mark(&self, timeline: TimelineId, lsn: Lsn, used: &[Needs]) -> bool {
        let size = self.there.segment_size();
        let before = SegmentName::ending_at(timeline, lsn, size);
        let at = SegmentName::containing(timeline, lsn, size);
        let is_used = |needs: &Needs| needs.has_segment(before) || needs.has_segment(at);
        self.gone.contains(before) && !self.there.contains(at) && !used.iter().any(is_used)
    }
}

/// The segment that a WAL file is named after.
pub fn named_after(name: &WalFileName) -> Option<SegmentName> {
    match name {
        WalFileName::Partial(segment)
        | WalFileName::Backup { segment, .. }
        | WalFileName::Aside { segment, .. } => Some(*segment),
        WalFileName::Segment(_) | WalFileName::History(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::postgres::catalog::testing::SEGMENT;
    use crate::postgres::types::{HistoryEntry, SegmentSize};

    fn name(timeline: u32, number: u64) -> SegmentName {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        SegmentName::from_number(TimelineId(timeline), number, size)
    }

    fn span(timeline: u32, from: u64, to: u64) -> WalSpan {
        WalSpan {
            first: name(timeline, from),
            last: name(timeline, to),
        }
    }

    /// A timeline that left another one in a segment.
    fn history((timeline, parent, number): (u32, u32, u64)) -> (TimelineId, TimelineHistory) {
        let (timeline, ancestor) = (TimelineId(timeline), TimelineId(parent));
        let entry = HistoryEntry {
            timeline: ancestor,
            switch_lsn: Lsn(number * SEGMENT + 8),
            reason: String::new(),
        };
        let history = TimelineHistory {
            timeline,
            ancestors: vec![entry],
        };
        (timeline, history)
    }

    /// Timeline 3 had no whole segment: it ended in its first one. Timeline 5 left timeline 1 long before.
    fn with_gone(check: impl FnOnce(&GoneWal)) {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        let mut before = WalRanges::new(size);
        let kept = [(1, 5), (1, 6), (2, 12), (2, 13), (4, 13)];
        let going = [(1, 7), (1, 8), (1, 9)];
        for (timeline, number) in kept.into_iter().chain(going) {
            before.add(name(timeline, number), 1, DateTime::UNIX_EPOCH);
        }
        let histories = [(2, 1, 10), (3, 1, 10), (4, 2, 13), (5, 1, 3)].map(history);
        let expired = ExpiredWal::new(vec![span(1, 1, 4), span(1, 6, 6), span(2, 10, 11)], size);
        let histories = histories.into();
        check(&GoneWal::new(
            &expired,
            &[span(1, 7, 9)],
            &before,
            &histories,
        ));
    }

    #[test]
    fn what_is_named_after_wal_goes_with_it_and_a_partial_segment_with_what_leads_to_it() {
        let found = |gone: &GoneWal, used: &[Needs]| {
            let all = (1..=5).flat_map(|timeline| (1..16).map(move |number| (timeline, number)));
            let is_taken =
                |(timeline, number): &(u32, u64)| gone.takes_along(name(*timeline, *number), used);
            all.filter(is_taken).collect::<Vec<_>>()
        };
        // The partial segments at the ends of timelines 1 and 3; that of timeline 2 has WAL before it.
        let goes = [
            [(1, 1), (1, 2), (1, 3), (1, 4), (1, 7), (1, 8), (1, 9)].as_slice(),
            &[(1, 10), (2, 10), (2, 11), (3, 10)],
        ];
        let stays = [
            [(1, 5), (1, 6), (2, 12), (2, 13), (2, 14)].as_slice(),
            &[(4, 13), (4, 14), (5, 8), (5, 9), (5, 10)],
        ];
        let reader = Needs {
            wal: vec![span(1, 2, 3)],
            ..Needs::default()
        };
        with_gone(|gone| {
            let plain = found(gone, &[]);
            for place in goes.concat() {
                assert!(plain.contains(&place), "{place:?}");
            }
            for place in stays.concat() {
                assert!(!plain.contains(&place), "{place:?}");
            }
            assert!(found(gone, &[Needs::everything()]).is_empty());
            let left = found(gone, &[reader]);
            assert!(!left.contains(&(1, 2)) && left.contains(&(1, 4)));
        });
    }

    #[test]
    fn an_idle_marker_goes_with_the_wal_before_its_place_unless_it_is_newer_than_what_is_known() {
        let goes = |gone: &GoneWal, timeline, number: u64, offset, used: &[Needs]| {
            let lsn = Lsn(number * SEGMENT + offset);
            gone.takes_mark(TimelineId(timeline), lsn, used)
        };
        with_gone(|gone| {
            for (number, offset) in [(4, 8), (9, 8), (10, 0)] {
                assert!(goes(gone, 1, number, offset, &[]), "{number}");
                assert!(!goes(gone, 1, number, offset, &[Needs::everything()]));
            }
            assert!(!goes(gone, 1, 5, 0, &[]), "what follows it is there");
            for (timeline, number) in [(1, 10), (3, 10), (5, 8)] {
                assert!(!goes(gone, timeline, number, 8, &[]), "{timeline}");
            }
        });
    }
}
