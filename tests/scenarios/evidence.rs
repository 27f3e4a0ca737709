//! Records of what was done: kept by the verbs themselves, and found out when somebody changes them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::dump_restore;
use crate::harness::{Cluster, Major, Output, Scratch, Walden};
use crate::restore::{register, take_backup};

/// A registered cluster with a backup.
fn backed_up(scratch: &Scratch) -> (Cluster, Walden) {
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(scratch);
    let walden = dump_restore::walden(scratch, &cluster, "");
    register(&mut cluster, &walden);
    take_backup(&walden);
    (cluster, walden)
}

/// All records, the newest first.
fn all_records(walden: &Walden) -> Vec<Value> {
    let records = walden.json(["evidence", "list"]);
    records.as_array().expect("records").clone()
}

/// Those of what was done, without those of the settings.
fn records(walden: &Walden) -> Vec<Value> {
    let mut records = all_records(walden);
    records.retain(|record| record["act"] != "configuration");
    records
}

/// The newest record: act, verdict and scope.
fn newest(walden: &Walden) -> (String, Value) {
    let record = records(walden).remove(0);
    let scope = record["scope"].as_str().unwrap_or_default();
    let told = format!("{} {} {scope}", record["act"], record["verdict"]).replace('"', "");
    (told.trim_end().to_string(), record)
}

#[test]
fn restores_and_verifications_leave_records_with_what_they_show() {
    let scratch = Scratch::new("evidence");
    let (_cluster, walden) = backed_up(&scratch);
    assert_eq!(walden.ok(["evidence", "list"]), "no records\n");
    walden.ok(["repo", "verify"]);
    assert_eq!(newest(&walden).0, "verification passed whole");
    let restored = scratch.join("restored").display().to_string();
    let restore = ["restore", "--immediate", "--to-dir", &restored];
    walden.ok(restore);
    assert_eq!(newest(&walden).0, "restore passed");
    // The folder is there: that says nothing of the backup.
    assert!(!walden.run(restore).success());
    let (told, record) = newest(&walden);
    assert_eq!(told, "restore could-not-run");
    assert!(record["reason"].as_str().unwrap().contains("restored"));
    let elsewhere = scratch.join("elsewhere").display().to_string();
    let too_late = ["restore", "--lsn", "FF/0", "--to-dir", &elsewhere];
    walden.refused(4, too_late);
    assert_eq!(newest(&walden).0, "restore could-not-run");
    // Wrong arguments, and a plan, are nothing that was done.
    walden.refused(
        2,
        ["restore", "--time", "yesterday's", "--to-dir", &elsewhere],
    );
    walden.ok(["restore", "--immediate", "--dry-run"]);
    assert_eq!(records(&walden).len(), 4);
    for part in [
        &["repo", "verify", "--sample", "1"][..],
        &["backup", "verify", "all"],
        &["wal", "verify"],
    ] {
        walden.ok(part);
        assert_eq!(newest(&walden).0, "verification passed part");
    }
    let segment = a_segment(&walden);
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o0)).unwrap();
    walden.refused(3, ["repo", "verify"]);
    assert_eq!(newest(&walden).0, "verification could-not-run whole");
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&segment, "what was this?").unwrap();
    walden.refused(3, ["repo", "verify"]);
    assert_eq!(newest(&walden).0, "verification failed whole");

    let restore = &records(&walden)[7];
    assert!(
        restore["subject"]
            .as_str()
            .unwrap()
            .ends_with(&format!("in \"{restored}\""))
    );
    let (writer, number) = (restore["writer"].as_str().unwrap(), &restore["number"]);
    let shown = walden.ok(["evidence", "show", &format!("{writer}/{number}")]);
    assert!(
        shown.contains("verdict  passed") && shown.contains("files "),
        "{shown}"
    );
    let verified = walden.ok(["evidence", "verify"]);
    assert!(
        verified.starts_with("10 records of 1 writer, none removed or changed\n"),
        "{verified}"
    );
    reported(&walden);
    settings_are_told(&walden);
}

