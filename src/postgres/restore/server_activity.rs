//! Whether a server that recovers still does something: nothing it does takes this long without a trace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often traces are looked for: at least so many times until the server is given up, and
const CHECKS: u32 = 10;
/// not less often than that.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes that idle processes do not read or write within the limit, and ticks of the clock that they do not use.
const COARSE_BYTES: u64 = 1 << 20;
const COARSE_TICKS: u64 = 500;

/// What work leaves: its sum differs once something happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Traces {
    /// Bytes of the log.
    log: u64,
    /// When pg_control was written.
    control: (i64, i64),
    /// What the server's processes used.
    bytes: u64,
    ticks: u64,
}

/// Since when nothing happened.
#[derive(Debug)]
pub struct ServerActivity {
    /// Without a trace of work for so long, the server is given up.
    patience: Duration,
    traces: Traces,
    since: Instant,
    looked: Option<Instant>,
}

impl ServerActivity {
    /// A server that shows no trace of work yet.
    pub fn new(now: Instant, patience: Duration) -> Self {
        Self {
            patience,
            traces: Traces::default(),
            since: now,
            looked: None,
        }
    }

    /// Looks for traces; true when there were none for too long.
    pub fn has_stopped(
        &mut self,
        now: Instant,
        data_directory: &Path,
        log: &Path,
        server: u32,
    ) -> bool {
        let every = EVERY.min(self.patience / CHECKS);
        if self
            .looked
            .is_none_or(|looked| now.saturating_duration_since(looked) >= every)
        {
            self.looked = Some(now);
            self.take(now, traces(data_directory, log, server));
        }
        now - self.since >= self.patience
    }

    fn take(&mut self, now: Instant, traces: Traces) {
        if traces != self.traces {
            (self.traces, self.since) = (traces, now);
        }
    }
}

fn traces(data_directory: &Path, log: &Path, server: u32) -> Traces {
    let size = fs::metadata(log).map(|meta| meta.len()).unwrap_or_default();
    let control = fs::metadata(data_directory.join(super::names::PG_CONTROL));
    let control = control
        .map(|meta| (meta.mtime(), meta.mtime_nsec()))
        .unwrap_or_default();
    let (bytes, ticks) = used(server);
    Traces {
        log: size,
        control,
        bytes: bytes / COARSE_BYTES,
        ticks: ticks / COARSE_TICKS,
    }
}

/// Bytes and ticks that a process and its descendants used. Each child of the server has a session and a process group
/// of its own: only the parents tell whose they are.
fn used(server: u32) -> (u64, u64) {
    let stat = |entry: fs::DirEntry| {
        ServerProcess::parse(&fs::read_to_string(entry.path().join("stat")).ok()?)
    };
    let processes: Vec<ServerProcess> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(stat)
        .collect();
    let (mut bytes, mut ticks) = (0, 0);
    for process in family(&processes, server) {
        ticks += process.ticks;
        let io = fs::read_to_string(format!("/proc/{}/io", process.id)).unwrap_or_default();
        let counts = io
            .lines()
            .filter(|line| line.starts_with("rchar") || line.starts_with("wchar"));
        bytes += counts
            .filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
            .sum::<u64>();
    }
    (bytes, ticks)
}

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ServerProcess {
    id: u32,
    parent: u32,
    /// Used by it and by children that ended, such as a restore_command.
    ticks: u64,
}

impl ServerProcess {
    /// The name, in parentheses, may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let id = stat.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = fields
            .get(11..15)?
            .iter()
            .map(|field| field.parse::<u64>().ok())
            .sum::<Option<u64>>()?;
        Some(Self {
            id,
            parent: fields.get(1)?.parse().ok()?,
            ticks,
        })
    }
}

/// A process and its descendants.
fn family(processes: &[ServerProcess], first: u32) -> Vec<&ServerProcess> {
    let mut family: Vec<&ServerProcess> = processes
        .iter()
        .filter(|process| process.id == first)
        .collect();
    let mut at = 0;
    while let Some(parent) = family.get(at).map(|process| process.id) {
        family.extend(
            processes
                .iter()
                .filter(|process| process.parent == parent && process.id != first),
        );
        at += 1;
    }
    family
}

/// What `postmaster.pid` says of the server with this process id: `starting`, `stopping`, `ready` or `standby`
/// (pidfile.h).
pub fn status(postmaster_pid: &str, pid: u32) -> Option<&str> {
    let mut lines = postmaster_pid.lines();
    (lines.next()?.trim().parse() == Ok(pid)).then_some(())?;
    lines.nth(6).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    #[test]
    fn a_server_is_given_up_once_nothing_changed_for_long() {
        let begun = Instant::now();
        let mut moving = ServerActivity::new(begun, Duration::from_secs(600));
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let gone = Path::new("/nonexistent");
        moving.take(
            at(1),
            Traces {
                ticks: 1,
                ..Traces::default()
            },
        );
        moving.take(
            at(500),
            Traces {
                ticks: 2,
                ..Traces::default()
            },
        );
        moving.looked = Some(at(100_000));
        assert!(
            !moving.has_stopped(at(1000), gone, gone, 0),
            "it worked 500 s ago"
        );
        moving.take(
            at(1001),
            Traces {
                ticks: 2,
                ..Traces::default()
            },
        );
        assert!(moving.has_stopped(at(1100), gone, gone, 0));
    }

    #[test]
    fn a_family_is_known_by_its_parents() {
        let stats = [
            "42 (a) b) S 1 42 42 0 -1 0 0 0 0 0 30 12 5 3 0",
            "9 (startup) R 42 9 9 0 -1 0 0 0 0 0 7 0 0 0 0",
            "8 (sh) R 9 8 8 0 -1 0 0 0 0 0 1 0 0 0 0",
            "7 (other) R 1 42 42 0 -1 0 0 0 0 0 1 0 0 0 0",
        ];
        let processes: Vec<ServerProcess> = stats
            .iter()
            .filter_map(|stat| ServerProcess::parse(stat))
            .collect();
        let ticks: Vec<u64> = family(&processes, 42)
            .iter()
            .map(|process| process.ticks)
            .collect();
        assert_eq!(ticks, [50, 7, 1]);
        assert_eq!(
            (family(&processes, 3).len(), ServerProcess::parse("")),
            (0, None)
        );
    }

    #[test]
    fn work_of_a_child_in_its_own_session_leaves_traces() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::{Command, Stdio};
        let work = "setsid sh -c 'read go; head -c 8000000 /dev/zero | cat >/dev/null; echo done; read end'";
        // A first shell as the server: its child has another session, as a server's has.
        let command = format!("{work}; true");
        let mut shell = Command::new("sh");
        let shell = shell
            .args(["-c", &command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut shell = shell.spawn().unwrap();
        let before = used(shell.id());
        let mut input = shell.stdin.take().unwrap();
        writeln!(input, "go").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let after = used(shell.id());
        writeln!(input, "end").unwrap();
        shell.wait().unwrap();
        assert!(after.0 > before.0 + 8_000_000, "{before:?} {after:?}");
    }

    #[test]
    fn the_status_counts_only_for_the_server_that_was_started() {
        let file = "42\n/data\n1767225600\n5432\n/tmp\n*\n  5432001        98\nready   \n";
        assert_eq!(
            (
                status(file, 42),
                status(file, 43),
                status("42\n/data\n", 42)
            ),
            (Some("ready"), None, None)
        );
    }
}
