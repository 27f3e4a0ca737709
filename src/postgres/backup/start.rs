//! Before a backup: is this the right server, will its WAL reach the repository, which of its files lie elsewhere?

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};

use super::ask::ask;
use super::inventory::Homes;
use super::outside::{Outside, outside_files};
use crate::error::{Hint, with_hint};
use crate::postgres::cluster::{Cluster, describe_server};
use crate::postgres::replication::conninfo::{ConnInfo, ResolveConnInfo};
use crate::postgres::replication::{Connection, Mode};
use crate::postgres::types::MajorVersion;

/// The server that a backup is taken from.
#[derive(Debug)]
pub struct BackupServer {
    /// The one host of the list that was found, for later connections.
    pub info: ConnInfo,
    pub major: MajorVersion,
    /// As the server prints it.
    pub version: String,
    pub standby: bool,
    /// The server's clock before the backup.
    pub started_at: DateTime<Utc>,
    /// Configuration files that are not in the data directory.
    pub outside: Outside,
    /// The databases and tablespaces before the backup.
    pub homes: Homes,
}

/// What a server says after the end of a backup.
#[derive(Debug, Clone)]
pub struct After {
    /// The server's clock after the end of the backup.
    pub clock: DateTime<Utc>,
    pub homes: Homes,
}

impl After {
    /// Asks the server.
    pub async fn read(sql: &mut Connection) -> anyhow::Result<Self> {
        let homes = Homes::read(sql).await?;
        Ok(Self {
            clock: clock(sql).await?,
            homes,
        })
    }
}

/// Connects and checks everything that can be checked before. The connection is ready for BASE_BACKUP.
pub async fn start(
    cluster: &Cluster,
    resolve: ResolveConnInfo<'_>,
) -> anyhow::Result<(BackupServer, Connection)> {
    // SQL first: with wal_level = minimal a server takes no replication connection and does not say why.
    let mut sql = Connection::connect(&resolve()?, Mode::Sql).await?;
    let info = pinned(resolve()?, sql.server());
    let major = sql.major_version()?;
    let settings = ServerSettings::read(&mut sql).await?;
    settings.check(sql.server())?;
    let mut physical = Connection::connect(&info, Mode::Physical).await?;
    check_identity(cluster, &mut physical).await?;
    let outside = outside_files(&mut sql, major).await?;
    let homes = Homes::read(&mut sql).await?;
    let started_at = clock(&mut sql).await?;
    sql.close().await?;
    let ServerSettings {
        version, standby, ..
    } = settings;
    Ok((
        BackupServer {
            info,
            major,
            version,
            standby,
            started_at,
            outside,
            homes,
        },
        physical,
    ))
}

/// The server's clock. A standby's may be behind the primary's, whose clock commit times are of: never earlier than the
/// last commit that it replayed.
pub async fn clock(sql: &mut Connection) -> anyhow::Result<DateTime<Utc>> {
    let question = "SELECT to_char(greatest(clock_timestamp(), pg_last_xact_replay_timestamp()) AT TIME ZONE 'UTC', \
                    'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS now";
    let answer = ask(sql, question).await?;
    let text: String = answer.parse(0, "now")?;
    text.parse()
        .with_context(|| format!("the server's clock says \"{text}\""))
}

/// The settings narrowed to the one host that answered: another of the list could be another server.
fn pinned(mut info: ConnInfo, server: &str) -> ConnInfo {
    if let Some(host) = info
        .hosts
        .iter()
        .find(|host| host.to_string() == server)
        .cloned()
    {
        info.hosts = vec![host];
    }
    info
}

async fn check_identity(cluster: &Cluster, physical: &mut Connection) -> anyhow::Result<()> {
    let identity = physical.identify_system().await?;
    let segment_size = physical.segment_size().await?;
    let (name, major) = (cluster.layout.cluster().clone(), physical.major_version()?);
    let found = describe_server(
        name,
        identity.system_identifier,
        segment_size,
        major,
        Utc::now(),
    );
    cluster.check_identity(&found)?;
    if !cluster
        .description
        .versions
        .iter()
        .any(|known| known.major == major)
    {
        let error = anyhow!(
            "PostgreSQL {major} was not seen before in cluster \"{}\"",
            cluster.description.name
        );
        return Err(with_hint(
            error,
            "run `walden init` again to register the new version",
        ));
    }
    Ok(())
}

/// The settings that decide whether a backup can be restored.
struct ServerSettings {
    version: String,
    standby: bool,
    wal_level: String,
    max_wal_senders: u32,
    archive_mode: String,
    /// `archive_command`, or from 15 on the library in its place.
    archiver: String,
}

impl ServerSettings {
    async fn read(sql: &mut Connection) -> anyhow::Result<Self> {
        let question = "SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby, \
             current_setting('wal_level') AS wal_level, current_setting('max_wal_senders') AS max_wal_senders, \
             current_setting('archive_mode') AS archive_mode, \
             concat(current_setting('archive_command', true), current_setting('archive_library', true)) AS archiver";
        let answer = ask(sql, question).await?;
        let text = |column| answer.parse::<String>(0, column);
        let archiver = text("archiver")?;
        Ok(Self {
            version: text("version")?,
            standby: text("standby")? == "t",
            wal_level: text("wal_level")?,
            max_wal_senders: answer.parse(0, "max_wal_senders")?,
            archive_mode: text("archive_mode")?,
            // With archive_mode off the server shows this in place of the command.
            archiver: if archiver == "(disabled)" {
                String::new()
            } else {
                archiver
            },
        })
    }

    fn check(&self, server: &str) -> anyhow::Result<()> {
        if self.standby {
            if self.archive_mode != "always" {
                tracing::warn!(
                    "PostgreSQL at {server} is a standby: the backup's WAL must be archived by its primary, whose \
                     archive_mode cannot be seen from here"
                );
            }
            return Ok(());
        }
        if self.wal_level == "minimal" {
            return Err(anyhow!("PostgreSQL at {server} has wal_level = \"minimal\": its WAL cannot restore a backup"))
                .hint("set wal_level = replica and max_wal_senders = 10 in postgresql.conf and restart the server");
        }
        if self.max_wal_senders == 0 {
            return Err(anyhow!(
                "PostgreSQL at {server} has max_wal_senders = \"0\": it sends no backups"
            ))
            .hint("set max_wal_senders = 10 in postgresql.conf and restart the server");
        }
        if self.archive_mode == "off" {
            return Err(anyhow!(
                "PostgreSQL at {server} has archive_mode = \"off\": a backup needs the WAL written with it"
            ))
            .hint(
                "set archive_mode = on and the archive_command that `walden init` prints, and restart the \
                 server",
            );
        }
        if self.archiver.is_empty() {
            tracing::warn!(
                "PostgreSQL at {server} has no archive_command: its WAL is not archived by the server itself"
            );
        }
        Ok(())
    }
}
