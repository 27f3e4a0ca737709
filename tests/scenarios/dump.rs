//! Logical dumps: what is taken can be used without Walden, and what fails leaves nothing that looks like a dump.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Cluster, Major, Scratch, Walden, command, finish, outer_majors, wait_until};

/// A server with a table, and Walden beside it with this major's programs.
fn begin(scratch: &Scratch, major: Major, settings: &str) -> (Cluster, Walden) {
    let cluster = Cluster::builder(major).start(scratch);
    cluster.sql("CREATE TABLE t AS SELECT g, md5(g::text) AS m FROM generate_series(1, 20000) g");
    let settings = format!(
        "dump.programs = \"{}\"\ndump.spool = \"{}\"\n{settings}",
        cluster.major.bin().display(),
        scratch.folder("spool").display()
    );
    let walden = Walden::with(scratch, &cluster, &settings);
    walden.ok(["init"]);
    (cluster, walden)
}

/// A session that has begun a transaction with this statement, and ends it when told to.
struct Session(Child);

impl Session {
    fn begin(cluster: &Cluster, sql: &str) -> Self {
        let mut psql = command(Major::with_clients().program("psql"));
        psql.args(["-Xq", "-U", "walden", "-d", "postgres", "-h"])
            .arg(&cluster.socket_folder)
            .args(["-p", &cluster.port.to_string()]);
        let mut child = psql.stdin(Stdio::piped()).spawn().expect("run psql");
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
        let before = cluster.sql(held);
        let input = child.stdin.as_mut().expect("its input");
        writeln!(input, "BEGIN; {sql};").expect("say it");
        wait_until("the session has its lock", || cluster.sql(held) != before);
        Self(child)
    }

    fn commit(mut self) {
        let mut input = self.0.stdin.take().expect("its input");
        writeln!(input, "COMMIT;").expect("say it");
        drop(input);
        assert!(self.0.wait().expect("its end").success());
    }
}

/// Processes of `pg_dump`, and how many of all sessions of Walden wait for a lock.
fn waiting(cluster: &Cluster) -> String {
    cluster.sql(
        "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid) \
         WHERE NOT granted AND application_name <> 'psql'",
    )
}

fn latest(walden: &Walden) -> String {
    let link = dumps(walden, "postgres").join("postgres_latest");
    let link = fs::read_link(link).expect("a link");
    link.to_str().expect("a name").to_string()
}

