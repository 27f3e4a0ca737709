//! What a PostgreSQL server says, decoded from bytes. Sans-I/O; built on `postgres-protocol`.
//!
//! Formats: PostgreSQL documentation, "Message Formats", and basebackup_copy.c for the content of BASE_BACKUP's
//! CopyData (15 and later).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend as wire;

/// Bytes before a message's body: tag and length.
pub const HEADER: usize = 5;
/// Longest message that is held in memory whole. CopyData that is passed on as it arrives may be longer.
pub const MAX_MESSAGE: usize = 64 << 20;
/// CopyData's tag.
pub const COPY_DATA: u8 = wire::COPY_DATA_TAG;
const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
const COPY_BOTH_RESPONSE: u8 = b'W';

/// Bytes that are no message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL sent what is not part of its protocol: {0}")]
pub struct Malformed(pub String);

/// A message of the server, parsed as far as Walden needs it.
#[derive(Debug)]
pub enum Message {
    /// A step of authentication.
    Authentication(Authentication),
    /// The value of a setting, at start or when it changes.
    ParameterStatus(String, String),
    /// The server goes on with an older protocol, or without these options.
    NegotiateProtocolVersion,
    /// Names of the columns that follow.
    RowDescription(Vec<String>),
    /// One row; `None` is NULL.
    DataRow(Vec<Option<Bytes>>),
    /// A command's end, with its tag.
    CommandComplete(String),
    /// An empty query's end.
    EmptyQuery,
    /// The server wants data (COPY FROM STDIN).
    CopyIn,
    /// Data follows.
    CopyOut,
    /// Data in both directions follows.
    CopyBoth,
    /// A piece of data.
    CopyData(Bytes),
    /// The data's end.
    CopyDone,
    /// The command failed.
    Error(ServerError),
    /// A notice or warning.
    Notice(ServerError),
    /// The server waits for the next command.
    Ready,
    /// Anything that needs no answer.
    Other,
}

/// What the server asks for before it lets a client in.
#[derive(Debug)]
pub enum Authentication {
    /// Nothing more.
    Ok,
    /// The password as it is.
    Cleartext,
    /// The password's MD5 with this salt.
    Md5([u8; 4]),
    /// One of these SASL mechanisms.
    Sasl(Vec<String>),
    /// The server's part of a SASL exchange.
    SaslContinue(Bytes),
    /// The server's proof that it knows the password too.
    SaslFinal(Bytes),
    /// A method that Walden does not have.
    Unsupported(&'static str),
}

/// Tag and length of the whole message, once its header is there.
pub fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    let header = wire::Header::parse(bytes).map_err(malformed)?;
    // A length below 4 is refused by the parser, so that this sum is at least 5.
    Ok(header.map(|header| (header.tag(), header.len() as usize + 1)))
}

/// Takes a whole message off the start of `bytes`; `None` if it is not all there.
pub fn take(bytes: &mut BytesMut) -> Result<Option<Message>, Malformed> {
    let Some((tag, length)) = header(bytes)? else {
        return Ok(None);
    };
    if length > MAX_MESSAGE {
        return Err(Malformed(format!(
            "a message \"{}\" of {length} bytes",
            tag.escape_ascii()
        )));
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let mut frame = bytes.split_to(length);
    match tag {
        NEGOTIATE_PROTOCOL_VERSION => return Ok(Some(Message::NegotiateProtocolVersion)),
        COPY_BOTH_RESPONSE => return Ok(Some(Message::CopyBoth)),
        // Its key is longer than the parser expects from protocol 3.2 on, and is not needed.
        wire::BACKEND_KEY_DATA_TAG => return Ok(Some(Message::Other)),
        _ => {}
    }
    let message = wire::Message::parse(&mut frame).map_err(malformed)?;
    message.map(decode).transpose().map_err(malformed)
}

fn malformed(error: std::io::Error) -> Malformed {
    Malformed(error.to_string())
}

fn decode(message: wire::Message) -> std::io::Result<Message> {
    Ok(match message {
        wire::Message::ParameterStatus(body) => {
            Message::ParameterStatus(body.name()?.to_owned(), body.value()?.to_owned())
        }
        wire::Message::RowDescription(body) => Message::RowDescription(
            body.fields()
                .map(|field| Ok(field.name().to_owned()))
                .collect()?,
        ),
        wire::Message::DataRow(body) => Message::DataRow(columns(&body)?),
        wire::Message::CommandComplete(body) => Message::CommandComplete(body.tag()?.to_owned()),
        wire::Message::EmptyQueryResponse => Message::EmptyQuery,
        wire::Message::CopyInResponse(_) => Message::CopyIn,
        wire::Message::CopyOutResponse(_) => Message::CopyOut,
        wire::Message::CopyData(body) => Message::CopyData(body.into_bytes()),
        wire::Message::CopyDone => Message::CopyDone,
        wire::Message::ErrorResponse(body) => Message::Error(ServerError::decode(body.fields())?),
        wire::Message::NoticeResponse(body) => Message::Notice(ServerError::decode(body.fields())?),
        wire::Message::ReadyForQuery(_) => Message::Ready,
        other => decode_authentication(other)?,
    })
}

fn decode_authentication(message: wire::Message) -> std::io::Result<Message> {
    let asked = match message {
        wire::Message::AuthenticationOk => Authentication::Ok,
        wire::Message::AuthenticationCleartextPassword => Authentication::Cleartext,
        wire::Message::AuthenticationMd5Password(body) => Authentication::Md5(body.salt()),
        wire::Message::AuthenticationSasl(body) => Authentication::Sasl(
            body.mechanisms()
                .map(|name| Ok(name.to_owned()))
                .collect()?,
        ),
        wire::Message::AuthenticationSaslContinue(body) => {
            Authentication::SaslContinue(Bytes::copy_from_slice(body.data()))
        }
        wire::Message::AuthenticationSaslFinal(body) => {
            Authentication::SaslFinal(Bytes::copy_from_slice(body.data()))
        }
        wire::Message::AuthenticationGss | wire::Message::AuthenticationGssContinue(_) => {
            return Ok(unsupported("GSSAPI"));
        }
        wire::Message::AuthenticationSspi => return Ok(unsupported("SSPI")),
        wire::Message::AuthenticationKerberosV5 => return Ok(unsupported("Kerberos V5")),
        wire::Message::AuthenticationScmCredential => return Ok(unsupported("SCM credentials")),
        _ => return Ok(Message::Other),
    };
    Ok(Message::Authentication(asked))
}

fn unsupported(method: &'static str) -> Message {
    Message::Authentication(Authentication::Unsupported(method))
}

fn columns(body: &wire::DataRowBody) -> std::io::Result<Vec<Option<Bytes>>> {
    let buffer = body.buffer_bytes();
    body.ranges()
        .map(|range| Ok(range.map(|range| buffer.slice(range))))
        .collect()
}

/// An error, warning or notice of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, …, never translated.
    pub severity: String,
    /// The SQLSTATE, five characters.
    pub code: String,
    /// What happened, in the server's language.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// The server's own advice.
    pub hint: Option<String>,
    /// Where in the server's work it happened.
    pub context: Option<String>,
    /// The server's C function that reported it.
    pub routine: Option<String>,
}

