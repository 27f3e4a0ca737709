//! Known data by way of a dump, on real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::{check, is_empty, prepared, records};
use crate::harness::{Cluster, Major, Scratch, Walden, finish, outer_majors, wait_until};

const DATABASES: &str = "select string_agg(datname, ' ' order by datname) from pg_database where datname like 'walden%'";

fn trip(walden: &Walden, code: i32) -> Value {
    let output = walden.run(["--format", "json", "drill", "round-trip"]);
    assert_eq!(output.code, Some(code), "{output:?}");
    serde_json::from_str(&output.stdout).expect("JSON")
}

/// What the operator has.
fn dumps(walden: &Walden) -> Value {
    walden.json(["dump", "list"])["dumps"].clone()
}

/// Neither a database, nor a dump, nor a folder.
fn assert_nothing_is_left(scratch: &Scratch, cluster: &Cluster, walden: &Walden) {
    assert_eq!(cluster.sql(DATABASES), "");
    let folder = walden.repository.join("main/round-trips");
    assert!(
        is_empty(&folder),
        "{:?}",
        fs::read_dir(&folder).map(|all| all.flatten().collect::<Vec<_>>())
    );
    assert!(is_empty(&scratch.join("drills")));
    assert_eq!(dumps(walden), Value::Array(Vec::new()));
}

fn passes(major: Major) {
    let scratch = Scratch::new("roundtrip");
    let (cluster, walden) = prepared(&scratch, &major);
    let report = trip(&walden, 0);
    assert_eq!(
        (&report["verdict"], &report["kind"]),
        (&"passed".into(), &"round-trip".into())
    );
    for (name, seen) in [
        ("counts", "2 in 1 row"),
        ("values of every type", "76 in 4 rows"),
        ("values of many rows", "14000 in 2000 rows"),
        ("index", ""),
        ("foreign key", ""),
        ("sequence", ""),
        ("large object", ""),
        ("comment", ""),
        ("checksums", ""),
        ("RTO", ""),
    ] {
        let found = check(&report, name);
        assert_eq!(found["verdict"], "passed", "{report:#}");
        assert!(found["seen"].as_str().unwrap().contains(seen), "{found}");
    }
    assert!(report["rto_seconds"].as_f64().unwrap() > 0.0, "{report:#}");
    assert_nothing_is_left(&scratch, &cluster, &walden);
    let kept = records(&walden);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["details"]["kind"], "round-trip", "{kept:#?}");
    let words = walden.ok(["drill", "round-trip"]);
    assert!(
        words.starts_with("drill passed")
            && words.contains(": round trip of database \"walden_round_trip_"),
        "{words}"
    );
    assert_nothing_is_left(&scratch, &cluster, &walden);
}

outer_majors!(
    a_round_trip_brings_every_value_back_and_leaves_nothing,
    passes
);

