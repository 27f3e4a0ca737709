//! How jobs stand, for all who show it. Pure.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::decide::Due;
use super::job::Job;
use super::lease::Holder;
use super::record::{Memory, Purpose, RunId, RunSummary};

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
        let coming = |schedule: &super::schedule::Schedule| {
            Some(schedule.begin_of(schedule.next_begin(now)?))
        };
        let next = match due {
            // It is being done.
            Due::Now(_) if holder.is_some() => schedule.and_then(coming),
            Due::Now(purpose) => schedule
                .zip(purpose.scheduled)
                .map(|(schedule, moment)| schedule.begin_of(moment)),
            Due::At(time) => Some(*time),
            Due::Never => None,
        };
        Self {
            job: job.name.to_string(),
            cron: schedule.map(|schedule| schedule.cron().to_string()),
            time_zone: schedule.map(|schedule| schedule.zone().to_string()),
            next,
            running: holder.map(RunningRun::from),
            last: memory.last.clone(),
            last_success: memory.last_success.clone(),
            failures_in_a_row: memory.failures,
        }
    }
}