impl ServerError {
    fn decode(mut fields: wire::ErrorFields<'_>) -> std::io::Result<Self> {
        let mut error = Self::default();
        while let Some(field) = fields.next()? {
            // Before authentication the text is in the server's encoding, which need not be UTF-8.
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'S' if error.severity.is_empty() => error.severity = value,
                b'V' => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'W' => error.context = Some(value),
                b'R' => error.routine = Some(value),
                _ => {}
            }
        }
        Ok(error)
    }

    /// Whether the session ends with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (SQLSTATE {})",
            self.severity, self.message, self.code
        )?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// What one statement returned, in text form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows of as many values as there are columns; `None` is NULL.
    pub rows: Vec<Vec<Option<Bytes>>>,
    /// The command's tag, such as `SELECT 1`.
    pub tag: String,
}

impl ResultSet {
    /// A value's bytes; `None` is NULL. A row or column that is not there is an error.
    pub fn bytes(&self, row: usize, column: &str) -> Result<Option<&Bytes>, Malformed> {
        let at = self.columns.iter().position(|name| name == column);
        let at =
            at.ok_or_else(|| Malformed(format!("a result without the column \"{column}\"")))?;
        let row = self
            .rows
            .get(row)
            .ok_or_else(|| Malformed(format!("a result without row {}", row + 1)))?;
        row.get(at)
            .map(Option::as_ref)
            .ok_or_else(|| Malformed(format!("a row without the column \"{column}\"")))
    }

    /// A value as text; `None` is NULL.
    pub fn text(&self, row: usize, column: &str) -> Result<Option<&str>, Malformed> {
        let Some(bytes) = self.bytes(row, column)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes);
        text.map(Some)
            .map_err(|_| Malformed(format!("text that is not UTF-8 in the column \"{column}\"")))
    }

    /// A value that cannot be NULL, parsed.
    pub fn parse<T: std::str::FromStr>(&self, row: usize, column: &str) -> Result<T, Malformed> {
        let text = self
            .text(row, column)?
            .ok_or_else(|| Malformed(format!("NULL in the column \"{column}\"")))?;
        text.parse()
            .map_err(|_| Malformed(format!("\"{text}\" in the column \"{column}\"")))
    }
}

/// What one CopyData of BASE_BACKUP holds in 15 and later, but for the data itself, which is passed on as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupMessage {
    /// `n`: a new archive: its file name, and the tablespace's folder (empty for the main data directory).
    Archive(String, String),
    /// `p`: bytes done so far, over all archives.
    Progress(u64),
    /// `m`: the backup manifest begins.
    Manifest,
}

/// The kind of a CopyData message that holds a piece of the current archive.
pub const BACKUP_DATA: u8 = b'd';

impl BackupMessage {
    /// Decodes the content of a CopyData message that is not [`BACKUP_DATA`].
    pub fn decode(mut content: Bytes) -> Result<Self, Malformed> {
        let wrong = |what: &str| Malformed(format!("a BASE_BACKUP message with {what}"));
        if content.is_empty() {
            return Err(wrong("no content"));
        }
        let message = match content.get_u8() {
            b'n' => {
                let name = c_string(&mut content).ok_or_else(|| wrong("a broken archive name"))?;
                let location =
                    c_string(&mut content).ok_or_else(|| wrong("a broken tablespace path"))?;
                Self::Archive(name, location)
            }
            b'p' => Self::Progress(
                content
                    .try_get_u64()
                    .map_err(|_| wrong("a cut progress report"))?,
            ),
            b'm' => Self::Manifest,
            other => {
                return Err(wrong(&format!(
                    "the unknown kind \"{}\"",
                    other.escape_ascii()
                )));
            }
        };
        match content.has_remaining() {
            true => Err(wrong("excess bytes")),
            false => Ok(message),
        }
    }
}

fn c_string(bytes: &mut Bytes) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8(bytes.split_to(end).to_vec()).ok();
    bytes.advance(1);
    text
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
