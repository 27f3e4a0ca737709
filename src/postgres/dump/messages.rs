//! What the programs say on standard error: how far they are, warnings, and why they fail.

use std::process::ExitStatus;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::progress::DumpProgress;
use crate::error::with_hint;
use crate::plain::plain;

/// Lines kept for an error.
const KEPT: usize = 20;
/// Bytes of a line that are read at once.
const LONGEST: u64 = 8 << 10;
/// What `pg_dump --verbose` says of a table whose rows come.
const TABLE: &str = "dumping contents of table \"";

/// A program that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{program} failed ({status}){}", said(.lines))]
pub struct ProgramFailed {
    pub program: String,
    pub status: ExitStatus,
    /// What it said.
    pub lines: Vec<String>,
}

fn said(lines: &[String]) -> String {
    lines.iter().map(|line| format!(": {line}")).collect()
}

impl ProgramFailed {
    /// Whether something that it was to dump went away meanwhile, so that another try can succeed.
    pub fn met_a_change(&self) -> bool {
        // A snapshot that the server does not know is another server's.
        if self.lines.iter().any(|line| line.contains("snapshot")) {
            return false;
        }
        let changed = [
            "does not exist",
            "could not open relation with OID",
            "cache lookup failed",
        ];
        self.lines
            .iter()
            .any(|line| changed.iter().any(|text| line.contains(text)))
    }

    /// The error with the next step, where one is known.
    pub fn with_hint(self) -> anyhow::Error {
        let says = |text: &str| self.lines.iter().any(|line| line.contains(text));
        let hint = if says("snapshot") {
            "`dump.dsn` must lead to the same server as `postgresql.dsn`"
        } else if says("permission denied") {
            "grant the role what it needs to read everything: pg_read_all_data (14 and later), or SELECT"
        } else if says("row-level security") {
            "dump as a role with BYPASSRLS, so that policies hide no rows"
        } else if says("lock timeout") {
            "see who holds the lock (pg_locks), or raise `dump.lock_timeout`"
        } else if says("No space left") {
            "make room in `dump.spool`, or dump in custom format, which needs no local copy"
        } else if says("password") || says("connection to server") {
            "check how the programs reach the server: `postgresql.dsn`, or `dump.dsn` with a `dump.command_prefix`"
        } else {
            "run it by hand as docs/operations/dumps.md shows, and see what it says"
        };
        with_hint(self.into(), hint)
    }
}

/// Reads to the end; what is no progress is kept, and warnings are logged.
pub async fn read(source: impl AsyncRead + Unpin, progress: Arc<DumpProgress>) -> Vec<String> {
    let (mut source, mut kept, mut line) = (BufReader::new(source), Vec::new(), Vec::new());
    loop {
        line.clear();
        match (&mut source)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return kept,
            Ok(_) => (),
        }
        let text = plain(String::from_utf8_lossy(&line).trim_end()).into_owned();
        match sort(&text) {
            Said::Table(name) => progress.table(name),
            Said::Progress => (),
            Said::Warning(warning) => tracing::warn!("{warning}"),
            Said::Other if kept.len() < KEPT => kept.push(text),
            Said::Other => (),
        }
    }
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Table(&'a str),
    Progress,
    Warning(&'a str),
    /// An error, or words of something between.
    Other,
}

fn sort(line: &str) -> Said<'_> {
    let Some(message) = line.strip_prefix("pg_dump: ") else {
        return if line.is_empty() {
            Said::Progress
        } else {
            Said::Other
        };
    };
    if let Some(name) = message.strip_prefix(TABLE) {
        return Said::Table(name.strip_suffix('"').unwrap_or(name));
    }
    if message.starts_with("warning: ") {
        return Said::Warning(line);
    }
    match ["error: ", "fatal: ", "detail: ", "hint: "]
        .iter()
        .any(|kind| message.starts_with(kind))
    {
        true => Said::Other,
        false => Said::Progress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_are_kept_and_tables_counted() {
        let said = "pg_dump: reading schemas\npg_dump: dumping contents of table \"public.a b\"\n\
            pg_dump: error: query failed: ERROR:  relation \"public.t\" does not exist\nLINE 1: LOCK\n\
            pg_dump: detail: Query was: LOCK\n\u{1b}[31mError from daemon";
        let progress = DumpProgress::new();
        let lines = read(said.as_bytes(), progress.clone()).await;
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[3].starts_with("\\u{1b}"));
        let step = progress.step();
        assert_eq!((step.tables, step.doing.as_str()), (1, "public.a b"));
        let failed = ProgramFailed {
            program: "pg_dump".into(),
            status: ExitStatus::default(),
            lines,
        };
        assert!(failed.met_a_change());
    }

    #[test]
    fn what_no_change_explains_is_not_tried_again() {
        let failed = ProgramFailed {
            program: "pg_dump".into(),
            status: ExitStatus::default(),
            lines: vec!["pg_dump: error: permission denied for table t".into()],
        };
        assert!(!failed.met_a_change());
        let error = failed.with_hint();
        assert!(crate::error::hints(&error)[0].contains("pg_read_all_data"));
    }
}
