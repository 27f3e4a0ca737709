//! PostgreSQL's client programs: which ones, and how they are run.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::config;
use crate::error::{Hint, with_hint};
use crate::postgres::replication::conninfo::ProgramConnection;
use crate::postgres::types::MajorVersion;

/// Majors beyond those that Walden knows, whose programs work with older servers.
const NEWER: u32 = 4;
/// The first major with that setting.
const TRANSACTION_TIMEOUT: u32 = 17;
/// Variables of libpq that say something about the programs themselves, not about the connection.
const KEPT: [&str; 2] = ["PGSYSCONFDIR", "PGLOCALEDIR"];

/// The client programs of one version.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: Option<PathBuf>,
    prefix: Vec<String>,
    /// As they say it: `15.18`.
    pub version: String,
    pub major: u32,
}

impl Programs {
    /// Programs that understand a server of this major: its own, else newer ones. Errors: none are found, or those that
    /// the settings name are older.
    pub async fn find(settings: &config::Dump, server: MajorVersion) -> anyhow::Result<Self> {
        let (named, prefix) = (settings.programs.clone(), settings.command_prefix.clone());
        if named.is_some() || !prefix.is_empty() {
            let programs = Self::ask(named.clone(), prefix.clone()).await.hint(match prefix.is_empty() {
                true => "`dump.programs` names the folder that holds pg_dump, pg_dumpall and pg_restore",
                false => "run `dump.command_prefix` with `pg_dump --version` behind it by hand",
            })?;
            return match programs.major >= server.number() {
                true => Ok(programs),
                false => Err(too_old(&programs, server)),
            };
        }
        let older = match Self::nearest(usual_places(server), server).await {
            Some(programs) if programs.major >= server.number() => return Ok(programs),
            older => older,
        };
        Err(match older {
            Some(programs) => too_old(&programs, server),
            None => with_hint(
                anyhow!("no program \"pg_dump\" of version {server} or newer is found"),
                format!(
                    "install PostgreSQL {server}'s client programs, or name their folder in `dump.programs`"
                ),
            ),
        })
    }

    /// The server's own major wherever it is, else the nearest newer one, else an older one. Newer programs may write what
    /// only newer servers take without errors.
    async fn nearest(places: Vec<PathBuf>, server: MajorVersion) -> Option<Self> {
        let (server, mut best) = (server.number(), None::<Self>);
        let rank = |programs: &Self| (programs.major < server, programs.major.abs_diff(server));
        for folder in places {
            let Ok(programs) = Self::ask(Some(folder), Vec::new()).await else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|best| rank(&programs) < rank(best))
            {
                best = Some(programs);
            }
            if best.as_ref().is_some_and(|best| best.major == server) {
                break;
            }
        }
        best
    }

    /// Whether no server of this major takes what they write without errors: it sets `transaction_timeout`.
    pub fn write_for_newer(&self, server: MajorVersion) -> bool {
        self.major >= TRANSACTION_TIMEOUT && server.number() < TRANSACTION_TIMEOUT
    }

    /// What to know before what they write is needed for a server of this major.
    pub fn warning(&self, server: MajorVersion) -> Option<String> {
        self.write_for_newer(server).then(|| {
            format!(
                "what pg_dump {} writes cannot be restored to a server of version {server} without errors. HINT: \
                 install PostgreSQL {server}'s client programs",
                self.version
            )
        })
    }

    async fn ask(folder: Option<PathBuf>, prefix: Vec<String>) -> anyhow::Result<Self> {
        let mut programs = Self {
            folder,
            prefix,
            version: String::new(),
            major: 0,
        };
        let output = programs
            .command("pg_dump")
            .arg("--version")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {}", programs.name("pg_dump")))?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        let (version, major) = parse_version(&text).with_context(|| {
            format!(
                "{} says \"{text}{said}\" when asked for its version",
                programs.name("pg_dump")
            )
        })?;
        (programs.version, programs.major) = (version, major);
        Ok(programs)
    }

    /// A program's name for messages, with what stands before it.
    pub fn name(&self, program: &str) -> String {
        let words = self
            .prefix
            .iter()
            .cloned()
            .chain([self.path(program).display().to_string()]);
        format!("\"{}\"", words.collect::<Vec<_>>().join(" "))
    }

    fn path(&self, program: &str) -> PathBuf {
        self.folder
            .as_ref()
            .map_or_else(|| program.into(), |folder| folder.join(program))
    }

    /// Whether they run elsewhere: they see neither files nor the environment of this process.
    pub fn are_elsewhere(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// A program to run. Its messages are English, so that they can be understood.
    pub fn command(&self, program: &str) -> Command {
        let path = self.path(program);
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(path);
                command
            }
            None => Command::new(path),
        };
        command.env("LC_ALL", "C");
        command
    }

    /// A program that connects. The password is in its environment alone.
    pub fn connecting(&self, program: &str, connection: &ProgramConnection) -> Command {
        let mut command = self.command(program);
        if !self.are_elsewhere() {
            // The connection says all; what the environment adds would lead elsewhere.
            let of_libpq = |name: &str| name.starts_with("PG") && !KEPT.contains(&name);
            for (name, _) in std::env::vars_os() {
                if name.to_str().is_some_and(of_libpq) {
                    command.env_remove(&name);
                }
            }
            // What the database sets for its sessions ends none of them.
            command.env("PGOPTIONS", "-c statement_timeout=0");
            // An empty file of passwords: the right one is known.
            command.env("PGPASSFILE", "/dev/null");
        }
        if let Some(password) = connection.password() {
            command.env("PGPASSWORD", password);
        }
        command.arg("--no-password");
        command
    }
}