fn statuses(walden: &Walden) -> Vec<String> {
    let listed = walden.json(["dump", "list"]);
    let listed = listed["dumps"].as_array().expect("dumps");
    let status = |dump: &serde_json::Value| dump["status"].as_str().expect("a status").to_string();
    listed.iter().map(status).collect()
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

outer_majors!(a_dump_can_be_used_without_walden, usable);

fn usable(major: Major) {
    let scratch = Scratch::new("dump");
    let (cluster, walden) = begin(&scratch, major, "dump.md5 = true");
    for format in ["custom", "plain", "directory"] {
        walden.ok(["dump", "take", "--format", format]);
        let folder = dumps(&walden, "postgres");
        let latest = latest(&walden);
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
            "-h '{}' -p {} -U walden -d {copy}",
            cluster.socket_folder.display(),
            cluster.port
        );
        let (restore, psql) = (
            cluster.major.program("pg_restore"),
            Major::with_clients().program("psql"),
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
    let odd = ["a/b \"q\" %41", "..", "a=b", "postgres://x", &long];
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
    assert_eq!(listed.len(), odd.len() + 1, "{listed:?}");
    assert!(odd.iter().all(|name| listed.contains(name)), "{listed:?}");
}

#[test]
fn what_is_killed_leaves_nothing_that_looks_like_a_dump() {
    let scratch = Scratch::new("dump-kill");
    let (cluster, walden) = begin(&scratch, Major::newest(), "");
    walden.ok(["dump", "take"]);
    let folder = dumps(&walden, "postgres");
    let (before, first) = (names(&folder).len(), latest(&walden));
    let blocker = Session::begin(&cluster, "LOCK TABLE t");
    let mut taking = walden
        .command(["dump", "take"])
        .stderr(Stdio::null())
        .spawn()
        .expect("start walden");
    wait_until("pg_dump waits", || waiting(&cluster) == "2");
    assert_eq!(statuses(&walden), ["complete", "running"]);
    taking.kill().expect("kill walden");
    taking.wait().expect("walden's end");
    assert_eq!(statuses(&walden), ["complete", "interrupted"]);
    assert_eq!(latest(&walden), first);

    // Of pg_dump's own end Walden removes what is left at once, and nothing of others' dumps.
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> 'psql' AND datname IS NOT NULL");
    wait_until("the killed dump's sessions are gone", || {
        waiting(&cluster) == "0"
    });
    let taking = walden
        .command(["dump", "take"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("start walden");
    wait_until("pg_dump waits", || waiting(&cluster) == "2");
    let mine = children(taking.id());
    let [program] = mine.as_slice() else {
        panic!("one child: {mine:?}");
    };
    let program = rustix::process::Pid::from_raw(*program).expect("a number");
    rustix::process::kill_process(program, rustix::process::Signal::KILL).expect("kill pg_dump");
    blocker.commit();
    let output = taking.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("signal: 9"),
        "{said}"
    );
    assert_eq!(
        (statuses(&walden), latest(&walden)),
        (vec!["complete".to_string()], first)
    );
    assert_eq!(names(&folder).len(), before, "{:?}", names(&folder));
}

/// Processes that a process started.
fn children(parent: u32) -> Vec<i32> {
    let text =
        fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let own = text
        .split_whitespace()
        .map(|pid| pid.parse().expect("a number"));
    own.chain(other_threads(parent)).collect()
}

fn other_threads(parent: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).expect("its threads");
    let of = |task: fs::DirEntry| match task.file_name().to_str() == Some(&parent.to_string()) {
        true => String::new(),
        false => fs::read_to_string(task.path().join("children")).unwrap_or_default(),
    };
    let all: Vec<String> = tasks.flatten().map(of).collect();
    all.iter()
        .flat_map(|text| text.split_whitespace())
        .map(|pid| pid.parse().expect("a number"))
        .collect()
}

#[test]
fn a_table_that_goes_while_the_dump_begins_costs_another_try() {
    let scratch = Scratch::new("dump-drop");
    let (cluster, walden) = begin(&scratch, Major::newest(), "");
    cluster.sql("CREATE TABLE gone (a int); CREATE TABLE held (a int)");
    let held = Session::begin(&cluster, "LOCK TABLE held");
    let going = Session::begin(&cluster, "DROP TABLE gone");
    // Two at once: each has a name of its own.
    let start = || {
        walden
            .command(["dump", "take"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("start walden")
    };
    let taking = [start(), start()];
    wait_until("both dumps wait", || waiting(&cluster) == "4");
    going.commit();
    // pg_dump fails, while the question for the tables still waits.
    wait_until("both programs have failed", || waiting(&cluster) == "2");
    held.commit();
    for child in taking {
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("it begins again"),
            "{said}"
        );
    }
    assert_eq!(statuses(&walden), ["complete", "complete"]);
    let newest = names(&dumps(&walden, "postgres"))
        .into_iter()
        .filter(|name| name.ends_with(".dump"))
        .max();
    assert_eq!(Some(latest(&walden)), newest);
    walden.ok(["dump", "verify", "all"]);
}

#[test]
fn a_dump_of_some_tables_is_never_the_latest_of_its_database() {
    let scratch = Scratch::new("dump-partial");
    let (_cluster, walden) = begin(&scratch, Major::newest(), "");
    walden.ok(["dump", "take", "--table", "t"]);
    assert!(
        names(&dumps(&walden, "postgres"))
            .iter()
            .all(|name| !name.contains("latest"))
    );
    walden.ok(["dump", "take"]);
    let whole = latest(&walden);
    walden.ok(["dump", "take", "--exclude-table", "t"]);
    assert_eq!(latest(&walden), whole);
    let said = walden.refused(
        1,
        ["dump", "delete", "--yes", whole.trim_end_matches(".dump")],
    );
    assert!(said.contains("last one of its kind"), "{said}");
}

#[test]
fn globals_that_are_broken_off_fail_the_dump() {
    let scratch = Scratch::new("dump-globals");
    let folder = scratch.folder("bin");
    let newest = Major::newest();
    let _ = std::os::unix::fs::symlink(newest.program("pg_dump"), folder.join("pg_dump"));
    let (_cluster, walden) = begin(&scratch, Major::newest(), "");
    let script = format!(
        "#!/bin/sh\nset -e\n{} \"$@\" | head -n 8\n",
        newest.program("pg_dumpall").display()
    );
    fs::write(folder.join("pg_dumpall"), script).expect("write it");
    fs::set_permissions(folder.join("pg_dumpall"), fs::Permissions::from_mode(0o755))
        .expect("make it run");
    let mut command = walden.command(["dump", "take"]);
    let output = finish(command.env("WALDEN_DUMP__PROGRAMS", &folder));
    assert!(
        !output.success() && output.stderr.contains("no whole dump"),
        "{}",
        output.stderr
    );
    assert!(statuses(&walden).is_empty());
}
