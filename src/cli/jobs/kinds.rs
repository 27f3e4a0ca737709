//! The kinds of jobs: one row each.

use std::time::Duration;

use anyhow::anyhow;

use crate::config::{self, Cron, Settings};
use crate::error::with_hint;
use crate::jobs::{Job, Lane, schedule};

/// A row.
struct JobKind {
    name: &'static str,
    cron: fn(&config::Schedule) -> Option<&Cron>,
    lane: Lane,
    deadline: fn(&config::Schedule) -> Duration,
    /// The verb that does it. Errors: a setting is missing.
    arguments: fn(&Settings) -> anyhow::Result<Vec<String>>,
}

const KINDS: &[JobKind] = &[
    JobKind {
        name: "backup",
        cron: |schedule| schedule.backup.as_ref(),
        lane: Lane::Long,
        deadline: |schedule| schedule.deadline,
        arguments: |_| Ok(words("backup take --label scheduled")),
    },
    JobKind {
        name: "dump",
        cron: |schedule| schedule.dump.as_ref(),
        lane: Lane::Short,
        deadline: |schedule| schedule.dump_deadline,
        arguments: |_| Ok(words("dump take --all")),
    },
    JobKind {
        name: "schema-dump",
        cron: |schedule| schedule.schema_dump.as_ref(),
        lane: Lane::Short,
        deadline: |schedule| schedule.dump_deadline,
        arguments: |_| Ok(words("dump take --all --schema-only")),
    },
    JobKind {
        name: "verify",
        cron: |schedule| schedule.verify.as_ref(),
        lane: Lane::Long,
        deadline: |schedule| schedule.deadline,
        arguments: |_| Ok(words("repo verify")),
    },
    JobKind {
        name: "expire",
        cron: |schedule| schedule.expire.as_ref(),
        lane: Lane::Long,
        deadline: |schedule| schedule.deadline,
        arguments: |_| Ok(words("retention apply --yes")),
    },
    JobKind {
        name: "copy",
        cron: |schedule| schedule.copy.as_ref(),
        lane: Lane::Long,
        deadline: |schedule| schedule.deadline,
        arguments: copy,
    },
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_string).collect()
}

fn copy(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let Some(to) = &settings.schedule.copy_to else {
        let error = anyhow!("\"schedule.copy_to\" is not set: where to copy is not known");
        return Err(with_hint(
            error,
            "set it to the second repository's URL, or to a configuration file that names it",
        ));
    };
    let option = if to.starts_with('/') {
        "--to-config"
    } else {
        "--to"
    };
    Ok([&words("repo copy")[..], &[option.into(), to.clone()]].concat())
}

/// All jobs that the settings make possible, in order. Errors: one has a schedule and lacks a setting.
pub fn jobs(settings: &Settings) -> anyhow::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for kind in KINDS {
        let cron = (kind.cron)(&settings.schedule);
        let arguments = match (kind.arguments)(settings) {
            Ok(arguments) => arguments,
            Err(error) if cron.is_some() => {
                return Err(error.context(format!("job {} cannot run", kind.name)));
            }
            Err(_) => continue,
        };
        jobs.push(Job {
            name: kind.name,
            schedule: cron.map(|cron| schedule_of(settings, kind.name, cron)),
            lane: kind.lane,
            deadline: (kind.deadline)(&settings.schedule),
            arguments,
        });
    }
    Ok(jobs)
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
        let jobs = jobs(&settings).unwrap();
        assert_eq!(jobs.len(), KINDS.len());
        for job in jobs {
            let line = ["walden".to_string()].into_iter().chain(job.arguments);
            Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{}: {error}", job.name));
            assert_eq!(job.schedule, None);
        }
    }

    #[test]
    fn a_copy_needs_to_know_where_to() {
        let mut settings = defaults();
        assert!(
            jobs(&settings)
                .unwrap()
                .iter()
                .all(|job| job.name != "copy")
        );
        settings.schedule.copy = "0 6 * * *".parse().ok();
        let error = jobs(&settings).unwrap_err();
        assert!(
            one_line(&error).contains("job copy cannot run: \"schedule.copy_to\""),
            "{error:#}"
        );
        assert_eq!(hints(&error).len(), 1);
        settings.schedule.copy_to = Some("/etc/walden/second.toml".into());
        let copy = jobs(&settings).unwrap().pop().unwrap();
        assert_eq!(
            copy.arguments,
            ["repo", "copy", "--to-config", "/etc/walden/second.toml"]
        );
    }
}
