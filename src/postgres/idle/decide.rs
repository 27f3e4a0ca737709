//! Which mark to store, if any.

use chrono::{DateTime, TimeDelta, Utc};

use super::read::Reading;
use crate::postgres::layout::IdleMarker;
use crate::postgres::types::{Lsn, TimelineId};

/// Between two marks for the same place at least.
const LEAST: TimeDelta = TimeDelta::seconds(60);
/// And this part of the time that has been idle, so that a quiet night makes dozens of marks, not hundreds.
const PART: i32 = 8;

/// The first of the readings since which no transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleMemory {
    pub timeline: TimelineId,
    pub lsn: Lsn,
    pub xmax: u64,
    pub since: DateTime<Utc>,
    /// Time of the last mark that was stored.
    pub marked: Option<DateTime<Utc>>,
}

/// What to remember after a reading.
pub fn decide(memory: Option<IdleMemory>, reading: &Reading) -> Option<IdleMemory> {
    let Reading {
        time,
        timeline,
        lsn,
        xmax,
        flushed,
    } = *reading;
    let same = memory.filter(|first| (first.timeline, first.xmax) == (timeline, xmax));
    same.or_else(|| {
        flushed.then_some(IdleMemory {
            timeline,
            lsn,
            xmax,
            since: time,
            marked: None,
        })
    })
}

impl IdleMemory {
    /// What a reading proves that this is remembered of. A mark helps only when everything before the first place since
    /// which no transaction has ended is archived.
    pub fn proves(&self, reading: &Reading, archived: Option<Lsn>) -> Option<IdleMarker> {
        let helps = archived.is_some_and(|archived| self.lsn <= archived);
        helps.then_some(IdleMarker {
            timeline: self.timeline,
            lsn: self.lsn,
            time: reading.time,
        })
    }

    /// Whether that is worth an object; `marked` is its time once it is stored.
    pub fn is_due(&self, reading: &Reading) -> bool {
        let pause = |marked: DateTime<Utc>| LEAST.max((marked - self.since) / PART);
        self.marked
            .is_none_or(|marked| reading.time >= marked + pause(marked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn reading(second: i64, lsn: u64, xmax: u64) -> Reading {
        Reading {
            time: at(second),
            timeline: TimelineId(1),
            lsn: Lsn(lsn),
            xmax,
            flushed: true,
        }
    }

    /// The marks that readings make, as place and second.
    fn marks(readings: &[(Reading, u64)]) -> Vec<(u64, i64)> {
        let mut memory: Option<IdleMemory> = None;
        let mut made = Vec::new();
        for (reading, archived) in readings {
            memory = decide(memory, reading);
            let due = memory.filter(|first| first.is_due(reading));
            let mark = due.and_then(|first| first.proves(reading, Some(Lsn(*archived))));
            if let (Some(first), Some(mark)) = (&mut memory, mark) {
                first.marked = Some(mark.time);
            }
            made.extend(mark.map(|mark| (mark.lsn.0, (mark.time - at(0)).num_seconds())));
        }
        made
    }

    #[test]
    fn a_mark_is_made_where_everything_before_is_archived() {
        assert_eq!(marks(&[(reading(1, 110, 7), 100)]), []);
        assert_eq!(marks(&[(reading(1, 100, 7), 100)]), [(100, 1)]);
        assert_eq!(
            decide(None, &reading(1, 100, 7))
                .unwrap()
                .proves(&reading(1, 100, 7), None),
            None
        );
        // What the server writes by itself ends no transaction.
        assert_eq!(
            marks(&[(reading(1, 100, 7), 100), (reading(61, 150, 7), 100)]),
            [(100, 1), (100, 61)]
        );
        assert_eq!(
            marks(&[(reading(1, 110, 7), 100), (reading(2, 150, 7), 120)]),
            [(110, 2)]
        );
    }

    #[test]
    fn after_a_transaction_or_a_promotion_the_place_is_a_new_one() {
        assert_eq!(
            marks(&[(reading(1, 100, 7), 100), (reading(99, 150, 8), 100)]),
            [(100, 1)]
        );
        let promoted = Reading {
            timeline: TimelineId(2),
            ..reading(99, 150, 7)
        };
        assert_eq!(
            marks(&[(reading(1, 100, 7), 100), (promoted, 100)]),
            [(100, 1)]
        );
        let unflushed = Reading {
            flushed: false,
            ..reading(1, 110, 7)
        };
        assert_eq!(
            marks(&[(unflushed, 100), (reading(2, 150, 7), 120)]),
            [],
            "a crash could take it back"
        );
        assert_eq!(
            marks(&[(reading(1, 110, 7), 100), (unflushed, 120)]),
            [(110, 1)],
            "the first one matters"
        );
    }

    #[test]
    fn the_longer_it_is_idle_the_fewer_marks_are_made() {
        let night: Vec<(Reading, u64)> = (0..12 * 60)
            .map(|minute| (reading(minute * 60, 100, 7), 100))
            .collect();
        let made = marks(&night);
        assert_eq!(made[..4], [(100, 0), (100, 60), (100, 120), (100, 180)]);
        assert!((30..60).contains(&made.len()), "{}", made.len());
        let late = made.last().unwrap().1;
        assert!(late > 12 * 3600 * 7 / 8 - 60, "{late}");
    }
}
