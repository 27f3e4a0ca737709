//! The kinds of jobs: one row each.

use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, TimeDelta, Utc};

use crate::config::{self, Cron, DumpFrom, Settings};
use crate::error::with_hint;
use crate::jobs::{Job, Lane, Missing, schedule};

/// A row.
struct JobKind {
    name: &'static str,
    cron: fn(&config::Schedule) -> Option<&Cron>,
    lane: fn(&Settings) -> Lane,
    deadline: fn(&Settings) -> Duration,
    /// The verb that does it.
    arguments: fn(&Settings) -> Result<Vec<String>, Missing>,
}

/// How long what takes seconds may take.
const BRIEF: Duration = Duration::from_secs(600);

const KINDS: &[JobKind] = &[
    JobKind {
        name: "backup",
        cron: |schedule| schedule.backup.as_ref(),
        lane: |_| Lane::Long,
        deadline: |settings| settings.schedule.deadline,
        arguments: |_| Ok(words("backup take --label scheduled")),
    },
    JobKind {
        name: "dump",
        cron: |schedule| schedule.dump.as_ref(),
        lane: of_dumps,
        deadline: deadline_of_dumps,
        arguments: |_| Ok(words("dump take --all")),
    },
    JobKind {
        name: "schema-dump",
        cron: |schedule| schedule.schema_dump.as_ref(),
        lane: of_dumps,
        deadline: deadline_of_dumps,
        arguments: |_| Ok(words("dump take --all --schema-only")),
    },
    JobKind {
        name: "verify",
        cron: |schedule| schedule.verify.as_ref(),
        lane: |_| Lane::Long,
        deadline: |settings| settings.schedule.deadline,
        arguments: |_| Ok(words("repo verify")),
    },
    JobKind {
        name: "drill",
        cron: |schedule| schedule.drill.as_ref(),
        lane: |_| Lane::Long,
        deadline: |settings| settings.schedule.deadline,
        arguments: |_| Ok(words("drill run")),
    },
    JobKind {
        name: "canary",
        cron: |schedule| schedule.canary.as_ref(),
        lane: |_| Lane::Brief,
        deadline: |_| BRIEF,
        arguments: |settings| canary(settings, "drill canary"),
    },
    JobKind {
        name: "counts",
        cron: |schedule| schedule.counts.as_ref(),
        lane: |_| Lane::Short,
        deadline: |settings| settings.schedule.deadline,
        arguments: |settings| canary(settings, "drill canary --counts"),
    },
    JobKind {
        name: "dump-drill",
        cron: |schedule| schedule.dump_drill.as_ref(),
        lane: |_| Lane::Long,
        deadline: |settings| settings.schedule.deadline,
        arguments: |_| Ok(words("drill run --dump")),
    },
    JobKind {
        name: "expire",
        cron: |schedule| schedule.expire.as_ref(),
        lane: |_| Lane::Long,
        deadline: |settings| settings.schedule.deadline,
        arguments: |_| Ok(words("retention apply --yes")),
    },
    JobKind {
        name: "copy",
        cron: |schedule| schedule.copy.as_ref(),
        lane: |_| Lane::Long,
        deadline: |settings| settings.schedule.deadline,
        arguments: copy,
    },
];

/// Who takes dumps from a drill's server restores everything before.
fn of_dumps(settings: &Settings) -> Lane {
    match settings.dump.source {
        DumpFrom::Server => Lane::Short,
        DumpFrom::Drill => Lane::Long,
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_string).collect()
}

/// A drill's server is restored before it is dumped.
fn deadline_of_dumps(settings: &Settings) -> Duration {
    let schedule = &settings.schedule;
    match settings.dump.source {
        DumpFrom::Server => schedule.dump_deadline,
        DumpFrom::Drill => schedule.deadline.max(schedule.dump_deadline),
    }
}

fn canary(settings: &Settings, verb: &str) -> Result<Vec<String>, Missing> {
    let database = settings.drill.canary.as_ref();
    database.map(|_| words(verb)).ok_or(Missing {
        what: "\"drill.canary\" is not set: where to write is not known",
        hint: "set it to a database of the server",
    })
}

fn copy(settings: &Settings) -> Result<Vec<String>, Missing> {
    let to = settings.schedule.copy_to.as_ref().ok_or(Missing {
        what: "\"schedule.copy_to\" is not set: where to copy is not known",
        hint: "set it to the second repository's URL, or to a configuration file that names it",
    })?;
    let option = if to.starts_with('/') {
        "--to-config"
    } else {
        "--to"
    };
    Ok([&words("repo copy")[..], &[option.into(), to.clone()]].concat())
}

