//! A private server with one table of a dump in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, anyhow, ensure};
use tokio::process::Command;

use super::definitions::{conninfo, programs};
use super::private_server::PrivateServer;
use super::report::LeftOut;
use super::sessions::{Said, private};
use crate::config::Settings;
use crate::error::with_hint;
use crate::postgres::drill::database::Door;
use crate::postgres::drill::restored::private_socket;
use crate::postgres::drill::scratch::Scratch;
use crate::postgres::dump_restore::needs::{DumpContent, RestoreOptions};
use crate::postgres::dump_restore::program::{Feed, run};
use crate::postgres::dump_restore::selection::select;
use crate::postgres::dump_restore::source::DumpSource;
use crate::postgres::dump_restore::sql::{literal, of_database, quoted, without_tablespace};
use crate::postgres::dump_restore::toc::{Toc, TocEntry};
use crate::postgres::replication::conninfo::ProgramConnection;
use crate::postgres::restore::programs as server_programs;
use crate::postgres::types::MajorVersion;

/// The database in the private server.
const DATABASE: &str = "walden_dump";
const USER: &str = "walden";
/// It only names the socket.
const PORT: u16 = 5432;
const WAY: &str = "the table and what it needs, into a server of its own";

/// A dump on disk, and its name.
#[derive(Debug, Clone, Copy)]
pub struct DumpOrigin<'a> {
    pub source: &'a DumpSource,
    pub name: &'a str,
}

impl DumpOrigin<'_> {
    /// Makes a server and restores the table into it.
    pub(super) async fn server(
        self,
        settings: &Settings,
        scratch: &Scratch,
        table: &str,
    ) -> anyhow::Result<PrivateServer> {
        let toc = self.toc()?;
        let chosen = select(&toc.entries, &[table.to_string()]).map_err(|_| {
            let error = anyhow!("the dump \"{}\" has no table \"{table}\"", self.name);
            with_hint(
                error,
                "name it as TABLE or SCHEMA.TABLE; other dumps: `walden dump list`",
            )
        })?;
        let content = &self.source.content;
        let major = content.program_major().or(content.server_major());
        let major = MajorVersion::new(major.context("the dump does not tell its version")?)?;
        let named = settings.drill.programs.as_deref();
        let folder = server_programs::find(major, named)?;
        let clients = programs(settings, &folder, major).await?;
        let door = start(settings, scratch, &folder).await?;
        self.prepare(&door, toc, &chosen).await?;
        let list = scratch.join("list");
        let ids: String = toc
            .entries
            .iter()
            .filter(|entry| chosen.contains(&entry.id))
            .map(|entry| format!("{};\n", entry.id))
            .collect();
        fs::write(&list, ids).context("cannot write the list of what is restored")?;
        let connection = ProgramConnection::elsewhere(&conninfo(&door), DATABASE)?;
        let mut restore = clients.connecting("pg_restore", &connection);
        restore
            .args(["--exit-on-error", "--no-tablespaces"])
            .arg("--use-list")
            .arg(&list)
            .arg(format!("--dbname={}", connection.conninfo))
            .arg(&self.source.path);
        let never = std::future::pending();
        let what = || {
            format!(
                "the table cannot be restored from the dump \"{}\"",
                self.name
            )
        };
        run(restore, Feed::Nothing, never)
            .await
            .with_context(what)?;
        Ok(PrivateServer {
            door,
            major,
            programs: folder,
            database: DATABASE.into(),
            from: format!("dump {}", self.name),
            way: WAY,
            has_unlogged_rows: true,
            left_out: foreign_keys(toc, &chosen),
        })
    }

    fn toc(&self) -> anyhow::Result<&Toc> {
        match &self.source.content {
            DumpContent::Archive(toc) => Ok(toc),
            DumpContent::Script(_) => Err(with_hint(
                anyhow!(
                    "the dump \"{}\" is a script, which has no single tables",
                    self.name
                ),
                "restore all of it beside the database: `walden dump restore`, with --as",
            )),
        }
    }

    /// Makes the database as it was, and the roles that are named in what is restored.
    async fn prepare(&self, door: &Door, toc: &Toc, chosen: &BTreeSet<i64>) -> anyhow::Result<()> {
        let session = door.open(&door.database).await?;
        let client = &session.client;
        let options = RestoreOptions::default();
        let needs = self.source.content.needs(&options, Some(chosen), None);
        let is_own = |role: &&String| *role != USER && !role.starts_with("pg_");
        for role in needs.owners.union(&needs.grantees).filter(is_own) {
            let sql = format!("CREATE ROLE {}", quoted(role));
            let what = format!("role \"{role}\" cannot be made");
            client.batch_execute(&sql).await.said(&what)?;
        }
        let of_database_itself = toc.entries.iter().find(|entry| entry.kind() == "DATABASE");
        let sql = match of_database_itself {
            Some(entry) => of_database(&without_tablespace(&entry.definition()), DATABASE),
            None => format!("CREATE DATABASE {DATABASE} TEMPLATE template0"),
        };
        client
            .batch_execute(&sql)
            .await
            .said("the dump's database cannot be made here")
            .map_err(|error| with_hint(error, "does this machine have the locale of the database?"))
    }
}

