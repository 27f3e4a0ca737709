//! The hook socket's protocol: one request, one answer, over a unix stream socket. Standard library only and pure, so
//! that the two hook programs mount this file as it is.
//!
//! A request is `WHK`, the version, its kind, a zero, and the lengths of up to three byte strings, each a
//! little-endian `u16`; then the strings. A reply is `WHK`, the version, its kind, a zero, the length of a text as
//! `u16`; then the text. While an answer is being worked on, the service says [`Reply::Working`] again and again, so
//! a client can tell a long wait from a dead service. Paths are bytes, as PostgreSQL hands them over.

use std::io::{self, Read};

/// Where the socket lies when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/walden/hook.sock";
/// The environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "WALDEN_SOCKET";
/// Seconds between two [`Reply::Working`].
pub const WORKING_SECONDS: u64 = 5;
/// Seconds without a byte after which a client takes the service for hung.
pub const SILENCE_SECONDS: u64 = 30;

/// Bytes of a request before its strings.
pub const REQUEST_HEADER: usize = 12;
/// Bytes of a reply before its text.
pub const REPLY_HEADER: usize = 8;

const MAGIC: [u8; 4] = *b"WHK\x01";
/// Longest path in bytes, as Linux has it (`PATH_MAX`).
const MAX_PATH: usize = 4096;
/// Longest name of a WAL file that is passed on; the longest real one has 40 bytes.
const MAX_NAME: usize = 255;
/// Longest text of a reply; longer ones are cut.
pub const MAX_TEXT: usize = 16 << 10;

/// What a hook asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Store this file; the path is absolute.
    Push { path: Vec<u8> },
    /// Put the WAL file of this name at this absolute path. Segments from `end` on (when not empty) are answered as
    /// absent without looking.
    Fetch { name: Vec<u8>, destination: Vec<u8>, end: Vec<u8> },
    /// Say what the service is doing.
    Status,
}

/// What the service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Stored and durable.
    Done,
    /// Fetched, whole, to this absolute path beside the destination. The hook itself renames it to the destination: one
    /// that was killed must not replace what its successor put there.
    Delivered { path: Vec<u8> },
    /// The repository proves that there is no such file.
    Absent,
    /// It did not work; the text says why and what to do, in lines to be printed.
    Failed(Vec<u8>),
    /// Not an answer yet: the service is alive and at it.
    Working,
    /// What the service is doing: a JSON document.
    Status(Vec<u8>),
}

/// Bytes that are not of this protocol and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// Not this protocol, or another version of it.
    Version,
    /// An unknown kind.
    Kind,
    /// A length beyond its bound, or strings that do not add up to it.
    Length,
}

impl WireError {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Version => "the hook program and the service are of different versions",
            Self::Kind => "the kind of message is not known",
            Self::Length => "a message has a wrong length",
        }
    }
}

impl Request {
    /// The bytes to send. Errors: a path or name longer than the protocol takes.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let (kind, strings): (u8, [&[u8]; 3]) = match self {
            Self::Push { path } => (1, [path, b"", b""]),
            Self::Fetch { name, destination, end } => (2, [name, destination, end]),
            Self::Status => (3, [b"", b"", b""]),
        };
        let mut bytes = Vec::with_capacity(REQUEST_HEADER + strings.iter().map(|string| string.len()).sum::<usize>());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind, 0]);
        for (string, longest) in strings.iter().zip(longest(kind)?) {
            if string.len() > longest {
                return Err(WireError::Length);
            }
            bytes.extend_from_slice(&(string.len() as u16).to_le_bytes());
        }
        for string in strings {
            bytes.extend_from_slice(string);
        }
        Ok(bytes)
    }

    /// How many bytes follow the header.
    pub fn body_len(header: &[u8; REQUEST_HEADER]) -> Result<usize, WireError> {
        Ok(lengths(header)?.iter().sum())
    }

    /// Reads a request; `body` has the length that [`body_len`](Self::body_len) said.
    pub fn decode(header: &[u8; REQUEST_HEADER], body: &[u8]) -> Result<Self, WireError> {
        let [first, second, third] = lengths(header)?;
        if body.len() != first + second + third {
            return Err(WireError::Length);
        }
        let (one, rest) = body.split_at(first);
        let (two, three) = rest.split_at(second);
        Ok(match header[4] {
            1 => Self::Push { path: one.to_vec() },
            3 => Self::Status,
            _ => Self::Fetch { name: one.to_vec(), destination: two.to_vec(), end: three.to_vec() },
        })
    }
}

