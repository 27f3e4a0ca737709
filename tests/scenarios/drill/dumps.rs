//! Drills of dumps, into servers that are made for them.

use chrono::{Timelike, Utc};

use super::{
    ELSEWHERE, check, drill, drill_where, entry, flip_byte, is_empty, prepared, records, verdicts,
};
use crate::harness::{Major, Scratch, clock_ahead, finish, outer_majors};

fn of_a_dump(major: Major) {
    let scratch = Scratch::new("drilldump");
    let (cluster, walden) = prepared(&scratch, &major);
    // Without any dump there is none to choose from, and none to prove.
    let refused = walden.refused(4, ["drill", "run", "--dump", "--at", "random"]);
    assert!(refused.contains("no complete dump"), "{refused}");
    assert_eq!(drill(&walden, 3, &["--dump"])["verdict"], "failed");
    // Owners that no other server has, and what only a superuser may own.
    cluster.sql(
        "create role \"the clerk\"; alter table orders owner to \"the clerk\"; grant select on customers to \"the clerk\";
         create role boss superuser; create function seen() returns event_trigger language plpgsql as 'begin end';
         create event trigger watch on sql_drop execute function seen(); alter event trigger watch owner to boss;
         analyze",
    );
    walden.ok(["dump", "take"]);
    let report = drill_where(&walden, 0, &["--dump"], ELSEWHERE);
    assert_eq!(report["verdict"], "passed", "{report:#}");
    for name in [
        "tables of the dump",
        "rows of the dump",
        "indexes of \"postgres\"",
        "foreign keys of \"postgres\"",
        "orders are there",
        "drill.command",
        "RTO",
    ] {
        assert_eq!(check(&report, name)["verdict"], "passed", "{report:#}");
    }
    let rows = check(&report, "rows of the dump")["seen"].as_str().unwrap();
    assert!(rows.starts_with("1300 in 2 of 2 tables"), "{rows}");
    let phases: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    assert!(phases.starts_with(&["plan", "read", "server"]) && phases.contains(&"fill"));
    assert!(is_empty(&scratch.join("drills")));
    let dumps = walden.json(["dump", "list"]).to_string();
    assert!(dumps.contains("\"proven_at\":\"20"), "{dumps}");
    walden.refused(2, ["drill", "run", "--dump", "--at", "2026-01-31 14:05"]);

    // A flipped byte.
    let folder = walden.repository.join("main/dumps/postgres");
    flip_byte(&entry(&folder, |name| name.ends_with(".dump")));
    let report = drill(
        &walden,
        3,
        &["--dump", "--database", "postgres", "--at", "random"],
    );
    assert_eq!(report["verdict"], "failed", "{report:#}");
    assert!(
        report["reason"].as_str().unwrap().contains("is damaged"),
        "{report:#}"
    );
    assert!(is_empty(&scratch.join("drills")));
    assert_eq!(verdicts(&walden), ["failed", "passed", "failed"]);
}

outer_majors!(a_dump_is_proven_by_a_drill, of_a_dump);

#[test]
fn a_scheduled_drill_of_a_dump_runs_when_it_is_due() {
    let scratch = Scratch::new("drillduejob");
    let (_cluster, walden) = prepared(&scratch, &Major::newest());
    walden.ok(["dump", "take"]);
    // Not due within minutes from now.
    let schedule = format!("{} * * * *", (Utc::now().minute() + 30) % 60);
    let run = |ahead: i64| {
        let mut job = walden.command(["jobs", "run", "dump-drill", "--scheduled"]);
        job.env("WALDEN_SCHEDULE__DUMP_DRILL", &schedule);
        for (name, value) in clock_ahead(ahead) {
            job.env(name, value);
        }
        let output = finish(&mut job);
        assert!(output.success(), "{output:?}");
        records(&walden)
    };
    assert_eq!(run(0).len(), 0, "its first moment is to come");
    let records = run(3600);
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["verdict"], &records[0]["details"]["kind"]),
        (&"passed".into(), &"dump".into())
    );
    let runs = walden.json(["jobs", "list", "--runs"]);
    assert_eq!(
        (&runs[0]["job"], &runs[0]["state"]),
        (&"dump-drill".into(), &"succeeded".into())
    );
}
