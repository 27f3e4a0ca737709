//! Figures for Prometheus, of what is known: what is not known is not shown.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::show::{Show, seconds};
use crate::alerts::state::{AlertState, Severity};
use crate::health::{Health, Level, NewestDump, Rule, Subject, Upkeep};
use crate::jobs::status::JobStatus;
use crate::postgres::catalog::{Facts, Gap, Windows};
use crate::service::status::{Archiving, Fetching, ServiceStatus, waiting_files, waiting_since};

/// What the repository keeps of a cluster, as it was read.
pub struct Kept<'a> {
    pub facts: &'a Facts,
    pub windows: &'a Windows,
    pub gaps: &'a [Gap],
    pub read_at: DateTime<Utc>,
    /// What follows.
    pub health: &'a Health,
}

/// What figures are made of.
pub struct Figures<'a> {
    pub cluster: &'a str,
    pub status: Option<&'a ServiceStatus>,
    pub kept: Option<Kept<'a>>,
    /// The repository could not be read the last time.
    pub is_unreadable: bool,
    pub upkeep: &'a Upkeep,
    pub jobs: &'a [JobStatus],
    /// `None`: nobody looks.
    pub alerts: Option<&'a AlertState>,
    /// The names of runbooks are wanted, too.
    pub has_runbook_names: bool,
    /// The repository lies in a bucket.
    pub is_in_bucket: bool,
}

impl Figures<'_> {
    /// All but what the service counts. `job`: the label that names a job.
    pub fn show(&self, job: &'static str) -> Show {
        let labels = self.labels();
        let mut show = Show(Registry::with_prefix_and_labels("walden", labels));
        let help = "Whether the repository could not be read the last time: 1, else 0";
        show.number("repository_unreadable", help, self.is_unreadable.into());
        if let Some(kept) = &self.kept {
            repository(&mut show, kept);
            standing(&mut show, kept.health, self.status);
        }
        upkeep(&mut show, self.upkeep);
        jobs(&mut show, self.jobs, job);
        if let Some(state) = self.alerts {
            alerts(&mut show, state);
        }
        show
    }

    /// On all figures.
    pub fn labels(&self) -> impl Iterator<Item = (Cow<'static, str>, Cow<'static, str>)> {
        let cluster = Cow::Owned(self.cluster.to_string());
        [(Cow::Borrowed("cluster"), cluster)].into_iter()
    }
}

/// What is done beside archiving.
fn upkeep(show: &mut Show, upkeep: &Upkeep) {
    let dump = |dump: &NewestDump| {
        let kind = dump.kind.as_str().to_string();
        [("database", dump.database.clone()), ("kind", kind)]
    };
    let (dumps, left_out) = upkeep.shown_dumps();
    let dumps = || dumps.iter().copied();
    show.labelled(
        "dump_last_timestamp_seconds",
        "When the newest complete dump of a database was taken",
        dumps().map(|newest| (dump(newest), seconds(newest.time))),
    );
    show.labelled(
        "dump_last_bytes",
        "Bytes of the newest complete dump of a database",
        dumps().map(|newest| (dump(newest), newest.bytes as f64)),
    );
    if upkeep.dumps_at.is_some() {
        let help = "Newest dumps that these figures leave out, because there are too many";
        show.number("dump_left_out", help, left_out);
    }
    let help = "When the HTTPS certificate expires";
    show.time("http_certificate_end", help, upkeep.certificate);
    if let Some(disk) = upkeep.disk {
        show.number(
            "repository_disk_used_bytes",
            "Used bytes of the file system that the repository lies in",
            disk.used_bytes,
        );
        show.number(
            "repository_disk_free_bytes",
            "Free bytes of the file system that the repository lies in",
            disk.free_bytes,
        );
    }
}

