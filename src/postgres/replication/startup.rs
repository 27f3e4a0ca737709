//! From an address to a session that waits for commands: socket, TLS, start-up message, authentication.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::conninfo::{Address, ConnInfo, Host, Keepalive, SslMode};
use super::error::{Attempt, ConnectError, ConnectErrorKind};
use super::messages::{Authentication, Message};
use super::notice::log;
use super::tls;
use super::wire::{ReadError, Stream, Wire};

const SCRAM: &str = "SCRAM-SHA-256";

/// What sessions depend on: a server, database, role or connection string may have set each of them otherwise. Of these
/// the start-up packet wins over all. Later majors' are set by [`super::Connection`].
const SETTINGS: [(&str, &str); 15] = [
    ("client_encoding", "UTF8"),
    // Warnings tell what a backup lacks.
    ("client_min_messages", "warning"),
    // Nobody's own functions are found before the system's.
    ("search_path", "pg_catalog"),
    // Standbys have no other.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
    // Walden ends what takes too long itself; waiting for WAL is idle.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// The start-up packet asks for one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SQL in a database.
    Sql,
    /// Physical replication commands: the role needs REPLICATION, pg_hba.conf a line for `replication`.
    Physical,
}

/// A session that waits for its first command.
pub(super) struct StartedSession {
    pub(super) wire: Wire,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) attempt: Attempt,
}

/// One of the ways in which `sslmode` lets a server be tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Never,
    IfOffered,
    Required,
}

/// A place that a socket can be connected to.
enum Endpoint {
    Unix(std::path::PathBuf),
    Tcp(SocketAddr),
}

struct Startup<'a> {
    info: &'a ConnInfo,
    host: &'a Host,
    mode: Mode,
}

/// Opens a session on one host of the list, trying each of its addresses.
pub(super) async fn open(
    info: &ConnInfo,
    host: &Host,
    mode: Mode,
) -> Result<StartedSession, ConnectError> {
    let start = Startup { info, host, mode };
    let places = start
        .within(start.places())
        .await
        .map_err(|reason| start.error(reason, false))?;
    let mut failure = None;
    for place in places {
        match start.open(&place).await {
            Err(error) if error.allows_next_host() => failure = Some(error),
            done => return done,
        }
    }
    let none = || {
        start.error(
            ConnectErrorKind::NoServer(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            )),
            false,
        )
    };
    Err(failure.unwrap_or_else(none))
}

/// A socket to a host on which nothing was said yet, but for TLS.
pub(super) async fn socket(
    info: &ConnInfo,
    host: &Host,
    encrypted: bool,
) -> Result<Stream, ConnectError> {
    let mode = Mode::Sql;
    let start = Startup { info, host, mode };
    let encryption = match encrypted {
        true => Encryption::Required,
        false => Encryption::Never,
    };
    let connected = async {
        let mut failure = ConnectErrorKind::NoServer(io::ErrorKind::NotFound.into());
        for place in start.places().await? {
            match start.connect(&place, encryption).await {
                Err(error) => failure = error,
                done => return done,
            }
        }
        Err(failure)
    };
    let connected = start.within(connected).await;
    connected.map_err(|reason| start.error(reason, encrypted))
}

