//! What the server that is restored to says of itself, asked before anything is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::sql::literal;
use crate::error::find;
use crate::postgres::replication::conninfo::Address;
use crate::postgres::replication::{
    ConnInfo, ConnectError, ConnectErrorKind, Connection, Mode, ResultSet,
};

/// The server, as far as a restore depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Where it is, as messages name it.
    pub server: String,
    /// Its major version.
    pub major: u32,
    /// As it says it: `15.20 (Debian 15.20-1)`.
    pub version: String,
    pub is_standby: bool,
    pub user: String,
    pub is_superuser: bool,
    pub may_create_databases: bool,
    pub roles: BTreeSet<String>,
    /// Names of the extensions that could be created.
    pub extensions: BTreeSet<String>,
    /// Names and folders; the default one has none.
    pub tablespaces: BTreeMap<String, PathBuf>,
    pub databases: BTreeSet<String>,
    /// The database of the name wanted, if there is one.
    pub existing: Option<ExistingDatabase>,
    /// Where the server keeps databases, if it tells.
    pub data_directory: Option<PathBuf>,
}

/// The database that would be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExistingDatabase {
    pub oid: u32,
    /// Bytes.
    pub size: Option<u64>,
    /// The user has the rights of its owner.
    pub is_ours: bool,
    pub comment: Option<String>,
    /// Sessions in it.
    pub sessions: u64,
    /// Transactions that wait for COMMIT PREPARED.
    pub prepared: u64,
    /// Logical replication slots that read it.
    pub slots: Vec<String>,
}

/// SQLSTATEs of a database that does not exist, takes no connections, or not this role's.
const NOT_HERE: [&str; 3] = ["3D000", "55000", "42501"];

/// The databases to be connected to while `target` is replaced, in this order: one cannot rename the database one is in.
fn maintenance(info: &ConnInfo, target: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in [info.database.as_str(), "postgres", "template1"] {
        if name != target && !found.iter().any(|other| other == name) {
            found.push(name.to_string());
        }
    }
    found
}

/// A session for questions and for what is done to databases as a whole, in any database but `target`.
pub async fn connect(info: &ConnInfo, target: &str, name: &str) -> anyhow::Result<Connection> {
    let mut info = info.clone();
    info.application_name = name.to_string();
    let mut first = None;
    for database in maintenance(&info, target) {
        info.database = database;
        match Connection::connect(&info, Mode::Sql).await {
            Err(error) if is_of_database(&error) => first = first.or(Some(error)),
            done => return done,
        }
    }
    Err(first.unwrap_or_else(|| anyhow!("no database to connect to")))
}

/// Whether it is the database that cannot be connected to, and not the server.
fn is_of_database(error: &anyhow::Error) -> bool {
    match find::<ConnectError>(error).map(|error| &error.reason) {
        Some(ConnectErrorKind::Refused(said)) => NOT_HERE.contains(&said.code.as_str()),
        Some(ConnectErrorKind::NoHbaEntry(_)) => true,
        _ => false,
    }
}

/// Asks the server. Errors: it does not answer.
pub async fn gather(sql: &mut Connection, target: &str) -> anyhow::Result<TargetFacts> {
    let own = ask(
        sql,
        "SELECT pg_is_in_recovery() AS standby, rolname AS role, rolsuper AS super, rolcreatedb AS creates, \
         (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS folder \
         FROM pg_roles WHERE rolname = current_user",
    )
    .await?;
    let tablespaces = ask(
        sql,
        "SELECT spcname AS name, pg_tablespace_location(oid) AS folder FROM pg_tablespace",
    )
    .await?;
    let tablespaces = (0..tablespaces.rows.len()).map(|row| {
        let folder = tablespaces.text(row, "folder")?.unwrap_or_default();
        Ok((tablespaces.parse(row, "name")?, PathBuf::from(folder)))
    });
    Ok(TargetFacts {
        server: sql.server().to_string(),
        major: sql.version_num() / 10_000,
        version: sql
            .parameter("server_version")
            .unwrap_or_default()
            .to_string(),
        is_standby: is_true(&own, "standby")?,
        user: own.parse(0, "role")?,
        is_superuser: is_true(&own, "super")?,
        may_create_databases: is_true(&own, "creates")?,
        tablespaces: tablespaces.collect::<anyhow::Result<_>>()?,
        data_directory: own.text(0, "folder")?.map(PathBuf::from),
        roles: names(sql, "SELECT rolname AS name FROM pg_roles").await?,
        extensions: names(sql, "SELECT name FROM pg_available_extensions").await?,
        databases: names(sql, "SELECT datname AS name FROM pg_database").await?,
        existing: existing(sql, target).await?,
    })
}

