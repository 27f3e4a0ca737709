//! A private server with one table of a dump in it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, anyhow};

use super::definitions::{conninfo, programs};
use super::private_server::PrivateServer;
use super::report::LeftOut;
use super::sessions::{Said, private};
use crate::config::Settings;
use crate::error::with_hint;
use crate::postgres::drill::database::Door;
use crate::postgres::drill::made::{SUPERUSER, made};
use crate::postgres::drill::scratch::Scratch;
use crate::postgres::dump::programs::Programs;
use crate::postgres::dump_restore::needs::{DumpContent, RestoreOptions};
use crate::postgres::dump_restore::program::{Feed, run};
use crate::postgres::dump_restore::selection::select;
use crate::postgres::dump_restore::source::DumpSource;
use crate::postgres::dump_restore::sql::{of_database, quoted, without_tablespace};
use crate::postgres::dump_restore::toc::{Toc, TocEntry};
use crate::postgres::replication::conninfo::ProgramConnection;
use crate::postgres::restore::programs as server_programs;
use crate::postgres::types::MajorVersion;

/// The database in the private server.
const DATABASE: &str = "walden_dump";
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
        let server = made(settings, scratch, &folder, major).await?;
        let door = Door {
            socket: server.socket_directory,
            port: server.port,
            user: SUPERUSER.into(),
            database: "postgres".into(),
            options: private(),
        };
        self.prepare(&door, toc, &chosen).await?;
        self.restore(&door, scratch, &clients, &chosen).await?;
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

    /// Restores the chosen entries into the database.
    async fn restore(
        &self,
        door: &Door,
        scratch: &Scratch,
        clients: &Programs,
        chosen: &BTreeSet<i64>,
    ) -> anyhow::Result<()> {
        let list = scratch.join("list");
        let ids = self.toc()?.entries.iter().map(|entry| entry.id);
        let lines = ids.filter(|id| chosen.contains(id));
        let lines: String = lines.map(|id| format!("{id};\n")).collect();
        fs::write(&list, lines).context("cannot write the list of what is restored")?;
        let connection = ProgramConnection::elsewhere(&conninfo(door), DATABASE)?;
        let mut restore = clients.connecting("pg_restore", &connection);
        restore
            .args(["--exit-on-error", "--no-tablespaces"])
            .arg("--use-list")
            .arg(&list)
            .arg(format!("--dbname={}", connection.conninfo))
            .arg(&self.source.path);
        let what = || {
            let name = self.name;
            format!("the table cannot be restored from the dump \"{name}\"")
        };
        let done = run(restore, Feed::Nothing, std::future::pending()).await;
        done.map(drop).with_context(what)
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
        let is_own = |role: &&String| *role != SUPERUSER && !role.starts_with("pg_");
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
