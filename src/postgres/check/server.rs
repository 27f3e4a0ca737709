//! The server: what it says of itself in one question, and whether its role and WAL senders will do for Walden.

use std::path::PathBuf;

use super::{Check, CheckError, CheckRequest, Verdict};
use crate::plain::counted;
use crate::postgres::backup::ask::ask;
use crate::postgres::backup::outside;
use crate::postgres::cluster::{Cluster, describe_server};
use crate::postgres::replication::{ConnInfo, Connection, Mode, ResultSet};
use crate::postgres::types::{MajorVersion, SegmentSize, SystemIdentifier};

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(super) struct ServerFacts {
    pub place: String,
    pub version: String,
    pub major: MajorVersion,
    pub standby: bool,
    /// It runs on this machine, as far as the connection shows.
    pub here: bool,
    pub system_identifier: SystemIdentifier,
    pub segment_size: SegmentSize,
    /// `None`: the role may not see it.
    pub data_directory: Option<PathBuf>,
    pub settings: ArchivingSettings,
    pub role: Role,
    pub max_wal_senders: u32,
    pub wal_senders: u32,
}

/// Settings that archiving and restoring depend on.
#[derive(Debug, Clone, Default)]
pub(super) struct ArchivingSettings {
    pub wal_level: String,
    pub archive_mode: String,
    /// `(disabled)` while archive_mode is off.
    pub archive_command: String,
    /// Empty before 15.
    pub archive_library: String,
    /// Empty when the role may not see it.
    pub restore_command: String,
    /// Seconds; 0: never.
    pub archive_timeout: u32,
    pub full_page_writes: bool,
}

/// What the role may.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub name: String,
    pub replication: bool,
    pub create_restore_point: bool,
    pub switch_wal: bool,
    pub read_all_settings: bool,
    /// Configuration files outside the data directory that it knows of and may not read.
    pub unread_files: u32,
}

impl Role {
    /// Whether it may do what [`Check::EndToEnd`] does.
    pub fn may_probe(&self) -> bool {
        self.create_restore_point && self.switch_wal
    }
}

