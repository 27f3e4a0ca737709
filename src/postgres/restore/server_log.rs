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
    pub phase: StartPhase,
    /// The last FATAL and PANIC lines with the HINT and DETAIL lines below them.
    pub fatal: Vec<String>,
    /// Replay waits for higher settings (14 and newer, while read-only queries are possible): it does not go on.
    pub stuck: bool,
    /// What the server warns of that makes the result doubtful.
    pub doubts: Vec<String>,
    /// What it could not do, though it went on: such as to listen on an address. The last ones.
    pub errors: Vec<String>,
    /// The last lines from `restore_command`, which begin with ERROR or HINT.
    pub command: Vec<String>,
    after_fatal: bool,
}

/// How far the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartPhase {
    #[default]
    Recovering,
    /// At the target, read-only.
    Paused,
    /// At the target, stopped.
    ShutDown,
    /// Open for writing.
    Promoted,
}

/// Lines that are kept of each kind.
const KEPT: usize = 10;

impl ServerLog {
    /// Reads one more line.
    pub fn read(&mut self, line: &str) {
        let Some((level, message)) = split(line) else {
            if line.starts_with("ERROR:") || line.starts_with("HINT:") {
                keep(&mut self.command, line.to_string());
            }
            return;
        };
        let begins = match level {
            // Said to clients that are not let in: no reason of anything.
            "FATAL" => !message.starts_with("the database system is "),
            "PANIC" => true,
            "WARNING" => message == INSUFFICIENT,
            _ => false,
        };
        let belongs = matches!(level, "HINT" | "DETAIL") && self.after_fatal;
        if begins || belongs {
            keep(&mut self.fatal, format!("{level}:  {message}"));
        }
        if matches!(level, "LOG" | "WARNING") && message.starts_with("could not ") {
            keep(&mut self.errors, format!("{level}:  {message}"));
        }
        match level {
            "LOG" => self.log(message),
            "WARNING" if message.starts_with("WAL was generated with wal_level=minimal") => {
                keep(&mut self.doubts, message.to_string());
            }
            _ => (),
        }
        self.after_fatal = begins || belongs;
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
        } else if message.starts_with("pausing at the end of recovery") {
            self.phase = StartPhase::Paused;
        } else if message.starts_with("recovery has paused") {
            // Before the target. Somebody may have asked for it by SQL, who can have it go on.
            self.stuck = self.fatal.iter().any(|line| line.ends_with(INSUFFICIENT));
        } else if message.starts_with("shutdown at recovery target") {
            self.phase = StartPhase::ShutDown;
        } else if message == "database system is ready to accept connections" {
            self.phase = StartPhase::Promoted;
        }
    }
}

/// A warning of 14 and newer; as FATAL it has other words.
const INSUFFICIENT: &str = "hot standby is not possible because of insufficient parameter settings";

fn keep(lines: &mut Vec<String>, line: String) {
    lines.push(line);
    lines.drain(..lines.len().saturating_sub(KEPT));
}

/// Level and message of a line that begins with any log_line_prefix.
fn split(line: &str) -> Option<(&str, &str)> {
    const LEVELS: [&str; 8] = [
        "LOG",
        "FATAL",
        "PANIC",
        "HINT",
        "DETAIL",
        "WARNING",
        "ERROR",
        "STATEMENT",
    ];
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
        assert_eq!(
            (log.phase, log.fetched, log.new_timeline),
            (StartPhase::Promoted, 1, Some(TimelineId(2)))
        );
        assert_eq!(log.redo_done, Some(Lsn(0x3000A28)));
        assert_eq!(
            log.last_transaction.as_deref(),
            Some("2026-01-01 00:00:00.5+00")
        );
        assert!(
            log.stopped
                .unwrap()
                .starts_with("recovery stopping before commit of transaction 740")
        );
    }

    #[test]
    fn an_address_of_another_machine_is_kept_for_the_failure() {
        let log = read(
            "x LOG:  could not bind IPv4 address \"10.9.8.7\": Cannot assign requested address\n\
             x WARNING:  could not create listen socket for \"10.9.8.7\"\n\
             x FATAL:  could not create any TCP/IP sockets\n",
        );
        assert_eq!((log.errors.len(), log.fatal.len()), (2, 1));
        assert!(
            log.errors.iter().all(|line| line.contains("10.9.8.7")),
            "{:?}",
            log.errors
        );
    }

    #[test]
    fn pause_and_shutdown_are_told_apart() {
        assert_eq!(
            read("x LOG:  pausing at the end of recovery\n").phase,
            StartPhase::Paused
        );
        assert_eq!(
            read("x LOG:  shutdown at recovery target\n").phase,
            StartPhase::ShutDown
        );
    }

    #[test]
    fn a_pause_for_want_of_higher_settings_is_not_the_target() {
        let log = read(
            "x WARNING:  hot standby is not possible because of insufficient parameter settings\n\
             x DETAIL:  max_connections = 30 is a lower setting than on the primary server, where its value was 60.\n\
             x LOG:  recovery has paused\nx DETAIL:  If recovery is unpaused, the server will shut down.\n",
        );
        assert_eq!((log.phase, log.stuck), (StartPhase::Recovering, true));
        assert!(
            log.fatal[1].contains("max_connections = 30"),
            "{:?}",
            log.fatal
        );
        assert_eq!(log.fatal.len(), 2);
    }

    #[test]
    fn clients_that_are_turned_away_leave_no_trace() {
        let mut text = "x FATAL:  no space\n".to_string();
        for _ in 0..100 {
            text.push_str("x FATAL:  the database system is not yet accepting connections\nx DETAIL:  Wait.\n");
        }
        assert_eq!(read(&text).fatal, ["FATAL:  no space"]);
        assert_eq!(read(&"x FATAL:  no space\n".repeat(100)).fatal.len(), KEPT);
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
        assert_eq!(log.phase, StartPhase::Recovering);
    }
}
