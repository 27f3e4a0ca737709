//! Sessions with a drill's server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

/// Where it listens, and as whom to ask it.
#[derive(Debug, Clone)]
pub struct Door {
    pub socket: PathBuf,
    pub port: u16,
    pub user: String,
    /// Settings of its sessions, as `-c NAME=VALUE`.
    pub options: String,
}

/// What the source set for its sessions must not end or change what is looked at; and none of its triggers runs. `limit`: for
/// one question.
fn options(limit: Duration) -> String {
    let limit = limit.as_millis().max(1);
    let settings = [
        "session_replication_role=replica".into(),
        "default_transaction_read_only=off".into(),
        format!("statement_timeout={limit}"),
        format!("lock_timeout={limit}"),
    ];
    let options = settings.map(|setting: String| format!("-c {setting}"));
    options.join(" ")
}

/// One session; it ends with this.
pub struct Session {
    pub client: Client,
    _connection: JoinSet<()>,
}

impl Door {
    /// Connects to a database.
    pub async fn open(&self, database: &str) -> anyhow::Result<Session> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.socket)
            .port(self.port)
            .user(&self.user)
            .dbname(database)
            .application_name("walden drill")
            .options(&self.options)
            .connect_timeout(Duration::from_secs(30));
        let (client, connection) = config.connect(NoTls).await.with_context(|| {
            format!("cannot connect to database \"{database}\" of the restored server")
        })?;
        let mut running = JoinSet::new();
        running.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a session with the restored server ended: {error}");
            }
        });
        Ok(Session {
            client,
            _connection: running,
        })
    }

    /// The same door as a superuser: `user` may be none. Its pg_hba.conf lets everybody in who reaches the socket.
    /// `limit`: how long one question may take.
    pub async fn of_superuser(mut self, database: &str, limit: Duration) -> anyhow::Result<Self> {
        let session = self.open(database).await?;
        let sql = "select rolname from pg_catalog.pg_roles where rolsuper and rolcanlogin order by oid limit 1";
        let row = session
            .client
            .query_opt(sql, &[])
            .await
            .context("cannot read the roles of the restored server")?;
        self.options = options(limit);
        self.user = row
            .map(|row| row.get(0))
            .context("the restored cluster has no superuser that may log in")?;
        Ok(self)
    }
}
