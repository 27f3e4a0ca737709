//! What lies beside WAL and means nothing without it: backup history files, partial segments, idle markers. Pure.

use std::collections::BTreeMap;

use crate::postgres::catalog::{ExpiredWal, WalRanges, WalSpan, without};
use crate::postgres::protection::Needs;
use crate::postgres::types::{SegmentName, TimelineHistory, TimelineId, WalFileName};

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

    /// Whether what is named after a segment, or lies in it, goes: the segment went, or all before it did and it was never
    /// whole, as where a timeline ended with a promotion. What is in use stays.
    pub fn takes_along(&self, segment: SegmentName, used: &[Needs]) -> bool {
        let size = self.there.segment_size();
        let is_used = used.iter().any(|needs| needs.has_segment(segment));
        if is_used || self.there.contains(segment) {
            return false;
        }
        let ancestors = self.histories.get(&segment.timeline).into_iter();
        let ancestors = ancestors.flat_map(|history| &history.ancestors);
        let mut timelines: Vec<TimelineId> = ancestors.map(|entry| entry.timeline).collect();
        timelines.push(segment.timeline);
        let before = segment.number(size).checked_sub(1).into_iter();
        let before = before.flat_map(|number| {
            let of = move |timeline: &TimelineId| SegmentName::from_number(*timeline, number, size);
            timelines.iter().map(of)
        });
        let before: Vec<SegmentName> = before.collect();
        let is_there = |name: &SegmentName| self.there.contains(*name);
        let is_gone = |name: &SegmentName| self.gone.contains(*name);
        is_gone(&segment) || !before.iter().any(is_there) && before.iter().any(is_gone)
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
    use crate::postgres::types::{HistoryEntry, Lsn, SegmentSize};

    fn name(timeline: u32, number: u64) -> SegmentName {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        SegmentName::from_number(TimelineId(timeline), number, size)
    }

    #[test]
    fn what_is_named_after_wal_goes_with_it_and_a_partial_segment_with_what_leads_to_it() {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        let mut before = WalRanges::new(size);
        let kept = [(1, 5), (1, 6), (2, 12), (2, 13), (4, 13)];
        let going = [(1, 7), (1, 8), (1, 9)];
        for (timeline, number) in kept.into_iter().chain(going) {
            before.add(name(timeline, number), 1, DateTime::UNIX_EPOCH);
        }
        let span = |timeline, from, to| WalSpan {
            first: name(timeline, from),
            last: name(timeline, to),
        };
        // Timeline 3 had no whole segment: it ended in its first one.
        let history = |timeline: u32, parent: u32, number: u64| {
            let ancestor = HistoryEntry {
                timeline: TimelineId(parent),
                switch_lsn: Lsn(number * SEGMENT + 8),
                reason: String::new(),
            };
            let timeline = TimelineId(timeline);
            let ancestors = vec![ancestor];
            (
                timeline,
                TimelineHistory {
                    timeline,
                    ancestors,
                },
            )
        };
        let histories = [history(2, 1, 10), history(3, 1, 10), history(4, 2, 13)].into();
        let expired = ExpiredWal::new(vec![span(1, 1, 4), span(1, 6, 6), span(2, 10, 11)], size);
        let gone = GoneWal::new(&expired, &[span(1, 7, 9)], &before, &histories);
        let found = |used: &[Needs]| {
            let all = (1..=4).flat_map(|timeline| (1..16).map(move |number| (timeline, number)));
            let goes =
                |(timeline, number): &(u32, u64)| gone.takes_along(name(*timeline, *number), used);
            all.filter(goes).collect::<Vec<_>>()
        };
        let mut expected = vec![(1, 1), (1, 2), (1, 3), (1, 4), (1, 7), (1, 8), (1, 9)];
        // The partial segments at the ends of timelines 1 and 3; that of timeline 2 has WAL before it.
        expected.extend([(1, 10), (2, 10), (2, 11), (3, 10)]);
        let plain = found(&[]);
        assert!(
            expected.iter().all(|place| plain.contains(place)),
            "{plain:?}"
        );
        for stays in [(1, 5), (1, 6), (2, 12), (2, 13), (2, 14), (4, 13), (4, 14)] {
            assert!(!plain.contains(&stays), "{stays:?}");
        }
        assert!(found(&[Needs::everything()]).is_empty());
        let reader = Needs {
            wal: vec![span(1, 2, 3)],
            ..Needs::default()
        };
        let left = found(&[reader]);
        assert!(!left.contains(&(1, 2)) && left.contains(&(1, 4)));
    }
}
