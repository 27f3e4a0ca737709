//! The first phase: everything that can be known before anything is done.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::decide::{DumpFacts, Reason, RestorePlan, RestoreRequest, decide};
use super::job::StartProgram;
use super::needs::{DumpContent, RestoreOptions};
use super::program::{Feed, run};
use super::source::{DumpForm, DumpSource, open};
use super::target::{TargetFacts, connect, free_space, gather};
use super::{digests, sql};
use crate::postgres::dump::manifest::DatabaseFacts;
use crate::postgres::replication::ConnInfo;

/// Reads a dump on disk: compares it with its checksum file, if there is one, and looks into it.
pub async fn read_file(path: &Path) -> anyhow::Result<(DumpSource, Option<PathBuf>)> {
    let path = path.to_path_buf();
    let read = move || {
        // What is damaged may not be readable either: the digest says more.
        let sums = match path.exists() {
            true => digests::verify(&path)?,
            false => None,
        };
        Ok((open(&path)?, sums))
    };
    tokio::task::spawn_blocking(read).await?
}

/// What is to be restored, and where to.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub source: &'a DumpSource,
    /// Of the dump's database, as a manifest tells them.
    pub facts: Option<&'a DatabaseFacts>,
    pub database: &'a str,
    pub options: &'a RestoreOptions,
    /// Programs run elsewhere and see no file of this machine.
    pub is_remote: bool,
    /// It holds some tables of its database alone.
    pub is_partial: bool,
}

/// Asks the server, and decides.
pub async fn against(
    info: &ConnInfo,
    wanted: &Wanted<'_>,
) -> anyhow::Result<(TargetFacts, Result<RestorePlan, Vec<Reason>>)> {
    let mut session = connect(info, wanted.database, "walden").await?;
    let target = gather(&mut session, wanted.database).await?;
    session.close().await?;
    let tablespace = tablespace(wanted);
    let plan = decide(&RestoreRequest {
        dump: DumpFacts {
            content: &wanted.source.content,
            form: wanted.source.form,
            bytes: wanted.facts.map_or(wanted.source.bytes, |facts| facts.size),
            is_partial: wanted.is_partial,
            facts: wanted.facts,
        },
        target: &target,
        database: wanted.database,
        options: wanted.options,
        is_remote: wanted.is_remote,
        free: free_space(info, &target, tablespace.as_deref()),
    });
    Ok((target, plan))
}

/// The tablespace that the new database lies in, unless it is the server's own.
fn tablespace(wanted: &Wanted<'_>) -> Option<String> {
    let toc = match &wanted.source.content {
        DumpContent::Archive(toc) => toc,
        DumpContent::Script(_) => return wanted.facts.map(|facts| facts.tablespace.clone()),
    };
    let created = toc
        .entries
        .iter()
        .find(|entry| entry.kind() == "DATABASE")?;
    sql::tablespace_of_database(&created.definition()).filter(|_| !wanted.options.no_tablespaces)
}

/// Has `pg_restore` read the archive's list, as it will read it again.
pub async fn list(
    program: StartProgram<'_>,
    source: &DumpSource,
    is_remote: bool,
) -> anyhow::Result<()> {
    if let DumpForm::Script(_) = source.form {
        return Ok(());
    }
    let mut command = program("pg_restore", None)?;
    command.arg("--list");
    let feed = match is_remote {
        true => Feed::File(std::fs::File::open(&source.path)?),
        false => {
            command.arg(&source.path);
            Feed::Nothing
        }
    };
    let listed = run(command, feed, std::future::pending()).await;
    listed.context("pg_restore does not read the dump")
}
