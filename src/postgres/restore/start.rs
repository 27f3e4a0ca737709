//! When asked for: runs the restored server and waits until the target is reached. The server goes on running by itself.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use super::listening::{choose_port, choose_socket_directory};
use super::log_tail::LogTail;
use super::names::{LOG, PG_CONTROL};
use super::server_activity::{self, ServerActivity};
use super::server_log::{ServerLog, StartPhase};
use crate::error::{one_line, with_hint};
use crate::postgres::catalog::{RecoveryPlan, StopAt};
use crate::postgres::replication::{ConnInfo, Connection, Mode};
use crate::postgres::types::{ControlFile, Lsn, MajorVersion, TimelineId};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a fast shutdown may take: it writes what recovery changed.
const FAST_SHUTDOWN: Duration = Duration::from_secs(300);
/// What is said of a server that was given up.
const STALLED: &str = "it did nothing for";

/// What was recovered, as far as the server tells.
#[derive(Debug, Clone, Serialize)]
pub struct Recovered {
    pub phase: StartPhase,
    /// Where replay is: its end while paused, else the begin of the last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Lsn>,
    /// Time of the last transaction replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transaction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineId>,
    /// Where and why replay stopped, in the server's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// What the server warned of that makes the result doubtful.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
    /// Sentences for the operator: where else the socket is, why the server did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Settings in postgresql.auto.conf that are of this recovery only and that are still there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_settings: Vec<String>,
    pub port: u16,
    pub socket_directory: PathBuf,
    pub log: PathBuf,
    /// The server's process; absent when it shut down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How to stop it, and to start it without Walden.
    pub programs: PathBuf,
}

impl Recovered {
    /// Compares where replay stopped with where it was to stop. Where it was to read all WAL, that is not before the last
    /// transaction that was known, or else the last segment: of one that is lost since, PostgreSQL takes the one before
    /// for the end.
    pub fn check(&mut self, plan: &RecoveryPlan) {
        let Some(found) = self.lsn else { return };
        let last = plan
            .transactions
            .and_then(|transactions| transactions.last_included);
        let last_segment = plan
            .wal
            .last()
            .map(|piece| piece.last.start(plan.backup.segment_size));
        let kept = match (self.phase, plan.stop) {
            // "redo done at" tells the record that was read last, whether it was replayed or not.
            (StartPhase::Promoted, StopAt::Before { lsn } | StopAt::After { lsn, .. }) => {
                found == lsn
            }
            (StartPhase::Paused, StopAt::After { end, .. }) => found == end,
            (StartPhase::Paused, StopAt::Before { lsn }) => found <= lsn,
            (_, StopAt::End) => last
                .map(|last| last.lsn)
                .or(last_segment)
                .is_none_or(|least| found >= least),
            _ => true,
        };
        let planned = match (plan.stop, last) {
            (StopAt::End, Some(last)) => format!(
                "behind the commit of transaction {} at {}",
                last.xid, last.lsn
            ),
            (StopAt::End, None) => format!(
                "in the last WAL segment, from {} on,",
                last_segment.unwrap_or_default()
            ),
            (stop, _) => stop.words(),
        };
        if !kept {
            self.doubts.push(format!(
                "replay stopped at {found}, which is not {planned} as planned"
            ));
        }
    }
}

/// What tells how recovery goes on; `None` when nobody wants to know.
pub type Watch<'a> = &'a (dyn Fn(&ServerLog) + Sync);

/// How to start a server.
#[derive(Debug)]
pub struct ServerStart<'a> {
    /// The folder of its programs.
    pub programs: &'a Path,
    pub data_directory: &'a Path,
    pub major: MajorVersion,
    /// Another than the configured one.
    pub port: Option<u16>,
    /// The role to ask it as.
    pub user: Option<&'a str>,
    /// Settings that are reset once it is promoted.
    pub only_for_recovery: Vec<String>,
    /// Without a sign of work for so long, it is given up.
    pub patience: Duration,
}

