//! Repositories as a whole: copied, verified, measured.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::harness::{
    Cluster, Major, ObjectStore, Proxy, Rows, Scratch, Walden, outer_majors, wait_until,
};

/// A registered cluster that archives into a new repository through the hook, without a service.
fn archiving(scratch: &Scratch, major: &Major) -> (Cluster, Walden) {
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(scratch);
    let walden = Walden::with(scratch, &cluster, "backup.pack_size = \"1MiB\"");
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    cluster.open_ledger();
    (cluster, walden)
}

fn take(walden: &Walden) -> String {
    walden.json(["backup", "take"])["id"]
        .as_str()
        .expect("an id")
        .to_string()
}

/// The same cluster in another repository, by a configuration of its own.
fn other(scratch: &Scratch, cluster: &Cluster, name: &str) -> Walden {
    let folder = scratch.join(name);
    let text = format!(
        "repository.url = \"file://{}\"\ncluster.name = \"main\"\npostgresql.dsn = \"{}\"\n",
        folder.display(),
        cluster.dsn()
    );
    Walden::by(
        scratch,
        scratch.write(&format!("{name}.toml"), &text),
        folder,
    )
}

fn copy_to<'a>(other: &'a Walden, more: &[&'a str]) -> Vec<String> {
    let config = other.config.display().to_string();
    let arguments = ["repo", "copy", "--to-config", config.as_str()];
    arguments
        .iter()
        .chain(more)
        .map(|argument| argument.to_string())
        .collect()
}

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

/// Files below a folder, by their paths in it, in order.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut waiting = vec![folder.to_path_buf()];
    let mut found = Vec::new();
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).expect("list") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path
                .strip_prefix(folder)
                .expect("below")
                .display()
                .to_string();
            found.push((name, fs::read(path).expect("read an object")));
        }
    }
    found.sort();
    found
}

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

#[test]
fn work_that_is_interrupted_ends_at_once_and_says_so() {
    let (scratch, major) = (Scratch::new("signal"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    take(&walden);
    // Reading a pipe that nobody writes to never ends.
    let pipe = walden.segment_object(&cluster.archive_now());
    fs::remove_file(&pipe).expect("remove a segment");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("make a pipe");
    scratch.give(&pipe);
    let copy = other(&scratch, &cluster, "copy");
    for arguments in [
        vec!["repo".to_string(), "verify".to_string()],
        copy_to(&copy, &[]),
    ] {
        let mut command = walden.command(&arguments);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run walden");
        let status = format!("/proc/{}/status", child.id());
        wait_until("walden waits for signals", || {
            let status = fs::read_to_string(&status).expect("the status of walden");
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .expect("SigCgt");
            u64::from_str_radix(caught.trim(), 16).expect("a mask") & (1 << 1) != 0
        });
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::INT,
        )
        .expect("signal walden");
        let output = child.wait_with_output().expect("wait for walden");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("ERROR: interrupted"), "{told}");
    }
}

#[test]
fn the_numbers_of_stats_are_what_lies_on_disk() {
    let (scratch, major) = (Scratch::new("stats"), Major::newest());
    let (cluster, walden) = archiving(&scratch, &major);
    let id = take(&walden);
    let last = cluster.archive_now();
    let stats = walden.json(["repo", "stats"]);
    let all = files(&walden.repository.join("main"));
    let on_disk = |part: &str| {
        let found: Vec<&Vec<u8>> = all
            .iter()
            .filter(|(name, _)| name.contains(part))
            .map(|(_, bytes)| bytes)
            .collect();
        (
            found.len() as u64,
            found.iter().map(|bytes| bytes.len() as u64).sum::<u64>(),
        )
    };
    let size = |value: &Value| {
        (
            value["objects"].as_u64().expect("a number"),
            value["stored_bytes"].as_u64().expect("bytes"),
        )
    };
    assert_eq!(size(&stats["total"]), on_disk(""));
    assert_eq!(size(&stats["kinds"]["packs"]), on_disk("/pack-"));
    assert_eq!(size(&stats["kinds"]["manifests"]), on_disk("manifest.zst"));
    assert_eq!(
        size(&stats["kinds"]["segments"]),
        on_disk("wal/0000000100000000/")
    );
    assert_eq!(
        size(&stats["kinds"]["backup_histories"]),
        on_disk(".backup.zst")
    );
    assert_eq!(stats["timelines"][0]["last"], Value::from(last));
    let backup = &stats["backups"][0];
    assert_eq!(
        (&backup["id"], &backup["state"]),
        (&Value::from(id.as_str()), &Value::from("complete"))
    );
    assert_eq!(
        backup["stored_bytes"].as_u64().expect("bytes"),
        on_disk(&id).1
    );
    let text = walden.ok(["repo", "stats"]);
    assert!(
        text.contains("WAL segments") && text.contains(&id) && text.contains("newest: "),
        "{text}"
    );
}
