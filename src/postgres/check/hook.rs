//! The program of archive_command, as the server's user meets it, and the service that answers it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::command::{Program, program, words};
use super::server::Server;
use super::{Check, Request, Verdict};
use crate::config::DEFAULT_SOCKET;
use crate::owner::Owner;
use crate::wire::{self, Reply, SILENCE_SECONDS};

/// The user whose data directory it is: the server runs as that user. `None`: it does not run here, or that cannot be seen.
pub(super) fn server_user(request: &Request<'_>, server: &Server) -> Option<Owner> {
    let configured = request.settings.cluster.data_directory.as_ref();
    let data_directory = server.data_directory.as_ref().or(configured).filter(|_| server.here)?;
    Owner::of(data_directory).ok()
}

/// What is at the program's place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Absent,
    Executable,
    /// Its mode, or that of a folder above it, does not let the user.
    Closed {
        by: PathBuf,
        mode: u32,
    },
}

/// Checks the program of archive_command.
pub(super) fn check_hook(request: &Request<'_>, server: &Server, user: Option<Owner>) -> Verdict {
    let command = &server.settings.archive_command;
    if server.settings.archive_mode == "off" {
        return Check::Hook.because(Check::ArchiveMode);
    }
    let Some(name) = words(command).into_iter().next().filter(|_| server.settings.archive_library.is_empty()) else {
        return Check::Hook.because(Check::ArchiveCommand);
    };
    if !server.here {
        return Check::Hook.skipped("the server is on another machine: run `walden check` there");
    }
    let asks = match program(command) {
        Program::Hook { socket } => Some(socket.unwrap_or_else(|| DEFAULT_SOCKET.into())),
        Program::Walden | Program::Other => None,
    };
    let other_socket = asks.filter(|socket| *socket != request.settings.service.socket);
    decide_hook(&name, &find(Path::new(&name), user), user, other_socket.as_deref())
}

/// Looks for the program. Without a slash in its name the shell looks along PATH, of which ours is the best guess.
fn find(name: &Path, user: Option<Owner>) -> Found {
    let candidates: Vec<PathBuf> = match name.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).map(|dir| dir.join(name)).collect(),
        _ => vec![name.to_path_buf()],
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => closed_by(path, user).map_or(Found::Executable, |(by, mode)| Found::Closed { by, mode }),
        None => Found::Absent,
    }
}

/// The first of the file and the folders above it that the user may not execute. For ourselves the kernel is asked; for
/// another user the modes are read, which leaves access lists and further groups out.
fn closed_by(path: &Path, user: Option<Owner>) -> Option<(PathBuf, u32)> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let other = user.filter(|user| user.uid != rustix::process::geteuid().as_raw());
    let closed = |path: &&Path| match (other, fs::metadata(path)) {
        (Some(user), Ok(meta)) => !permits(user, &meta),
        _ => access(*path, Access::EXEC_OK).is_err(),
    };
    let parts: Vec<&Path> = path.ancestors().collect();
    let by = parts.into_iter().rev().find(closed)?;
    Some((by.to_path_buf(), fs::metadata(by).map_or(0, |meta| meta.permissions().mode() & 0o7777)))
}

fn permits(user: Owner, meta: &Metadata) -> bool {
    let bit = match (meta.uid() == user.uid, meta.gid() == user.gid) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    user.uid == 0 || meta.permissions().mode() & bit != 0
}

fn decide_hook(name: &str, found: &Found, user: Option<Owner>, other_socket: Option<&Path>) -> Verdict {
    let who = user.map_or("this user".to_string(), |user| format!("the server's user (uid {})", user.uid));
    match found {
        Found::Absent if name.contains('/') => Check::Hook
            .critical(format!("archive_command runs \"{name}\", which is not there"))
            .hint("install archive-command there, or correct the path in archive_command and reload the server"),
        Found::Absent => Check::Hook
            .warning(format!("archive_command runs \"{name}\", which is not on this process's PATH"))
            .hint("write the program's full path into archive_command: the server's PATH is its own"),
        Found::Closed { by, mode } => Check::Hook
            .critical(format!("{who} may not run \"{name}\": \"{}\" has mode {mode:04o}", by.display()))
            .hint(format!("chmod a+x \"{}\"", by.display())),
        Found::Executable => match other_socket {
            Some(socket) => Check::Hook
                .warning(format!(
                    "archive_command asks the service at \"{}\", which is not `service.socket`",
                    socket.display()
                ))
                .hint("give archive_command the option --socket with the path of `service.socket`"),
            None => Check::Hook.ok(format!("{who} may run \"{name}\"")),
        },
    }
}

/// Who answers on the hook socket.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answers {
    /// A process of this user; the cluster and repository it serves, if it told.
    User { uid: u32, serves: Option<(String, String)> },
    /// It took the request and is silent.
    Silent,
    /// There is no socket, or nobody listens on it.
    Nobody,
}

/// Checks the service, for the server's user if that is known.
pub(super) async fn check_service(request: &Request<'_>, user: Option<Owner>) -> Verdict {
    let socket = &request.settings.service.socket;
    let wanted = (request.settings.cluster.name.clone(), request.storage.describe());
    let limit = request.timeout.min(Duration::from_secs(SILENCE_SECONDS));
    decide_service(socket, &ask_service(socket, limit).await, user, &wanted)
}

async fn ask_service(socket: &Path, limit: Duration) -> io::Result<Answers> {
    let mut stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(Answers::Nobody);
        }
        Err(error) => return Err(error),
    };
    let uid = stream.peer_cred()?.uid();
    let exchange = async {
        let question = wire::Request::Status.encode().map_err(|error| io::Error::other(error.text()))?;
        stream.write_all(&question).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    match timeout(limit, exchange).await {
        Ok(answer) => Ok(Answers::User { uid, serves: answer.ok().and_then(|answer| serves(&answer)) }),
        Err(_) => Ok(Answers::Silent),
    }
}

