//! Counts the rows of tables, on the source and in a restored server alike.

use std::time::Instant;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, GenericClient};

use super::checks::{check, refused};
use super::counts::{COUNTS_OF, Content, Counts, Found};
use super::database::{Door, words};
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::tokens;
use crate::postgres::replication::session::{SAME_TEXT, options};

/// A table, with all its parts, whose rows are in WAL.
const FORM: &str = "select c.relkind = 'p', c.oid, (select string_agg(t.relid::oid::text, ' ' order by t.relid::oid) from pg_partition_tree(c.oid) t)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1::text and c.relname = $2::text
        and c.relkind in ('r', 'm', 'p') and c.relpersistence = 'p' and not exists (select 1 from pg_partition_tree(c.oid) t
            join pg_class p on p.oid = t.relid where p.relkind not in ('r', 'p') or p.relpersistence <> 'p')";
/// Transactions that a snapshot does not show and that are committed: in it under way, or begun after all that it knows to be over.
const UNSEEN: &str = "with known as (select $1::text::pg_snapshot as seen, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next),
    open as (select pg_snapshot_xip(seen)::text::bigint as xid from known
        union all select generate_series(pg_snapshot_xmax(seen)::text::bigint, next - 1) from known)
    select count(*) from open, known where case when xid < next then pg_xact_status(xid::text::xid8) = 'committed' end";

/// The table that SQL names so. `None`: it is no name with a schema.
pub fn table(text: &str) -> Option<QualifiedName> {
    let (tokens, is_whole) = tokens(text);
    match &tokens[..] {
        [schema, dot, name] if is_whole && dot.text == "." => {
            Some(QualifiedName::new(&schema.name()?, &name.name()?))
        }
        _ => None,
    }
}

/// A table that can be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Countable {
    pub is_partitioned: bool,
    oid: u32,
    /// Its partitions.
    parts: Option<String>,
}

/// What a name means. `None`: nothing, or something with rows that no WAL has.
pub async fn form(
    client: &impl GenericClient,
    table: &QualifiedName,
) -> Result<Option<Countable>, Error> {
    let row = client
        .query_opt(FORM, &[&table.schema, &table.name])
        .await?;
    Ok(row.map(|row| Countable {
        is_partitioned: row.get(0),
        oid: row.get(1),
        parts: row.get(2),
    }))
}

/// Counts. A row is made text by its own type alone: of a cast somebody else could be the author.
pub async fn content(
    client: &impl GenericClient,
    table: &QualifiedName,
    is_partitioned: bool,
) -> Result<Content, Error> {
    let (only, name) = (if is_partitioned { "" } else { "only " }, table.sql());
    let sql = format!(
        "select count(*), coalesce(sum(hashtextextended(format('%s', r.*) collate \"C\", 0)), 0)::text from {only}{name} as r"
    );
    let row = client.query_one(&sql, &[]).await?;
    Ok(Content {
        rows: row.get::<_, i64>(0).unsigned_abs(),
        sum: row.get(1),
    })
}

/// Compares a restored server with counts, until then.
pub async fn compare(door: &Door, counts: &Counts, until: Instant) -> Vec<Check> {
    let name = format!("{COUNTS_OF} \"{}\"", counts.database);
    let door = Door {
        options: format!("{} {}", door.options, options(&[&SAME_TEXT])),
        ..door.clone()
    };
    let session = match door.open(&counts.database).await {
        Ok(session) => session,
        Err(error) => return vec![refused(&name, one_line(&error))],
    };
    let client = &session.client;
    let unseen: i64 = match client.query_one(UNSEEN, &[&counts.snapshot]).await {
        Ok(row) => row.get(0),
        Err(error) => return vec![check(&name, Verdict::Failed, words(&error))],
    };
    let mut found = Vec::new();
    for counted in &counts.tables {
        let table = QualifiedName::new(&counted.schema, &counted.name);
        found.push(match Instant::now() < until {
            true => look(client, &table).await,
            false => Found::Late,
        });
    }
    counts.judge(&found, unseen)
}

async fn look(client: &impl GenericClient, table: &QualifiedName) -> Found {
    let looked = async {
        Ok(match form(client, table).await? {
            Some(form) => Found::Content(content(client, table, form.is_partitioned).await?),
            None => Found::Absent,
        })
    };
    looked.await.unwrap_or_else(|error: Error| {
        let late = [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE];
        match error.code() {
            Some(code) if late.contains(code) => Found::Late,
            _ => Found::Refused(words(&error)),
        }
    })
}
