//! Copies: made while the source archives, of one backup, refused, and of what cannot be restored.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{archiving, copy_to, files, other, take};
use crate::harness::{
    Cluster, Major, ObjectStore, Proxy, Rows, Scratch, Walden, outer_majors, wait_until,
};

/// The rows of a restore from this repository.
fn rows(walden: &Walden, major: &Major, data: PathBuf, target: &[&str]) -> Rows {
    let bin = major.bin().display().to_string();
    let to_dir = data.display().to_string();
    let arguments = [
        "restore",
        "--to-dir",
        to_dir.as_str(),
        "--start",
        "--pg-bin",
        bin.as_str(),
    ];
    let said = walden.json(arguments.iter().chain(target));
    let recovered = &said["recovered"];
    let socket = PathBuf::from(recovered["socket_directory"].as_str().expect("a folder"));
    let mut cluster = Cluster::of(major.clone(), data, socket.clone());
    cluster.adopt(recovered["port"].as_u64().expect("a port") as u32, &socket);
    cluster.rows()
}

outer_majors!(
    a_copy_made_while_the_cluster_archives_restores_the_same_rows,
    same_rows
);

fn same_rows(major: Major) {
    let scratch = Scratch::new("copy");
    let (cluster, walden) = archiving(&scratch, &major);
    take(&walden);
    let first = cluster.mark("on both");
    let standby = cluster.standby(&scratch);
    standby.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    standby.promote();
    let old = cluster.mark("on the old timeline");
    cluster.commit("behind it");
    cluster.archive_now();
    let new = standby.mark("on the new timeline");
    standby.commit("behind it");
    standby.archive_now();
    wait_until("the new timeline's history is archived", || {
        walden
            .repository
            .join("main/wal/00000002.history.zst")
            .exists()
    });
    take(&walden);
    let copy = other(&scratch, &cluster, "copy");
    let done = AtomicBool::new(false);
    let copied = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                cluster.commit("meanwhile");
                cluster.archive_now();
            }
        });
        let copied = walden.json(copy_to(&copy, &[]));
        done.store(true, Ordering::SeqCst);
        copied
    });
    assert_eq!(
        (&copied["complete"], &copied["repository_created"]),
        (&Value::Bool(true), &Value::Bool(true)),
        "{copied}"
    );
    let proofs = copied["continuity"]["proofs"].as_array().expect("proofs");
    assert!(
        proofs.len() >= 3 && proofs.iter().all(|proof| proof["source_end"].is_string()),
        "{copied}"
    );
    // A second run brings what came since, and copies nothing else.
    let again = walden.json(copy_to(&copy, &[]));
    assert_eq!(
        (&again["packs"]["copied"], &again["backups"]["copied"]),
        (&Value::from(0), &Value::from(0)),
        "{again}"
    );
    assert_eq!(
        files(&copy.repository.join("main")),
        files(&walden.repository.join("main"))
    );
    for (name, target, expected) in [
        (
            "both",
            ["--time", &first.commit_time, "--timeline", "1"],
            first.with(),
        ),
        (
            "old",
            ["--time", &old.commit_time, "--timeline", "1"],
            old.with(),
        ),
        (
            "new",
            ["--time", &new.commit_time, "--timeline", "2"],
            new.with(),
        ),
    ] {
        assert_eq!(
            rows(&copy, &major, scratch.join(name), &target),
            expected,
            "{name}"
        );
    }
    assert!(copy.ok(["repo", "verify"]).contains("is sound"));
}

