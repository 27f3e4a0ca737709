//! Whether a dump can be restored as asked, and how: all reasons against it are told before anything is done. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::needs::{DumpContent, RestoreOptions, roles_with_settings};
use super::selection::select;
use super::source::DumpForm;
use super::target::{ExistingDatabase, TargetFacts};
use crate::plain::counted;
use crate::postgres::catalog::marks::LONGEST_NAME;
use crate::postgres::dump::manifest::DatabaseFacts;

/// From this major on `pg_restore` and scripts of `pg_dump` set `transaction_timeout`, which older servers refuse.
const SETS_TRANSACTION_TIMEOUT: u32 = 17;

/// A dump, as far as the decision depends on it.
#[derive(Debug, Clone)]
pub struct DumpFacts<'a> {
    pub content: &'a DumpContent,
    pub form: DumpForm,
    /// Bytes that the database had, or else that the dump has: the new one takes about as much.
    pub bytes: u64,
    /// It holds some tables of its database alone.
    pub is_partial: bool,
    /// Of its database, as a manifest tells them.
    pub facts: Option<&'a DatabaseFacts>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest<'a> {
    pub dump: DumpFacts<'a>,
    pub target: &'a TargetFacts,
    /// The name that the database shall have.
    pub database: &'a str,
    pub options: &'a RestoreOptions,
    /// Programs run elsewhere and see no file of this machine.
    pub is_remote: bool,
    /// Bytes free where the server keeps the database, if that is known.
    pub free: Option<u64>,
}

/// How it will be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    pub database: String,
    /// There is a database of this name: it is kept under another one.
    pub replaces: bool,
    /// The major version of pg_restore or psql.
    pub program_major: u32,
    pub jobs: u32,
    /// Entries of the archive; `None`: all.
    #[serde(skip)]
    pub chosen: Option<BTreeSet<i64>>,
    /// What is worth knowing, and no reason against it.
    pub notes: Vec<String>,
}

/// A reason against it, and the next step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub what: String,
    pub hint: String,
}

/// Decides. The error has at least one reason.
pub fn decide(request: &RestoreRequest<'_>) -> Result<RestorePlan, Vec<Reason>> {
    let mut reasons = Reasons::default();
    let chosen = chosen(request, &mut reasons);
    let program_major = versions(request, &mut reasons);
    of_the_name(request, &mut reasons);
    of_the_user(request, &mut reasons);
    of_the_dump(request, &mut reasons);
    what_is_needed(request, chosen.as_ref(), &mut reasons);
    of_the_space(request, &mut reasons);
    let replaced = request.target.existing.as_ref();
    if let Some(replaced) = replaced {
        of_the_replaced(request, replaced, &mut reasons);
    }
    match reasons.0.is_empty() {
        false => Err(reasons.0),
        true => Ok(RestorePlan {
            database: request.database.to_string(),
            replaces: replaced.is_some(),
            program_major,
            jobs: jobs(request),
            chosen,
            notes: notes(request),
        }),
    }
}

#[derive(Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    fn add(&mut self, what: String, hint: impl Into<String>) {
        let hint = hint.into();
        self.0.push(Reason { what, hint });
    }
}

fn chosen(request: &RestoreRequest<'_>, reasons: &mut Reasons) -> Option<BTreeSet<i64>> {
    let (DumpContent::Archive(toc), tables) = (request.dump.content, &request.options.tables)
    else {
        return None;
    };
    if tables.is_empty() {
        return None;
    }
    match select(&toc.entries, tables) {
        Ok(chosen) => Some(chosen),
        Err(missing) => {
            reasons.add(
                format!("the dump has no table {}", list(&missing)),
                "name it as `pg_restore --list` does: TABLE or SCHEMA.TABLE",
            );
            None
        }
    }
}

/// The major version of the program to use.
fn versions(request: &RestoreRequest<'_>, reasons: &mut Reasons) -> u32 {
    let (target, content) = (request.target.major, request.dump.content);
    let server = content.server_major().unwrap_or_default();
    let program = content.program_major().unwrap_or_default().max(target);
    if server > target {
        reasons.add(
            format!("the dump is of PostgreSQL {server}, the server is of version {target}"),
            format!("restore to a server of version {server} or later"),
        );
    } else if program >= SETS_TRANSACTION_TIMEOUT && target < SETS_TRANSACTION_TIMEOUT {
        reasons.add(
            format!(
                "the dump was made by pg_dump {program}, whose archives no server of version {target} takes without errors"
            ),
            format!("dump again with pg_dump {target}, or restore to a server of version {program} or later"),
        );
    }
    program
}

