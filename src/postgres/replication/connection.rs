//! A session on a server, and the simple query protocol on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use super::conninfo::{ConnInfo, Host, TargetSession};
use super::error::{ConnectError, ConnectErrorKind};
use super::messages::{Message, ResultSet, ServerError};
use super::notice::log;
use super::startup::{self, Mode, StartedSession};
use super::wire::Wire;
use crate::error::{Hint, with_hint};
use crate::postgres::types::MajorVersion;

/// Most bytes of rows that one query may return; larger results are no business of a connection that keeps them whole.
const MAX_RESULT: usize = 256 << 20;

/// How long a question may take: a server that vanished says nothing, and its connection does not end for hours.
const QUESTION: Duration = Duration::from_secs(60);

/// A session. A command whose future is dropped before its end leaves the session unusable: further commands fail.
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) state: ConnectionState,
    /// Whether the current command takes warnings itself; else they are logged.
    pub(super) takes_warnings: bool,
    /// 13 and 14 remember for the whole session that a backup was made without verifying checksums.
    pub(super) checksums_unverified: bool,
    parameters: BTreeMap<String, String>,
    server: String,
    encrypted: bool,
    version: u32,
    mode: Mode,
}

/// Whether a command can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    Idle,
    /// A command is under way, or was abandoned.
    Busy,
    /// The server is gone or cannot be understood any more.
    Broken,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to the first server of the list that will do. The error holds a [`ConnectError`] and its hint.
    pub async fn connect(info: &ConnInfo, mode: Mode) -> Result<Self> {
        for warning in &info.warnings {
            tracing::warn!("{warning}");
        }
        let passes: &[TargetSession] = match info.target_session {
            TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
            TargetSession::Any => &[TargetSession::Any],
            TargetSession::ReadWrite => &[TargetSession::ReadWrite],
            TargetSession::ReadOnly => &[TargetSession::ReadOnly],
            TargetSession::Primary => &[TargetSession::Primary],
            TargetSession::Standby => &[TargetSession::Standby],
        };
        let mut failures = Vec::new();
        for wanted in passes {
            failures.clear();
            for host in &info.hosts {
                match Self::connect_to(info, host, mode, *wanted).await {
                    Ok(connection) => return Ok(connection),
                    Err(failure) if failure.allows_next_host() => failures.push(failure),
                    Err(failure) => return Err(failure.into_anyhow()),
                }
            }
        }
        Err(summary(failures))
    }

    async fn connect_to(
        info: &ConnInfo,
        host: &Host,
        mode: Mode,
        wanted: TargetSession,
    ) -> Result<Self, ConnectError> {
        let StartedSession {
            wire,
            parameters,
            attempt,
        } = startup::open(info, host, mode).await?;
        let refused = |reason| ConnectError {
            attempt: attempt.clone(),
            reason,
        };
        let version = parameters
            .get("server_version")
            .and_then(|text| version_number(text));
        let version = version.ok_or_else(|| {
            refused(ConnectErrorKind::Broken(
                "the server does not tell its version".into(),
            ))
        })?;
        let mut connection = Self {
            wire,
            state: ConnectionState::Idle,
            takes_warnings: false,
            checksums_unverified: false,
            parameters,
            server: attempt.server.clone(),
            encrypted: attempt.encrypted,
            version,
            mode,
        };
        connection.check_kind(wanted).await.map_err(&refused)?;
        connection.forget_timeouts().await.map_err(refused)?;
        Ok(connection)
    }

    /// Sets what a session depends on as [`startup`] does, where older majors would refuse the name. A replication session
    /// takes no SQL; it is used at once.
    async fn forget_timeouts(&mut self) -> Result<(), ConnectErrorKind> {
        let statement = match self.version / 10_000 {
            _ if self.mode == Mode::Physical => return Ok(()),
            ..14 => return Ok(()),
            14..17 => "SET idle_session_timeout = 0",
            17.. => "SET idle_session_timeout = 0; SET transaction_timeout = 0",
        };
        let set = self.question(statement).await;
        set.map(drop)
            .map_err(|error| ConnectErrorKind::Broken(error.to_string()))
    }

    /// Checks that the server is of the wanted kind.
    async fn check_kind(&mut self, wanted: TargetSession) -> Result<(), ConnectErrorKind> {
        if wanted == TargetSession::Any {
            return Ok(());
        }
        let shown = timeout(QUESTION, self.show("transaction_read_only")).await;
        let shown =
            shown.map_err(|_| ConnectErrorKind::Broken("the server does not answer".into()))?;
        let read_only = shown.map_err(|error| ConnectErrorKind::Broken(error.to_string()))?;
        let read_only = read_only == "on";
        // 13 does not tell whether it is a standby; there all transactions are read-only.
        let standby = self
            .parameter("in_hot_standby")
            .map_or(read_only, |value| value == "on");
        match wanted {
            TargetSession::ReadWrite if read_only => {
                Err(ConnectErrorKind::WrongKindOfServer("read-only"))
            }
            TargetSession::ReadOnly if !read_only => {
                Err(ConnectErrorKind::WrongKindOfServer("read-write"))
            }
            TargetSession::Primary if standby => {
                Err(ConnectErrorKind::WrongKindOfServer("a standby"))
            }
            TargetSession::Standby if !standby => {
                Err(ConnectErrorKind::WrongKindOfServer("a primary"))
            }
            _ => Ok(()),
        }
    }

    /// A setting that the server reports by itself, such as `server_version` or `TimeZone`, as it is now.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's version as `server_version_num`, such as 150018.
    pub fn version_num(&self) -> u32 {
        self.version
    }

    /// The server's major version; an error for those that Walden does not know.
    pub fn major_version(&self) -> Result<MajorVersion> {
        MajorVersion::from_version_num(self.version)
            .with_context(|| format!("PostgreSQL at {} cannot be used", self.server))
    }

    /// Where the server is, for messages: `host "…" port …` or `socket "…"`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether it goes by TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The mode that the start-up packet asked for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Runs statements, separated by semicolons, and returns what each returned, as text. When one fails, the error
    /// holds a [`ServerError`] and the connection stays usable (unless the server ended the session).
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<ResultSet>> {
        self.send_query(sql).await?;
        let mut results = Vec::new();
        let mut current = ResultSet::default();
        let mut failure = None;
        let mut size = 0;
        loop {
            match self.next().await? {
                Message::RowDescription(columns) => current.columns = columns,
                Message::DataRow(row) => {
                    size += row.iter().flatten().map(|value| value.len()).sum::<usize>();
                    if size > MAX_RESULT {
                        self.state = ConnectionState::Broken;
                        bail!("a query returned more than {MAX_RESULT} bytes");
                    }
                    current.rows.push(row);
                }
                Message::CommandComplete(tag) => {
                    results.push(ResultSet {
                        tag,
                        ..std::mem::take(&mut current)
                    });
                }
                Message::EmptyQuery => results.push(std::mem::take(&mut current)),
                Message::Error(error) if error.is_fatal() => return Err(self.query_error(error)),
                Message::Error(error) => failure = failure.or(Some(error)),
                Message::Ready => break,
                _ => return Err(self.unexpected()),
            }
        }
        match failure {
            Some(error) => Err(self.query_error(error)),
            None => Ok(results),
        }
    }

    /// Runs statements as [`Self::simple_query`] does, for a minute at most: for questions, whose answers take
    /// milliseconds. After that the connection cannot be used any more.
    pub async fn question(&mut self, sql: &str) -> Result<Vec<ResultSet>> {
        self.question_within(QUESTION, sql).await
    }

    async fn question_within(&mut self, limit: Duration, sql: &str) -> Result<Vec<ResultSet>> {
        match timeout(limit, self.simple_query(sql)).await {
            Ok(answered) => answered,
            Err(_) => {
                self.state = ConnectionState::Broken;
                let seconds = limit.as_secs_f32();
                Err(anyhow!(
                    "PostgreSQL at {} did not answer a question within {seconds} s",
                    self.server
                ))
                .hint("see whether the server, its host and the network between are well")
            }
        }
    }

    /// Ends the session properly.
    pub async fn close(mut self) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        let ended = async {
            self.wire.send(&message).await?;
            self.wire.shut_down().await
        };
        ended
            .await
            .with_context(|| format!("cannot end the session on {} properly", self.server))
    }

    /// Starts a command; its answers come by [`Self::next`] up to [`Message::Ready`].
    pub(super) async fn send_query(&mut self, text: &str) -> Result<()> {
        match self.state {
            ConnectionState::Idle => {}
            ConnectionState::Busy => {
                return Err(anyhow!(
                    "an earlier command on the connection to {} was not finished",
                    self.server
                ))
                .hint("open a new connection");
            }
            ConnectionState::Broken => {
                return Err(anyhow!("the connection to {} is broken", self.server))
                    .hint("open a new connection");
            }
        }
        let mut message = BytesMut::new();
        frontend::query(text, &mut message).context("cannot send a query")?;
        self.state = ConnectionState::Busy;
        if let Err(error) = self.wire.send(&message).await {
            self.state = ConnectionState::Broken;
            return Err(error).with_context(|| format!("lost the connection to {}", self.server));
        }
        Ok(())
    }

    /// The next message but for those that can come at any time. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Message> {
        loop {
            let message = match self.wire.message().await {
                Ok(message) => message,
                Err(error) => {
                    self.state = ConnectionState::Broken;
                    return Err(error)
                        .with_context(|| format!("lost the connection to {}", self.server));
                }
            };
            match message {
                Message::ParameterStatus(name, value) => {
                    self.parameters.insert(name, value);
                    continue;
                }
                Message::Notice(notice) => {
                    if self.takes_warnings && notice.severity == "WARNING" {
                        return Ok(Message::Notice(notice));
                    }
                    log(&notice);
                    continue;
                }
                Message::Other => continue,
                Message::Ready => self.state = ConnectionState::Idle,
                Message::Error(ref error) if error.is_fatal() => {
                    self.state = ConnectionState::Broken
                }
                _ => {}
            }
            return Ok(message);
        }
    }

    /// A server's error with its hint, for a context chain.
    pub(super) fn query_error(&self, error: ServerError) -> anyhow::Error {
        let hint = error.hint.clone();
        let error = anyhow::Error::new(error)
            .context(format!("PostgreSQL at {} refused a command", self.server));
        match hint {
            Some(hint) => with_hint(error, hint),
            None => error,
        }
    }

    /// Gives the connection up: the server's answers do not follow the protocol as Walden knows it.
    pub(super) fn unexpected(&mut self) -> anyhow::Error {
        self.state = ConnectionState::Broken;
        anyhow!(
            "PostgreSQL at {} sent a message that does not belong to the command",
            self.server
        )
    }
}

