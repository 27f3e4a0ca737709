//! The columns of a table, and which of them tell its rows apart.

use serde::Serialize;
use tokio_postgres::GenericClient;

use super::sessions::Said;
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::dump_restore::sql::quoted;

/// What a session may see of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableColumns {
    pub is_partitioned: bool,
    pub columns: Vec<Column>,
    /// Columns of a key that tells all rows apart, none of them ever null; empty: there is none. The best comes first.
    pub keys: Vec<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    pub name: String,
    /// With its length and the like.
    pub data_type: String,
    /// Without: a cast to it cuts nothing off.
    pub bare_type: String,
    /// The system's own `=` of this type says what is the same: no collation, and no type of somebody's own.
    pub is_plain: bool,
    pub is_bytes: bool,
    pub is_generated: bool,
    pub is_identity: bool,
}

const TABLE: &str = "select c.oid, c.relkind = 'p' from pg_catalog.pg_class c \
    where c.oid = pg_catalog.to_regclass($1) and c.relkind in ('r', 'p')";
const COLUMNS: &str = "select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
        n.nspname = 'pg_catalog' and a.attcollation = 0 and t.typtype = 'b', a.atttypid = 'bytea'::pg_catalog.regtype, \
        a.attgenerated <> '', a.attidentity <> '', pg_catalog.format_type(a.atttypid, -1) \
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid \
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace \
    where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum";
/// Primary keys first, then short ones.
const KEYS: &str = "select array(select a.attname::text from pg_catalog.unnest(i.indkey[:i.indnkeyatts - 1]) with ordinality k(n, at) \
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n order by k.at) \
    from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_am m on m.oid = c.relam \
    where i.indrelid = $1 and m.amname = 'btree' and i.indisunique and i.indisvalid and i.indimmediate \
    and i.indpred is null and i.indexprs is null \
    and not exists (select from pg_catalog.unnest(i.indkey[:i.indnkeyatts - 1]) k(n) \
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n where not a.attnotnull) \
    order by i.indisprimary desc, i.indnkeyatts, i.indexrelid";

/// Asks for a table; `None`: there is none of this name.
pub async fn read(
    client: &impl GenericClient,
    name: &QualifiedName,
) -> anyhow::Result<Option<TableColumns>> {
    let what = format!("the columns of \"{name}\" cannot be read");
    let Some(row) = client.query_opt(TABLE, &[&name.sql()]).await.said(&what)? else {
        return Ok(None);
    };
    let (oid, is_partitioned): (u32, bool) = (row.get(0), row.get(1));
    let columns = client.query(COLUMNS, &[&oid]).await.said(&what)?;
    let keys = client.query(KEYS, &[&oid]).await.said(&what)?;
    Ok(Some(TableColumns {
        is_partitioned,
        columns: columns
            .iter()
            .map(|row| Column {
                name: row.get(0),
                data_type: row.get(1),
                is_plain: row.get(2),
                is_bytes: row.get(3),
                is_generated: row.get(4),
                is_identity: row.get(5),
                bare_type: row.get(6),
            })
            .collect(),
        keys: keys.iter().map(|row| row.get(0)).collect(),
    }))
}

impl TableColumns {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns that are not made of others.
    pub fn stored(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_generated)
    }
}

/// A table as a source of rows: of itself and its partitions alone.
pub fn rows_of(name: &QualifiedName, is_partitioned: bool) -> String {
    match is_partitioned {
        true => name.sql(),
        false => format!("ONLY {}", name.sql()),
    }
}

/// Names in a list.
pub fn list<'a>(names: impl IntoIterator<Item = &'a Column>) -> String {
    let names: Vec<String> = names
        .into_iter()
        .map(|column| quoted(&column.name))
        .collect();
    names.join(", ")
}
