//! What a recovering server tells of itself in its log (messages in English, `lc_messages=C`; the same in 13 to 18
//! where not said otherwise). Pure.

use serde::Serialize;

use crate::postgres::types::{Lsn, TimelineId};

/// What the log told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerLog {
    /// Where and why replay stopped, in the server's words.
    pub stopped: Option<String>,
    /// The last record applied begins here.
    pub redo_done: Option<Lsn>,
    /// Time of the last transaction replayed, as the server prints it.
    pub last_transaction: Option<String>,
    /// The timeline begun at the end of recovery.
    pub new_timeline: Option<TimelineId>,
    /// WAL files got from the repository.
    pub fetched: u64,
    pub phase: Phase,
    /// FATAL and PANIC lines with the HINT and DETAIL lines below them.
    pub fatal: Vec<String>,
    /// The last lines from `restore_command`, which begin with ERROR or HINT.
    pub command: Vec<String>,
    after_fatal: bool,
}

/// How far the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Recovering,
    /// At the target, read-only.
    Paused,
    /// At the target, stopped.
    ShutDown,
    /// Open for writing.
    Promoted,
}

/// Lines of `restore_command` that are kept.
const KEPT: usize = 10;

impl ServerLog {
    /// Reads one more line.
    pub fn read(&mut self, line: &str) {
        let Some((level, message)) = split(line) else {
            if line.starts_with("ERROR:") || line.starts_with("HINT:") {
                self.command.push(line.to_string());
                self.command.drain(..self.command.len().saturating_sub(KEPT));
            }
            return;
        };
        match level {
            "FATAL" | "PANIC" => self.fatal.push(format!("{level}:  {message}")),
            "HINT" | "DETAIL" if self.after_fatal => self.fatal.push(format!("{level}:  {message}")),
            "LOG" => self.log(message),
            _ => (),
        }
        self.after_fatal = matches!(level, "FATAL" | "PANIC") || self.after_fatal && matches!(level, "HINT" | "DETAIL");
    }

    fn log(&mut self, message: &str) {
        let after = |start: &str| message.strip_prefix(start);
        if message.starts_with("recovery stopping ") {
            self.stopped = Some(message.to_string());
        } else if let Some(rest) = after("redo done at ") {
            self.redo_done = rest.split(' ').next().and_then(|lsn| lsn.parse().ok());
        } else if let Some(rest) = after("last completed transaction was at log time ") {
            self.last_transaction = Some(rest.to_string());
        } else if let Some(rest) = after("selected new timeline ID: ") {
            self.new_timeline = rest.parse().ok().map(TimelineId);
        } else if message.starts_with("restored log file ") {
            self.fetched += 1;
        } else if message.starts_with("pausing at the end of recovery") || message.starts_with("recovery has paused") {
            self.phase = Phase::Paused;
        } else if message.starts_with("shutdown at recovery target") {
            self.phase = Phase::ShutDown;
        } else if message == "database system is ready to accept connections" {
            self.phase = Phase::Promoted;
        }
    }
}

/// Level and message of a line that begins with any log_line_prefix.
fn split(line: &str) -> Option<(&str, &str)> {
    const LEVELS: [&str; 8] = ["LOG", "FATAL", "PANIC", "HINT", "DETAIL", "WARNING", "ERROR", "STATEMENT"];
    let (at, level) = LEVELS
        .iter()
        .filter_map(|level| line.find(&format!("{level}:  ")).map(|at| (at, *level)))
        .min_by_key(|(at, _)| *at)?;
    Some((level, line[at + level.len() + 3..].trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ServerLog {
        let mut log = ServerLog::default();
        text.lines().for_each(|line| log.read(line));
        log
    }

    #[test]
    fn a_promotion_is_followed_to_its_end() {
        let log = read(
            "2026-01-01 00:00:00.000 UTC [7] LOG:  starting point-in-time recovery to 2026-01-01 00:00:00+00\n\
             2026-01-01 00:00:00.000 UTC [7] LOG:  restored log file \"000000010000000000000003\" from archive\n\
             2026-01-01 00:00:00.000 UTC [5] LOG:  database system is ready to accept read-only connections\n\
             2026-01-01 00:00:00.000 UTC [7] LOG:  recovery stopping before commit of transaction 740, time 2026-01-01 00:00:01+00\n\
             2026-01-01 00:00:00.000 UTC [7] LOG:  redo done at 0/3000A28 system usage: CPU: user: 0.00 s\n\
             2026-01-01 00:00:00.000 UTC [7] LOG:  last completed transaction was at log time 2026-01-01 00:00:00.5+00\n\
             2026-01-01 00:00:00.000 UTC [7] LOG:  selected new timeline ID: 2\n\
             2026-01-01 00:00:00.000 UTC [5] LOG:  database system is ready to accept connections\n",
        );
        assert_eq!((log.phase, log.fetched, log.new_timeline), (Phase::Promoted, 1, Some(TimelineId(2))));
        assert_eq!(log.redo_done, Some(Lsn(0x3000A28)));
        assert_eq!(log.last_transaction.as_deref(), Some("2026-01-01 00:00:00.5+00"));
        assert!(log.stopped.unwrap().starts_with("recovery stopping before commit of transaction 740"));
    }

    #[test]
    fn pause_and_shutdown_are_told_apart() {
        assert_eq!(read("x LOG:  pausing at the end of recovery\n").phase, Phase::Paused);
        assert_eq!(read("x LOG:  shutdown at recovery target\n").phase, Phase::ShutDown);
    }

    #[test]
    fn the_reason_of_a_failure_is_kept_with_what_belongs_to_it() {
        let log = read(
            "ERROR: WAL segment \"000000010000000000000004\" is missing\nHINT: look for it\n\
             x FATAL:  could not restore file \"000000010000000000000004\" from archive: child process exited with exit code 200\n\
             x DETAIL:  more\nx LOG:  startup process (PID 7) exited with exit code 1\nx HINT:  of something else\n",
        );
        assert_eq!(log.fatal.len(), 2, "{:?}", log.fatal);
        assert_eq!(log.command.len(), 2);
        assert_eq!(log.phase, Phase::Recovering);
    }
}
