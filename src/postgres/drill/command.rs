//! One's own test program, run with the way to the restored server in its environment.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::checks::check;
use super::database::Door;
use crate::evidence::record::{Check, Verdict};

const NAME: &str = "drill.command";
/// So much of its last words is kept.
const LAST_WORDS: usize = 500;

/// Runs it. Exit code 0 passes; a program that cannot be started could not run.
pub async fn run(door: &Door, program: &str, arguments: &[String], limit: Duration) -> Check {
    let socket = door.socket.display().to_string();
    let url = format!(
        "postgresql:///postgres?host={}&port={}&user={}",
        encoded(&socket),
        door.port,
        encoded(&door.user)
    );
    let mut command = Command::new(program);
    // PGHOSTADDR, PGSERVICE and others would lead elsewhere: to the source.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG"))
    {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .env("PGHOST", &socket)
        .env("PGPORT", door.port.to_string())
        .env("PGUSER", &door.user)
        .env("PGDATABASE", "postgres")
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match timeout(limit, command.output()).await {
        Err(_) => check(
            NAME,
            Verdict::Failed,
            format!("it was not over after {limit:?}"),
        ),
        Ok(Err(error)) => check(
            NAME,
            Verdict::CouldNotRun,
            format!("cannot run \"{program}\": {error}"),
        ),
        Ok(Ok(output)) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let words: Vec<char> = text.trim().chars().collect();
            let last: String = words[words.len().saturating_sub(LAST_WORDS)..]
                .iter()
                .collect();
            match output.status.success() {
                true => check(NAME, Verdict::Passed, last),
                false => check(NAME, Verdict::Failed, format!("{}: {last}", output.status)),
            }
        }
    }
}

/// A value in the query of a URL.
fn encoded(text: &str) -> String {
    serde_urlencoded::to_string([("", text)])
        .unwrap_or_default()
        .trim_start_matches('=')
        .replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_exit_code_decides_and_its_words_are_kept() {
        let door = Door {
            socket: "/a b".into(),
            port: 5433,
            user: "o&p".into(),
            options: String::new(),
        };
        let run = async |script: &str, limit| {
            run(&door, "sh", &["-c".into(), script.into()], limit).await
        };
        let minute = Duration::from_secs(60);
        let passed = run("echo $PGHOST $PGPORT $DATABASE_URL", minute).await;
        assert_eq!(passed.verdict, Verdict::Passed);
        assert_eq!(
            passed.seen,
            "/a b 5433 postgresql:///postgres?host=%2Fa%20b&port=5433&user=o%26p"
        );
        let failed = run("echo no orders >&2; exit 3", minute).await;
        assert!(
            failed.verdict == Verdict::Failed && failed.seen.ends_with("no orders"),
            "{failed:?}"
        );
        assert_eq!(
            run("sleep 60", Duration::from_millis(50)).await.verdict,
            Verdict::Failed
        );
        let missing = super::run(&door, "/no/such", &[], minute).await;
        assert_eq!(missing.verdict, Verdict::CouldNotRun);
    }
}
