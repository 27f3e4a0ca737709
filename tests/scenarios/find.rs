//! Accidents are found with the right name, time, transaction and rows, and a restore to just before one brings back what
//! it took. What only looks like an accident is none.

use serde_json::Value;

use crate::events::names_are_recorded;
use crate::harness::{Cluster, Major, Random, Rows, Scratch, Walden, outer_majors};
use crate::restore::{register, restore};

outer_majors!(accidents_are_found_and_undone, found_and_undone);

/// What happened, as the one who did it knows it.
struct Accident {
    kind: &'static str,
    /// `schema.name`, or the database.
    subject: &'static str,
    /// `None`: DROP DATABASE does not tell.
    xid: Option<String>,
    time: Option<String>,
    rows: Option<u64>,
    /// The ledger just before.
    before: Rows,
    /// What shows that it did not happen.
    intact: (&'static str, &'static str, &'static str),
}

const SCHEMA: [&str; 9] = [
    "create schema sales",
    "create table sales.orders(id int primary key, note text); insert into sales.orders select n, repeat('o', 200) from generate_series(1, 500) n",
    "create table customers(id int primary key, name text); insert into customers select n, 'c' from generate_series(1, 700) n",
    "create table items(id int primary key, price int); insert into items select n, n from generate_series(1, 1234) n",
    "create table prices(id int primary key, price int); insert into prices select n, n from generate_series(1, 321) n",
    "create table churn(id int primary key, note text); insert into churn select n, repeat('x', 100) from generate_series(1, 2000) n",
    "create materialized view report as select count(*) from churn",
    "create index churn_note on churn(note)",
    "create database shop",
];

/// What looks like an accident to those who read WAL carelessly.
const HARMLESS: [&str; 9] = [
    "create temp table t as select n from generate_series(1, 5000) n; truncate t; drop table t",
    "vacuum full churn",
    "cluster churn using churn_pkey",
    "create index concurrently if not exists churn_again on churn(id)",
    "drop index concurrently if exists churn_again",
    "reindex table churn",
    "refresh materialized view report",
    "begin; delete from churn; rollback",
    "vacuum (freeze, analyze) churn",
];

fn found_and_undone(major: Major) {
    let scratch = Scratch::new("find");
    let mut random = Random::seeded("find");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "catalog.names_interval = \"200ms\"");
    register(&mut cluster, &walden);
    let service = walden.serve();
    cluster.open_ledger();
    SCHEMA.iter().for_each(|sql| drop(cluster.sql(sql)));
    cluster.sql_in(
        "shop",
        "create table stock(id int); insert into stock select generate_series(1, 77)",
    );
    walden.ok(["backup", "take"]);

    let mut steps: Vec<usize> = (0..ACCIDENTS.len()).collect();
    for at in (1..steps.len()).rev() {
        steps.swap(at, random.below(at + 1));
    }
    let mut accidents = Vec::new();
    for step in steps {
        if random.flip() {
            harmless(&cluster, &walden, HARMLESS[random.below(HARMLESS.len())]);
        }
        cluster.burst(2, 1 + random.below(6));
        accidents.push(happens(&cluster, step));
    }
    HARMLESS
        .iter()
        .for_each(|sql| harmless(&cluster, &walden, sql));
    cluster.burst(2, 3);
    cluster.archive_now();
    service.stop();

    let found = walden.json(["find", "--limit", "1000"]);
    let events = found["events"].as_array().expect("events");
    let is_wanted =
        |event: &&Value| event["kind"] != "restore-point" && event["kind"] != "database-create";
    let mut others: Vec<&Value> = events.iter().filter(is_wanted).collect();
    for (number, accident) in accidents.iter().enumerate() {
        let at = others.iter().position(|event| accident.is(event));
        let at = at.unwrap_or_else(|| {
            panic!(
                "{} of {} is not in {found}",
                accident.kind, accident.subject
            )
        });
        let event = others.remove(at);
        let id = event["id"].as_str().expect("an id");
        assert!(walden.ok(["find"]).contains(id));
        let narrow = walden.ok(["find", "--kind", accident.kind, "--format", "json"]);
        assert!(narrow.contains(id), "{narrow}");
        undo(&walden, &major, &scratch, accident, id, number);
    }
    assert!(
        others.is_empty(),
        "what did not happen was found: {others:?}"
    );
    // Said aloud when asked for, as what it is.
    let all = walden.json(["find", "--all", "--limit", "10000"]);
    let mut told = all["events"].as_array().expect("events").iter();
    assert!(
        told.any(|event| event["kind"] == "rewrite" && event["relation"] == "public.churn"),
        "{all}"
    );
}

