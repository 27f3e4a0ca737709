//! The table `walden.canary` on a server: whether it is there as Walden made it, and its rows.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, GenericClient, Row};

use super::canary::{Canary, Expected, SeenCanary, judge};
use super::checks::{check, refused};
use super::database::{Door, words};
use crate::error::one_line;
use crate::evidence::record::{Check, Verdict};

/// How it is made.
pub const MAKE: &str = "create schema if not exists walden;
    create table walden.canary (id bigint generated always as identity primary key, written_at timestamptz not null,
        value bytea not null, about jsonb not null, digest text not null);
    comment on table walden.canary is 'written by `walden drill canary`, read by drills'";
/// Names are looked for where the system has them, whoever made others.
pub const OPTIONS: &str = "-c search_path=";
/// Its form, and whether nobody but a superuser or this role can change that.
const FORM: &str = "select c.relkind::text || ' ' || (select string_agg(a.attname || ' ' || format_type(a.atttypid, null), ', ' order by a.attnum)
        from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
    (select bool_and(r.rolsuper or r.rolname = current_user) from pg_roles r where r.oid in (c.relowner, n.nspowner))
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'walden' and c.relname = 'canary'";
const MADE: &str =
    "r id bigint, written_at timestamp with time zone, value bytea, about jsonb, digest text";
const ROWS: &str = "select id::text, to_char(written_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), encode(value, 'hex'), about::text, digest
    from only walden.canary order by id";

/// What is called `walden.canary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Absent,
    /// As Walden makes it. `is_safe`: no other role can have it run something.
    Made {
        is_safe: bool,
    },
    Other,
}

/// Looks at what there is.
pub async fn form(client: &impl GenericClient) -> Result<Form, Error> {
    let row = client.query_opt(FORM, &[]).await?;
    Ok(row.map_or(Form::Absent, |row| {
        match row.get::<_, Option<String>>(0).as_deref() {
            Some(MADE) => Form::Made {
                is_safe: row.get::<_, Option<bool>>(1) == Some(true),
            },
            _ => Form::Other,
        }
    }))
}

/// What a restored server has in a database.
pub async fn look(
    door: &Door,
    database: &str,
    expected: &Expected,
) -> (Vec<Check>, Option<SeenCanary>) {
    match read(door, database).await {
        Ok(rows) => judge(database, &rows, expected),
        Err(failed) => (vec![*failed], None),
    }
}

async fn read(door: &Door, database: &str) -> Result<Vec<Canary>, Box<Check>> {
    let told = |words: String| Box::new(refused("canary", words));
    let door = Door {
        options: format!("{} {OPTIONS}", door.options),
        ..door.clone()
    };
    let session = match door.open(database).await {
        Ok(session) => session,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(told(one_line(&error))),
    };
    match form(&session.client).await {
        Ok(Form::Made { .. }) => (),
        Ok(Form::Absent) => return Ok(Vec::new()),
        Ok(Form::Other) => {
            let seen = "walden.canary is not the table that Walden makes".into();
            return Err(Box::new(check("canary", Verdict::Failed, seen)));
        }
        Err(error) => return Err(told(words(&error))),
    }
    let rows = session.client.query(ROWS, &[]).await;
    let rows = rows.map_err(|error| told(words(&error)))?;
    Ok(rows.iter().map(canary).collect())
}

fn is_absent(error: &anyhow::Error) -> bool {
    let told = error.downcast_ref::<Error>().and_then(Error::code);
    told == Some(&SqlState::INVALID_CATALOG_NAME)
}

fn canary(row: &Row) -> Canary {
    let text = |at: usize| row.get::<_, Option<String>>(at).unwrap_or_default();
    Canary {
        id: text(0),
        at: text(1),
        value: text(2),
        about: text(3),
        digest: text(4),
    }
}
