//! Makes the recovered table beside the present one, in one transaction: it is there as a whole, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_postgres::{Client, GenericClient, Transaction};

use super::columns::{list, rows_of};
use super::compare::parenthesised;
use super::definitions::Step;
use super::need::{self, Needed, shown};
use super::put_back::ColumnSequence;
use super::rename::{NamedKind, Rename};
use super::report::LeftOut;
use super::sessions::{Said, attempt};
use super::source::{Grant, SourceTable};
use crate::error::with_hint;
use crate::postgres::dump_restore::names::QualifiedName;
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
    /// What it needs and could not be made.
    missing: Vec<LeftOut>,
    /// The last values that the table's own sequences had given out, by column.
    pub stood: BTreeMap<String, i64>,
}

/// Who has privileges that nobody granted: present defaults gave them. With the SQL that takes them.
const BY_DEFAULT: &str = "select distinct pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', \
        case c.relkind when 'S' then 'SEQUENCE' else 'TABLE' end, c.oid::pg_catalog.regclass, \
        case a.grantee when 0 then 'PUBLIC' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end) \
    from pg_catalog.unnest($1::text[]) u(name) join pg_catalog.pg_class c on c.oid = pg_catalog.to_regclass(u.name), \
    pg_catalog.aclexplode(c.relacl) a where a.grantee <> c.relowner";
/// Whether this role may do what another may.
const IS_LIKE: &str =
    "select pg_catalog.pg_has_role(oid, 'USAGE') from pg_catalog.pg_roles where rolname = $1";
const ROLES: &str = "select rolname::text from pg_catalog.pg_roles";
const SEQUENCES: &str = "select a.attname::text, n.nspname::text, c.relname::text from pg_catalog.pg_depend d \
    join pg_catalog.pg_class c on c.oid = d.objid and c.relkind = 'S' join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    join pg_catalog.pg_sequence s on s.seqrelid = c.oid and s.seqincrement > 0 \
    join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid \
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refclassid = d.classid \
    and d.refobjid = pg_catalog.to_regclass($1) and d.deptype in ('a', 'i') \
    and a.atttypid in ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)";

