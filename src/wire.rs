//! The hook socket's protocol: one request, one answer, over a unix stream socket. Standard library only and pure, so
//! that the two hook programs mount this file as it is.
//!
//! A request is `WHK`, the version, its kind, how it says [`For`] whom it is, the number of its byte strings as `u16` and
//! the length of what follows as `u32`, little-endian; then the strings, each behind its length as `u16`. A reply is `WHK`,
//! the version, its kind, a zero, the length of a text as `u16`; then the text. While an answer is being worked on, the
//! service says [`Reply::Working`] again and again, so a client can tell a long wait from a dead service. Paths are bytes,
//! as PostgreSQL hands them over.
//!
//! Who is asked in another version closes without an answer, or says something in its own: a hook takes both for no
//! service and does the work itself. Version 1 did not say for whom a request is.

use std::io::{self, Read};

/// Where the socket lies when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/walden/hook.sock";
/// The environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "WALDEN_SOCKET";
/// The environment variable that names a configuration file.
pub const CONFIG_VARIABLE: &str = "WALDEN_CONFIG";
/// Environment variables that decide, beside the configuration file, which cluster of which repository is meant.
pub const IDENTITY_VARIABLES: [&str; 11] = [
    "WALDEN_REPOSITORY__URL",
    "WALDEN_CLUSTER__NAME",
    "WALDEN_S3__ENDPOINT",
    "WALDEN_S3__REGION",
    "WALDEN_S3__PROFILE",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
];
/// Seconds between two [`Reply::Working`].
pub const WORKING_SECONDS: u64 = 1;
/// Seconds without a byte after which a client takes the service for hung.
pub const SILENCE_SECONDS: u64 = 6;

/// Bytes of a request before its strings; in all versions at least what version 1 has, which waits for so many.
pub const REQUEST_HEADER: usize = 12;
/// Bytes of a reply before its text.
pub const REPLY_HEADER: usize = 8;

const MAGIC: [u8; 4] = *b"WHK\x02";
/// Longest request behind its header: some paths as long as Linux has them (`PATH_MAX`), and the variables.
const MAX_BODY: usize = 32 << 10;
/// Longest text of a reply; longer ones are cut.
pub const MAX_TEXT: usize = 16 << 10;

/// For which cluster of which repository a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum For {
    /// For the one that is served on this socket: the hook was told the socket and nothing else, and has nothing to fall
    /// back to.
    Socket,
    /// For the one that the hook would serve by itself, by what it would read.
    Configuration {
        /// The absolute path of the configuration file; empty: the default one, if there is one.
        file: Vec<u8>,
        /// Those of [`IDENTITY_VARIABLES`] that are set, as `NAME=value`.
        variables: Vec<Vec<u8>>,
    },
}

/// What a hook asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookRequest {
    /// Store this file; the path is absolute.
    Push { whose: For, path: Vec<u8> },
    /// Put the WAL file of this name at this absolute path. Segments from `end` on (when not empty) are answered as
    /// absent without looking.
    Fetch {
        whose: For,
        name: Vec<u8>,
        destination: Vec<u8>,
        end: Vec<u8>,
    },
    /// Say whether such requests would be answered here: [`Reply::Done`] or [`Reply::NotMine`].
    Serves { whose: For },
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
    /// The request is for another cluster or repository; the text says what is served here.
    NotMine(Vec<u8>),
    /// It did not work; the text says why and what to do, in lines to be printed.
    Failed(Vec<u8>),
    /// Not an answer yet: the service is alive and at it.
    Working,
    /// The same, and bytes come from the repository.
    Coming,
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
    /// It does not say for whom it is.
    Whose,
}

impl WireError {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Version => "the hook program and the service are of different versions",
            Self::Kind => "the kind of message is not known",
            Self::Length => "a message has a wrong length",
            Self::Whose => "a message does not say for which cluster it is",
        }
    }
}

