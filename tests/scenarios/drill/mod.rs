//! Drills on real servers: the right one of three verdicts, and nothing left behind.

mod canary;
mod counts;
mod dumped;
mod dumps;
mod faults;
mod host;
mod many;
mod own;
mod round_trip;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::harness::{Builder, Cluster, Major, Scratch, Walden, finish, outer_majors, wait_until};
use crate::restore::{register, take_backup};

/// A registered cluster with a backup, WAL behind it, and a folder for drills.
fn prepared(scratch: &Scratch, major: &Major) -> (Cluster, Walden) {
    prepared_by(scratch, Cluster::builder(major.clone()))
}

fn prepared_by(scratch: &Scratch, builder: Builder) -> (Cluster, Walden) {
    let mut cluster = builder.segment_mib(1).start(scratch);
    let major = cluster.major.clone();
    let asserts = scratch.write(
        "asserts.toml",
        "[[assert]]\nname = \"orders are there\"\ndatabase = \"postgres\"\nsql = \"select count(*) from orders\"\nmin = 1000\n",
    );
    let settings = format!(
        "drill.folder = \"{0}\"\ndrill.programs = \"{1}\"\ndump.programs = \"{1}\"\ndrill.memory = \"16MiB\"\ndrill.asserts = \"{2}\"\n\
         drill.rto_target = \"10m\"\ndrill.command = [\"sh\", \"-c\", \"test -S \\\"$PGHOST/.s.PGSQL.$PGPORT\\\"\"]\n",
        scratch.join("drills").display(),
        major.bin().display(),
        asserts.display()
    );
    let walden = Walden::with(scratch, &cluster, &settings);
    register(&mut cluster, &walden);
    cluster.sql(
        "create table customers(id int primary key); insert into customers select generate_series(1, 100);
         create table orders(id int primary key, customer int references customers);
         insert into orders select n, n % 100 + 1 from generate_series(1, 1000) n",
    );
    // What the source sets for its sessions ends no check.
    cluster.sql("create database hasty");
    cluster.sql("alter database hasty set statement_timeout = 1");
    take_backup(&walden);
    cluster.sql("insert into orders select n, 1 from generate_series(1001, 1200) n");
    cluster.archive_now();
    (cluster, walden)
}

fn drill(walden: &Walden, code: i32, more: &[&str]) -> Value {
    drill_where(walden, code, more, &[])
}

