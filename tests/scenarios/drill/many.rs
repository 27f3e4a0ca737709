//! Many drills: of random moments while the source works, and killed at random ones.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rustix::process::{Pid, Signal};

use super::{check, drill, is_empty, prepared, records};
use crate::harness::{Cluster, Major, Random, Scratch, finish, is_long};

/// The rows of a ledger with the times of their commits, in the order of both.
fn commits(cluster: &Cluster) -> Vec<DateTime<Utc>> {
    let times = cluster.sql(
        "select to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from ledger order by n",
    );
    let times = times.lines().map(|time| time.parse().expect("a time"));
    times.collect()
}

/// The moment that a report names as its target, such as `2026-01-31 12:00:00.000000+00`.
fn moment(target: &str) -> DateTime<Utc> {
    let words: Vec<&str> = target.split([' ', ',']).collect();
    let pairs = words
        .windows(2)
        .map(|pair| format!("{}:00", pair.join(" ")));
    let mut found = pairs.filter_map(|text| text.parse().ok());
    found.next().unwrap_or_else(|| panic!("no time: {target}"))
}

/// Says that work is over, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_random_moment_is_the_one_that_was_promised_while_the_source_works() {
    let (scratch, major) = (Scratch::new("drillrandom"), Major::newest());
    let (cluster, walden) = prepared(&scratch, &major);
    cluster.sql("create table ledger(n int)");
    let seen = scratch.join("seen");
    let psql = Major::with_clients().program("psql");
    let command = serde_json::json!([
        "sh",
        "-c",
        format!(
            "'{}' -XAtc 'select count(*) from ledger' >'{}' 2>&1; true",
            psql.display(),
            seen.display()
        )
    ]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                n += 1;
                cluster.sql(&format!("insert into ledger values ({n})"));
                if n % 20 == 0 {
                    cluster.switch_wal();
                }
            }
        });
        let _over = Over(&is_over);
        for round in 0..if is_long() { 50 } else { 2 } {
            let arguments = ["--format", "json", "drill", "run", "--at", "random"];
            let mut asked = walden.command(arguments);
            let output = finish(asked.env("WALDEN_DRILL__COMMAND", command.to_string()));
            assert_eq!(output.code, Some(0), "round {round}: {output:?}");
            let report: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
            assert_eq!(check(&report, "stopped as planned")["verdict"], "passed");
            let target = moment(report["target"].as_str().expect("a target"));
            let restored = fs::read_to_string(&seen).expect("what was restored");
            let expected = commits(&cluster)
                .iter()
                .filter(|time| **time <= target)
                .count();
            // Before the ledger was made there is none.
            let restored = restored.trim().parse().unwrap_or(0);
            assert_eq!(restored, expected, "round {round}: {report:#}");
        }
    });
    assert!(is_empty(&scratch.join("drills")));
}

#[test]
fn drills_killed_at_any_moment_leave_nothing_to_the_one_that_ends() {
    let (scratch, major) = (Scratch::new("drillkills"), Major::newest());
    let (_cluster, walden) = prepared(&scratch, &major);
    let mut random = Random::seeded("killed drills");
    let begun = Instant::now();
    drill(&walden, 0, &[]);
    let usual = begun.elapsed().as_millis() as usize;
    let folder = scratch.join("drills");
    for round in 0..if is_long() { 40 } else { 3 } {
        let mut long = walden.command(["drill", "run"]);
        let mut child = long.spawn().expect("a drill");
        let after = random.below(usual);
        eprintln!("round {round}: killed after {after} ms");
        thread::sleep(Duration::from_millis(after as u64));
        rustix::process::kill_process(Pid::from_child(&child), Signal::KILL).expect("kill it");
        child.wait().expect("its end");
    }
    drill(&walden, 0, &[]);
    assert!(is_empty(&folder));
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let left: Vec<String> = lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect();
    assert_eq!(left, [""; 0]);
    for record in records(&walden) {
        assert_eq!(record["verdict"], "passed", "{record:#}");
    }
}