/// What the service says it serves; `None`: it refused to tell, or is of another version.
fn serves(mut answer: &[u8]) -> Option<(String, String)> {
    let status = loop {
        match Reply::read_from(&mut answer).ok()? {
            Reply::Working => (),
            Reply::Status(text) => break serde_json::from_slice::<serde_json::Value>(&text).ok()?,
            _ => return None,
        }
    };
    Some((status["cluster"].as_str()?.to_string(), status["repository"].as_str()?.to_string()))
}

fn decide_service(
    socket: &Path,
    answers: &io::Result<Answers>,
    user: Option<Owner>,
    wanted: &(String, String),
) -> Verdict {
    let socket = socket.display();
    let (uid, serves) = match answers {
        Err(error) => {
            return Check::Service
                .unknown(format!("cannot connect to \"{socket}\": {error}"))
                .hint("run this as the user that PostgreSQL and the service run as, or as root");
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
            .critical(format!("the service runs as uid {uid} and refuses the server's user (uid {})", user.uid))
            .hint("run `walden serve` as the user that PostgreSQL runs as");
    }
    match serves {
        Some(serves) if serves != wanted => Check::Service
            .critical(format!("the service on \"{socket}\" serves cluster \"{}\" in {}", serves.0, serves.1))
            .hint("restart it with this configuration, or give each cluster's service a `service.socket` of its own"),
        Some(_) => Check::Service.ok(format!("answers on \"{socket}\"")),
        None => Check::Service
            .warning(format!("what answers on \"{socket}\" does not tell what it serves"))
            .hint("install walden, archive-command and restore-command of one version, and restart `walden serve`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::check::Status;

    const USER: Option<Owner> = Some(Owner { uid: 105, gid: 110 });

    #[test]
    fn a_hook_must_be_there_and_open_to_the_servers_user() {
        let decide = |name, found| decide_hook(name, &found, USER, None);
        assert_eq!(decide("/x/archive-command", Found::Executable).status, Status::Ok);
        assert_eq!(decide("/x/archive-command", Found::Absent).status, Status::Critical);
        assert_eq!(decide("archive-command", Found::Absent).status, Status::Warning, "another PATH may have it");
        let closed = decide("/x/archive-command", Found::Closed { by: "/x".into(), mode: 0o700 });
        assert_eq!(closed.status, Status::Critical);
        assert!(closed.message.contains("uid 105") && closed.message.contains("\"/x\" has mode 0700"));
    }

    #[test]
    fn a_hook_that_asks_elsewhere_is_told() {
        let verdict = decide_hook("/x/archive-command", &Found::Executable, USER, Some(Path::new("/run/other.sock")));
        assert_eq!(verdict.status, Status::Warning);
        assert!(verdict.message.contains("/run/other.sock"));
    }

    fn service(answers: io::Result<Answers>, user: Option<Owner>) -> Status {
        let wanted = ("main".to_string(), "file:///srv/x".to_string());
        decide_service(Path::new("/run/s"), &answers, user, &wanted).status
    }

    fn serving(uid: u32, cluster: &str) -> io::Result<Answers> {
        Ok(Answers::User { uid, serves: Some((cluster.into(), "file:///srv/x".into())) })
    }

    #[test]
    fn the_service_must_be_the_servers_users_and_answer() {
        assert_eq!(service(serving(105, "main"), USER), Status::Ok);
        assert_eq!(service(serving(0, "main"), USER), Status::Critical, "it refuses others than its own user and root");
        assert_eq!(service(serving(0, "main"), None), Status::Ok);
        assert_eq!(service(Ok(Answers::Nobody), USER), Status::Warning);
        assert_eq!(service(Ok(Answers::Silent), USER), Status::Critical);
        assert_eq!(service(Err(ErrorKind::PermissionDenied.into()), USER), Status::Unknown);
    }

    #[test]
    fn the_service_must_serve_this_cluster() {
        assert_eq!(service(serving(105, "other"), USER), Status::Critical);
        assert_eq!(service(Ok(Answers::User { uid: 105, serves: None }), USER), Status::Warning);
        let answer = |reply: Reply| serves(&[Reply::Working.encode(), reply.encode()].concat());
        let told = answer(Reply::Status(br#"{"cluster": "main", "repository": "file:///srv/x"}"#.to_vec()));
        assert_eq!(told, Some(("main".into(), "file:///srv/x".into())));
        assert_eq!(answer(Reply::Failed(b"no".to_vec())), None);
        assert_eq!(serves(b"garbage"), None);
    }

    #[test]
    fn the_mode_of_every_folder_above_counts_for_another_user() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("inner"), folder.path().join("inner/program"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let stranger = Some(Owner { uid: u32::MAX - 1, gid: u32::MAX - 1 });
        mode(folder.path(), 0o755);
        mode(&inner, 0o755);
        mode(&file, 0o755);
        assert_eq!(find(&file, stranger), Found::Executable);
        mode(&inner, 0o750);
        assert_eq!(find(&file, stranger), Found::Closed { by: inner.canonicalize().unwrap(), mode: 0o750 });
        mode(&inner, 0o755);
        mode(&file, 0o644);
        assert_eq!(find(&file, stranger), Found::Closed { by: file.canonicalize().unwrap(), mode: 0o644 });
        assert_eq!(find(&file, None), Found::Closed { by: file.canonicalize().unwrap(), mode: 0o644 });
        assert_eq!(find(&inner.join("none"), None), Found::Absent);
    }
}