/// Connections that the data are loaded by: what is read from its beginning to its end takes one.
fn jobs(request: &RestoreRequest<'_>) -> u32 {
    let is_seekable = matches!(request.dump.form, DumpForm::Custom | DumpForm::Directory);
    match is_seekable && !request.is_remote && !request.options.single_transaction {
        true => request.options.jobs,
        false => 1,
    }
}

fn of_the_name(request: &RestoreRequest<'_>, reasons: &mut Reasons) {
    let name = request.database;
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
        reasons.add(
            format!(
                "\"{name}\" can be no database's name: it has {} bytes",
                name.len()
            ),
            format!("choose one of 1 to {LONGEST_NAME} bytes with --as"),
        );
    }
    if ["template0", "template1"].contains(&name) {
        reasons.add(
            format!("\"{name}\" is what all new databases are made of"),
            "restore under another name with --as",
        );
    }
}

fn of_the_user(request: &RestoreRequest<'_>, reasons: &mut Reasons) {
    let target = request.target;
    if target.is_standby {
        reasons.add(
            "the server is a standby".into(),
            "name the primary in `postgresql.dsn`",
        );
    }
    if !target.is_superuser && !target.may_create_databases {
        let hint = "connect as a superuser, or give the role CREATEDB";
        reasons.add(
            format!("role \"{}\" may not create databases", target.user),
            hint,
        );
    }
}

fn of_the_dump(request: &RestoreRequest<'_>, reasons: &mut Reasons) {
    let options = request.options;
    if request.dump.content.has_rows_alone() {
        reasons.add(
            "the dump holds rows without the tables that they belong to".into(),
            "restore one with the schema; load the rows with `pg_restore --data-only --dbname=…`",
        );
    }
    if request.is_remote && request.dump.form == DumpForm::Directory {
        reasons.add(
            "programs run by `dump.command_prefix` cannot read a folder of this machine".into(),
            "dump in custom format, or run Walden where the programs are",
        );
    }
    if request.is_remote && !options.tables.is_empty() {
        reasons.add(
            "programs run by `dump.command_prefix` cannot read the list of chosen tables".into(),
            "restore all of the dump, or run Walden where the programs are",
        );
    }
    let DumpContent::Script(script) = request.dump.content else {
        return;
    };
    if let Some(line) = &script.leads_out {
        reasons.add(
            format!("the script would leave its new database: {line}"),
            "make it without --create; run a dump of a whole cluster with psql by hand",
        );
    }
    let wishes = [
        ("--table", !options.tables.is_empty()),
        ("--schema-only", options.schema_only),
        ("--no-owner", options.no_owner),
        ("--no-privileges", options.no_privileges),
        ("--no-tablespaces", options.no_tablespaces),
        ("--role-map", !options.role_map.is_empty()),
    ];
    for (wish, _) in wishes.iter().filter(|(_, wished)| *wished) {
        reasons.add(
            format!("{wish} is not possible with a plain dump, which is run as it is"),
            "use a dump in custom or directory format",
        );
    }
}

