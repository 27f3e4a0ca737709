//! What the server says of a database, in the snapshot that `pg_dump` uses.

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Utc};

use super::manifest::{DatabaseFacts, DatabaseSetting, Extension, Snapshot, TableEntry};
use crate::error::{Hint, find, with_hint};
use crate::postgres::catalog::marks::{Mark, MarkRole, round_trip_begun};
use crate::postgres::cluster::Cluster;
use crate::postgres::replication::conninfo::{ConnInfo, ResolveConnInfo};
use crate::postgres::replication::{Connection, Mode, ResultSet, ServerError};
use crate::postgres::types::MajorVersion;

/// Asked before connecting: each connection that the server refuses is a line in its log. A limit of -2 marks a database that
/// DROP DATABASE left half removed.
const DATABASES: &str = "SELECT d.datname, d.datallowconn AND d.datconnlimit <> -2 \
    AND (d.datconnlimit <> 0 OR r.rolsuper) AND has_database_privilege(d.oid, 'CONNECT') AS open, shobj_description(d.oid, 'pg_database') AS comment \
    FROM pg_database d, pg_roles r WHERE r.rolname = current_user AND NOT d.datistemplate ORDER BY d.datname";
/// In a database with this encoding names may be anything, so they are taken as they are.
const ENCODING: &str = "SELECT set_config('client_encoding', \
    CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false)";
const SERVER: &str = "SELECT (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
    has_table_privilege('pg_authid', 'SELECT') AS sees_passwords";
/// The snapshot is taken before the position is read.
const SNAPSHOT: &str = "SELECT pg_export_snapshot() AS name, pg_is_in_recovery() AS standby, \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END AS lsn, \
    to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time";
/// Owners and grantees as the server keeps them; the role that initdb made owns things without a note of it.
const ROLES: &str = "WITH d AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database()) \
    SELECT rolname AS name FROM pg_roles WHERE oid IN (\
    SELECT datdba FROM d \
    UNION SELECT s.refobjid FROM pg_shdepend s, d WHERE s.refclassid = 'pg_authid'::regclass \
      AND (s.dbid = d.oid OR s.classid = 'pg_database'::regclass AND s.objid = d.oid) \
    UNION SELECT s.setrole FROM pg_db_role_setting s, d WHERE s.setdatabase = d.oid \
    UNION SELECT relowner FROM pg_class WHERE oid >= 16384 UNION SELECT nspowner FROM pg_namespace WHERE oid >= 16384 \
    UNION SELECT proowner FROM pg_proc WHERE oid >= 16384 UNION SELECT typowner FROM pg_type WHERE oid >= 16384) ORDER BY 1";
const TABLESPACES: &str = "SELECT spcname AS name FROM pg_tablespace WHERE oid NOT IN (1663, 1664) AND oid IN (\
    SELECT reltablespace FROM pg_class UNION SELECT dattablespace FROM pg_database WHERE datname = current_database()) ORDER BY 1";
const EXTENSIONS: &str = "SELECT extname, extversion, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
    ORDER BY 1";
const SETTINGS: &str = "SELECT r.rolname, unnest(s.setconfig) AS setting FROM pg_db_role_setting s \
    JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole \
    WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 2";
const ACL: &str =
    "SELECT unnest(datacl)::text AS item FROM pg_database WHERE datname = current_database()";
/// What holds rows.
const TABLES: &str = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.reltuples, pg_table_size(c.oid) AS size \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't' \
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
/// Tables asked for at once.
const PORTION: usize = 2048;

/// A database of the server, and whether the role may connect to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDatabase {
    pub name: String,
    pub open: bool,
}

/// The databases that are no templates, and the server's major version. One that Walden made for itself and drops again is none. Errors: the server cannot be asked, or is another
/// cluster's.
pub async fn databases(
    cluster: &Cluster,
    resolve: ResolveConnInfo<'_>,
) -> Result<(Vec<FoundDatabase>, MajorVersion)> {
    let mut sql = Connection::connect(&resolve()?, Mode::Sql).await?;
    check_identity(cluster, &mut sql).await?;
    let major = sql.major_version()?;
    let found = one(sql.question(DATABASES).await?)?;
    sql.close().await?;
    let row = |row| {
        let name = found
            .text(row, "datname")
            .context("a database has a name that is not UTF-8, and cannot be dumped")?
            .unwrap_or_default()
            .to_string();
        let open = found.text(row, "open")? == Some("t");
        let mark = Mark::of(&name, &lossy(&found, row, "comment")?);
        // One of a round trip has no mark yet when it is just made, or if that was killed then.
        let is_passing = mark.is_some_and(|mark| mark.role != MarkRole::Replaced)
            || round_trip_begun(&name).is_some();
        Ok((!is_passing).then_some(FoundDatabase { name, open }))
    };
    let all = (0..found.rows.len()).map(row).collect::<Result<Vec<_>>>()?;
    Ok((all.into_iter().flatten().collect(), major))
}

