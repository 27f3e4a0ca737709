//! Judges what is done again and again beside archiving: dumps, jobs, and the room for them.

use std::cmp::Reverse;

use chrono::{DateTime, TimeDelta, Utc};

use super::proof::{self, SeenAct};
use super::{Health, HealthReason, Rule, moment, sizes, words};
use crate::config::Health as Limits;
use crate::postgres::layout::DumpKind;

/// So late a job may begin.
const LATE: TimeDelta = TimeDelta::hours(1);
/// Jobs wait for each other.
const LATE_BESIDE_OTHERS: TimeDelta = TimeDelta::days(1);
/// Of fewer runs no rate is judged: one that failed would break it for a month.
const FEWEST_RUNS: u64 = 20;
/// So often in a row a job may not fail.
const FAILURES: u32 = 3;
/// Percent of a file system's blocks: above, a dump or a backup may find no room.
const DISK_FULL: u64 = 95;
/// More newest dumps are not shown: there may be many databases that were dropped long ago.
const SHOWN: usize = 200;
/// The jobs that make dumps.
const DUMPS: [(&str, DumpKind); 2] = [("dump", DumpKind::Full), ("schema-dump", DumpKind::Schema)];

/// The newest complete dump of all tables of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestDump {
    /// Its name in lists.
    pub id: String,
    pub database: String,
    pub kind: DumpKind,
    /// Of its snapshot.
    pub time: DateTime<Utc>,
    /// Bytes of the dump itself.
    pub bytes: u64,
    /// The same of those before it, the newest first.
    pub earlier: Vec<u64>,
}

impl NewestDump {
    fn size(&self, limits: &Limits) -> Option<HealthReason> {
        let what = format!("dump \"{}\"", self.id);
        let rules = [Rule::DumpSmall, Rule::DumpSize];
        let reason = sizes::judge(
            rules,
            (&what, self.bytes),
            &self.earlier,
            limits.size_change,
        )?;
        Some(reason.of(&format!("{}:{}", self.database, self.kind.as_str())))
    }
}

/// How runs of jobs ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCount {
    pub succeeded: u64,
    /// Also those that took too long, or whose runner died. Those that somebody ended are in neither.
    pub failed: u64,
}

impl RunCount {
    fn judge(&self, limits: &Limits) -> Option<HealthReason> {
        let Self { succeeded, failed } = *self;
        let all = succeeded + failed;
        if all < FEWEST_RUNS || succeeded * 100 >= all * limits.success_rate {
            return None;
        }
        let what = format!("{failed} of {all} runs of jobs failed in 30 days");
        Some(HealthReason::new(
            Rule::SuccessRateLow,
            what,
            "look with `walden jobs list --runs` what fails",
        ))
    }
}

/// How the jobs stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenJobs {
    pub jobs: Vec<ScheduledJob>,
    /// In 30 days.
    pub runs: RunCount,
}

/// A job that has a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledJob {
    pub name: String,
    /// Runs in a row.
    pub failures: u32,
    /// Why the last run failed.
    pub why: Option<String>,
    pub is_running: bool,
    /// When the last run ended, however.
    pub ended_at: Option<DateTime<Utc>>,
    /// When the last run ended that succeeded.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// The first moment that nobody ran for.
    pub due_since: Option<DateTime<Utc>>,
    /// No runner has looked after it yet.
    pub unattended: bool,
    /// What it made earlier is out of date.
    pub stale_before: Option<DateTime<Utc>>,
}

/// How full a file system is, as df counts: what only root may use is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUse {
    pub used_bytes: u64,
    pub free_bytes: u64,
}

impl DiskUse {
    /// Rounded up.
    pub fn percent(&self) -> u64 {
        let used = u128::from(self.used_bytes);
        let all = (used + u128::from(self.free_bytes)).max(1);
        u64::try_from((used * 100).div_ceil(all)).unwrap_or(100)
    }

    /// What is not good about it.
    pub fn judge(&self, limits: &Limits) -> Option<HealthReason> {
        let limit = limits.disk_used;
        let rule = match self.percent() {
            percent if percent > limit.max(DISK_FULL) => Rule::DiskFull,
            percent if percent > limit => Rule::DiskUsed,
            _ => return None,
        };
        Some(HealthReason::new(
            rule,
            format!("{self}; health.disk_used is {limit} %"),
            "make room: a larger disk, or a shorter `[retention]`",
        ))
    }
}

impl std::fmt::Display for DiskUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (percent, free) = (self.percent(), self.free_bytes >> 20);
        write!(
            f,
            "the repository's file system is {percent} % full, {free} MiB are free"
        )
    }
}