/// All jobs, in order.
pub fn jobs(settings: &Settings) -> Vec<Job> {
    let job = |kind: &JobKind| Job {
        name: kind.name,
        schedule: (kind.cron)(&settings.schedule)
            .map(|cron| schedule_of(settings, kind.name, cron)),
        lane: (kind.lane)(settings),
        deadline: (kind.deadline)(settings),
        arguments: (kind.arguments)(settings),
    };
    KINDS.iter().map(job).collect()
}

/// How long before `at` the last run but one of a job was to begin: so old may be what the last one made, which may still be
/// under way. `None`: it is not scheduled.
pub fn last_but_one(settings: &Settings, name: &str, at: DateTime<Utc>) -> Option<TimeDelta> {
    let job = jobs(settings).into_iter().find(|job| job.name == name)?;
    let schedule = job.schedule?;
    let last = schedule.begin_of(schedule.last_begun(at)?);
    let before = schedule.last_begun(last - TimeDelta::microseconds(1))?;
    Some(at - schedule.begin_of(before))
}

/// What the job's child is told to do. Errors: a setting is missing.
pub fn runnable(job: &Job) -> anyhow::Result<&[String]> {
    match &job.arguments {
        Ok(arguments) => Ok(arguments),
        Err(missing) => {
            let error = anyhow!("job {} cannot run: {}", job.name, missing.what);
            Err(with_hint(error, missing.hint))
        }
    }
}

fn schedule_of(settings: &Settings, job: &str, cron: &Cron) -> schedule::Schedule {
    // Names of clusters repeat, so the repository counts, too. Services that name it otherwise still agree on the moment.
    let cluster = format!("{} {}", settings.repository.url, settings.cluster.name);
    let offset = schedule::offset(&cluster, job, settings.schedule.jitter);
    schedule::Schedule::new(cron.clone(), settings.schedule.time_zone, offset)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::config::testing::defaults;
    use crate::error::{hints, one_line};

    #[test]
    fn every_kind_is_a_verb_that_there_is() {
        let mut settings = defaults();
        settings.schedule.copy_to = Some("file:///srv/second".into());
        settings.drill.canary = Some("postgres".into());
        for job in jobs(&settings) {
            let arguments = runnable(&job).unwrap().to_vec();
            let line = ["walden".to_string()].into_iter().chain(arguments);
            Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{}: {error}", job.name));
            assert_eq!(job.schedule, None);
        }
    }

    #[test]
    fn what_the_last_run_made_may_still_be_under_way() {
        let mut settings = defaults();
        let at = "2026-03-02T10:07:00Z".parse().unwrap();
        assert_eq!(last_but_one(&settings, "canary", at), None);
        settings.schedule.canary = "*/5 8-18 * * 1-5".parse().ok();
        let of = |at| last_but_one(&settings, "canary", at).unwrap();
        assert_eq!(of(at), TimeDelta::minutes(7));
        // A Monday morning: the one before is from Friday.
        let monday = "2026-03-02T08:01:00Z".parse().unwrap();
        assert_eq!(of(monday), TimeDelta::minutes(6 + 2 * 1440 + 13 * 60));
    }

    #[test]
    fn dumps_that_restore_everything_before_do_not_hold_up_the_short_jobs() {
        let mut settings = defaults();
        let lane = |settings: &Settings| {
            let jobs = jobs(settings);
            jobs.iter().find(|job| job.name == "dump").unwrap().lane
        };
        assert_eq!(lane(&settings), Lane::Short);
        settings.dump.source = DumpFrom::Drill;
        assert_eq!(lane(&settings), Lane::Long);
    }

    #[test]
    fn a_copy_needs_to_know_where_to() {
        let mut settings = defaults();
        let of = |settings: &Settings| jobs(settings).pop().unwrap();
        let error = runnable(&of(&settings)).unwrap_err();
        assert!(
            one_line(&error).contains("job copy cannot run: \"schedule.copy_to\""),
            "{error:#}"
        );
        assert_eq!(hints(&error).len(), 1);
        settings.schedule.copy_to = Some("/etc/walden/second.toml".into());
        assert_eq!(
            runnable(&of(&settings)).unwrap(),
            ["repo", "copy", "--to-config", "/etc/walden/second.toml"]
        );
    }
}
