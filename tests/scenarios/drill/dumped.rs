//! Dumps of a drill's server, on real servers.

use std::fs;

use serde_json::Value;

use super::{check, flip_byte_of_a_pack, is_empty, prepared, records, verdicts};
use crate::harness::{Major, Scratch, Stop, Walden, finish, outer_majors};

fn take(walden: &Walden, code: i32) -> Value {
    let output = walden.run([
        "--format", "json", "dump", "take", "--all", "--source", "drill",
    ]);
    assert_eq!(output.code, Some(code), "{output:?}");
    serde_json::from_str(&output.stdout).expect("JSON")
}

fn dumps(walden: &Walden) -> Value {
    walden.json(["dump", "list"])["dumps"].clone()
}

fn without_the_source(major: Major) {
    let scratch = Scratch::new("drilleddump");
    let (mut cluster, walden) = prepared(&scratch, &major);
    let identifier = cluster.sql("select system_identifier from pg_control_system()");
    let before = cluster.sql("select pg_current_wal_lsn()");
    // Nobody asks it for anything.
    cluster.stop(Stop::Immediate);
    let taken = take(&walden, 0);
    assert_eq!(
        (
            &taken["drill"]["verdict"],
            taken["failed"].as_array().map(Vec::len)
        ),
        (&"passed".into(), Some(0)),
        "{taken:#}"
    );
    assert_eq!(check(&taken["drill"], "orders are there")["seen"], "1200");
    assert!(is_empty(&scratch.join("drills")));
    assert_eq!(verdicts(&walden), ["passed"]);

    let listed = dumps(&walden);
    let ids: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|dump| dump["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{listed:#}");
    let postgres = ids.iter().find(|id| id.starts_with("postgres/")).unwrap();
    let shown = walden.json(["dump", "show", postgres]);
    let backup = walden.json(["backup", "list"])["backups"][0]["id"].clone();
    assert_eq!(
        shown["system_identifier"].to_string().trim_matches('"'),
        identifier
    );
    assert_eq!(
        (&shown["drill"]["backup"], &shown["drill"]["timeline"]),
        (&backup, &1.into())
    );
    let lsn = shown["snapshot"]["lsn"].as_str().unwrap();
    let number = |lsn: &str| {
        let (high, low) = lsn.split_once('/').unwrap();
        (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap()
    };
    assert!(number(lsn) <= number(&before), "{lsn} {before}");
    // What a check needs in the server is none of the dump's.
    assert!(
        !shown["extensions"].to_string().contains("amcheck"),
        "{}",
        shown["extensions"]
    );
    let words = walden.ok(["dump", "show", postgres]);
    assert!(
        words.contains(&format!(
            "a drill's, of backup {}",
            backup.as_str().unwrap()
        )),
        "{words}"
    );

    // It is a dump like any other.
    let proven = super::drill(&walden, 0, &["--dump", "--database", "postgres"]);
    let rows = check(&proven, "rows of the dump")["seen"].as_str().unwrap();
    assert!(rows.starts_with("1300 in 2 of 2 tables"), "{rows}");
}

outer_majors!(a_dump_is_taken_without_the_source, without_the_source);

#[test]
fn a_drill_that_does_not_pass_leaves_no_dump_and_a_job_does_what_the_settings_say() {
    let scratch = Scratch::new("drilledbad");
    let (cluster, walden) = prepared(&scratch, &Major::newest());
    let nothing = || {
        assert_eq!(dumps(&walden), Value::Array(Vec::new()));
        assert!(is_empty(&walden.repository.join("main/dumps")));
        assert!(is_empty(&scratch.join("drills")));
    };
    let mut job = walden.command(["jobs", "run", "dump"]);
    let output = finish(job.env("WALDEN_DUMP__SOURCE", "drill"));
    assert!(output.success(), "{output:?}");
    assert_eq!(verdicts(&walden), ["passed"]);
    for dump in dumps(&walden).as_array().unwrap() {
        walden.ok([
            "dump",
            "delete",
            "--yes",
            "--force",
            dump["id"].as_str().unwrap(),
        ]);
    }
    nothing();

    // It restores and can be dumped, and what a check finds counts all the same.
    cluster.sql("set session_replication_role = replica; delete from customers where id = 7");
    cluster.archive_now();
    let taken = take(&walden, 3);
    assert_eq!(taken["drill"]["verdict"], "failed", "{taken:#}");
    let why = taken["failed"][0]["error"].as_str().unwrap();
    assert!(why.contains("did not pass: foreign keys"), "{why}");
    nothing();

    flip_byte_of_a_pack(&walden);
    let taken = take(&walden, 3);
    assert_eq!(taken["drill"]["verdict"], "failed", "{taken:#}");
    nothing();
    assert_eq!(verdicts(&walden), ["failed", "failed", "passed"]);
    assert_eq!(records(&walden)[0]["details"]["kind"], "physical");
    assert!(fs::exists(walden.repository.join("main/base")).unwrap());
}