/// The first record of settings has them all, the next one what changed; none has a secret.
fn settings_are_told(walden: &Walden) {
    let told = || {
        let records = walden.json(["evidence", "list", "--act", "configuration"]);
        records.as_array().unwrap().clone()
    };
    let first = told();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["details"]["settings"]["postgresql.dsn"], "***");
    let mut text = fs::read_to_string(&walden.config).unwrap();
    text += "wal.workers = 3\n";
    fs::write(&walden.config, text).unwrap();
    drop(walden.serve());
    let change = json!([{"key": "wal.workers", "from": null, "to": "3"}]);
    let both = told();
    assert_eq!((both.len(), &both[0]["details"]["changed"]), (2, &change));
    assert_ne!(both[0]["who"]["settings"], both[1]["who"]["settings"]);
    drop(walden.serve());
    assert_eq!(told().len(), 2);
}

/// Only what was whole counts for a control that asks for it.
fn reported(walden: &Walden) {
    let page = walden.ok(["evidence", "export", "--format", "html"]);
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("SOC 2 A1.2"),
        "{page}"
    );
    let table = walden.ok(["evidence", "export", "--format", "csv", "--act", "restore"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(
        walden.run(["backup", "list", "--format", "csv"]).code,
        Some(2)
    );
    let report: Value = serde_json::from_str(&walden.ok(["evidence", "export"])).unwrap();
    let controls = report["controls"].as_array().unwrap();
    let one = controls
        .iter()
        .find(|one| one["id"] == "SOC 2 A1.2")
        .unwrap();
    assert_eq!(
        (&one["passed"], &one["failed"]),
        (&1.into(), &1.into()),
        "{one}"
    );
}

/// The first segment's object.
fn a_segment(walden: &Walden) -> PathBuf {
    let folder = walden.repository.join("main/wal/0000000100000000");
    let mut segments: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    segments.remove(0)
}

#[test]
fn what_was_removed_moved_changed_or_forked_is_named() {
    let scratch = Scratch::new("tampered");
    let (_cluster, walden) = backed_up(&scratch);
    for _ in 0..4 {
        walden.ok(["wal", "verify"]);
    }
    let writer = records(&walden)[0]["writer"].as_str().unwrap().to_string();
    let folder = walden.repository.join("main/evidence").join(&writer);
    let file = |number: u32| folder.join(format!("{number:010}.json"));
    let found = || walden.run(["evidence", "verify"]);
    let kept: Vec<Vec<u8>> = (1..=4)
        .map(|number| fs::read(file(number)).unwrap())
        .collect();
    let put_back = || {
        for (number, bytes) in (1..).zip(&kept) {
            fs::write(file(number), bytes).unwrap();
        }
        assert_eq!(found().code, Some(0));
    };
    assert_named(&found(), 0, "none removed or changed");
    // Somebody makes a failure of a success.
    let text = String::from_utf8_lossy(&kept[1]).replace("passed", "failed");
    fs::write(file(2), &text).unwrap();
    assert_named(
        &found(),
        3,
        &format!("BROKEN: {writer}: record 3 follows another record 2"),
    );
    assert_eq!(walden.run(["evidence", "export"]).code, Some(3));
    fs::remove_file(file(2)).unwrap();
    assert_named(&found(), 3, "record 2 is missing");
    put_back();
    fs::write(file(2), &kept[2]).unwrap();
    fs::write(file(3), &kept[1]).unwrap();
    assert_named(&found(), 3, "record 2 says that it is record 3");
    put_back();
    fs::write(file(3), "{").unwrap();
    assert_named(&found(), 3, "record 3 cannot be understood");
    put_back();
    // What cannot be read is not broken.
    fs::set_permissions(file(3), fs::Permissions::from_mode(0o0)).unwrap();
    assert_named(&found(), 1, "UNREAD");
    fs::set_permissions(file(3), fs::Permissions::from_mode(0o600)).unwrap();
    forked(&scratch, &walden, &folder);
}

/// Two go on from the same record, each in a repository of its own with the same id, and one's records are put into the other's.
fn forked(scratch: &Scratch, walden: &Walden, folder: &Path) {
    let twin = scratch.join("twin");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&walden.repository, &twin])
        .status();
    assert!(copied.unwrap().success());
    let text = fs::read_to_string(&walden.config).unwrap();
    let url = format!("file://{}", walden.repository.display());
    let text = text.replace(&url, &format!("file://{}", twin.display()));
    let other = Walden::by(scratch, scratch.write("twin.toml", &text), twin.clone());
    for walden in [walden, &other] {
        walden.ok(["wal", "verify"]);
        walden.ok(["wal", "verify"]);
    }
    let writer = folder.file_name().unwrap();
    let theirs = twin.join("main/evidence").join(writer);
    fs::copy(
        theirs.join("0000000006.json"),
        folder.join("0000000006.json"),
    )
    .unwrap();
    let found = walden.run(["evidence", "verify"]);
    assert_named(&found, 3, "record 7 follows another record 6");
}

