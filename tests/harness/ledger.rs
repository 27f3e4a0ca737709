//! What was committed, when, and in which order: the oracle of restore tests.
//!
//! Commits happen in *bursts* of concurrent writers, whose order among each other only the WAL knows, and in *markers*:
//! single commits made while no writer runs, with everything known about them. A target at a marker or between bursts
//! has exactly one right set of rows. A target inside a burst is held to what must be true of it: everything before the
//! burst, nothing after it, and the transaction that was named.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Cluster;

/// Ids of ledger rows.
pub type Rows = BTreeSet<i64>;

/// A commit of one row, made in quiet.
#[derive(Debug, Clone)]
pub struct Marker {
    pub id: i64,
    pub xid: String,
    /// The time in its commit record, with microseconds, UTC, RFC 3339.
    pub commit_time: String,
    /// Where the WAL ended before it, and after it.
    pub lsn_before: String,
    pub lsn_after: String,
    /// A moment before it and after everything earlier.
    pub quiet_time: String,
    /// A restore point made before it and after everything earlier.
    pub restore_point: String,
    /// All rows before it.
    pub before: Rows,
}

impl Marker {
    /// All rows with it.
    pub fn with(&self) -> Rows {
        let mut rows = self.before.clone();
        rows.insert(self.id);
        rows
    }
}

/// Commits of concurrent writers.
#[derive(Debug, Clone)]
pub struct Burst {
    /// All rows before it.
    pub before: Rows,
    /// Each transaction with its rows.
    pub commits: Vec<(String, Rows)>,
}

impl Burst {
    /// All rows with it.
    pub fn with(&self) -> Rows {
        self.before
            .iter()
            .chain(self.commits.iter().flat_map(|(_, rows)| rows))
            .copied()
            .collect()
    }
}

const UTC: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";

impl Cluster {
    /// Makes the ledger.
    pub fn open_ledger(&self) {
        self.sql("create table ledger(id bigserial primary key, writer int, note text)");
    }

    /// All rows there are; none when there is no ledger.
    pub fn rows(&self) -> Rows {
        if self.sql("select to_regclass('ledger') is null") == "t" {
            return Rows::new();
        }
        self.sql("select id from ledger")
            .lines()
            .map(|id| id.parse().expect("an id"))
            .collect()
    }

    /// Commits one row; its id.
    pub fn commit(&self, note: &str) -> i64 {
        self.sql(&format!(
            "insert into ledger(note) values ('{note}') returning id"
        ))
        .parse()
        .expect("an id")
    }

    /// Commits one row in quiet, with everything known about it.
    pub fn mark(&self, note: &str) -> Marker {
        let before = self.rows();
        let now = || {
            self.sql(&format!(
                "select to_char(clock_timestamp() at time zone 'utc', {UTC})"
            ))
        };
        // Times before and after the quiet moment differ by more than a clock's tick.
        let pause = || std::thread::sleep(Duration::from_millis(3));
        pause();
        let quiet_time = now();
        pause();
        let restore_point = format!("before {note}");
        self.sql(&format!(
            "select pg_create_restore_point('{restore_point}')"
        ));
        let lsn_before = self.sql("select pg_current_wal_insert_lsn()");
        let inserted = self.sql(&format!(
            "insert into ledger(note) values ('{note}') returning id, pg_current_xact_id()::text"
        ));
        let lsn_after = self.sql("select pg_current_wal_insert_lsn()");
        let (id, xid) = inserted.split_once('|').expect("id and xid");
        let time = format!(
            "select to_char(pg_xact_commit_timestamp('{xid}'::xid) at time zone 'utc', {UTC})"
        );
        let commit_time = self.sql(&time);
        pause();
        let (id, xid) = (id.parse().expect("an id"), xid.to_string());
        Marker {
            id,
            xid,
            commit_time,
            lsn_before,
            lsn_after,
            quiet_time,
            restore_point,
            before,
        }
    }

    /// Lets writers commit at the same time: each makes some transactions of one to three rows, and rolls some back.
    pub fn burst(&self, writers: usize, transactions: usize) -> Burst {
        self.write_at_once(writers, transactions, true)
    }

    /// The same, and nothing is rolled back.
    pub fn burst_of_commits(&self, writers: usize, transactions: usize) -> Burst {
        self.write_at_once(writers, transactions, false)
    }

    fn write_at_once(&self, writers: usize, transactions: usize, rollbacks: bool) -> Burst {
        let before = self.rows();
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let mut config = tokio_postgres::Config::new();
                config
                    .host_path(&self.socket_folder)
                    .port(self.port as u16)
                    .user("walden")
                    .dbname("postgres");
                std::thread::spawn(move || write(config, writer, transactions, rollbacks))
            })
            .collect();
        let commits = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a writer"))
            .collect();
        Burst { before, commits }
    }
}

/// One writer: its commits.
fn write(
    config: tokio_postgres::Config,
    writer: usize,
    transactions: usize,
    rollbacks: bool,
) -> Vec<(String, Rows)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut client, connection) = config.connect(tokio_postgres::NoTls).await.expect("connect");
        let connection = tokio::spawn(connection);
        let mut commits = Vec::new();
        for number in 0..transactions {
            let transaction = client.transaction().await.expect("begin");
            let sql = "insert into ledger(writer, note) select $1, repeat('x', 200) from generate_series(1, $2) \
                       returning id, pg_current_xact_id()::text";
            let count = (number % 3 + 1) as i32;
            let rows = transaction.query(sql, &[&(writer as i32), &count]).await.expect("insert");
            if rollbacks && number % 7 == 6 {
                transaction.rollback().await.expect("rollback");
            } else {
                transaction.commit().await.expect("commit");
                commits.push((rows[0].get(1), rows.iter().map(|row| row.get::<_, i64>(0)).collect()));
            }
        }
        drop(client);
        connection.await.expect("the connection's task").expect("the connection");
        commits
    })
}