/// Starts the server and waits until it is at its target. Errors: it does not start or ends before; its own words are in
/// the error.
pub async fn start(how: ServerStart<'_>, watch: Watch<'_>) -> anyhow::Result<Recovered> {
    let ServerStart {
        programs,
        data_directory,
        major,
        port,
        user,
        only_for_recovery,
        patience,
    } = how;
    let port = choose_port(programs, data_directory, port)?;
    let (socket_directory, elsewhere) = choose_socket_directory(programs, data_directory, port)?;
    let log_path = data_directory.join(LOG);
    // An earlier start may have said something.
    let from = fs::metadata(&log_path).map_or(0, |log| log.len());
    let mut child = spawn(programs, data_directory, port, &socket_directory, &log_path)?;
    let log = wait(
        &mut child,
        data_directory,
        (&log_path, from, patience),
        watch,
    )
    .await?;
    let mut recovered = Recovered {
        phase: log.phase,
        lsn: log.redo_done,
        last_transaction: log.last_transaction,
        timeline: log.new_timeline,
        stopped: log.stopped,
        doubts: log.doubts,
        notes: elsewhere.into_iter().collect(),
        left_settings: only_for_recovery,
        port,
        socket_directory,
        log: log_path,
        pid: (log.phase != StartPhase::ShutDown).then(|| child.id()),
        programs: programs.to_path_buf(),
    };
    if recovered.phase != StartPhase::ShutDown {
        // The server's pg_hba.conf may not let this user in: then the log has to do.
        if let Err(error) = ask(&mut recovered, user, major).await {
            recovered.notes.push(format!(
                "not asked by SQL, so only its log tells: {}",
                one_line(&error)
            ));
        }
    }
    if recovered.timeline.is_none() {
        recovered.timeline =
            control_file(data_directory).map(|control| control.checkpoint_timeline);
    }
    Ok(recovered)
}

fn spawn(
    programs: &Path,
    data_directory: &Path,
    port: u16,
    socket: &Path,
    log: &Path,
) -> anyhow::Result<Child> {
    let file = fs::OpenOptions::new().create(true).append(true).open(log);
    let file = file.with_context(|| format!("cannot open \"{}\"", log.display()))?;
    let clone = file.try_clone().context("cannot share the log")?;
    let postgres = programs.join("postgres");
    // English and on standard error, whatever is configured: this is read below.
    let fixed = [
        "logging_collector=off",
        "log_destination=stderr",
        "lc_messages=C",
        "log_min_messages=warning",
        "log_error_verbosity=default",
        "log_line_prefix=%m [%p] ",
    ];
    let mut command = Command::new(&postgres);
    command.arg("-D").arg(data_directory);
    for setting in fixed {
        command.args(["-c", setting]);
    }
    command.args(["-c", &format!("port={port}"), "-c"]);
    let mut sockets = std::ffi::OsString::from("unix_socket_directories=");
    sockets.push(socket);
    // A process group of its own: it must outlive this one and its terminal.
    command
        .arg(sockets)
        .stdin(Stdio::null())
        .stdout(clone)
        .stderr(file)
        .process_group(0);
    command
        .spawn()
        .with_context(|| format!("cannot run \"{}\"", postgres.display()))
}

