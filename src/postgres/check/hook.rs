//! The program of archive_command, as the server's user meets it, and the service that answers it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::command::{Program, WaldenCommand, first_word, program};
use super::hook_target::{HookTarget, hook_target};
use super::server::{ArchivingSettings, ServerFacts};
use super::{Check, CheckRequest, CheckStatus, Verdict};
use crate::config::{ClusterIdentity, DEFAULT_SOCKET, SettingsSource};
use crate::owner::Owner;
use crate::postgres::command_line::for_people;
use crate::wire::{self, For, IDENTITY_VARIABLES, Reply, SILENCE_SECONDS};

/// Where the server's data lies, if it runs here and that can be seen.
fn data_directory<'a>(request: &'a CheckRequest<'_>, server: &'a ServerFacts) -> Option<&'a Path> {
    let configured = request.settings.cluster.data_directory.as_ref();
    server
        .data_directory
        .as_ref()
        .or(configured)
        .filter(|_| server.here)
        .map(PathBuf::as_path)
}

/// The user whose data directory it is: the server runs as that user. `None`: it does not run here, or that cannot be seen.
pub(super) fn server_user(request: &CheckRequest<'_>, server: &ServerFacts) -> Option<Owner> {
    Owner::of(data_directory(request, server)?).ok()
}

/// What is at the program's place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ProgramState {
    Absent,
    Executable,
    /// Its mode, or that of a folder above it, does not let the user.
    Closed {
        by: PathBuf,
        mode: u32,
    },
}

/// Checks the program of archive_command, and on a standby for whom restore_command works. `line` is the right one; `proven`
/// says that the end-to-end check passed.
pub(super) fn check_hook(
    request: &CheckRequest<'_>,
    server: &ServerFacts,
    user: Option<Owner>,
    line: &str,
    proven: bool,
) -> Verdict {
    if server.standby
        && server.here
        && let Program::Ours(ours) = program(&server.settings.restore_command)
        && let Some(verdict) = own_work(request, server, user, ("restore_command", &ours), line)
    {
        return verdict;
    }
    let command = &server.settings.archive_command;
    if server.settings.archive_mode == "off" {
        return Check::Hook.because(Check::ArchiveMode);
    }
    let Some(first) = first_word(command).filter(|_| server.settings.archive_library.is_empty())
    else {
        return Check::Hook.because(Check::ArchiveCommand);
    };
    if !server.here {
        return Check::Hook.skipped("the server is on another machine: run `walden check` there");
    }
    let Program::Ours(ours) = program(command) else {
        return decide_hook(&first, &find(Path::new(&first), user), user, proven);
    };
    let verdict = decide_hook(
        &ours.program,
        &find(Path::new(&ours.program), user),
        user,
        proven,
    );
    if verdict.status != CheckStatus::Ok {
        return verdict;
    }
    let asks = ours
        .is_hook
        .then(|| ours.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()));
    let elsewhere = asks.filter(|socket| *socket != request.settings.service.socket);
    elsewhere.map_or(verdict, |socket| decide_socket(&socket, line))
}

/// For [`Check::ArchiveCommand`]: what is wrong with whom archive_command works for; `None`: nothing, or it is not known.
pub(super) fn check_whose(
    request: &CheckRequest<'_>,
    server: &ServerFacts,
    user: Option<Owner>,
    line: &str,
) -> Option<Verdict> {
    let ArchivingSettings {
        archive_mode,
        archive_command,
        archive_library,
        ..
    } = &server.settings;
    let counts = server.here && archive_mode != "off" && archive_library.is_empty();
    match program(archive_command) {
        Program::Ours(ours) if counts => {
            own_work(request, server, user, ("archive_command", &ours), line)
        }
        _ => None,
    }
}

/// What is wrong with whom a hook works for by itself, and with the configuration that it names.
fn own_work(
    request: &CheckRequest<'_>,
    server: &ServerFacts,
    user: Option<Owner>,
    (setting, ours): (&str, &WaldenCommand),
    line: &str,
) -> Option<Verdict> {
    let wanted = ClusterIdentity::of(request.settings, |name| std::env::var_os(name));
    let found = match hook_target(ours, data_directory(request, server), &wanted) {
        HookTarget::Same => ours
            .config
            .as_deref()
            .and_then(|file| hidden(file, user))
            .map_or(HookTarget::Same, HookTarget::Unreadable),
        other => other,
    };
    decide_target(setting, &found, &wanted, line)
}

