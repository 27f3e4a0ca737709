//! What is kept of runs. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::known::KnownSchedules;
use super::schedule::Schedule;

/// When a run began, by its runner's clock, and a random part, as `<YYYYMMDDTHHMMSSZ>-<8 hex>`. Names sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "20260131T020000Z-1a2b3c4d")]
pub struct RunId(String);

const SECOND: &str = "%Y%m%dT%H%M%SZ";

impl RunId {
    /// The name of a run that begins at `time`.
    pub fn new(time: DateTime<Utc>, random: u32) -> Self {
        Self(format!("{}-{random:08x}", time.format(SECOND)))
    }

    /// When it began.
    pub fn time(&self) -> DateTime<Utc> {
        let time = self.0.get(..16).unwrap_or_default();
        NaiveDateTime::parse_from_str(time, SECOND)
            .unwrap_or_default()
            .and_utc()
    }

    /// What sorts before all runs that began at `time` or later.
    pub fn from(time: DateTime<Utc>) -> String {
        time.format(SECOND).to_string()
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (time, random) = text.split_once('-')?;
            let time = NaiveDateTime::parse_from_str(time, SECOND).ok()?.and_utc();
            let random = u32::from_str_radix(random, 16).ok()?;
            Some(Self::new(time, random)).filter(|id| id.0 == text)
        };
        parsed().ok_or_else(|| {
            format!("\"{text}\" is no run: expected YYYYMMDDTHHMMSSZ-<8 hexadecimal digits>, as `walden jobs list` shows")
        })
    }
}

impl TryFrom<String> for RunId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    Succeeded,
    Failed,
    Cancelled,
    /// It took longer than its deadline.
    TimedOut,
    /// Its runner died or lost its lease.
    Interrupted,
    /// Its runner was told to end.
    Stopped,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed out",
            Self::Interrupted => "interrupted",
            Self::Stopped => "stopped",
        })
    }
}

/// What a run is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Purpose {
    /// The moment of the schedule; absent when somebody asked for the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scheduled: Option<DateTime<Utc>>,
    /// Earlier moments that nobody ran for; this run is for them, too.
    #[serde(default)]
    pub missed: u32,
    /// From 1; higher when runs for the same moment failed.
    pub attempt: u32,
}

impl Purpose {
    /// Somebody asked for it.
    pub fn asked_for() -> Self {
        Self {
            scheduled: None,
            missed: 0,
            attempt: 1,
        }
    }
}

/// All that is kept of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunRecord {
    pub format: u32,
    pub id: RunId,
    pub job: String,
    pub state: RunState,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub why: Option<String>,
    #[serde(flatten)]
    pub purpose: Purpose,
    pub started_at: DateTime<Utc>,
    /// By the clock of whoever wrote this.
    pub ended_at: DateTime<Utc>,
    pub host: String,
    pub pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub exit_code: Option<i32>,
    /// The end of what it printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub output: Option<String>,
}

/// What is remembered of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    pub id: RunId,
    pub state: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub why: Option<String>,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
}

impl From<&RunRecord> for RunSummary {
    fn from(record: &RunRecord) -> Self {
        Self {
            id: record.id.clone(),
            state: record.state,
            why: record.why.clone(),
            started_at: record.started_at,
            ended_at: record.ended_at,
        }
    }
}

/// A moment for which runs failed, and which is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    pub scheduled: DateTime<Utc>,
    /// Runs that failed.
    pub attempts: u32,
    pub not_before: DateTime<Utc>,
    /// Where the last one failed: perhaps another one can do it, and goes first.
    #[serde(default)]
    pub host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_not_before: Option<DateTime<Utc>>,
}

impl Retry {
    /// When a host may try again.
    pub fn not_before(&self, host: &str) -> DateTime<Utc> {
        let own = self.host_not_before.filter(|_| self.host == host);
        own.unwrap_or(self.not_before)
    }
}

/// How often what failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    pub retries: u32,
    pub after: Duration,
}

/// Exit codes of verbs that another try does not change: wrong usage, damage or gaps, a refusal.
pub const LASTING: [i32; 3] = [2, 3, 4];
/// How much longer the host waits where a run failed.
const OTHERS_FIRST: Duration = Duration::from_secs(60);

/// What a job's runners tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Moments of the schedule up to here are dealt with.
    pub settled: DateTime<Utc>,
    /// What the runners go by.
    #[serde(default)]
    pub schedules: KnownSchedules,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Runs in a row that failed; those that somebody ended do not count.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<RunSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<RunSummary>,
}

impl Memory {
    /// Of a job that nobody saw before `time`: what was due earlier is not missed.
    pub fn new(time: DateTime<Utc>) -> Self {
        Self {
            settled: time,
            schedules: KnownSchedules::default(),
            retry: None,
            failures: 0,
            last: None,
            last_success: None,
        }
    }

    /// With what a runner goes by at `now`. `None`: that is known.
    pub fn knowing(&self, schedule: &Schedule, now: DateTime<Utc>) -> Option<Self> {
        let schedules = self.schedules.with(schedule, self.settled, now)?;
        Some(Self {
            schedules,
            ..self.clone()
        })
    }