async fn wait(
    child: &mut Child,
    data: &Path,
    (log_path, from, patience): (&Path, u64, Duration),
    watch: Watch<'_>,
) -> anyhow::Result<ServerLog> {
    let mut tail = LogTail::open(log_path, from)?;
    let mut log = ServerLog::default();
    let mut moving = ServerActivity::new(Instant::now(), patience);
    loop {
        let ended = child.try_wait().context("cannot wait for the server")?;
        let is_open = is_open(child, data);
        tail.read_into(&mut log)?;
        if is_open {
            log.phase = StartPhase::Promoted;
        }
        watch(&log);
        match (log.phase, ended) {
            (StartPhase::Paused | StartPhase::Promoted, None) => return Ok(log),
            (StartPhase::ShutDown, Some(_)) => return Ok(log),
            (StartPhase::Recovering, None) if log.stuck => {
                stop(child, patience).await?;
                return Err(failed(&log, log_path, "stopped"));
            }
            (_, None) if moving.has_stopped(Instant::now(), data, log_path, child.id()) => {
                stop(child, patience).await?;
                let status = format!("{STALLED} {patience:?} and was stopped");
                return Err(failed(&log, log_path, &status));
            }
            (_, Some(status)) => return Err(failed(&log, log_path, &status.to_string())),
            (_, None) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Whether the server is open for writing, whatever its log says. It says so there before it does in these files.
fn is_open(child: &Child, data: &Path) -> bool {
    const IN_PRODUCTION: u32 = 6;
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    // During recovery, too, if it answers queries then.
    let is_ready = server_activity::status(&file, child.id()) == Some("ready");
    is_ready && control_file(data).is_some_and(|control| control.state == IN_PRODUCTION)
}

fn control_file(data: &Path) -> Option<ControlFile> {
    ControlFile::parse(&fs::read(data.join(PG_CONTROL)).ok()?).ok()
}

/// A fast shutdown of the server, waited for; one that does not come about becomes an immediate one, which ends also what
/// does not answer.
async fn stop(child: &mut Child, patience: Duration) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::INT).context("cannot stop the server")?;
    let (begun, mut is_immediate) = (Instant::now(), false);
    while child
        .try_wait()
        .context("cannot wait for the server")?
        .is_none()
    {
        if !is_immediate && begun.elapsed() >= patience.min(FAST_SHUTDOWN) {
            kill_process(pid, Signal::QUIT).context("cannot stop the server")?;
            is_immediate = true;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The server ended, or was given up, before its target.
#[derive(Debug, thiserror::Error)]
#[error("the restored server did not reach the target: {0}")]
pub struct NotAtTarget(pub String);

fn failed(log: &ServerLog, path: &Path, status: &str) -> anyhow::Error {
    let words: Vec<&str> = log
        .command
        .iter()
        .chain(&log.errors)
        .chain(&log.fatal)
        .map(String::as_str)
        .collect();
    let words = match words.is_empty() {
        true if status.starts_with(STALLED) => status.to_string(),
        true => format!("it ended ({status}) without a word"),
        false if log.stuck || status.starts_with("exit") => words.join(" | "),
        false => format!("{} ({status})", words.join(" | ")),
    };
    let hint = next_step(&words, path);
    with_hint(NotAtTarget(words).into(), hint)
}

/// What to do about the failures that restores meet.
fn next_step(words: &str, path: &Path) -> String {
    let log = format!("its log is \"{}\"", path.display());
    let step = if words.contains("before configured recovery target was reached") {
        "choose an earlier target, or --latest (for a time: no later transaction is archived)"
    } else if words.contains("before consistent recovery point") {
        "choose a later target, or an older backup with --backup"
    } else if words.contains("lower setting than")
        || words.contains("insufficient parameter settings")
    {
        let setting = wanted_setting(words).unwrap_or_else(|| "the setting that is too low".into());
        return format!(
            "set {setting} in postgresql.auto.conf, then start the server again: it goes on; {log}"
        );
    } else if words.contains("could not create any TCP/IP sockets") {
        "set listen_addresses in postgresql.auto.conf to addresses of this machine, then start the server again"
    } else if words.contains("could not access file") || words.contains("could not load library") {
        "an extension that the configuration loads is not installed on this machine"
    } else if words.contains("could not restore file") {
        "fix the error above and start the server again, or restore anew: the repository did not give a WAL \
         file"
    } else if words.contains(STALLED) {
        "find out what it waits for, then start the server again: it goes on"
    } else {
        "fix the error above and start the server again, or restore anew"
    };
    format!("{step}; {log}")
}

/// From `max_connections = 30 is a lower setting than on the primary server, where its value was 60.`; 13 says
/// `(its value was 60)`.
fn wanted_setting(words: &str) -> Option<String> {
    let (before, after) = words.split_once(" is a lower setting than")?;
    let name = before.rsplit_once(" = ")?.0.rsplit(' ').next()?;
    let value = after.split_once("its value was ")?.1;
    let end = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    (end > 0).then(|| format!("{name} = {}", &value[..end]))
}

/// Asks the server itself where it is.
async fn ask(
    recovered: &mut Recovered,
    user: Option<&str>,
    major: MajorVersion,
) -> anyhow::Result<()> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let host = quoted(&recovered.socket_directory.to_string_lossy());
    let mut dsn = format!(
        "host='{host}' port={} dbname=postgres connect_timeout=5 sslmode=disable",
        recovered.port
    );
    if major.number() >= 17 {
        // Triggers on login could reach for what is the source's.
        dsn.push_str(" options='-c event_triggers=off'");
    }
    if let Some(user) = user {
        dsn.push_str(&format!(" user='{}'", quoted(user)));
    }
    let info = ConnInfo::alone(&dsn)?;
    let mut connection = Connection::connect(&info, Mode::Sql).await?;
    let query = match recovered.phase {
        StartPhase::Paused => {
            "SELECT pg_last_wal_replay_lsn() AS lsn, pg_last_xact_replay_timestamp() AS time"
        }
        _ => "SELECT NULL AS lsn, pg_last_xact_replay_timestamp() AS time",
    };
    let answer = connection.simple_query(query).await?;
    if let Some(result) = answer.first() {
        let text = |name: &str| result.text(0, name).ok().flatten().map(str::to_string);
        recovered.lsn = text("lsn")
            .and_then(|lsn| lsn.parse().ok())
            .or(recovered.lsn);
        recovered.last_transaction = text("time").or(recovered.last_transaction.take());
    }
    if recovered.phase == StartPhase::Promoted {
        // One statement each: together they would be a transaction, in which ALTER SYSTEM is not allowed.
        while let Some(name) = recovered.left_settings.first() {
            connection
                .simple_query(&format!("ALTER SYSTEM RESET {name}"))
                .await?;
            recovered.left_settings.remove(0);
        }
    }
    connection.close().await
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