/// `15.20 (Debian …)` as 150020, `18beta1` as 180000.
fn version_number(text: &str) -> Option<u32> {
    let number = |text: &str| {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        text[..digits].parse::<u32>().ok()
    };
    let major = number(text).filter(|major| *major < 10_000)?;
    let minor = text
        .split_once('.')
        .and_then(|(_, rest)| number(rest))
        .filter(|minor| *minor < 10_000);
    Some(major * 10_000 + minor.unwrap_or(0))
}

/// One error for several servers: the one that says most, naming the others.
fn summary(mut failures: Vec<ConnectError>) -> anyhow::Error {
    let telling = |failure: &ConnectError| {
        !matches!(
            failure.reason,
            ConnectErrorKind::NoServer(_) | ConnectErrorKind::TimedOut(_)
        )
    };
    let index = failures.iter().position(telling).unwrap_or(0);
    if failures.is_empty() {
        return anyhow!("no server to connect to is given");
    }
    let first = failures.swap_remove(index);
    if failures.is_empty() {
        return first.into_anyhow();
    }
    let others: Vec<String> = failures.iter().map(ToString::to_string).collect();
    first.into_anyhow().context(format!(
        "none of the servers can be used (also: {})",
        others.join("; ")
    ))
}

#[cfg(test)]
impl Connection {
    /// A session on the other end of a socket pair, on which a test says what the server would.
    pub(super) fn with_peer(version: u32) -> (Self, tokio::net::UnixStream) {
        let (ours, peer) = tokio::net::UnixStream::pair().expect("a socket pair");
        let connection = Self {
            wire: Wire::new(super::wire::Stream::Unix(ours)),
            state: ConnectionState::Idle,
            takes_warnings: false,
            checksums_unverified: false,
            parameters: BTreeMap::new(),
            server: "socket pair".to_owned(),
            encrypted: false,
            version,
            mode: Mode::Physical,
        };
        (connection, peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hints;

    #[tokio::test]
    async fn a_server_that_falls_silent_within_a_question_is_given_up() {
        let (mut connection, _silent) = Connection::with_peer(150_000);
        let error = connection
            .question_within(Duration::from_millis(20), "SELECT 1")
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "PostgreSQL at socket pair did not answer a question within 0.02 s"
        );
        assert_eq!(hints(&error).len(), 1);
        let error = connection.question("SELECT 1").await.unwrap_err();
        assert!(error.to_string().contains("is broken"), "{error}");
    }

    #[test]
    fn versions_are_numbered_as_postgresql_does() {
        for (text, number) in [
            ("15.20 (Debian 15.20-0+deb12u1)", Some(150020)),
            ("13.23", Some(130023)),
            ("18beta1", Some(180000)),
            ("17devel", Some(170000)),
            ("", None),
            ("x", None),
            ("99999999999", None),
            ("15.99999999999", Some(150000)),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
