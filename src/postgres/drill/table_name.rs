//! A table by its name, on any server.

use tokio_postgres::{Client, Error};

/// Names as they are come before those that mean them in SQL. Rows of foreign tables are in no backup.
const FIND: &str = "select c.oid, n.nspname::text || '.' || c.relname::text,
        pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm')
        and $1 in (n.nspname::text || '.' || c.relname::text, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname))
    order by n.nspname::text || '.' || c.relname::text <> $1, c.oid limit 1";
/// Of two servers that started at the same microsecond, one is the other.
const STARTED: &str = "extract(epoch from pg_catalog.pg_postmaster_start_time())::float8";

/// A table that there is.
#[derive(Debug)]
pub struct Found {
    pub oid: u32,
    /// For people.
    pub name: String,
    /// For SQL.
    pub sql: String,
}

/// Its rows, and whose they are.
#[derive(Debug)]
pub struct Counted {
    pub count: u64,
    started: f64,
}

impl Counted {
    /// The rows of another server. Errors: it is none.
    pub fn beside(&self, other: &Self) -> Result<u64, String> {
        match self.started == other.started {
            true => Err("`postgresql.dsn` leads to the restored server itself".into()),
            false => Ok(other.count),
        }
    }
}

/// Finds a table. From then on the session finds nothing of others without a schema.
pub async fn find(client: &Client, name: &str) -> Result<Option<Found>, Error> {
    client.batch_execute("set search_path = ''").await?;
    let row = client.query_opt(FIND, &[&name]).await?;
    Ok(row.map(|row| Found {
        oid: row.get(0),
        name: row.get(1),
        sql: row.get(2),
    }))
}

impl Found {
    /// Counts its rows.
    pub async fn count(&self, client: &Client) -> Result<Counted, Error> {
        let sql = format!("select count(*), {STARTED} from {}", self.sql);
        let row = client.query_one(&sql, &[]).await?;
        Ok(Counted {
            count: row.get::<_, i64>(0).unsigned_abs(),
            started: row.get(1),
        })
    }
}
