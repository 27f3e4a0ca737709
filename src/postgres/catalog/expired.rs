//! WAL that retention deleted: that it is missing is no damage, and never the end of the archive. Pure.

use serde::{Deserialize, Serialize};

use crate::postgres::types::{SegmentName, SegmentSize, TimelineId};

/// Segments of one timeline that lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WalSpan {
    pub first: SegmentName,
    pub last: SegmentName,
}

impl WalSpan {
    /// The timeline of all its segments.
    pub fn timeline(&self) -> TimelineId {
        self.first.timeline
    }

    /// Whether a segment is one of them.
    pub fn contains(&self, segment: SegmentName) -> bool {
        (self.first..=self.last).contains(&segment)
    }

    /// Whether some segment is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many segments.
    pub fn segments(&self, size: SegmentSize) -> u64 {
        (self.last.number(size) + 1).saturating_sub(self.first.number(size))
    }

    /// Its segments, in order.
    pub fn names(self, size: SegmentSize) -> impl Iterator<Item = SegmentName> {
        let numbers = self.first.number(size)..=self.last.number(size);
        numbers.map(move |number| SegmentName::from_number(self.first.timeline, number, size))
    }

    /// The segments that are in both.
    pub fn common(&self, other: &Self) -> Option<Self> {
        self.overlaps(other).then(|| Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        })
    }

    /// What is left of it without another one.
    pub fn without(self, other: &Self, size: SegmentSize) -> Vec<Self> {
        if !self.overlaps(other) {
            return vec![self];
        }
        let name = |number| SegmentName::from_number(self.first.timeline, number, size);
        let before = (self.first < other.first).then(|| Self {
            first: self.first,
            last: name(other.first.number(size) - 1),
        });
        let after = (other.last < self.last).then(|| Self {
            first: name(other.last.number(size) + 1),
            last: self.last,
        });
        before.into_iter().chain(after).collect()
    }
}

/// What is left of spans without others.
pub fn without(spans: Vec<WalSpan>, others: &[WalSpan], size: SegmentSize) -> Vec<WalSpan> {
    others.iter().fold(spans, |left, other| {
        let left = left.into_iter();
        left.flat_map(|span| span.without(other, size)).collect()
    })
}

/// All WAL that was deleted on purpose: in order, never touching each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiredWal(Vec<WalSpan>);

impl ExpiredWal {
    /// Puts spans together, in any order.
    pub fn new(mut spans: Vec<WalSpan>, size: SegmentSize) -> Self {
        spans.sort();
        let mut all: Vec<WalSpan> = Vec::new();
        for span in spans {
            match all.last_mut() {
                Some(last)
                    if last.first.timeline == span.first.timeline
                        && span.first.number(size) <= last.last.number(size) + 1 =>
                {
                    last.last = last.last.max(span.last);
                }
                _ => all.push(span),
            }
        }
        Self(all)
    }

    /// In order.
    pub fn spans(&self) -> &[WalSpan] {
        &self.0
    }

    /// Whether a segment was deleted on purpose.
    pub fn contains(&self, segment: SegmentName) -> bool {
        let behind = self.0.partition_point(|span| span.first <= segment);
        behind > 0 && self.0[behind - 1].contains(segment)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::new(64 << 20).unwrap()
    }

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId(timeline), number, size())
    }

    fn span((timeline, first, more): (u32, u64, u64)) -> WalSpan {
        WalSpan {
            first: name(timeline, first),
            last: name(timeline, first + more),
        }
    }

    fn set(spans: &[WalSpan]) -> BTreeSet<SegmentName> {
        spans.iter().flat_map(|span| span.names(size())).collect()
    }

    proptest! {
        #[test]
        fn spans_are_sets_of_segments(
            some in prop::collection::vec((1u32..3, 60u64..80, 0u64..9), 0..6),
            others in prop::collection::vec((1u32..3, 60u64..80, 0u64..9), 0..6),
        ) {
            let [some, others]: [Vec<WalSpan>; 2] =
                [some, others].map(|spans| spans.into_iter().map(span).collect());
            let (expired, all) = (ExpiredWal::new(some.clone(), size()), set(&some));
            prop_assert_eq!(set(expired.spans()), all.clone());
            let counted: u64 = expired.spans().iter().map(|span| span.segments(size())).sum();
            prop_assert_eq!(counted, all.len() as u64, "none twice");
            for number in 58..92 {
                for timeline in 1..3 {
                    let name = name(timeline, number);
                    prop_assert_eq!(expired.contains(name), all.contains(&name));
                }
            }
            let left = without(some.clone(), &others, size());
            let expected: BTreeSet<_> = all.difference(&set(&others)).copied().collect();
            prop_assert_eq!(set(&left), expected);
            for pair in others.windows(2) {
                let common = set(&pair[..1]).intersection(&set(&pair[1..])).next().is_some();
                prop_assert_eq!(pair[0].overlaps(&pair[1]), common);
                let both: Vec<WalSpan> = pair[0].common(&pair[1]).into_iter().collect();
                let expected = &set(&pair[..1]) & &set(&pair[1..]);
                prop_assert_eq!(set(&both), expected);
            }
        }
    }
}
