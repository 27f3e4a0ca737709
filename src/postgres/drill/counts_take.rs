//! Counts rows on the source, in one snapshot whose place in the WAL is known.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::canary_write::{refuse_standby, told};
use super::counts::{Counts, TableCounts};
use super::counts_table::{Countable, content, form};
use crate::error::with_hint;
use crate::postgres::dump_restore::names::QualifiedName;
use crate::postgres::replication::session::{SAME_TEXT, options};
use crate::postgres::replication::{ConnInfo, SqlClient, sql_client};
use crate::postgres::types::{Lsn, SystemIdentifier, TimelineId};

/// How long a moment is looked for at which nothing is written,
const PATIENCE: Duration = Duration::from_secs(20);
/// and how long one at which all that was written is on disk, too: then hardly a transaction is just committing.
const QUIET: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(3);
/// Bytes of a WAL page, and of its header: of the first one of a segment, and of others.
const PAGE: u64 = 8192;
const HEADERS: [u64; 2] = [40, 24];
/// Locks that others wait behind are waited for only so long.
const LIMITS: [(&str, &str); 3] = [
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "0"),
    ("max_parallel_workers_per_gather", "0"),
];
const SYSTEM: &str = "select system_identifier::text from pg_control_system()";
/// The first transaction says where the WAL was before the second one's snapshot, the second where it is then.
const MOMENT: &str = "begin; select pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(); commit;
    begin isolation level repeatable read read only;
    select pg_current_snapshot(), pg_current_wal_insert_lsn(), to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
        substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// Counts tables of a database. `limit`: for each of them. Errors: one is not there or cannot be counted, it is another server or a standby, or
/// it writes all the time.
pub async fn count(
    mut info: ConnInfo,
    database: &str,
    tables: &[QualifiedName],
    system: SystemIdentifier,
    limit: Duration,
) -> anyhow::Result<Counts> {
    info.database = database.into();
    let limit = limit.as_millis().to_string();
    let limits = [("statement_timeout", limit.as_str())];
    let options = options(&[&SAME_TEXT, &LIMITS, &limits]);
    // Tables that are emptied or rewritten later do not show what a snapshot had: nobody may, from before it is taken.
    let holder = open(&info, &options).await?;
    refuse_standby(&holder).await?;
    refuse_another(&holder, system).await?;
    let forms = hold(&holder.client, tables).await?;
    let reader = open(&info, &options).await?;
    let mut counts = moment(&reader.client).await?;
    counts.database = database.into();
    for (table, form) in tables.iter().zip(&forms) {
        let counted = content(&reader.client, table, form.is_partitioned).await;
        let what = || format!("\"{table}\" is not counted");
        counts.tables.push(TableCounts {
            schema: table.schema.clone(),
            name: table.name.clone(),
            content: counted.map_err(|error| told(&error)).with_context(what)?,
        });
    }
    // Partitions come and go in spite of the locks; and without locks a table may have become another one.
    let is_same = forms_of(&holder.client, tables).await? == forms;
    ensure!(is_same, "a table was changed while it was counted");
    let held = holder.client.batch_execute("commit").await;
    held.map_err(|error| told(&error))?;
    Ok(counts)
}

async fn open(info: &ConnInfo, options: &str) -> anyhow::Result<SqlClient> {
    let session = sql_client(info, options).await?;
    if session.version >= 170_000 {
        let set = session.client.batch_execute("set transaction_timeout = 0");
        set.await.map_err(|error| told(&error))?;
    }
    Ok(session)
}

/// What is counted belongs to the cluster in whose repository it is kept.
async fn refuse_another(session: &SqlClient, system: SystemIdentifier) -> anyhow::Result<()> {
    let row = session.client.query_one(SYSTEM, &[]).await;
    let found: String = row.map_err(|error| told(&error))?.get(0);
    ensure!(
        found == system.to_string(),
        "{} has system identifier {found}, the repository's cluster {system}",
        session.server
    );
    Ok(())
}

/// Keeps the tables as they are for reading, and says what they are.
async fn hold(client: &Client, tables: &[QualifiedName]) -> anyhow::Result<Vec<Countable>> {
    let names: Vec<String> = tables.iter().map(QualifiedName::sql).collect();
    let lock = format!(
        "begin; lock table {} in access share mode",
        names.join(", ")
    );
    let locked = client.batch_execute(&lock).await;
    locked
        .map_err(|error| told(&error))
        .context("the tables are not locked for reading")?;
    forms_of(client, tables).await
}

