//! Asks the server for the names of all relations of all databases.

use anyhow::{Context, Result, anyhow};

use crate::error::{Hint, find};
use crate::postgres::catalog::Relation;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::{RecordedName, Recording};
use crate::postgres::replication::{ConnInfo, Connection, Mode, ResultSet, ServerError};
use crate::postgres::types::TimelineId;
use crate::postgres::wal::RelFileLocator;

/// Resolves the connection settings anew, so that a changed password file counts.
pub type Resolve<'a> = &'a (dyn Fn() -> Result<ConnInfo> + Sync);

/// No statement takes longer: it would wait for a lock that somebody holds on a catalogue.
const SETTINGS: &str = "SET statement_timeout = '20s'";

/// Where the WAL is before names are read, of which server, and its databases. A standby says how far it has replayed.
const SERVER: &str = "SELECT pg_is_in_recovery() AS standby, \
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END AS lsn, \
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_control_checkpoint()) \
         ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END AS timeline";
const DATABASES: &str = "SELECT oid, datname, datallowconn FROM pg_database ORDER BY oid";

/// Relations with files of their own. Catalogues only where their file is not their first one: else its number tells
/// enough. For an index, a TOAST table and its index the table that they are part of.
const RELATIONS: &str = "SELECT c.oid, pg_relation_filenode(c.oid) AS file, c.relkind, n.nspname, c.relname, \
    CASE WHEN c.relisshared THEN 0 ELSE d.oid END AS database, \
    CASE WHEN c.relisshared THEN 1664 WHEN c.reltablespace <> 0 THEN c.reltablespace ELSE d.dattablespace END \
        AS tablespace, \
    coalesce(toasted.oid, of_toast.oid, i.indrelid) AS part_of \
    FROM pg_database d, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_index i ON i.indexrelid = c.oid \
    LEFT JOIN pg_class toasted ON c.relkind = 't' AND toasted.reltoastrelid = c.oid \
    LEFT JOIN pg_class of_toast ON of_toast.reltoastrelid = i.indrelid \
    WHERE d.datname = current_database() AND c.relkind IN ('r', 'i', 't', 'm', 'S') AND c.relpersistence <> 't' \
    AND pg_relation_filenode(c.oid) >= 16384";

/// Where the WAL is, and the names of all databases there.
pub struct Databases {
    /// Of the databases themselves; other names that are read now are at least as new.
    pub recording: Recording,
    /// Those that can be asked for their relations.
    pub open: Vec<String>,
}

/// Reads the names of all databases. Errors: the server cannot be asked, or is another cluster's.
pub async fn read_databases(cluster: &Cluster, resolve: Resolve<'_>) -> Result<Databases> {
    let mut sql = Connection::connect(&resolve()?, Mode::Sql).await?;
    let server = ask(&mut sql, SERVER).await?;
    check_identity(cluster, &server, sql.server())?;
    let lsn = server.parse(0, "lsn")?;
    let timeline = read_timeline(&server, if server.text(0, "standby")? == Some("t") { 10 } else { 16 })?;
    let found = ask(&mut sql, DATABASES).await?;
    sql.close().await?;
    let mut databases = Databases { recording: Recording { timeline, lsn, names: Vec::new() }, open: Vec::new() };
    for row in 0..found.rows.len() {
        let (oid, name) = (found.parse(row, "oid")?, lossy(&found, row, "datname")?);
        let key = RelFileLocator { tablespace: 0, database: oid, number: 0 };
        databases.recording.names.push((key, RecordedName::Database(name.clone())));
        if found.text(row, "datallowconn")? == Some("t") {
            databases.open.push(name);
        }
    }
    Ok(databases)
}

/// The names of a database's relations; none of one that cannot be asked, which is told in the log.
pub async fn read_relations(resolve: Resolve<'_>, database: &str) -> Result<Vec<(RelFileLocator, RecordedName)>> {
    match read_database(resolve()?, database).await {
        Ok(relations) => Ok(relations),
        // Dropped meanwhile.
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => {
            tracing::info!("the names in database \"{database}\" cannot be read: {error:#}");
            Ok(Vec::new())
        }
    }
}

/// The column `timeline`, in digits of that radix.
pub fn read_timeline(server: &ResultSet, radix: u32) -> Result<TimelineId> {
    let text = server.text(0, "timeline")?.unwrap_or_default();
    let number = u32::from_str_radix(text, radix).with_context(|| format!("\"{text}\" is no timeline"))?;
    Ok(TimelineId(number))
}

/// Refuses the server of another cluster, by the column `system_identifier`.
pub fn check_identity(cluster: &Cluster, server: &ResultSet, address: &str) -> Result<()> {
    let (found, ours) = (server.parse::<String>(0, "system_identifier")?, &cluster.description);
    if found == ours.system_identifier.to_string() {
        return Ok(());
    }
    let (name, kept) = (&ours.name, ours.system_identifier);
    Err(anyhow!("PostgreSQL at {address} has system identifier {found}, cluster \"{name}\" has {kept}"))
        .hint("`postgresql.dsn` must lead to the server that archives under this `cluster.name`")
}

async fn read_database(mut info: ConnInfo, database: &str) -> Result<Vec<(RelFileLocator, RecordedName)>> {
    info.database = database.to_string();
    let mut sql = Connection::connect(&info, Mode::Sql).await?;
    let relations = ask(&mut sql, RELATIONS).await?;
    sql.close().await?;
    (0..relations.rows.len()).map(|row| relation(&relations, row)).collect()
}

fn relation(found: &ResultSet, row: usize) -> Result<(RelFileLocator, RecordedName)> {
    let key = RelFileLocator {
        tablespace: found.parse(row, "tablespace")?,
        database: found.parse(row, "database")?,
        number: found.parse(row, "file")?,
    };
    let table = found.text(row, "part_of")?.map(str::parse).transpose().context("an OID that is no number")?;
    let relation = Relation {
        oid: found.parse(row, "oid")?,
        relkind: found.parse(row, "relkind")?,
        schema: lossy(found, row, "nspname")?,
        name: lossy(found, row, "relname")?,
        table,
    };
    Ok((key, RecordedName::Relation(relation)))
}

/// Names in a database with the encoding SQL_ASCII may be anything.
fn lossy(found: &ResultSet, row: usize, column: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(found.bytes(row, column)?.map_or(&[][..], |bytes| bytes)).into_owned())
}

/// One question and its answer. Errors: also that there is none within a minute.
pub async fn ask(sql: &mut Connection, question: &str) -> Result<ResultSet> {
    let answers = sql.question(&format!("{SETTINGS}; {question}")).await?;
    answers.into_iter().nth(1).with_context(|| format!("PostgreSQL at {} gave no result to a question", sql.server()))
}

/// invalid_catalog_name.
fn is_gone(error: &anyhow::Error) -> bool {
    find::<ServerError>(error).is_some_and(|error| error.code == "3D000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::FIRST_NORMAL;

    #[test]
    fn the_question_names_the_first_number_that_is_not_the_systems() {
        assert!(RELATIONS.contains(&format!(">= {FIRST_NORMAL}")));
    }
}
