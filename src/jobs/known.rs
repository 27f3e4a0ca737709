//! Which expressions a job's runners go by, and since when: a new one has missed nothing. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::schedule::Schedule;

/// A runner's clock that is so far ahead is wrong.
pub const WRONG_CLOCK: TimeDelta = TimeDelta::hours(1);
/// An expression that no runner had for so long, while others had another one, is new when it comes again.
const FORGOTTEN: TimeDelta = TimeDelta::days(1);
/// Where several are in use, each runner says so often that its own is.
const SAY_AGAIN: TimeDelta = TimeDelta::hours(1);
/// More are no runners' of one job.
const MOST: usize = 8;

/// An expression that runners of a job go by. Where their configurations differ there are several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSchedule {
    pub cron: String,
    pub time_zone: String,
    /// Its moments count from then on.
    pub since: DateTime<Utc>,
    /// When a runner had it; kept up only where there are several.
    pub seen: DateTime<Utc>,
}

impl KnownSchedule {
    fn is(&self, schedule: &Schedule) -> bool {
        self.cron == schedule.cron().to_string() && self.time_zone == schedule.zone().to_string()
    }
}

/// The expressions that runners of a job go by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownSchedules(Vec<KnownSchedule>);

impl KnownSchedules {
    /// With what a runner goes by at `now`, where all is dealt with until `settled`. `None`: that is known.
    pub fn with(
        &self,
        schedule: &Schedule,
        settled: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let (own, others): (Vec<_>, Vec<_>) =
            self.0.iter().cloned().partition(|known| known.is(schedule));
        let is_clock_right = |known: &&KnownSchedule| known.seen <= now + WRONG_CLOCK;
        let last_seen = others
            .iter()
            .filter(is_clock_right)
            .map(|other| other.seen)
            .max();
        let own = own
            .into_iter()
            .next()
            .filter(|own| last_seen.is_none_or(|seen| seen <= own.seen + FORGOTTEN));
        let says_enough = |own: &KnownSchedule| last_seen.is_none() || now < own.seen + SAY_AGAIN;
        if own.as_ref().is_some_and(says_enough) {
            return None;
        }
        let own = match own {
            Some(own) => KnownSchedule { seen: now, ..own },
            None => KnownSchedule {
                cron: schedule.cron().to_string(),
                time_zone: schedule.zone().to_string(),
                since: now,
                seen: now,
            },
        };
        let is_sole = others.len() == 1;
        let mut schedules = others;
        if own.since == now && is_sole {
            // Until now there was nothing to keep up.
            schedules.iter_mut().for_each(|other| other.seen = now);
        }
        // What was due by an earlier one before this one came counts until something is settled after it.
        let is_over = |other: &KnownSchedule| other.seen + FORGOTTEN < now && own.since <= settled;
        schedules.retain(|other| !is_over(other));
        schedules.push(own);
        let surplus = schedules.len().saturating_sub(MOST);
        schedules.drain(..surplus);
        Some(Self(schedules))
    }

    /// Since when the moments of a schedule count, if it is known.
    pub fn since(&self, schedule: &Schedule) -> Option<DateTime<Utc>> {
        let mut known = self.0.iter();
        known
            .find(|known| known.is(schedule))
            .map(|known| known.since)
    }

    /// The other expressions, put off as this one is, and since when each counts.
    pub fn others(&self, schedule: &Schedule) -> impl Iterator<Item = (Schedule, DateTime<Utc>)> {
        let others = self.0.iter().filter(|known| !known.is(schedule));
        others.filter_map(|known| {
            let like = schedule.like(known.cron.parse().ok()?, known.time_zone.parse().ok()?);
            Some((like, known.since))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    fn schedule(cron: &str) -> Schedule {
        Schedule::new(
            cron.parse().unwrap(),
            "UTC".parse().unwrap(),
            Duration::ZERO,
        )
    }

    fn with(known: &KnownSchedules, schedule: &Schedule, hour: i64) -> Option<KnownSchedules> {
        known.with(schedule, at(0), at(hour))
    }

    /// After each of these looked.
    fn looked(looks: &[(&Schedule, i64)]) -> KnownSchedules {
        let mut known = KnownSchedules::default();
        for (schedule, hour) in looks {
            known = with(&known, schedule, *hour).unwrap_or(known);
        }
        known
    }

    #[test]
    fn the_only_expression_is_noted_once() {
        let daily = schedule("0 2 * * *");
        let known = looked(&[(&daily, 5)]);
        assert_eq!(known.since(&daily), Some(at(5)));
        assert_eq!(with(&known, &daily, 5000), None);
        let elsewhere = Schedule::new(
            "0 2 * * *".parse().unwrap(),
            "Asia/Tokyo".parse().unwrap(),
            Duration::ZERO,
        );
        assert_eq!(known.since(&elsewhere), None, "another zone is another one");
    }

    #[test]
    fn an_expression_that_was_given_up_is_new_when_it_comes_again() {
        let (daily, weekly) = (schedule("0 2 * * *"), schedule("0 3 * * 0"));
        let known = looked(&[(&daily, 0), (&weekly, 500), (&weekly, 530), (&daily, 560)]);
        assert_eq!(
            (known.since(&daily), known.since(&weekly)),
            (Some(at(560)), Some(at(500)))
        );
    }

    #[test]
    fn runners_with_different_expressions_keep_theirs() {
        let (daily, weekly) = (schedule("0 2 * * *"), schedule("0 3 * * 0"));
        let looks: Vec<_> = (0..200)
            .map(|n| (if n % 2 == 0 { &daily } else { &weekly }, 300 + n))
            .collect();
        let known = looked(&looks);
        assert_eq!(
            (known.since(&daily), known.since(&weekly)),
            (Some(at(300)), Some(at(301)))
        );
        assert_eq!(known.0.len(), 2);
    }

    #[test]
    fn no_number_of_expressions_and_no_wrong_clock_is_too_much() {
        let all: Vec<Schedule> = (0..30).map(|n| schedule(&format!("{n} 2 * * *"))).collect();
        let looks: Vec<_> = all.iter().zip(0..).collect();
        assert!(looked(&looks).0.len() <= MOST);
        let (daily, weekly) = (schedule("0 2 * * *"), schedule("0 3 * * 0"));
        let known = looked(&[(&weekly, 1_000_000), (&daily, 10)]);
        assert_eq!(known.since(&daily), Some(at(10)));
        let later = with(&known, &daily, 90).unwrap();
        assert_eq!(later.since(&daily), Some(at(10)), "years ahead: not now");
    }
}
