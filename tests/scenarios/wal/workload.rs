//! A workload that makes records of all kinds, and what it did.

use walden::postgres::types::{Lsn, SegmentName, SegmentSize};

use super::segments::{self, Segment};
use crate::harness::{Cluster, Major, Scratch, Stop};

/// Rows that a transaction inserted, updated and deleted in a table's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub what: &'static str,
    pub xid: u32,
    pub file: u32,
    pub rows: [u64; 3],
}

/// A cluster that has worked and was stopped.
pub struct Worked {
    pub segments: Vec<Segment>,
    pub rows: Vec<Expected>,
    /// Transactions and their commit times, in microseconds since 1970, as the server tells them.
    pub commits: Vec<(u32, i64)>,
    /// Transactions that dropped a table, with the table's file.
    pub drops: Vec<(u32, u32)>,
    /// Files that statements made, and whether these put anything in them.
    pub made: Vec<(&'static str, u32, bool)>,
    /// Databases made and dropped.
    pub database: u32,
    /// The record of a switch, and restore points with their ends.
    pub restore_points: Vec<(&'static str, Lsn)>,
    pub cluster: Cluster,
    /// pg_walinspect's view, where that extension is there and no pg_waldump.
    pub inspected: Option<String>,
    _scratch: Scratch,
}

struct Work {
    cluster: Cluster,
    rows: Vec<Expected>,
    drops: Vec<(u32, u32)>,
    made: Vec<(&'static str, u32, bool)>,
}

impl Work {
    fn sql(&self, sql: &str) -> String {
        self.cluster.sql(sql)
    }

    fn file(&self, table: &str) -> u32 {
        self.sql(&format!("select pg_relation_filenode('{table}')"))
            .parse()
            .expect("a file number")
    }

    /// Runs statements in one transaction that must change so many rows of a table.
    fn rows(&mut self, what: &'static str, table: &str, statements: &str, rows: [u64; 3]) {
        let file = self.file(table);
        let xid = self.xid(statements);
        self.rows.push(Expected {
            what,
            xid,
            file,
            rows,
        });
    }

    fn xid(&self, statements: &str) -> u32 {
        let output = self.sql(&format!(
            "begin; {statements}; select 'xid ' || pg_current_xact_id(); commit"
        ));
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix("xid "))
            .expect("an xid");
        line.parse().expect("an xid of the first epoch")
    }
}

/// Runs the workload on a new cluster.
pub fn run(major: &Major, segment_mib: u32, wal_level: &str) -> Worked {
    let scratch = Scratch::new("wal");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(segment_mib)
        .checksums(true)
        .setting("wal_level", wal_level)
        .setting("wal_keep_size", "1GB")
        .setting("max_prepared_transactions", "5")
        .setting("autovacuum", "off")
        .start(&scratch);
    let first_xid: u32 = cluster
        .sql("select pg_current_xact_id()")
        .parse()
        .expect("an xid");
    let mut work = Work {
        cluster,
        rows: Vec::new(),
        drops: Vec::new(),
        made: Vec::new(),
    };
    tables(&mut work);
    transactions(&mut work);
    let restore_points = vec![("one", point(&work, "one"))];
    let database = databases(&work);
    relations(&mut work);
    let restore_points = [
        restore_points,
        vec![("zwei mit ü", point(&work, "zwei mit ü"))],
    ]
    .concat();
    large(&work);
    let commits = commits(&work, first_xid);
    let inspected = inspect(&work, segment_mib);
    let end: Lsn = work
        .sql("select pg_current_wal_insert_lsn()")
        .parse()
        .expect("an LSN");
    work.cluster.stop(Stop::Fast);
    let segments = segments::read(&work.cluster.data, end);
    let Work {
        cluster,
        rows,
        drops,
        made,
    } = work;
    Worked {
        segments,
        rows,
        commits,
        drops,
        made,
        database,
        restore_points,
        cluster,
        inspected,
        _scratch: scratch,
    }
}

fn point(work: &Work, name: &str) -> Lsn {
    work.sql(&format!("select pg_create_restore_point('{name}')"))
        .parse()
        .expect("an LSN")
}

fn tables(work: &mut Work) {
    work.sql(
        "create table a (id int primary key, t text, n int); create table p (k int, v text) partition by list (k)",
    );
    work.sql("create table p1 partition of p for values in (1); create table p2 partition of p for values in (2)");
    work.sql("create table wide (id int, t text); alter table wide alter t set storage external");
    work.sql("create unlogged table u (x int); create sequence s; create materialized view m as select 1 x");
    work.rows(
        "insert",
        "a",
        "insert into a select i, 'x' || i, i % 7 from generate_series(1, 500) i",
        [500, 0, 0],
    );
    work.rows(
        "copy",
        "a",
        "copy a from program 'seq -f \"%.0f\tcopied\t3\" 501 2500'",
        [2000, 0, 0],
    );
    work.rows(
        "update",
        "a",
        "update a set n = n + 1 where id <= 300",
        [0, 300, 0],
    );
    work.sql("create index on a using hash (n); create index on a using brin (id)");
    work.sql(
        "create index on a using gin (string_to_array(t, 'x')); create index on a using spgist (t)",
    );
    work.sql("create index on a using gist (int4range(id, id + 5))");
    work.rows(
        "indexed update",
        "a",
        "update a set n = n + 1, t = t || 'y' where id between 100 and 400",
        [0, 301, 0],
    );
    work.rows(
        "delete",
        "a",
        "delete from a where id % 10 = 0",
        [0, 0, 250],
    );
    let upsert = "insert into a values (1, 'clash', 0), (100000, 'new', 0) on conflict (id) do update set n = -1";
    work.rows("upsert", "a", upsert, [1, 1, 0]);
    work.rows(
        "partition",
        "p1",
        "insert into p select 1, 'v' from generate_series(1, 20)",
        [20, 0, 0],
    );
    // The rows go away here and come up in the other partition.
    work.rows(
        "moved rows",
        "p2",
        "update p set k = 2 where ctid in (select ctid from p limit 5)",
        [5, 0, 0],
    );
    work.rows(
        "toast",
        "wide",
        "insert into wide select i, repeat('wide', 5000) from generate_series(1, 5) i",
        [5, 0, 0],
    );
    work.sql(
        "insert into u values (1); select nextval('s'); refresh materialized view m; create temp table t as select 1",
    );
}

fn transactions(work: &mut Work) {
    let nested = "insert into a values (200001, 's', 1); savepoint x; insert into a values (200002, 's', 1); \
                  savepoint y; delete from a where id = 200001; rollback to y; update a set n = 5 where id = 200002; \
                  release x; insert into a values (200003, 's', 1)";
    work.rows("savepoints", "a", nested, [3, 1, 0]);
    let many = "do $$ begin for i in 1..200 loop begin insert into a values (300000 + i, 'sub', i); \
                if i % 2 = 0 then raise 'no'; end if; exception when others then null; end; end loop; end $$";
    work.rows("exception blocks", "a", many, [100, 0, 0]);
    work.sql("begin; insert into a values (400001, 'gone', 1); rollback");
    let file = work.file("a");
    let prepared = work.sql(
        "begin; insert into a values (500001, 'p', 1), (500002, 'p', 1); select pg_current_xact_id(); \
         prepare transaction 'the gid'",
    );
    work.sql("begin; insert into a values (600001, 'p', 1); prepare transaction 'other'");
    work.sql("commit prepared 'the gid'");
    work.sql("rollback prepared 'other'");
    let xid = prepared
        .lines()
        .last()
        .expect("an xid")
        .parse()
        .expect("an xid");
    work.rows.push(Expected {
        what: "prepared",
        xid,
        file,
        rows: [2, 0, 0],
    });
}

fn databases(work: &Work) -> u32 {
    work.sql("create database extra");
    let oid = work
        .sql("select oid from pg_database where datname = 'extra'")
        .parse()
        .expect("an OID");
    if work.cluster.major.number >= 15 {
        work.sql("create database copied template template0 strategy file_copy");
    }
    work.sql("drop database extra");
    oid
}

fn relations(work: &mut Work) {
    work.sql("create table d (x int); insert into d select generate_series(1, 100)");
    let file = work.file("d");
    let xid = work.xid("drop table d");
    work.drops.push((xid, file));
    work.sql("begin; create table never (x int); insert into never values (1); rollback");
    let file = work.file("wide");
    let xid = work.xid("truncate wide");
    work.drops.push((xid, file));
    work.made.push(("truncate", work.file("wide"), false));
    work.sql("delete from a where id > 1000");
    work.sql("vacuum a");
    work.sql("vacuum full a");
    work.made.push(("vacuum full", work.file("a"), true));
    work.sql("vacuum freeze p1");
    work.sql("checkpoint");
    let all: u64 = work.sql("select count(*) from a").parse().expect("a count");
    work.rows("after a checkpoint", "a", "update a set n = 0", [0, all, 0]);
    work.rows("delete all", "a", "delete from a", [0, 0, all]);
    work.sql(
        "reindex table a; analyze; select txid_current(); alter table a add column z int default 1",
    );
}

/// Switches, and records of several pages and segments.
fn large(work: &Work) {
    for length in [10_000, 100_000, 1_500_000, 4_500_000] {
        work.sql(&format!(
            "select pg_logical_emit_message(true, 'test', repeat('m', {length}))"
        ));
    }
    work.sql("select pg_switch_wal()");
    work.sql("insert into p values (1, 'after a switch')");
    work.sql("select pg_switch_wal()");
    // Many relations in one commit: its record crosses pages.
    work.sql("do $$ begin for i in 1..400 loop execute 'create table many' || i || ' (x int)'; end loop; end $$");
    work.sql("do $$ begin for i in 1..400 loop execute 'drop table many' || i; end loop; end $$");
    work.sql("checkpoint");
    work.sql("insert into p select 2, repeat('v', i % 200) from generate_series(1, 30000) i");
}

fn commits(work: &Work, first_xid: u32) -> Vec<(u32, i64)> {
    let last: u32 = work
        .sql("select pg_current_xact_id()")
        .parse()
        .expect("an xid");
    let rows = work.sql(&format!(
        "select x, extract(epoch from date_trunc('second', t))::bigint * 1000000 \
         + extract(microseconds from t)::bigint % 1000000 from generate_series({first_xid}, {last}) x, \
         pg_xact_commit_timestamp(x::text::xid) t where t is not null"
    ));
    let commit = |line: &str| {
        let (xid, time) = line.split_once('|').expect("two columns");
        (xid.parse().expect("an xid"), time.parse().expect("a time"))
    };
    rows.lines().map(commit).collect()
}

fn inspect(work: &Work, segment_mib: u32) -> Option<String> {
    let wanted = !work.cluster.major.has("pg_waldump") && work.cluster.major.number >= 15;
    if !wanted
        || !work
            .cluster
            .try_sql("create extension pg_walinspect")
            .success()
    {
        return None;
    }
    let size = SegmentSize::new(segment_mib << 20).expect("a segment size");
    let first = work.sql("select min(name) from pg_ls_waldir() where length(name) = 24");
    let start = first.parse::<SegmentName>().expect("a segment").start(size);
    Some(work.sql(&format!(
        "select start_lsn, prev_lsn, xid, resource_manager, record_length, record_type, description, block_ref \
         from pg_get_wal_records_info('{start}', pg_current_wal_flush_lsn())"
    )))
}
