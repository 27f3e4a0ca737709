//! What the server's archiver says of itself: pg_stat_archiver.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;

use super::server::ServerFacts;
use super::{Check, CheckError, ServerFolders, Verdict};
use crate::config::{Health, Settings};
use crate::health::{BEHIND, words};
use crate::plain::counted;
use crate::postgres::backup::ask::ask;
use crate::postgres::replication::{ConnInfo, Connection, Mode};
use crate::postgres::types::{SegmentSize, WalFileName};

/// What the archiver did last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archiver {
    pub archived: Last,
    pub failed: Last,
    /// The segment being written; `None` on a standby.
    pub current: Option<WalFileName>,
}

/// How often something happened, and the last time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Last {
    pub count: u64,
    /// The file's name and how long ago; `None`: never.
    pub file: Option<(String, Duration)>,
}

impl Archiver {
    /// Asks the server.
    pub async fn ask(sql: &mut Connection) -> anyhow::Result<Self> {
        let question = "SELECT archived_count, last_archived_wal, failed_count, last_failed_wal, \
             extract(epoch FROM clock_timestamp() - last_archived_time)::float8 AS archived_age, \
             extract(epoch FROM clock_timestamp() - last_failed_time)::float8 AS failed_age, \
             CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END AS current_wal \
             FROM pg_stat_archiver";
        let answer = ask(sql, question).await?;
        let last = |count, wal, age| -> anyhow::Result<Last> {
            let file = match answer.text(0, wal)? {
                Some(name) => {
                    // The clock may have been set back since.
                    let seconds = answer.parse::<f64>(0, age)?.max(0.0);
                    Some((name.to_string(), Duration::try_from_secs_f64(seconds)?))
                }
                None => None,
            };
            Ok(Last {
                count: answer.parse(0, count)?,
                file,
            })
        };
        Ok(Self {
            archived: last("archived_count", "last_archived_wal", "archived_age")?,
            failed: last("failed_count", "last_failed_wal", "failed_age")?,
            current: answer.text(0, "current_wal")?.map(str::parse).transpose()?,
        })
    }

    /// The file at which the archiver is stuck, and how long ago it last failed.
    fn stuck(&self) -> Option<(&str, Duration)> {
        let (file, failed_age) = self.failed.file.as_ref()?;
        let since = self
            .archived
            .file
            .as_ref()
            .is_none_or(|(_, archived_age)| failed_age < archived_age);
        since.then_some((file.as_str(), *failed_age))
    }

    /// Whether the last that happened was a failure.
    pub fn is_stuck(&self) -> bool {
        self.stuck().is_some()
    }

    /// Finished segments after the last archived one; `None` when that is not known, as after a switch of timelines.
    fn backlog(&self, size: SegmentSize) -> Option<u64> {
        let WalFileName::Segment(current) = self.current? else {
            return None;
        };
        let (last, _) = self.archived.file.as_ref()?;
        let last = match last.parse().ok()? {
            WalFileName::Segment(segment) | WalFileName::Backup { segment, .. } => segment,
            WalFileName::Partial(_) | WalFileName::History(_) | WalFileName::Aside { .. } => {
                return None;
            }
        };
        // At a segment's begin the server names the one before it (pg_walfile_name), which is archived by now.
        let behind = || current.number(size).saturating_sub(last.number(size) + 1);
        (last.timeline == current.timeline).then(behind)
    }
}

/// A file that a server has archived, by its statistics or, since a crash resets these, by its marks in `pg_wal`; `None`: it
/// has archived none, as far as can be seen. Errors: the server does not answer.
pub async fn archived_before(
    settings: &Settings,
    folders: &ServerFolders,
) -> anyhow::Result<Option<String>> {
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let mut sql = Connection::connect(&info, Mode::Sql).await?;
    let archiver = Archiver::ask(&mut sql).await?;
    sql.close().await?;
    let told = archiver.archived.file.map(|(file, _)| file);
    Ok(told.or_else(|| marked(folders.wal()?)))
}

/// A segment that the server marked as archived.
fn marked(pg_wal: &Path) -> Option<String> {
    let entries = fs::read_dir(pg_wal.join("archive_status")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_suffix(".done").map(str::to_string))
        .max()
}

/// Decides whether the archiver keeps up.
pub(super) fn decide(
    archiver: &Result<Archiver, CheckError>,
    server: &ServerFacts,
    limits: &Health,
) -> Verdict {
    let archiver = match archiver {
        Ok(archiver) => archiver,
        Err(error) => {
            let unknown = Check::Archiver.unknown(&*error.what);
            return Verdict {
                hint: error.hint.clone(),
                ..unknown
            };
        }
    };
    if server.settings.archive_mode == "off" {
        return Check::Archiver.because(Check::ArchiveMode);
    }
    if server.standby && server.settings.archive_mode != "always" {
        return Check::Archiver
            .skipped("a standby with archive_mode = on archives once it is promoted");
    }
    let backlog = archiver.backlog(server.segment_size);
    if let Some((file, age)) = archiver.stuck() {
        return stuck(file, age, archiver.failed.count, backlog);
    }
    let Some((file, age)) = &archiver.archived.file else {
        return Check::Archiver.ok("nothing was archived yet, and nothing failed");
    };
    let Some(backlog) = backlog else {
        return Check::Archiver.ok(format!(
            "last archived {file}, {} ago; how many wait is not known",
            ago(*age)
        ));
    };
    match backlog {
        count if count > limits.backlog => Check::Archiver
            .warning(format!(
                "{} to be archived, the last success was {} ago",
                waiting(count),
                ago(*age)
            ))
            .hint(BEHIND),
        count if count > 0 && *age > limits.wal_wait => Check::Archiver
            .warning(format!(
                "{} and none was archived for {}",
                waiting(count),
                ago(*age)
            ))
            .hint("does archive_command hang? Look at the server's log and its processes"),
        0 => Check::Archiver.ok(format!(
            "last archived {file}, {} ago; none waits",
            ago(*age)
        )),
        count => Check::Archiver.ok(format!(
            "last archived {file}, {} ago; {}",
            ago(*age),
            waiting(count)
        )),
    }
}

