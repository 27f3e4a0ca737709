//! What is due. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::record::{Memory, Purpose};
use super::schedule::Schedule;

/// Missed moments are counted up to this.
const MOST_MISSED: usize = 1000;
/// A runner's clock that is so far ahead is wrong.
const WRONG_CLOCK: TimeDelta = TimeDelta::hours(1);

/// When a job is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    Now(Purpose),
    At(DateTime<Utc>),
    /// It has no schedule.
    Never,
}

/// Decides by what the runners remember, which the store took at `stored_at` by its clock, at `now` by one's own.
///
/// What was missed is caught up once, by the newest moment.
pub fn due(
    schedule: Option<&Schedule>,
    memory: &Memory,
    stored_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Due {
    let Some(schedule) = schedule else {
        return Due::Never;
    };
    // A clock that was ahead must not keep the job from running until that time has come.
    let settled = match memory.settled > now + WRONG_CLOCK {
        true => stored_at.min(now),
        false => memory.settled,
    };
    let coming = || match schedule.next_begin(now) {
        Some(moment) => Due::At(schedule.begin_of(moment)),
        None => Due::Never,
    };
    let Some(scheduled) = schedule.last_begun(now).filter(|last| *last > settled) else {
        return coming();
    };
    let retry = memory.retry.as_ref();
    let retry = retry.filter(|retry| retry.scheduled == scheduled);
    if let Some(retry) = retry
        && now < retry.not_before
        && retry.not_before <= now + TimeDelta::days(1)
    {
        return match coming() {
            Due::At(begin) => Due::At(begin.min(retry.not_before)),
            _ => Due::At(retry.not_before),
        };
    }
    let missed = schedule.count(settled, scheduled, MOST_MISSED).max(1) - 1;
    Due::Now(Purpose {
        scheduled: Some(scheduled),
        missed: u32::try_from(missed).unwrap_or(u32::MAX),
        attempt: retry.map_or(0, |retry| retry.attempts) + 1,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::testing::record;
    use super::super::record::{RetryPolicy, RunState};
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn hourly() -> Schedule {
        Schedule::new(
            "0 * * * *".parse().unwrap(),
            "UTC".parse().unwrap(),
            Duration::ZERO,
        )
    }

    fn decide(memory: &Memory, minutes: i64) -> Due {
        due(Some(&hourly()), memory, memory.settled, at(minutes))
    }

    fn now(scheduled: i64, missed: u32, attempt: u32) -> Due {
        Due::Now(Purpose {
            scheduled: Some(at(scheduled)),
            missed,
            attempt,
        })
    }

    #[test]
    fn a_moment_is_due_once() {
        let mut memory = Memory::new(at(30));
        assert_eq!(decide(&memory, 59), Due::At(at(60)));
        assert_eq!(decide(&memory, 60), now(60, 0, 1));
        assert_eq!(decide(&memory, 100), now(60, 0, 1));
        memory.settled = at(60);
        assert_eq!(decide(&memory, 61), Due::At(at(120)));
        assert_eq!(due(None, &memory, at(0), at(61)), Due::Never);
    }

    #[test]
    fn what_was_missed_is_caught_up_once() {
        assert_eq!(
            decide(&Memory::new(at(30)), 60 * 24 + 5),
            now(60 * 24, 23, 1)
        );
        let memory = Memory {
            settled: at(60 * 24),
            ..Memory::new(at(30))
        };
        assert_eq!(decide(&memory, 60 * 24 + 6), Due::At(at(60 * 25)));
    }

    #[test]
    fn a_failure_is_tried_again_after_its_pause_or_with_the_next_moment() {
        let policy = RetryPolicy {
            retries: 2,
            after: Duration::from_secs(20 * 60),
        };
        let failed = |attempt| {
            let run = record(RunState::Failed, Some(at(60)), attempt);
            Memory::new(at(30)).after(&run, policy)
        };
        assert_eq!(decide(&failed(1), 62), Due::At(at(81)));
        assert_eq!(decide(&failed(1), 81), now(60, 0, 2));
        assert_eq!(
            decide(&failed(2), 120),
            now(120, 1, 1),
            "the next one has its own attempts"
        );
        assert_eq!(decide(&failed(3), 81), Due::At(at(120)), "given up");
        let slow = RetryPolicy {
            after: Duration::from_secs(3 * 3600),
            ..policy
        };
        let memory = Memory::new(at(30)).after(&record(RunState::Failed, Some(at(60)), 1), slow);
        assert_eq!(decide(&memory, 62), Due::At(at(120)));
    }

    #[test]
    fn a_clock_that_was_years_ahead_stops_nothing() {
        let memory = Memory {
            settled: at(60 * 24 * 365),
            ..Memory::new(at(0))
        };
        // By the store's clock that was at 10:30.
        let decide = |minutes| due(Some(&hourly()), &memory, at(630), at(minutes));
        assert_eq!(decide(650), Due::At(at(660)));
        assert_eq!(decide(661), now(660, 0, 1));
        // A little is what clocks differ by: the run at 11:00 was made.
        let memory = Memory {
            settled: at(660),
            ..Memory::new(at(0))
        };
        assert_eq!(
            due(Some(&hourly()), &memory, at(655), at(656)),
            Due::At(at(660))
        );
        assert_eq!(
            due(Some(&hourly()), &memory, at(655), at(661)),
            Due::At(at(720))
        );
    }

    #[test]
    fn a_pause_set_by_a_wrong_clock_is_not_waited_for() {
        let mut memory = Memory::new(at(30));
        memory.retry = Some(super::super::record::Retry {
            scheduled: at(60),
            attempts: 1,
            not_before: at(60 * 24 * 100),
        });
        assert_eq!(decide(&memory, 62), now(60, 0, 2));
    }
}
