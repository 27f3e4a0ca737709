//! One's own test program, run with the way to the restored server in its environment.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::checks::check;
use super::database::{Access, Door};
use crate::evidence::record::{Check, Verdict};
use crate::postgres::dump::programs::Running;

const NAME: &str = "drill.command";
/// So much of its last words is kept.
const LAST_WORDS: usize = 500;
/// How long the rest of them may take to come.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// How often to look whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// What is run, and how long it may take.
pub struct Program<'a> {
    /// Its name and its arguments; none where there is no program.
    pub line: &'a [String],
    pub limit: Duration,
    /// What its sessions may do, unless it says otherwise.
    pub access: Access,
}

impl Program<'_> {
    /// Runs it against a database, then `then` beside all that it started, which ends after that. Exit code 0 passes; a
    /// program that cannot be started could not run.
    pub async fn run(
        &self,
        door: &Door,
        database: &str,
        then: impl Future<Output = Vec<Check>>,
    ) -> Vec<Check> {
        let [name, arguments @ ..] = self.line else {
            return then.await;
        };
        let mut command = command(door, database, name, arguments);
        if self.access == Access::ReadOnly {
            command.env("PGOPTIONS", self.access.read_only());
        }
        let (own, mut checks) = match Running::start(command) {
            Ok(running) => to_its_end(running, self.limit, then).await,
            Err(error) => (Ended::Lost(error), then.await),
        };
        checks.insert(0, own.check(name, self.limit));
        checks
    }
}

/// What became of it.
enum Ended {
    Late,
    Lost(std::io::Error),
    With(ExitStatus, String),
}

impl Ended {
    fn check(self, program: &str, limit: Duration) -> Check {
        match self {
            Self::Late => check(
                NAME,
                Verdict::Failed,
                format!("it was not over after {limit:?}"),
            ),
            Self::Lost(error) => {
                let seen = format!("cannot run \"{program}\": {error}");
                check(NAME, Verdict::CouldNotRun, seen)
            }
            Self::With(status, last) if status.success() => check(NAME, Verdict::Passed, last),
            Self::With(status, last) => check(NAME, Verdict::Failed, format!("{status}: {last}")),
        }
    }
}

fn command(door: &Door, database: &str, program: &str, arguments: &[String]) -> Command {
    let socket = door.socket.display().to_string();
    let url = format!(
        "postgresql:///{}?host={}&port={}&user={}",
        encoded(database),
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
        .env("PGDATABASE", database)
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for it, has `then` done, then ends what it left running, and so its pipes.
async fn to_its_end(
    mut running: Running,
    limit: Duration,
    then: impl Future<Output = Vec<Check>>,
) -> (Ended, Vec<Check>) {
    let (out, err) = (running.child.stdout.take(), running.child.stderr.take());
    let mut words = JoinSet::new();
    words.spawn(async move { tokio::join!(last_words(out), last_words(err)) });
    let group = running
        .child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()));
    let ended = timeout(limit, async {
        // While its end is not taken note of, its number is nobody else's.
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while let Some(group) = group
            && waitid(WaitId::Pid(group), how)?.is_none()
        {
            sleep(LOOK).await;
        }
        std::io::Result::Ok(())
    });
    let ended = ended.await;
    let checks = then.await;
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = running.wait().await;
    // Whatever left its group may keep a pipe open.
    let Ok(words) = timeout(LAST_WAIT, words.join_next()).await else {
        return (Ended::Late, checks);
    };
    let (out, err) = words.and_then(Result::ok).unwrap_or_default();
    let text = [out, err].concat();
    let text = String::from_utf8_lossy(&text);
    let words: Vec<char> = text.trim().chars().collect();
    let last = words[words.len().saturating_sub(LAST_WORDS)..].iter();
    let ended = match (ended, status) {
        (Err(_), _) => Ended::Late,
        (Ok(Err(error)), _) | (_, Err(error)) => Ended::Lost(error),
        (_, Ok(status)) => Ended::With(status, last.collect()),
    };
    (ended, checks)
}

