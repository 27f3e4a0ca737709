//! The axis of the time line: the range that is shown, its marks, and where zooming leads. Pure.

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};

/// Marks on the axis, at most so many.
const MARKS: i64 = 8;
/// Distances between marks, in seconds.
const STEPS: [i64; 19] = [
    1,
    2,
    5,
    10,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
];
const DAY: i64 = 86400;
/// Distances between marks of a long range, in months.
const MONTHS: [u32; 9] = [1, 3, 6, 12, 24, 60, 120, 240, 600];

/// A range of time, at least a second long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
}

/// A mark on the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub at: DateTime<Utc>,
    pub label: String,
    /// The day, where it is another than the mark's before.
    pub day: Option<String>,
}

impl Span {
    /// The range between two moments, whichever comes first; widened to a second, cut to years that clocks show.
    pub fn between(one: DateTime<Utc>, other: DateTime<Utc>) -> Self {
        let earliest = DateTime::UNIX_EPOCH;
        let latest = earliest + TimeDelta::days(230 * 365);
        let (from, until) = (
            one.min(other).clamp(earliest, latest),
            one.max(other).clamp(earliest, latest),
        );
        Self {
            from,
            until: until.max(from + TimeDelta::seconds(1)),
        }
    }

    /// All these moments, with room on both sides.
    pub fn around(
        moments: impl Iterator<Item = DateTime<Utc>> + Clone,
        now: DateTime<Utc>,
    ) -> Self {
        let first = moments.clone().min().unwrap_or(now - TimeDelta::hours(1));
        let last = moments.max().unwrap_or(now).max(now);
        let room = (last - first) / 40;
        Self::between(first - room, last + room)
    }

    fn length(&self) -> TimeDelta {
        self.until - self.from
    }

    /// Where a moment lies, in hundredths of the range; outside it below 0 or above 100.
    pub fn place(&self, moment: DateTime<Utc>) -> f64 {
        (moment - self.from).as_seconds_f64() / self.length().as_seconds_f64() * 100.0
    }

    /// Half of it, around its middle or around a moment in it.
    pub fn closer(&self, moment: Option<DateTime<Utc>>) -> Self {
        let quarter = self.length() / 4;
        let middle = moment
            .filter(|moment| self.holds(*moment))
            .unwrap_or(self.from + quarter * 2);
        Self::between(middle - quarter, middle + quarter)
    }

    /// Twice of it, but no more than `all`.
    pub fn wider(&self, all: &Self) -> Self {
        let half = self.length() / 2;
        let twice = Self::between(self.from - half, self.until + half);
        if twice.length() >= all.length() {
            *all
        } else {
            twice
        }
    }

    /// The range before.
    pub fn earlier(&self) -> Self {
        let half = self.length() / 2;
        Self::between(self.from - half, self.until - half)
    }

    /// The range after.
    pub fn later(&self) -> Self {
        let half = self.length() / 2;
        Self::between(self.from + half, self.until + half)
    }

    /// Whether a moment lies in it.
    pub fn holds(&self, moment: DateTime<Utc>) -> bool {
        (self.from..=self.until).contains(&moment)
    }

    /// Marks at round moments.
    pub fn ticks(&self) -> Vec<Tick> {
        let seconds = self.length().num_seconds();
        let step = STEPS.into_iter().find(|step| seconds / step < MARKS);
        let mut day = None;
        let mut ticks = Vec::new();
        for at in step.map_or_else(|| self.months(), |step| self.every(step)) {
            let (label, shows_day) = match step {
                Some(..60) => (at.format("%H:%M:%S").to_string(), true),
                Some(..DAY) => (at.format("%H:%M").to_string(), true),
                Some(_) => (at.format("%b %-d").to_string(), false),
                None => (at.format("%b %Y").to_string(), false),
            };
            let new_day = (shows_day && day != Some(at.date_naive()))
                .then(|| at.format("%b %-d").to_string());
            day = Some(at.date_naive());
            ticks.push(Tick {
                at,
                label,
                day: new_day,
            });
        }
        ticks
    }