impl Startup<'_> {
    fn error(&self, reason: ConnectErrorKind, encrypted: bool) -> ConnectError {
        ConnectError {
            attempt: self.attempt(encrypted),
            reason,
        }
    }

    fn attempt(&self, encrypted: bool) -> Attempt {
        Attempt {
            server: self.host.to_string(),
            user: self.info.user.clone(),
            database: self.database().to_owned(),
            encrypted,
            local: matches!(self.host.address, Address::Unix(_)),
        }
    }

    /// The database that pg_hba.conf and password files know the connection by.
    fn database(&self) -> &str {
        match self.mode {
            Mode::Sql => &self.info.database,
            Mode::Physical => "replication",
        }
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ConnectErrorKind>>,
    ) -> Result<T, ConnectErrorKind> {
        match self.info.connect_timeout {
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .unwrap_or(Err(ConnectErrorKind::TimedOut(limit))),
            None => work.await,
        }
    }

    async fn places(&self) -> Result<Vec<Endpoint>, ConnectErrorKind> {
        let port = self.host.port;
        match &self.host.address {
            Address::Unix(folder) => Ok(vec![Endpoint::Unix(Host::socket(folder, port))]),
            Address::Ip(address, _) => Ok(vec![Endpoint::Tcp(SocketAddr::new(*address, port))]),
            Address::Name(name) => {
                let found = tokio::net::lookup_host((name.as_str(), port))
                    .await
                    .map_err(ConnectErrorKind::NoServer)?;
                Ok(found.map(Endpoint::Tcp).collect())
            }
        }
    }

    /// Tries one place in the ways that `sslmode` allows.
    async fn open(&self, place: &Endpoint) -> Result<StartedSession, ConnectError> {
        use Encryption::{IfOffered, Never, Required};
        let (first, second) = match (place, self.info.tls.mode) {
            (Endpoint::Unix(_), _) | (_, SslMode::Disable) => (Never, None),
            (_, SslMode::Allow) => (Never, Some(Required)),
            (_, SslMode::Prefer) => (IfOffered, Some(Never)),
            (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => (Required, None),
        };
        let failure = match (self.open_once(place, first).await, second) {
            (Err(failure), Some(_)) => failure,
            (done, _) => return done,
        };
        let other_way_may_do = match failure.reason {
            ConnectErrorKind::NoHbaEntry(_) => failure.attempt.encrypted == (first != Never),
            ConnectErrorKind::Tls(_) => true,
            _ => false,
        };
        let Some(second) = second.filter(|_| other_way_may_do) else {
            return Err(failure);
        };
        tracing::debug!(server = %self.host, error = %failure, "trying again in the other way that sslmode allows");
        self.open_once(place, second).await.map_err(|other| {
            match (&failure.reason, &other.reason) {
                // Of two refusals the encrypted one says more, unless TLS itself was the trouble.
                (ConnectErrorKind::NoHbaEntry(_), _) if failure.attempt.encrypted => failure,
                (_, ConnectErrorKind::Tls(_) | ConnectErrorKind::TlsNotOffered) => failure,
                _ => other,
            }
        })
    }

    async fn open_once(
        &self,
        place: &Endpoint,
        encryption: Encryption,
    ) -> Result<StartedSession, ConnectError> {
        let mut encrypted = false;
        let work = async {
            let stream = self.connect(place, encryption).await?;
            encrypted = matches!(stream, Stream::Tls(_));
            let mut wire = Wire::new(stream);
            let parameters = self.log_in(&mut wire).await?;
            Ok((wire, parameters))
        };
        match self.within(work).await {
            Ok((wire, parameters)) => Ok(StartedSession {
                wire,
                parameters,
                attempt: self.attempt(encrypted),
            }),
            Err(reason) => Err(self.error(reason, encrypted)),
        }
    }

    async fn connect(
        &self,
        place: &Endpoint,
        encryption: Encryption,
    ) -> Result<Stream, ConnectErrorKind> {
        let mut socket = match place {
            Endpoint::Unix(path) => {
                return UnixStream::connect(path)
                    .await
                    .map(Stream::Unix)
                    .map_err(ConnectErrorKind::NoServer);
            }
            Endpoint::Tcp(address) => TcpStream::connect(address)
                .await
                .map_err(ConnectErrorKind::NoServer)?,
        };
        set_socket_options(&socket, &self.info.keepalive)
            .map_err(|error| ConnectErrorKind::Broken(error.to_string()))?;
        if encryption == Encryption::Never {
            return Ok(Stream::Tcp(socket));
        }
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        let broken = |error: io::Error| {
            ConnectErrorKind::Broken(format!("the connection broke when asking for TLS: {error}"))
        };
        socket.write_all(&request).await.map_err(broken)?;
        // One byte and no more: what follows belongs to TLS, and anything sent in the clear must not be believed.
        match (socket.read_u8().await.map_err(broken)?, encryption) {
            (b'S', _) => {
                let name = match &self.host.address {
                    Address::Name(name) | Address::Ip(_, Some(name)) => Some(name.as_str()),
                    _ => None,
                };
                let stream = tls::start(socket, &self.info.tls, name)
                    .await
                    .map_err(ConnectErrorKind::Tls)?;
                Ok(Stream::Tls(Box::new(stream)))
            }
            (b'N', Encryption::IfOffered) => Ok(Stream::Tcp(socket)),
            (b'N', _) => Err(ConnectErrorKind::TlsNotOffered),
            (other, _) => Err(ConnectErrorKind::Broken(format!(
                "\"{}\" is no answer to a request for TLS",
                other.escape_ascii()
            ))),
        }
    }

    async fn log_in(&self, wire: &mut Wire) -> Result<BTreeMap<String, String>, ConnectErrorKind> {
        let mut parameters = vec![
            ("user", self.info.user.as_str()),
            ("application_name", self.info.application_name.as_str()),
        ];
        match self.mode {
            Mode::Sql => parameters.push(("database", self.info.database.as_str())),
            Mode::Physical => parameters.push(("replication", "true")),
        }
        parameters.extend(SETTINGS);
        parameters.extend(
            self.info
                .options
                .as_ref()
                .map(|options| ("options", options.as_str())),
        );
        let mut start = BytesMut::new();
        frontend::startup_message(parameters, &mut start)
            .map_err(|error| ConnectErrorKind::Broken(error.to_string()))?;
        wire.send(&start)
            .await
            .map_err(|error| ConnectErrorKind::Broken(format!("the connection broke: {error}")))?;
        self.authenticate(wire).await?;
        let mut parameters = BTreeMap::new();
        loop {
            match self.next(wire).await? {
                Message::ParameterStatus(name, value) => {
                    parameters.insert(name, value);
                }
                Message::Ready => return Ok(parameters),
                Message::Other => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The next message of the server, which may refuse the client with any of them.
    async fn next(&self, wire: &mut Wire) -> Result<Message, ConnectErrorKind> {
        loop {
            match wire.message().await.map_err(broken)? {
                Message::Error(error) => {
                    return Err(ConnectErrorKind::from_server(
                        error,
                        self.mode == Mode::Physical,
                    ));
                }
                Message::Notice(notice) => log(&notice),
                Message::NegotiateProtocolVersion => {}
                message => return Ok(message),
            }
        }
    }

    async fn authenticate(&self, wire: &mut Wire) -> Result<(), ConnectErrorKind> {
        let password = self.info.password_for(self.host, self.database());
        let password = || {
            password
                .map(str::as_bytes)
                .ok_or(ConnectErrorKind::NoPassword)
        };
        loop {
            let step = match self.next(wire).await? {
                Message::Authentication(step) => step,
                other => return Err(unexpected(&other)),
            };
            match step {
                Authentication::Ok => return Ok(()),
                Authentication::Cleartext => send_password(wire, password()?).await?,
                Authentication::Md5(salt) => {
                    let hash = md5_hash(self.info.user.as_bytes(), password()?, salt);
                    send_password(wire, hash.as_bytes()).await?;
                }
                Authentication::Sasl(mechanisms) => {
                    match mechanisms.iter().any(|name| name == SCRAM) {
                        true => self.scram(wire, password()?).await?,
                        false => {
                            return Err(ConnectErrorKind::UnsupportedAuthentication(
                                mechanisms.join(", "),
                            ));
                        }
                    }
                }
                Authentication::Unsupported(method) => {
                    return Err(ConnectErrorKind::UnsupportedAuthentication(
                        method.to_owned(),
                    ));
                }
                Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                    return Err(ConnectErrorKind::Broken(
                        "SASL data without a SASL exchange".to_owned(),
                    ));
                }
            }
        }
    }

    /// SCRAM-SHA-256 without channel binding, to the end: the server must prove that it knows the password, too.
    async fn scram(&self, wire: &mut Wire, password: &[u8]) -> Result<(), ConnectErrorKind> {
        let wrong = |error: io::Error| {
            ConnectErrorKind::Broken(format!("SCRAM authentication failed: {error}"))
        };
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(SCRAM, scram.message(), &mut message).map_err(wrong)?;
        wire.send(&message).await.map_err(wrong)?;
        match self.next(wire).await? {
            Message::Authentication(Authentication::SaslContinue(data)) => {
                scram.update(&data).map_err(wrong)?
            }
            other => return Err(unexpected(&other)),
        }
        message.clear();
        frontend::sasl_response(scram.message(), &mut message).map_err(wrong)?;
        wire.send(&message).await.map_err(wrong)?;
        match self.next(wire).await? {
            Message::Authentication(Authentication::SaslFinal(data)) => {
                scram.finish(&data).map_err(wrong)
            }
            other => Err(unexpected(&other)),
        }
    }
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), ConnectErrorKind> {
    let mut message = BytesMut::new();
    frontend::password_message(password, &mut message)
        .map_err(|error| ConnectErrorKind::Broken(error.to_string()))?;
    wire.send(&message)
        .await
        .map_err(|error| ConnectErrorKind::Broken(format!("the connection broke: {error}")))
}

fn broken(error: ReadError) -> ConnectErrorKind {
    ConnectErrorKind::Broken(error.to_string())
}

fn unexpected(message: &Message) -> ConnectErrorKind {
    let what = match message {
        Message::Authentication(_) => "a step of authentication",
        Message::Ready => "readiness",
        _ => "a message",
    };
    ConnectErrorKind::Broken(format!(
        "the server sent {what} where the start of a session has none"
    ))
}

fn set_socket_options(socket: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    use rustix::net::sockopt;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, keepalive.enabled)?;
    if let Some(idle) = keepalive.idle.filter(|_| keepalive.enabled) {
        sockopt::set_tcp_keepidle(socket, idle)?;
    }
    if let Some(interval) = keepalive.interval.filter(|_| keepalive.enabled) {
        sockopt::set_tcp_keepintvl(socket, interval)?;
    }
    if let Some(count) = keepalive.count.filter(|_| keepalive.enabled) {
        sockopt::set_tcp_keepcnt(socket, count)?;
    }
    if let Some(limit) = keepalive.user_timeout {
        sockopt::set_tcp_user_timeout(
            socket,
            u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
        )?;
    }
    Ok(())
}
