//! Asks the server for the names of all relations of all databases, a portion at a time, and after the first time only
//! for what has changed since: so neither memory nor traffic grows with the number of relations.

use anyhow::{Context, Result, anyhow};

use crate::error::{Hint, find};
use crate::postgres::catalog::Relation;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::{RecordedName, Recording};
use crate::postgres::replication::{
    ConnInfo, Connection, Mode, ResolveConnInfo, ResultSet, ServerError,
};
use crate::postgres::types::TimelineId;
use crate::postgres::wal::RelFileLocator;

/// No statement takes longer: it would wait for a lock that somebody holds on a catalogue.
const SETTINGS: &str = "SET statement_timeout = '20s'";

/// Where the WAL is before names are read, of which server, and its databases. A standby says how far it has replayed.
const SERVER: &str = "SELECT pg_is_in_recovery() AS standby, \
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END AS lsn, \
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_control_checkpoint()) \
         ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END AS timeline, \
    greatest(pg_snapshot_xmin(pg_current_snapshot())::text::bigint & 4294967295, 3) AS horizon";
/// Asked before connecting: each connection that the server refuses is a line in its log. A limit of -2 marks a database
/// that DROP DATABASE left half removed.
const DATABASES: &str = "SELECT d.oid, d.datname, d.datallowconn AND d.datconnlimit <> -2 \
    AND (d.datconnlimit <> 0 OR r.rolsuper) AND has_database_privilege(d.oid, 'CONNECT') AS open \
    FROM pg_database d, pg_roles r WHERE r.rolname = current_user ORDER BY d.oid";
/// In a database with this encoding names may be anything, so they are taken as they are: converting them is an error, and
/// a line in the server's log.
const ENCODING: &str = "SELECT set_config('client_encoding', \
    CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false) AS encoding";
/// Relations asked for at once.
const PORTION: usize = 2048;

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
    /// Those that can be asked for their relations: OID and name.
    pub open: Vec<(u32, String)>,
    /// Transactions with numbers below this one had ended.
    pub horizon: u32,
}

/// Reads the names of all databases. Errors: the server cannot be asked, or is another cluster's.
pub async fn read_databases(cluster: &Cluster, resolve: ResolveConnInfo<'_>) -> Result<Databases> {
    let mut sql = Connection::connect(&resolve()?, Mode::Sql).await?;
    let server = ask(&mut sql, SERVER).await?;
    check_identity(cluster, &server, sql.server())?;
    let (lsn, horizon) = (server.parse(0, "lsn")?, server.parse(0, "horizon")?);
    let timeline = read_timeline(
        &server,
        if server.text(0, "standby")? == Some("t") {
            10
        } else {
            16
        },
    )?;
    let found = ask_names(&mut sql, DATABASES).await?;
    sql.close().await?;
    let recording = Recording {
        timeline,
        lsn,
        names: Vec::new(),
    };
    let mut databases = Databases {
        recording,
        open: Vec::new(),
        horizon,
    };
    for row in 0..found.rows.len() {
        let (oid, name) = (found.parse(row, "oid")?, lossy(&found, row, "datname")?);
        let key = RelFileLocator {
            tablespace: 0,
            database: oid,
            number: 0,
        };
        databases
            .recording
            .names
            .push((key, RecordedName::Database(name.clone())));
        // A name that is not UTF-8 cannot be asked for.
        if found.text(row, "open")? == Some("t") && !name.contains(char::REPLACEMENT_CHARACTER) {
            databases.open.push((oid, name));
        }
    }
    Ok(databases)
}

/// The relations of one database, a portion at a time.
pub struct Relations {
    sql: Connection,
    /// Only what transactions from this one on have changed.
    since: Option<u32>,
    after: u32,
}

