//! Makes the recovered table beside the present one, in one transaction: it is there as a whole, or not at all.

use std::collections::BTreeSet;
use std::pin::pin;

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_postgres::{Client, GenericClient, Transaction};

use super::columns::{list, rows_of};
use super::compare::parenthesised;
use super::definitions::Step;
use super::names::QualifiedName;
use super::put_back::ColumnSequence;
use super::rename::{NamedKind, Rename};
use super::report::LeftOut;
use super::sessions::{Said, attempt};
use super::source::{Grant, SourceTable};
use crate::error::with_hint;
use crate::postgres::dump_restore::sql::{literal, quoted};
use crate::postgres::dump_restore::toc::TocEntry;

/// What is made, and of what.
pub struct Load<'a> {
    pub source: &'a SourceTable,
    pub renames: &'a [Rename],
    pub steps: Vec<Step<'a>>,
    pub condition: Option<&'a str>,
    pub rows_only: bool,
}

/// What was made.
#[derive(Debug, Default)]
pub struct Loaded {
    pub rows: u64,
    pub also_made: Vec<String>,
    pub left_out: Vec<LeftOut>,
}

const TAKEN: &str = "select n.nspname::text, x.name from (\
        select relnamespace, relname::text from pg_catalog.pg_class \
        union all select typnamespace, typname::text from pg_catalog.pg_type \
        union all select stxnamespace, stxname::text from pg_catalog.pg_statistic_ext) x(namespace, name) \
    join pg_catalog.pg_namespace n on n.oid = x.namespace where n.nspname = any($1)";
const ROLES: &str = "select rolname::text from pg_catalog.pg_roles";
const SEQUENCES: &str = "select a.attname::text, n.nspname::text, c.relname::text from pg_catalog.pg_depend d \
    join pg_catalog.pg_class c on c.oid = d.objid and c.relkind = 'S' join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    join pg_catalog.pg_sequence s on s.seqrelid = c.oid and s.seqincrement > 0 \
    join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = d.classid \
    and d.refobjid = pg_catalog.to_regclass($1) and d.deptype in ('a', 'i')";

/// Names that are in use in some schemas.
pub async fn taken(client: &Client, schemas: &[&str]) -> anyhow::Result<BTreeSet<QualifiedName>> {
    let rows = client.query(TAKEN, &[&schemas]).await;
    let rows = rows.said("the names in use cannot be read")?;
    let name = |row: &tokio_postgres::Row| QualifiedName::new(row.get(0), row.get(1));
    Ok(rows.iter().map(name).collect())
}

/// Sequences that a table's columns take their values from.
pub async fn sequences_of(
    client: &impl GenericClient,
    table: &QualifiedName,
) -> anyhow::Result<Vec<ColumnSequence>> {
    let rows = client.query(SEQUENCES, &[&table.sql()]).await;
    let rows = rows.said("the table's sequences cannot be read")?;
    let sequence = |row: &tokio_postgres::Row| ColumnSequence {
        column: row.get(0),
        sequence: QualifiedName::new(row.get(1), row.get(2)),
    };
    Ok(rows.iter().map(sequence).collect())
}

