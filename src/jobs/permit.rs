//! The child's side: it may write as long as its runner has the lease.
//!
//! The runner says on the child's standard input until when that is, a line each time, by CLOCK_BOOTTIME, which both have
//! in common. When the runner dies, is stopped, or loses the lease, the child has nothing newer: it writes no more from
//! that moment on, also when it was stopped itself and wakes up late, and it ends.

use std::io::{self, BufRead};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::{Signal, getpgrp, getpid, kill_process, kill_process_group};

use super::clock::{Boot, Clock, MachineClock};
use crate::error::with_hint;
use crate::storage::WritePermit;

/// For ending by itself; then it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Until when this process may write.
#[derive(Debug, Default)]
pub struct Permit(AtomicU64);

impl Permit {
    fn until(&self) -> Boot {
        Boot::after(Duration::from_nanos(self.0.load(Ordering::SeqCst)))
    }

    fn extend(&self, nanoseconds: u64) {
        self.0.fetch_max(nanoseconds, Ordering::SeqCst);
    }

    fn left(&self) -> Duration {
        self.until().since(MachineClock.boot())
    }
}

impl WritePermit for Permit {
    fn check(&self) -> anyhow::Result<()> {
        match self.left().is_zero() {
            false => Ok(()),
            true => Err(with_hint(
                anyhow!("the lease of this job is lost: nothing more is written"),
                "see who runs it: `walden jobs list`",
            )),
        }
    }
}

static OF_PROCESS: OnceLock<Arc<Permit>> = OnceLock::new();

/// The permit that this process depends on, if it is a job's child.
pub fn of_process() -> Option<Arc<dyn WritePermit>> {
    let permit = OF_PROCESS.get()?;
    Some(permit.clone())
}

/// What the runner writes for the child.
pub fn line(until: Boot) -> String {
    format!("{}\n", until.elapsed().as_nanos())
}

/// Makes this process depend on what its runner says. Errors: nothing is said.
pub fn depend_on_runner() -> anyhow::Result<()> {
    let permit = Arc::new(Permit::default());
    let first = read_line(&mut io::stdin().lock());
    permit.extend(first.context("a job's child is told on standard input how long it may write")?);
    let (said, heard) = mpsc::channel();
    let (reading, watched) = (permit.clone(), permit.clone());
    let reader = std::thread::Builder::new().name("permit".into());
    reader.spawn(move || {
        let mut lines = io::stdin().lock();
        while let Some(until) = read_line(&mut lines) {
            reading.extend(until);
            if said.send(()).is_err() {
                break;
            }
        }
    })?;
    let watcher = std::thread::Builder::new().name("permit-end".into());
    watcher.spawn(move || {
        while heard_in_time(&heard, watched.left()) {}
        end();
    })?;
    let _ = OF_PROCESS.set(permit);
    Ok(())
}

/// `None`: the runner is gone.
fn read_line(lines: &mut impl BufRead) -> Option<u64> {
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    line.trim_end().parse().ok()
}

/// Whether the runner said something, and time is left.
fn heard_in_time(heard: &Receiver<()>, left: Duration) -> bool {
    match heard.recv_timeout(left) {
        Ok(()) => true,
        Err(RecvTimeoutError::Timeout) => !left.is_zero(),
        Err(RecvTimeoutError::Disconnected) => false,
    }
}

/// Ends this process as an operator would, then with all that it started.
fn end() {
    let own = getpid();
    let _ = kill_process(own, Signal::TERM);
    std::thread::sleep(GRACE);
    // Of a group of our own alone: the terminal's is not ours to kill.
    if getpgrp() == own {
        let _ = kill_process_group(own, Signal::KILL);
    }
    let _ = kill_process(own, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_ends_by_itself_and_is_never_shortened() {
        let permit = Permit::default();
        assert!(permit.check().is_err());
        let soon = MachineClock.boot().plus(Duration::from_secs(60));
        let said = read_line(&mut line(soon).as_bytes()).unwrap();
        permit.extend(said);
        permit.extend(1);
        assert!(permit.check().is_ok() && permit.until() == soon);
        let over = Permit::default();
        over.extend(1);
        assert!(over.check().unwrap_err().to_string().contains("lease"));
    }

    #[test]
    fn a_runner_that_is_gone_says_nothing() {
        assert_eq!(read_line(&mut &b""[..]), None);
        assert_eq!(read_line(&mut &b"nonsense\n"[..]), None);
        let (said, heard) = mpsc::channel();
        said.send(()).unwrap();
        assert!(heard_in_time(&heard, Duration::ZERO));
        assert!(!heard_in_time(&heard, Duration::ZERO), "time is up");
        assert!(
            heard_in_time(&heard, Duration::from_millis(1)),
            "to be looked at again"
        );
        drop(said);
        assert!(!heard_in_time(&heard, Duration::from_secs(60)));
    }
}
