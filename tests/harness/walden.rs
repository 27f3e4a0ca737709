//! Walden beside a cluster: the real programs, a configuration file, and the log police.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::{Bucket, Cluster, Output, Scratch, ServerUser, process, wait_until};

/// The programs, where the server's user can run them.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_walden"))
            .parent()
            .expect("the build's folder");
        let names = ["walden", "archive-command", "restore-command"];
        for name in names {
            assert!(
                built.join(name).exists(),
                "{name} is not built: run `cargo build` first, as tests/run does"
            );
        }
        if process::is_reachable(&built.join("walden")) {
            return built.to_path_buf();
        }
        let folder = process::shared_folder().join("bin");
        fs::create_dir_all(&folder).expect("make a folder for programs");
        for name in names {
            fs::copy(built.join(name), folder.join(name)).expect("copy a program");
        }
        folder
    })
}

/// Walden as one operator has it: programs, configuration, repository.
#[derive(Debug)]
pub struct Walden {
    pub config: PathBuf,
    /// The folder; empty with a bucket.
    pub repository: PathBuf,
    pub socket: PathBuf,
    log_folder: PathBuf,
    /// Parts of WARN and ERROR lines that the test expects.
    expected: RefCell<Vec<String>>,
    /// Log lines of finished commands.
    lines: RefCell<Vec<String>>,
}

impl Walden {
    /// A configuration for `cluster` under the name `main`, with a repository in the scratch folder.
    pub fn beside(scratch: &Scratch, cluster: &Cluster) -> Self {
        Self::with(scratch, cluster, "")
    }

    /// The same with further settings, as TOML.
    pub fn with(scratch: &Scratch, cluster: &Cluster, settings: &str) -> Self {
        Self::named(scratch, cluster, "main", settings)
    }

    /// The same under another name of the cluster and of the files.
    pub fn named(scratch: &Scratch, cluster: &Cluster, name: &str, settings: &str) -> Self {
        let repository = scratch.join("repo sitory");
        let url = format!("file://{}", repository.display());
        let mut walden = Self::at(scratch, cluster, name, &url, settings);
        walden.repository = repository;
        walden
    }

    /// The same with a repository in a bucket. There is no folder then.
    pub fn on_s3(scratch: &Scratch, cluster: &Cluster, bucket: &Bucket, settings: &str) -> Self {
        Self::at(
            scratch,
            cluster,
            "main",
            &bucket.url(),
            &(bucket.settings() + settings),
        )
    }

    fn at(scratch: &Scratch, cluster: &Cluster, name: &str, url: &str, settings: &str) -> Self {
        let socket = scratch.join(&format!("{name}.sock"));
        let dsn = cluster.dsn().replace('\\', "\\\\").replace('"', "\\\"");
        // Tests run side by side; those of HTTP choose a port of their own.
        let quiet = if settings.contains("http.listen") {
            ""
        } else {
            "http.listen = \"\"\n"
        };
        let text = format!(
            "{quiet}repository.url = \"{url}\"\ncluster.name = \"{name}\"\npostgresql.dsn = \"{dsn}\"\n\
             service.socket = \"{}\"\ncatalog.cache = \"{}\"\n{settings}\n",
            socket.display(),
            scratch.join("cache").display()
        );
        let config = scratch.write(&format!("{name}.toml"), &text);
        let (repository, log_folder) = (PathBuf::new(), scratch.folder("logs"));
        Self {
            config,
            repository,
            socket,
            log_folder,
            expected: RefCell::default(),
            lines: RefCell::default(),
        }
    }

    /// Walden with a configuration file of its own that names `repository`.
    pub fn by(scratch: &Scratch, config: PathBuf, repository: PathBuf) -> Self {
        let (socket, log_folder) = (scratch.join("other.sock"), scratch.folder("logs"));
        Self {
            config,
            repository,
            socket,
            log_folder,
            expected: RefCell::default(),
            lines: RefCell::default(),
        }
    }

    /// A program's path.
    pub fn program(name: &str) -> PathBuf {
        programs().join(name)
    }

    /// What goes into archive_command.
    pub fn archive_command(&self) -> String {
        format!("{} %p", self.hook("archive-command"))
    }

    /// What goes into restore_command.
    pub fn restore_command(&self) -> String {
        format!("{} %f %p", self.hook("restore-command"))
    }

    /// What goes into restore_command where there is no repository, only a service to be asked.
    pub fn restore_command_from(url: &str, token_file: &Path) -> String {
        let program = Self::program("restore-command");
        format!(
            "\"{}\" --url {url} --token-file \"{}\" %f %p",
            program.display(),
            token_file.display()
        )
    }

    fn hook(&self, name: &str) -> String {
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        let (program, config, socket) = (
            Self::program(name),
            quoted(&self.config),
            quoted(&self.socket),
        );
        format!("{} --config {config} --socket {socket}", quoted(&program))
    }

