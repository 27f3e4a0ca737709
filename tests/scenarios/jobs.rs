//! Jobs: who runs them, when nobody does, and what is told afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use chrono::{Timelike, Utc};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Cluster, Major, Scratch, Service, Walden, clock_ahead, finish, wait_until};

/// Each run is due every hour, but not within minutes from now, and a backup takes minutes: the server sends 32 KiB a second.
fn slow() -> String {
    let minute = (Utc::now().minute() + 30) % 60;
    format!(
        "backup.max_rate = \"32KiB\"\nschedule.backup = \"{minute} * * * *\"\nschedule.lease = \"2s\"\nschedule.retry_after = \"0s\"\n"
    )
}

/// A registered cluster.
fn registered(scratch: &Scratch, settings: &str) -> (Cluster, Walden) {
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(scratch);
    let walden = Walden::with(scratch, &cluster, settings);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    (cluster, walden)
}

/// The state of job backup.
fn job(walden: &Walden) -> Value {
    let listed = walden.json(["jobs", "list"]);
    let jobs = listed["jobs"].as_array().expect("jobs").clone();
    let found = jobs.into_iter().find(|job| job["job"] == "backup");
    found.expect("job backup")
}

/// Who runs job backup.
fn runner(walden: &Walden) -> Option<u64> {
    job(walden)["running"]["pid"].as_u64()
}

/// The last runs, the newest first, by what is asked of each.
fn runs(walden: &Walden, what: &str) -> Vec<Value> {
    let listed = walden.json(["jobs", "list", "--runs"]);
    let records = listed.as_array().expect("runs").iter();
    records.map(|record| record[what].clone()).collect()
}

/// Processes that work for a runner with this configuration.
fn children(config: &Path) -> usize {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let config = config.display().to_string();
    let is_child = |line: &Vec<u8>| {
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        words.contains(&&b"--leased"[..]) && words.contains(&config.as_bytes())
    };
    lines.filter(is_child).count()
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("signal a process of ours");
}