/// What runs by itself. `label`: what names the job.
fn jobs(show: &mut Show, jobs: &[JobStatus], label: &'static str) {
    let mut of_jobs = |name, help, of: fn(&JobStatus) -> Option<f64>| {
        let known = jobs.iter();
        let known = known.filter_map(|job| Some(([(label, job.job.clone())], of(job)?)));
        show.labelled(name, help, known);
    };
    of_jobs(
        "job_next_run_timestamp_seconds",
        "When the next run of a job begins; in the past when it is due",
        |job| job.next.map(seconds),
    );
    of_jobs(
        "job_last_run_timestamp_seconds",
        "When the last run of a job ended, however",
        |job| Some(seconds(job.last.as_ref()?.ended_at)),
    );
    of_jobs(
        "job_last_success_timestamp_seconds",
        "When the last run of a job ended that succeeded",
        |job| Some(seconds(job.last_success.as_ref()?.ended_at)),
    );
    of_jobs(
        "job_failures_in_a_row",
        "Runs of a job in a row that failed",
        |job| Some(f64::from(job.failures_in_a_row)),
    );
    of_jobs("job_running", "Whether a job runs: 1, else 0", |job| {
        Some(f64::from(u8::from(job.running.is_some())))
    });
}

/// What fires, and whether people can be told.
fn alerts(show: &mut Show, state: &AlertState) {
    let firing = state.firing();
    let values = [Severity::Critical, Severity::Warning].map(|severity| {
        let count = firing.iter().filter(|alert| alert.severity == severity);
        let label = [("severity", severity.name().to_string())];
        (label, count.count() as f64)
    });
    show.labelled("alerts_firing", "Alerts that fire", values);
    let channels = state.channels.iter();
    show.labelled(
        "alert_channel_failures",
        "Messages in a row that did not arrive at a channel",
        channels.map(|(name, trouble)| ([("channel", name.clone())], trouble.failures.into())),
    );
}

/// What the service has done since it started.
pub fn service(show: &mut Show, status: &ServiceStatus) {
    show.time("start", "When the service started", Some(status.started_at));
    archiving(show, &status.archiving);
    fetching(show, &status.fetching);
}

fn archiving(show: &mut Show, done: &Archiving) {
    show.count(
        "archive_stored_files",
        "WAL files stored",
        done.stored.count,
    );
    show.count(
        "archive_stored_ahead_files",
        "WAL files stored before they were asked for",
        done.ahead,
    );
    show.count(
        "archive_aside_files",
        "WAL files stored beside their names",
        done.aside.count,
    );
    show.count(
        "archive_failed_files",
        "Attempts to store a WAL file that failed",
        done.failed.count.count,
    );
    show.time(
        "archive_last_stored",
        "When a WAL file was stored last by this service",
        done.stored.last_at,
    );
    show.time(
        "archive_last_failed",
        "When storing a WAL file failed last",
        done.failed.count.last_at,
    );
    if let Some(waiting) = waiting_files(&done.backlogs) {
        show.number(
            "archive_backlog_files",
            "WAL files that wait to be stored",
            waiting,
        );
    }
    show.time(
        "archive_backlog_oldest",
        "Since when the oldest of them waits",
        waiting_since(&done.backlogs),
    );
}

fn fetching(show: &mut Show, done: &Fetching) {
    show.count(
        "fetch_delivered_files",
        "WAL files delivered to restore_command",
        done.delivered.count,
    );
    show.count(
        "fetch_absent_files",
        "Answers to restore_command that there is no such file",
        done.absent.count,
    );
    show.count(
        "fetch_failed_files",
        "WAL files that could not be fetched",
        done.failed.count.count,
    );
}

