//! What both hook programs do: read the arguments, ask the service, and run `walden` itself where there is none.
//! No formatting and little allocation: PostgreSQL starts this once for each WAL file.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::data_directory::STOP_CHECK;
use crate::wire::{
    CONFIG_VARIABLE, DEFAULT_SOCKET, For, HookRequest, IDENTITY_VARIABLES, Reply, SILENCE_SECONDS,
    SOCKET_VARIABLE, WORKING_SECONDS,
};

/// Options of both programs.
const OPTIONS: [&str; 3] = ["--socket", "--config", "--walden"];

/// The arguments.
#[derive(Default)]
pub struct HookOptions {
    /// In the order in which they stand; of several of one name the last counts.
    options: Vec<(&'static str, OsString)>,
    /// What PostgreSQL put in the place of `%f` and `%p`.
    pub operands: Vec<OsString>,
}

/// What came of asking the service.
pub enum ServiceReply {
    Done,
    /// To be renamed from there, by `restore-command` alone.
    #[allow(dead_code)]
    Delivered(Vec<u8>),
    Absent,
    Failed(Vec<u8>),
    /// None that could answer: nobody there, of another cluster, of another version, or gone without an answer.
    NoService,
    /// It says nothing.
    Silent,
    /// It said what does not belong to the question.
    Strange,
    /// It works on it, no bytes come, and this program waits no longer.
    GaveUp,
}

/// A stream that is read until its silence lasts too long, or until who reads gives up.
struct Patient<'a> {
    stream: UnixStream,
    /// The question, or the last that was heard of bytes that come.
    began: Instant,
    heard: Instant,
    gives_up: &'a dyn Fn(Duration) -> bool,
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let waited = self.began.elapsed();
            if waited >= STOP_CHECK && (self.gives_up)(waited) {
                let works = self.heard.elapsed() < Duration::from_secs(2 * WORKING_SECONDS);
                return Err(if works {
                    ErrorKind::ConnectionAborted
                } else {
                    ErrorKind::TimedOut
                }
                .into());
            }
            match self.stream.read(bytes) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if self.heard.elapsed() >= Duration::from_secs(SILENCE_SECONDS) {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                read => {
                    self.heard = Instant::now();
                    return read;
                }
            }
        }
    }
}

