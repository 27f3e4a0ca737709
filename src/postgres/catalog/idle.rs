//! Until when it is proven that no transaction ended although nothing more is archived.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::postgres::layout::IdleMarker;
use crate::postgres::types::{Lsn, TimelineId};

/// What idle markers say: for each place the latest time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdleTimes(BTreeMap<(TimelineId, Lsn), DateTime<Utc>>);

impl IdleTimes {
    /// Adds what a mark says.
    pub fn add(&mut self, mark: IdleMarker) {
        let time = self.0.entry((mark.timeline, mark.lsn)).or_insert(mark.time);
        *time = mark.time.max(*time);
    }

    /// Every end of a transaction that does not lie whole before `end` on the timeline is later than this; `None` when
    /// nothing is proven. A mark's place is between records, so none that crosses `end` begins before one at `end`.
    ///
    /// Where the last commit before `end` begins is `last`: a mark before it is not needed if that commit is later than its
    /// time, and is proven wrong if it is not, for the server's clock was set back.
    pub fn until(
        &self,
        timeline: TimelineId,
        last: Option<Lsn>,
        end: Lsn,
    ) -> Option<DateTime<Utc>> {
        let counts = |lsn: Lsn| last.is_none_or(|last| lsn > last);
        let marks = self.0.range((timeline, Lsn(0))..=(timeline, end));
        marks
            .filter(|((_, lsn), _)| counts(*lsn))
            .map(|(_, time)| *time)
            .max()
    }
}

impl Extend<IdleMarker> for IdleTimes {
    fn extend<I: IntoIterator<Item = IdleMarker>>(&mut self, marks: I) {
        marks.into_iter().for_each(|mark| self.add(mark));
    }
}

impl FromIterator<IdleMarker> for IdleTimes {
    fn from_iter<I: IntoIterator<Item = IdleMarker>>(marks: I) -> Self {
        let mut times = Self::default();
        times.extend(marks);
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_on_its_timeline_from_its_place_on_with_its_latest_time() {
        let mark = |timeline, lsn, second| IdleMarker {
            timeline: TimelineId(timeline),
            lsn: Lsn(lsn),
            time: DateTime::from_timestamp(second, 0).unwrap(),
        };
        let times: IdleTimes = [
            mark(1, 10, 7),
            mark(1, 10, 5),
            mark(1, 20, 6),
            mark(2, 5, 9),
        ]
        .into_iter()
        .collect();
        let until = |timeline, last: Option<u64>, end| {
            times
                .until(TimelineId(timeline), last.map(Lsn), Lsn(end))
                .map(|time| time.timestamp())
        };
        let on_first = [until(1, None, 9), until(1, None, 10), until(1, Some(9), 30)];
        assert_eq!(
            on_first,
            [None, Some(7), Some(7)],
            "an older mark may prove more"
        );
        assert_eq!(
            [until(1, Some(10), 30), until(1, Some(20), 30)],
            [Some(6), None],
            "unless a commit followed it"
        );
        assert_eq!([until(2, None, 30), until(3, None, 30)], [Some(9), None]);
    }
}