/// The server's address is NULL on a Unix socket. Settings for superusers only are not among the rows of pg_settings
/// that others see.
const QUESTION: &str = "SELECT current_setting('server_version') AS version, \
    pg_is_in_recovery()::int AS standby, \
    coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)::int AS here, \
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
    (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory, \
    current_setting('wal_level') AS wal_level, \
    current_setting('archive_mode') AS archive_mode, \
    current_setting('archive_command') AS archive_command, \
    coalesce(current_setting('archive_library', true), '') AS archive_library, \
    coalesce((SELECT setting FROM pg_settings WHERE name = 'restore_command'), '') AS restore_command, \
    (SELECT setting FROM pg_settings WHERE name = 'archive_timeout') AS archive_timeout, \
    (current_setting('full_page_writes') = 'on')::int AS full_page_writes, \
    current_user AS role, \
    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)::int AS replication, \
    has_function_privilege('pg_create_restore_point(text)', 'execute')::int AS create_restore_point, \
    has_function_privilege('pg_switch_wal()', 'execute')::int AS switch_wal, \
    pg_has_role('pg_read_all_settings', 'usage')::int AS read_all_settings, \
    (SELECT count(*) FROM (SELECT setting FROM pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file') \
       UNION SELECT sourcefile FROM pg_settings WHERE sourcefile <> '') AS files(path) \
     WHERE NOT starts_with(path, (SELECT setting || '/' FROM pg_settings WHERE name = 'data_directory')) \
       AND NOT (pg_has_role('pg_read_server_files', 'usage') \
         AND has_function_privilege('pg_stat_file(text)', 'execute') \
         AND has_function_privilege('pg_read_binary_file(text)', 'execute'))) AS unread_files, \
    current_setting('max_wal_senders') AS max_wal_senders, \
    (SELECT count(*) FROM pg_stat_replication) AS wal_senders";

/// Connects and asks.
pub(super) async fn gather(
    request: &CheckRequest<'_>,
) -> Result<(Connection, ServerFacts), CheckError> {
    let work = async {
        let mut sql = Connection::connect(&info(request)?, Mode::Sql).await?;
        let major = sql.major_version()?;
        let segment_size = sql.segment_size().await?;
        let answer = ask(&mut sql, QUESTION).await?;
        let server = read(&answer, sql.server(), major, segment_size)?;
        Ok::<_, anyhow::Error>((sql, server))
    };
    request.within("PostgreSQL", work).await
}

/// How to connect; resolved anew each time, so that a changed password file counts.
fn info(request: &CheckRequest<'_>) -> anyhow::Result<ConnInfo> {
    ConnInfo::from_process(request.settings.postgresql.dsn.expose())
}

fn read(
    answer: &ResultSet,
    place: &str,
    major: MajorVersion,
    segment_size: SegmentSize,
) -> anyhow::Result<ServerFacts> {
    let text = |column| answer.parse::<String>(0, column);
    let flag = |column| answer.parse::<u8>(0, column).map(|value| value == 1);
    let settings = ArchivingSettings {
        wal_level: text("wal_level")?,
        archive_mode: text("archive_mode")?,
        archive_command: text("archive_command")?,
        archive_library: text("archive_library")?,
        restore_command: text("restore_command")?,
        archive_timeout: answer.parse(0, "archive_timeout")?,
        full_page_writes: flag("full_page_writes")?,
    };
    let role = Role {
        name: text("role")?,
        replication: flag("replication")?,
        create_restore_point: flag("create_restore_point")?,
        switch_wal: flag("switch_wal")?,
        read_all_settings: flag("read_all_settings")?,
        unread_files: answer.parse(0, "unread_files")?,
    };
    Ok(ServerFacts {
        place: place.to_owned(),
        version: text("version")?,
        major,
        standby: flag("standby")?,
        here: flag("here")?,
        // SQL has no unsigned numbers.
        system_identifier: SystemIdentifier(
            answer.parse::<i64>(0, "system_identifier")?.cast_unsigned(),
        ),
        segment_size,
        data_directory: answer.text(0, "data_directory")?.map(PathBuf::from),
        settings,
        role,
        max_wal_senders: answer.parse(0, "max_wal_senders")?,
        wal_senders: answer.parse(0, "wal_senders")?,
    })
}

pub(super) fn decide_server(server: &ServerFacts) -> Verdict {
    let kind = if server.standby { "standby" } else { "primary" };
    // Distributions add theirs in parentheses.
    let version = server.version.split(' ').next().unwrap_or_default();
    Check::Server.ok(format!("PostgreSQL {version}, {kind}, at {}", server.place))
}

/// Whether the server is the repository's cluster; `cluster` is why there is none.
pub(super) fn decide_identity(
    server: &ServerFacts,
    cluster: &Result<Cluster, CheckError>,
) -> Verdict {
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => return Check::Identity.failed(error),
    };
    let name = cluster.layout.cluster().clone();
    let ServerFacts {
        system_identifier,
        segment_size,
        major,
        ..
    } = *server;
    let found = describe_server(
        name.clone(),
        system_identifier,
        segment_size,
        major,
        chrono::Utc::now(),
    );
    if let Err(error) = cluster.check_identity(&found) {
        return Check::Identity.failed(&CheckError::from(&error));
    }
    match cluster
        .description
        .versions
        .iter()
        .any(|known| known.major == major)
    {
        true => Check::Identity.ok(format!(
            "cluster \"{name}\", system identifier {system_identifier}"
        )),
        false => Check::Identity
            .critical(format!(
                "PostgreSQL {major} was not seen before in cluster \"{name}\": backups are refused"
            ))
            .hint("run `walden init` again to register the new version"),
    }
}

/// `probing`: whether the role needs what [`Check::EndToEnd`] does.
pub(super) fn decide_privileges(role: &Role, probing: bool) -> Verdict {
    let name = &role.name;
    if !role.replication {
        return Check::Privileges
            .critical(format!(
                "role \"{name}\" lacks REPLICATION: it can take no base backup"
            ))
            .hint(format!(
                "as a superuser run ALTER ROLE \"{name}\" REPLICATION"
            ));
    }
    let mut missing: Vec<(String, String)> = Vec::new();
    if probing && !role.may_probe() {
        let grant = "GRANT EXECUTE ON FUNCTION pg_create_restore_point(text), pg_switch_wal()";
        missing.push((
            "switch WAL for the end-to-end check".into(),
            format!("{grant} TO \"{name}\""),
        ));
    }
    if !role.read_all_settings {
        let what = "see where configuration files lie (backups leave those outside the data directory out)";
        missing.push((
            what.into(),
            format!("GRANT pg_read_all_settings TO \"{name}\""),
        ));
    }
    if role.unread_files > 0 {
        let files = counted(role.unread_files.into(), "configuration file");
        let what = format!(
            "read {files} outside the data directory (backups leave out what the role cannot read)"
        );
        missing.push((what, outside::grants(name, false)));
    }
    if missing.is_empty() {
        return Check::Privileges.ok(format!("role \"{name}\" may do all that Walden does"));
    }
    let (what, grants): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    Check::Privileges
        .warning(format!("role \"{name}\" may not {}", what.join(", nor ")))
        .hint(format!("as a superuser run {}", grants.join("; ")))
}

/// Opens the kind of connection that base backups use: only that proves role, pg_hba.conf and a free WAL sender.
pub(super) async fn check_replication(request: &CheckRequest<'_>, server: &ServerFacts) -> Verdict {
    let work = async {
        Connection::connect(&info(request)?, Mode::Physical)
            .await?
            .close()
            .await
    };
    let connected = request.within("PostgreSQL", work).await;
    decide_replication(&connected, server.wal_senders, server.max_wal_senders)
}

fn decide_replication(connected: &Result<(), CheckError>, used: u32, most: u32) -> Verdict {
    if most == 0 {
        return Check::Replication
            .critical("max_wal_senders = 0: the server sends no backups")
            .hint("set max_wal_senders = 10 in postgresql.conf and restart the server");
    }
    match connected {
        Err(error) => Check::Replication.failed(error),
        Ok(()) => Check::Replication.ok(format!(
            "connected; {used} of {most} WAL senders are in use"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::archive::testing::cluster_in;
    use crate::postgres::check::CheckStatus;
    use crate::postgres::check::testing::server;
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn only_the_registered_cluster_in_a_registered_version_is_ours() {
        let cluster = Ok(cluster_in(Arc::new(MemoryStorage::default())).await);
        let decide = |change: fn(&mut ServerFacts)| {
            let mut server = server();
            change(&mut server);
            decide_identity(&server, &cluster)
        };
        assert_eq!(decide(|_| ()).status, CheckStatus::Ok);
        let other = decide(|server| server.system_identifier = SystemIdentifier(8));
        assert_eq!(other.status, CheckStatus::Critical);
        assert!(other.hint.unwrap().contains("cluster.name"));
        assert_eq!(
            decide(|server| server.segment_size = SegmentSize::new(16 << 20).unwrap()).status,
            CheckStatus::Critical
        );
        let upgraded = decide(|server| server.major = MajorVersion::new(16).unwrap());
        assert!(upgraded.hint.unwrap().contains("walden init"));
        let error = CheckError {
            what: "not registered".into(),
            hint: Some("init".into()),
        };
        assert_eq!(
            decide_identity(&server(), &Err(error)).status,
            CheckStatus::Critical
        );
    }

    #[test]
    fn a_role_needs_replication_and_what_it_is_used_for() {
        let decide = |replication, switch_wal, read_all_settings, probing| {
            let role = Role {
                replication,
                switch_wal,
                read_all_settings,
                ..server().role
            };
            decide_privileges(&role, probing)
        };
        assert_eq!(decide(true, true, true, true).status, CheckStatus::Ok);
        assert_eq!(
            decide(false, true, true, true).status,
            CheckStatus::Critical
        );
        assert_eq!(
            decide(true, false, true, false).status,
            CheckStatus::Ok,
            "nothing is switched"
        );
        let less = decide(true, false, false, true);
        assert_eq!(less.status, CheckStatus::Warning);
        let hint = less.hint.unwrap();
        assert!(
            hint.contains("pg_switch_wal()") && hint.contains("pg_read_all_settings"),
            "{hint}"
        );
        let unread = decide_privileges(
            &Role {
                unread_files: 1,
                ..server().role
            },
            true,
        );
        assert_eq!(unread.status, CheckStatus::Warning);
        assert!(
            unread.message.contains("read 1 configuration file outside"),
            "{}",
            unread.message
        );
        assert!(
            unread
                .hint
                .unwrap()
                .contains("GRANT pg_read_server_files TO \"walden\"")
        );
    }

    #[test]
    fn base_backups_need_a_wal_sender_and_a_way_in() {
        let error = Err(CheckError {
            what: "refused".into(),
            hint: None,
        });
        assert_eq!(decide_replication(&Ok(()), 1, 10).status, CheckStatus::Ok);
        assert_eq!(decide_replication(&error, 1, 10).message, "refused");
        assert!(
            decide_replication(&error, 0, 0)
                .message
                .contains("max_wal_senders")
        );
    }
}
