//! What the service is doing and has done, for operators.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ready::{ReadyFile, status_folder};
use crate::error::find;
use crate::health::Now;
use crate::postgres::archive::{Conflict, ForeignFile};
use crate::postgres::index::IndexState;
use crate::postgres::layout::IdleMarker;

/// Over this time the speed of storing is measured.
const SPEED_OVER: Duration = Duration::from_secs(60);
/// Files that the speed is measured by, at most.
const SPEED_BY: usize = 256;
/// Bytes of an error's text that are kept.
const LONGEST_WHY: usize = 1000;

/// The answer of `walden status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub version: String,
    pub pid: u32,
    pub started_at: DateTime<Utc>,
    pub cluster: String,
    pub repository: String,
    /// `None`: it is off.
    #[serde(default)]
    pub http: Option<Http>,
    pub archiving: Archiving,
    pub fetching: Fetching,
    #[serde(default)]
    pub indexing: Indexing,
}

/// Where HTTP is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    pub url: String,
    /// When the certificate ends that it is answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<DateTime<Utc>>,
    /// Why it is not yet.
    pub failed: Option<String>,
}

/// The index of the WAL, and the names of relations.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Indexing {
    /// Where it is kept; `None`: only while the service runs.
    pub path: Option<PathBuf>,
    #[serde(flatten)]
    pub state: IndexState,
    /// When the repository was last looked at as a whole or for news.
    pub looked_at: Option<DateTime<Utc>>,
    pub failed: Failures,
    /// Names recorded since the service started.
    pub names: u64,
    /// When the server was last asked for them.
    pub names_read_at: Option<DateTime<Utc>>,
    pub names_failed: Failures,
    /// Idle markers stored since the service started, by the times that they prove.
    #[serde(default)]
    pub idle: Occurrences,
    /// The newest proof that nothing followed what is archived; not each is stored.
    #[serde(default)]
    pub proven: Option<IdleMarker>,
    #[serde(default)]
    pub idle_failed: Failures,
}

/// Files stored for archive_command since the service started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Archiving {
    pub stored: Occurrences,
    /// Of these, stored before they were asked for.
    pub ahead: u64,
    pub failed: Failures,
    /// Of another server, or of a copy of this one: refused.
    #[serde(default)]
    pub refused: Failures,
    /// Of those stored, kept beside their names.
    #[serde(default)]
    pub aside: Occurrences,
    /// Segments whose records break off, stored as they are.
    pub broken: Failures,
    /// The last push failed; storing ahead pauses.
    pub resting: bool,
    /// Of each server that archives here.
    pub backlogs: Vec<Backlog>,
    /// Files stored a second, over the last minute of storing.
    pub files_per_second: Option<f64>,
}

impl Archiving {
    /// What is known of archiving by now.
    pub fn at(&self, time: DateTime<Utc>) -> Now {
        Now {
            time,
            waiting: waiting_files(&self.backlogs),
            waiting_since: waiting_since(&self.backlogs),
            fails_since: self.failed.count.last_at.filter(|_| self.resting),
            refused_at: self.refused.count.last_at,
        }
    }

    /// A file could not be stored.
    pub fn note_failed(&mut self, name: &str, error: &anyhow::Error, text: &str) {
        self.failed.note(name, text);
        let foreign = find::<ForeignFile>(error);
        if foreign.is_some_and(ForeignFile::is_of_another) || find::<Conflict>(error).is_some() {
            self.refused.note(name, text);
        }
    }
}

/// Files delivered to restore_command since the service started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Fetching {
    pub delivered: Occurrences,
    /// Of these, they lay ready when they were asked for.
    pub ahead: u64,
    /// Proven absent.
    pub absent: Occurrences,
    pub failed: Failures,
}

/// How often, and the last time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Occurrences {
    pub count: u64,
    pub last: Option<String>,
    pub last_at: Option<DateTime<Utc>>,
}

impl Occurrences {
    /// Once more, now.
    pub fn note(&mut self, name: impl ToString) {
        self.count += 1;
        self.last = Some(name.to_string());
        self.last_at = Some(Utc::now());
    }
}

/// How often something failed, and why the last time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failures {
    #[serde(flatten)]
    pub count: Occurrences,
    pub why: Option<String>,
}

impl Failures {
    /// Once more, now.
    pub fn note(&mut self, name: impl ToString, why: &str) {
        self.count.note(name);
        self.why = Some(why.trim_end().chars().take(LONGEST_WHY).collect());
    }
}

/// What waits in one server's `pg_wal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    pub pg_wal: PathBuf,
    /// Files that the server has not noted as archived.
    pub files: u64,
    /// Of these, the service has stored.
    pub stored: u64,
    /// Since when the oldest one waits.
    pub oldest_since: Option<DateTime<Utc>>,
    /// Until the rest is stored, at the present speed; `None` when nothing was stored lately, or pushes fail.
    pub eta_seconds: Option<f64>,
    /// Why all of this is not known; `None` when it is.
    #[serde(default)]
    pub failed: Option<String>,
}

