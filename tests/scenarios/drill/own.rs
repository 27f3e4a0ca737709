//! One's own checks: URLs, and tables that must not come back empty, old or far behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{check, drill, prepared, records};
use crate::harness::{Answers, Major, Receiver, Scratch, finish};

const NEWEST: &str = "newest row of public.events of \"postgres\"";
const EVENTS: &str = "rows of public.events of \"postgres\"";
const BEHIND: &str = "rows of public.events of \"postgres\" against the source";

/// A check of the table of events.
fn events(limits: &str) -> String {
    format!("[[table]]\ndatabase = \"postgres\"\ntable = \"public.events\"\n{limits}\n")
}

/// What a check saw, if it ended like this.
fn seen<'a>(report: &'a Value, name: &str, verdict: &str) -> &'a str {
    let found = check(report, name);
    assert_eq!(found["verdict"], verdict, "{report:#}");
    found["seen"].as_str().unwrap_or_default()
}

#[test]
fn urls_and_tables_are_judged_on_the_restored_server() {
    let scratch = Scratch::new("drillown");
    let (cluster, walden) = prepared(&scratch, &Major::newest());
    cluster.sql(
        "create table events(id int, \"At\" timestamptz);
         insert into events select n, now() - n * interval '1 hour' from generate_series(0, 99) n;
         insert into events values (100, now() + interval '9 days'), (101, 'infinity')",
    );
    cluster.archive_now();
    let receiver = Receiver::start(Answers::Saying(200, "{\"orders\": 1200}"));
    let token = scratch.write("token", "s3cret-token\n");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let http = format!(
        "[[http]]\nname = \"shop\"\nurl = \"{}\"\nbearer_file = \"{}\"\ncontains = \"orders\"\ntimeout = \"1s\"\n",
        receiver.url("/health?key=s3cret-key"),
        token.display()
    );
    let limits = "min_rows = 102\nnewest = \"At\"\nnot_older_than = \"1h\"\nmax_behind = 0";
    scratch.write("asserts.toml", &(http.clone() + &events(limits)));
    let report = drill(&walden, 0, &[]);
    assert_eq!(
        seen(&report, "shop", "passed"),
        "\"127.0.0.1\" answered 200"
    );
    assert_eq!(seen(&report, EVENTS, "passed"), "102");
    assert_eq!(
        seen(&report, BEHIND, "passed"),
        "0 behind: 102 rows, on the source 102"
    );
    assert!(seen(&report, NEWEST, "passed").ends_with(" old"));
    let request = &receiver.requests("/health?key=s3cret-key")[0];
    assert_eq!(request.header("authorization"), Some("Bearer s3cret-token"));

    // Production goes on, and nothing of it is archived; what was the newest row is older than it may be.
    cluster.sql("insert into events select n, now() from generate_series(200, 249) n");
    receiver.answer_with(Answers::Saying(500, "{\"orders\": 0}"));
    let limits = "min_rows = 103\nnewest = \"At\"\nnot_older_than = \"1ms\"\nmax_behind = 49";
    let missing = "[[table]]\ndatabase = \"postgres\"\ntable = \"public.gone\"\nmin_rows = 1\n\
                   [[table]]\ndatabase = \"postgres\"\ntable = \"public.orders\"\nnewest = \"at\"\nnot_older_than = \"1h\"\n\
                   [[table]]\ndatabase = \"postgres\"\ntable = \"public.customers\"\nnewest = \"id\"\nnot_older_than = \"1h\"\n";
    let closed = http
        .replace("\"shop\"", "\"closed\"")
        .replace("/token", "/no-token");
    scratch.write(
        "asserts.toml",
        &[&http, &*closed, &events(limits), missing].concat(),
    );
    let report = drill(&walden, 3, &[]);
    assert_eq!(
        seen(&report, "shop", "failed"),
        "\"127.0.0.1\" answered 500, expected 200"
    );
    assert!(seen(&report, "closed", "could-not-run").contains("no-token"));
    assert_eq!(
        seen(&report, EVENTS, "failed"),
        "102, expected at least 103"
    );
    assert_eq!(
        seen(&report, BEHIND, "failed"),
        "50 behind: 102 rows, on the source 152, expected at most 49 behind"
    );
    assert!(seen(&report, NEWEST, "failed").ends_with("old, expected at most 0 s"));
    let gone = seen(&report, "public.gone of \"postgres\"", "failed");
    assert_eq!(gone, "there is no table public.gone");
    let no_column = seen(
        &report,
        "newest row of public.orders of \"postgres\"",
        "failed",
    );
    assert_eq!(no_column, "public.orders has no column \"at\"");
    let no_time = seen(
        &report,
        "newest row of public.customers of \"postgres\"",
        "failed",
    );
    assert_eq!(
        no_time,
        "column \"id\" is of type integer, which is no time"
    );
    let recorded = Value::from(records(&walden)).to_string();
    assert!(
        recorded.contains("answered 500") && !recorded.contains("s3cret"),
        "{recorded}"
    );

    // Production that is away is no fault of the backup.
    scratch.write("asserts.toml", &events("max_behind = 49"));
    let mut away = walden.command(["--format", "json", "drill", "run"]);
    let nowhere = format!(
        "host='{}' port=1 user=walden dbname=postgres",
        scratch.join("nowhere").display()
    );
    let output = finish(away.env("WALDEN_POSTGRESQL__DSN", nowhere));
    assert_eq!(output.code, Some(0), "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let unknown = seen(&report, BEHIND, "could-not-run");
    assert!(
        unknown.starts_with("the source cannot be compared: "),
        "{unknown}"
    );
}

#[test]
fn a_dump_that_production_has_left_behind_shows() {
    let scratch = Scratch::new("drillbehind");
    let (cluster, walden) = prepared(&scratch, &Major::newest());
    cluster.sql("create table events(id int, at timestamptz default now())");
    cluster.sql("insert into events select generate_series(1, 100)");
    walden.ok(["dump", "take"]);
    cluster.sql("insert into events select generate_series(1, 10)");
    let other = events("min_rows = 1").replace("postgres", "hasty");
    let limits = "newest = \"at\"\nnot_older_than = \"1h\"\nmax_behind = 10";
    scratch.write("asserts.toml", &(events(limits) + &other));
    let report = drill(&walden, 0, &["--dump"]);
    assert_eq!(
        seen(&report, BEHIND, "passed"),
        "10 behind: 100 rows, on the source 110"
    );
    seen(&report, NEWEST, "passed");
    let elsewhere = seen(&report, "public.events of \"hasty\"", "could-not-run");
    assert_eq!(elsewhere, "it is about database \"hasty\"");
    // Of any dump that is chosen, its own moment counts.
    cluster.sql("insert into events select 1");
    let random = drill(&walden, 0, &["--dump", "--at", "random"]);
    assert!(seen(&random, BEHIND, "could-not-run").starts_with("not compared: "));
    seen(&random, NEWEST, "passed");
    let stale = drill(&walden, 3, &["--dump"]);
    assert!(seen(&stale, BEHIND, "failed").starts_with("11 behind"));
}
