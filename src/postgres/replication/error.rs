//! Why a connection could not be made: one variant per thing that a caller or a person does differently about.

use std::io;
use std::time::Duration;

use super::messages::ServerError;
use super::tls_failure::TlsFailure;

/// Where and as whom a connection was tried; never with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Host and port, or socket.
    pub server: String,
    /// The role.
    pub user: String,
    /// The word for the database field of pg_hba.conf: the database's name, or `replication`.
    pub database: String,
    /// Whether TLS was in use.
    pub encrypted: bool,
    /// Whether it went through a Unix socket.
    pub local: bool,
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgreSQL at {} as user \"{}\"", self.server, self.user)
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {attempt}: {reason}")]
pub struct ConnectError {
    /// Where and as whom.
    pub attempt: Attempt,
    /// Why not.
    pub reason: ConnectErrorKind,
}

/// The reasons behind [`ConnectError`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectErrorKind {
    /// Nobody listens there: connection refused, no socket, no such host, no route.
    #[error("no server answers there: {0}")]
    NoServer(io::Error),
    /// The server did not let the client in within the time allowed.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The server asks for a password and none is known.
    #[error("the server asks for a password and none is given")]
    NoPassword,
    /// 28P01
    #[error("{0}")]
    WrongPassword(Box<ServerError>),
    /// 28000: no line of pg_hba.conf lets this client in, or a line rejects it.
    #[error("{0}")]
    NoHbaEntry(Box<ServerError>),
    /// 28000 otherwise: the role is missing, may not log in, or failed `peer`, `ident` or certificate authentication.
    #[error("{0}")]
    RoleRefused(Box<ServerError>),
    /// 42501 on a replication connection: the role lacks REPLICATION.
    #[error("{0}")]
    NoReplicationPrivilege(Box<ServerError>),
    /// 57P03 or 53300: the server starts, stops or has no free connection; later it may work.
    #[error("{0}")]
    NotReady(Box<ServerError>),
    /// Any other refusal.
    #[error("{0}")]
    Refused(Box<ServerError>),
    /// The server has no TLS and the settings ask for it.
    #[error("the server does not offer TLS, and sslmode asks for it")]
    TlsNotOffered,
    /// TLS could not be set up, or the certificate is not acceptable.
    #[error("TLS failed: {0}")]
    Tls(TlsFailure),
    /// The server asks for a kind of authentication that Walden does not have.
    #[error("the server asks for {0} authentication, which is not supported")]
    UnsupportedAuthentication(String),
    /// A server, but not of the kind that `target_session_attrs` asks for.
    #[error("the server is {0}, and target_session_attrs asks for another kind")]
    WrongKindOfServer(&'static str),
    /// The connection broke, or what answered does not speak PostgreSQL's protocol.
    #[error("{0}")]
    Broken(String),
}

impl ConnectError {
    /// The next step, where there is one to tell.
    pub fn hint(&self) -> Option<String> {
        let Attempt {
            server,
            user,
            database,
            encrypted,
            local,
        } = &self.attempt;
        let hint = match &self.reason {
            ConnectErrorKind::NoServer(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                format!("this process may not use {server}; run it as a user who may")
            }
            ConnectErrorKind::NoServer(_) if *local => "check that the server runs, and that host and port name its \
                 unix_socket_directories and port"
                .to_owned(),
            ConnectErrorKind::NoServer(_) => {
                "check that the server runs, that listen_addresses and port match, and that no firewall is between"
                    .to_owned()
            }
            ConnectErrorKind::TimedOut(_) => "check host, port and firewall, or raise connect_timeout".to_owned(),
            ConnectErrorKind::NoPassword => {
                "set PGPASSWORD or add a line to the password file (~/.pgpass, mode 0600)".to_owned()
            }
            ConnectErrorKind::WrongPassword(_) => {
                "check PGPASSWORD, the password file (~/.pgpass) and the connection string".to_owned()
            }
            ConnectErrorKind::NoHbaEntry(_) => {
                let kind = match (local, encrypted) {
                    (true, _) => "local",
                    (_, true) => "hostssl",
                    _ => "host",
                };
                let address = if *local { "" } else { " <client address>/32" };
                format!(
                    "add a line to the server's pg_hba.conf, such as \
                     \"{kind} {database} {user}{address} scram-sha-256\", and run SELECT pg_reload_conf()"
                )
            }
            ConnectErrorKind::RoleRefused(error) if error.routine.as_deref() == Some("InitializeSessionUserId") => {
                format!("CREATE ROLE \"{user}\" LOGIN REPLICATION, or ALTER ROLE \"{user}\" LOGIN, or set PGUSER")
            }
            ConnectErrorKind::RoleRefused(_) => {
                "run as the matching operating-system user, give the right client certificate, or change the \
                 method in pg_hba.conf"
                    .to_owned()
            }
            ConnectErrorKind::NoReplicationPrivilege(_) => {
                format!("as a superuser run ALTER ROLE \"{user}\" REPLICATION")
            }
            ConnectErrorKind::NotReady(error) if error.code == "53300" => {
                "raise max_connections or, for backups, max_wal_senders; or try again later".to_owned()
            }
            ConnectErrorKind::NotReady(_) => "wait until the server accepts connections and try again".to_owned(),
            // PostgreSQL says where in its code an error arose; what stands between does not.
            ConnectErrorKind::Refused(error) if error.routine.is_none() && error.hint.is_none() => {
                "name the server itself in host and port, not a pooler such as PgBouncer".to_owned()
            }
            ConnectErrorKind::Refused(error) => return error.hint.clone(),
            ConnectErrorKind::TlsNotOffered => {
                "set ssl = on in the server, or sslmode=prefer or disable in the connection settings".to_owned()
            }
            ConnectErrorKind::Tls(failure) => failure.hint.to_owned(),
            ConnectErrorKind::UnsupportedAuthentication(_) => {
                "let pg_hba.conf ask this user for scram-sha-256, md5, password, cert, peer or trust".to_owned()
            }
            ConnectErrorKind::WrongKindOfServer(_) => "add the other servers' names to host=…".to_owned(),
            ConnectErrorKind::Broken(_) => "see the server's log, and check that this is PostgreSQL's port".to_owned(),
        };
        Some(hint)
    }

    /// Whether another server of the list may still do. A server that refuses this client ends the search, as in libpq.
    pub(super) fn allows_next_host(&self) -> bool {
        matches!(
            self.reason,
            ConnectErrorKind::NoServer(_)
                | ConnectErrorKind::TimedOut(_)
                | ConnectErrorKind::NotReady(_)
                | ConnectErrorKind::WrongKindOfServer(_)
                | ConnectErrorKind::Broken(_)
        )
    }

    /// The error with its hint, for a context chain.
    pub(super) fn into_anyhow(self) -> anyhow::Error {
        let hint = self.hint();
        match hint {
            Some(hint) => crate::error::with_hint(self.into(), hint),
            None => self.into(),
        }
    }
}

impl ConnectErrorKind {
    /// Sorts the error with which a server ends a connection attempt.
    pub(super) fn from_server(error: ServerError, replication: bool) -> Self {
        let error = Box::new(error);
        match error.code.as_str() {
            "28P01" => Self::WrongPassword(error),
            // Translations of these texts keep the file's name; other refusals under this code do not have it.
            "28000" if error.message.contains("pg_hba.conf") => Self::NoHbaEntry(error),
            "28000" => Self::RoleRefused(error),
            "42501" if replication => Self::NoReplicationPrivilege(error),
            "57P03" | "53300" => Self::NotReady(error),
            _ => Self::Refused(error),
        }
    }
}
