//! What an operator does wrong, and what they are told: what happened, where, and the next step.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use crate::harness::{Cluster, Major, Scratch, Walden};

/// A registered cluster that archives, so that each test spoils one thing.
struct Ready {
    walden: Walden,
    cluster: Cluster,
    scratch: Scratch,
}

fn ready(name: &str) -> Ready {
    let scratch = Scratch::new(name);
    let mut cluster = Cluster::builder(Major::with_clients())
        .on_loopback()
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    Ready {
        walden,
        cluster,
        scratch,
    }
}

/// The message has all parts, and a hint.
#[track_caller]
fn says(stderr: &str, parts: &[&str]) {
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
    assert!(stderr.contains("HINT: "), "no hint in:\n{stderr}");
}

#[test]
fn no_server_is_told_with_the_socket_tried() {
    let mut ready = ready("noserver");
    ready.cluster.stop(crate::harness::Stop::Fast);
    let port = ready.cluster.port.to_string();
    says(
        &ready.walden.refused(1, ["backup", "take"]),
        &["cannot connect", &port],
    );
}

#[test]
fn a_wrong_password_is_told_without_the_password() {
    let ready = ready("password");
    ready
        .cluster
        .sql("create role archiver login replication password 'right'");
    let hba = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
    fs::write(
        ready.cluster.data.join("pg_hba.conf"),
        format!("local all all trust\nlocal replication all trust\n{hba}"),
    )
    .expect("write pg_hba.conf");
    ready.cluster.reload();
    let dsn = format!(
        "host=127.0.0.1 port={} user=archiver password=s3cret-wrong dbname=postgres",
        ready.cluster.port
    );
    let mut command = ready.walden.command(["backup", "take"]);
    command.env("WALDEN_POSTGRESQL__DSN", dsn);
    let output = command.output().expect("run walden");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    says(&stderr, &["password", "archiver"]);
    assert!(!stderr.contains("s3cret-wrong"), "{stderr}");
}

#[test]
fn a_role_without_replication_is_told() {
    let ready = ready("role");
    ready.cluster.sql("create role plain login");
    let dsn = ready.cluster.dsn().replace("user=walden", "user=plain");
    let mut command = ready.walden.command(["backup", "take"]);
    let output = command
        .env("WALDEN_POSTGRESQL__DSN", dsn)
        .output()
        .expect("run walden");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    says(&stderr, &["plain", "REPLICATION"]);
}

#[test]
fn minimal_wal_is_told() {
    let mut ready = ready("minimal");
    ready
        .cluster
        .append_conf("archive_mode = off\nwal_level = minimal\nmax_wal_senders = 0\n");
    ready.cluster.restart();
    says(
        &ready.walden.refused(1, ["backup", "take"]),
        &["wal_level", "minimal"],
    );
}

#[test]
fn archiving_turned_off_is_told() {
    let mut ready = ready("archoff");
    ready.cluster.append_conf("archive_mode = off\n");
    ready.cluster.restart();
    says(
        &ready.walden.refused(1, ["backup", "take"]),
        &["archive_mode", "off"],
    );
}

#[test]
fn another_cluster_under_the_same_name_is_refused() {
    let ready = ready("other");
    let archiving = Cluster::builder(Major::with_clients()).setting("archive_mode", "on");
    let stranger = archiving
        .setting("archive_command", "/bin/false")
        .start(&ready.scratch);
    for verb in [&["backup", "take"][..], &["init"]] {
        let mut command = ready.walden.command(verb);
        let output = command
            .env("WALDEN_POSTGRESQL__DSN", stranger.dsn())
            .output()
            .expect("run walden");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        says(&stderr, &["system identifier", "main"]);
    }
    // And its WAL is refused, too: by the page header.
    let segment = stranger.data.join("pg_wal/000000010000000000000001");
    says(
        &ready
            .walden
            .refused(1, ["wal".as_ref(), "push".as_ref(), segment.as_os_str()]),
        &["system identifier"],
    );
}

#[test]
fn a_folder_that_is_no_repository_is_told() {
    let ready = ready("norepo");
    let elsewhere = ready.scratch.folder("empty");
    let url = format!("file://{}", elsewhere.display());
    for verb in [
        &["backup", "list"][..],
        &["backup", "take"],
        &["wal", "list"],
        &["restore", "--to-dir", "/nowhere"],
    ] {
        let output = ready
            .walden
            .command(verb)
            .env("WALDEN_REPOSITORY__URL", &url)
            .output()
            .expect("run walden");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {stderr}");
        says(
            &stderr,
            &["not a Walden repository", "empty", "walden init"],
        );
    }
}