fn what_is_needed(
    request: &RestoreRequest<'_>,
    chosen: Option<&BTreeSet<i64>>,
    reasons: &mut Reasons,
) {
    let (target, options) = (request.target, request.options);
    let (content, facts) = (request.dump.content, request.dump.facts);
    let needs = content.needs(options, chosen, facts);
    // A plain dump is run as it is.
    let or = |first: &str, options: &str| match content {
        DumpContent::Archive(_) => format!("{first}{options}"),
        DumpContent::Script(_) => first.to_string(),
    };
    let globals = "create it, as the dump's globals say";
    let is_missing = |role: &&String| {
        !target
            .roles
            .contains(options.role_map.get(*role).unwrap_or(role))
    };
    let owners: BTreeSet<&String> = needs.owners.iter().filter(is_missing).collect();
    let grantees = needs.grantees.iter().filter(is_missing);
    let grantees: Vec<&String> = grantees.filter(|role| !owners.contains(role)).collect();
    if !owners.is_empty() {
        reasons.add(
            format!(
                "the server has no role {}, which owns objects of the dump",
                list(owners)
            ),
            or(globals, "; or add --role-map OLD=NEW, or --no-owner"),
        );
    }
    if !grantees.is_empty() {
        reasons.add(
            format!(
                "the server has no role {}, to which the dump grants something",
                list(grantees)
            ),
            or(globals, "; or add --role-map OLD=NEW, or --no-privileges"),
        );
    }
    let missing: Vec<&String> = needs.extensions.difference(&target.extensions).collect();
    if !missing.is_empty() {
        reasons.add(
            format!("the server does not have extension {}", list(missing)),
            "install its package on the server's machine",
        );
    }
    let is_missing = |name: &&String| !target.tablespaces.contains_key(*name);
    let missing: Vec<&String> = needs.tablespaces.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        reasons.add(
            format!("the server has no tablespace {}", list(missing)),
            or("create it", ", or add --no-tablespaces"),
        );
    }
}

fn of_the_space(request: &RestoreRequest<'_>, reasons: &mut Reasons) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    // What is chosen is smaller by nobody knows how much.
    let is_all = request.options.tables.is_empty()
        && !request.options.schema_only
        && request.dump.content.has_rows();
    let short = request.free.filter(|free| *free < request.dump.bytes);
    if let Some(free) = short.filter(|_| is_all && !request.options.ignore_free_space) {
        let (free, bytes) = (mib(free), mib(request.dump.bytes));
        reasons.add(
            format!("the new database takes about {bytes} beside the old one, the server's disk has {free} free"),
            "make room; --ignore-free-space tries all the same",
        );
    }
}

fn of_the_replaced(
    request: &RestoreRequest<'_>,
    replaced: &ExistingDatabase,
    reasons: &mut Reasons,
) {
    let name = request.database;
    if request.dump.is_partial || !request.options.tables.is_empty() {
        reasons.add(
            format!("a database with some tables alone would take the place of \"{name}\""),
            "restore them beside it with --as NEWNAME",
        );
    }
    if !request.target.is_superuser && !replaced.is_ours {
        reasons.add(
            format!(
                "database \"{name}\" belongs to another role than \"{}\"",
                request.target.user
            ),
            "connect as its owner or as a superuser",
        );
    }
    if replaced.prepared > 0 {
        reasons.add(
            format!(
                "{} in \"{name}\" cannot be ended",
                counted(replaced.prepared, "prepared transaction")
            ),
            "end them: COMMIT PREPARED or ROLLBACK PREPARED",
        );
    }
}

fn notes(request: &RestoreRequest<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let slots = request
        .target
        .existing
        .iter()
        .flat_map(|replaced| &replaced.slots);
    let slots: Vec<&String> = slots.collect();
    if !slots.is_empty() {
        notes.push(format!(
            "logical replication slot {} stays with the old database: its subscribers get nothing from the new one",
            list(slots)
        ));
    }
    notes.extend(notes_of_roles(request));
    notes
}

fn notes_of_roles(request: &RestoreRequest<'_>) -> Vec<String> {
    let (content, facts) = (request.dump.content, request.dump.facts);
    let (map, settings) = (
        &request.options.role_map,
        roles_with_settings(content, facts),
    );
    let needs = content.needs(&RestoreOptions::default(), None, facts);
    let is_named = |role: &String| {
        [&needs.owners, &needs.grantees, &settings]
            .iter()
            .any(|roles| roles.contains(role))
    };
    let mut notes = Vec::new();
    let unused: Vec<&String> = map.keys().filter(|role| !is_named(role)).collect();
    if !unused.is_empty() {
        notes.push(format!("the dump names no role {}", list(unused)));
    }
    let roles = &request.target.roles;
    let is_missing = |role: &&String| !roles.contains(map.get(*role).unwrap_or(role));
    let missing: Vec<&String> = settings.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        notes.push(format!(
            "what role {} sets in the database is left out: the server has no such role",
            list(missing)
        ));
    }
    notes
}

fn list<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names = names
        .into_iter()
        .map(|name| format!("\"{}\"", name.as_ref()));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
