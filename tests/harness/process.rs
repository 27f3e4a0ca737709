//! Running programs as the user that PostgreSQL runs as: `postgres` when the tests run as root, else ourselves.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The user that servers run as, when it is another than ours.
#[derive(Debug, Clone, Copy)]
pub struct ServerUser {
    pub uid: u32,
    pub gid: u32,
}

/// `Some` when the tests run as root.
pub fn server_user() -> Option<ServerUser> {
    static USER: OnceLock<Option<ServerUser>> = OnceLock::new();
    *USER.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
        let line = passwd.lines().find(|line| line.starts_with("postgres:"));
        let fields: Vec<&str> = line
            .expect("user postgres exists (apt-get install postgresql)")
            .split(':')
            .collect();
        Some(ServerUser {
            uid: fields[2].parse().expect("uid"),
            gid: fields[3].parse().expect("gid"),
        })
    })
}

/// A command that will run as the server's user, with a clean environment of libpq, AWS and Walden.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    command_of(server_user(), program)
}

/// The same as another user; `None`: as ourselves.
pub fn command_of(user: Option<ServerUser>, program: impl AsRef<OsStr>) -> Command {
    let mut command = match user {
        // Not by Command::uid: then the standard library forks, which copies the page tables of a big test process.
        Some(ServerUser { uid, gid }) => {
            let mut command = Command::new("setpriv");
            command.args([
                &format!("--reuid={uid}"),
                &format!("--regid={gid}"),
                "--clear-groups",
                "--",
            ]);
            command.arg(program).env("HOME", "/nonexistent");
            command
        }
        None => Command::new(program),
    };
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = text.starts_with("PG") || text.starts_with("AWS_");
        if foreign || (text.starts_with("WALDEN_") && !text.starts_with("WALDEN_TEST_")) {
            command.env_remove(&name);
        }
    }
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        // How full this machine's disk is, is no matter of the tests.
        .env("WALDEN_HEALTH__DISK_USED", "100")
        .stdin(Stdio::null())
        .current_dir("/");
    command
}

/// What a finished program left.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs to the end.
pub fn finish(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program as the server's user; panics unless it succeeds.
pub fn run_as_server<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> String {
    let mut command = command(program);
    command.args(arguments);
    let output = finish(&mut command);
    assert!(
        output.success(),
        "{command:?} failed: {}\n{}",
        output.stdout,
        output.stderr
    );
    output.stdout
}

/// Waits for a condition, at most a minute; panics with `what` after that. No test measures time by it.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        let waited = began.elapsed();
        assert!(
            waited < Duration::from_secs(60),
            "waited a minute in vain until {what}"
        );
        // Most ask through a program, which takes processor time from what is waited for: the longer, the less often.
        std::thread::sleep(
            (waited / 8).clamp(Duration::from_millis(10), Duration::from_millis(200)),
        );
    }
}

/// A folder that the server's user can enter, for programs; lives as long as the test process.
pub fn shared_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("walden-test-{}", std::process::id()));
        fs::create_dir_all(&path).expect("make the folder for programs");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .expect("open the folder for programs");
        // Statics are not dropped: this shell waits until our end of its input closes, however we end.
        let cleaner = Command::new("sh")
            .args(["-c", "cat; rm -rf \"$0\""])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        std::mem::forget(cleaner.expect("start the folder's cleaner"));
        path
    })
}

/// Whether the server's user can run this program where it lies.
pub fn is_reachable(program: &Path) -> bool {
    finish(command("/usr/bin/test").arg("-x").arg(program)).success()
}
