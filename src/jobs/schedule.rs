//! When a job is to run: a cron expression in a time zone, put off by the same time for whoever asks. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use crate::config::{Cron, TimeZone};

/// No zone ever moved its clocks by more than a day.
const FARTHEST_SHIFT: TimeDelta = TimeDelta::hours(25);
/// Spans that are searched one after the other: most runs are near. From any moment a leap day is in the last.
const SPANS: [TimeDelta; 6] = [
    TimeDelta::minutes(10),
    TimeDelta::hours(2),
    TimeDelta::days(1),
    TimeDelta::days(8),
    TimeDelta::days(367),
    TimeDelta::days(9 * 366),
];

/// When a job is to run.
///
/// An expression with moments in every hour means each hour that passes: it has none in an hour that the clocks skip, and
/// two in one that they repeat. Any other means each day: a moment that is skipped comes when the clocks moved, one that is
/// repeated comes once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
    offset: TimeDelta,
}

impl Schedule {
    /// Of an expression in a zone; each run begins `offset` after its moment.
    pub fn new(cron: Cron, zone: TimeZone, offset: Duration) -> Self {
        let offset = TimeDelta::from_std(offset).unwrap_or_default();
        Self {
            cron,
            zone: zone.0,
            offset,
        }
    }

    /// Another expression, put off by the same.
    pub fn like(&self, cron: Cron, zone: TimeZone) -> Self {
        Self {
            cron,
            zone: zone.0,
            offset: self.offset,
        }
    }

    /// The expression.
    pub fn cron(&self) -> &Cron {
        &self.cron
    }

    /// The zone.
    pub fn zone(&self) -> TimeZone {
        TimeZone(self.zone)
    }

    /// When the run of a moment begins.
    pub fn begin_of(&self, moment: DateTime<Utc>) -> DateTime<Utc> {
        moment + self.offset
    }

    /// The last moment until `until` whose run was to begin by `now`.
    pub fn last_until(&self, until: DateTime<Utc>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.last_begun(now.min(until + self.offset))
    }

    /// The first moment later than `time`.
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let first = |span| self.moments(time, time + span).first().copied();
        SPANS.into_iter().find_map(first)
    }

    /// The first moment whose run begins later than `time`.
    pub fn next_begin(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.next_after(time - self.offset)
    }

    /// The last moment whose run was to begin by `time`.
    pub fn last_begun(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = time - self.offset;
        let last = |span| self.moments(until - span, until).last().copied();
        SPANS.into_iter().find_map(last)
    }

    /// How many moments are later than `after` and not later than `until`; no more than `most`.
    pub fn count(&self, after: DateTime<Utc>, until: DateTime<Utc>, most: usize) -> usize {
        let next = |moment: &DateTime<Utc>| self.next_after(*moment);
        std::iter::successors(self.next_after(after), next)
            .take(most)
            .take_while(|moment| *moment <= until)
            .count()
    }

    /// All moments later than `after` and not later than `until`.
    fn moments(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> BTreeSet<DateTime<Utc>> {
        let wall = |time: DateTime<Utc>| time.with_timezone(&self.zone).naive_local();
        let from = wall(after) - self.shift_near(after);
        let to = wall(until) + self.shift_near(until);
        let next = |moment: &NaiveDateTime| self.cron.next(*moment, false);
        std::iter::successors(self.cron.next(from, true), next)
            .take_while(|moment| *moment <= to)
            .flat_map(|moment| self.on_wall(moment))
            .filter(|moment| after < *moment && *moment <= until)
            .collect()
    }

    /// By how much times on the wall near a moment may lie elsewhere.
    fn shift_near(&self, time: DateTime<Utc>) -> TimeDelta {
        let offset = |time: DateTime<Utc>| time.with_timezone(&self.zone).offset().fix();
        let around = [time - FARTHEST_SHIFT, time + FARTHEST_SHIFT];
        match around.into_iter().all(|near| offset(near) == offset(time)) {
            true => TimeDelta::zero(),
            false => FARTHEST_SHIFT,
        }
    }

    /// When the clocks show a time.
    fn on_wall(&self, time: NaiveDateTime) -> impl Iterator<Item = DateTime<Utc>> + use<> {
        let shown = self.zone.from_local_datetime(&time);
        let (first, second) = (shown.earliest(), shown.latest());
        let instants = match (first, self.cron.is_each_hour()) {
            (Some(_), true) => [first, second],
            (Some(_), false) => [first, None],
            (None, true) => [None, None],
            (None, false) => [self.after_gap(time), None],
        };
        instants
            .into_iter()
            .flatten()
            .map(|instant| instant.to_utc())
    }

    /// The first moment after clocks skipped a time.
    fn after_gap(&self, skipped: NaiveDateTime) -> Option<DateTime<Tz>> {
        let minutes = (1..=FARTHEST_SHIFT.num_minutes()).map(TimeDelta::minutes);
        let mut later = minutes.map(|span| self.zone.from_local_datetime(&(skipped + span)));
        later.find_map(|shown| shown.earliest())
    }
}

