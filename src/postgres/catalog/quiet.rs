//! Until when it is proven that no transaction ended although nothing more is archived.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::postgres::layout::QuietMark;
use crate::postgres::types::{Lsn, TimelineId};

/// What quiet marks say: for each place the latest time.
#[derive(Debug, Clone, Default)]
pub struct QuietTimes(BTreeMap<(TimelineId, Lsn), DateTime<Utc>>);

impl QuietTimes {
    /// Adds what a mark says.
    pub fn add(&mut self, mark: QuietMark) {
        let time = self.0.entry((mark.timeline, mark.lsn)).or_insert(mark.time);
        *time = mark.time.max(*time);
    }

    /// Every end of a transaction that does not lie whole before `end` on the timeline is later than this; `None` when
    /// nothing is proven. A mark's place is between records, so none that crosses `end` begins before one at `end`.
    pub fn until(&self, timeline: TimelineId, end: Lsn) -> Option<DateTime<Utc>> {
        self.0.range((timeline, Lsn(0))..=(timeline, end)).map(|(_, time)| *time).max()
    }
}

impl FromIterator<QuietMark> for QuietTimes {
    fn from_iter<I: IntoIterator<Item = QuietMark>>(marks: I) -> Self {
        let mut times = Self::default();
        marks.into_iter().for_each(|mark| times.add(mark));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_on_its_timeline_from_its_place_on_with_its_latest_time() {
        let mark = |timeline, lsn, second| QuietMark {
            timeline: TimelineId(timeline),
            lsn: Lsn(lsn),
            time: DateTime::from_timestamp(second, 0).unwrap(),
        };
        let times: QuietTimes = [mark(1, 10, 7), mark(1, 10, 5), mark(1, 20, 6), mark(2, 5, 9)].into_iter().collect();
        let until = |timeline, end| times.until(TimelineId(timeline), Lsn(end)).map(|time| time.timestamp());
        assert_eq!([until(1, 9), until(1, 10), until(1, 30)], [None, Some(7), Some(7)], "an older mark may prove more");
        assert_eq!([until(2, 30), until(3, 30)], [Some(9), None]);
    }
}