fn assert_named(found: &Output, code: i32, words: &str) {
    assert_eq!(found.code, Some(code), "{found:?}");
    assert!(found.stdout.contains(words), "{words}: {found:?}");
}

#[test]
fn dumps_and_backups_that_go_or_do_not_come_back_are_recorded_and_copied() {
    let scratch = Scratch::new("deletions");
    let (cluster, walden) = backed_up(&scratch);
    cluster.sql("create database shop");
    walden.refused(1, ["dump", "restore", "--latest", "--database", "shop"]);
    let (told, record) = newest(&walden);
    assert_eq!(told, "dump-restore could-not-run whole");
    assert!(
        record["reason"].as_str().unwrap().contains("dump"),
        "{record}"
    );
    for _ in 0..2 {
        walden.ok(["dump", "take", "--database", "shop"]);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let dump = [
        "dump",
        "restore",
        "--latest",
        "--database",
        "shop",
        "--as",
        "again",
    ];
    walden.ok(dump);
    assert_eq!(newest(&walden).0, "dump-restore passed whole");
    walden.ok(["dump", "verify", "all"]);
    assert_eq!(newest(&walden).0, "verification passed part");
    damage_dumps(&walden);
    walden.refused(3, dump);
    assert_eq!(newest(&walden).0, "dump-restore failed whole");
    for _ in 0..2 {
        walden.ok(["dump", "delete", "--yes", "--force", "shop_latest"]);
    }
    let (told, record) = newest(&walden);
    assert_eq!(told, "deletion passed");
    assert!(
        record["subject"].as_str().unwrap().contains("shop_"),
        "{record}"
    );
    take_backup(&walden);
    let first = walden.json(["backup", "list"])["backups"][0]["id"]
        .as_str()
        .unwrap()
        .to_string();
    walden.ok(["backup", "delete", "--yes", &first]);
    let (told, record) = newest(&walden);
    assert_eq!(
        (told.as_str(), &record["details"]["id"]),
        ("deletion passed", &first.into())
    );
    copied(&scratch, &walden);
}

fn damage_dumps(walden: &Walden) {
    let folder = walden.repository.join("main/dumps/shop");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "dump") {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x5A;
            fs::write(&path, bytes).unwrap();
        }
    }
}

/// A copy has all records as they are, and its own beside them; the next copy minds neither.
fn copied(scratch: &Scratch, walden: &Walden) {
    let folder = scratch.join("copy");
    let text = fs::read_to_string(&walden.config).unwrap();
    let url = format!("file://{}", walden.repository.display());
    let text = text.replace(&url, &format!("file://{}", folder.display()));
    let copy = Walden::by(scratch, scratch.write("copy.toml", &text), folder.clone());
    let config = copy.config.display().to_string();
    let arguments = ["repo", "copy", "--to-config", &config];
    let said = walden.json(arguments);
    let there = all_records(walden);
    assert_eq!(said["evidence"]["copied"], there.len(), "{said}");
    assert_eq!(all_records(&copy), there);
    copy.ok(["wal", "verify"]);
    walden.ok(["wal", "verify"]);
    assert_eq!(walden.json(arguments)["evidence"]["copied"], 1);
    let verified = copy.ok(["evidence", "verify"]);
    let expected = format!("{} records of 2 writers, none removed", there.len() + 3);
    assert!(verified.starts_with(&expected), "{verified}");
}