/// By how much a job of a cluster is put off, at most `jitter`: the same for whoever asks.
pub fn offset(cluster: &str, job: &str, jitter: Duration) -> Duration {
    let digest = blake3::hash(format!("{cluster}\n{job}").as_bytes());
    let (number, _) = digest
        .as_bytes()
        .split_first_chunk::<8>()
        .map_or(([0; 8], &[][..]), |(number, rest)| (*number, rest));
    Duration::from_secs(u64::from_le_bytes(number) % (jitter.as_secs() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule::new(cron.parse().unwrap(), zone.parse().unwrap(), Duration::ZERO)
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// All runs after one moment until another, on the wall, with the offset from UTC.
    fn runs(cron: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
        let schedule = schedule(cron, zone);
        let next = |moment: &DateTime<Utc>| schedule.next_after(*moment);
        let all = std::iter::successors(schedule.next_after(at(after)), next);
        all.take_while(|moment| *moment <= at(until))
            .map(|moment| {
                moment
                    .with_timezone(&schedule.zone)
                    .format("%d %H:%M%:z")
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn moments_are_those_of_the_wall() {
        let weekly = schedule("0 2 * * 0", "Europe/Berlin");
        assert_eq!(
            weekly.next_after(at("2026-11-30T00:00:00Z")),
            Some(at("2026-12-06T01:00:00Z"))
        );
        assert_eq!(
            weekly.next_after(at("2026-12-06T01:00:00Z")),
            Some(at("2026-12-13T01:00:00Z"))
        );
        assert_eq!(
            weekly.last_begun(at("2026-12-06T01:00:00Z")),
            Some(at("2026-12-06T01:00:00Z"))
        );
        assert_eq!(
            weekly.last_begun(at("2026-12-06T00:59:59Z")),
            Some(at("2026-11-29T01:00:00Z"))
        );
        let leap = schedule("0 0 29 2 *", "UTC");
        assert_eq!(
            leap.next_after(at("2096-03-01T00:00:00Z")),
            Some(at("2104-02-29T00:00:00Z"))
        );
        assert_eq!(
            leap.last_begun(at("2104-02-28T00:00:00Z")),
            Some(at("2096-02-29T00:00:00Z"))
        );
    }

    #[test]
    fn a_run_in_the_hour_that_is_skipped_comes_when_the_clocks_have_moved() {
        let of_day = |cron| {
            runs(
                cron,
                "Europe/Berlin",
                "2027-03-27T23:00:00Z",
                "2027-03-28T21:59:00Z",
            )
        };
        assert_eq!(of_day("30 2 * * *"), ["28 03:00+02:00"]);
        assert_eq!(of_day("0 2 * * *"), ["28 03:00+02:00"]);
        assert_eq!(
            of_day("0,30 2,3 * * *"),
            ["28 03:00+02:00", "28 03:30+02:00"],
            "each once"
        );
        assert_eq!(
            of_day("30 2,14 * * *"),
            ["28 03:00+02:00", "28 14:30+02:00"]
        );
    }

    #[test]
    fn a_run_in_the_hour_that_comes_twice_comes_once() {
        let of_day = |cron| {
            runs(
                cron,
                "Europe/Berlin",
                "2027-10-30T22:00:00Z",
                "2027-10-31T22:59:00Z",
            )
        };
        assert_eq!(of_day("30 2 * * *"), ["31 02:30+02:00"]);
        assert_eq!(
            of_day("30 2,14 * * *"),
            ["31 02:30+02:00", "31 14:30+01:00"]
        );
        assert_eq!(
            of_day("0 */2 * * *").len(),
            11,
            "all but midnight, each once"
        );
    }

    #[test]
    fn what_runs_each_hour_follows_the_hours_that_pass() {
        let hourly = |after, until| runs("30 * * * *", "Europe/Berlin", after, until);
        let spring = hourly("2027-03-28T00:00:00Z", "2027-03-28T03:00:00Z");
        assert_eq!(
            spring,
            ["28 01:30+01:00", "28 03:30+02:00", "28 04:30+02:00"]
        );
        let autumn = hourly("2027-10-31T00:00:00Z", "2027-10-31T03:00:00Z");
        assert_eq!(
            autumn,
            ["31 02:30+02:00", "31 02:30+01:00", "31 03:30+01:00"]
        );
    }

    #[test]
    fn clocks_that_move_otherwise_lose_no_run() {
        // By half an hour; at midnight; over a whole day.
        assert_eq!(
            runs(
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-03T12:00:00Z",
                "2026-10-04T12:00:00Z"
            ),
            ["04 02:30+11:00"]
        );
        assert_eq!(
            runs(
                "0 0 * * *",
                "America/Havana",
                "2027-03-13T12:00:00Z",
                "2027-03-14T12:00:00Z"
            ),
            ["14 01:00-04:00"]
        );
        assert_eq!(
            runs(
                "0 2 * * *",
                "Pacific/Apia",
                "2011-12-29T00:00:00Z",
                "2011-12-31T12:00:00Z"
            ),
            [
                "29 02:00-10:00",
                "31 00:00+14:00",
                "31 02:00+14:00",
                "01 02:00+14:00"
            ]
        );
    }

    #[test]
    fn both_directions_see_the_same_moments() {
        // Through both changes of a year, also from within the hours that are repeated.
        for cron in ["*/20 1-3 * * *", "40 * * * *", "15 2 * * 0"] {
            let schedule = schedule(cron, "America/New_York");
            for day in ["2027-03-14", "2027-11-07"] {
                let mut time = at(&format!("{day}T04:00:00Z"));
                for _ in 0..60 {
                    let next = schedule.next_after(time).unwrap();
                    assert_eq!(schedule.last_begun(next), Some(next), "{cron} {time}");
                    let before = schedule.last_begun(next - TimeDelta::seconds(1)).unwrap();
                    assert!(
                        before <= time && schedule.next_after(before) == Some(next),
                        "{cron} {time}"
                    );
                    time += TimeDelta::minutes(7);
                }
            }
        }
    }

    #[test]
    fn what_was_missed_is_counted_within_a_bound() {
        let hourly = schedule("0 * * * *", "UTC");
        let (from, to) = (at("2026-11-30T00:00:00Z"), at("2026-12-02T00:30:00Z"));
        assert_eq!(
            (hourly.count(from, to, 1000), hourly.count(from, to, 10)),
            (48, 10)
        );
        assert_eq!(hourly.count(to, from, 10), 0);
    }

    #[test]
    fn the_offset_is_the_same_everywhere_and_within_its_bound() {
        let jitter = Duration::from_secs(600);
        assert_eq!(
            offset("main", "dump", jitter),
            offset("main", "dump", jitter)
        );
        let clusters: BTreeSet<_> = (0..100)
            .map(|n| offset(&format!("c{n}"), "dump", jitter))
            .collect();
        assert!(clusters.len() > 80 && clusters.iter().all(|offset| *offset <= jitter));
        assert_ne!(
            offset("main", "dump", jitter),
            offset("main", "verify", jitter)
        );
        assert_eq!(offset("main", "dump", Duration::ZERO), Duration::ZERO);
        let late = Schedule::new("0 * * * *".parse().unwrap(), "UTC".parse().unwrap(), jitter);
        assert_eq!(
            late.last_begun(at("2026-11-30T02:09:59Z")),
            Some(at("2026-11-30T01:00:00Z"))
        );
        assert_eq!(
            late.last_begun(at("2026-11-30T02:10:00Z")),
            Some(at("2026-11-30T02:00:00Z"))
        );
    }
}