impl HookOptions {
    /// Reads the arguments; `None` when they are not as they must be. `further` are options that this program has alone.
    pub fn parse(
        mut arguments: impl Iterator<Item = OsString>,
        operands: usize,
        further: &[&'static str],
    ) -> Option<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let bytes = argument.as_bytes();
            if !bytes.starts_with(b"--") {
                options.operands.push(argument);
                continue;
            }
            let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
                Some(at) => (
                    &bytes[..at],
                    Some(OsStr::from_bytes(&bytes[at + 1..]).to_os_string()),
                ),
                None => (bytes, None),
            };
            let name = OPTIONS
                .iter()
                .chain(further)
                .find(|known| known.as_bytes() == name)?;
            options
                .options
                .push((name, value.or_else(|| arguments.next())?));
        }
        let complete = options.operands.len() == operands
            && options.operands.iter().all(|operand| !operand.is_empty());
        complete.then_some(options)
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.options
            .iter()
            .rev()
            .find(|(each, _)| *each == name)
            .map(|(_, value)| value.as_os_str())
    }

    /// For whom a request is. A socket that is named alone says it all: then no other configuration is meant, whatever the
    /// environment or the default file names, and there is nothing to fall back to. `None` is told.
    pub fn whose(&self) -> Option<For> {
        let file = match self.get("--config") {
            None if self.get("--socket").is_some() => return Some(For::Socket),
            Some(file) => Some(file.to_os_string()),
            None => std::env::var_os(CONFIG_VARIABLE).filter(|file| !file.is_empty()),
        };
        let file = match file {
            Some(file) => absolute(&file)?,
            None => Vec::new(),
        };
        let set = |name: &&str| {
            Some([name.as_bytes(), b"=", std::env::var_os(name)?.as_bytes()].concat())
        };
        Some(For::Configuration {
            file,
            variables: IDENTITY_VARIABLES.iter().filter_map(set).collect(),
        })
    }

    fn socket(&self) -> OsString {
        let from_environment = || std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        self.get("--socket")
            .map(OsStr::to_os_string)
            .or_else(from_environment)
            .unwrap_or_else(|| DEFAULT_SOCKET.into())
    }

    /// Asks the service. `gives_up` is told now and then how long this has waited since bytes came.
    pub fn ask(&self, request: &HookRequest, gives_up: &dyn Fn(Duration) -> bool) -> ServiceReply {
        let Ok(bytes) = request.encode() else {
            return ServiceReply::NoService;
        };
        let exchange = || {
            let mut stream = connect(self.socket())?;
            stream.set_read_timeout(Some(STOP_CHECK))?;
            stream.set_write_timeout(Some(Duration::from_secs(SILENCE_SECONDS)))?;
            stream.write_all(&bytes)?;
            let began = Instant::now();
            let mut stream = Patient {
                stream,
                began,
                heard: began,
                gives_up,
            };
            loop {
                match Reply::read_from(&mut stream)? {
                    Reply::Working => (),
                    Reply::Coming => stream.began = Instant::now(),
                    answer => return Ok::<_, io::Error>(answer),
                }
            }
        };
        match exchange() {
            Ok(Reply::Done) => ServiceReply::Done,
            Ok(Reply::Delivered { path }) => ServiceReply::Delivered(path),
            Ok(Reply::Absent) => ServiceReply::Absent,
            Ok(Reply::Failed(text)) => ServiceReply::Failed(text),
            Ok(Reply::NotMine(_)) => ServiceReply::NoService,
            Ok(Reply::Working | Reply::Coming | Reply::Status(_)) => ServiceReply::Strange,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => ServiceReply::GaveUp,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                ServiceReply::Silent
            }
            Err(_) => ServiceReply::NoService,
        }
    }

    /// Does the work without the service: becomes `walden wal <verb> <operands>`, the one named by `--walden`, else the
    /// one beside this program, else the first on PATH. Comes back only when that fails, or must not be: see
    /// [`whose`](Self::whose).
    pub fn work_alone(&self, verb: &str, whose: &For, silent: bool) {
        let socket = self.socket();
        if silent {
            say(&[
                b"WARNING: the Walden service on \"",
                socket.as_bytes(),
                b"\" does not answer\n\
                  HINT: look at its log and restart `walden serve`\n",
            ]);
        }
        if *whose == For::Socket {
            say(&[
                b"ERROR: no Walden service answers on \"",
                socket.as_bytes(),
                b"\", and --config names no configuration\n\
                  HINT: start `walden serve`; with --config FILE this program works without it\n",
            ]);
            return;
        }
        let beside = || {
            std::env::current_exe()
                .ok()
                .map(|path| path.with_file_name("walden"))
                .filter(|path| path.exists())
        };
        let program = self
            .get("--walden")
            .map(PathBuf::from)
            .or_else(beside)
            .unwrap_or_else(|| "walden".into());
        let mut command = Command::new(&program);
        if let Some(config) = self.get("--config") {
            command.arg("--config").arg(config);
        }
        command.args(["wal", verb]);
        if let Some(end) = self.get("--end") {
            command.arg("--end").arg(end);
        }
        let error = command.arg("--").args(&self.operands).exec();
        say(&[
            b"ERROR: no Walden service answers for this cluster, and \"",
            program.as_os_str().as_bytes(),
            b"\" cannot be run: ",
            error.to_string().as_bytes(),
            b"\nHINT: start `walden serve`, or install walden beside this program, or name it with --walden\n",
        ]);
    }
}

/// Connects, or finds out in time that nobody takes connections any more: that blocks when the queue of a stopped service
/// is full, and the standard library has no bound for it. A thread that waits on ends with this program.
fn connect(socket: OsString) -> io::Result<UnixStream> {
    let (sender, connected) = mpsc::channel();
    thread::Builder::new().spawn(move || sender.send(UnixStream::connect(socket)))?;
    connected
        .recv_timeout(Duration::from_secs(SILENCE_SECONDS))
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// The path made absolute: PostgreSQL hands it over relative to the data directory, in which it runs the hook.
pub fn absolute(path: &OsStr) -> Option<Vec<u8>> {
    if Path::new(path).is_absolute() {
        return Some(path.as_bytes().to_vec());
    }
    let Ok(folder) = std::env::current_dir() else {
        say(&[
            b"ERROR: the working directory, on which \"",
            path.as_bytes(),
            b"\" depends, cannot be read\n",
        ]);
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
