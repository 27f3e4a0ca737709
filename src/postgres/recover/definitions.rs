//! How a table is made, as `pg_dump` says it: which of its entries, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, anyhow};

use crate::config::Settings;
use crate::postgres::drill::database::Door;
use crate::postgres::dump::programs::Programs;
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::selection::around;
use crate::postgres::dump_restore::toc::{Toc, TocEntry};
use crate::postgres::replication::conninfo::ProgramConnection;
use crate::postgres::types::MajorVersion;

/// What makes the table itself, before its rows.
const BEFORE_ROWS: &[&str] = &[
    "TABLE",
    "TABLE ATTACH",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "DEFAULT",
];
/// What is made when the rows are there.
const AFTER_ROWS: &[&str] = &[
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "STATISTICS",
];
/// What it needs, if it is gone.
const NEEDED: &[&str] = &[
    "ACCESS METHOD",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "DOMAIN",
    "EXTENSION",
    "FUNCTION",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "SCHEMA",
    "SHELL TYPE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
];

/// One step of making a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
    /// Only if it is not there.
    Need(&'a TocEntry),
    Make(&'a TocEntry),
    Rows,
}

/// Programs for the private server, which are on this machine.
pub async fn programs(
    settings: &Settings,
    of_server: &Path,
    major: MajorVersion,
) -> anyhow::Result<Programs> {
    let mut dump = settings.dump.clone();
    if !dump.command_prefix.is_empty() {
        (dump.command_prefix, dump.programs) = (Vec::new(), None);
    }
    if dump.programs.is_none() && of_server.join("pg_dump").is_file() {
        dump.programs = Some(of_server.to_path_buf());
    }
    Programs::find(&dump, major).await
}

/// A connection string for it.
pub fn conninfo(door: &Door) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let socket = quoted(&door.socket.display().to_string());
    format!(
        "host={socket} port={} user={}",
        door.port,
        quoted(&door.user)
    )
}

/// Has `pg_dump` say how all of a database is made; what a table needs is among it.
pub async fn definitions(programs: &Programs, door: &Door, database: &str) -> anyhow::Result<Toc> {
    let connection = ProgramConnection::elsewhere(&conninfo(door), database)?;
    let mut command = programs.connecting("pg_dump", &connection);
    command
        .args(["--schema-only", "--format=custom", "--compress=0"])
        .arg("--encoding=UTF8")
        .arg(format!("--dbname={}", connection.conninfo))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let name = programs.name("pg_dump");
    let output = command.output().await;
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!(
            "{name} does not tell how the table is made: {}",
            said.trim()
        ));
    }
    let (toc, _) = Toc::read(output.stdout.as_slice())
        .with_context(|| format!("what {name} wrote cannot be read"))?;
    Ok(toc)
}

/// The steps that make these tables with their own sequences. Errors: one of the tables is not among the entries. Pure.
pub fn steps<'a>(
    entries: &'a [TocEntry],
    tables: &BTreeSet<QualifiedName>,
    sequences: &BTreeSet<QualifiedName>,
    rows_only: bool,
) -> anyhow::Result<Vec<Step<'a>>> {
    let name = |entry: &TocEntry| QualifiedName::new(&entry.schema(), &entry.tag());
    let is_table = |entry: &TocEntry| entry.kind() == "TABLE" && tables.contains(&name(entry));
    refuse_untold(
        tables,
        entries.iter().filter(|entry| is_table(entry)).map(name),
    )?;
    let own: BTreeSet<i64> = entries
        .iter()
        .filter(|entry| is_table(entry))
        .map(|entry| entry.id)
        .collect();
    let of_use = entries_of_use(entries);
    let chosen = around(&of_use, &own);
    let needed = needed(&of_use, &own, &chosen);
    let (mut own, mut steps, mut has_rows) = (own, Vec::new(), false);
    for entry in entries.iter().filter(|entry| chosen.contains(&entry.id)) {
        let kind = entry.kind();
        let belongs = match kind.as_ref() {
            "TABLE" => own.contains(&entry.id),
            "SEQUENCE" => sequences.contains(&name(entry)),
            _ => entry.dependencies().any(|id| own.contains(&id)),
        };
        if !belongs {
            let is_needed = needed.contains(&entry.id);
            steps.extend(is_needed.then_some(Step::Need(entry)));
            continue;
        }
        own.insert(entry.id);
        if AFTER_ROWS.contains(&kind.as_ref()) && !has_rows {
            steps.push(Step::Rows);
            has_rows = true;
        }
        let is_bare = matches!(kind.as_ref(), "TABLE" | "TABLE ATTACH");
        if is_bare || !rows_only {
            steps.push(Step::Make(entry));
        }
    }
    if !has_rows {
        steps.push(Step::Rows);
    }
    Ok(steps)
}