async fn forms_of(client: &Client, tables: &[QualifiedName]) -> anyhow::Result<Vec<Countable>> {
    let mut forms = Vec::new();
    for table in tables {
        let found = form(client, table).await.map_err(|error| told(&error))?;
        forms.push(found.ok_or_else(|| {
            let error = anyhow!("\"{table}\" is no table, or has rows that are not in WAL");
            let hint = "name ordinary tables as schema.table in `drill.counts`";
            with_hint(error, hint)
        })?);
    }
    Ok(forms)
}

/// Takes a snapshot between two looks at the WAL that see the same, and leaves the session in it.
async fn moment(client: &Client) -> anyhow::Result<Counts> {
    let (begun, mut before) = (Instant::now(), "");
    loop {
        let sql = format!("{before} {MOMENT}");
        let rows = client.simple_query(&sql).await;
        let rows = texts(rows.map_err(|error| told(&error))?);
        let [first, second] = &rows[..] else {
            return Err(anyhow!(
                "the server's answer about its WAL is not understood"
            ));
        };
        let waited = begun.elapsed();
        let moment = Moment::read(first, second)?;
        if moment.is_exact(waited < QUIET) {
            return Ok(moment.counts);
        }
        if waited > PATIENCE {
            let error = anyhow!("the server wrote WAL at every moment of {PATIENCE:?}");
            return Err(with_hint(error, "count when it is less busy"));
        }
        before = "rollback;";
        tokio::time::sleep(PAUSE).await;
    }
}

fn texts(messages: Vec<SimpleQueryMessage>) -> Vec<Vec<String>> {
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| {
        let columns = 0..row.len();
        columns
            .map(|at| row.get(at).unwrap_or_default().to_string())
            .collect()
    })
    .collect()
}

/// A snapshot, and where the WAL was before and after it was taken.
#[derive(Debug)]
struct Moment {
    before: Lsn,
    flushed: Lsn,
    counts: Counts,
}

impl Moment {
    fn read(first: &[String], second: &[String]) -> anyhow::Result<Self> {
        let ([before, flushed], [snapshot, after, at, timeline]) = (first, second) else {
            return Err(anyhow!("the server tells of its WAL in other columns"));
        };
        Ok(Self {
            before: before.parse()?,
            flushed: flushed.parse()?,
            counts: Counts {
                database: String::new(),
                lsn: after.parse()?,
                timeline: TimelineId(u32::from_str_radix(timeline, 16)?),
                at: at.parse()?,
                snapshot: snapshot.clone(),
                tables: Vec::new(),
            },
        })
    }

    /// Whether nothing was written between. `is_choosy`: all is on disk, too, so nobody waits for that with a commit that the
    /// snapshot does not show.
    fn is_exact(&self, is_choosy: bool) -> bool {
        let (page, header) = (self.before.0 & !(PAGE - 1), self.before.0 & (PAGE - 1));
        let written = match HEADERS.contains(&header) {
            true => page,
            false => self.before.0,
        };
        self.before == self.counts.lsn && (!is_choosy || self.flushed.0 >= written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_exact_where_nothing_is_written_around_it() {
        let of = |before: &str, flushed: &str, after: &str| {
            let texts = |all: &[&str]| all.iter().map(|text| text.to_string()).collect::<Vec<_>>();
            let second = texts(&["7:9:7", after, "2026-01-31T14:05:00.000001Z", "0000000A"]);
            Moment::read(&texts(&[before, flushed]), &second).unwrap()
        };
        let moment = of("0/3000158", "0/3000158", "0/3000158");
        assert_eq!(moment.counts.timeline, TimelineId(10));
        assert!(moment.is_exact(true));
        let unflushed = of("0/3000158", "0/3000100", "0/3000158");
        assert!(!unflushed.is_exact(true) && unflushed.is_exact(false));
        let busy = of("0/3000158", "0/3000158", "0/3000190");
        assert!(!busy.is_exact(true) && !busy.is_exact(false));
        // A page's header lies between the last record and the next.
        for next in ["0/3000028", "0/3002018"] {
            let page = if next == "0/3000028" {
                "0/3000000"
            } else {
                "0/3002000"
            };
            assert!(of(next, page, next).is_exact(true));
            assert!(!of(next, "0/2FFFFF8", next).is_exact(true));
        }
    }
}