async fn existing(sql: &mut Connection, target: &str) -> anyhow::Result<Option<ExistingDatabase>> {
    let name = literal(target);
    let found = ask(
        sql,
        &format!(
            "SELECT d.oid, pg_has_role(d.datdba, 'USAGE') AS ours, shobj_description(d.oid, 'pg_database') AS comment, \
             CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) END AS size, \
             (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid) AS sessions, \
             (SELECT count(*) FROM pg_prepared_xacts x WHERE x.database = d.datname) AS prepared \
             FROM pg_database d WHERE d.datname = {name}"
        ),
    )
    .await?;
    if found.rows.is_empty() {
        return Ok(None);
    }
    let slots = names(
        sql,
        &format!("SELECT slot_name AS name FROM pg_replication_slots WHERE database = {name}"),
    )
    .await?;
    let size = found.text(0, "size")?.map(str::parse).transpose()?;
    Ok(Some(ExistingDatabase {
        oid: found.parse(0, "oid")?,
        size,
        is_ours: is_true(&found, "ours")?,
        comment: found.text(0, "comment")?.map(str::to_string),
        sessions: found.parse(0, "sessions")?,
        prepared: found.parse(0, "prepared")?,
        slots: slots.into_iter().collect(),
    }))
}

/// The result of one question.
pub async fn ask(sql: &mut Connection, question: &str) -> anyhow::Result<ResultSet> {
    let answer = sql.question(question).await?.into_iter().next();
    answer.context("the server did not answer a question")
}

/// The column `name` of all rows.
pub async fn names(sql: &mut Connection, question: &str) -> anyhow::Result<BTreeSet<String>> {
    let found = ask(sql, question).await?;
    (0..found.rows.len())
        .map(|row| Ok(found.parse(row, "name")?))
        .collect()
}

fn is_true(result: &ResultSet, column: &str) -> anyhow::Result<bool> {
    Ok(result.text(0, column)? == Some("t"))
}

/// Bytes that are free where the server would put a database. `None`: it is not on this machine as far as is known, or does
/// not tell where.
pub fn free_space(info: &ConnInfo, facts: &TargetFacts, tablespace: Option<&str>) -> Option<u64> {
    let is_here = |address: &Address| match address {
        Address::Unix(_) => true,
        Address::Ip(ip, _) => ip.is_loopback(),
        Address::Name(name) => name == "localhost",
    };
    if !info.hosts.iter().all(|host| is_here(&host.address)) {
        return None;
    }
    let own = tablespace.and_then(|name| facts.tablespaces.get(name));
    let folder = own.filter(|folder| !folder.as_os_str().is_empty());
    free(folder.or(facts.data_directory.as_ref())?)
}

/// Bytes that are free in the file system of an existing folder.
pub fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_never_what_is_connected_to() {
        let info = |database: &str| {
            let info = ConnInfo::from_process(&format!("host=/s user=u dbname={database}"));
            info.unwrap()
        };
        for (own, target, used) in [
            ("app", "shop", &["app", "postgres", "template1"][..]),
            ("shop", "shop", &["postgres", "template1"]),
            ("postgres", "postgres", &["template1"]),
            ("template1", "", &["template1", "postgres"]),
        ] {
            assert_eq!(maintenance(&info(own), target), used);
        }
    }
}