/// Longest strings of a kind of request.
fn longest(kind: u8) -> Result<[usize; 3], WireError> {
    match kind {
        1 => Ok([MAX_PATH, 0, 0]),
        2 => Ok([MAX_NAME, MAX_PATH, MAX_NAME]),
        3 => Ok([0, 0, 0]),
        _ => Err(WireError::Kind),
    }
}

fn lengths(header: &[u8; REQUEST_HEADER]) -> Result<[usize; 3], WireError> {
    if header[..4] != MAGIC {
        return Err(WireError::Version);
    }
    let longest = longest(header[4])?;
    let length = |at: usize| usize::from(u16::from_le_bytes([header[6 + 2 * at], header[7 + 2 * at]]));
    let lengths = [length(0), length(1), length(2)];
    match lengths.iter().zip(longest).all(|(&length, longest)| length <= longest) {
        true => Ok(lengths),
        false => Err(WireError::Length),
    }
}

impl Reply {
    /// The bytes to send. A text beyond the protocol's bound is cut.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, text): (u8, &[u8]) = match self {
            Self::Done => (1, b""),
            Self::Absent => (2, b""),
            Self::Failed(text) => (3, &text[..text.len().min(MAX_TEXT)]),
            Self::Working => (4, b""),
            Self::Delivered { path } => (5, path),
            Self::Status(text) => (6, &text[..text.len().min(MAX_TEXT)]),
        };
        let mut bytes = Vec::with_capacity(REPLY_HEADER + text.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind, 0]);
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text);
        bytes
    }

    /// Reads one reply. Errors: the stream's; `InvalidData` for what is no reply of this version.
    pub fn read_from(stream: &mut impl Read) -> io::Result<Self> {
        let mut header = [0; REPLY_HEADER];
        stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if header[..4] != MAGIC || length > MAX_TEXT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text)?;
        match header[4] {
            1 => Ok(Self::Done),
            2 => Ok(Self::Absent),
            3 => Ok(Self::Failed(text)),
            4 => Ok(Self::Working),
            5 => Ok(Self::Delivered { path: text }),
            6 => Ok(Self::Status(text)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Request, WireError> {
        let header: [u8; REQUEST_HEADER] = bytes[..REQUEST_HEADER].try_into().unwrap();
        assert_eq!(Request::body_len(&header)?, bytes.len() - REQUEST_HEADER);
        Request::decode(&header, &bytes[REQUEST_HEADER..])
    }

    #[test]
    fn requests_and_replies_read_back() {
        for request in [
            Request::Push { path: b"/data dir/\xFF/pg_wal/000000010000000000000001".to_vec() },
            Request::Fetch { name: b"00000002.history".to_vec(), destination: b"/d".to_vec(), end: Vec::new() },
            Request::Fetch { name: b"x".to_vec(), destination: b"/d".to_vec(), end: b"y".to_vec() },
            Request::Status,
        ] {
            assert_eq!(decode(&request.encode().unwrap()), Ok(request));
        }
        let delivered = Reply::Delivered { path: b"/d/\xFF".to_vec() };
        let (failed, status) = (Reply::Failed(b"no".to_vec()), Reply::Status(b"{}".to_vec()));
        for reply in [Reply::Done, Reply::Absent, failed, Reply::Working, delivered, status] {
            assert_eq!(Reply::read_from(&mut &reply.encode()[..]).unwrap(), reply);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_or_cut() {
        assert_eq!(Request::Push { path: vec![b'a'; MAX_PATH + 1] }.encode(), Err(WireError::Length));
        let mut bytes = Request::Push { path: b"/a".to_vec() }.encode().unwrap();
        bytes[7] = 0xFF;
        assert_eq!(decode(&bytes), Err(WireError::Length));
        let cut = Reply::Failed(vec![b'a'; MAX_TEXT + 1]).encode();
        assert_eq!(Reply::read_from(&mut &cut[..]).unwrap(), Reply::Failed(vec![b'a'; MAX_TEXT]));
    }

    #[test]
    fn another_version_is_told_apart_from_garbage() {
        let mut bytes = Request::Push { path: b"/a".to_vec() }.encode().unwrap();
        bytes[4] = 9;
        assert_eq!(decode(&bytes), Err(WireError::Kind));
        bytes[3] = 2;
        assert_eq!(decode(&bytes), Err(WireError::Version));
        let mut reply = Reply::Done.encode();
        reply[3] = 2;
        assert_eq!(Reply::read_from(&mut &reply[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(Reply::read_from(&mut &reply[..3]).is_err());
    }
}
