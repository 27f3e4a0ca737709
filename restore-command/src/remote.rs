//! Fetching from a service on another machine, over plain HTTP.
//!
//! Written beside the destination, checked against the length and the CRC that the service tells, then renamed: nothing
//! that is not whole ever stands where PostgreSQL looks. "Absent" is believed only when the service itself says so.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::crc32c::Crc32c;
use crate::data_directory::{STANDBY_PATIENCE, decides, is_in_haste};
use crate::is_history;

/// The variable that holds a token when no file is named: arguments can be seen by everybody on the machine.
const TOKEN_VARIABLE: &str = "WALDEN_TOKEN";
/// Between two attempts: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to wait for a service in trouble.
struct Bounds {
    connect: Duration,
    /// Without a byte.
    silence: Duration,
    /// For trouble that may pass: until then it is met by trying again.
    patience: Duration,
}

const BOUNDS: Bounds = Bounds {
    connect: Duration::from_secs(10),
    // The service answers after `wal.timeout` at the latest, and that is a minute unless it is set.
    silence: Duration::from_secs(120),
    // A service that is being restarted is there again by then.
    patience: Duration::from_secs(60),
};
/// A standby asks again by itself, and what comes meanwhile the service keeps for it.
/// Where no answer would decide what a standby becomes: pg_promote() waits a minute, for several calls.
const DECIDING_PATIENCE: Duration = Duration::from_secs(20);
const BOUNDS_OF_STANDBY: Bounds = Bounds {
    connect: STANDBY_PATIENCE,
    silence: STANDBY_PATIENCE,
    patience: Duration::ZERO,
};

/// Bytes of an answer's head, and of an error's text.
const LONGEST_TEXT: u64 = 16 << 10;

/// What to get from where, and to where.
pub struct RemoteFile<'a> {
    pub url: &'a OsStr,
    pub cluster: &'a OsStr,
    pub token_file: Option<&'a OsStr>,
    pub name: &'a OsStr,
    pub end: Option<&'a OsStr>,
    pub destination: &'a Path,
}

/// An answer.
pub enum Delivery {
    Delivered,
    Absent,
}

/// Why there is no answer.
enum FetchError {
    /// It may pass.
    Passing(String),
    Lasting(String),
}

/// Gets the file to its destination, or the proof that there is none. The error is text to be printed.
pub fn fetch(wanted: &RemoteFile) -> Result<Delivery, String> {
    let (host, port) = address(wanted.url)?;
    let request = request(wanted, &host, port, token(wanted.token_file)?)?;
    let history = is_history(wanted.name);
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        // It may be promoted meanwhile.
        let haste = || is_in_haste(Some(wanted.destination), history);
        let bounds = if haste() { BOUNDS_OF_STANDBY } else { BOUNDS };
        let text = match exchange(wanted, &host, port, &request, &bounds) {
            Ok(fetched) => return Ok(fetched),
            Err(FetchError::Lasting(text)) => return Err(text),
            Err(FetchError::Passing(text)) => text,
        };
        let (patience, note) = match haste() {
            // A hiccup is nothing that a timeline may hang on.
            true if history => (STANDBY_PATIENCE, ""),
            true => (
                BOUNDS_OF_STANDBY.patience,
                "HINT: a promotion now would end before this file\n",
            ),
            false if decides(Some(wanted.destination), history) => (DECIDING_PATIENCE, ""),
            false => (BOUNDS.patience, ""),
        };
        if began.elapsed() + pause > patience {
            return Err(text + note);
        }
        std::thread::sleep(pause);
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Host, as it stands in a URL, and port.
fn address(url: &OsStr) -> Result<(String, u16), String> {
    let shown = url.to_string_lossy();
    let wrong = |why: &str| {
        format!(
            "ERROR: --url \"{shown}\": {why}\nHINT: it is the address of `walden serve` there, such as http://archive.example:8432\n"
        )
    };
    if shown.starts_with("https://") {
        let hint = "tunnel it (such as `ssh -L 8432:127.0.0.1:8432`, or stunnel) and name the near end as http://127.0.0.1:8432";
        return Err(format!(
            "ERROR: --url \"{shown}\": this program speaks no TLS\nHINT: {hint}\n"
        ));
    }
    let rest = shown
        .strip_prefix("http://")
        .ok_or_else(|| wrong("it does not begin with http://"))?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b))
    };
    if !plain(authority) {
        return Err(wrong("expected a host and a port, nothing else"));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => Ok((
            host.to_string(),
            port.parse().map_err(|_| wrong("its port is none"))?,
        )),
        Some((_, port)) if !port.ends_with(']') => Err(wrong("it has no host")),
        _ => Ok((authority.to_string(), 80)),
    }
}