#[test]
fn a_newer_repository_is_refused() {
    let ready = ready("newer");
    let marker = ready.walden.repository.join("walden.json");
    let newer = fs::read_to_string(&marker)
        .expect("read the marker")
        .replace("\"format\": 1", "\"format\": 2");
    fs::write(&marker, newer).expect("write the marker");
    says(
        &ready.walden.refused(1, ["backup", "list"]),
        &["format version 2", "version 1"],
    );
}

#[test]
fn a_repository_that_cannot_be_written_is_told() {
    let ready = ready("readonly");
    ready.walden.ok(["backup", "take"]);
    let main = ready.walden.repository.join("main");
    let close = |mode| {
        for folder in [&main, &main.join("base"), &main.join("wal")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode))
                .expect("change the folder's mode");
        }
    };
    close(0o500);
    let told = ready.walden.refused(1, ["backup", "take"]);
    close(0o700);
    says(&told, &["cannot put", "repo sitory", "Permission denied"]);
}

#[test]
fn an_unregistered_cluster_is_told() {
    let ready = ready("unreg");
    let output = ready
        .walden
        .command(["backup", "list"])
        .env("WALDEN_CLUSTER__NAME", "other")
        .output()
        .expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    says(&stderr, &["\"other\" is not registered", "walden init"]);
}

/// Overwrites where all tables of an index begin but those that are read when it is opened.
fn damage_index(path: &Path) {
    let db = rusqlite::Connection::open(path).expect("open the index");
    let pages: u32 = db
        .pragma_query_value(None, "page_size", |row| row.get(0))
        .expect("the size of a page");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE rootpage > 0 AND name <> 'identity'";
    let mut select = db.prepare(sql).expect("the tables");
    let roots = select
        .query_map([], |row| row.get::<_, u32>(0))
        .expect("the tables");
    let roots: Vec<u32> = roots.collect::<Result<_, _>>().expect("the tables");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("open the index");
    for root in roots {
        file.write_all_at(&vec![0x5a; pages as usize], u64::from((root - 1) * pages))
            .expect("damage the index");
    }
}

#[test]
fn a_damaged_index_stops_no_plan_and_is_made_anew() {
    let ready = ready("index");
    ready.walden.ok(["backup", "take"]);
    ready
        .cluster
        .sql("create table gone (id int); drop table gone");
    ready.cluster.archive_now();
    let dir = ready.scratch.join("restored").display().to_string();
    let expected = [
        ready.walden.ok(["find", "--all"]),
        ready.walden.ok(["target"]),
    ];
    let mut files = fs::read_dir(ready.scratch.join("cache"))
        .expect("the cache")
        .map(|file| file.expect("a file").path());
    let index = files
        .find(|path| path.extension().is_some_and(|end| end == "index"))
        .expect("an index");
    let path = index.display().to_string();
    let verbs: [(&[&str], Option<&String>); 4] = [
        (&["find", "--all"], Some(&expected[0])),
        (&["target"], Some(&expected[1])),
        (
            &["restore", "--latest", "--dry-run", "--to-dir", &dir],
            None,
        ),
        (
            &[
                "restore",
                "--time",
                "2100-01-01 00:00:00",
                "--dry-run",
                "--to-dir",
                &dir,
            ],
            None,
        ),
    ];
    for part in [
        "was damaged and is made anew",
        "cannot be used: database disk image is malformed",
    ] {
        ready.walden.expect_log(part);
    }
    for (arguments, expected) in verbs {
        damage_index(&index);
        let output = ready.walden.run(arguments);
        says(
            &output.stderr,
            &["cannot be used", &path, "malformed", "delete"],
        );
        match expected {
            Some(expected) => assert_eq!(
                (output.code, &output.stdout),
                (Some(0), expected),
                "{}",
                output.stderr
            ),
            // A time beyond what is archived is refused, for that reason.
            None => assert_eq!(
                output.code,
                Some(if arguments[1] == "--latest" { 0 } else { 4 }),
                "{}",
                output.stderr
            ),
        }
        let again = ready.walden.run(["target"]);
        assert!(
            again.code == Some(0) && !again.stderr.contains("index"),
            "{}",
            again.stderr
        );
    }
}
