//! Logical dumps: what is taken can be used without Walden, and what fails leaves nothing that looks like a dump.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, Major, Scratch, Walden, each_major, wait_until};

/// A server with a table, and Walden beside it with this major's programs.
fn begin(scratch: &Scratch, major: Major, settings: &str) -> (Cluster, Walden) {
    let cluster = Cluster::builder(major).start(scratch);
    cluster.sql("CREATE TABLE t AS SELECT g, md5(g::text) AS m FROM generate_series(1, 20000) g");
    let settings = format!(
        "dump.programs = \"{}\"\n{settings}",
        cluster.major.bin().display()
    );
    let walden = Walden::with(scratch, &cluster, &settings);
    walden.ok(["init", "--cluster", "main"]);
    (cluster, walden)
}

fn dumps(walden: &Walden, database: &str) -> PathBuf {
    walden.repository.join("main/dumps").join(database)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

each_major!(a_dump_can_be_used_without_walden, usable);

fn usable(major: Major) {
    if ![13, 15, 18].contains(&major.number) {
        return;
    }
    let scratch = Scratch::new("dump");
    let (cluster, walden) = begin(&scratch, major, "dump.md5 = true");
    for format in ["custom", "plain", "directory"] {
        walden.ok(["dump", "take", "--format", format]);
        let folder = dumps(&walden, "postgres");
        let latest = fs::read_link(folder.join("postgres_latest")).expect("a link");
        let latest = latest.to_str().expect("a name").to_string();
        for (program, ending) in [("sha256sum", "sha256"), ("md5sum", "md5")] {
            let mut check = Command::new(program);
            check
                .current_dir(&folder)
                .args(["-c", &format!("{latest}.{ending}")]);
            assert!(
                check.status().expect("run it").success(),
                "{format}: {program}"
            );
        }
        let copy = format!("{format}_copy");
        cluster.sql(&format!("CREATE DATABASE {copy}"));
        let connect = format!(
            "-h {} -p {} -U postgres -d {copy}",
            cluster.socket_folder.display(),
            cluster.port
        );
        let (restore, psql) = (
            cluster.major.program("pg_restore"),
            cluster.major.program("psql"),
        );
        let way = match format {
            "plain" => format!("zstd -dc '{latest}' | {} {connect} -qX", psql.display()),
            _ => format!("{} {connect} '{latest}'", restore.display()),
        };
        let mut command = Command::new("sh");
        command.current_dir(&folder).args(["-ec", &way]);
        assert!(command.status().expect("run it").success(), "{way}");
        let sum = "SELECT count(*), sum(hashtext(t::text)) FROM t";
        assert_eq!(cluster.sql_in(&copy, sum), cluster.sql(sum), "{format}");
    }
    walden.ok(["dump", "verify", "all"]);
}

#[test]
fn odd_names_are_dumped_and_listed() {
    let scratch = Scratch::new("dump-names");
    let (cluster, walden) = begin(&scratch, Major::newest(), "");
    let long = "é".repeat(31) + "x";
    let odd = ["a/b \"q\" %41", "..", &long];
    for name in odd {
        cluster.sql(&format!(
            "CREATE DATABASE \"{}\"",
            name.replace('"', "\"\"")
        ));
    }
    walden.ok(["dump", "take", "--all"]);
    let listed = walden.json(["dump", "list"]);
    let listed: Vec<&str> = listed["dumps"]
        .as_array()
        .expect("dumps")
        .iter()
        .map(|dump| dump["database"].as_str().expect("a name"))
        .collect();
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert!(odd.iter().all(|name| listed.contains(name)), "{listed:?}");
}

#[test]
fn what_is_killed_leaves_nothing_that_looks_like_a_dump() {
    let scratch = Scratch::new("dump-kill");
    let (cluster, walden) = begin(&scratch, Major::newest(), "");
    walden.ok(["dump", "take"]);
    let folder = dumps(&walden, "postgres");
    let (before, latest) = (
        names(&folder).len(),
        fs::read_link(folder.join("postgres_latest")).expect("a link"),
    );
    // Until somebody lets it go on, pg_dump waits for the table.
    let mut blocker = Command::new(cluster.major.program("psql"))
        .args([
            "-X",
            "-U",
            "postgres",
            "-d",
            "postgres",
            "-p",
            &cluster.port.to_string(),
            "-h",
        ])
        .arg(&cluster.socket_folder)
        .args(["-c", "BEGIN; LOCK TABLE t; SELECT pg_sleep(60)"])
        .spawn()
        .expect("run psql");
    wait_until("the table is locked", || {
        cluster.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 't'::regclass") != "0"
    });
    let mut waiting = walden
        .command(["dump", "take"])
        .spawn()
        .expect("start walden");
    wait_until("pg_dump waits", || {
        cluster.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ 'walden' AND wait_event_type = 'Lock'") != "0"
    });
    waiting.kill().expect("kill walden");
    waiting.wait().expect("walden's end");
    blocker.kill().expect("let the table go");
    blocker.wait().expect("its end");
    let listed = walden.json(["dump", "list"]);
    let complete = |dump: &&serde_json::Value| dump["status"] == "complete";
    assert_eq!(
        listed["dumps"]
            .as_array()
            .expect("dumps")
            .iter()
            .filter(complete)
            .count(),
        1
    );
    assert_eq!(
        fs::read_link(folder.join("postgres_latest")).expect("a link"),
        latest
    );
    std::thread::sleep(std::time::Duration::from_secs(1));
    walden.ok(["dump", "take"]);
    assert_eq!(
        names(&folder).len(),
        2 * before - 1,
        "the leftover is gone: {:?}",
        names(&folder)
    );
}
