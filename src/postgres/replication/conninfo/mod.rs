//! Where and as whom to connect: connection string, service file, environment and defaults, as libpq resolves them.
//!
//! The result is a list of hosts to try and the settings of the session. A keyword that libpq does not know is refused,
//! with the nearest one named.

mod environment;
mod files;
#[cfg(test)]
mod files_tests;
mod keywords;
mod parse;
mod programs;
mod resolve;
mod secret;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::{FileStat, LibpqEnv, NoEnv, ProcessEnv};
use files::PasswordFile;
pub use programs::ProgramConnection;
use secret::Password;

/// Resolves the connection settings anew, so that a changed password file counts.
pub type ResolveConnInfo<'a> = &'a (dyn Fn() -> anyhow::Result<ConnInfo> + Sync);

/// Everything needed to open a connection. Neither `Display` nor `Debug` show a password.
///
/// It holds what files and environment said when it was made: resolve anew for each connection, so that a changed
/// password file counts.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The servers, in the order in which they are tried; never empty.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// The database; a physical replication connection has none and does not use this.
    pub database: String,
    /// TLS; without effect on Unix sockets.
    pub tls: TlsSettings,
    /// Longest time to wait for one server; `None` waits as long as the operating system does.
    pub connect_timeout: Option<Duration>,
    /// The name by which the server shows the session.
    pub application_name: String,
    /// Command-line options for the server process (`PGOPTIONS`).
    pub options: Option<String>,
    /// Which servers of the list will do.
    pub target_session: TargetSession,
    /// How TCP finds out that the other side is gone.
    pub keepalive: Keepalive,
    /// What was odd but no error, such as a password file that others can read.
    pub warnings: Vec<String>,
    password: Option<Password>,
    password_file: PasswordFile,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A host name, an IP address or a socket's folder.
    pub address: Address,
    /// Its port; on a Unix socket part of the socket's name.
    pub port: u16,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The folder of a Unix socket.
    Unix(PathBuf),
    /// A host by name (or by an address written as the name), to be looked up.
    Name(String),
    /// An IP address, with the name that the server's certificate must carry, if one was given.
    Ip(IpAddr, Option<String>),
}

/// TLS as asked for.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// How much is asked.
    pub mode: SslMode,
    /// Certificates of the authorities that are trusted; `None` when there is no file and no home folder.
    pub roots: Option<TrustedRoots>,
    /// The client's own certificate and key, used when the certificate's file exists.
    pub client: Option<ClientCertificate>,
    /// Whether the host's name is sent in the clear when TLS starts.
    pub server_name_indication: bool,
}

/// Files of the client's certificate chain and private key (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `sslcert`
    pub certificate: PathBuf,
    /// `sslkey`
    pub key: PathBuf,
}

/// Whom to trust as a certificate authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedRoots {
    /// The operating system's store.
    System,
    /// A PEM file; it need not exist unless the mode verifies.
    File(PathBuf),
}

/// How much TLS is asked, from none to a verified chain and host name (`sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server refuses a plain connection.
    Allow,
    /// When the server has it.
    Prefer,
    /// Always; the chain is verified only if a file of trusted roots exists.
    Require,
    /// Always, from a trusted authority.
    VerifyCa,
    /// Always, from a trusted authority and for this host.
    VerifyFull,
}

/// Which servers will do (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    /// The first that answers.
    Any,
    /// One whose sessions can write.
    ReadWrite,
    /// One whose sessions cannot write.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery if there is one, else any.
    PreferStandby,
}

/// TCP keepalive; what is `None` is left to the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Keepalive {
    /// Whether idle connections are probed at all.
    pub enabled: bool,
    /// Idle time before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Probes without an answer before the connection counts as dead.
    pub count: Option<u32>,
    /// Longest time that sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// A part of a connection that an environment variable gives.
#[derive(Clone, PartialEq, Eq)]
pub struct Added {
    keyword: &'static str,
    /// The variable's name.
    pub variable: &'static str,
    value: String,
}

impl Added {
    /// As a connection string says it; `None` for a password, which belongs into a password file.
    pub fn pair(&self) -> Option<String> {
        let value = self.value.replace('\\', "\\\\").replace('\'', "\\'");
        (self.keyword != "password").then(|| format!("{}='{value}'", self.keyword))
    }
}

impl ConnInfo {
    /// What this process's environment adds to a connection string.
    pub fn added_by_environment(connection_string: &str) -> anyhow::Result<Vec<Added>> {
        resolve::added_by_environment(connection_string, &ProcessEnv)
    }

    /// Resolves a connection string (`keyword=value …`, a `postgresql://` URI, or empty) with the settings of this
    /// process: its environment, its user's files.
    pub fn from_process(connection_string: &str) -> anyhow::Result<Self> {
        Self::resolve(connection_string, &ProcessEnv)
    }

    /// Resolves a connection string that says all, with nothing of this process but its user's name.
    pub fn alone(connection_string: &str) -> anyhow::Result<Self> {
        Self::resolve(connection_string, &NoEnv)
    }

    /// Resolves a connection string in given env. What the string says wins over the service file, that over
    /// the environment, that over the defaults.
    pub fn resolve(connection_string: &str, around: &dyn LibpqEnv) -> anyhow::Result<Self> {
        resolve::resolve(connection_string, around)
    }

    /// The password for a server: the one given, else the password file's.
    pub(super) fn password_for(&self, host: &Host, database: &str) -> Option<&str> {
        let given = self.password.as_ref().map(Password::reveal);
        given.or_else(|| {
            self.password_file
                .password(&host.password_file_name(), host.port, database, &self.user)
        })
    }
}

/// The connection as keywords, without the password.
impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(Host::name).collect();
        let ports: Vec<String> = self
            .hosts
            .iter()
            .map(|host| host.port.to_string())
            .collect();
        write!(
            f,
            "host={} port={} user={}",
            hosts.join(","),
            ports.join(","),
            self.user
        )?;
        write!(f, " dbname={} sslmode={}", self.database, self.tls.mode)
    }
}

impl Host {
    /// The host as given: folder, name or address.
    pub fn name(&self) -> String {
        match &self.address {
            Address::Unix(folder) => folder.display().to_string(),
            Address::Name(name) | Address::Ip(_, Some(name)) => name.clone(),
            Address::Ip(address, None) => address.to_string(),
        }
    }

    /// The Unix socket's path (pqcomm.h, UNIXSOCK_PATH).
    pub(super) fn socket(folder: &Path, port: u16) -> PathBuf {
        folder.join(format!(".s.PGSQL.{port}"))
    }

    /// The name under which password files list the server: `localhost` stands for the default socket folder. Either
    /// of the two usual ones counts as such, since distributions differ.
    fn password_file_name(&self) -> String {
        match &self.address {
            Address::Unix(folder)
                if resolve::SOCKET_FOLDERS
                    .iter()
                    .any(|known| folder == Path::new(known)) =>
            {
                "localhost".to_owned()
            }
            _ => self.name(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(folder) => write!(
                f,
                "socket \"{}\"",
                Self::socket(folder, self.port).display()
            ),
            _ => write!(f, "host \"{}\" port {}", self.name(), self.port),
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}
