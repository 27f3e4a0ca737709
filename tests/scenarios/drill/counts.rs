//! Rows counted on a source that goes on writing, and compared in what a drill restored to that very place in the WAL.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{check, drill, entry, prepared, set};
use crate::harness::{
    Cluster, Major, Random, Scratch, Walden, command, finish, is_long, outer_majors, wait_until,
};

const TABLES: &str = "create schema parts;
    create table public.\"Odd Table\" (id int primary key, r numeric, at timestamptz, price money, ratio float8, bytes bytea, span interval, note text);
    create table parts.days (day int, what text) partition by range (day);
    create table parts.early partition of parts.days for values from (0) to (50);
    create table parts.late partition of parts.days for values from (50) to (101);
    insert into parts.days select n, n::text from generate_series(0, 100) n;
    create view parts.seen as select 1; create unlogged table parts.lost (id int)";
const COUNTED: [&str; 3] = ["public.Odd Table", "parts.days", "public.orders"];

fn psql(cluster: &Cluster) -> Command {
    let mut psql = command(Major::with_clients().program("psql"));
    psql.args(["-XqAt", "-U", "walden", "-d", "postgres", "-p"]);
    psql.arg(cluster.port.to_string())
        .arg("-h")
        .arg(&cluster.socket_folder);
    psql.env("PGAPPNAME", "writer")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    psql
}

/// Changes rows in short transactions, of which some are rolled back, until it is ended.
struct Writer<'a>(Child, &'a Cluster);

impl<'a> Writer<'a> {
    fn start(cluster: &'a Cluster, random: &mut Random) -> Self {
        let seed = random.below(1000) as f64 / 1000.0;
        let changes = "do $$ declare n int; begin loop
                n := 2000 + (random() * 100000)::int;
                begin
                    insert into public.\"Odd Table\" values (n, random(), clock_timestamp(), n::money, random(), decode(md5(n::text), 'hex'), make_interval(secs => n), null)
                        on conflict (id) do update set r = excluded.r, at = excluded.at;
                    update parts.days set what = n::text, day = n % 101 where day = (n * 7) % 101;
                    delete from public.\"Odd Table\" where id % 97 = n % 97;
                    insert into orders values (n, 1) on conflict do nothing;
                exception when others then null; end;
                if n % 5 = 0 then rollback; else commit; end if;
                perform pg_sleep(random() * 0.01);
            end loop; end $$";
        let mut psql = psql(cluster);
        psql.args(["-c", &format!("select setseed({seed})"), "-c", changes]);
        Self(psql.spawn().expect("start psql"), cluster)
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.1.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'writer'");
        let _ = self.0.wait();
    }
}

fn verdicts(report: &Value) -> Vec<&str> {
    let of = |table| &check(report, &format!("counts of \"postgres\": {table}"))["verdict"];
    COUNTED
        .iter()
        .map(|table| of(table).as_str().expect("a verdict"))
        .collect()
}

fn count_with(walden: &Walden, tables: &str, code: i32) -> String {
    let mut counting = walden.command(["drill", "canary", "--counts"]);
    let output = finish(counting.env("WALDEN_DRILL__COUNTS", tables));
    assert_eq!(output.code, Some(code), "{output:?}");
    output.stderr
}

/// The number of the next transaction.
fn transactions(cluster: &Cluster) -> u64 {
    let next = cluster.sql("select pg_snapshot_xmax(pg_current_snapshot())");
    next.parse().expect("a number")
}

/// Its commit is in the WAL, and nobody sees it yet: a standby that is not there does not answer.
fn commit_unseen(cluster: &Cluster, walden: &Walden, sql: &str) {
    cluster.sql("alter system set synchronous_standby_names = 'nobody'");
    cluster.reload();
    let mut waiting = psql(cluster).args(["-c", sql]).spawn().expect("start psql");
    wait_until("the commit waits", || {
        cluster.sql("select count(*) from pg_stat_activity where wait_event = 'SyncRep'") != "0"
    });
    walden.ok(["drill", "canary", "--counts"]);
    cluster.sql("alter system reset synchronous_standby_names");
    cluster.reload();
    assert!(waiting.wait().expect("wait for psql").success());
}

fn refuse_what_cannot_be_counted(walden: &Walden) {
    let nothing = drill(walden, 1, &["--at", "counted"]);
    let why = nothing["reason"].as_str().unwrap();
    assert!(why.contains("nothing was counted"), "{why}");
    for (tables, code, words) in [
        ("[\"orders\"]", 2, "\"orders\" is no table's name"),
        ("[]", 2, "\"drill.counts\" names no table"),
        ("[\"public.nothing\"]", 1, "does not exist"),
        ("[\"parts.seen\"]", 1, "is no table"),
        ("[\"parts.lost\"]", 1, "is no table"),
    ] {
        let told = count_with(walden, tables, code);
        assert!(told.contains(words), "{tables}: {told}");
    }
}

