//! Which segments are kept, as unbroken ranges: memory grows with the gaps, not with the segments.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::expired::{ExpiredWal, WalSpan, without};
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId};

/// An unbroken run of segments of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    pub first: SegmentName,
    pub last: SegmentName,
    /// How many segments.
    pub segments: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// When the first and the last segment were stored, by the store's clock.
    pub first_stored: DateTime<Utc>,
    pub last_stored: DateTime<Utc>,
}

impl WalRange {
    /// The timeline of all its segments.
    pub fn timeline(&self) -> TimelineId {
        self.first.timeline
    }

    /// Its segments.
    pub fn span(&self) -> WalSpan {
        WalSpan {
            first: self.first,
            last: self.last,
        }
    }

    /// Whether it holds the segment of that number.
    pub fn holds(&self, number: u64, size: SegmentSize) -> bool {
        (self.first.number(size)..=self.last.number(size)).contains(&number)
    }
}

/// Segments of one timeline that are missing although later ones are kept, of it or of a timeline that follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub first_missing: SegmentName,
    pub last_missing: SegmentName,
    pub segments: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.segments {
            1 => write!(f, "{} is missing", self.first_missing),
            more => write!(
                f,
                "{} to {} are missing ({more} segments)",
                self.first_missing, self.last_missing
            ),
        }
    }
}

impl Gap {
    /// Whether some segment is missing in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first_missing <= other.last_missing && other.first_missing <= self.last_missing
    }

    /// Whether all that is missing in `other` is missing in this one.
    fn covers(&self, other: &Self) -> bool {
        self.first_missing <= other.first_missing && other.last_missing <= self.last_missing
    }

    /// Gaps in order, without those that another one covers.
    pub fn distinct(mut gaps: Vec<Self>) -> Vec<Self> {
        gaps.sort_by(|a, b| {
            (a.first_missing, b.last_missing).cmp(&(b.first_missing, a.last_missing))
        });
        gaps.dedup_by(|later, kept| kept.covers(later));
        gaps
    }
}

/// All ranges of a cluster, ordered by timeline and place, never touching each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRanges {
    size: SegmentSize,
    ranges: Vec<WalRange>,
    /// What retention deleted is no gap.
    expired: ExpiredWal,
}

impl WalRanges {
    /// No segment yet, of a cluster with segments of this size.
    pub fn new(size: SegmentSize) -> Self {
        Self {
            size,
            ranges: Vec::new(),
            expired: ExpiredWal::default(),
        }
    }

    /// The same, and what retention deleted.
    pub fn with_expired(self, expired: ExpiredWal) -> Self {
        Self { expired, ..self }
    }

    /// What retention deleted, some of which may be there again.
    pub fn expired(&self) -> &ExpiredWal {
        &self.expired
    }

    /// Bytes in a segment.
    pub fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Adds a segment. Cheapest in ascending order, as listings give them; a segment added twice counts once.
    pub fn add(&mut self, name: SegmentName, stored_bytes: u64, stored: DateTime<Utc>) {
        let (size, number) = (self.size, name.number(self.size));
        let after = self.ranges.partition_point(|range| range.first <= name);
        if after > 0 {
            let before = &mut self.ranges[after - 1];
            if before.timeline() == name.timeline && before.last.number(size) + 1 >= number {
                if before.last < name {
                    before.last = name;
                    before.segments += 1;
                    before.stored_bytes += stored_bytes;
                    before.last_stored = stored;
                    self.join(after - 1);
                }
                return;
            }
        }
        let (first_stored, last_stored) = (stored, stored);
        let range = WalRange {
            first: name,
            last: name,
            segments: 1,
            stored_bytes,
            first_stored,
            last_stored,
        };
        self.ranges.insert(after, range);
        self.join(after);
    }

    /// Adds segments that lie behind all that are there.
    pub fn append(&mut self, range: WalRange) {
        debug_assert!(
            self.ranges
                .last()
                .is_none_or(|last| last.last < range.first)
        );
        self.ranges.push(range);
        self.join(self.ranges.len().saturating_sub(2));
    }