fn too_old(programs: &Programs, server: MajorVersion) -> anyhow::Error {
    let error = anyhow!(
        "the server is PostgreSQL {server}, {} is of version {}, which cannot read it",
        programs.name("pg_dump"),
        programs.version
    );
    with_hint(
        error,
        format!(
            "install PostgreSQL {server}'s client programs, or name their folder in `dump.programs`"
        ),
    )
}

/// The server's own major first, then what PATH has, then newer ones.
fn usual_places(server: MajorVersion) -> Vec<PathBuf> {
    let of = |major: u32| {
        [
            format!("/usr/lib/postgresql/{major}/bin"),
            format!("/usr/pgsql-{major}/bin"),
            format!("/usr/local/pgsql-{major}/bin"),
        ]
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newer = server.number() + 1..=MajorVersion::SUPPORTED.end() + NEWER;
    of(server.number())
        .into_iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .chain([PathBuf::from("/usr/local/pgsql/bin")])
        .chain(newer.flat_map(of).map(PathBuf::from))
        .filter(|folder| is_program(&folder.join("pg_dump")))
        .collect()
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// From `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; also `18beta1`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let version = text
        .split("(PostgreSQL)")
        .nth(1)?
        .split_whitespace()
        .next()?;
    let end = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    Some((version.to_string(), version[..end].parse().ok()?))
}

/// A program that runs, and all that it started: killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    group: Option<Pid>,
}

impl Running {
    /// Starts a program in a process group of its own: what a terminal sends to Walden does not reach it.
    pub fn start(mut command: Command) -> std::io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, group })
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // The number may be another's from now on.
        self.group = None;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may be over.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(lines: &str) -> config::Dump {
        crate::config::testing::settings(lines).dump
    }

    fn major(number: u32) -> MajorVersion {
        MajorVersion::new(number).unwrap()
    }

    fn fake(folder: &Path, says: &str) {
        use std::os::unix::fs::PermissionsExt;
        let program = folder.join("pg_dump");
        std::fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn the_version_is_read_from_what_the_program_says() {
        for (text, version) in [
            (
                "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(("15.18", 15)),
            ),
            ("pg_dump (PostgreSQL) 18beta1", Some(("18beta1", 18))),
            ("pg_dump (PostgreSQL) devel", None),
            ("", None),
        ] {
            let found = parse_version(text);
            assert_eq!(
                found.as_ref().map(|(text, major)| (text.as_str(), *major)),
                version
            );
        }
    }

    #[tokio::test]
    async fn programs_older_than_the_server_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fake(folder.path(), "pg_dump (PostgreSQL) 15.4");
        let settings = settings(&format!("dump.programs = \"{}\"", folder.path().display()));
        assert_eq!(
            Programs::find(&settings, major(15)).await.unwrap().version,
            "15.4"
        );
        assert_eq!(
            Programs::find(&settings, major(13)).await.unwrap().major,
            15
        );
        let error = Programs::find(&settings, major(16)).await.unwrap_err();
        assert!(error.to_string().contains("is of version 15.4"), "{error}");
    }

    #[tokio::test]
    async fn the_server_s_own_major_goes_before_newer_ones_wherever_it_is() {
        let folders: Vec<_> = [12, 18, 17, 15]
            .map(|major| {
                let folder = tempfile::tempdir().unwrap();
                fake(folder.path(), &format!("pg_dump (PostgreSQL) {major}.1"));
                folder
            })
            .into();
        let places: Vec<_> = folders
            .iter()
            .map(|folder| folder.path().to_path_buf())
            .collect();
        for (server, chosen, beyond) in [
            (15, 15, false),
            (16, 17, true),
            (14, 15, false),
            (17, 17, false),
        ] {
            let found = Programs::nearest(places.clone(), major(server))
                .await
                .unwrap();
            assert_eq!(found.major, chosen, "{server}");
            assert_eq!(found.write_for_newer(major(server)), beyond, "{server}");
        }
        let older = Programs::nearest(places[..1].to_vec(), major(15)).await;
        assert_eq!(older.unwrap().major, 12);
    }

    #[tokio::test]
    async fn a_prefix_runs_them_where_the_database_is() {
        let folder = tempfile::tempdir().unwrap();
        fake(folder.path(), "pg_dump (PostgreSQL) 17.1");
        let path = format!("PATH={}", folder.path().display());
        let settings = settings(&format!("dump.command_prefix = [\"env\", \"{path}:/bin\"]"));
        let programs = Programs::find(&settings, major(17)).await.unwrap();
        assert!(programs.are_elsewhere());
        assert_eq!(
            programs.name("pg_dump"),
            format!("\"env {path}:/bin pg_dump\"")
        );
        let connection = ProgramConnection::elsewhere("password=geheim", "shop").unwrap();
        let command = programs.connecting("pg_dump", &connection);
        assert!(
            !format!("{:?}", command.as_std().get_args().collect::<Vec<_>>()).contains("geheim")
        );
    }

    #[tokio::test]
    async fn what_is_dropped_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "sleep 100 & echo $! > {}.new; mv {0}.new {0}; wait",
            file.display()
        ));
        let running = Running::start(command).unwrap();
        let pid = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text.trim().to_string(),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        drop(running);
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        for _ in 0..500 {
            if state().is_empty() || state().contains(") Z ") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it still runs: {}", state());
    }
}
