//! Asks a server by SQL.

use anyhow::Context;

use crate::postgres::replication::{Connection, ResultSet};

/// The one result of a question. Errors: also that there is none within a minute.
pub async fn ask(sql: &mut Connection, question: &str) -> anyhow::Result<ResultSet> {
    let answer = sql.question(question).await?.into_iter().next();
    answer.with_context(|| {
        format!(
            "PostgreSQL at {} gave no result to a question",
            sql.server()
        )
    })
}
