//! What both hook programs do: read the arguments, ask the service, and run `walden` itself where there is none.
//! No formatting, no threads and little allocation: PostgreSQL starts this once for each WAL file.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::wire::{DEFAULT_SOCKET, Reply, Request, SILENCE_SECONDS, SOCKET_VARIABLE};

/// The arguments.
#[derive(Default)]
pub struct Options {
    socket: Option<OsString>,
    config: Option<OsString>,
    walden: Option<OsString>,
    /// Those that one of the programs has alone, with their values.
    further: Vec<(&'static str, OsString)>,
    /// What PostgreSQL put in the place of `%f` and `%p`.
    pub operands: Vec<OsString>,
}

/// What came of asking the service.
pub enum Answer {
    Done,
    /// To be renamed from there, by `restore-command` alone.
    #[allow(dead_code)]
    Delivered(Vec<u8>),
    Absent,
    Failed(Vec<u8>),
    /// Nobody there, or gone without an answer, or of another version.
    NoService,
    /// It has the request and says nothing.
    Silent,
}

impl Options {
    /// Reads the arguments; `None` when they are not as they must be. `further` are options that this program has alone.
    pub fn parse(
        mut arguments: impl Iterator<Item = OsString>,
        operands: usize,
        further: &[&'static str],
    ) -> Option<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            if let Some(name) = further.iter().find(|name| argument == **name) {
                options.further.push((*name, arguments.next()?));
                continue;
            }
            let target = match argument.as_bytes() {
                b"--socket" => &mut options.socket,
                b"--config" => &mut options.config,
                b"--walden" => &mut options.walden,
                bytes if bytes.starts_with(b"--") => return None,
                _ => {
                    options.operands.push(argument);
                    continue;
                }
            };
            *target = Some(arguments.next()?);
        }
        let complete = options.operands.len() == operands && options.operands.iter().all(|operand| !operand.is_empty());
        complete.then_some(options)
    }

    /// The value of an option that this program has alone.
    pub fn further(&self, name: &str) -> Option<&OsStr> {
        self.further.iter().rev().find(|(each, _)| *each == name).map(|(_, value)| value.as_os_str())
    }

    /// Asks the service.
    pub fn ask(&self, request: &Request) -> Answer {
        let from_environment = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        let socket = self.socket.clone().or_else(from_environment);
        let socket = socket.as_deref().unwrap_or(OsStr::new(DEFAULT_SOCKET));
        let Ok(bytes) = request.encode() else { return Answer::NoService };
        let exchange = || {
            let mut stream = UnixStream::connect(socket)?;
            let silence = Some(Duration::from_secs(SILENCE_SECONDS));
            stream.set_read_timeout(silence)?;
            stream.set_write_timeout(silence)?;
            stream.write_all(&bytes)?;
            loop {
                match Reply::read_from(&mut stream)? {
                    Reply::Working => (),
                    answer => return Ok::<_, io::Error>(answer),
                }
            }
        };
        match exchange() {
            Ok(Reply::Done) => Answer::Done,
            Ok(Reply::Delivered { path }) => Answer::Delivered(path),
            Ok(Reply::Absent) => Answer::Absent,
            Ok(Reply::Failed(text)) => Answer::Failed(text),
            Ok(Reply::Working | Reply::Status(_)) => Answer::Silent,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Answer::Silent,
            Err(_) => Answer::NoService,
        }
    }

    /// Becomes `walden wal <verb> <operands>`: the one named by `--walden`, else the one beside this program, else
    /// the first on PATH. Comes back only when that fails.
    pub fn exec_walden(&self, verb: &str) {
        let beside =
            || std::env::current_exe().ok().map(|path| path.with_file_name("walden")).filter(|path| path.exists());
        let program = self.walden.clone().map(PathBuf::from).or_else(beside).unwrap_or_else(|| "walden".into());
        let mut command = Command::new(&program);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(["wal", verb]);
        if let Some(end) = self.further("--end") {
            command.arg("--end").arg(end);
        }
        let error = command.arg("--").args(&self.operands).exec();
        say(&[
            b"ERROR: no Walden service answers, and \"",
            program.as_os_str().as_bytes(),
            b"\" cannot be run: ",
            error.to_string().as_bytes(),
            b"\nHINT: start `walden serve`, or install walden beside this program, or name it with --walden\n",
        ]);
    }
}

/// The path made absolute: PostgreSQL hands it over relative to the data directory, in which it runs the hook.
pub fn absolute(path: &OsStr) -> Option<Vec<u8>> {
    if Path::new(path).is_absolute() {
        return Some(path.as_bytes().to_vec());
    }
    let Ok(folder) = std::env::current_dir() else {
        say(&[b"ERROR: the working directory, on which \"", path.as_bytes(), b"\" depends, cannot be read\n"]);
        return None;
    };
    Some(folder.join(path).into_os_string().into_vec())
}

/// Writes to standard error, where PostgreSQL's log gets it.
pub fn say(parts: &[&[u8]]) {
    let mut text = parts.concat();
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    // Nothing is left to be done when this fails.
    let _ = io::stderr().write_all(&text);
}

/// Says that the service hangs.
pub fn say_silent() {
    say(&[
        b"ERROR: the Walden service has the request but does not answer\n\
            HINT: look at the service's log, restart `walden serve`; without a service this program works by itself\n",
    ]);
}
