//! What spoils base backups: damage, a server or a Walden that ends, and what the server leaves out.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::{Ready, flip_a_byte, list_of, says, text};
use crate::harness::{Major, Stop, each_major, outer_majors, wait_until};

each_major!(bad_pages_are_told_and_the_backup_is_kept_marked, bad_pages);

fn bad_pages(major: Major) {
    let mut ready = Ready::new("pages", major, "");
    ready
        .cluster
        .sql("create table t as select n, md5(n::text) from generate_series(1, 5000) n");
    let path = ready.cluster.sql("select pg_relation_filepath('t')");
    ready.cluster.stop(Stop::Fast);
    flip_a_byte(&ready.cluster.data.join(&path), 8192 + 100);
    ready.cluster.start();
    ready.walden.expect_log("checksum");
    let stderr = ready
        .walden
        .refused(3, ["backup", "take", "--label", "marked"]);
    says(&stderr, &["do not match their checksums", &path]);
    let listed = ready.list();
    let backup = &list_of(&listed["backups"])[0];
    assert!(
        text(&list_of(&backup["checksum_failures"])[0]).contains(&path),
        "{backup}"
    );
    says(
        &ready.walden.ok(["backup", "list"]),
        &["FAILURES", "marked"],
    );
    // What was stored is what the server sent; whether to look at pages at all is a setting.
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
    let mut unverified = ready.walden.command(["backup", "take"]);
    let output = unverified
        .env("WALDEN_BACKUP__VERIFY_CHECKSUMS", "false")
        .output()
        .expect("run walden");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

each_major!(
    a_server_that_stops_in_the_middle_leaves_nothing,
    stops_in_the_middle
);

fn stops_in_the_middle(major: Major) {
    let mut ready = Ready::new("middle", major, "backup.max_rate = \"2MiB\"");
    ready
        .cluster
        .sql("create table t as select n, md5(n::text) from generate_series(1, 50000) n");
    let mut child = running(&ready);
    ready.cluster.stop(Stop::Fast);
    assert_eq!(child.wait().expect("wait for walden").code(), Some(1));
    ready.assert_nothing_kept();
}

/// A slow `walden backup take` that has begun to store.
fn running(ready: &Ready) -> Child {
    let child = ready
        .walden
        .command(["backup", "take"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("run walden");
    let base = ready.walden.repository.join("main/base");
    wait_until("a backup has its name", || base.exists());
    child
}

outer_majors!(what_the_server_leaves_out_is_no_backup, left_out);

fn left_out(major: Major) {
    let mut ready = Ready::new("leftout", major, "");
    let location = ready.scratch.folder("space");
    ready.cluster.sql(&format!(
        "create tablespace apart location '{}'",
        location.display()
    ));
    ready.cluster.sql("create database shop");
    let shop = ready
        .cluster
        .sql("select 'base/' || oid from pg_database where datname = 'shop'");
    let data = ready.cluster.data.clone();
    // Moved to another disk: the server follows the link, and leaves it out.
    for part in ["pg_xact", shop.as_str()] {
        ready.cluster.stop(Stop::Fast);
        let moved = ready.scratch.join("moved");
        fs::rename(data.join(part), &moved).expect("move a folder");
        std::os::unix::fs::symlink(&moved, data.join(part)).expect("link it");
        ready.cluster.start();
        ready.walden.expect_log("skipping special file");
        let stderr = ready.walden.refused(1, ["backup", "take"]);
        says(
            &stderr,
            &[
                &format!("leaves \"{part}\" out of the backup"),
                "HINT: put it back",
            ],
        );
        ready.assert_nothing_kept();
        ready.cluster.stop(Stop::Fast);
        fs::remove_file(data.join(part)).expect("remove the link");
        fs::rename(&moved, data.join(part)).expect("move it back");
        ready.cluster.start();
    }
    // A tablespace's disk that is not mounted is left out without a word.
    ready.cluster.sql("checkpoint");
    let version = fs::read_dir(&location)
        .expect("list")
        .next()
        .expect("a folder")
        .expect("a folder")
        .path();
    fs::rename(&version, ready.scratch.join("unmounted")).expect("unmount");
    let oid = ready
        .cluster
        .sql("select oid from pg_tablespace where spcname = 'apart'");
    let part = format!("pg_tblspc/{oid}");
    says(
        &ready.walden.refused(3, ["backup", "take"]),
        &["cannot be used", &part, "HINT: "],
    );
    fs::rename(ready.scratch.join("unmounted"), &version).expect("mount");
    let backup = &ready.list()["backups"][0];
    let id = text(&backup["id"]);
    assert_eq!(text(&backup["left_out"][0]), part);
    says(&ready.walden.ok(["backup", "list"]), &["UNUSABLE", &part]);
    says(
        &ready.walden.ok(["backup", "show", id]),
        &["LACKS", &part, "cannot be used"],
    );
    for arguments in [
        &["target", "--latest"][..],
        &["target", "--immediate", "--backup", id],
    ] {
        let output = ready.walden.run(arguments);
        assert!(
            !output.success() && format!("{}{}", output.stdout, output.stderr).contains(&part),
            "{output:?}"
        );
    }
    assert!(
        ready.take("whole")["left_out"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

outer_majors!(strangers_files_do_not_end_a_backup, strangers);

fn strangers(major: Major) {
    let trips_over_dots = major.number < 17;
    let ready = Ready::new("strangers", major, "");
    let data = ready.cluster.data.clone();
    let database = ready
        .cluster
        .sql("select 'base/' || oid from pg_database where datname = current_database()");
    std::os::unix::fs::symlink("/nonexistent", data.join("log")).expect("link");
    for socket in ["sock et", &format!("{database}/cache.sock")] {
        std::os::unix::net::UnixListener::bind(data.join(socket)).expect("make a socket");
    }
    // No page of a relation, though as long as one.
    let junk = data.join(&database).join("junk");
    fs::write(&junk, [7; 8192]).expect("write a file");
    // Not UTF-8.
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
    fs::write(data.join(name), "x").expect("write a file");
    for path in [junk, data.join(name)] {
        ready.scratch.give(&path);
    }
    for part in ["skipping special file", "checksum", "is not UTF-8"] {
        ready.walden.expect_log(part);
    }
    let backup = ready.take("");
    let told: Vec<&str> = list_of(&backup["warnings"]).iter().map(text).collect();
    for part in ["./log", "./sock et", "cache.sock", "caf\\xe9"] {
        assert_eq!(
            told.iter().filter(|line| line.contains(part)).count(),
            1,
            "{part}: {told:?}"
        );
    }
    assert_eq!(backup["checksums_verified"], true);
    let listed = ready.walden.ok(["backup", "list"]);
    assert!(
        listed.contains(" on") && !listed.contains("not verified"),
        "{listed}"
    );
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
    // An administrator's copy: 13 to 16 take what follows the dot for a segment's number.
    let copy = data.join(&database).join("16384.bak");
    fs::write(&copy, [7; 8192]).expect("write a file");
    ready.scratch.give(&copy);
    ready.walden.expect_log("cannot verify page checksums (");
    let backup = ready.take("");
    assert_eq!(backup["checksums_verified"], !trips_over_dots, "{backup}");
    assert_eq!(
        ready.walden.ok(["backup", "list"]).contains("not verified"),
        trips_over_dots
    );
    // What cannot be sent is told with a way past it.
    let long = data.join("x".repeat(120));
    fs::write(&long, "x").expect("write a file");
    ready.scratch.give(&long);
    says(
        &ready.walden.refused(1, ["backup", "take"]),
        &["xxx", "HINT: move that file out of the data directory"],
    );
}

#[test]
fn missing_wal_is_named_and_nothing_is_kept() {
    let ready = Ready::new(
        "nowal",
        Major::with_clients(),
        "backup.wal_timeout = \"2s\"",
    );
    ready.take("before");
    ready
        .cluster
        .append_conf("archive_command = '/bin/false'\n");
    ready.cluster.reload();
    let current = ready.cluster.switch_wal();
    let stderr = ready.walden.refused(1, ["backup", "take"]);
    says(
        &stderr,
        &[
            "still lacks the WAL file \"0000000100000000",
            "HINT: ",
            "archive_command",
            "wal_timeout",
        ],
    );
    assert!(
        stderr.contains("pg_stat_archiver") && stderr.contains(&current[..20]),
        "{stderr}"
    );
    assert_eq!(list_of(&ready.list()["backups"]).len(), 1);
    assert_eq!(
        fs::read_dir(ready.walden.repository.join("main/base"))
            .expect("list")
            .count(),
        1
    );
}

#[test]
fn an_interrupted_backup_leaves_nothing() {
    let ready = Ready::new("term", Major::with_clients(), "backup.max_rate = \"1MiB\"");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut child = running(&ready);
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal)
            .expect("signal walden");
        assert_eq!(child.wait().expect("wait for walden").code(), Some(1));
        let mut told = String::new();
        child
            .stderr
            .take()
            .expect("a pipe")
            .read_to_string(&mut told)
            .expect("read");
        says(&told, &["interrupted", "nothing of it is kept"]);
        ready.assert_nothing_kept();
    }
}

#[test]
fn what_a_killed_backup_left_is_shown_and_removed_by_the_next() {
    let ready = Ready::new("kill", Major::with_clients(), "backup.pack_size = \"1MiB\"");
    ready
        .cluster
        .sql("create table t as select n, md5(random()::text) from generate_series(1, 100000) n");
    let mut random = crate::harness::Random::seeded("killed backups");
    let mut left = 0;
    for _ in 0..6 {
        let mut child = running(&ready);
        std::thread::sleep(std::time::Duration::from_millis(random.below(150) as u64));
        child.kill().expect("kill walden");
        child.wait().expect("wait for walden");
        let listed = ready.list();
        for backup in list_of(&listed["backups"]) {
            ready.walden.ok(["backup", "verify", text(&backup["id"])]);
        }
        for unfinished in list_of(&listed["unfinished"]) {
            assert_eq!(unfinished["interrupted"], true, "{unfinished}");
            left += 1;
        }
        let output = ready.walden.run(["backup", "take"]);
        assert!(output.success(), "{}", output.stderr);
        let listed = ready.list();
        assert!(list_of(&listed["unfinished"]).is_empty(), "{listed}");
        let folders = fs::read_dir(ready.walden.repository.join("main/base")).expect("list");
        let holds_objects = |folder: &fs::DirEntry| {
            let mut files = fs::read_dir(folder.path()).expect("list a backup's folder");
            files.any(|file| {
                !file
                    .expect("a file")
                    .file_name()
                    .to_string_lossy()
                    .starts_with(".walden-tmp-")
            })
        };
        let kept = folders
            .filter(|folder| holds_objects(folder.as_ref().expect("a folder")))
            .count();
        assert_eq!(kept, list_of(&listed["backups"]).len());
        // The next one shall wait for a folder that appears.
        fs::remove_dir_all(ready.walden.repository.join("main/base")).expect("start anew");
    }
    assert!(left > 0, "no kill hit a backup");
}

#[test]
fn damage_is_found_and_named() {
    let ready = Ready::new(
        "damage",
        Major::with_clients(),
        "backup.pack_size = \"1MiB\"",
    );
    let backup = ready.take("");
    let id = text(&backup["id"]);
    let pack = ready.folder(&backup).join("pack-000002");
    let whole = fs::read(&pack).expect("read a pack");
    let verify = || {
        let output = ready
            .walden
            .run(["--format", "json", "backup", "verify", id]);
        assert_eq!(output.code, Some(3), "{}{}", output.stdout, output.stderr);
        let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
        list_of(&found[0]["damages"]).to_vec()
    };
    flip_a_byte(&pack, 1000);
    let damages = verify();
    assert!(
        !damages.is_empty()
            && damages
                .iter()
                .all(|damage| text(&damage["object"]).ends_with("pack-000002"))
    );
    assert!(
        damages.iter().all(|damage| damage["file"].is_string()),
        "{damages:?}"
    );
    fs::write(&pack, &whole[..whole.len() - 1]).expect("cut a pack");
    assert!(text(&verify()[0]["why"]).contains("ends before"));
    fs::remove_file(&pack).expect("remove a pack");
    assert!(text(&verify()[0]["why"]).contains("no such object"));
    fs::write(&pack, &whole).expect("mend the pack");
    ready.walden.ok(["backup", "verify", id]);
    let start = ready.walden.repository.join("main/wal/0000000100000000");
    let segments: BTreeMap<_, _> = fs::read_dir(&start)
        .expect("list WAL")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(&path).expect("read WAL")))
        .collect();
    segments
        .keys()
        .for_each(|path| fs::remove_file(path).expect("remove WAL"));
    assert!(text(&verify()[0]["object"]).contains("main/wal/"));
    segments
        .iter()
        .for_each(|(path, content)| fs::write(path, content).expect("put WAL back"));
    flip_a_byte(&ready.folder(&backup).join("manifest.zst"), 2000);
    assert!(text(&verify()[0]["object"]).ends_with("manifest.zst"));
}
