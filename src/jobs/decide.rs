//! What is due. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::known::WRONG_CLOCK;
use super::record::{Memory, Purpose};
use super::schedule::Schedule;

/// Missed moments are counted up to this.
const MOST_MISSED: usize = 1000;

/// When a job is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    Now(Purpose),
    At(DateTime<Utc>),
    /// What failed is tried again then.
    Retry(DateTime<Utc>),
    /// It has no schedule.
    Never,
}

/// Decides for a host by what the runners remember, which the store took at `stored_at` by its clock, at `now` by one's
/// own.
///
/// What was missed is caught up once, by the newest moment. Moments count that are later than the runners have known the
/// expression, and those of the expression before it until then: a change makes nothing due, and forgets nothing.
pub fn due(
    schedule: Option<&Schedule>,
    memory: &Memory,
    stored_at: DateTime<Utc>,
    now: DateTime<Utc>,
    host: &str,
) -> Due {
    let Some(schedule) = schedule else {
        return Due::Never;
    };
    // A clock that was ahead must not keep the job from running until that time has come.
    let right = |time: DateTime<Utc>| match time > now + WRONG_CLOCK {
        true => stored_at.min(now),
        false => time,
    };
    let (settled, since) = (
        right(memory.settled),
        right(memory.schedules.since(schedule).unwrap_or(now)),
    );
    let of_others = memory
        .schedules
        .others(schedule)
        .filter_map(|(other, from)| {
            let last = other.last_until(since, now)?;
            (last > settled.max(right(from))).then_some(last)
        });
    let of_others = of_others.max();
    let from = settled.max(since);
    let last = schedule.last_begun(now).filter(|last| *last > from);
    let coming = schedule
        .next_begin(now)
        .map(|moment| schedule.begin_of(moment));
    let Some(scheduled) = last.or(of_others) else {
        return coming.map_or(Due::Never, Due::At);
    };
    let retry = memory.retry.as_ref();
    let retry = retry.filter(|retry| retry.scheduled == scheduled);
    if let Some(at) = retry.map(|retry| retry.not_before(host))
        && now < at
        && at <= now + TimeDelta::days(1)
    {
        return match coming {
            Some(begin) if begin < at => Due::At(begin),
            _ => Due::Retry(at),
        };
    }
    let all = schedule.count(from, scheduled, MOST_MISSED) + usize::from(of_others.is_some());
    Due::Now(Purpose {
        scheduled: Some(scheduled),
        missed: u32::try_from(all.max(1) - 1).unwrap_or(u32::MAX),
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

    /// Known as long as anything is.
    fn knowing(memory: &Memory) -> Memory {
        memory.knowing(&hourly(), at(0)).unwrap()
    }

    fn decide(memory: &Memory, minutes: i64) -> Due {
        let memory = knowing(memory);
        due(Some(&hourly()), &memory, memory.settled, at(minutes), "b")
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
        assert_eq!(due(None, &memory, at(0), at(61), "b"), Due::Never);
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
        assert_eq!(decide(&failed(1), 62), Due::Retry(at(81)));
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
        let memory = knowing(&memory);
        let decide = |minutes| due(Some(&hourly()), &memory, at(630), at(minutes), "b");
        assert_eq!(decide(650), Due::At(at(660)));
        assert_eq!(decide(661), now(660, 0, 1));
        // A little is what clocks differ by: the run at 11:00 was made.
        let memory = Memory {
            settled: at(660),
            ..Memory::new(at(0))
        };
        let memory = knowing(&memory);
        let decide = |minutes| due(Some(&hourly()), &memory, at(655), at(minutes), "b");
        assert_eq!(decide(656), Due::At(at(660)));
        assert_eq!(decide(661), Due::At(at(720)));
    }

    #[test]
    fn a_pause_set_by_a_wrong_clock_is_not_waited_for() {
        let mut memory = Memory::new(at(30));
        memory.retry = Some(super::super::record::Retry {
            scheduled: at(60),
            attempts: 1,
            not_before: at(60 * 24 * 100),
            host: String::new(),
            host_not_before: None,
        });
        assert_eq!(decide(&memory, 62), now(60, 0, 2));
    }

    #[test]
    fn where_a_run_failed_another_host_goes_first() {
        let policy = RetryPolicy {
            retries: 2,
            after: Duration::from_secs(20 * 60),
        };
        let run = record(RunState::Failed, Some(at(60)), 1);
        let memory = knowing(&Memory::new(at(30)).after(&run, policy));
        let decide = |minutes, host| due(Some(&hourly()), &memory, at(60), at(minutes), host);
        assert_eq!(decide(81, &run.host), Due::Retry(at(82)));
        assert_eq!(decide(81, "b"), now(60, 0, 2));
        assert_eq!(decide(82, &run.host), now(60, 0, 2));
    }

    fn each_half() -> Schedule {
        hourly().like("30 * * * *".parse().unwrap(), "UTC".parse().unwrap())
    }

    /// What is due by the half hours, which came at a moment.
    fn changed(memory: &Memory, came: i64, minutes: i64) -> Due {
        let memory = memory.knowing(&each_half(), at(came)).unwrap();
        due(Some(&each_half()), &memory, at(came), at(minutes), "b")
    }

    #[test]
    fn a_schedule_that_is_new_or_has_changed_makes_nothing_due() {
        // Seen long ago without one, as by a run that somebody asked for.
        let asked_for = Memory::new(at(0));
        assert_eq!(changed(&asked_for, 500, 500), Due::At(at(510)));
        assert_eq!(changed(&asked_for, 500, 511), now(510, 0, 1));
        let hourly_until = Memory {
            settled: at(480),
            ..knowing(&Memory::new(at(30)))
        };
        assert_eq!(
            changed(&hourly_until, 535, 535),
            Due::At(at(570)),
            "not 510"
        );
        assert_eq!(changed(&hourly_until, 535, 571), now(570, 0, 1), "nor 540");
        assert_eq!(changed(&hourly_until, 535, 640), now(630, 1, 1));
    }

    #[test]
    fn what_was_due_before_a_change_is_caught_up_once() {
        let missed = Memory {
            settled: at(420),
            ..knowing(&Memory::new(at(30)))
        };
        assert_eq!(changed(&missed, 500, 500), now(480, 0, 1));
        assert_eq!(changed(&missed, 500, 511), now(510, 1, 1), "by the newest");
        let done = missed.knowing(&each_half(), at(500)).unwrap();
        let done = Memory {
            settled: at(480),
            ..done
        };
        let decide =
            |schedule: &Schedule, minutes| due(Some(schedule), &done, at(500), at(minutes), "b");
        assert_eq!(decide(&each_half(), 501), Due::At(at(510)));
        // A runner with the expression from before does what that says.
        assert_eq!(decide(&hourly(), 539), Due::At(at(540)));
        assert_eq!(decide(&hourly(), 541), now(540, 0, 1));
    }

    #[test]
    fn a_failure_before_a_change_keeps_its_attempts() {
        let policy = RetryPolicy {
            retries: 2,
            after: Duration::from_secs(20 * 60),
        };
        let failed = knowing(&Memory::new(at(430)));
        let failed = failed.after(&record(RunState::Failed, Some(at(480)), 1), policy);
        assert_eq!(changed(&failed, 490, 490), Due::Retry(at(501)));
        assert_eq!(changed(&failed, 490, 502), now(480, 0, 2));
    }
}
