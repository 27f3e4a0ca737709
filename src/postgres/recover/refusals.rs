//! What is refused before anything is restored or made.

use std::collections::BTreeSet;

use anyhow::{anyhow, ensure};
use tokio_postgres::Client;

use super::rename::LONGEST;
use super::sessions::Said;
use crate::error::with_hint;
use crate::postgres::dump_restore::names::QualifiedName;

const TAKEN: &str = "select n.nspname::text, x.name from (\
        select relnamespace, relname::text from pg_catalog.pg_class \
        union all select typnamespace, typname::text from pg_catalog.pg_type \
        union all select stxnamespace, stxname::text from pg_catalog.pg_statistic_ext) x(namespace, name) \
    join pg_catalog.pg_namespace n on n.oid = x.namespace where n.nspname = any($1)";
const OF_ALL_TABLES: &str =
    "select pubname::text from pg_catalog.pg_publication where puballtables order by 1 limit 1";
/// Since 15.
const HAS_SCHEMAS: &str =
    "select pg_catalog.to_regclass('pg_catalog.pg_publication_namespace') is not null";
/// By the names of schemas, or by what somebody calls a table.
const OF_SCHEMAS: &str = "select p.pubname::text from pg_catalog.pg_publication_namespace m \
    join pg_catalog.pg_publication p on p.oid = m.pnpubid join pg_catalog.pg_namespace n on n.oid = m.pnnspid \
    where n.nspname = any($1) or pg_catalog.starts_with($2, n.nspname || '.') \
    or pg_catalog.starts_with($2, pg_catalog.quote_ident(n.nspname) || '.') \
    or exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid and c.relkind in ('r', 'p') \
        and $2 in (c.relname::text, pg_catalog.quote_ident(c.relname))) order by 1 limit 1";

/// Names that are in use in some schemas.
pub async fn taken(client: &Client, schemas: &[&str]) -> anyhow::Result<BTreeSet<QualifiedName>> {
    let rows = client.query(TAKEN, &[&schemas]).await;
    let rows = rows.said("the names in use cannot be read")?;
    let name = |row: &tokio_postgres::Row| QualifiedName::new(row.get(0), row.get(1));
    Ok(rows.iter().map(name).collect())
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

/// Refuses a name that PostgreSQL would cut.
pub fn refuse_long(name: &str) -> anyhow::Result<()> {
    ensure!(!name.is_empty(), "--as names nothing");
    match name.len() <= LONGEST {
        true => Ok(()),
        false => Err(with_hint(
            anyhow!(
                "\"{name}\" has {} bytes: PostgreSQL's names have {LONGEST} at most",
                name.len()
            ),
            "name a shorter one with --as",
        )),
    }
}

/// Refuses a place where a publication would send the copy to subscribers, which have no such table.
pub async fn refuse_published(
    client: &Client,
    schemas: &[&str],
    called: &str,
) -> anyhow::Result<()> {
    let what = "the publications cannot be read";
    let mut found = client.query_opt(OF_ALL_TABLES, &[]).await.said(what)?;
    let mut of = "all tables".to_string();
    let has_schemas: bool = client.query_one(HAS_SCHEMAS, &[]).await.said(what)?.get(0);
    if found.is_none() && has_schemas {
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&schemas, &called];
        found = client.query_opt(OF_SCHEMAS, &arguments).await.said(what)?;
        of = "all tables of its schema".into();
    }
    match found {
        None => Ok(()),
        Some(row) => Err(with_hint(
            anyhow!(
                "publication \"{}\" is for {of}: its subscribers would fail at the recovered one",
                row.get::<_, &str>(0)
            ),
            "recover it into another database with --into",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_postgresql_would_cut_are_refused() {
        assert!(refuse_long(&"é".repeat(31)).is_ok());
        assert!(refuse_long(&"é".repeat(32)).is_err());
        assert!(refuse_long("").is_err());
    }
}