    /// A command of `walden` that is not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = process::command(Self::program("walden"));
        command.arg("--config").arg(&self.config).args(arguments);
        command
    }

    /// The same, run by root, as which the tests must run.
    pub fn root_command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.user_command(ServerUser { uid: 0, gid: 0 }, arguments)
    }

    fn user_command<S: AsRef<OsStr>>(
        &self,
        user: ServerUser,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = process::command_of(Some(user), Self::program("walden"));
        command.arg("--config").arg(&self.config).args(arguments);
        command
    }

    /// Runs a verb as root to its end.
    pub fn as_root<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        process::finish(&mut self.root_command(arguments))
    }

    /// Runs a verb as another user to its end; the tests must run as root.
    pub fn as_user<S: AsRef<OsStr>>(
        &self,
        user: ServerUser,
        arguments: impl IntoIterator<Item = S>,
    ) -> Output {
        process::finish(&mut self.user_command(user, arguments))
    }

    /// Runs a verb to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        let output = process::finish(&mut self.command(arguments));
        self.lines
            .borrow_mut()
            .extend(output.stderr.lines().map(str::to_string));
        output
    }

    /// Runs a verb that must succeed; what it printed.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let arguments: Vec<S> = arguments.into_iter().collect();
        let words: Vec<String> = arguments
            .iter()
            .map(|word| word.as_ref().to_string_lossy().into_owned())
            .collect();
        let output = self.run(arguments);
        assert!(
            output.success(),
            "walden {words:?} failed ({:?}):\n{}\n{}",
            output.code,
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// Runs a verb with `--format json` that must succeed; the document.
    pub fn json<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> serde_json::Value {
        let mut all: Vec<std::ffi::OsString> = vec!["--format".into(), "json".into()];
        all.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_os_string()),
        );
        serde_json::from_str(&self.ok(all)).expect("a JSON document")
    }

    /// Runs a verb that must fail with this exit code; what it said on standard error.
    pub fn refused<S: AsRef<OsStr>>(
        &self,
        code: i32,
        arguments: impl IntoIterator<Item = S>,
    ) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.code,
            Some(code),
            "{}\n{}",
            output.stdout,
            output.stderr
        );
        output.stderr
    }

    /// Starts the service and waits until it answers.
    pub fn serve(&self) -> Service<'_> {
        self.serve_with(&[])
    }

    /// The same with further environment.
    pub fn serve_with(&self, environment: &[(&str, &str)]) -> Service<'_> {
        let number = fs::read_dir(&self.log_folder).map_or(0, |entries| entries.count());
        let log = self.log_folder.join(format!("serve-{number}.log"));
        let file = fs::File::create(&log).expect("make the service's log");
        let mut command = self.command(["serve"]);
        command
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(file);
        let child = command.spawn().expect("start walden serve");
        let mut service = Service {
            walden: self,
            child: Some(child),
            log,
        };
        wait_until("the service answers on its socket", || {
            if let Some(status) = service
                .child
                .as_mut()
                .and_then(|child| child.try_wait().expect("ask for the service"))
            {
                panic!("walden serve ended with {status}:\n{}", service.log());
            }
            std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
                && self.run(["status"]).code == Some(0)
        });
        service
    }

    /// Declares that WARN or ERROR log lines holding `part` are part of the scenario.
    pub fn expect_log(&self, part: &str) {
        self.expected.borrow_mut().push(part.to_string());
    }

    /// The path of a WAL segment's object.
    pub fn segment_object(&self, segment: &str) -> PathBuf {
        self.repository
            .join("main/wal")
            .join(&segment[..16])
            .join(format!("{segment}.zst"))
    }

    /// Fails the test on log lines that it did not declare.
    fn police(&self, lines: impl Iterator<Item = String>) {
        let expected = self.expected.borrow();
        let suspect = |line: &String| line.contains(" WARN ") || line.contains(" ERROR ");
        let undeclared: Vec<String> = lines
            .filter(suspect)
            .filter(|line| !expected.iter().any(|part| line.contains(part)))
            .collect();
        assert!(
            undeclared.is_empty(),
            "log lines that the test did not declare:\n{}",
            undeclared.join("\n")
        );
    }
}

impl Drop for Walden {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.police(self.lines.borrow().iter().cloned());
        }
    }
}

/// A running `walden serve`; ended by SIGTERM when this goes away.
#[derive(Debug)]
pub struct Service<'a> {
    walden: &'a Walden,
    child: Option<Child>,
    log: PathBuf,
}

impl Service<'_> {
    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running service").id()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the service's status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }

    /// Ends it by SIGTERM and waits; it must end well.
    pub fn stop(mut self) {
        self.end();
    }

    /// Ends it as a crash would.
    pub fn kill9(mut self) {
        let mut child = self.child.take().expect("a running service");
        child.kill().expect("kill the service");
        child.wait().expect("wait for the service");
    }

    fn end(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let mut status = None;
        wait_until("the service ends after SIGTERM", || {
            status = child.try_wait().expect("wait for the service");
            status.is_some()
        });
        if !std::thread::panicking() {
            assert!(
                status.is_some_and(|status| status.success()),
                "walden serve ended badly:\n{}",
                self.log()
            );
        }
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        } else {
            self.walden.police(self.log().lines().map(str::to_string));
        }
    }
}
