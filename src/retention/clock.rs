//! How old items are, and how far that is believed: clocks jump, and what was made under a wrong one must not make the
//! rest old.

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::item::{Holdings, Item};
use super::paths::Paths;

/// By how much clocks of different machines may differ.
const SKEW: TimeDelta = TimeDelta::hours(1);
/// So many good items that are later than this machine's clock prove that it may be wrong.
const MOST_AHEAD: usize = 3;
/// On so many days there are items behind a jump until it is believed.
const DAYS_TO_BELIEVE: usize = 3;
/// For so long an item stays of which it is not known when it was made.
pub(super) const DOUBTED: TimeDelta = TimeDelta::days(32);

/// How far an item's time is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    Sure,
    /// Others contradict it: the WAL tells which of two came first, and most of them agree.
    Doubted,
    /// It is later than this machine's clock.
    Ahead,
}

/// When an item was made, as far as that can be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Of a doubted item: within what lies before and behind it in the WAL.
    pub time: DateTime<Utc>,
    pub trust: Trust,
    /// Of a doubted item: the place of the nearest that contradicts it.
    pub witness: Option<usize>,
}

/// When each item was made, in their order; and whether this machine's clock may be wrong.
pub(super) fn made(holdings: &Holdings, paths: &Paths<'_>) -> (Vec<Made>, bool) {
    let latest = holdings.now + SKEW;
    let is_ahead = |item: &&Item| item.is_good() && item.time > latest;
    let wrong = holdings.items.iter().filter(is_ahead).count() >= MOST_AHEAD;
    let by_itself = |item: &Item| Made {
        time: item.time,
        trust: match item.time > latest {
            true => Trust::Ahead,
            false => Trust::Sure,
        },
        witness: None,
    };
    let mut made: Vec<Made> = holdings.items.iter().map(by_itself).collect();
    let mut judged = vec![false; made.len()];
    // An item is judged along the newest path that it lies on: what came after it has a say.
    for path in paths.newest_first() {
        let mut order: Vec<_> = holdings
            .items
            .iter()
            .enumerate()
            .filter(|(at, _)| made[*at].trust != Trust::Ahead)
            .filter_map(|(at, item)| {
                let place = item.place()?;
                let holds = path.holds(place.timeline, place.lsn);
                holds.then_some((place.lsn, item.time, at))
            })
            .collect();
        order.sort_unstable();
        let times: Vec<DateTime<Utc>> = order.iter().map(|(_, time, _)| *time).collect();
        for (nth, ((_, time, at), bounds)) in order.iter().zip(bounds(&times)).enumerate() {
            if !std::mem::replace(&mut judged[*at], true) && bounds.doubts(*time) {
                made[*at] = Made {
                    time: (*time).clamp(bounds.from, bounds.to),
                    trust: Trust::Doubted,
                    witness: nearest_against(&times, nth).map(|nth| order[nth].2),
                };
            }
        }
    }
    (made, wrong)
}

/// Between which times a moment lies, as those tell that are believed; and whether others contradict it that may be right.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    contested: bool,
}

impl Bounds {
    fn doubts(&self, time: DateTime<Utc>) -> bool {
        self.contested || time < self.from - SKEW || time > self.to + SKEW
    }
}

/// For each of these times, which should ascend: between which it lies of those that do. The most days that ascend are
/// believed, for old days have few items left.
fn bounds(times: &[DateTime<Utc>]) -> Vec<Bounds> {
    let days: Vec<&[DateTime<Utc>]> = times
        .chunk_by(|a, b| a.date_naive() == b.date_naive())
        .collect();
    let starts: Vec<DateTime<Utc>> = days.iter().map(|day| day[0]).collect();
    let ascending = ascending(&starts);
    let contested = contested(&starts, &ascending);
    let of_days = days.iter().zip(ascending.iter().zip(contested));
    let of_times: Vec<(bool, bool)> = of_days
        .flat_map(|(day, (ascends, contested))| day.iter().map(move |_| (*ascends, contested)))
        .collect();
    let mut bounds: Vec<Bounds> = of_times
        .iter()
        .map(|(_, contested)| Bounds {
            from: DateTime::<Utc>::MIN_UTC + SKEW,
            to: DateTime::<Utc>::MAX_UTC - SKEW,
            contested: *contested,
        })
        .collect();
    let is_believed = |at: usize| matches!(of_times[at], (true, false));
    for at in 1..times.len() {
        let before = bounds[at - 1].from;
        bounds[at].from = if is_believed(at - 1) {
            before.max(times[at - 1])
        } else {
            before
        };
    }
    let mut to = DateTime::<Utc>::MAX_UTC - SKEW;
    for at in (0..times.len()).rev() {
        bounds[at].to = to.max(bounds[at].from);
        to = if is_believed(at) {
            to.min(times[at])
        } else {
            to
        };
    }
    bounds
}

/// Whether the times at two places contradict each other.
fn contradicts(times: &[DateTime<Utc>], at: usize, other: usize) -> bool {
    match at.cmp(&other) {
        Ordering::Less => times[at] > times[other] + SKEW,
        _ => times[at] + SKEW < times[other],
    }
}