/// A folder with programs that are the real ones, but for one that does something else.
fn programs_with(scratch: &Scratch, major: &Major, name: &str, script: &str) -> std::path::PathBuf {
    let folder = scratch.join("programs");
    fs::create_dir_all(&folder).unwrap();
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let real = major.bin().join(program);
        let text = match program == name {
            true => script.replace("REAL", &real.display().to_string()),
            false => format!("#!/bin/sh\nexec '{}' \"$@\"\n", real.display()),
        };
        let file = folder.join(program);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

#[test]
fn what_a_dump_leaves_out_fails_and_who_may_not_is_told_what_to_do() {
    let scratch = Scratch::new("roundbad");
    let major = Major::newest();
    let (cluster, walden) = prepared(&scratch, &major);
    // A dump that lacks rows looks sound by itself.
    let lossy = programs_with(
        &scratch,
        &major,
        "pg_dump",
        "#!/bin/sh\ncase \"$*\" in *--version*) exec 'REAL' \"$@\";; esac\nexec 'REAL' --exclude-table-data='*.many' \"$@\"\n",
    );
    let mut command = walden.command(["--format", "json", "drill", "round-trip"]);
    let output = finish(command.env("WALDEN_DUMP__PROGRAMS", &lossy));
    assert_eq!(output.code, Some(3), "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(check(&report, "counts")["verdict"], "failed", "{report:#}");
    assert_eq!(
        check(&report, "values of every type")["verdict"],
        "passed",
        "{report:#}"
    );
    assert_nothing_is_left(&scratch, &cluster, &walden);

    // A program that is not there is no fault of the way.
    let mut command = walden.command(["--format", "json", "drill", "round-trip"]);
    let output = finish(command.env("WALDEN_DUMP__PROGRAMS", "/nowhere"));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("\"could-not-run\""), "{output:?}");
    assert_nothing_is_left(&scratch, &cluster, &walden);

    // A dump of everything in the midst of one takes no database of Walden's.
    let begun = cluster.sql("select to_char(now() at time zone 'UTC', 'YYYYMMDD_HH24MISS')");
    let name = format!("walden_round_trip_{begun}_0000002a");
    cluster.sql(&format!("create database {name}"));
    let mark = format!(
        "x\n[walden {{\"as\":\"round-trip\",\"name\":\"{name}\",\"of\":\"{name}\",\"since\":\"2026-11-30T10:00:00Z\"}}]"
    );
    cluster.sql(&format!("comment on database {name} is '{mark}'"));
    let dumped = walden.json(["dump", "take", "--all"]).to_string();
    assert!(
        dumped.contains("\"hasty\"") && !dumped.contains("walden_round"),
        "{dumped}"
    );
    for dump in dumps(&walden).as_array().unwrap() {
        walden.ok([
            "dump",
            "delete",
            "--force",
            "--yes",
            dump["id"].as_str().unwrap(),
        ]);
    }

    // A role without the right; nothing is touched.
    cluster.sql("create role clerk login");
    let dsn = cluster.dsn().replace("user=walden", "user=clerk");
    let mut command = walden.command(["drill", "round-trip"]);
    let output = finish(command.env("WALDEN_POSTGRESQL__DSN", &dsn));
    assert_eq!(output.code, Some(4), "{output:?}");
    assert!(
        output
            .stderr
            .contains("HINT: grant it: ALTER ROLE \"clerk\" CREATEDB"),
        "{output:?}"
    );

    let standby = cluster.standby(&scratch);
    let mut command = walden.command(["drill", "round-trip"]);
    let output = finish(command.env("WALDEN_POSTGRESQL__DSN", standby.dsn()));
    assert_eq!(output.code, Some(4), "{output:?}");
    assert!(output.stderr.contains("is a standby"), "{output:?}");

    // What is called so without a mark is nobody's to drop; what is marked and left goes.
    cluster.sql("create database walden_round_trip_mine");
    let report = trip(&walden, 0);
    let told = check(&report, "leftovers")["seen"].as_str().unwrap();
    assert!(told.contains("walden_round_trip_mine"), "{report:#}");
    assert_eq!(cluster.sql(DATABASES), "walden_round_trip_mine");
}

#[test]
fn what_a_killed_round_trip_leaves_the_next_one_removes() {
    let scratch = Scratch::new("roundkill");
    let major = Major::newest();
    let (cluster, walden) = prepared(&scratch, &major);
    // Killed while it restores: there is a database, a dump, and a server in a folder.
    let slow = programs_with(
        &scratch,
        &major,
        "pg_restore",
        "#!/bin/sh\ncase \"$*\" in *--version*|*--list*) exec 'REAL' \"$@\";; esac\nsleep 30\n",
    );
    for program in fs::read_dir(major.bin()).unwrap().flatten() {
        let link = slow.join(program.file_name());
        if !link.exists() {
            std::os::unix::fs::symlink(program.path(), link).unwrap();
        }
    }
    let mut command = walden.command(["drill", "round-trip"]);
    let mut child = command
        .env("WALDEN_DRILL__PROGRAMS", &slow)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let folder = walden.repository.join("main/round-trips");
    wait_until("the server of the round trip runs", || {
        let left = fs::read_dir(scratch.join("drills"))
            .ok()
            .and_then(|mut all| all.next()?.ok());
        let file =
            left.and_then(|left| fs::read_to_string(left.path().join("data/postmaster.pid")).ok());
        file.is_some_and(|file| file.contains("ready"))
    });
    rustix::process::kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(cluster.sql(DATABASES).starts_with("walden_round_trip_20"));
    assert!(!is_empty(&folder) && !is_empty(&scratch.join("drills")));
    assert_eq!(dumps(&walden), Value::Array(Vec::new()));
    wait_until("the server notices", || {
        cluster.sql(
            "select count(*) from pg_stat_activity where application_name like 'walden_round%'",
        ) == "0"
    });
    trip(&walden, 0);
    assert_nothing_is_left(&scratch, &cluster, &walden);
}