/// Files that wait and are not stored yet. `None`: no server's `pg_wal` is known yet, or one cannot be read.
pub fn waiting_files(backlogs: &[Backlog]) -> Option<u64> {
    let waiting = |backlog: &Backlog| {
        backlog
            .failed
            .is_none()
            .then(|| backlog.files.saturating_sub(backlog.stored))
    };
    if backlogs.is_empty() {
        None
    } else {
        backlogs.iter().map(waiting).sum()
    }
}

/// Since when the oldest one waits.
pub fn waiting_since(backlogs: &[Backlog]) -> Option<DateTime<Utc>> {
    backlogs
        .iter()
        .filter_map(|backlog| backlog.oldest_since)
        .min()
}

/// When files were stored, the latest ones.
#[derive(Debug, Default)]
pub struct Speed(VecDeque<Instant>);

impl Speed {
    /// One more was stored.
    pub fn note(&mut self, now: Instant) {
        self.0.push_back(now);
        if self.0.len() > SPEED_BY {
            self.0.pop_front();
        }
    }

    /// Files a second; `None` with fewer than two in the last minute.
    pub fn per_second(&self, now: Instant) -> Option<f64> {
        let recent = || {
            self.0
                .iter()
                .filter(|at| now.duration_since(**at) < SPEED_OVER)
        };
        let (first, count) = (recent().next()?, recent().count());
        let span = now.duration_since(*first).as_secs_f64();
        (count > 1 && span > 0.0).then(|| count as f64 / span)
    }
}

/// Looks at a server's backlog. Blocking. `is_stored` are files that the service has stored already. `None`: there is no
/// such folder, and no server any more.
pub fn backlog(
    pg_wal: &Path,
    speed: Option<f64>,
    is_stored: impl Fn(&Path) -> bool,
) -> Option<Backlog> {
    match count(pg_wal, is_stored) {
        Ok(mut backlog) => {
            backlog.eta_seconds = eta(backlog.files - backlog.stored, speed);
            Some(backlog)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Backlog {
            failed: Some(error.to_string()),
            ..nothing_in(pg_wal)
        }),
    }
}

fn nothing_in(pg_wal: &Path) -> Backlog {
    let pg_wal = pg_wal.to_path_buf();
    Backlog {
        pg_wal,
        files: 0,
        stored: 0,
        oldest_since: None,
        eta_seconds: None,
        failed: None,
    }
}

fn count(pg_wal: &Path, is_stored: impl Fn(&Path) -> bool) -> io::Result<Backlog> {
    let mut backlog = nothing_in(pg_wal);
    for entry in fs::read_dir(status_folder(pg_wal))? {
        let entry = entry?;
        let Some(ready) = ReadyFile::announced_by(&entry.path()) else {
            continue;
        };
        // Gone when it was archived just now.
        let Ok(since) = entry.metadata().and_then(|meta| meta.modified()) else {
            continue;
        };
        let since = DateTime::<Utc>::from(since);
        backlog.files += 1;
        backlog.stored += u64::from(is_stored(&pg_wal.join(ready.name())));
        backlog.oldest_since = Some(
            backlog
                .oldest_since
                .map_or(since, |oldest| oldest.min(since)),
        );
    }
    Ok(backlog)
}

/// Seconds until `files` are stored at `speed` files a second.
fn eta(files: u64, speed: Option<f64>) -> Option<f64> {
    match (files, speed) {
        (0, _) => Some(0.0),
        (files, Some(speed)) if speed > 0.0 => Some(files as f64 / speed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::PgWal;

    #[test]
    fn a_backlog_tells_how_much_waits_and_how_long_it_takes() {
        let wal = PgWal::new();
        assert_eq!(
            backlog(&wal.folder(), None, |_| false).unwrap().eta_seconds,
            Some(0.0),
            "nothing waits"
        );
        let first = wal.segment("000000010000000000000001", 1);
        wal.segment("000000010000000000000002", 1);
        wal.segment("000000010000000000000003", 1);
        let found = backlog(&wal.folder(), Some(4.0), |path| path == first).unwrap();
        assert_eq!(
            (found.files, found.stored, found.eta_seconds),
            (3, 1, Some(0.5))
        );
        assert!(found.oldest_since.is_some_and(|since| since <= Utc::now()));
        assert_eq!(
            backlog(&wal.folder(), None, |_| false).unwrap().eta_seconds,
            None,
            "the speed is not known"
        );
        assert_eq!(backlog(Path::new("/nowhere"), None, |_| false), None);
        let no_folder = wal.folder().join("000000010000000000000001");
        let unknown = backlog(&no_folder, None, |_| false).unwrap();
        assert!(
            unknown.failed.is_some() && unknown.eta_seconds.is_none(),
            "{unknown:?}"
        );
    }

    #[test]
    fn the_speed_is_that_of_the_last_minute() {
        let begin = Instant::now();
        let mut speed = Speed::default();
        assert_eq!(speed.per_second(begin), None);
        for second in 0..100 {
            speed.note(begin + Duration::from_secs(second));
        }
        let found = speed.per_second(begin + Duration::from_secs(100)).unwrap();
        assert!((0.9..1.1).contains(&found), "{found}");
        assert_eq!(speed.per_second(begin + Duration::from_secs(1000)), None);
    }
}