/// `jobs run backup` under way.
fn start(walden: &Walden) -> Child {
    let mut command = walden.command(["jobs", "run", "backup"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("start a run");
    wait_until("the run has begun", || runner(walden).is_some());
    child
}

fn code(mut child: Child) -> Option<i32> {
    child.wait().expect("wait for a run").code()
}

#[test]
fn how_a_run_ended_is_told_by_its_exit_code_and_kept() {
    let scratch = Scratch::new("jobs");
    let (cluster, walden) = registered(&scratch, &slow());
    let quick = scratch.write(
        "quick.toml",
        &fs::read_to_string(&walden.config)
            .expect("read")
            .replace("32KiB", "1GiB"),
    );
    let quick = Walden::by(&scratch, quick, walden.repository.clone());
    // The newest by their names: one run has a clock that is ahead, and stays the newest.
    // It works, and says so.
    let said = quick.ok(["jobs", "run", "backup"]);
    assert!(said.starts_with("backup "), "{said}");
    assert_eq!(
        (runs(&walden, "state"), runs(&walden, "exit_code")),
        (vec!["succeeded".into()], vec![0.into()])
    );
    assert_eq!(
        quick.json(["backup", "list"])["backups"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    missed_moments_are_caught_up_and_failures_tried_again(&walden, &quick);

    // Only one at a time; whoever asks for it can end it.
    let first = start(&walden);
    assert_eq!(walden.run(["jobs", "run", "backup"]).code, Some(5));
    let said = walden.ok(["jobs", "cancel", "backup"]);
    assert!(said.ends_with("of job backup: cancelled\n"), "{said}");
    assert_eq!(code(first), Some(6));
    assert!(
        walden
            .refused(1, ["jobs", "cancel", "backup"])
            .contains("is not running")
    );
    // A runner that is told to end ends its child.
    let first = start(&walden);
    signal(first.id(), Signal::TERM);
    assert_eq!(code(first), Some(8));
    let mut slow = walden.command(["jobs", "run", "backup"]);
    slow.env("WALDEN_SCHEDULE__DEADLINE", "1s");
    assert_eq!(finish(&mut slow).code, Some(7));
    let mut wrong = walden.command(["jobs", "run", "backup"]);
    wrong.env("WALDEN_POSTGRESQL__DSN", "host=/nowhere");
    assert_eq!(finish(&mut wrong).code, Some(1));
    assert_eq!(job(&walden)["failures_in_a_row"], 4);
    for verb in ["run", "cancel"] {
        let said = walden.refused(2, ["jobs", verb, "backups"]);
        assert!(said.contains("there is no job"), "{said}");
    }
    // Of those that began in one second any may come first.
    let mut told: Vec<String> = runs(&walden, "state")
        .iter()
        .map(Value::to_string)
        .filter(|state| !state.contains("succeeded"))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            r#""cancelled""#,
            r#""failed""#,
            r#""failed""#,
            r#""failed""#,
            r#""stopped""#,
            r#""timed-out""#
        ]
    );
    let failed = runs(&walden, "state")
        .iter()
        .position(|state| state == "failed");
    let id = runs(&walden, "id")[failed.expect("a failed run")].clone();
    let failed = walden.ok(["jobs", "show", id.as_str().expect("an id")]);
    assert!(
        failed.contains("why      ") && failed.contains("/nowhere"),
        "{failed}"
    );
    assert!(walden.ok(["jobs", "list"]).contains("/nowhere"));

    a_dead_runner_is_told(&walden, &quick);
    drop(cluster);
}

/// By the schedule alone.
fn missed_moments_are_caught_up_and_failures_tried_again(walden: &Walden, quick: &Walden) {
    // What was not due is no run.
    quick.ok(["jobs", "run", "backup", "--scheduled"]);
    assert_eq!(runs(walden, "state").len(), 1);
    // An hour later one is, of three that nobody ran for.
    let mut late = quick.command(["jobs", "run", "backup", "--scheduled"]);
    late.envs(clock_ahead(3 * 3600));
    assert_eq!(finish(&mut late).code, Some(0));
    assert_eq!(
        (&runs(walden, "missed")[0], &runs(walden, "attempt")[0]),
        (&2.into(), &1.into())
    );
    assert_eq!(finish(&mut late).code, Some(0));
    assert_eq!(runs(walden, "state").len(), 2, "caught up once");
    // What fails is tried again until its moment is settled.
    let mut wrong = walden.command(["jobs", "run", "backup", "--scheduled"]);
    wrong.envs(clock_ahead(5 * 3600)).envs([
        ("WALDEN_POSTGRESQL__DSN", "host=/nowhere"),
        ("WALDEN_SCHEDULE__RETRIES", "1"),
    ]);
    assert_eq!(finish(&mut wrong).code, Some(1));
    let mut attempts = runs(walden, "attempt")[..2].to_vec();
    attempts.sort_by_key(Value::as_u64);
    assert_eq!(attempts, [1, 2]);
}

/// A runner that dies takes its child with it, and its run is told by the next one.
fn a_dead_runner_is_told(walden: &Walden, quick: &Walden) {
    let first = start(walden);
    signal(first.id(), Signal::KILL);
    code(first);
    wait_until("its child is gone", || children(&walden.config) == 0);
    let said = walden.refused(1, ["jobs", "cancel", "backup"]);
    assert!(said.contains("gives no sign"), "{said}");
    quick.ok(["jobs", "run", "backup"]);
    // Of those that began in one second any may come first.
    let states = runs(walden, "state");
    let told = |state: &str| states.iter().filter(|told| *told == state).count();
    assert_eq!(
        (told("succeeded"), told("interrupted")),
        (3, 1),
        "{states:?}"
    );
    assert_eq!(job(walden)["failures_in_a_row"], 0);
    let stats = walden.json(["repo", "stats"]);
    assert_eq!(
        stats["foreign"].as_array().map(Vec::len),
        Some(0),
        "{stats}"
    );
}

/// A service whose clock is ahead.
fn serve(walden: &Walden, ahead: i64) -> Service<'_> {
    let clock = clock_ahead(ahead);
    let environment = clock
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    walden.serve_with(&environment)
}

#[test]
fn of_two_services_one_runs_a_job_whichever_is_stopped_or_dies() {
    let scratch = Scratch::new("jobs two");
    let (_cluster, first) = registered(&scratch, &slow());
    let settings = fs::read_to_string(&first.config).expect("read");
    let settings = settings
        .replace("main.sock", "other.sock")
        .replace("/cache\"", "/cache2\"");
    let second = scratch.write("second.toml", &settings);
    let second = Walden::by(&scratch, second, first.repository.clone());
    for walden in [&first, &second] {
        walden.expect_log("interrupted: ");
        walden.expect_log("giving the backup up");
        walden.expect_log("is left for the next backup to remove");
    }
    // Seen for the first time; then both are away when it is due, and their clocks differ by ten minutes.
    first.ok(["jobs", "run", "backup", "--scheduled"]);
    let one = serve(&first, 3600);
    wait_until("the missed run is caught up", || runner(&first).is_some());
    assert_eq!(
        (runner(&first), children(&first.config)),
        (Some(one.pid().into()), 1)
    );
    let two = serve(&second, 3600 + 600);

    // The one is stopped for longer than its lease: its child ends by itself, then the other begins.
    signal(one.pid(), Signal::STOP);
    wait_until("the other service takes over", || {
        runner(&first) == Some(two.pid().into())
    });
    assert_eq!(children(&first.config), 0, "two work at once");
    signal(one.pid(), Signal::CONT);
    wait_until("the one that was stopped notices", || {
        one.log().contains("interrupted: ")
    });
    assert_eq!(
        (runner(&first), children(&first.config)),
        (Some(two.pid().into()), 0)
    );

    // The other dies.
    two.kill9();
    wait_until("the first service takes over", || {
        runner(&first) == Some(one.pid().into())
    });
    assert_eq!(children(&second.config), 0, "two work at once");
    second.ok(["jobs", "cancel", "backup"]);
    let attempts: BTreeMap<u64, Value> = runs(&first, "attempt")
        .iter()
        .map(|attempt| attempt.as_u64().expect("a number"))
        .zip(runs(&first, "state"))
        .collect();
    let told: Vec<&Value> = attempts.values().collect();
    assert_eq!(told, ["interrupted", "interrupted", "cancelled"]);
    // Dealt with: what is next is the next hour's.
    assert_eq!(job(&first)["running"], Value::Null);
    assert_eq!(
        first.json(["backup", "list"])["backups"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
    one.stop();
    let folder = fs::read_dir(first.repository.join("main/jobs/backup")).expect("list");
    assert!(folder.count() <= 3, "old objects stay");
}