impl Relations {
    /// Connects to the database. `None`: it was dropped meanwhile.
    pub async fn open(
        resolve: ResolveConnInfo<'_>,
        database: &str,
        since: Option<u32>,
    ) -> Result<Option<Self>> {
        let mut info: ConnInfo = resolve()?;
        info.database = database.to_string();
        match Connection::connect(&info, Mode::Sql).await {
            Ok(mut sql) => {
                ask(&mut sql, ENCODING).await?;
                Ok(Some(Self {
                    sql,
                    since,
                    after: 0,
                }))
            }
            Err(error) if has_code(&error, &["3D000"]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next ones; none at the end.
    pub async fn next(&mut self) -> Result<Vec<(RelFileLocator, RecordedName)>> {
        // A renamed schema changes the names of all that is in it. Of frozen rows the age may be a negative number: those
        // are read once more.
        let changed = self.since.map(|xid| {
            format!(" AND least(age(c.xmin), age(n.xmin), coalesce(age(i.xmin), 2147483647)) <= age('{xid}'::xid)")
        });
        let question = format!(
            "{RELATIONS}{} AND c.oid > {} ORDER BY c.oid LIMIT {PORTION}",
            changed.unwrap_or_default(),
            self.after
        );
        let found = ask_names(&mut self.sql, &question).await?;
        if let Some(last) = found.rows.len().checked_sub(1) {
            self.after = found.parse(last, "oid")?;
        }
        (0..found.rows.len())
            .map(|row| relation(&found, row))
            .collect()
    }

    /// Ends the session.
    pub async fn close(self) -> Result<()> {
        self.sql.close().await
    }
}

/// The column `timeline`, in digits of that radix.
pub fn read_timeline(server: &ResultSet, radix: u32) -> Result<TimelineId> {
    let text = server.text(0, "timeline")?.unwrap_or_default();
    let number =
        u32::from_str_radix(text, radix).with_context(|| format!("\"{text}\" is no timeline"))?;
    Ok(TimelineId(number))
}

/// Refuses the server of another cluster, by the column `system_identifier`.
pub fn check_identity(cluster: &Cluster, server: &ResultSet, address: &str) -> Result<()> {
    let (found, ours) = (
        server.parse::<String>(0, "system_identifier")?,
        &cluster.description,
    );
    if found == ours.system_identifier.to_string() {
        return Ok(());
    }
    let (name, kept) = (&ours.name, ours.system_identifier);
    Err(anyhow!(
        "PostgreSQL at {address} has system identifier {found}, cluster \"{name}\" has {kept}"
    ))
    .hint("`postgresql.dsn` must lead to the server that archives under this `cluster.name`")
}

fn relation(found: &ResultSet, row: usize) -> Result<(RelFileLocator, RecordedName)> {
    let key = RelFileLocator {
        tablespace: found.parse(row, "tablespace")?,
        database: found.parse(row, "database")?,
        number: found.parse(row, "file")?,
    };
    let table = found
        .text(row, "part_of")?
        .map(str::parse)
        .transpose()
        .context("an OID that is no number")?;
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
    Ok(
        String::from_utf8_lossy(found.bytes(row, column)?.map_or(&[][..], |bytes| bytes))
            .into_owned(),
    )
}

/// One question and its answer. Errors: also that there is none within a minute.
pub async fn ask(sql: &mut Connection, question: &str) -> Result<ResultSet> {
    let answers = sql.question(&format!("{SETTINGS}; {question}")).await?;
    answers.into_iter().next_back().with_context(|| {
        format!(
            "PostgreSQL at {} gave no result to a question",
            sql.server()
        )
    })
}

/// [`ask`] for names. Where one of them cannot be had in UTF-8 all come as the server keeps them: names of databases may
/// have come from a database with any encoding.
async fn ask_names(sql: &mut Connection, question: &str) -> Result<ResultSet> {
    match ask(sql, question).await {
        // character_not_in_repertoire, untranslatable_character
        Err(error) if has_code(&error, &["22021", "22P05"]) => {
            ask(
                sql,
                &format!("SET client_encoding = 'SQL_ASCII'; {question}"),
            )
            .await
        }
        answer => answer,
    }
}

fn has_code(error: &anyhow::Error, codes: &[&str]) -> bool {
    find::<ServerError>(error).is_some_and(|error| codes.contains(&error.code.as_str()))
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