/// What is done beside archiving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// One for each database and kind.
    pub dumps: Vec<NewestDump>,
    /// When they were looked at; `None`: not yet, or in vain.
    pub dumps_at: Option<DateTime<Utc>>,
    /// Why how they stand is not known.
    pub dumps_unknown: Option<String>,
    pub jobs: Vec<ScheduledJob>,
    /// Why how the jobs stand is not known.
    pub jobs_unknown: Option<String>,
    /// How their runs ended in 30 days.
    pub runs: RunCount,
    /// What left a record.
    pub acts: Vec<SeenAct>,
    /// Whether the records were looked at.
    pub knows_acts: bool,
    /// Why they could not be read.
    pub acts_unknown: Option<String>,
    /// `None`: the repository is in a bucket, or it is not known.
    pub disk: Option<DiskUse>,
    /// Why how full it is, is not known.
    pub disk_unknown: Option<String>,
    /// When the certificate of HTTPS ends; `None`: there is none.
    pub certificate: Option<DateTime<Utc>>,
    /// Why that is not known.
    pub certificate_unknown: Option<String>,
}

impl Upkeep {
    /// The newest dump of a kind, whatever the database.
    pub fn newest(&self, kind: DumpKind) -> Option<&NewestDump> {
        let of_kind = self.dumps.iter().filter(|dump| dump.kind == kind);
        of_kind.max_by_key(|dump| dump.time)
    }

    /// The dumps that are shown, the newest of all, by database; and how many are left out.
    pub fn shown_dumps(&self) -> (Vec<&NewestDump>, u64) {
        let mut shown: Vec<_> = self.dumps.iter().collect();
        shown.sort_by_key(|dump| Reverse(dump.time));
        let left_out = shown.len().saturating_sub(SHOWN);
        shown.truncate(SHOWN);
        shown.sort_by_key(|dump| (&dump.database, dump.kind));
        (shown, left_out as u64)
    }

    /// What is not good.
    pub fn judge(&self, limits: &Limits, now: DateTime<Utc>) -> Vec<HealthReason> {
        let (dumps, jobs, disk) = (&self.dumps_unknown, &self.jobs_unknown, &self.disk_unknown);
        let unknown = [
            (
                Rule::CertificateUnknown,
                "when the HTTPS certificate expires",
                &self.certificate_unknown,
                "look at the file that `http.tls_certificate` names",
            ),
            (
                Rule::ProofUnknown,
                "what was proven",
                &self.acts_unknown,
                "`walden evidence list` tells more",
            ),
            (
                Rule::DumpsUnknown,
                "how the dumps stand",
                dumps,
                "`walden dump list` tells more",
            ),
            (
                Rule::JobsUnknown,
                "how the jobs stand",
                jobs,
                "`walden jobs list` tells more",
            ),
            (
                Rule::DiskUnknown,
                "how full the repository's file system is,",
                disk,
                "is it mounted?",
            ),
        ];
        let unknown = unknown.into_iter().filter_map(|(rule, what, why, next)| {
            let what = format!("{what} is not known: {}", why.as_ref()?);
            Some(HealthReason::new(rule, what, next))
        });
        let jobs = self.jobs.iter();
        let jobs = jobs.flat_map(|job| failed(job).into_iter().chain(self.overdue(job, now)));
        let dumps = DUMPS
            .iter()
            .filter_map(|(job, kind)| self.dump(job, *kind, now));
        let sizes = self.dumps.iter().filter_map(|dump| dump.size(limits));
        let ages = self.dump_ages(limits, now);
        let dumps = dumps.chain(ages).chain(sizes);
        let disk = self.disk.and_then(|disk| disk.judge(limits));
        let runs = self.runs.judge(limits);
        let certificate = self.certificate(limits, now);
        let mut reasons: Vec<_> = unknown
            .chain(jobs)
            .chain(runs)
            .chain(dumps)
            .chain(disk)
            .chain(certificate)
            .collect();
        if self.knows_acts {
            reasons.extend(proof::judge(&self.acts, limits, now));
        }
        reasons
    }

    fn certificate(&self, limits: &Limits, now: DateTime<Utc>) -> Option<HealthReason> {
        let until = self.certificate?;
        let left = until - now;
        let (rule, what) = match left.to_std() {
            Ok(left) if left > limits.certificate => return None,
            Ok(_) => (
                Rule::CertificateExpires,
                format!(
                    "the HTTPS certificate expires in {}: {}",
                    words(left),
                    moment(until)
                ),
            ),
            Err(_) => (
                Rule::CertificateExpired,
                format!("the HTTPS certificate expired: {}", moment(until)),
            ),
        };
        let next = "renew it, then restart `walden serve`, which reads it at start";
        Some(HealthReason::new(rule, what, next))
    }

