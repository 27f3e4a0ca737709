//! The runner's side of a job's child process: our own executable with a verb.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, setpriority_process};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::task::JoinHandle;

use super::clock::Boot;
use super::permit;

/// How much lower its priority is: archiving comes first.
const NICE: i32 = 10;
/// Bytes kept of the end of what it prints.
const KEPT: usize = 8 << 10;
/// Who still holds its output when it has ended is not waited for.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// This program as it runs, also when its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

/// How children are started.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: OsString,
    /// Before the job's own arguments.
    pub leading: Vec<OsString>,
}

impl Launch {
    /// Our own executable, with arguments that come before the job's own.
    pub fn ourselves(leading: Vec<OsString>) -> Self {
        Self {
            program: OURSELVES.into(),
            leading,
        }
    }
}

/// How a child ended.
#[derive(Debug)]
pub struct ChildEnd {
    pub status: ExitStatus,
    /// The end of what it printed.
    pub output: String,
    /// The end of what it logged.
    pub log: String,
}

impl ChildEnd {
    /// Why it did not succeed: its last error with its hints, else how it ended.
    pub fn why(&self) -> String {
        let lines: Vec<&str> = self.log.lines().collect();
        if let Some(at) = lines.iter().rposition(|line| line.starts_with("ERROR: ")) {
            let hints = lines[at + 1..]
                .iter()
                .take_while(|line| line.starts_with("HINT: "));
            let error = lines[at].trim_start_matches("ERROR: ");
            return std::iter::once(&error)
                .chain(hints)
                .copied()
                .collect::<Vec<_>>()
                .join("\n");
        }
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("it ended with exit code {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended in an unknown way".into(),
        }
    }
}

/// A job's child process, and all that it starts.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    pid: Option<Pid>,
    input: Option<ChildStdin>,
    output: JoinHandle<String>,
    log: JoinHandle<String>,
}

impl Child {
    /// Starts it; it may write until then.
    pub async fn start(launch: &Launch, arguments: &[String], until: Boot) -> io::Result<Self> {
        let mut process = Command::new(&launch.program)
            .arg0("walden")
            .args(&launch.leading)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = process
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // Its threads come later and inherit it.
        let _ = setpriority_process(pid, NICE);
        let missing = || io::Error::other("a pipe to the child is missing");
        let output = process.stdout.take().ok_or_else(missing)?;
        let log = process.stderr.take().ok_or_else(missing)?;
        let mut child = Self {
            pid,
            input: process.stdin.take(),
            output: tokio::spawn(keep_end(output, false)),
            log: tokio::spawn(keep_end(log, true)),
            process,
        };
        child.allow(until).await;
        Ok(child)
    }

    /// It may write until then.
    pub async fn allow(&mut self, until: Boot) {
        // A child that ended reads no more, which its end will tell.
        if let Some(input) = &mut self.input {
            let _ = input.write_all(permit::line(until).as_bytes()).await;
        }
    }

    /// Waits for its end. Can be given up and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Asks it to end, as an operator would.
    pub fn terminate(&self) {
        if let Some(pid) = self.pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it with all that it started.
    pub fn kill(&self) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// What it left, once it has ended. Whatever it started and left behind ends, too.
    pub async fn end(self, status: ExitStatus) -> ChildEnd {
        self.kill();
        let text = async |kept: JoinHandle<String>| {
            let kept = tokio::time::timeout(LAST_OUTPUT, kept).await;
            kept.ok().and_then(Result::ok).unwrap_or_default()
        };
        ChildEnd {
            status,
            output: text(self.output).await,
            log: text(self.log).await,
        }
    }
}

/// Reads all, passes it on to our own log or not, and keeps the end, whole lines of it.
async fn keep_end(mut from: impl AsyncRead + Unpin, passes_on: bool) -> String {
    let (mut kept, mut buffer, mut is_cut) = (Vec::new(), vec![0; 4 << 10], false);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..length]);
        if passes_on {
            let _ = io::stderr().write_all(&buffer[..length]);
        }
        if kept.len() > 2 * KEPT {
            is_cut = true;
            kept.drain(..kept.len() - KEPT);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let from = text.len().saturating_sub(KEPT);
    is_cut |= from > 0;
    let from = (from..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    match text[from..].split_once('\n') {
        Some((_, whole)) if is_cut => whole.to_string(),
        _ => text[from..].to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_much_output_whole_lines_of_the_end_are_kept() {
        let lines: String = (0..10_000).map(|n| format!("line {n} ä\n")).collect();
        let kept = keep_end(lines.as_bytes(), false).await;
        assert!(kept.len() <= KEPT && kept.len() > KEPT / 2 && kept.starts_with("line "));
        assert!(kept.ends_with("line 9999 ä\n"));
        assert_eq!(keep_end(&b"one\ntwo"[..], false).await, "one\ntwo");
    }

    #[test]
    fn why_is_the_last_error_with_its_hints() {
        let end = |log: &str| ChildEnd {
            status: ExitStatus::from_raw(1 << 8),
            output: String::new(),
            log: log.into(),
        };
        let log =
            "ERROR: first\nHINT: no\n2026 INFO x\nERROR: second: why\nHINT: do\nHINT: this\nrest\n";
        assert_eq!(end(log).why(), "second: why\nHINT: do\nHINT: this");
        assert_eq!(end("2026 WARN x\n").why(), "it ended with exit code 1");
        let killed = ChildEnd {
            status: ExitStatus::from_raw(9),
            ..end("")
        };
        assert_eq!(killed.why(), "it was ended by signal 9");
    }
}
