//! Writes a canary on the source. Nothing there waits for it, and it waits for nothing long.

use anyhow::anyhow;
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Transaction};

use super::canary::{About, Canary};
use super::canary_table::{Form, MAKE, OPTIONS, form};
use super::database::words;
use crate::error::with_hint;
use crate::postgres::dump::digest::Hex;
use crate::postgres::replication::{ConnInfo, SqlClient, sql_client};

/// Rows that the table keeps.
const MOST: i64 = 1000;
/// A standby that does not answer does not hold it up. Whoever waited for another sees what that one wrote.
const LIMITS: &str = "-c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off -c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=60s -c synchronous_commit=local -c row_security=off";
/// One at a time writes, also the first one: "walden".
const ALONE: &str = "select pg_advisory_xact_lock(131277405218158)";
const LAST: &str = "select digest from only walden.canary order by id desc limit 1";
const NEXT: &str = "select nextval(pg_get_serial_sequence('walden.canary', 'id'))::text,
    to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), $1::text::jsonb::text";
const WRITE: &str = "insert into walden.canary (id, written_at, value, about, digest) overriding system value
    values ($1::text::bigint, $2::text::timestamptz, decode($3::text, 'hex'), $4::text::jsonb, $5::text)";
const REMOVE: &str = "delete from only walden.canary where id <= (select id from only walden.canary order by id desc offset $1 limit 1)";

/// A canary that was written.
#[derive(Debug, Serialize)]
pub struct WrittenCanary {
    pub database: String,
    pub id: String,
    pub at: String,
    pub digest: String,
    /// The table was made for it.
    pub is_first: bool,
}

/// Writes one into a database of the server, and makes the table if it is not there. Errors: it is a standby, or rights are missing; nothing is
/// written.
pub async fn write(mut info: ConnInfo, database: &str) -> anyhow::Result<WrittenCanary> {
    info.database = database.into();
    let mut session = sql_client(&info, &format!("{OPTIONS} {LIMITS}")).await?;
    refuse_standby(&session).await?;
    let (canary, is_first) = in_transaction(&mut session).await.map_err(|error| {
        error.context(format!("no canary is written into database \"{database}\""))
    })?;
    Ok(WrittenCanary {
        database: database.into(),
        id: canary.id,
        at: canary.at,
        digest: canary.digest,
        is_first,
    })
}

/// A standby takes no rows.
pub async fn refuse_standby(session: &SqlClient) -> anyhow::Result<()> {
    let row = session.client.query_one("select pg_is_in_recovery()", &[]);
    let is_standby: bool = row.await.map_err(|error| told(&error))?.get(0);
    if is_standby {
        let error = anyhow!("{} is a standby", session.server);
        return Err(with_hint(error, "lead `postgresql.dsn` to the primary"));
    }
    Ok(())
}

async fn in_transaction(session: &mut SqlClient) -> anyhow::Result<(Canary, bool)> {
    let begun = session.client.transaction().await;
    let transaction = begun.map_err(|error| told(&error))?;
    let is_first = prepare(&transaction).await?;
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let written = insert(&transaction, random).await;
    let written = written.map_err(|error| told(&error))?;
    transaction.commit().await.map_err(|error| told(&error))?;
    Ok((written, is_first))
}

/// Makes the table if it is not there. With rights that others do not have, only one is used that no other role can change.
async fn prepare(transaction: &Transaction<'_>) -> anyhow::Result<bool> {
    let locked = transaction.execute(ALONE, &[]).await;
    locked.map_err(|error| told(&error))?;
    let found = form(transaction).await.map_err(|error| told(&error))?;
    let is_first = found == Form::Absent;
    if is_first {
        let made = transaction.batch_execute(MAKE).await;
        made.map_err(|error| told(&error))?;
    }
    // From here on nobody changes it.
    let locked = transaction.batch_execute("lock table only walden.canary in row exclusive mode");
    locked.await.map_err(|error| told(&error))?;
    match form(transaction).await.map_err(|error| told(&error))? {
        Form::Made { is_safe: true } => Ok(is_first),
        Form::Made { is_safe: false } => {
            let error = anyhow!("schema \"walden\" or its table belongs to another role");
            let hint = "give both to this role, or drop them";
            Err(with_hint(error, hint))
        }
        Form::Absent | Form::Other => {
            let error = anyhow!("walden.canary is not the table that Walden makes");
            let hint = "rename it, or name another database in `drill.canary`";
            Err(with_hint(error, hint))
        }
    }
}

async fn insert(transaction: &Transaction<'_>, random: [u8; 32]) -> Result<Canary, Error> {
    let last = transaction.query_opt(LAST, &[]).await?;
    let about = About {
        walden: env!("CARGO_PKG_VERSION").into(),
        previous: last.map(|row| row.get(0)),
    };
    let about = serde_json::to_string(&about).unwrap_or_default();
    let next = transaction.query_one(NEXT, &[&about]).await?;
    let mut canary = Canary {
        id: next.get(0),
        at: next.get(1),
        value: Hex(random).to_string(),
        about: next.get(2),
        digest: String::new(),
    };
    canary.digest = canary.digested();
    let Canary {
        id,
        at,
        value,
        about,
        digest,
    } = &canary;
    transaction
        .execute(WRITE, &[id, at, value, about, digest])
        .await?;
    transaction.execute(REMOVE, &[&MOST]).await?;
    Ok(canary)
}

/// What the server said, with what helps.
pub fn told(error: &Error) -> anyhow::Error {
    let hint = match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "as a superuser: GRANT CREATE ON DATABASE … TO …; of tables: GRANT SELECT"
        }
        Some(&SqlState::LOCK_NOT_AVAILABLE) => "who holds the lock? try again",
        _ => return anyhow!("{}", words(error)),
    };
    with_hint(anyhow!("{}", words(error)), hint)
}