/// A new cluster in the folder, with a server that only this user reaches.
async fn start(settings: &Settings, scratch: &Scratch, programs: &Path) -> anyhow::Result<Door> {
    let data = scratch.data();
    private_socket(&data)?;
    let mut initdb = Command::new(programs.join("initdb"));
    initdb
        .arg("--pgdata")
        .arg(&data)
        .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"])
        .args(["--locale", "C", "--no-sync"]);
    finished(initdb, "initdb").await?;
    configure(settings, &data)?;
    let log = scratch.join("server.log");
    let mut start = Command::new(programs.join("pg_ctl"));
    start.arg("--pgdata").arg(&data).arg("--log").arg(&log);
    start.args(["--wait", "--timeout", "60", "start"]);
    let started = finished(start, "pg_ctl").await;
    started.with_context(|| {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        format!("the private server does not start: {}", last.join("; "))
    })?;
    Ok(Door {
        socket: data,
        port: PORT,
        user: USER.into(),
        database: "postgres".into(),
        options: private(),
    })
}

/// A server that only this user reaches, with little memory.
fn configure(settings: &Settings, data: &Path) -> anyhow::Result<()> {
    let file = data.join("postgresql.auto.conf");
    let mut text = String::new();
    for (name, value) in [
        ("listen_addresses", literal("")),
        (
            "unix_socket_directories",
            literal(&data.display().to_string()),
        ),
        ("unix_socket_permissions", "0700".into()),
        ("port", PORT.to_string()),
        (
            "shared_buffers",
            format!("{}kB", settings.drill.memory / 1024),
        ),
        ("huge_pages", "off".into()),
        ("fsync", "off".into()),
        ("autovacuum", "off".into()),
        ("wal_level", "minimal".into()),
        ("max_wal_senders", "0".into()),
    ] {
        let _ = writeln!(text, "{name} = {value}");
    }
    fs::write(&file, text).with_context(|| format!("cannot write \"{}\"", file.display()))
}

/// Runs a program to its end. A server that it starts must not hold its pipes.
async fn finished(mut command: Command, name: &str) -> anyhow::Result<()> {
    let status = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// The table's foreign keys, which are not restored without the tables that they refer to.
fn foreign_keys(toc: &Toc, chosen: &BTreeSet<i64>) -> Vec<LeftOut> {
    let is_left =
        |entry: &&TocEntry| entry.kind() == "FK CONSTRAINT" && !chosen.contains(&entry.id);
    let of_table = |entry: &TocEntry| {
        let table = entry.dependencies().find_map(|id| {
            let found = toc
                .entries
                .iter()
                .find(|found| found.id == id && chosen.contains(&id));
            found.filter(|found| found.kind() == "TABLE")
        })?;
        let (tag, name) = (entry.tag(), table.tag());
        let own = tag.strip_prefix(name.as_ref())?.strip_prefix(' ')?;
        let mut left = LeftOut::new("foreign key", own);
        left.sql = Some(entry.definition().trim().trim_end_matches(';').to_string());
        Some(left)
    };
    toc.entries
        .iter()
        .filter(is_left)
        .filter_map(of_table)
        .collect()
}
