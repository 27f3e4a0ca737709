//! Sessions of a recovery: what they depend on is set, whatever server, database or role set otherwise.

use anyhow::{Context, anyhow};
use tokio_postgres::{Client, Error, Transaction};

use crate::error::with_hint;
use crate::postgres::replication::session::{SAME_TEXT, options};

/// Nothing ends it.
const ENDLESS: [(&str, &str); 2] = [
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];
/// Nothing of the source runs in the private server.
const PRIVATE: [(&str, &str); 2] = [
    ("session_replication_role", "replica"),
    ("default_transaction_read_only", "off"),
];
/// A lock of the present must not keep others waiting behind this for ever.
const PRESENT: [(&str, &str); 2] = [("lock_timeout", "60s"), ("check_function_bodies", "off")];

/// Settings of sessions with the private server.
pub fn private() -> String {
    options(&[&SAME_TEXT, &ENDLESS, &PRIVATE])
}

/// Settings of sessions with the server that the table goes to.
pub fn present() -> String {
    options(&[&SAME_TEXT, &ENDLESS, &PRESENT])
}

/// Sets what later majors add. A server that works on for nobody finds that out.
pub async fn set_of_later_majors(client: &Client) -> anyhow::Result<()> {
    let sql = "select pg_catalog.set_config(name, case name when 'client_connection_check_interval' then '10s' else '0' end, false) \
               from pg_catalog.pg_settings \
               where name in ('idle_session_timeout', 'transaction_timeout', 'client_connection_check_interval')";
    client
        .query(sql, &[])
        .await
        .said("the session is not set")?;
    Ok(())
}

/// Errors of a server in its own words, with its detail and hint.
pub trait Said<T> {
    fn said(self, what: &str) -> anyhow::Result<T>;
}

impl<T> Said<T> for Result<T, Error> {
    fn said(self, what: &str) -> anyhow::Result<T> {
        self.map_err(|error| told(&error))
            .with_context(|| what.to_string())
    }
}

fn told(error: &Error) -> anyhow::Error {
    let error_with_hint = |words: String, hint: Option<&str>| match hint {
        Some(hint) => with_hint(anyhow!(words), hint),
        None => anyhow!(words),
    };
    match error.as_db_error() {
        Some(told) => error_with_hint(words(error), told.hint()),
        None => error_with_hint(words(error), None),
    }
}

/// What a server said, in one line.
pub fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => {
            let detail = told.detail().map(|detail| format!(" ({detail})"));
            format!("{}{}", told.message(), detail.unwrap_or_default())
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Runs a statement that may fail without ending the transaction; why it did.
pub async fn attempt(
    transaction: &mut Transaction<'_>,
    sql: &str,
) -> anyhow::Result<Result<(), String>> {
    let savepoint = transaction.savepoint("attempt").await;
    let savepoint = savepoint.said("the transaction is lost")?;
    match savepoint.batch_execute(sql).await {
        Ok(()) => {
            savepoint.commit().await.said("the transaction is lost")?;
            Ok(Ok(()))
        }
        Err(error) if error.as_db_error().is_some() => {
            savepoint.rollback().await.said("the transaction is lost")?;
            Ok(Err(words(&error)))
        }
        Err(error) => Err(error).said("the transaction is lost"),
    }
}