/// A drill with other variables of the environment.
fn drill_where(walden: &Walden, code: i32, more: &[&str], variables: &[(&str, &str)]) -> Value {
    let arguments = [&["--format", "json", "drill", "run"], more].concat();
    let mut asked = walden.command(arguments);
    let output = finish(asked.envs(variables.iter().copied()));
    assert_eq!(output.code, Some(code), "{output:?}");
    serde_json::from_str(&output.stdout).expect("JSON")
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {report:#}"))
}

/// Adds settings, as TOML.
fn set(walden: &Walden, settings: &str) {
    let text = fs::read_to_string(&walden.config).unwrap();
    fs::write(&walden.config, format!("{text}{settings}\n")).unwrap();
}

/// What is recorded of drills, newest first.
fn records(walden: &Walden) -> Vec<Value> {
    let records = walden.json(["evidence", "list", "--act", "drill"]);
    records.as_array().expect("records").clone()
}

fn verdicts(walden: &Walden) -> Vec<String> {
    let records = records(walden);
    let verdicts = records.iter().map(|record| record["verdict"].as_str());
    verdicts
        .map(|verdict| verdict.expect("a verdict").to_string())
        .collect()
}

/// The first entry of a folder whose name is meant.
fn entry(folder: &Path, is_meant: impl Fn(&str) -> bool) -> PathBuf {
    let entries = fs::read_dir(folder).expect("list a folder").flatten();
    let mut meant = entries.filter(|entry| is_meant(&entry.file_name().to_string_lossy()));
    meant.next().expect("an entry").path()
}

fn flip_byte_of_a_pack(walden: &Walden) {
    let backup = entry(&walden.repository.join("main/base"), |_| true);
    flip_byte(&entry(&backup, |name| name.starts_with("pack-")));
}

fn flip_byte(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

/// They lead to another server, and from a drill's own to none.
const ELSEWHERE: &[(&str, &str)] = &[("PGHOSTADDR", "127.0.0.9"), ("PGSSLMODE", "require")];

fn passes(major: Major) {
    let scratch = Scratch::new("drill");
    let (_cluster, walden) = prepared(&scratch, &major);
    let report = drill_where(&walden, 0, &[], ELSEWHERE);
    assert_eq!(report["verdict"], "passed", "{report:#}");
    for name in [
        "stopped as planned",
        "orders are there",
        "drill.command",
        "RTO",
    ] {
        assert_eq!(check(&report, name)["verdict"], "passed", "{report:#}");
    }
    assert_eq!(check(&report, "orders are there")["seen"], "1200");
    // The oldest amcheck knows no tables, which is said.
    let tables = check(&report, "tables of \"postgres\"");
    let knows_tables = major.number >= 14;
    assert_eq!(tables["verdict"] == "passed", knows_tables, "{report:#}");
    let hasty = check(&report, "indexes of \"hasty\"");
    assert_ne!(hasty["verdict"], "failed", "{report:#}");
    let keys = check(&report, "foreign keys of \"postgres\"");
    assert_eq!(
        (&keys["verdict"], &keys["seen"]),
        (&"passed".into(), &"1".into())
    );
    assert!(
        report["rpo_seconds"].as_f64().unwrap() < 600.0,
        "{report:#}"
    );
    assert!(is_empty(&scratch.join("drills")));
    let random = drill(&walden, 0, &["--at", "random"]);
    assert_eq!(check(&random, "stopped as planned")["verdict"], "passed");
    // What nobody can restore to is refused, and no drill that failed.
    let refused = walden.refused(4, ["drill", "run", "--at", "2001-01-01 00:00"]);
    assert!(refused.contains("cannot restore"), "{refused}");
    assert!(is_empty(&scratch.join("drills")));
    let records = records(&walden);
    assert_eq!(records.len(), 2);
    assert_eq!(records[1]["rto_seconds"], report["rto_seconds"]);
}

outer_majors!(a_drill_passes_and_leaves_nothing, passes);

#[test]
fn each_fault_has_its_verdict() {
    let scratch = Scratch::new("drillbad");
    let (cluster, walden) = prepared(&scratch, &Major::newest());
    // A foreign key that does not hold on the source either: a row was removed behind its back.
    cluster.sql("set session_replication_role = replica; delete from customers where id = 7");
    cluster.archive_now();
    let report = drill(&walden, 3, &[]);
    assert_eq!(report["verdict"], "failed");
    assert!(
        report["reason"]
            .as_str()
            .unwrap()
            .contains("a row has no counterpart"),
        "{report:#}"
    );

    let mut without = walden.command(["--format", "json", "drill", "run"]);
    let output = finish(without.env("WALDEN_DRILL__PROGRAMS", "/nowhere"));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stdout.contains("\"could-not-run\""), "{output:?}");

    // Where the socket would have to lie elsewhere, where others could reach it.
    let long = scratch.join(&"x".repeat(90));
    let mut without = walden.command(["--format", "json", "drill", "run"]);
    let output = finish(without.env("WALDEN_DRILL__FOLDER", &long));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stdout.contains("too long for a socket"),
        "{output:?}"
    );
    assert!(is_empty(&long));

    flip_byte_of_a_pack(&walden);
    let report = drill(&walden, 3, &[]);
    assert_eq!(report["verdict"], "failed", "{report:#}");
    assert!(report["rto_seconds"].is_null());
    assert!(is_empty(&scratch.join("drills")));
    assert_eq!(
        verdicts(&walden),
        ["failed", "could-not-run", "could-not-run", "failed"]
    );
}

#[test]
fn a_drill_that_is_ended_leaves_nothing_and_one_that_is_killed_leaves_it_to_the_next() {
    let scratch = Scratch::new("drillkill");
    let (_cluster, walden) = prepared(&scratch, &Major::newest());
    let folder = scratch.join("drills");
    let server = || {
        let left = fs::read_dir(&folder).ok()?.next()?.ok()?.path();
        fs::read_to_string(left.join("data/postmaster.pid")).ok()
    };
    for (signal, is_left) in [(Signal::TERM, false), (Signal::KILL, true)] {
        let mut long = walden.command(["drill", "run"]);
        let mut child = long
            .env("WALDEN_DRILL__COMMAND", "[\"sleep\", \"20\"]")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the server of the drill runs", || {
            server().is_some_and(|file| file.contains("ready"))
        });
        std::thread::sleep(Duration::from_millis(300));
        let pid = server().unwrap().lines().next().unwrap().to_string();
        // One that nobody has taken note of is only a number.
        let runs = || fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(
            (runs(), !is_empty(&folder)),
            (is_left, is_left),
            "{signal:?}"
        );
        if is_left {
            drill(&walden, 0, &[]);
            assert!(is_empty(&folder) && !runs());
        }
    }
    let records = records(&walden);
    assert_eq!(records.len(), 2);
    let interrupted = (&records[1]["verdict"], &records[1]["reason"]);
    assert_eq!(
        interrupted,
        (&"could-not-run".into(), &"interrupted".into())
    );
}
