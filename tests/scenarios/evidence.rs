//! Records of what was done: kept by the verbs themselves, and found out when somebody changes them.

use std::fs;

use crate::harness::{Cluster, Major, Scratch, Walden};
use crate::restore::{register, take_backup};

#[test]
fn restores_and_verifications_leave_records_that_nobody_can_change_unseen() {
    let scratch = Scratch::new("evidence");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "");
    register(&mut cluster, &walden);
    take_backup(&walden);
    assert_eq!(walden.ok(["evidence", "list"]), "no records\n");
    walden.ok(["repo", "verify"]);
    let restored = scratch.join("restored").display().to_string();
    walden.ok(["restore", "--immediate", "--to-dir", &restored]);
    // Refused: the folder is there. Nothing was begun.
    assert!(
        !walden
            .run(["restore", "--immediate", "--to-dir", &restored])
            .success()
    );
    walden.ok(["repo", "verify", "--sample", "1"]);

    let records = walden.json(["evidence", "list"]);
    let told: Vec<String> = records
        .as_array()
        .expect("records")
        .iter()
        .map(|record| format!("{} {}", record["act"], record["verdict"]).replace('"', ""))
        .collect();
    let expected = [
        "verification passed",
        "restore failed",
        "restore passed",
        "verification passed",
    ];
    assert_eq!(told, expected);
    assert!(
        records[1]["reason"].as_str().unwrap().contains("restored"),
        "{records}"
    );
    let restore = &records[2];
    assert!(
        restore["subject"]
            .as_str()
            .unwrap()
            .ends_with(&format!("in \"{restored}\"")),
        "{restore}"
    );
    assert_eq!(restore["phases"][0]["name"], "files");
    let (writer, number) = (restore["writer"].as_str().unwrap(), &restore["number"]);
    let shown = walden.ok(["evidence", "show", &format!("{writer}/{number}")]);
    assert!(
        shown.contains("verdict  passed") && shown.contains("files "),
        "{shown}"
    );
    let verified = walden.ok(["evidence", "verify"]);
    assert!(
        verified.starts_with("4 records of 1 writer, none removed or changed\n"),
        "{verified}"
    );

    let page = walden.ok(["evidence", "export", "--format", "html"]);
    assert!(
        page.starts_with("<!DOCTYPE html>") && page.contains("SOC 2 A1.2"),
        "{page}"
    );
    let table = walden.ok(["evidence", "export", "--format", "csv", "--act", "restore"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(
        walden.run(["backup", "list", "--format", "csv"]).code,
        Some(2)
    );

    // Somebody makes a failure of a success.
    let file = walden
        .repository
        .join(format!("main/evidence/{writer}/0000000002.json"));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("passed", "failed")).unwrap();
    let found = walden.run(["evidence", "verify"]);
    assert_eq!(found.code, Some(3), "{found:?}");
    assert!(
        found.stdout.contains("record 3 follows another record 2"),
        "{found:?}"
    );
    fs::remove_file(&file).unwrap();
    let found = walden.run(["evidence", "verify"]);
    assert!(found.stdout.contains("record 2 is missing"), "{found:?}");
}
