//! The server that is backed up, as it is now.

use tokio::time::timeout;
use tokio_postgres::Client;

use super::database::words;
use super::table_name::{Counted, find};
use crate::config::Settings;
use crate::error::one_line;
use crate::postgres::replication::{ConnInfo, sql_client};

/// Where `postgresql.dsn` leads.
#[derive(Debug)]
pub struct SourceServer<'a>(pub &'a Settings);

impl SourceServer<'_> {
    /// Counts the rows of a table, within `drill.budget`. Errors: why they cannot be counted, which says nothing of a backup.
    pub async fn count(&self, database: &str, table: &str) -> Result<Counted, String> {
        let limit = self.0.drill.budget;
        let asked = timeout(limit, self.ask(database, table)).await;
        let slow = |_| Err(format!("it is not counted within {limit:?}"));
        let why = |why| format!("the source cannot be compared: {why}");
        asked.unwrap_or_else(slow).map_err(why)
    }

    async fn ask(&self, database: &str, table: &str) -> Result<Counted, String> {
        let info = ConnInfo::from_process(self.0.postgresql.dsn.expose());
        let mut info = info.map_err(|error| one_line(&error))?;
        info.database = database.into();
        info.application_name = "walden drill".into();
        // Nothing is changed there, nobody waits for long, and rows that this role may not see are not left out unsaid.
        let limit = self.0.drill.budget.as_millis();
        let options = format!(
            "-c default_transaction_read_only=on -c row_security=off -c lock_timeout=10s -c statement_timeout={limit}"
        );
        let session = sql_client(&info, &options).await;
        let session = session.map_err(|error| one_line(&error))?;
        let counted = count(&session.client, table).await;
        session.close().await;
        counted
    }
}

async fn count(client: &Client, table: &str) -> Result<Counted, String> {
    let found = find(client, table).await.map_err(|error| words(&error))?;
    let found = found.ok_or_else(|| format!("it has no table {table}"))?;
    found.count(client).await.map_err(|error| words(&error))
}
