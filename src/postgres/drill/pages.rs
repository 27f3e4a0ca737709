//! The checksums of all pages of a restored cluster, by PostgreSQL's own program.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

use super::checks::check;
use super::scratch::stop_server;
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::postgres::types::ControlFile;

const NAME: &str = "page checksums";
const PROGRAM: &str = "pg_checksums";

/// Stops the server and reads all pages. `limit`: how long that may take.
pub async fn check_pages(programs: &Path, data: &Path, limit: Duration) -> Check {
    let could_not = |seen: String| check(NAME, Verdict::CouldNotRun, seen);
    if let Err(error) = stop_server(data, Signal::INT).await {
        return could_not(one_line(&error));
    }
    let control = std::fs::read(data.join("global/pg_control"));
    let control = control
        .ok()
        .and_then(|bytes| ControlFile::parse(&bytes).ok());
    if control.is_some_and(|control| control.data_checksum_version == 0) {
        return could_not("the cluster has none".into());
    }
    let mut command = Command::new(programs.join(PROGRAM));
    command.arg("--check").arg("--pgdata").arg(data);
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match timeout(limit, command.output()).await {
        Err(_) => could_not(format!("not over in the time there was, {limit:?}")),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
            could_not(format!("{PROGRAM} is not installed here"))
        }
        Ok(Err(error)) => could_not(format!("cannot run {PROGRAM}: {error}")),
        Ok(Ok(output)) => {
            let said = [output.stderr, output.stdout].concat();
            let (verdict, seen) = judge(output.status.success(), &String::from_utf8_lossy(&said));
            check(NAME, verdict, seen)
        }
    }
}

/// What the program's words mean.
fn judge(success: bool, said: &str) -> (Verdict, String) {
    let line = |part: &str| said.lines().find(|line| line.contains(part));
    let count = |part: &str| line(part)?.rsplit(' ').next();
    if success {
        let pages = count("Blocks scanned:").unwrap_or("all");
        return (Verdict::Passed, format!("{pages} pages"));
    }
    let wrong = ["checksum verification failed", "could not read block"];
    match wrong.iter().find_map(|part| line(part)) {
        Some(first) => {
            let bad = count("Bad checksums:").unwrap_or("some");
            (Verdict::Failed, format!("{bad} wrong pages; {first}"))
        }
        None => (Verdict::CouldNotRun, said.trim().replace('\n', " | ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_page_fails_and_a_program_that_does_not_fit_could_not_run() {
        let counts = "Files scanned:   917\nBlocks scanned:  2746\nBad checksums:  ";
        let passed = judge(true, &format!("Checksum operation completed\n{counts}0\n"));
        assert_eq!(passed, (Verdict::Passed, "2746 pages".into()));
        let wrong = "pg_checksums: error: checksum verification failed in file \"base/5/16384\", block 0: calculated \
                     checksum 1 but block contains 2\n";
        let failed = judge(
            false,
            &format!("{wrong}Checksum operation completed\n{counts}1\n"),
        );
        assert_eq!(failed.0, Verdict::Failed);
        assert!(
            failed.1.starts_with("1 wrong pages; ") && failed.1.contains("base/5/16384"),
            "{failed:?}"
        );
        let cut = "pg_checksums: error: could not read block 3 in file \"base/5/1259\": read 4096 of 8192\n";
        assert_eq!(judge(false, cut).0, Verdict::Failed);
        let other = "pg_checksums: error: cluster must be shut down\n";
        assert_eq!(judge(false, other).0, Verdict::CouldNotRun);
    }
}