    /// Joins a range with the next when they touch.
    fn join(&mut self, at: usize) {
        let Some(next) = self.ranges.get(at + 1) else {
            return;
        };
        let range = &self.ranges[at];
        if next.timeline() == range.timeline()
            && range.last.number(self.size) + 1 == next.first.number(self.size)
        {
            let next = self.ranges.remove(at + 1);
            let range = &mut self.ranges[at];
            range.last = next.last;
            range.segments += next.segments;
            range.stored_bytes += next.stored_bytes;
            range.last_stored = next.last_stored;
        }
    }

    /// All ranges, ordered by timeline and place.
    pub fn iter(&self) -> impl Iterator<Item = &WalRange> + '_ {
        self.ranges.iter()
    }

    /// The ranges of one timeline, in order.
    pub fn of(&self, timeline: TimelineId) -> &[WalRange] {
        let from = self
            .ranges
            .partition_point(|range| range.timeline() < timeline);
        let to = self
            .ranges
            .partition_point(|range| range.timeline() <= timeline);
        &self.ranges[from..to]
    }

    /// The range with this segment; `None` in a gap and outside.
    pub fn holding(&self, name: SegmentName) -> Option<&WalRange> {
        let number = name.number(self.size);
        self.of(name.timeline)
            .iter()
            .find(|range| range.holds(number, self.size))
    }

    /// Whether a segment is kept.
    pub fn contains(&self, name: SegmentName) -> bool {
        self.holding(name).is_some()
    }

    /// The first segment kept of this timeline at or after a number.
    pub fn first_from(&self, timeline: TimelineId, number: u64) -> Option<SegmentName> {
        let range = self
            .of(timeline)
            .iter()
            .find(|range| range.last.number(self.size) >= number)?;
        Some(SegmentName::from_number(
            timeline,
            number.max(range.first.number(self.size)),
            self.size,
        ))
    }

    /// What is missing between the ranges of each timeline, and was not deleted on purpose.
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self
            .ranges
            .windows(2)
            .filter(|pair| pair[0].timeline() == pair[1].timeline());
        self.lost(pairs.map(|pair| self.gap(&pair[0], &pair[1])))
    }

    /// What of gaps was not deleted on purpose.
    pub fn lost(&self, gaps: impl Iterator<Item = Gap>) -> Vec<Gap> {
        let spans = gaps.flat_map(|gap| {
            let span = WalSpan {
                first: gap.first_missing,
                last: gap.last_missing,
            };
            without(vec![span], self.expired.spans(), self.size)
        });
        spans
            .map(|span| Gap {
                first_missing: span.first,
                last_missing: span.last,
                segments: span.segments(self.size),
            })
            .collect()
    }

    /// All ranges as spans.
    pub fn spans(&self) -> Vec<WalSpan> {
        self.ranges.iter().map(WalRange::span).collect()
    }

    fn gap(&self, before: &WalRange, after: &WalRange) -> Gap {
        let (first, next) = (
            before.last.number(self.size) + 1,
            after.first.number(self.size),
        );
        let name = |number| SegmentName::from_number(before.timeline(), number, self.size);
        Gap {
            first_missing: name(first),
            last_missing: name(next - 1),
            segments: next - first,
        }
    }

    /// The segments kept here that `other` does not keep, as ranges.
    pub fn missing_in(&self, other: &Self) -> Vec<Gap> {
        let mut missing = Vec::new();
        for range in &self.ranges {
            let (mut number, last) = (range.first.number(self.size), range.last.number(self.size));
            while number <= last {
                let theirs = other
                    .of(range.timeline())
                    .iter()
                    .find(|range| range.last.number(self.size) >= number);
                let (from, to) = theirs.map_or((u64::MAX, u64::MAX), |theirs| {
                    (
                        theirs.first.number(self.size),
                        theirs.last.number(self.size),
                    )
                });
                if from > number {
                    let until = last.min(from - 1);
                    let name =
                        |number| SegmentName::from_number(range.timeline(), number, self.size);
                    let segments = until - number + 1;
                    missing.push(Gap {
                        first_missing: name(number),
                        last_missing: name(until),
                        segments,
                    });
                }
                number = to.saturating_add(1);
            }
        }
        missing
    }

    /// What is left when these segments are gone. Bytes are estimated.
    pub fn without(&self, spans: &[WalSpan]) -> Self {
        let mut left = Self::new(self.size).with_expired(self.expired.clone());
        for range in &self.ranges {
            for span in without(vec![range.span()], spans, self.size) {
                let segments = span.segments(self.size);
                let share = u128::from(range.stored_bytes) * u128::from(segments)
                    / u128::from(range.segments);
                left.append(WalRange {
                    first: span.first,
                    last: span.last,
                    segments,
                    stored_bytes: share as u64,
                    ..range.clone()
                });
            }
        }
        left
    }

    /// The first LSN after a range.
    pub fn end(&self, range: &WalRange) -> Lsn {
        range.last.end(self.size)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId(timeline), number, size())
    }

    fn size() -> SegmentSize {
        SegmentSize::new(64 << 20).unwrap()
    }

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_added_in_any_order(
            added in prop::collection::vec((1u32..3, 50u64..80), 0..60)
        ) {
            let mut ranges = WalRanges::new(size());
            for (at, (timeline, number)) in added.iter().enumerate() {
                ranges.add(name(*timeline, *number), 10, DateTime::from_timestamp(at as i64, 0).unwrap());
            }
            let kept: BTreeSet<(u32, u64)> = added.into_iter().collect();
            for timeline in 1..3 {
                for number in 49..81 {
                    let expected = kept.contains(&(timeline, number));
                    prop_assert_eq!(ranges.contains(name(timeline, number)), expected);
                    let next = (number..81).find(|n| kept.contains(&(timeline, *n))).map(|n| name(timeline, n));
                    prop_assert_eq!(ranges.first_from(TimelineId(timeline), number), next);
                }
            }
            let segments: u64 = ranges.iter().map(|range| range.segments).sum();
            prop_assert_eq!(segments, kept.len() as u64);
            prop_assert_eq!(ranges.iter().map(|range| range.stored_bytes).sum::<u64>(), 10 * segments);
            for gap in ranges.gaps() {
                let (first, last) = (gap.first_missing.number(size()), gap.last_missing.number(size()));
                prop_assert_eq!(gap.segments, last - first + 1);
                let timeline = gap.first_missing.timeline.0;
                prop_assert!((first..=last).all(|n| !kept.contains(&(timeline, n))));
                prop_assert!(kept.contains(&(timeline, first - 1)) && kept.contains(&(timeline, last + 1)));
            }
        }
    }

    proptest! {
        #[test]
        fn what_another_archive_lacks_is_told_segment_by_segment(
            ours in prop::collection::btree_set((1u32..3, 50u64..70), 0..40),
            theirs in prop::collection::btree_set((1u32..3, 50u64..70), 0..40),
        ) {
            let all = |kept: &BTreeSet<(u32, u64)>| {
                let mut ranges = WalRanges::new(size());
                kept.iter().for_each(|(timeline, number)| {
                    ranges.add(name(*timeline, *number), 1, DateTime::UNIX_EPOCH);
                });
                ranges
            };
            let missing = all(&ours).missing_in(&all(&theirs));
            let told: Vec<(u32, u64)> = missing.iter().flat_map(|gap| {
                let (first, last) = (gap.first_missing.number(size()), gap.last_missing.number(size()));
                assert_eq!(gap.segments, last - first + 1);
                (first..=last).map(|number| (gap.first_missing.timeline.0, number))
            }).collect();
            prop_assert_eq!(told, ours.difference(&theirs).copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_range_goes_on_over_a_log_boundary() {
        let mut ranges = WalRanges::new(size());
        for number in 62..67 {
            ranges.add(name(1, number), 1, DateTime::UNIX_EPOCH);
        }
        assert_eq!(ranges.iter().count(), 1);
        assert_eq!(
            ranges.iter().next().unwrap().last.to_string(),
            "000000010000000100000002"
        );
    }
}