/// Whether the role may read the roles' passwords.
async fn check_identity(cluster: &Cluster, sql: &mut Connection) -> Result<bool> {
    let server = one(sql.question(SERVER).await?)?;
    let (found, ours) = (
        server.parse::<String>(0, "system_identifier")?,
        &cluster.description,
    );
    if found == ours.system_identifier.to_string() {
        return Ok(server.text(0, "sees_passwords")? == Some("t"));
    }
    let (name, kept) = (&ours.name, ours.system_identifier);
    Err(anyhow!(
        "PostgreSQL at {} has system identifier {found}, cluster \"{name}\" has {kept}",
        sql.server()
    ))
    .hint("`postgresql.dsn` must lead to the server that is kept under this `cluster.name`")
}

/// A session that keeps a snapshot.
#[derive(Debug)]
pub struct SnapshotSession {
    sql: Connection,
    in_snapshot: bool,
    pub info: ConnInfo,
    pub major: MajorVersion,
    pub version_num: u32,
    pub version: String,
    pub sees_passwords: bool,
}

impl SnapshotSession {
    /// Connects to a database. Errors: the server, or that it is another cluster's.
    pub async fn connect(
        cluster: &Cluster,
        resolve: ResolveConnInfo<'_>,
        database: &str,
    ) -> Result<Self> {
        let mut info = resolve()?;
        info.database = database.to_string();
        let mut sql = Connection::connect(&info, Mode::Sql)
            .await
            .map_err(|error| match find::<ServerError>(&error) {
                Some(absent) if absent.code == "3D000" => with_hint(
                    error,
                    "`walden dump take --all` dumps the databases that there are",
                ),
                _ => error,
            })?;
        let sees_passwords = check_identity(cluster, &mut sql).await?;
        sql.question(ENCODING).await?;
        let version = sql
            .parameter("server_version")
            .unwrap_or_default()
            .to_string();
        let (major, version_num) = (sql.major_version()?, sql.version_num());
        Ok(Self {
            sql,
            in_snapshot: false,
            info,
            major,
            version_num,
            version,
            sees_passwords,
        })
    }

    /// Where the server is, for messages and for programs that must meet the same one.
    pub fn server(&self) -> &str {
        self.sql.server()
    }

    /// Begins a transaction whose snapshot others can use while it lasts; a former one ends.
    pub async fn snapshot(&mut self) -> Result<Snapshot> {
        if std::mem::replace(&mut self.in_snapshot, true) {
            self.sql.question("ROLLBACK").await?;
        }
        let question = format!("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {SNAPSHOT}");
        let found = one(self.sql.question(&question).await?)?;
        let time: DateTime<Utc> = found.parse(0, "time")?;
        Ok(Snapshot {
            lsn: found.parse(0, "lsn")?,
            time,
            name: found.parse(0, "name")?,
            on_standby: found.text(0, "standby")? == Some("t"),
        })
    }

    async fn ask(&mut self, question: &str) -> Result<ResultSet> {
        one(self.sql.question(question).await?)
    }

    async fn names(&mut self, question: &str) -> Result<Vec<String>> {
        let found = self.ask(question).await?;
        (0..found.rows.len())
            .map(|row| lossy(&found, row, "name"))
            .collect()
    }