#[test]
fn one_backup_is_copied_with_its_wal_and_restored_from_there() {
    let (scratch, major) = (Scratch::new("one"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    let before = cluster.mark("before").with();
    let id = take(&walden);
    cluster.mark("after");
    cluster.archive_now();
    take(&walden);
    let copy = other(&scratch, &cluster, "copy");
    let said = walden.ok(copy_to(&copy, &["--backup", &id]));
    assert!(
        said.contains("proven") && said.contains("copy complete; ") && said.contains(&id),
        "{said}"
    );
    assert_eq!(
        copy.json(["backup", "list"])["backups"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        rows(&copy, &major, scratch.join("restored"), &["--immediate"]),
        before
    );
}

#[test]
fn a_copy_refuses_itself_strangers_and_nonsense() {
    let (scratch, major) = (Scratch::new("refuse"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    let told = walden.refused(
        1,
        [
            "repo",
            "copy",
            "--to",
            &format!("file://{}", walden.repository.display()),
        ],
    );
    assert!(
        told.contains("is the same repository") && told.contains("HINT: name another"),
        "{told}"
    );
    let stranger = Cluster::builder(major).segment_mib(1).start(&scratch);
    let elsewhere = other(&scratch, &stranger, "elsewhere");
    elsewhere.ok(["init"]);
    let told = walden.refused(1, copy_to(&elsewhere, &[]));
    assert!(
        told.contains("has a cluster \"main\" with system identifier") && told.contains("HINT"),
        "{told}"
    );
    assert_eq!(files(&elsewhere.repository.join("main")).len(), 1);
    let told = walden.refused(1, ["repo", "copy", "--to", "ftp://x/y"]);
    assert!(
        told.contains("--to \"ftp://x/y\": scheme \"ftp\" is not supported"),
        "{told}"
    );
    walden.refused(2, ["repo", "copy"]);
    let told = walden.refused(
        1,
        copy_to(
            &other(&scratch, &cluster, "new"),
            &["--backup", "20200101-000000Z"],
        ),
    );
    assert!(
        told.contains("there is no backup \"20200101-000000Z\""),
        "{told}"
    );
}

#[test]
fn a_store_that_overwrites_takes_no_copy() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let scratch = Scratch::new("overwrites");
    let (_cluster, walden) = archiving(&scratch, &Major::newest());
    let proxy = Proxy::before(store);
    proxy.ignore_if_none_match();
    let bucket = store.fresh_bucket().through(&proxy);
    let text = format!(
        "repository.url = \"{}\"\ncluster.name = \"main\"\n{}",
        bucket.url(),
        bucket.settings()
    );
    let config = scratch
        .write("overwrites.toml", &text)
        .display()
        .to_string();
    let told = walden.refused(1, ["repo", "copy", "--to-config", &config]);
    assert!(
        told.contains("cannot hold a repository: a create-only put")
            && told.contains("If-None-Match"),
        "{told}"
    );
    assert_eq!(
        bucket.request("GET", "walden.json", b"").status,
        404,
        "it was made a repository"
    );
}

#[test]
fn a_copy_of_a_backup_that_cannot_be_restored_claims_nothing() {
    let (scratch, major) = (Scratch::new("not restorable"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    let id = take(&walden);
    let backups = walden.json(["backup", "list"]);
    let start = backups["backups"][0]["start_lsn"].as_str().expect("an LSN");
    fs::remove_file(
        walden.segment_object(&cluster.sql(&format!("select pg_walfile_name('{start}')"))),
    )
    .expect("lose its first segment");
    let copy = other(&scratch, &cluster, "copy");
    let output = walden.run(copy_to(&copy, &[]));
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    for expected in [
        &format!("NOT RESTORABLE: backup {id}"),
        "all that the source had is there, but NOT every backup",
    ] {
        assert!(
            output.stdout.contains(expected),
            "{expected}:\n{}",
            output.stdout
        );
    }
    assert!(
        !output.stdout.contains("proven") && !output.stdout.contains("not read"),
        "{}",
        output.stdout
    );
    let output = walden.run(copy_to(&copy, &["--format", "json"]));
    let said: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(
        (output.code, &said["complete"], &said["sound"]),
        (Some(3), &true.into(), &false.into()),
        "{said}"
    );
    assert_eq!(
        said["continuity"]["not_restorable"],
        Value::from(vec![id]),
        "{said}"
    );
    assert_eq!(
        said["continuity"]["proofs"][0]["verdict"], "not_restorable",
        "{said}"
    );
    assert_eq!(said["wal"]["present"], said["wal"]["not_read"], "{said}");
    assert!(
        walden
            .run(copy_to(&copy, &[]))
            .stdout
            .contains("present, not read: WAL files")
    );
}