    fn every(&self, step: i64) -> Vec<DateTime<Utc>> {
        let first = self.from.timestamp().div_euclid(step) * step;
        let moments =
            (0..MARKS + 2).filter_map(|number| DateTime::from_timestamp(first + number * step, 0));
        moments.filter(|moment| self.holds(*moment)).collect()
    }

    fn months(&self) -> Vec<DateTime<Utc>> {
        let months = self.length().num_days() / 30;
        let step = MONTHS
            .into_iter()
            .find(|step| months / i64::from(*step) < MARKS)
            .unwrap_or(MONTHS[MONTHS.len() - 1]);
        let first = NaiveDate::from_ymd_opt(self.from.year(), 1, 1).unwrap_or_default();
        let month = |number: u32| first.checked_add_months(Months::new(number * step));
        let moments = (0..)
            .map_while(month)
            .map(|date| date.and_time(chrono::NaiveTime::MIN).and_utc());
        moments
            .take_while(|moment| *moment <= self.until)
            .filter(|moment| self.holds(*moment))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn span(from: &str, until: &str) -> Span {
        Span::between(at(from), at(until))
    }

    #[test]
    fn marks_are_round_and_not_too_many() {
        let labels = |from: &str, until: &str| -> Vec<String> {
            span(from, until)
                .ticks()
                .into_iter()
                .map(|tick| tick.label)
                .collect()
        };
        assert_eq!(
            labels("2026-01-31T03:00:00Z", "2026-01-31T03:00:03Z"),
            ["03:00:00", "03:00:01", "03:00:02", "03:00:03"]
        );
        assert_eq!(
            labels("2026-01-31T22:10:00Z", "2026-02-01T02:10:00Z"),
            ["23:00", "00:00", "01:00", "02:00"]
        );
        assert_eq!(
            labels("2026-01-29T12:00:00Z", "2026-02-04T12:00:00Z"),
            ["Jan 30", "Jan 31", "Feb 1", "Feb 2", "Feb 3", "Feb 4"]
        );
        assert_eq!(
            labels("2025-12-15T00:00:00Z", "2026-05-15T00:00:00Z"),
            ["Jan 2026", "Feb 2026", "Mar 2026", "Apr 2026", "May 2026"]
        );
        for days in (1..9000).chain([20_000, 40_000, 80_000]) {
            let from = at("2020-02-29T01:02:03Z");
            let count = Span::between(from, from + TimeDelta::days(days))
                .ticks()
                .len();
            assert!((2..=9).contains(&count), "{count} marks for {days} days");
        }
    }

    #[test]
    fn a_new_day_is_named_at_its_first_mark() {
        let days = |ticks: Vec<Tick>| -> Vec<Option<String>> {
            ticks.into_iter().map(|tick| tick.day).collect()
        };
        let of_night = span("2026-01-31T22:10:00Z", "2026-02-01T02:10:00Z").ticks();
        assert_eq!(
            days(of_night),
            [Some("Jan 31".into()), Some("Feb 1".into()), None, None]
        );
    }

    #[test]
    fn zooming_keeps_the_middle_and_ends_at_all_there_is() {
        let all = span("2026-01-01T00:00:00Z", "2026-01-09T00:00:00Z");
        let closer = all.closer(None);
        assert_eq!(closer, span("2026-01-03T00:00:00Z", "2026-01-07T00:00:00Z"));
        assert_eq!(closer.wider(&all), all);
        assert_eq!(closer.earlier().later(), closer);
        assert_eq!(
            all.closer(Some(at("2026-01-02T00:00:00Z"))),
            span("2025-12-31T00:00:00Z", "2026-01-04T00:00:00Z")
        );
        let mut least = all;
        (0..60).for_each(|_| least = least.closer(None));
        assert_eq!(least.length(), TimeDelta::seconds(1));
    }

    #[test]
    fn moments_beyond_all_calendars_are_cut() {
        let all = Span::between(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        assert_eq!(all.from, DateTime::UNIX_EPOCH);
        assert!(!all.ticks().is_empty() && all.later().until > all.from && all.wider(&all) == all);
        let none = Span::around(std::iter::empty(), at("2026-01-31T03:00:00Z"));
        assert!(
            none.holds(at("2026-01-31T03:00:00Z")) && (none.place(none.until) - 100.0).abs() < 1e-9
        );
    }
}