/// Why the server's user may not read a file, as far as modes tell; `None`: it may, or that is not known.
fn hidden(file: &Path, user: Option<Owner>) -> Option<String> {
    let user = user.filter(|user| user.uid != rustix::process::geteuid().as_raw())?;
    let told = |path: &Path, mode| {
        format!(
            "the server's user (uid {}) may not read \"{}\" (mode {mode:04o})",
            user.uid,
            path.display()
        )
    };
    let meta = fs::metadata(file).ok()?;
    if let Some((folder, mode)) = closed_by(file.parent()?, Some(user)) {
        return Some(told(&folder, mode));
    }
    (!permits(user, &meta, 4)).then(|| told(file, meta.permissions().mode() & 0o7777))
}

/// Looks for the program. Without a slash in its name the shell looks along PATH, of which ours is the best guess.
fn find(name: &Path, user: Option<Owner>) -> ProgramState {
    let candidates: Vec<PathBuf> = match name.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .map(|dir| dir.join(name))
            .collect(),
        _ => vec![name.to_path_buf()],
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => closed_by(path, user).map_or(ProgramState::Executable, |(by, mode)| {
            ProgramState::Closed { by, mode }
        }),
        None => ProgramState::Absent,
    }
}

/// The first of the file and the folders above it that the user may not execute. For ourselves the kernel is asked; for
/// another user the modes are read, which leaves access lists and further groups out.
fn closed_by(path: &Path, user: Option<Owner>) -> Option<(PathBuf, u32)> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let other = user.filter(|user| user.uid != rustix::process::geteuid().as_raw());
    let closed = |path: &&Path| match (other, fs::metadata(path)) {
        (Some(user), Ok(meta)) => !permits(user, &meta, 1),
        _ => access(*path, Access::EXEC_OK).is_err(),
    };
    let parts: Vec<&Path> = path.ancestors().collect();
    let by = parts.into_iter().rev().find(closed)?;
    Some((
        by.to_path_buf(),
        fs::metadata(by).map_or(0, |meta| meta.permissions().mode() & 0o7777),
    ))
}

/// Whether the mode lets the user read (4) or execute (1).
fn permits(user: Owner, meta: &Metadata, what: u32) -> bool {
    let shift = match (meta.uid() == user.uid, meta.gid() == user.gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    user.uid == 0 || meta.permissions().mode() & (what << shift) != 0
}

fn decide_hook(name: &str, found: &ProgramState, user: Option<Owner>, proven: bool) -> Verdict {
    let who = user.map_or("this user".to_string(), |user| {
        format!("the server's user (uid {})", user.uid)
    });
    match found {
        ProgramState::Absent if name.contains('/') => Check::Hook
            .critical(format!("archive_command runs \"{name}\", which is not there"))
            .hint("install archive-command there, or correct the path in archive_command and reload the server"),
        ProgramState::Absent if proven => {
            Check::Hook.ok(format!("\"{name}\" is on the server's PATH: what it archives arrives"))
        }
        ProgramState::Absent => Check::Hook
            .warning(format!("archive_command runs \"{name}\", which is not on this process's PATH"))
            .hint("write the program's full path into archive_command: the server's PATH is its own"),
        ProgramState::Closed { by, mode } => Check::Hook
            .critical(format!("{who} may not run \"{name}\": \"{}\" has mode {mode:04o}", by.display()))
            .hint(format!("chmod a+x {}", for_people([by]))),
        ProgramState::Executable => Check::Hook.ok(format!("{who} may run \"{name}\"")),
    }
}

/// What is wrong with whom the hook's own work is for; `None`: nothing.
fn decide_target(
    setting: &str,
    target: &HookTarget,
    wanted: &ClusterIdentity,
    line: &str,
) -> Option<Verdict> {
    let check = if setting == "archive_command" {
        Check::ArchiveCommand
    } else {
        Check::Hook
    };
    let verdict = match target {
        HookTarget::Same => return None,
        HookTarget::Other(other) => {
            check.critical(format!("{setting} is for {other}, this configuration for {wanted}"))
        }
        HookTarget::Unreadable(why) => {
            check.critical(format!("the configuration that {setting} reads cannot be used: {why}"))
        }
        HookTarget::Nobody => check
            .warning(format!("{setting} names a --socket and no --config: it does nothing while no service answers")),
        HookTarget::Unseen => check.warning(format!(
            "{setting} names no --config, and the environment of the server, which may name one, cannot be seen"
        )),
    };
    Some(verdict.hint(match setting {
        "archive_command" => format!("set {line} in postgresql.conf and reload the server"),
        setting => {
            format!("name in {setting} the --config and the --socket of this cluster, as in {line}")
        }
    }))
}

fn decide_socket(socket: &Path, line: &str) -> Verdict {
    Check::Hook
        .warning(format!(
            "archive_command asks the service at \"{}\", which is not `service.socket`",
            socket.display()
        ))
        .hint(format!(
            "set {line} in postgresql.conf and reload the server"
        ))
}

/// Who answers on the hook socket.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answers {
    /// A process of this user.
    User { uid: u32, serves: Serves },
    /// It took the request and is silent.
    Silent,
    /// There is no socket, or nobody listens on it.
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Serves {
    Us,
    /// In its words.
    Another(String),
    /// It refused to tell, or is of another version.
    Untold,
}

/// Checks the service, for the server's user if that is known.
pub(super) async fn check_service(request: &CheckRequest<'_>, user: Option<Owner>) -> Verdict {
    let socket = &request.settings.service.socket;
    let limit = request.timeout.min(Duration::from_secs(SILENCE_SECONDS));
    let file = match &request.settings.source {
        SettingsSource::File(file) => file.as_os_str().as_bytes().to_vec(),
        SettingsSource::Environment => Vec::new(),
    };
    let set =
        |name: &&str| Some([name.as_bytes(), b"=", std::env::var_os(name)?.as_bytes()].concat());
    let whose = For::Configuration {
        file,
        variables: IDENTITY_VARIABLES.iter().filter_map(set).collect(),
    };
    decide_service(socket, &ask_service(socket, whose, limit).await, user)
}

async fn ask_service(socket: &Path, whose: For, limit: Duration) -> io::Result<Answers> {
    let mut stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(Answers::Nobody);
        }
        Err(error) => return Err(error),
    };
    let uid = stream.peer_cred()?.uid();
    let exchange = async {
        let question = wire::HookRequest::Serves { whose }
            .encode()
            .map_err(|error| io::Error::other(error.text()))?;
        stream.write_all(&question).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    match timeout(limit, exchange).await {
        Ok(answer) => Ok(Answers::User {
            uid,
            serves: answer.map_or(Serves::Untold, |answer| serves(&answer)),
        }),
        Err(_) => Ok(Answers::Silent),
    }
}

