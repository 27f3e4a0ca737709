//! The new database takes the old one's place: two renames in one transaction, so that there is always one of that name, and
//! a process that dies in the middle changes nothing.
//!
//! Renaming takes the database's lock, for which new sessions wait, and then waits five seconds for those that are there.
//! Meanwhile another session ends these. So nobody sneaks in, and nothing has to be set that would have to be taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::properties::DatabaseProperties;
use super::sql::{literal, literals, quoted};
use super::target::ask;
use crate::error::{find, one_line, with_hint};
use crate::postgres::catalog::marks::{Mark, without_mark};
use crate::postgres::replication::{Connection, ServerError};

/// SQLSTATE of a database in which somebody is.
const OBJECT_IN_USE: &str = "55006";
/// How often ending the sessions is tried; each time for the five seconds that the server waits.
const ATTEMPTS: u32 = 12;
const EVERY: Duration = Duration::from_millis(50);

/// The old database, and how it is kept.
#[derive(Debug, Clone)]
pub struct Replaced {
    pub mark: Mark,
    pub comment: Option<String>,
}

/// Takes the old database out of its place, within a transaction that stays open; the number of sessions that were ended.
/// Until [`put_in_place`] nothing is changed for anybody.
pub async fn take_out(
    guard: &mut Connection,
    helper: &mut Connection,
    building: &str,
    replaced: Option<&Replaced>,
) -> anyhow::Result<u64> {
    let mut ended = BTreeSet::new();
    let Some(Replaced { mark, comment }) = replaced else {
        guard.simple_query("BEGIN").await?;
        return Ok(0);
    };
    let (old, kept) = (quoted(&mark.of), quoted(&mark.name));
    let comment = literal(&mark.beside(comment.as_deref().and_then(without_mark)));
    let statement = format!(
        "BEGIN; SET LOCAL lock_timeout = '60s'; ALTER DATABASE {old} RENAME TO {kept}; \
         COMMENT ON DATABASE {kept} IS {comment}"
    );
    let both = [mark.of.as_str(), building];
    for _ in 0..ATTEMPTS {
        let renamed = while_ending(guard, helper, &statement, &both, &mut ended).await;
        let Err(error) = renamed else {
            return Ok(ended.len() as u64);
        };
        if !is_in_use(&error) {
            return Err(error).context(format!("cannot rename database \"{}\"", mark.of));
        }
        guard.simple_query("ROLLBACK").await?;
    }
    let error = anyhow!("connections to database \"{}\" do not end", mark.of);
    Err(with_hint(
        error,
        "see pg_stat_activity for who holds on to it",
    ))
}

/// Gives the new database its name and ends the transaction of [`take_out`]. After an error the session is of no more use:
/// only another one can tell whether the transaction was carried out.
pub async fn put_in_place(
    guard: &mut Connection,
    helper: &mut Connection,
    building: &str,
    database: &str,
    properties: &DatabaseProperties,
) -> anyhow::Result<()> {
    let (from, to) = (quoted(building), quoted(database));
    let comment = match &properties.comment {
        Some(comment) => comment.clone(),
        None => format!("COMMENT ON DATABASE {from} IS NULL"),
    };
    let statement = format!("{comment}; ALTER DATABASE {from} RENAME TO {to}; COMMIT");
    let renamed = while_ending(guard, helper, &statement, &[building], &mut BTreeSet::new()).await;
    renamed.with_context(|| format!("cannot give the new database the name \"{database}\""))
}

fn is_in_use(error: &anyhow::Error) -> bool {
    find::<ServerError>(error).is_some_and(|error| error.code == OBJECT_IN_USE)
}

/// Runs a statement, and meanwhile ends whoever is in these databases.
async fn while_ending(
    guard: &mut Connection,
    helper: &mut Connection,
    statement: &str,
    databases: &[&str],
    ended: &mut BTreeSet<u32>,
) -> anyhow::Result<()> {
    let running = guard.simple_query(statement);
    tokio::pin!(running);
    loop {
        tokio::select! {
            ran = &mut running => return ran.map(drop),
            () = tokio::time::sleep(EVERY) => {}
        }
        // Who may not be ended is told by the statement's own failure.
        match end_sessions(helper, databases).await {
            Ok(pids) => ended.extend(pids),
            Err(error) => tracing::debug!("cannot end sessions: {}", one_line(&error)),
        }
    }
}

/// Ends the sessions in some databases; autovacuum gives way by itself.
async fn end_sessions(sql: &mut Connection, databases: &[&str]) -> anyhow::Result<Vec<u32>> {
    // Materialized, so that the planner does not end sessions before it looks where they are.
    let question = format!(
        "WITH there AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE datname IN ({}) AND pid <> pg_backend_pid() \
         AND backend_type NOT IN ('autovacuum worker', 'parallel worker')) SELECT pid, pg_terminate_backend(pid) FROM there",
        literals(databases.iter().copied())
    );
    let found = ask(sql, &question).await?;
    (0..found.rows.len())
        .map(|row| Ok(found.parse(row, "pid")?))
        .collect()
}