/// The nearest place whose time contradicts this one's.
fn nearest_against(times: &[DateTime<Utc>], at: usize) -> Option<usize> {
    let against = (0..times.len()).filter(|other| contradicts(times, *other, at));
    against.min_by_key(|other| other.abs_diff(at))
}

/// Which of the days that ascend are contradicted by one that too few of them contradict to be sure that it is wrong.
fn contested(starts: &[DateTime<Utc>], ascending: &[bool]) -> Vec<bool> {
    let mut contested = vec![false; starts.len()];
    for odd in (0..starts.len()).filter(|at| !ascending[*at]) {
        let against =
            (0..starts.len()).filter(|at| ascending[*at] && contradicts(starts, *at, odd));
        let against: Vec<usize> = against.take(DAYS_TO_BELIEVE).collect();
        if against.len() < DAYS_TO_BELIEVE {
            contested[odd] = true;
            against.into_iter().for_each(|at| contested[at] = true);
        }
    }
    contested
}

/// Which of these belong to the longest of their ascending parts.
fn ascending(times: &[DateTime<Utc>]) -> Vec<bool> {
    // For each length the place where the part of that length ends that ends earliest; and what precedes each.
    let (mut ends, mut before) = (Vec::<usize>::new(), vec![None; times.len()]);
    for (at, time) in times.iter().enumerate() {
        let length = ends.partition_point(|end| times[*end] <= *time);
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let (mut believed, mut next) = (vec![false; times.len()], ends.last().copied());
    while let Some(at) = next {
        believed[at] = true;
        next = before[at];
    }
    believed
}

/// How many of these times, which ascend, are believed to be no jump of a clock. The last of them is the reference time.
/// A longer time than `jump` without an item is a jump: the clock's, or backups had stopped.
pub(super) fn believed(times: &[DateTime<Utc>], jump: TimeDelta) -> usize {
    let mut days: Vec<NaiveDate> = times.iter().map(DateTime::date_naive).collect();
    days.dedup();
    let first_new = days
        .len()
        .checked_sub(DAYS_TO_BELIEVE - 1)
        .and_then(|at| days.get(at));
    let from = first_new.map_or(1, |day| {
        times.partition_point(|time| time.date_naive() < *day)
    });
    let is_jump = |at: &usize| times[*at] - times[at - 1] > jump;
    (from.max(1)..times.len())
        .find(is_jump)
        .unwrap_or(times.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(day * 86400 + 1_700_000_000, 0).unwrap()
    }

    fn reference(days: &[i64]) -> Option<i64> {
        let times: Vec<_> = days.iter().map(|at| day(*at)).collect();
        let believed = believed(&times, TimeDelta::days(32));
        days[..believed].last().copied()
    }

    #[test]
    fn the_reference_is_the_newest_until_it_is_far_from_the_rest() {
        assert_eq!(reference(&[]), None);
        assert_eq!(reference(&[1]), Some(1));
        assert_eq!(reference(&[1, 2, 34]), Some(34));
        assert_eq!(reference(&[1, 2, 40]), Some(2));
        assert_eq!(reference(&[1, 2, 40, 41]), Some(2));
        assert_eq!(
            reference(&[1, 2, 40, 40, 40, 41]),
            Some(2),
            "days count, not items"
        );
        assert_eq!(reference(&[1, 2, 40, 41, 42]), Some(42));
        assert_eq!(reference(&[1, 30000]), Some(1));
        assert_eq!(
            reference(&[0, 90, 180, 270, 360]),
            Some(180),
            "rarer than the policy lets expect"
        );
    }

    fn doubted(days: &[i64]) -> Vec<i64> {
        let times: Vec<_> = days.iter().map(|at| day(*at)).collect();
        let bounds = bounds(&times).into_iter().enumerate();
        let doubted = bounds.filter(|(at, bounds)| bounds.doubts(times[*at]));
        doubted.map(|(at, _)| days[at]).collect()
    }

    #[test]
    fn most_items_tell_whose_clock_was_wrong() {
        assert_eq!(doubted(&[1, 2, 3, 3, 4]), [0; 0]);
        assert_eq!(doubted(&[1, 2, 900, 3, 4, 5]), [900]);
        assert_eq!(doubted(&[1, 2, 900, 901, 3, 4, 5]), [900, 901]);
        assert_eq!(
            doubted(&[1, 2, 900, 900, 900, 3, 4, 5]),
            [900, 900, 900],
            "days count"
        );
        assert_eq!(doubted(&[400, 401, 402, 1, 2, 403]), [1, 2]);
    }

    #[test]
    fn fewer_than_three_days_prove_nobody_wrong() {
        assert_eq!(doubted(&[1, 2, 900, 3, 4]), [900, 3, 4]);
        assert_eq!(doubted(&[400, 401, 1]), [400, 401, 1]);
        assert_eq!(
            doubted(&[1, 2, 90, 60, 61, 150, 151, 152]),
            [90, 60, 61],
            "two days that a slow clock made against the one before"
        );
    }
}
