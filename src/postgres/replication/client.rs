//! A session of tokio-postgres where a [`ConnInfo`] leads: which server, whether by TLS and with which password is decided
//! by [`Connection`] alone.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config, NoTls};

use super::connection::Connection;
use super::conninfo::ConnInfo;
use super::startup::{self, Mode};
use super::wire::Stream;

/// A session; it ends with this, and the server rolls back what was not committed.
pub struct SqlClient {
    pub client: Client,
    /// Where the server is, for messages.
    pub server: String,
    /// `server_version_num`, such as 150018.
    pub version: u32,
    running: JoinSet<()>,
}

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(5);

impl SqlClient {
    /// Ends it in good order: the server has nothing to tell of it in its log.
    pub async fn close(self) {
        let Self {
            client,
            mut running,
            ..
        } = self;
        drop(client);
        let _ = timeout(FAREWELL, running.join_next()).await;
    }
}

/// What tokio-postgres reads from and writes to.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Opens a session with these settings (`-c NAME=VALUE …`), which win over all others. Errors: as [`Connection::connect`].
pub async fn sql_client(info: &ConnInfo, options: &str) -> Result<SqlClient> {
    let found = Connection::connect(info, Mode::Sql).await?;
    let (server, version) = (found.server().to_string(), found.version_num());
    let host = info.hosts.iter().find(|host| host.to_string() == server);
    let host = host.unwrap_or(&info.hosts[0]);
    let stream = startup::socket(info, host, found.is_encrypted()).await?;
    found.close().await?;
    let socket: Box<dyn Duplex> = match stream {
        Stream::Unix(stream) => Box::new(stream),
        Stream::Tcp(stream) => Box::new(stream),
        Stream::Tls(stream) => stream,
    };
    let given = info.options.as_deref().unwrap_or_default();
    let mut config = Config::new();
    config
        .user(&info.user)
        .dbname(&info.database)
        .application_name(&info.application_name)
        .options(format!("{given} {options}").trim())
        // What needs TLS has it already.
        .ssl_mode(SslMode::Disable)
        .channel_binding(ChannelBinding::Disable);
    if let Some(password) = info.password_for(host, &info.database) {
        config.password(password);
    }
    let (client, connection) = config
        .connect_raw(socket, NoTls)
        .await
        .map_err(|error| match error.as_db_error() {
            Some(told) => anyhow!("{}: {}", told.severity(), told.message()),
            None => error.into(),
        })
        .with_context(|| format!("cannot connect to PostgreSQL at {server}"))?;
    let mut running = JoinSet::new();
    running.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a session ended: {error}");
        }
    });
    Ok(SqlClient {
        client,
        server,
        version,
        running,
    })
}