impl Load<'_> {
    /// The recovered table's name.
    fn table(&self) -> &QualifiedName {
        self.renames
            .first()
            .map_or(&self.source.name, |root| &root.new)
    }

    /// Makes it in `to`, with the rows that `from` has. Errors: nothing is made.
    pub async fn load(&self, from: &Client, to: &mut Client) -> anyhow::Result<Loaded> {
        let mut loaded = Loaded::default();
        let begun = to.transaction().await;
        let mut transaction = begun.said("no transaction can be begun")?;
        let mut missing = Vec::new();
        for step in &self.steps {
            match step {
                Step::Need(entry) => {
                    need(&mut transaction, entry, &mut loaded, &mut missing).await?
                }
                Step::Make(entry) => self.make(&transaction, entry, &missing).await?,
                Step::Rows => loaded.rows = self.copy(from, &transaction).await?,
            }
        }
        if !self.rows_only {
            self.set_sequences(from, &transaction).await?;
        }
        self.protect(&mut transaction, &mut loaded).await?;
        transaction.commit().await.said("the table is not kept")?;
        Ok(loaded)
    }

    async fn make(
        &self,
        transaction: &Transaction<'_>,
        entry: &TocEntry,
        missing: &[String],
    ) -> anyhow::Result<()> {
        let made = transaction.batch_execute(&entry.definition()).await;
        let what = format!(
            "{} \"{}\" cannot be made",
            entry.kind().to_lowercase(),
            entry.tag()
        );
        made.said(&what).map_err(|error| match missing.is_empty() {
            true => error,
            false => with_hint(
                error,
                format!(
                    "what it needs could not be made, either: {}",
                    missing.join("; ")
                ),
            ),
        })
    }

    /// Copies the rows as text.
    async fn copy(&self, from: &Client, to: &Transaction<'_>) -> anyhow::Result<u64> {
        let (columns, new) = (&self.source.columns, self.table());
        let names = list(columns.stored());
        if names.is_empty() {
            return Ok(0);
        }
        let condition = self.condition.map(parenthesised);
        let condition = condition.map_or(String::new(), |sql| format!(" WHERE {sql}"));
        let rows = rows_of(new, columns.is_partitioned);
        let out = format!("COPY (SELECT {names} FROM {rows}{condition}) TO STDOUT");
        let out = from.copy_out(&out).await;
        let out = out
            .said("the rows cannot be read")
            .map_err(|error| match self.condition {
                Some(_) => with_hint(
                    error,
                    "--where is SQL: outside of pg_catalog, names need their schema",
                ),
                None => error,
            })?;
        let into = format!("COPY {} ({names}) FROM STDIN", new.sql());
        let what = "the rows cannot be written";
        let into = to.copy_in::<_, Bytes>(&into).await.said(what)?;
        let (mut out, mut into) = (pin!(out), pin!(into));
        while let Some(piece) = out.next().await {
            let piece = piece.said("the rows cannot be read to their end")?;
            into.send(piece).await.said(what)?;
        }
        into.finish().await.said(what)
    }

    /// Its sequences go on where they were.
    async fn set_sequences(&self, from: &Client, to: &Transaction<'_>) -> anyhow::Result<()> {
        let sequences = self
            .renames
            .iter()
            .filter(|rename| rename.kind == NamedKind::Sequence);
        for Rename { new, .. } in sequences {
            let what = format!("sequence \"{new}\" cannot be set");
            let sql = format!("SELECT last_value, is_called FROM {}", new.sql());
            let row = from.query_one(&sql, &[]).await.said(&what)?;
            let (value, is_called): (i64, bool) = (row.get(0), row.get(1));
            let sql = format!(
                "SELECT pg_catalog.setval({}, {value}, {is_called})",
                literal(&new.sql())
            );
            to.batch_execute(&sql).await.said(&what)?;
        }
        Ok(())
    }

    /// Owner and privileges, as far as their roles are there. Rows that policies hid stay hidden.
    async fn protect(
        &self,
        transaction: &mut Transaction<'_>,
        loaded: &mut Loaded,
    ) -> anyhow::Result<()> {
        if self.source.has_row_security {
            let sql = format!(
                "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
                self.table().sql()
            );
            let done = transaction.batch_execute(&sql).await;
            done.said("row security cannot be turned on")?;
        }
        let roles = transaction.query(ROLES, &[]).await;
        let roles = roles.said("the roles cannot be read")?;
        let roles: BTreeSet<String> = roles.iter().map(|row| row.get(0)).collect();
        let grants = self
            .source
            .grants
            .iter()
            .filter(|grant| !self.rows_only || !grant.is_sequence);
        let grants: Vec<Wish> = grants
            .filter_map(|grant| Some(Wish::of_grant(grant, self.new_name(&grant.on)?)))
            .collect();
        let tables = self
            .renames
            .iter()
            .filter(|rename| rename.kind == NamedKind::Table);
        let owners = tables.map(|rename| Wish::of_owner(&self.source.owner, &rename.new));
        for wish in grants.into_iter().chain(owners) {
            let why = match wish.role.as_ref().filter(|role| !roles.contains(*role)) {
                Some(role) => Some(format!("there is no role \"{role}\"")),
                None => attempt(transaction, &wish.sql).await?.err(),
            };
            let left = why.map(|why| LeftOut::new(wish.what, &wish.name).because(why));
            let is_new = |left: &LeftOut| !loaded.left_out.contains(left);
            let left = left.filter(is_new);
            loaded.left_out.extend(left);
        }
        Ok(())
    }

    fn new_name(&self, old: &QualifiedName) -> Option<&QualifiedName> {
        let found = self.renames.iter().find(|rename| rename.old == *old);
        found.map(|rename| &rename.new)
    }
}

/// Something that is nice to have.
struct Wish {
    what: &'static str,
    name: String,
    sql: String,
    /// Without it there is nothing to wish for.
    role: Option<String>,
}