fn compare_while_written(cluster: &Cluster, walden: &Walden, random: &mut Random) {
    let writers: Vec<Writer<'_>> = (0..3).map(|_| Writer::start(cluster, random)).collect();
    for round in 0..if is_long() { 20 } else { 2 } {
        std::thread::sleep(Duration::from_millis(random.below(300) as u64));
        let before = transactions(cluster);
        walden.ok(["drill", "canary", "--counts"]);
        let meanwhile = transactions(cluster) - before;
        assert!(meanwhile > 3, "{meanwhile} transactions while it counted");
        cluster.archive_now();
        // One that was just committing lets nothing be said; nothing else may differ.
        let output = walden.run(["--format", "json", "drill", "run", "--at", "counted"]);
        let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
        eprintln!("round {round}: {:?}", verdicts(&report));
        assert_eq!(output.code, Some(0), "{report:#}");
    }
    drop(writers);
}

/// Where the source had one row more in a table, and other ones in another.
fn fail_where_they_differ(walden: &Walden) {
    let records = entry(&walden.repository.join("main/evidence"), |_| true);
    let newest = fs::read_dir(&records)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let holds = |path: &std::path::PathBuf| {
        fs::read_to_string(path)
            .unwrap()
            .contains("\"act\": \"count\"")
    };
    let newest = newest.filter(holds).max().expect("a record");
    let mut record: Value = serde_json::from_slice(&fs::read(&newest).unwrap()).unwrap();
    let tables = &mut record["details"]["counts"]["tables"];
    let rows = tables[1]["rows"].as_u64().unwrap();
    assert_eq!(rows, 101);
    (tables[1]["rows"], tables[2]["sum"]) = ((rows + 1).into(), "17".into());
    fs::write(&newest, record.to_string()).unwrap();
    let report = drill(walden, 3, &["--at", "counted"]);
    assert_eq!(
        verdicts(&report),
        ["passed", "failed", "failed"],
        "{report:#}"
    );
    let why = report["reason"].as_str().unwrap();
    assert!(
        why.contains("101 rows instead of 102") && why.contains("not the same ones"),
        "{why}"
    );
}

fn leave_open_what_was_committing(cluster: &Cluster, walden: &Walden) {
    commit_unseen(
        cluster,
        walden,
        "insert into parts.days values (7, 'unseen')",
    );
    cluster.archive_now();
    let report = drill(walden, 0, &["--at", "counted"]);
    assert_eq!(
        verdicts(&report),
        ["passed", "could-not-run", "passed"],
        "{report:#}"
    );
    let seen = check(&report, "counts of \"postgres\": parts.days")["seen"]
        .as_str()
        .unwrap();
    assert!(
        seen.contains("102 rows instead of 101") && seen.contains("committed just when"),
        "{seen}"
    );
}

fn are_the_same(major: Major) {
    let scratch = Scratch::new("counts");
    let mut random = Random::seeded("counts");
    let (cluster, walden) = prepared(&scratch, &major);
    cluster.sql(TABLES);
    set(
        &walden,
        "drill.canary = \"postgres\"\ndrill.counts = [\"public.\\\"Odd Table\\\"\", \"parts.days\", \"public.orders\"]",
    );
    refuse_what_cannot_be_counted(&walden);
    compare_while_written(&cluster, &walden, &mut random);

    walden.ok(["jobs", "run", "counts"]);
    let counted = walden.json(["drill", "canary", "--counts"]);
    let lsn = counted["counts"]["lsn"].as_str().unwrap();
    cluster.archive_now();
    // What is counted and not archived yet cannot be restored to: then the one before counts.
    cluster.sql("delete from public.\"Odd Table\" where id % 2 = 0");
    walden.ok(["drill", "canary", "--counts"]);
    let report = drill(&walden, 0, &["--at", "counted"]);
    assert_eq!(verdicts(&report), ["passed"; 3], "{report:#}");
    assert!(
        report["target"].as_str().unwrap().contains(lsn),
        "{report:#}"
    );

    cluster.archive_now();
    let report = drill(&walden, 0, &["--at", "counted"]);
    assert_eq!(verdicts(&report), ["passed"; 3], "{report:#}");
    fail_where_they_differ(&walden);
    leave_open_what_was_committing(&cluster, &walden);
}

outer_majors!(
    what_is_counted_at_a_place_in_the_wal_is_restored_there,
    are_the_same
);