fn recovery(show: &mut Show, told: &Windows) {
    let Windows { windows, gaps, .. } = told;
    let first = windows.iter().filter_map(|window| window.from.time).min();
    // An older timeline's is not it where this one's is not known.
    let last = told.newest().and_then(|window| window.to.time);
    show.time(
        "recovery_first",
        "The first moment that can be restored",
        first,
    );
    show.time(
        "recovery_last",
        "The last commit that can be restored, of the newest timeline",
        last,
    );
    show.number(
        "recovery_windows",
        "Ranges of moments that can be restored",
        windows.len() as u64,
    );
    show.number(
        "recovery_gaps",
        "Ranges between them of which no moment can be restored",
        gaps.len() as u64,
    );
    if let Some(seconds) = gaps.iter().map(|gap| gap.seconds).sum::<Option<f64>>() {
        // The sum of none is -0.
        show.value(
            "recovery_gaps_seconds",
            "How long these lasted in all",
            seconds + 0.0,
        );
    }
}

fn standing(show: &mut Show, health: &Health, status: Option<&ServiceStatus>) {
    let help = "Up to when all that was committed can be restored, on the newest timeline";
    show.time(
        "recovery_protected",
        help,
        health.protected.map(|protected| protected.until),
    );
    let help = "Archived WAL segments of the newest timeline that cannot be restored";
    show.number("recovery_unrestorable_segments", help, health.beyond);
    show.time(
        "backup_usable_last_stopped",
        "When the newest base backup ended that can be used",
        health.backup,
    );
    let family = Family::<Vec<(&str, &str)>, Gauge>::default();
    for (about, name) in Subject::ALL {
        family
            .get_or_create(&vec![("check", name)])
            .set(number(health.level_of(about)));
    }
    let help = "How the check of that name stands: 0 ok, 1 warning, 2 critical, 3 unknown";
    show.0.register("health_status", help, family);
    let family = Family::<Vec<(&str, &str)>, Gauge>::default();
    let knows_waiting =
        status.is_some_and(|status| waiting_files(&status.archiving.backlogs).is_some());
    for rule in Rule::ALL
        .iter()
        .filter(|rule| knows_waiting || !rule.is_of_waiting())
    {
        let level = if health.breaks(*rule) {
            rule.level()
        } else {
            Level::Good
        };
        family
            .get_or_create(&vec![("rule", rule.name())])
            .set(number(level));
    }
    show.0.register(
        "health_rule",
        "How the rule of that name stands, in the same numbers",
        family,
    );
}

fn number(level: Level) -> i64 {
    match level {
        Level::Good => 0,
        Level::Warning => 1,
        Level::Critical => 2,
        Level::Unknown => 3,
    }
}

fn repository(show: &mut Show, kept: &Kept<'_>) {
    show.time(
        "repository_read",
        "When the repository was read",
        Some(kept.read_at),
    );
    recovery(show, kept.windows);
    let ranges = || kept.facts.ranges.iter();
    show.time(
        "wal_last_stored",
        "When the newest WAL segment was stored",
        ranges().map(|range| range.last_stored).max(),
    );
    show.number(
        "wal_segments",
        "Archived WAL segments",
        ranges().map(|range| range.segments).sum(),
    );
    show.number(
        "wal_stored_bytes",
        "Bytes of archived WAL segments",
        ranges().map(|range| range.stored_bytes).sum(),
    );
    show.number(
        "wal_gaps",
        "Ranges of WAL that are missing",
        kept.gaps.len() as u64,
    );
    let backups = &kept.facts.backups;
    show.number("backups", "Complete base backups", backups.len() as u64);
    show.number(
        "backups_damaged",
        "Base backups that cannot be used",
        kept.facts.damaged_backups.len() as u64,
    );
    show.time(
        "backup_last_stopped",
        "When the newest base backup ended",
        backups.last().map(|backup| backup.stopped_at),
    );
    let stored = backups.iter().map(|backup| backup.stored_bytes).sum();
    if let Some(last) = backups.last() {
        show.number(
            "backup_last_stored_bytes",
            "Bytes of the newest base backup",
            last.stored_bytes,
        );
    }
    show.number(
        "backups_stored_bytes",
        "Bytes of complete base backups",
        stored,
    );
}
