//! Runs `pg_restore` or `psql` to its end: fed, watched, ended with all its workers when nobody waits for it any more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, anyhow};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};

use super::source::ScriptText;
use crate::error::{Hint, with_hint};
use crate::postgres::dump::programs::Running;

/// Bytes of what a program complains that are kept: the first error counts.
const MOST_STDERR: usize = 64 << 10;
/// Bytes of an error that are told.
const MOST_TOLD: usize = 1200;

/// What a program reads.
pub enum Feed {
    Nothing,
    /// A file, by the program itself.
    File(File),
    /// A script that is unpacked on its way.
    Script(ScriptText),
}

/// A program that fills a database ended with an error.
#[derive(Debug, thiserror::Error)]
#[error("{program} failed: {said}")]
pub struct FillFailed {
    pub program: String,
    pub said: String,
}

/// Runs a program to its end, or until `ended` completes: then it is killed with its workers. Errors: what it said.
pub async fn run(
    mut command: Command,
    feed: Feed,
    ended: impl Future<Output = anyhow::Error>,
) -> anyhow::Result<()> {
    let name = command.as_std().get_program().to_os_string();
    let name = std::path::Path::new(&name)
        .file_name()
        .unwrap_or(&name)
        .to_string_lossy()
        .into_owned();
    let (stdin, script) = match feed {
        Feed::Nothing => (Stdio::null(), None),
        Feed::File(file) => (file.into(), None),
        Feed::Script(text) => (Stdio::piped(), Some(text)),
    };
    command
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = Running::start(command)
        .with_context(|| format!("cannot run {name}"))
        .hint("install the client programs of the server's major version, or name their folder in `dump.programs`")?;
    let stderr = running
        .child
        .stderr
        .take()
        .context("a program without standard error")?;
    let stdin = running.child.stdin.take();
    let fed = async {
        let (Some(text), Some(stdin)) = (script, stdin) else {
            return anyhow::Ok(());
        };
        let to = File::from(stdin.into_owned_fd()?);
        tokio::task::spawn_blocking(move || write_script(text, to)).await?
    };
    let work = async { tokio::join!(running.wait(), complaints(stderr), fed) };
    let (status, said, fed) = tokio::select! {
        done = work => done,
        why = ended => return Err(why),
    };
    let status = status.with_context(|| format!("cannot wait for {name}"))?;
    match status.success() {
        true => fed.context("cannot read the script to its end"),
        false => Err(failure(&name, status, &said)),
    }
}

fn write_script(mut text: ScriptText, mut to: File) -> anyhow::Result<()> {
    match io::copy(&mut text.from, &mut to).and_then(|_| to.flush()) {
        // The program ended before: it says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        copied => copied?,
    }
    text.finish()
}

async fn complaints(mut stderr: ChildStderr) -> String {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let room = MOST_STDERR - kept.len();
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn failure(name: &str, status: ExitStatus, said: &str) -> anyhow::Error {
    if let Some(signal) = status.signal() {
        return anyhow!("{name} was ended by signal {signal}");
    }
    let (told, hint) = first_error(said);
    let error = match told.is_empty() {
        true => anyhow!("{name} failed ({status})"),
        false => {
            let (program, said) = (name.to_string(), told);
            FillFailed { program, said }.into()
        }
    };
    match hint {
        Some(hint) => with_hint(error, hint),
        None => error,
    }
}

/// The first error in what `pg_restore` or `psql` said with the lines that belong to it, and the server's hint.
fn first_error(said: &str) -> (String, Option<String>) {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let is_error = |line: &&str| line.to_lowercase().contains("error:") || line.contains("FATAL:");
    let begins = lines.iter().position(is_error).unwrap_or_default();
    let belongs = |line: &&str| {
        let words = ["DETAIL:", "CONTEXT:", "Command was:", "LINE "];
        words.iter().any(|word| line.trim_start().starts_with(word))
    };
    let rest = lines.iter().skip(begins + 1).take(6);
    let hint = rest.clone().find_map(|line| line.strip_prefix("HINT:"));
    let details = rest.filter(|line| belongs(line)).map(|line| line.trim());
    let told: Vec<&str> = lines
        .get(begins)
        .copied()
        .into_iter()
        .chain(details)
        .collect();
    let told = told.join("; ");
    let end = told
        .char_indices()
        .map(|(at, _)| at)
        .find(|at| *at >= MOST_TOLD);
    let told = told[..end.unwrap_or(told.len())].to_string();
    (told, hint.map(|hint| hint.trim().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::one_line;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn said(script: &str) -> String {
        let never = std::future::pending();
        let error = run(shell(script), Feed::Nothing, never).await.unwrap_err();
        one_line(&error)
    }

    #[tokio::test]
    async fn a_failure_tells_the_first_error_and_what_belongs_to_it() {
        let script = "echo 'pg_restore: warning: x' >&2; echo 'pg_restore: error: could not execute query: ERROR:  no such type' >&2; \
                      echo 'LINE 3: a b' >&2; echo 'Command was: CREATE TABLE x' >&2; echo 'error: later' >&2; exit 1";
        assert_eq!(
            said(script).await,
            "sh failed: pg_restore: error: could not execute query: ERROR:  no such type; LINE 3: a b; Command was: CREATE \
             TABLE x"
        );
        assert_eq!(said("kill -9 $$").await, "sh was ended by signal 9");
        assert_eq!(said("exit 3").await, "sh failed (exit status: 3)");
        run(shell("exit 0"), Feed::Nothing, std::future::pending())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_given_up_is_not_waited_for() {
        let ended = async { anyhow!("given up") };
        let error = run(shell("sleep 1000"), Feed::Nothing, ended)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "given up");
    }
}