    /// After a run has ended.
    pub fn after(&self, record: &RunRecord, policy: RetryPolicy) -> Self {
        let mut memory = self.clone();
        memory.last = Some(record.into());
        memory.failures = match record.state {
            RunState::Succeeded => 0,
            RunState::Cancelled | RunState::Stopped => self.failures,
            _ => self.failures.saturating_add(1),
        };
        if record.state == RunState::Succeeded {
            memory.last_success = Some(record.into());
        }
        let Some(scheduled) = record.purpose.scheduled else {
            return memory;
        };
        let is_done = matches!(record.state, RunState::Succeeded | RunState::Cancelled);
        let is_lasting = record.exit_code.is_some_and(|code| LASTING.contains(&code));
        let is_over = is_done || is_lasting || record.purpose.attempt > policy.retries;
        if record.state == RunState::Stopped {
            // As if it had not begun: whoever comes next does it.
            memory.retry = self.retry.clone();
        } else if is_over {
            memory.settled = scheduled;
            memory.retry = None;
        } else {
            let after = |span| record.ended_at + TimeDelta::from_std(span).unwrap_or_default();
            let others_first = policy.after.min(OTHERS_FIRST);
            memory.retry = Some(Retry {
                scheduled,
                attempts: record.purpose.attempt,
                not_before: after(policy.after),
                host: record.host.clone(),
                host_not_before: Some(after(policy.after + others_first)),
            });
        }
        memory
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A record of a run for a moment.
    pub fn record(state: RunState, scheduled: Option<DateTime<Utc>>, attempt: u32) -> RunRecord {
        let started_at = scheduled.unwrap_or_default();
        RunRecord {
            format: 1,
            id: RunId::new(started_at, attempt),
            job: "backup".into(),
            state,
            why: None,
            purpose: Purpose {
                scheduled,
                missed: 0,
                attempt,
            },
            started_at,
            ended_at: started_at + TimeDelta::minutes(1),
            host: "a".into(),
            pid: 1,
            exit_code: None,
            output: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::record;
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        retries: 1,
        after: Duration::from_secs(600),
    };

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    #[test]
    fn a_run_is_named_by_its_time() {
        let id = RunId::new(at(30), 0x1a2b);
        assert_eq!(id.to_string(), "19700102T060000Z-00001a2b");
        assert_eq!(
            (id.to_string().parse(), id.time()),
            (Ok(id.clone()), at(30))
        );
        assert!(RunId::from(at(30)) < id.to_string() && RunId::from(at(31)) > id.to_string());
        for wrong in [
            "",
            "20260131T020000Z",
            "20260131T020000Z-1A2B3C4D",
            "20260131T020000Z-1a2b3c4d5",
            "x-1a2b3c4d",
        ] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_succeeded_or_was_cancelled_is_settled_and_what_failed_is_tried_again() {
        let memory = Memory::new(at(0));
        let done = memory.after(&record(RunState::Succeeded, Some(at(1)), 1), POLICY);
        assert_eq!(
            (done.settled, done.failures, &done.retry),
            (at(1), 0, &None)
        );
        assert_eq!(done.last, done.last_success);
        let failed = done.after(&record(RunState::Failed, Some(at(2)), 1), POLICY);
        assert_eq!((failed.settled, failed.failures), (at(1), 1));
        let retry = failed.retry.clone().unwrap();
        assert_eq!((retry.scheduled, retry.attempts), (at(2), 1));
        assert_eq!(retry.not_before("b"), at(2) + TimeDelta::minutes(11));
        assert_eq!(retry.not_before("a"), at(2) + TimeDelta::minutes(12));
        let again = failed.after(&record(RunState::TimedOut, Some(at(2)), 2), POLICY);
        assert_eq!(
            (again.settled, again.failures, &again.retry),
            (at(2), 2, &None),
            "given up"
        );
        assert_eq!(again.last_success, done.last_success);
        let cancelled = again.after(&record(RunState::Cancelled, Some(at(3)), 1), POLICY);
        assert_eq!((cancelled.settled, cancelled.failures), (at(3), 2));
        let stopped = failed.after(&record(RunState::Stopped, Some(at(2)), 2), POLICY);
        assert_eq!(
            (stopped.settled, stopped.failures, stopped.retry),
            (at(1), 1, failed.retry)
        );
    }

    #[test]
    fn what_another_try_does_not_change_is_not_tried_again() {
        for (code, is_over) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
            let failed = RunRecord {
                exit_code: Some(code),
                ..record(RunState::Failed, Some(at(1)), 1)
            };
            let memory = Memory::new(at(0)).after(&failed, POLICY);
            let told = (
                memory.retry.is_none(),
                memory.settled == at(1),
                memory.failures,
            );
            assert_eq!(told, (is_over, is_over, 1), "{code}");
        }
    }

    #[test]
    fn a_run_that_was_asked_for_settles_nothing() {
        let memory = Memory::new(at(0)).after(&record(RunState::Failed, None, 1), POLICY);
        assert_eq!(
            (memory.settled, memory.failures, memory.retry),
            (at(0), 1, None)
        );
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = record(RunState::TimedOut, Some(at(1)), 2);
        let text = serde_json::to_string(&record).unwrap();
        assert!(
            text.contains("\"timed-out\"") && text.contains("\"attempt\":2"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<RunRecord>(&text).unwrap(), record);
    }
}
