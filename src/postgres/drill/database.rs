//! Sessions with a drill's server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::error::{one_line, with_hint};

/// Where it listens, and as whom to ask it.
#[derive(Debug, Clone)]
pub struct Door {
    pub socket: PathBuf,
    pub port: u16,
    pub user: String,
    /// A database that lets it in.
    pub database: String,
    /// Settings of its sessions, as `-c NAME=VALUE`.
    pub options: String,
}

/// What sessions may do in a restored server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All they need: the server goes away.
    Private,
    /// The server goes into use, and nothing is written to it.
    ReadOnly,
}

impl Access {
    /// As `-c NAME=VALUE`.
    pub fn read_only(self) -> &'static str {
        match self {
            Self::Private => "-c default_transaction_read_only=off",
            Self::ReadOnly => "-c default_transaction_read_only=on",
        }
    }

    /// What the source set for its sessions must not end or change what is looked at; and none of its triggers runs. `limit`:
    /// for one question.
    fn options(self, limit: Duration) -> String {
        let (limit, read_only) = (limit.as_millis().max(1), self.read_only());
        format!(
            "-c session_replication_role=replica {read_only} -c statement_timeout={limit} -c lock_timeout={limit}"
        )
    }
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

    /// The same door as a superuser. `limit`: how long one question may take. Errors: also [`Strangers`].
    pub async fn of_superuser(
        mut self,
        users: &[String],
        access: Access,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let (mut refused, options) = (None, access.options(limit));
        let is_private = access == Access::Private;
        // What only a superuser may set is set from the first session on where something could be written at a login.
        if !is_private {
            self.options.clone_from(&options);
        }
        for (user, database) in users
            .iter()
            .flat_map(|user| DATABASES.map(|database| (user, database)))
        {
            (self.user, self.database) = (user.clone(), database.into());
            match self.open(database).await {
                Ok(session) => {
                    // Its pg_hba.conf lets everybody in who reaches the socket.
                    if is_private {
                        self.user = superuser(&session).await?;
                    }
                    self.options = options;
                    return Ok(self);
                }
                Err(error) if is_stranger(&error) => {}
                Err(error) if !is_private && is_no_superuser(&error) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| {
            let hint = "name one of its superusers in `postgresql.dsn`, as user=…";
            with_hint(Strangers(users.join(", ")).into(), hint)
        }))
    }
}

/// The cluster knows none of these roles, or they may not log in, or not do what is needed.
#[derive(Debug, thiserror::Error)]
#[error("the restored cluster lets none of these roles in: {0}")]
pub struct Strangers(String);

/// One of them lets in whoever may log in at all, unless somebody closed both.
const DATABASES: [&str; 2] = ["template1", "postgres"];

/// Whether the role does not exist, or may not log in.
pub fn is_stranger(error: &anyhow::Error) -> bool {
    code(error) == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// Whether the role may not set what the session needs.
fn is_no_superuser(error: &anyhow::Error) -> bool {
    code(error) == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

fn code(error: &anyhow::Error) -> Option<&SqlState> {
    error.downcast_ref::<tokio_postgres::Error>()?.code()
}

async fn superuser(session: &Session) -> anyhow::Result<String> {
    let sql = "select rolname from pg_catalog.pg_roles where rolsuper and rolcanlogin order by oid limit 1";
    let row = session
        .client
        .query_opt(sql, &[])
        .await
        .context("cannot read the roles of the restored server")?;
    row.map(|row| row.get(0)).ok_or_else(|| {
        let error = anyhow!("the restored cluster has no superuser that may log in");
        with_hint(error, "give one of its superusers LOGIN")
    })
}

/// The server's own words.
pub fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("{}: {}", told.severity(), told.message()),
        None => one_line(&anyhow!("{error}")),
    }
}