impl Wish {
    fn of_owner(owner: &str, table: &QualifiedName) -> Self {
        Self {
            what: "owner",
            name: owner.into(),
            sql: format!("ALTER TABLE {} OWNER TO {}", table.sql(), quoted(owner)),
            role: Some(owner.into()),
        }
    }

    fn of_grant(grant: &Grant, on: &QualifiedName) -> Self {
        let kind = if grant.is_sequence {
            "SEQUENCE"
        } else {
            "TABLE"
        };
        let to = grant.grantee.as_deref();
        let option = if grant.with_option {
            " WITH GRANT OPTION"
        } else {
            ""
        };
        Self {
            what: "privilege",
            name: format!("{} of {}", grant.privilege, to.unwrap_or("PUBLIC")),
            sql: format!(
                "GRANT {} ON {kind} {} TO {}{option}",
                grant.privilege,
                on.sql(),
                to.map_or("PUBLIC".into(), quoted)
            ),
            role: grant.grantee.clone(),
        }
    }
}

/// Makes what the table needs, unless it is there.
async fn need(
    transaction: &mut Transaction<'_>,
    entry: &TocEntry,
    loaded: &mut Loaded,
    missing: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name = format!("{} {}", entry.kind().to_lowercase(), shown(entry));
    if let Some(question) = question(entry) {
        let point = transaction.savepoint("question").await;
        let point = point.said("the transaction is lost")?;
        // In older majors a name of a type that is gone is an error: then the function is gone, too.
        let is_there = match point.query_one(&question, &[]).await {
            Ok(row) => row.get(0),
            Err(error) if error.as_db_error().is_some() => false,
            Err(error) => return Err(error).said("the transaction is lost"),
        };
        point.rollback().await.said("the transaction is lost")?;
        if is_there {
            return Ok(());
        }
    }
    match attempt(transaction, &entry.definition()).await? {
        Ok(()) => loaded.also_made.push(name),
        Err(why) => missing.push(format!("{name}: {why}")),
    }
    Ok(())
}

fn shown(entry: &TocEntry) -> String {
    match entry.schema().is_empty() {
        true => entry.tag().into_owned(),
        false => format!("{}.{}", entry.schema(), entry.tag()),
    }
}

/// Asks whether it is there; `None`: only making it tells.
fn question(entry: &TocEntry) -> Option<String> {
    let (tag, schema) = (entry.tag(), entry.schema());
    let name = QualifiedName::new(&schema, &tag).sql();
    let of = |function: &str, name: &str| {
        format!(
            "SELECT pg_catalog.{function}({}) IS NOT NULL",
            literal(name)
        )
    };
    Some(match entry.kind().as_ref() {
        "SCHEMA" => of("to_regnamespace", &quoted(&tag)),
        "TYPE" | "DOMAIN" | "SHELL TYPE" => of("to_regtype", &name),
        "SEQUENCE" => of("to_regclass", &name),
        "COLLATION" => of("to_regcollation", &name),
        "FUNCTION" | "PROCEDURE" | "AGGREGATE" => {
            let (name, arguments) = tag.split_once('(')?;
            let name = QualifiedName::new(&schema, name).sql();
            of("to_regprocedure", &format!("{name}({arguments}"))
        }
        "EXTENSION" => format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = {})",
            literal(&tag)
        ),
        _ => return None,
    })
}

/// Refuses a name that is taken.
pub fn refuse_taken(new: &QualifiedName, taken: &BTreeSet<QualifiedName>) -> anyhow::Result<()> {
    match taken.contains(new) {
        false => Ok(()),
        true => Err(with_hint(
            anyhow!("there is something called \"{new}\" already"),
            "drop it if it is of an earlier recovery, or name another with --as",
        )),
    }
}

/// Rows of one question that answers with counts.
pub async fn counts(client: &Client, sql: &str, what: &str) -> anyhow::Result<[Option<i64>; 4]> {
    let row = client.query_one(sql, &[]).await.said(what)?;
    Ok([0, 1, 2, 3].map(|at| row.get(at)))
}

/// Runs statements in one transaction; how many rows the first INSERT put in.
pub async fn run(client: &mut Client, statements: &[String]) -> anyhow::Result<u64> {
    let what = "nothing was put back";
    let transaction = client.transaction().await.said(what)?;
    let mut rows = 0;
    for statement in statements {
        let done = transaction.execute(statement, &[]).await.said(what)?;
        if statement.starts_with("INSERT ") {
            rows += done;
        }
    }
    transaction.commit().await.said(what)?;
    Ok(rows)
}
