//! Whether a server that recovers still does something: nothing it does takes this long without a trace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Without a trace of work for so long, the server is given up.
pub const LIMIT: Duration = Duration::from_secs(600);
/// How often traces are looked for.
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
pub struct Moving {
    traces: Traces,
    since: Instant,
    looked: Instant,
}

impl Moving {
    /// From now on.
    pub fn new(now: Instant) -> Self {
        Self { traces: Traces::default(), since: now, looked: now - EVERY }
    }

    /// Looks for traces; true when there were none for too long.
    pub fn has_stopped(&mut self, now: Instant, data_directory: &Path, log: &Path, group: u32) -> bool {
        if now - self.looked >= EVERY {
            self.looked = now;
            self.take(now, traces(data_directory, log, group));
        }
        now - self.since >= LIMIT
    }

    fn take(&mut self, now: Instant, traces: Traces) {
        if traces != self.traces {
            (self.traces, self.since) = (traces, now);
        }
    }
}

fn traces(data_directory: &Path, log: &Path, group: u32) -> Traces {
    let size = fs::metadata(log).map(|meta| meta.len()).unwrap_or_default();
    let control = fs::metadata(data_directory.join(super::files::PG_CONTROL));
    let control = control.map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap_or_default();
    let (mut bytes, mut ticks) = (0, 0);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let Some(used) = ticks_of(&stat, group) else { continue };
        ticks += used;
        let io = fs::read_to_string(process.path().join("io")).unwrap_or_default();
        let counts = io.lines().filter(|line| line.starts_with("rchar") || line.starts_with("wchar"));
        bytes += counts.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).sum::<u64>();
    }
    Traces { log: size, control, bytes: bytes / COARSE_BYTES, ticks: ticks / COARSE_TICKS }
}

/// From `/proc/PID/stat`: ticks that a process of a group used. Its name, in parentheses, may hold anything.
fn ticks_of(stat: &str, group: u32) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    (number(2)? == u64::from(group)).then_some(number(11)? + number(12)?)
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
    use super::*;

    #[test]
    fn a_server_is_given_up_once_nothing_changed_for_long() {
        let begun = Instant::now();
        let mut moving = Moving::new(begun);
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let gone = Path::new("/nonexistent");
        moving.take(at(1), Traces { ticks: 1, ..Traces::default() });
        moving.take(at(500), Traces { ticks: 2, ..Traces::default() });
        moving.looked = at(100_000);
        assert!(!moving.has_stopped(at(1000), gone, gone, 0), "it worked 500 s ago");
        moving.take(at(1001), Traces { ticks: 2, ..Traces::default() });
        assert!(moving.has_stopped(at(1100), gone, gone, 0));
    }

    #[test]
    fn work_of_a_group_leaves_traces() {
        let stat = "7 (a) b) S 1 42 42 0 -1 0 0 0 0 0 30 12 0 0";
        assert_eq!((ticks_of(stat, 42), ticks_of(stat, 7), ticks_of("", 42)), (Some(42), None, None));
    }

    #[test]
    fn the_status_counts_only_for_the_server_that_was_started() {
        let file = "42\n/data\n1767225600\n5432\n/tmp\n*\n  5432001        98\nready   \n";
        assert_eq!((status(file, 42), status(file, 43), status("42\n/data\n", 42)), (Some("ready"), None, None));
    }
}