/// Sequences that move up and that a table's columns take whole numbers from.
pub async fn sequences_of(
    client: &impl GenericClient,
    table: &QualifiedName,
) -> anyhow::Result<Vec<ColumnSequence>> {
    let rows = client.query(SEQUENCES, &[&table.sql()]).await;
    let rows = rows.said("the table's sequences cannot be read")?;
    let sequence = |row: &tokio_postgres::Row| ColumnSequence {
        column: row.get(0),
        sequence: QualifiedName::new(row.get(1), row.get(2)),
        stood: None,
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
        for step in &self.steps {
            match step {
                Step::Need(entry) => need(from, &mut transaction, entry, &mut loaded).await?,
                Step::Make(entry) => self.make(&mut transaction, entry, &loaded.missing).await?,
                Step::Rows => loaded.rows = self.copy(from, &transaction).await?,
            }
        }
        if !self.rows_only {
            self.set_sequences(from, &transaction).await?;
        }
        for served in sequences_of(from, self.table()).await? {
            let (value, is_called) = stand(from, &served.sequence).await?;
            let given = value - i64::from(!is_called);
            loaded.stood.insert(served.column, given);
        }
        loaded.left_out.append(&mut loaded.missing);
        self.protect(&mut transaction, &mut loaded).await?;
        transaction.commit().await.said("the table is not kept")?;
        Ok(loaded)
    }

    async fn make(
        &self,
        transaction: &mut Transaction<'_>,
        entry: &TocEntry,
        missing: &[LeftOut],
    ) -> anyhow::Result<()> {
        let made = transaction.batch_execute(&entry.definition()).await;
        let what = format!(
            "{} \"{}\" cannot be made",
            entry.kind().to_lowercase(),
            entry.tag()
        );
        let missing = missing
            .iter()
            .map(|left| format!("{} {}: {}", left.what, left.name, left.why));
        let missing: Vec<String> = missing.collect();
        made.said(&what).map_err(|error| match missing.is_empty() {
            true => error,
            false => with_hint(
                error,
                format!(
                    "what it needs could not be made, either: {}",
                    missing.join("; ")
                ),
            ),
        })?;
        self.give(transaction, entry).await
    }

    /// Gives it to the table's owner at once: functions of indexes and the like run with the owner's rights. Where this role
    /// may not do as the owner does, it comes last.
    async fn give(&self, to: &mut Transaction<'_>, made: &TocEntry) -> anyhow::Result<()> {
        let (kind, owner) = (made.kind(), &self.source.owner);
        if !matches!(kind.as_ref(), "TABLE" | "SEQUENCE" | "STATISTICS") {
            return Ok(());
        }
        let is_like = to.query_opt(IS_LIKE, &[owner]).await;
        let is_like = is_like.said("the roles cannot be read")?;
        if is_like.is_some_and(|row| row.get(0)) {
            let name = QualifiedName::new(&made.schema(), &made.tag()).sql();
            let sql = format!("ALTER {kind} {name} OWNER TO {}", quoted(owner));
            // Of a table that stays without, it is told at the end; an identity's sequence has its table's.
            let _ = attempt(to, &sql).await?;
        }
        Ok(())
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
            set_sequence(from, to, new).await?;
        }
        Ok(())
    }

    /// Owner and privileges, as far as their roles are there. Rows that policies hid stay hidden.
    async fn protect(
        &self,
        transaction: &mut Transaction<'_>,
        loaded: &mut Loaded,
    ) -> anyhow::Result<()> {
        self.take_defaults(transaction).await?;
        let secure = self.source.row_security.iter();
        for table in secure.filter_map(|name| self.new_name(name)) {
            let sql = format!(
                "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY",
                table.sql()
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

    /// Nobody has privileges but who had them.
    async fn take_defaults(&self, to: &Transaction<'_>) -> anyhow::Result<()> {
        let what = "privileges that come by default cannot be revoked";
        let has_them = |kind| matches!(kind, NamedKind::Table | NamedKind::Sequence);
        let made = self.renames.iter().filter(|rename| has_them(rename.kind));
        let made: Vec<String> = made.map(|rename| rename.new.sql()).collect();
        for row in to.query(BY_DEFAULT, &[&made]).await.said(what)? {
            to.batch_execute(row.get(0)).await.said(what)?;
        }
        Ok(())
    }

    fn new_name(&self, old: &QualifiedName) -> Option<&QualifiedName> {
        let found = self.renames.iter().find(|rename| rename.old == *old);
        found.map(|rename| &rename.new)
    }
}

/// Makes what the table needs, unless it is there.
async fn need(
    from: &Client,
    to: &mut Transaction<'_>,
    entry: &TocEntry,
    loaded: &mut Loaded,
) -> anyhow::Result<()> {
    match need::make(to, entry).await? {
        Needed::IsThere => {}
        Needed::Missing(left) => loaded.missing.push(left),
        Needed::Made(left) => {
            let kind = entry.kind().to_lowercase();
            loaded.also_made.push(format!("{kind} {}", shown(entry)));
            loaded.left_out.extend(left);
            if kind == "sequence" {
                let name = QualifiedName::new(&entry.schema(), &entry.tag());
                set_sequence(from, to, &name).await?;
            }
        }
    }
    Ok(())
}

/// A sequence's last value, and whether it was given out.
async fn stand(from: &Client, sequence: &QualifiedName) -> anyhow::Result<(i64, bool)> {
    let sql = format!("SELECT last_value, is_called FROM {}", sequence.sql());
    let row = from.query_one(&sql, &[]).await;
    let row = row.said(&format!("sequence \"{sequence}\" cannot be read"))?;
    Ok((row.get(0), row.get(1)))
}

/// Has a sequence go on where it was.
async fn set_sequence(
    from: &Client,
    to: &Transaction<'_>,
    sequence: &QualifiedName,
) -> anyhow::Result<()> {
    let (value, is_called) = stand(from, sequence).await?;
    let sql = format!(
        "SELECT pg_catalog.setval({}, {value}, {is_called})",
        literal(&sequence.sql())
    );
    let done = to.batch_execute(&sql).await;
    done.said(&format!("sequence \"{sequence}\" cannot be set"))
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

/// Rows of one question that answers with counts.
pub async fn counts(client: &Client, sql: &str, what: &str) -> anyhow::Result<[Option<i64>; 4]> {
    let row = client.query_one(sql, &[]).await.said(what)?;
    Ok([0, 1, 2, 3].map(|at| row.get(at)))
}

/// Runs statements in one transaction; how many rows went in. Errors: nothing is done; also where fewer went in than are missing.
pub async fn run(client: &mut Client, statements: &[String], missing: u64) -> anyhow::Result<u64> {
    let what = "nothing was put back";
    let transaction = client.transaction().await.said(what)?;
    // Who waits for a lock of the present table keeps others waiting.
    let patience = transaction.batch_execute("SET LOCAL lock_timeout = '5s'");
    patience.await.said(what)?;
    let mut rows = 0;
    for statement in statements {
        let answer = transaction.query(statement, &[]).await.said(what)?;
        if let Some(row) = answer.first().filter(|_| statement.starts_with("WITH ")) {
            rows = row.get::<_, i64>(0).unsigned_abs();
            refuse_fewer(rows, missing)?;
        }
    }
    transaction.commit().await.said(what)?;
    Ok(rows)
}

fn refuse_fewer(rows: u64, missing: u64) -> anyhow::Result<()> {
    match rows < missing {
        false => Ok(()),
        true => Err(with_hint(
            anyhow!("nothing was put back: only {rows} of {missing} missing rows went in"),
            "does a trigger of the table keep rows out, or did somebody put them in meanwhile?",
        )),
    }
}
