//! What is damaged, missing or cannot be read: named by a verification, and not taken over by a copy.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{archiving, copy_to, other, take};
use crate::harness::{Major, Scratch};

fn damage(path: &Path) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("open to damage");
    let middle = file.metadata().expect("its size").len() / 2;
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, middle).expect("read");
    file.write_all_at(&bytes.map(|byte| byte ^ 0x5A), middle)
        .expect("damage");
}

#[test]
fn what_is_damaged_or_missing_is_named_by_verify_and_refused_by_copy() {
    let (scratch, major) = (Scratch::new("damaged"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    cluster.sql("create table t as select n, md5(n::text) from generate_series(1, 20000) n");
    let (good, bad) = (take(&walden), take(&walden));
    cluster.archive_now();
    let lost = cluster.archive_now();
    let flipped = cluster.archive_now();
    cluster.archive_now();
    let sound = walden.json(["repo", "verify"]);
    assert_eq!(
        (&sound["sound"], &sound["backups"]),
        (&Value::Bool(true), &Value::from(2)),
        "{sound}"
    );
    let base = walden.repository.join("main/base");
    damage(&walden.segment_object(&flipped));
    damage(&base.join(&bad).join("pack-000001"));
    fs::remove_file(base.join(&bad).join("pack-000002")).expect("lose a pack");
    fs::remove_file(walden.segment_object(&lost)).expect("lose a segment");
    fs::write(walden.repository.join("main/stray"), "x").expect("write a stranger");
    for sample in [
        &[][..],
        &["--sample", "100%"],
        &["--sample", "1000", "--seed", "7"],
    ] {
        let output = walden.run(["repo", "verify"].iter().chain(sample));
        assert_eq!(output.code, Some(3), "{}", output.stderr);
        for expected in [
            format!("DAMAGED: object \"main/base/{bad}/pack-000001\""),
            format!("MISSING: object \"main/base/{bad}/pack-000002\""),
            format!("DAMAGED: object \"main/wal/0000000100000000/{flipped}.zst\""),
            format!("GAP: {lost} is missing"),
            "foreign: object \"main/stray\"".into(),
            "is NOT sound".into(),
        ] {
            assert!(
                output.stdout.contains(&expected),
                "{expected}:\n{}",
                output.stdout
            );
        }
        assert!(!output.stdout.contains(&good), "{}", output.stdout);
    }
    let copy = other(&scratch, &cluster, "copy");
    let output = walden.run(copy_to(&copy, &[]));
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    for expected in [
        &format!("{bad}/pack-000001\" at the source"),
        &flipped,
        "NOT PROVEN",
        "GAP of the source",
        "NOT complete",
    ] {
        assert!(
            output.stdout.contains(expected),
            "{expected}:\n{}",
            output.stdout
        );
    }
    assert_eq!(
        copy.json(["backup", "list"])["backups"][0]["id"],
        Value::from(good)
    );
    assert!(
        !copy.segment_object(&flipped).exists()
            && !copy
                .repository
                .join("main/base")
                .join(&bad)
                .join("manifest.zst")
                .exists()
    );
}

#[test]
fn a_verification_that_the_repository_fails_says_how_it_goes_on() {
    let (scratch, major) = (Scratch::new("after"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    take(&walden);
    let closed: Vec<PathBuf> = (0..21)
        .map(|_| walden.segment_object(&cluster.archive_now()))
        .collect();
    let mode = |mode: u32| {
        for object in &closed {
            fs::set_permissions(object, fs::Permissions::from_mode(mode))
                .expect("change an object's mode");
        }
    };
    mode(0o000);
    let output = walden.run(["repo", "verify"]);
    let (said, told) = (&output.stdout, &output.stderr);
    assert_eq!(output.code, Some(1), "{said}\n{told}");
    assert!(
        told.contains("ERROR: more than 20 objects cannot be read"),
        "{told}"
    );
    assert!(
        said.contains("UNREAD: object") && said.contains("Permission denied"),
        "{said}"
    );
    let hint = told
        .lines()
        .find_map(|line| line.split("--after ").nth(1))
        .expect("a hint");
    let key = hint.split('`').next().expect("a key").to_string();
    mode(0o600);
    let rest = walden.json(["repo", "verify", "--after", key.as_str()]);
    assert_eq!(
        (&rest["sound"], &rest["backups"]),
        (&Value::Bool(true), &Value::from(0)),
        "{rest}"
    );
    // The last of them and what lies behind it, but nothing before.
    let read = rest["wal_files"].as_u64().expect("a number");
    assert!((21..25).contains(&read), "{rest}");
    let told = walden.refused(
        1,
        ["repo", "verify", "--sample", "1%", "--after", key.as_str()],
    );
    assert!(told.contains("add the --seed"), "{told}");
}