fn refuse_untold(
    tables: &BTreeSet<QualifiedName>,
    told: impl Iterator<Item = QualifiedName>,
) -> anyhow::Result<()> {
    match tables.difference(&told.collect()).next() {
        None => Ok(()),
        Some(table) => Err(anyhow!("pg_dump does not tell how \"{table}\" is made")),
    }
}

/// What tables and what is attached to them need. A sequence is no part of a table because both need a schema.
fn needed(entries: &[TocEntry], own: &BTreeSet<i64>, chosen: &BTreeSet<i64>) -> BTreeSet<i64> {
    let by_id: BTreeMap<i64, &TocEntry> = entries.iter().map(|entry| (entry.id, entry)).collect();
    let attached = entries.iter().filter(|entry| {
        let is_attached = chosen.contains(&entry.id) && entry.kind() != "SEQUENCE";
        is_attached && entry.dependencies().any(|id| own.contains(&id))
    });
    let mut waiting: Vec<i64> = attached
        .map(|entry| entry.id)
        .chain(own.iter().copied())
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if let Some(entry) = by_id.get(&id).filter(|_| found.insert(id)) {
            waiting.extend(entry.dependencies());
        }
    }
    let is_needed = |kind: &str| NEEDED.contains(&kind) || kind == "SEQUENCE";
    found.retain(|id| by_id.get(id).is_some_and(|entry| is_needed(&entry.kind())));
    found
}

/// Entries that a copy may have, as copies: what acts on others, and privileges, are none.
fn entries_of_use(entries: &[TocEntry]) -> Vec<TocEntry> {
    let is_of_use = |entry: &&TocEntry| {
        let kind = entry.kind();
        [BEFORE_ROWS, AFTER_ROWS, NEEDED, &["COMMENT"]]
            .iter()
            .any(|kinds| kinds.contains(&kind.as_ref()))
    };
    entries.iter().filter(is_of_use).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(steps: &[Step<'_>]) -> Vec<String> {
        let shown = steps.iter().map(|step| match step {
            Step::Need(entry) => format!("need {}", entry.id),
            Step::Make(entry) => format!("{}", entry.id),
            Step::Rows => "rows".into(),
        });
        shown.collect()
    }

    fn names(names: &[&str]) -> BTreeSet<QualifiedName> {
        names
            .iter()
            .map(|name| QualifiedName::new("s", name))
            .collect()
    }

    fn shop() -> Vec<TocEntry> {
        let of = TocEntry::of;
        vec![
            of(2, "SCHEMA", "", "s", &[]),
            of(3, "TYPE", "s", "state", &[2]),
            of(13, "FUNCTION", "s", "f()", &[2]),
            of(20, "SEQUENCE", "s", "shared", &[2]),
            of(26, "SEQUENCE", "s", "unrelated", &[2]),
            of(4, "TABLE", "s", "orders", &[2, 3]),
            of(21, "COMMENT", "s", "TABLE orders", &[4]),
            of(22, "COMMENT", "s", "TYPE state", &[3]),
            of(5, "SEQUENCE", "s", "orders_id_seq", &[4]),
            of(18, "SEQUENCE OWNED BY", "s", "orders_id_seq", &[5]),
            of(7, "TABLE", "s", "orders_1", &[2]),
            of(8, "TABLE ATTACH", "s", "orders_1", &[7, 4]),
            of(6, "DEFAULT", "s", "orders id", &[4, 5]),
            of(23, "DEFAULT", "s", "orders no", &[4, 20]),
            of(10, "CONSTRAINT", "s", "orders pk", &[4, 4]),
            of(11, "INDEX", "s", "orders_1_pk", &[7]),
            of(24, "INDEX ATTACH", "s", "orders_1_pk", &[11, 10]),
            of(12, "FK CONSTRAINT", "s", "orders fk", &[4, 10]),
            of(14, "TRIGGER", "s", "orders t", &[4, 13]),
            of(25, "COMMENT", "s", "TRIGGER t", &[14]),
            of(15, "VIEW", "s", "report", &[4]),
            of(16, "ACL", "s", "TABLE orders", &[4]),
        ]
    }

    #[test]
    fn a_table_is_made_with_what_it_needs_and_without_what_acts() {
        let entries = shop();
        let (tables, sequences) = (names(&["orders", "orders_1"]), names(&["orders_id_seq"]));
        assert_eq!(
            shown(&steps(&entries, &tables, &sequences, false).unwrap()),
            [
                "need 2", "need 3", "need 20", "4", "21", "5", "18", "7", "8", "6", "23", "rows",
                "10", "11", "24"
            ]
        );
        assert_eq!(
            shown(&steps(&entries, &tables, &sequences, true).unwrap()),
            ["need 2", "need 3", "need 20", "4", "7", "8", "rows"]
        );
        let error = steps(&entries, &names(&["orders", "other"]), &sequences, false).unwrap_err();
        assert!(error.to_string().contains("\"s.other\""), "{error}");
    }
}