    /// What belongs to the database without being in it.
    pub async fn database(&mut self) -> Result<DatabaseFacts> {
        let provider = if self.major.number() >= 15 {
            "datlocprovider"
        } else {
            "'c'"
        };
        let locale = match self.major.number() {
            17.. => "datlocale",
            15 | 16 => "daticulocale",
            _ => "NULL",
        };
        let rules = if self.major.number() >= 16 {
            "daticurules"
        } else {
            "NULL"
        };
        let collation = if self.major.number() >= 15 {
            "datcollversion"
        } else {
            "NULL"
        };
        let question = format!(
            "SELECT d.oid, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding, datcollate, datctype, \
             {provider} AS provider, {locale} AS locale, {rules} AS rules, {collation} AS collation, spcname, datconnlimit, \
             pg_database_size(d.oid) AS size, shobj_description(d.oid, 'pg_database') AS comment, datacl IS NULL AS default_acl \
             FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = current_database()"
        );
        let found = self.ask(&question).await?;
        let optional = |column| -> Result<Option<String>> {
            Ok(found
                .bytes(0, column)?
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        };
        let provider = match found.text(0, "provider")? {
            Some("i") => "icu",
            Some("b") => "builtin",
            _ => "libc",
        };
        let mut facts = DatabaseFacts {
            oid: found.parse(0, "oid")?,
            owner: lossy(&found, 0, "owner")?,
            encoding: found.parse(0, "encoding")?,
            collate: found.parse(0, "datcollate")?,
            ctype: found.parse(0, "datctype")?,
            provider: provider.into(),
            locale: optional("locale")?,
            icu_rules: optional("rules")?,
            collation_version: optional("collation")?,
            tablespace: lossy(&found, 0, "spcname")?,
            connection_limit: found.parse(0, "datconnlimit")?,
            size: found.parse(0, "size")?,
            comment: optional("comment")?,
            acl: None,
            settings: Vec::new(),
        };
        if found.text(0, "default_acl")? == Some("f") {
            let items = self.ask(ACL).await?;
            facts.acl = Some(
                (0..items.rows.len())
                    .map(|row| lossy(&items, row, "item"))
                    .collect::<Result<_>>()?,
            );
        }
        facts.settings = self.settings().await?;
        Ok(facts)
    }

    async fn settings(&mut self) -> Result<Vec<DatabaseSetting>> {
        let found = self.ask(SETTINGS).await?;
        let row = |row| {
            let text = lossy(&found, row, "setting")?;
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            let role = found
                .bytes(row, "rolname")?
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            Ok(DatabaseSetting {
                role,
                name: name.into(),
                value: value.into(),
            })
        };
        (0..found.rows.len()).map(row).collect()
    }

    /// Roles that own something here or are granted something.
    pub async fn roles(&mut self) -> Result<Vec<String>> {
        self.names(ROLES).await
    }

    /// Tablespaces that something here lies in.
    pub async fn tablespaces(&mut self) -> Result<Vec<String>> {
        self.names(TABLESPACES).await
    }

    pub async fn extensions(&mut self) -> Result<Vec<Extension>> {
        let found = self.ask(EXTENSIONS).await?;
        let row = |row| {
            Ok(Extension {
                name: lossy(&found, row, "extname")?,
                version: lossy(&found, row, "extversion")?,
                schema: lossy(&found, row, "nspname")?,
            })
        };
        (0..found.rows.len()).map(row).collect()
    }

    /// All tables, a portion at a time. It may wait for locks, as `pg_dump` does.
    pub async fn tables(&mut self) -> Result<Vec<TableEntry>> {
        let (mut tables, mut after) = (Vec::new(), 0);
        loop {
            let question = format!("{TABLES} AND c.oid > {after} ORDER BY c.oid LIMIT {PORTION}");
            let found = one(self.sql.simple_query(&question).await?)?;
            for row in 0..found.rows.len() {
                tables.push(table(&found, row)?);
            }
            match tables.last() {
                Some(last) if found.rows.len() == PORTION => after = last.oid,
                _ => return Ok(tables),
            }
        }
    }

    /// Ends the session.
    pub async fn close(self) -> Result<()> {
        self.sql.close().await
    }
}

fn table(found: &ResultSet, row: usize) -> Result<TableEntry> {
    let rows: f64 = found.parse(row, "reltuples")?;
    let size = found.text(row, "size")?.map(str::parse).transpose()?;
    Ok(TableEntry {
        oid: found.parse(row, "oid")?,
        schema: lossy(found, row, "nspname")?,
        name: lossy(found, row, "relname")?,
        relkind: found.parse(row, "relkind")?,
        // Before 14 the server says 0 where it has none.
        rows: (rows >= 0.0).then_some(rows),
        size,
        has_rows: false,
    })
}

fn lossy(found: &ResultSet, row: usize, column: &str) -> Result<String> {
    let bytes = found.bytes(row, column)?.map_or(&[][..], |bytes| bytes);
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// The last answer of several statements.
fn one(answers: Vec<ResultSet>) -> Result<ResultSet> {
    answers
        .into_iter()
        .next_back()
        .context("PostgreSQL gave no result to a question")
}