/// The token of the file, else of the environment; `None` when there is none.
fn token(file: Option<&OsStr>) -> Result<Option<String>, String> {
    let (text, source) = match file {
        Some(path) => {
            let shown = Path::new(path).display().to_string();
            let text = fs::read_to_string(path).map_err(|error| {
                format!("ERROR: cannot read \"{shown}\", named by --token-file: {error}\nHINT: PostgreSQL's user must be able to read it\n")
            })?;
            (text, shown)
        }
        None => match std::env::var(TOKEN_VARIABLE) {
            Ok(text) => (text, TOKEN_VARIABLE.to_string()),
            Err(_) => return Ok(None),
        },
    };
    let token = text.lines().map(str::trim).find(|line| !line.is_empty());
    match token {
        Some(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(token.to_string()))
        }
        _ => Err(format!(
            "ERROR: there is no token in {source}\nHINT: it holds the token alone, on its first line\n"
        )),
    }
}

/// The request's head. Values go into it only when they need no quoting.
fn request(
    wanted: &RemoteFile,
    host: &str,
    port: u16,
    token: Option<String>,
) -> Result<String, String> {
    let plain = |value: &OsStr, what: &str| {
        let text = value.to_string_lossy().into_owned();
        let fine = !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        match fine {
            true => Ok(text),
            false => Err(format!(
                "ERROR: \"{text}\" is no {what}\nHINT: restore_command = 'restore-command --url URL %f %p'\n"
            )),
        }
    };
    let (cluster, name) = (
        plain(wanted.cluster, "cluster's name")?,
        plain(wanted.name, "WAL file's name")?,
    );
    let mut query = format!("session={:016x}", session(wanted.destination));
    if let Some(end) = wanted.end {
        query += &format!("&end={}", plain(end, "WAL segment's name")?);
    }
    if let Some(identifier) = system_identifier(wanted.destination) {
        query += &format!("&system_identifier={identifier}");
    }
    let token = token
        .map(|token| format!("Authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    Ok(format!(
        "GET /v1/clusters/{cluster}/wal/{name}?{query} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/plain\r\n\
         Connection: close\r\nUser-Agent: restore-command/{}\r\n{token}\r\n",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Tells the restores of one machine apart (FNV-1a of the destination's folder).
fn session(destination: &Path) -> u64 {
    let folder = destination
        .parent()
        .unwrap_or(destination)
        .as_os_str()
        .as_bytes();
    folder.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Which cluster restores: another one's archive must not tell it that its WAL ends. The first eight bytes of
/// pg_control, beside the folder that the file goes to.
fn system_identifier(destination: &Path) -> Option<u64> {
    let data = destination.parent()?.parent()?;
    let mut bytes = [0; 8];
    File::open(data.join("global/pg_control"))
        .ok()?
        .read_exact(&mut bytes)
        .ok()?;
    Some(u64::from_ne_bytes(bytes))
}

fn exchange(
    wanted: &RemoteFile,
    host: &str,
    port: u16,
    request: &str,
    bounds: &Bounds,
) -> Result<Delivery, FetchError> {
    let name = wanted.name.to_string_lossy();
    let broken = |error: io::Error| {
        let silent = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let why = if silent {
            "it does not answer".to_string()
        } else {
            error.to_string()
        };
        FetchError::Passing(format!(
            "ERROR: cannot fetch \"{name}\" from http://{host}:{port}: {why}\n\
             HINT: check that `walden serve` runs there and listens on that address; recovery goes on from here then\n"
        ))
    };
    let mut stream = connect(host, port, bounds).map_err(broken)?;
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut reader = BufReader::new(stream);
    let head = ResponseHead::read(&mut reader).map_err(broken)?;
    if head.status == 200 && head.answer == format!("delivered {name}") {
        return receive(wanted, &head, &mut reader, &broken);
    }
    if head.status == 404 && head.answer == format!("absent {name}") {
        return Ok(Delivery::Absent);
    }
    let mut text = String::new();
    // What is cut or garbled is still better than nothing.
    let _ = reader.take(LONGEST_TEXT).read_to_string(&mut text);
    if !text.starts_with("ERROR: ") {
        text = format!(
            "ERROR: cannot fetch \"{name}\" from http://{host}:{port}: it answers {}, as no Walden service does\n\
             HINT: check --url\n",
            head.status
        );
    }
    match head.status {
        408 | 429 | 502..=504 => Err(FetchError::Passing(text)),
        _ => Err(FetchError::Lasting(text)),
    }
}

fn connect(host: &str, port: u16, bounds: &Bounds) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "its name has no address");
    for address in (host.trim_start_matches('[').trim_end_matches(']'), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, bounds.connect) {
            Ok(stream) => {
                stream.set_read_timeout(Some(bounds.silence))?;
                stream.set_write_timeout(Some(bounds.silence))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What counts of an answer's head.
struct ResponseHead {
    status: u16,
    length: Option<u64>,
    /// `Repr-Digest`.
    digest: String,
    /// `Walden-Wal`.
    answer: String,
}

impl ResponseHead {
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut reader = reader.take(LONGEST_TEXT);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.ends_with('\n') {
                Ok(line.trim_end().to_string())
            } else {
                Err(io::Error::from(ErrorKind::UnexpectedEof))
            }
        };
        let first = line()?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|code| code.parse().ok());
        let status = status
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it does not speak HTTP"))?;
        let mut head = Self {
            status,
            length: None,
            digest: String::new(),
            answer: String::new(),
        };
        loop {
            let header = line()?;
            if header.is_empty() {
                return Ok(head);
            }
            let Some((name, value)) = header.split_once(':') else {
                continue;
            };
            match (name.to_ascii_lowercase().as_str(), value.trim()) {
                ("content-length", value) => head.length = value.parse().ok(),
                ("repr-digest", value) => head.digest = value.to_string(),
                ("walden-wal", value) => head.answer = value.to_string(),
                _ => (),
            }
        }
    }
}

/// Takes the file to its destination.
fn receive(
    wanted: &RemoteFile,
    head: &ResponseHead,
    reader: &mut impl Read,
    broken: &dyn Fn(io::Error) -> FetchError,
) -> Result<Delivery, FetchError> {
    let length = head
        .length
        .ok_or_else(|| broken(io::Error::new(ErrorKind::InvalidData, "it tells no length")))?;
    let place = beside(wanted.destination);
    // One that was killed left it.
    let _ = fs::remove_file(&place);
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&place);
    let mut file = created.map_err(|error| cannot("make", &place, error))?;
    let written = copy(reader, length, head, broken, &mut |piece| {
        file.write_all(piece)
            .map_err(|error| cannot("write", &place, error))
    });
    // Another process may have taken the place, because this one was thought to be gone: what is there is its.
    let is_ours = || {
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(&place)?);
        Ok::<_, io::Error>((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    };
    if !is_ours().unwrap_or(false) {
        return Err(cannot(
            "keep",
            &place,
            io::Error::other("another restore-command took its place"),
        ));
    }
    let moved = written.and_then(|()| {
        fs::rename(&place, wanted.destination)
            .map_err(|error| cannot("put the file at", wanted.destination, error))
    });
    if moved.is_err() {
        let _ = fs::remove_file(&place);
    }
    moved.map(|()| Delivery::Delivered)
}

/// Hands the content over and compares its digest.
fn copy(
    reader: &mut impl Read,
    mut left: u64,
    head: &ResponseHead,
    broken: &dyn Fn(io::Error) -> FetchError,
    write: &mut dyn FnMut(&[u8]) -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    let (mut crc, mut piece) = (Crc32c::new(), vec![0; 256 << 10]);
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = reader.read(&mut piece[..most]).map_err(broken)?;
        if read == 0 {
            return Err(broken(ErrorKind::UnexpectedEof.into()));
        }
        crc.update(&piece[..read]);
        write(&piece[..read])?;
        left -= read as u64;
    }
    match crc.digest() == head.digest {
        true => Ok(()),
        false => Err(broken(io::Error::new(
            ErrorKind::InvalidData,
            "what came is damaged: its CRC is another",
        ))),
    }
}

fn cannot(what: &str, path: &Path, error: io::Error) -> FetchError {
    let (path, hint) = (path.display(), "check the space and the permissions there");
    FetchError::Lasting(format!(
        "ERROR: cannot {what} \"{path}\": {error}\nHINT: {hint}\n"
    ))
}

/// A name beside the destination, as `walden wal fetch` has it: at most one is ever left there.
fn beside(destination: &Path) -> PathBuf {
    let mut name = OsString::from(".walden-fetch-");
    name.push(destination.file_name().unwrap_or_default());
    destination.with_file_name(name)
}