    /// Of each kind, whatever is scheduled.
    fn dump_ages(&self, limits: &Limits, now: DateTime<Utc>) -> impl Iterator<Item = HealthReason> {
        let limits = [limits.dump_age, limits.schema_dump_age];
        let kinds = DUMPS
            .into_iter()
            .zip(limits)
            .filter(|_| self.dumps_at.is_some());
        kinds.filter_map(move |((name, kind), limit)| {
            let (limit, next) = (limit?, format!("take one: `walden jobs run {name}`"));
            let (rule, what) = match self.newest(kind) {
                Some(newest) if (now - newest.time).to_std().is_ok_and(|age| age > limit) => {
                    let (id, age) = (&newest.id, words(now - newest.time));
                    (
                        Rule::DumpOld,
                        format!("the newest {name} is {age} old: \"{id}\""),
                    )
                }
                Some(_) => return None,
                None => (Rule::NoDump, format!("there is no complete {name}")),
            };
            Some(HealthReason::new(rule, what, next).of(name))
        })
    }

    /// Of all databases: one that was dropped is dumped no more, and one that cannot be dumped fails the job.
    fn dump(&self, job: &str, kind: DumpKind, now: DateTime<Utc>) -> Option<HealthReason> {
        let job = self.jobs.iter().find(|one| one.name == job)?;
        let (name, ended_at, stale_before) = (&job.name, job.ended_at?, job.stale_before?);
        // What it made since then was not seen. A runner's clock may be ahead: that must not silence this for ever.
        if self.dumps_at? < ended_at && ended_at <= now {
            return None;
        }
        let (rule, what) = match self.newest(kind) {
            Some(newest) if newest.time >= stale_before => return None,
            Some(newest) => {
                let (id, age) = (&newest.id, words(now - newest.time));
                let what = format!("the newest dump of job {name} is {age} old: \"{id}\"");
                (Rule::DumpOld, what)
            }
            None => {
                let what = format!("job {name} ran, and there is no complete dump");
                (Rule::NoDump, what)
            }
        };
        let next =
            format!("find out why with `walden jobs list --runs`, then `walden jobs run {name}`");
        Some(HealthReason::new(rule, what, next).of(name))
    }

    fn overdue(&self, job: &ScheduledJob, now: DateTime<Utc>) -> Option<HealthReason> {
        let (name, is_beside) = (&job.name, self.jobs.iter().any(|other| other.is_running));
        let late = match is_beside {
            true => LATE_BESIDE_OTHERS,
            false => LATE,
        };
        let (rule, what) = match job.due_since.filter(|since| now - *since > late) {
            Some(since) => {
                let since = moment(since);
                let what = format!("job {name} is due since {since}, and nobody runs it");
                (Rule::JobOverdue, what)
            }
            // Whoever runs another one comes to it.
            None if job.unattended && !is_beside => {
                let what = format!("nobody has looked after job {name} yet");
                (Rule::JobUnattended, what)
            }
            None => return None,
        };
        let next = "let `walden serve` run, or cron do it: `walden schedule install`";
        Some(HealthReason::new(rule, what, next).of(name))
    }
}

fn failed(job: &ScheduledJob) -> Option<HealthReason> {
    let why = job.why.as_deref().and_then(|why| why.lines().next());
    let (name, why) = (&job.name, why.unwrap_or("why is not known"));
    let (rule, what) = match job.failures {
        0 => return None,
        1 => (Rule::JobFailed, format!("job {name} failed: {why}")),
        times => {
            let rule = match times {
                FAILURES.. => Rule::JobFailsAgain,
                _ => Rule::JobFailed,
            };
            (
                rule,
                format!("job {name} failed {times} times in a row: {why}"),
            )
        }
    };
    let next =
        format!("look with `walden jobs list --runs`, mend it, then `walden jobs run {name}`");
    Some(HealthReason::new(rule, what, next).of(name))
}

impl Health {
    /// Together with what is done beside archiving.
    pub fn with(mut self, upkeep: &Upkeep, limits: &Limits, now: DateTime<Utc>) -> Self {
        self.reasons.extend(upkeep.judge(limits, now));
        self.reasons.sort_by_key(|reason| Reverse(reason.level));
        self
    }
}

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod tests;
