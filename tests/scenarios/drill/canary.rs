//! Rows that Walden wrote on the source, found again in what a drill restored.

use std::process::Stdio;

use serde_json::Value;

use super::{check, drill, prepared, set};
use crate::harness::{Cluster, Major, Scratch, Walden, finish, outer_majors};

fn verdict<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["verdict"].as_str().expect("a verdict")
}

fn seen<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["seen"].as_str().expect("what was seen")
}

fn tell_of_the_source(major: Major) {
    let scratch = Scratch::new("canary");
    let (cluster, walden) = prepared(&scratch, &major);
    let off = walden.refused(2, ["drill", "canary"]);
    assert!(off.contains("\"drill.canary\" is not set"), "{off}");
    assert_eq!(
        cluster.sql("select count(*) from pg_namespace where nspname = 'walden'"),
        "0"
    );
    cluster.sql("create database shop");
    // What a role sets for itself leads nobody elsewhere.
    cluster.sql("alter role walden set search_path = public; create function public.now() returns timestamptz language sql as 'select null::timestamptz'");
    set(
        &walden,
        "drill.canary = \"shop\"\nschedule.canary = \"* * * * *\"",
    );
    let early = cluster.sql("select clock_timestamp()");
    let none = drill(&walden, 0, &[]);
    assert_eq!(verdict(&none, "canary"), "could-not-run", "{none:#}");

    let first = walden.json(["drill", "canary"]);
    assert_eq!(
        (&first["id"], &first["is_first"]),
        (&"1".into(), &true.into())
    );
    walden.ok(["jobs", "run", "canary"]);
    // All at once, and none takes another's place, whatever sessions of the role begin with.
    cluster.sql_each("alter role walden set default_transaction_isolation = 'repeatable read'; alter role walden set default_transaction_read_only = on");
    let mut together: Vec<_> = (0..4)
        .map(|_| {
            walden
                .command(["drill", "canary"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    assert!(together.iter_mut().all(|one| one.wait().unwrap().success()));
    cluster.sql_each("set default_transaction_read_only = off; alter role walden reset default_transaction_read_only");
    // Anybody can compute the digests.
    let wrong = cluster.sql_in(
        "shop",
        "select count(*) from walden.canary where digest is distinct from encode(sha256(convert_to(concat_ws(E'\\n', id,
             to_char(written_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), encode(value, 'hex'), about), 'UTF8')), 'hex')",
    );
    assert_eq!(wrong, "0");
    cluster.archive_now();
    set(&walden, "drill.rpo_target = \"10m\"");
    let report = drill(&walden, 0, &[]);
    assert_eq!(verdict(&report, "canary"), "passed", "{report:#}");
    assert_eq!(verdict(&report, "RPO by canary"), "passed", "{report:#}");
    let canary = &report["canary"];
    assert_eq!((&canary["id"], &canary["rows"]), (&"6".into(), &6.into()));
    assert!(
        canary["age_seconds"].as_f64().unwrap() < 300.0,
        "{report:#}"
    );
    // A moment before the first one, although a drill has seen some since.
    let before = drill(&walden, 0, &["--at", &early]);
    assert_eq!(verdict(&before, "canary"), "could-not-run", "{before:#}");

    cluster.sql_in(
        "shop",
        "update walden.canary set value = '\\x00' where id = 3",
    );
    cluster.archive_now();
    let changed = drill(&walden, 3, &[]);
    let why = seen(&changed, "canary");
    assert!(why.contains("number 3 is not as it was written"), "{why}");
    cluster.sql_in("shop", "drop table walden.canary");
    cluster.archive_now();
    let gone = drill(&walden, 3, &[]);
    let why = seen(&gone, "canary");
    assert!(why.contains("an earlier drill saw one"), "{why}");
    assert_eq!(walden.json(["drill", "canary"])["is_first"], true);
}

outer_majors!(
    canaries_tell_how_old_and_how_whole_data_is,
    tell_of_the_source
);

#[test]
fn a_canary_is_refused_where_it_has_no_place() {
    let scratch = Scratch::new("canaryno");
    let cluster = Cluster::builder(Major::newest()).start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "drill.canary = \"postgres\"\n");
    cluster.sql("create role clerk login");
    let standby = cluster.standby(&scratch);
    let by = |dsn: String| {
        let mut command = walden.command(["drill", "canary"]);
        let output = finish(command.env("WALDEN_POSTGRESQL__DSN", dsn));
        assert_eq!(output.code, Some(1), "{output:?}");
        output.stderr
    };
    let told = by(standby.dsn());
    assert!(
        told.contains("is a standby") && told.contains("HINT: lead"),
        "{told}"
    );
    let clerk = cluster.dsn().replace("user=walden", "user=clerk");
    let told = by(clerk);
    assert!(
        told.contains("permission denied") && told.contains("GRANT CREATE"),
        "{told}"
    );
    // A schema that another role made first could hold what runs with this one's rights.
    cluster.sql(
        "create schema walden authorization clerk; set role clerk;
         create table walden.canary (id bigint generated always as identity primary key, written_at timestamptz not null,
             value bytea not null, about jsonb not null, digest text not null)",
    );
    let told = by(cluster.dsn());
    assert!(told.contains("belongs to another role"), "{told}");
    cluster.sql(
        "drop schema walden cascade; create schema walden; create view walden.canary as select 1",
    );
    let told = by(cluster.dsn());
    assert!(
        told.contains("is not the table that Walden makes"),
        "{told}"
    );
    cluster.sql("drop schema walden cascade");
    assert_eq!(walden.json(["drill", "canary"])["is_first"], true);
}