impl HookRequest {
    /// The bytes to send. Errors: longer than the protocol takes.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let (kind, operands): (u8, Vec<&[u8]>) = match self {
            Self::Push { path, .. } => (1, vec![path]),
            Self::Fetch {
                name,
                destination,
                end,
                ..
            } => (2, vec![name, destination, end]),
            Self::Status => (3, Vec::new()),
            Self::Serves { .. } => (4, Vec::new()),
        };
        let (how, named): (u8, Vec<&[u8]>) = match self.whose() {
            None => (0, Vec::new()),
            Some(For::Socket) => (1, Vec::new()),
            Some(For::Configuration { file, variables }) => (
                2,
                std::iter::once(file)
                    .chain(variables)
                    .map(Vec::as_slice)
                    .collect(),
            ),
        };
        let strings = [operands, named].concat();
        let mut body = Vec::new();
        for string in &strings {
            body.extend_from_slice(
                &u16::try_from(string.len())
                    .map_err(|_| WireError::Length)?
                    .to_le_bytes(),
            );
            body.extend_from_slice(string);
        }
        if body.len() > MAX_BODY {
            return Err(WireError::Length);
        }
        let mut bytes = Vec::with_capacity(REQUEST_HEADER + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind, how]);
        bytes.extend_from_slice(&(strings.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// For whom it is; `None` for what concerns the service alone.
    pub fn whose(&self) -> Option<&For> {
        match self {
            Self::Push { whose, .. } | Self::Fetch { whose, .. } | Self::Serves { whose } => {
                Some(whose)
            }
            Self::Status => None,
        }
    }

    /// How many bytes follow the header.
    pub fn body_len(header: &[u8; REQUEST_HEADER]) -> Result<usize, WireError> {
        if header[..4] != MAGIC {
            return Err(WireError::Version);
        }
        match u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize {
            length if length <= MAX_BODY => Ok(length),
            _ => Err(WireError::Length),
        }
    }

    /// Reads a request; `body` has the length that [`body_len`](Self::body_len) said.
    pub fn decode(header: &[u8; REQUEST_HEADER], body: &[u8]) -> Result<Self, WireError> {
        if body.len() != Self::body_len(header)? {
            return Err(WireError::Length);
        }
        let mut strings = strings(body, u16::from_le_bytes([header[6], header[7]]))?.into_iter();
        let mut next = || strings.next().ok_or(WireError::Length);
        let (path, name, destination, end) = match header[4] {
            1 => (next()?, Vec::new(), Vec::new(), Vec::new()),
            2 => (Vec::new(), next()?, next()?, next()?),
            _ => Default::default(),
        };
        let whose = match header[5] {
            0 => None,
            1 => Some(For::Socket),
            2 => Some(For::Configuration {
                file: next()?,
                variables: strings.by_ref().collect(),
            }),
            _ => return Err(WireError::Whose),
        };
        if strings.next().is_some() {
            return Err(WireError::Length);
        }
        let whose_it_is = || whose.ok_or(WireError::Whose);
        match header[4] {
            1 => Ok(Self::Push {
                whose: whose_it_is()?,
                path,
            }),
            2 => Ok(Self::Fetch {
                whose: whose_it_is()?,
                name,
                destination,
                end,
            }),
            3 => Ok(Self::Status),
            4 => Ok(Self::Serves {
                whose: whose_it_is()?,
            }),
            _ => Err(WireError::Kind),
        }
    }
}

/// The strings of a body, of which there must be so many and nothing more.
fn strings(mut body: &[u8], count: u16) -> Result<Vec<Vec<u8>>, WireError> {
    let mut strings = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk::<2>() {
        let (string, rest) = rest
            .split_at_checked(u16::from_le_bytes(*length).into())
            .ok_or(WireError::Length)?;
        strings.push(string.to_vec());
        body = rest;
    }
    match body.is_empty() && strings.len() == usize::from(count) {
        true => Ok(strings),
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
            Self::Coming => (4, b"+"),
            Self::Delivered { path } => (5, path),
            Self::Status(text) => (6, &text[..text.len().min(MAX_TEXT)]),
            Self::NotMine(text) => (7, &text[..text.len().min(MAX_TEXT)]),
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
            4 if text.is_empty() => Ok(Self::Working),
            4 => Ok(Self::Coming),
            5 => Ok(Self::Delivered { path: text }),
            6 => Ok(Self::Status(text)),
            7 => Ok(Self::NotMine(text)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<HookRequest, WireError> {
        let header: [u8; REQUEST_HEADER] = bytes[..REQUEST_HEADER].try_into().unwrap();
        assert_eq!(
            HookRequest::body_len(&header)?,
            bytes.len() - REQUEST_HEADER
        );
        HookRequest::decode(&header, &bytes[REQUEST_HEADER..])
    }

    fn push(path: &[u8]) -> HookRequest {
        HookRequest::Push {
            whose: For::Socket,
            path: path.to_vec(),
        }
    }

    #[test]
    fn requests_and_replies_read_back() {
        let configured = |variables: &[&[u8]]| For::Configuration {
            file: b"/etc/\xFF x.toml".to_vec(),
            variables: variables.iter().map(|variable| variable.to_vec()).collect(),
        };
        let fetch = |whose, end: &[u8]| {
            let (name, destination, end) =
                (b"00000002.history".to_vec(), b"/d".to_vec(), end.to_vec());
            HookRequest::Fetch {
                whose,
                name,
                destination,
                end,
            }
        };
        for request in [
            push(b"/data dir/\xFF/pg_wal/000000010000000000000001"),
            HookRequest::Push {
                whose: configured(&[b"WALDEN_CLUSTER__NAME=a", b"X="]),
                path: b"/a".to_vec(),
            },
            fetch(For::Socket, b""),
            fetch(configured(&[]), b"y"),
            fetch(
                For::Configuration {
                    file: Vec::new(),
                    variables: Vec::new(),
                },
                b"",
            ),
            HookRequest::Serves {
                whose: configured(&[b"A=\xFF"]),
            },
            HookRequest::Status,
        ] {
            assert_eq!(decode(&request.encode().unwrap()), Ok(request));
        }
        let delivered = Reply::Delivered {
            path: b"/d/\xFF".to_vec(),
        };
        let (failed, status) = (Reply::Failed(b"no".to_vec()), Reply::Status(b"{}".to_vec()));
        let others = Reply::NotMine(b"another".to_vec());
        for reply in [
            Reply::Done,
            Reply::Absent,
            failed,
            Reply::Working,
            Reply::Coming,
            delivered,
            status,
            others,
        ] {
            assert_eq!(Reply::read_from(&mut &reply.encode()[..]).unwrap(), reply);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_or_cut() {
        assert_eq!(push(&vec![b'a'; MAX_BODY]).encode(), Err(WireError::Length));
        let bytes = push(b"/a").encode().unwrap();
        for (at, value) in [(6, 2), (11, 1), (REQUEST_HEADER, 3), (REQUEST_HEADER, 1)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            assert_eq!(decode(&wrong), Err(WireError::Length), "{at} {value}");
        }
        let cut = Reply::Failed(vec![b'a'; MAX_TEXT + 1]).encode();
        assert_eq!(
            Reply::read_from(&mut &cut[..]).unwrap(),
            Reply::Failed(vec![b'a'; MAX_TEXT])
        );
    }

    #[test]
    fn a_request_for_nobody_is_none() {
        let mut bytes = push(b"/a").encode().unwrap();
        bytes[5] = 0;
        assert_eq!(decode(&bytes), Err(WireError::Whose));
        bytes[5] = 9;
        assert_eq!(decode(&bytes), Err(WireError::Whose));
    }

    #[test]
    fn another_version_is_told_apart_from_garbage() {
        let mut bytes = push(b"/a").encode().unwrap();
        bytes[4] = 9;
        bytes[6] = 0;
        bytes.truncate(REQUEST_HEADER);
        bytes[8] = 0;
        assert_eq!(decode(&bytes), Err(WireError::Kind));
        bytes[3] = 1;
        assert_eq!(decode(&bytes), Err(WireError::Version));
        let mut reply = Reply::Done.encode();
        reply[3] = 1;
        assert_eq!(
            Reply::read_from(&mut &reply[..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(Reply::read_from(&mut &reply[..3]).is_err());
    }

    /// The first 12 bytes are all that version 1 looks at before it refuses.
    #[test]
    fn no_request_is_shorter_than_one_of_version_1() {
        assert_eq!(HookRequest::Status.encode().unwrap().len(), 12);
    }
}
