//! How jobs stand, for all who show it. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::decide::Due;
use super::job::Job;
use super::lease::Holder;
use super::record::{Memory, Purpose, RunId, RunSummary};
use super::schedule::Schedule;

/// A run may take so long until what an earlier one made counts as out of date.
const GRACE: TimeDelta = TimeDelta::hours(1);

/// A run under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RunningRun {
    pub id: RunId,
    #[serde(flatten)]
    pub purpose: Purpose,
    pub started_at: DateTime<Utc>,
    pub host: String,
    pub pid: u32,
}

impl From<&Holder> for RunningRun {
    fn from(holder: &Holder) -> Self {
        Self {
            id: holder.run.clone(),
            purpose: holder.purpose.clone(),
            started_at: holder.started_at,
            host: holder.host.clone(),
            pid: holder.pid,
        }
    }
}

/// A job, its last and its next run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobStatus {
    #[schema(example = "backup")]
    pub job: String,
    /// `null`: it runs only when it is asked for.
    #[schema(example = "0 2 * * 0")]
    pub cron: Option<String>,
    #[schema(example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// When the next run begins; in the past when it is due.
    pub next: Option<DateTime<Utc>>,
    /// When the first run that nobody made was to begin; `null` when nothing is due.
    pub due_since: Option<DateTime<Utc>>,
    /// It is scheduled, and no runner has looked after it since: nobody may ever.
    pub unattended: bool,
    /// What the job made earlier is out of date: two moments of its schedule and an hour have passed since.
    pub stale_before: Option<DateTime<Utc>>,
    pub running: Option<RunningRun>,
    pub last: Option<RunSummary>,
    pub last_success: Option<RunSummary>,
    /// Runs in a row that failed; those that somebody ended do not count.
    pub failures_in_a_row: u32,
}

impl JobStatus {
    /// Of what its runners remember, and what is due.
    pub fn of(
        job: &Job,
        holder: Option<&Holder>,
        memory: &Memory,
        due: &Due,
        now: DateTime<Utc>,
    ) -> Self {
        let schedule = job.schedule.as_ref();
        let coming = |schedule: &Schedule| Some(schedule.begin_of(schedule.next_begin(now)?));
        let next = match due {
            // It is being done.
            Due::Now(_) if holder.is_some() => schedule.and_then(coming),
            Due::Now(purpose) => schedule
                .zip(purpose.scheduled)
                .map(|(schedule, moment)| schedule.begin_of(moment)),
            Due::At(time) | Due::Retry(time) => Some(*time),
            Due::Never => None,
        };
        let is_due = matches!(due, Due::Now(_)) && holder.is_none();
        let missed = |schedule: &Schedule| {
            let known = memory.schedules.since(schedule);
            let from = known.map_or(memory.settled, |since| since.max(memory.settled));
            let first = schedule.next_after(from)?;
            Some(schedule.begin_of(first).min(next?))
        };
        let stale = |schedule: &Schedule| {
            let last = schedule.last_begun(now - GRACE)?;
            schedule.last_begun(schedule.begin_of(last) - TimeDelta::seconds(1))
        };
        Self {
            job: job.name.to_string(),
            cron: schedule.map(|schedule| schedule.cron().to_string()),
            time_zone: schedule.map(|schedule| schedule.zone().to_string()),
            next,
            due_since: schedule.filter(|_| is_due).and_then(missed),
            // Only who looks now goes by this schedule.
            unattended: schedule
                .is_some_and(|schedule| memory.schedules.since(schedule) == Some(now)),
            stale_before: schedule.and_then(stale),
            running: holder.map(RunningRun::from),
            last: memory.last.clone(),
            last_success: memory.last_success.clone(),
            failures_in_a_row: memory.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::decide::due;
    use super::super::job::Lane;
    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    #[test]
    fn what_is_due_is_told_since_its_first_moment_and_what_is_stale_by_two() {
        let schedule = |cron: &str| {
            let (cron, zone) = (cron.parse().unwrap(), "UTC".parse().unwrap());
            Schedule::new(cron, zone, Duration::from_secs(300))
        };
        let job = Job {
            name: "dump",
            schedule: Some(schedule("0 * * * *")),
            lane: Lane::Short,
            deadline: Duration::ZERO,
            arguments: Ok(Vec::new()),
        };
        let status = |settled: i64, now: i64| {
            let (memory, now) = (Memory::new(at(settled)), at(now));
            let schedule = job.schedule.as_ref();
            // Known for less long than what was settled.
            let memory = memory.knowing(schedule.unwrap(), at(500)).unwrap();
            let due = due(schedule, &memory, at(settled), now, "a");
            JobStatus::of(&job, None, &memory, &due, now)
        };
        let (idle, late) = (status(600, 650), status(600, 790));
        assert_eq!((idle.due_since, idle.next), (None, Some(at(665))));
        assert_eq!((late.due_since, late.next), (Some(at(665)), Some(at(785))));
        assert_eq!(
            late.stale_before,
            Some(at(660)),
            "11:00 and 12:00 count, not 13:00"
        );
        assert_eq!(status(600, 784).stale_before, Some(at(600)));
        // What was before the schedule is not due.
        assert_eq!(status(0, 700).due_since, Some(at(545)));
    }
}