fn serves(mut answer: &[u8]) -> Serves {
    loop {
        match Reply::read_from(&mut answer) {
            Ok(Reply::Working) => (),
            Ok(Reply::Done) => return Serves::Us,
            Ok(Reply::NotMine(text)) => {
                return Serves::Another(String::from_utf8_lossy(&text).into_owned());
            }
            _ => return Serves::Untold,
        }
    }
}

fn decide_service(socket: &Path, answers: &io::Result<Answers>, user: Option<Owner>) -> Verdict {
    let socket = socket.display();
    let (uid, serves) = match answers {
        Err(error) => {
            return Check::Service
                .unknown(format!("cannot connect to \"{socket}\": {error}"))
                .hint("run this as PostgreSQL's user, or as root");
        }
        Ok(Answers::Nobody) => {
            return Check::Service
                .warning(format!("no service answers on \"{socket}\": the hooks do their work themselves, only slower"))
                .hint("keep `walden serve` running: `systemctl enable --now walden`");
        }
        Ok(Answers::Silent) => {
            return Check::Service
                .critical(format!("the service on \"{socket}\" takes requests and does not answer"))
                .hint("look at its log and restart it; without a service the hooks do their work themselves");
        }
        Ok(Answers::User { uid, serves }) => (uid, serves),
    };
    if let Some(user) = user.filter(|user| user.uid != *uid) {
        return Check::Service
            .critical(format!(
                "the service runs as uid {uid} and refuses the server's user (uid {})",
                user.uid
            ))
            .hint("run `walden serve` as the user that PostgreSQL runs as");
    }
    match serves {
        Serves::Another(told) => Check::Service
            .critical(format!("on \"{socket}\" {told}"))
            .hint("restart it with this configuration, or give this cluster another `service.socket`"),
        Serves::Us => Check::Service.ok(format!("answers on \"{socket}\" for this cluster")),
        Serves::Untold => Check::Service
            .warning(format!("what answers on \"{socket}\" does not tell what it serves"))
            .hint("install walden, archive-command and restore-command of one version, and restart `walden serve`"),
    }
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