/// What gets new files is told apart only by those who know their names.
fn harmless(cluster: &Cluster, walden: &Walden, sql: &str) {
    cluster.sql_each(sql);
    names_are_recorded(walden);
}

/// Kind, subject, rows, how; then where, what and which answer shows that it did not happen.
type Step = (
    &'static str,
    &'static str,
    Option<u64>,
    &'static str,
    (&'static str, &'static str, &'static str),
);

const ACCIDENTS: [Step; 5] = [
    (
        "drop",
        "sales.orders",
        None,
        "drop table sales.orders",
        (
            "postgres",
            "select count(*), count(distinct id) from sales.orders",
            "500|500",
        ),
    ),
    (
        "truncate",
        "public.customers",
        None,
        "truncate customers",
        ("postgres", "select count(*) from customers", "700"),
    ),
    (
        "delete",
        "public.items",
        Some(1234),
        "delete from items",
        ("postgres", "select sum(id) from items", "761995"),
    ),
    (
        "update",
        "public.prices",
        Some(321),
        "update prices set price = 0",
        ("postgres", "select sum(price) from prices", "51681"),
    ),
    (
        "database-drop",
        "shop",
        None,
        "drop database shop",
        ("shop", "select count(*) from stock", "77"),
    ),
];

fn happens(cluster: &Cluster, step: usize) -> Accident {
    let (kind, subject, rows, sql, intact) = ACCIDENTS[step];
    let before = cluster.rows();
    if kind == "database-drop" {
        cluster.sql(sql);
        return Accident {
            kind,
            subject,
            xid: None,
            time: None,
            rows,
            before,
            intact,
        };
    }
    let xid = cluster.sql(&format!("{sql}; select pg_current_xact_id()"));
    let time = cluster.sql(&format!(
        "select to_char(pg_xact_commit_timestamp('{xid}'::xid) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
    ));
    Accident {
        kind,
        subject,
        xid: Some(xid),
        time: Some(time),
        rows,
        before,
        intact,
    }
}

impl Accident {
    fn is(&self, event: &Value) -> bool {
        let subject = if self.kind == "database-drop" {
            &event["database"]
        } else {
            &event["relation"]
        };
        let xid = event["xid"].to_string();
        let time = event["time"].as_str().unwrap_or_default();
        event["kind"] == self.kind
            && *subject == self.subject
            && self.xid.as_ref().is_none_or(|wanted| *wanted == xid)
            // Trailing zeros of the fraction are left out.
            && self.time.as_ref().is_none_or(|wanted| moment(time) == moment(&format!("{wanted}Z")))
            && self.rows.is_none_or(|rows| event["rows"] == rows)
    }
}

fn moment(text: &str) -> chrono::DateTime<chrono::FixedOffset> {
    chrono::DateTime::parse_from_rfc3339(text).unwrap_or_else(|error| panic!("\"{text}\": {error}"))
}

fn undo(
    walden: &Walden,
    major: &Major,
    scratch: &Scratch,
    accident: &Accident,
    id: &str,
    number: usize,
) {
    let restored = restore(
        walden,
        major,
        scratch.join(&format!("r {number}")),
        &["--before", id],
    );
    let what = format!(
        "before {} of {}: {}",
        accident.kind, accident.subject, restored.said
    );
    assert_eq!(restored.cluster.rows(), accident.before, "{what}");
    let (database, sql, answer) = accident.intact;
    assert_eq!(restored.cluster.sql_in(database, sql), answer, "{what}");
    assert!(restored.said["recovered"].get("doubts").is_none(), "{what}");
    if let Some(xid) = &accident.xid {
        assert_eq!(
            restored.said["plan"]["first_excluded"]["xid"].to_string(),
            *xid,
            "{what}"
        );
    }
    // Just after it, it has happened.
    let plan = &walden.json(["target", "--after", id])["plan"];
    if let Some(xid) = &accident.xid {
        assert_eq!(plan["last_included"]["xid"].to_string(), *xid, "{plan}");
    }
}