/// The end of what a program says; all of it is read, little is kept.
async fn last_words(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    let Some(mut pipe) = pipe else { return kept };
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(4 * LAST_WORDS));
    }
    kept
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

    async fn run(
        door: &Door,
        line: &[String],
        limit: Duration,
        then: impl Future<Output = Vec<Check>>,
    ) -> Vec<Check> {
        let access = Access::ReadOnly;
        let program = Program {
            line,
            limit,
            access,
        };
        program.run(door, "my shop", then).await
    }

    #[tokio::test]
    async fn its_exit_code_decides_and_its_words_are_kept() {
        let door = Door {
            socket: "/a b".into(),
            port: 5433,
            user: "o&p".into(),
            database: String::new(),
            options: String::new(),
        };
        let script = async |script: &str, limit| {
            let line = ["sh", "-c", script].map(String::from);
            run(&door, &line, limit, async { Vec::new() })
                .await
                .remove(0)
        };
        let minute = Duration::from_secs(60);
        let passed = script(
            "echo $PGHOST $PGPORT $PGDATABASE $DATABASE_URL $PGOPTIONS",
            minute,
        )
        .await;
        assert_eq!(passed.verdict, Verdict::Passed);
        assert_eq!(
            passed.seen,
            "/a b 5433 my shop postgresql:///my%20shop?host=%2Fa%20b&port=5433&user=o%26p -c default_transaction_read_only=on"
        );
        let failed = script("echo no orders >&2; exit 3", minute).await;
        assert!(
            failed.verdict == Verdict::Failed && failed.seen.ends_with("no orders"),
            "{failed:?}"
        );
        let wordy = script(
            "head -c 1000000 /dev/zero | tr '\\0' x; echo the end",
            minute,
        )
        .await;
        assert!(wordy.seen.len() <= LAST_WORDS && wordy.seen.ends_with("xthe end"));
        let then = || async { vec![check("then", Verdict::Passed, String::new())] };
        let missing = run(&door, &["/no/such".into()], minute, then()).await;
        assert_eq!(missing[0].verdict, Verdict::CouldNotRun);
        assert_eq!(missing[1].name, "then");
        assert_eq!(run(&door, &[], minute, then()).await.len(), 1);
    }

    #[tokio::test]
    async fn what_it_started_lives_for_what_comes_then_and_ends_with_it() {
        let door = Door {
            socket: "/s".into(),
            port: 5433,
            user: "o".into(),
            database: String::new(),
            options: String::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        for (then, limit, verdict) in [
            ("sleep 60", Duration::from_millis(500), Verdict::Failed),
            ("exit 0", Duration::from_secs(60), Verdict::Passed),
        ] {
            let pids = folder.path().join("pids");
            let script = format!(
                "sleep 61 & echo $! >'{0}'; (sleep 62 & echo $! >>'{0}'); {then}",
                pids.display()
            );
            let line = ["sh", "-c", &script].map(String::from);
            let runs = |pid: &str| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.is_ok_and(|stat| !stat.contains(") Z "))
            };
            let living = || {
                let pids = std::fs::read_to_string(&pids).unwrap();
                pids.lines().filter(|pid| runs(pid)).count()
            };
            let beside = async { vec![check("then", Verdict::Passed, living().to_string())] };
            let ended = run(&door, &line, limit, beside).await;
            assert_eq!(ended[0].verdict, verdict, "{ended:?}");
            assert_eq!(ended[1].seen, "2", "{ended:?}");
            let pids = std::fs::read_to_string(&pids).unwrap();
            for pid in pids.lines() {
                let gone = async {
                    while runs(pid) {
                        sleep(LOOK).await;
                    }
                };
                let gone = timeout(Duration::from_secs(10), gone).await;
                assert!(gone.is_ok(), "{pid} lives on after \"{then}\"");
            }
        }
    }
}