/// The archiver fails with one file.
fn stuck(file: &str, age: Duration, failures: u64, backlog: Option<u64>) -> Verdict {
    let waiting = backlog
        .filter(|count| *count > 0)
        .map(|count| format!(", {}", waiting(count)))
        .unwrap_or_default();
    Check::Archiver
        .critical(format!(
            "\"{file}\" cannot be archived: last failure {} ago, {failures} in all{waiting}",
            ago(age)
        ))
        .hint("search the server's log for \"archive command failed\"; the server goes on trying")
}

fn waiting(segments: u64) -> String {
    format!(
        "{} {}",
        counted(segments, "segment"),
        if segments == 1 { "waits" } else { "wait" }
    )
}

/// An age in words.
pub(super) fn ago(age: Duration) -> String {
    words(span(age))
}

fn span(age: Duration) -> TimeDelta {
    TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::health_limits;
    use crate::postgres::check::CheckStatus;
    use crate::postgres::check::testing::server;

    fn decide(archiver: &Result<Archiver, CheckError>, server: &ServerFacts) -> Verdict {
        super::decide(archiver, server, &health_limits())
    }

    fn last(count: u64, file: &str, seconds: u64) -> Last {
        Last {
            count,
            file: Some((file.into(), Duration::from_secs(seconds))),
        }
    }

    fn archiver(archived: Last, failed: Last) -> Archiver {
        Archiver {
            archived,
            failed,
            current: Some("000000010000000000000009".parse().unwrap()),
        }
    }

    const EIGHTH: &str = "000000010000000000000008";

    #[test]
    fn a_failure_after_the_last_success_is_critical_and_names_the_file() {
        let verdict = decide(
            &Ok(archiver(
                last(4, "000000010000000000000004", 60),
                last(9, EIGHTH, 5),
            )),
            &server(),
        );
        assert_eq!(verdict.status, CheckStatus::Critical);
        for part in [EIGHTH, "5 s ago", "9 in all", "4 segments wait"] {
            assert!(
                verdict.message.contains(part),
                "{part}: {}",
                verdict.message
            );
        }
        let never = decide(
            &Ok(archiver(Last::default(), last(1, EIGHTH, 5))),
            &server(),
        );
        assert_eq!(never.status, CheckStatus::Critical);
    }

    #[test]
    fn marks_tell_what_was_archived_when_statistics_do_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(marked(folder.path()), None);
        fs::create_dir(folder.path().join("archive_status")).unwrap();
        let mark =
            |name: &str| fs::write(folder.path().join("archive_status").join(name), "").unwrap();
        mark(&format!("{EIGHTH}.ready"));
        assert_eq!(marked(folder.path()), None);
        mark("000000010000000000000007.done");
        assert_eq!(
            marked(folder.path()).as_deref(),
            Some("000000010000000000000007")
        );
    }

    #[test]
    fn a_failure_that_was_overcome_is_history() {
        let verdict = decide(
            &Ok(archiver(last(5, EIGHTH, 4), last(9, EIGHTH, 5))),
            &server(),
        );
        assert_eq!(
            (verdict.status, verdict.message.contains("none waits")),
            (CheckStatus::Ok, true),
            "{}",
            verdict.message
        );
        assert_eq!(
            decide(&Ok(archiver(Last::default(), Last::default())), &server()).status,
            CheckStatus::Ok
        );
    }

    #[test]
    fn what_waits_is_told_when_it_is_much_or_waits_long() {
        let with = |file: &str, current: &str, seconds| {
            let current = Some(current.parse().unwrap());
            let archiver = Archiver {
                current,
                ..archiver(last(5, file, seconds), Last::default())
            };
            decide(&Ok(archiver), &server()).status
        };
        assert_eq!(
            with("000000010000000000000001", "000000010000000000000042", 1),
            CheckStatus::Ok,
            "64 wait"
        );
        assert_eq!(
            with("000000010000000000000001", "000000010000000000000043", 1),
            CheckStatus::Warning
        );
        assert_eq!(
            with("000000010000000000000001", "000000010000000000000003", 599),
            CheckStatus::Ok
        );
        assert_eq!(
            with("000000010000000000000001", "000000010000000000000003", 601),
            CheckStatus::Warning
        );
        assert_eq!(
            with(
                "000000010000000000000002",
                "000000010000000000000003",
                90_000
            ),
            CheckStatus::Ok,
            "none waits"
        );
        assert_eq!(
            with("00000002.history", "000000020000000000000003", 1),
            CheckStatus::Ok,
            "not known"
        );
    }

    #[test]
    fn a_server_that_does_not_archive_is_not_judged_by_its_archiver() {
        let facts = Ok(archiver(Last::default(), last(1, EIGHTH, 5)));
        let decide = |standby, mode: &str| {
            let mut server = server();
            (server.standby, server.settings.archive_mode) = (standby, mode.into());
            decide(&facts, &server)
        };
        assert_eq!(decide(true, "on").status, CheckStatus::Skipped);
        assert_eq!(decide(true, "always").status, CheckStatus::Critical);
        assert_eq!(decide(false, "off").because, Some(Check::ArchiveMode));
    }
}
