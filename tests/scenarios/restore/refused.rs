//! What is refused before anything is written, with the reason and the nearest moment that can be had.

use std::fs;

use super::{archiving, arguments, restore, take_backup};
use crate::harness::{Cluster, Major, Marker, Scratch, Walden, outer_majors, wait_until};

/// A cluster with a backup, then a mark in each of several segments, all archived.
struct Archive {
    scratch: Scratch,
    major: Major,
    cluster: Cluster,
    walden: Walden,
    backup: String,
    marks: Vec<Marker>,
    /// The segment of each mark.
    segments: Vec<String>,
}

fn archive(name: &str) -> Archive {
    let (scratch, major) = (Scratch::new(name), Major::newest());
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    let backup = take_backup(&walden);
    let (mut marks, mut segments) = (Vec::new(), Vec::new());
    for number in 0..5 {
        marks.push(cluster.mark(&format!("mark {number}")));
        segments.push(cluster.archive_now());
    }
    Archive {
        scratch,
        major,
        cluster,
        walden,
        backup,
        marks,
        segments,
    }
}

impl Archive {
    fn dry_run(&self, target: &[&str]) -> String {
        let all: Vec<&str> = ["restore", "--dry-run"]
            .into_iter()
            .chain(target.iter().copied())
            .collect();
        self.walden.refused(4, all)
    }
}

/// The arguments that a refusal suggests, after `when`.
fn suggestion(told: &str, when: &str) -> Vec<String> {
    let line = told
        .lines()
        .find(|line| line.contains(&format!("nearest reachable moment {when}")));
    let line = line.unwrap_or_else(|| panic!("no moment {when} in:\n{told}"));
    let arguments = line.rsplit("walden restore ").next().expect("arguments");
    assert!(!arguments.contains('\''), "needs a shell: {arguments}");
    arguments.split(' ').map(str::to_string).collect()
}

#[test]
fn a_missing_segment_is_named_and_what_lies_before_it_is_restored_as_suggested() {
    let archive = archive("gap");
    fs::remove_file(archive.walden.segment_object(&archive.segments[2])).expect("lose a segment");
    let beyond = "2999-01-01 00:00:00+00";
    for target in [
        vec!["--latest"],
        vec!["--time", beyond],
        vec!["--lsn", &archive.marks[4].lsn_before],
    ] {
        let told = archive.dry_run(&target);
        assert!(
            told.contains(&archive.segments[2]) && told.contains(&archive.segments[3]),
            "{told}"
        );
    }
    let suggested = suggestion(&archive.dry_run(&["--latest"]), "before");
    let restored = restore(
        &archive.walden,
        &archive.major,
        archive.scratch.join("before"),
        &suggested,
    );
    assert_eq!(
        restored.cluster.rows(),
        archive.marks[1].with(),
        "{suggested:?}"
    );
    // A moment before the gap is reached as ever.
    let target = ["--time", archive.marks[0].commit_time.as_str()];
    let restored = restore(
        &archive.walden,
        &archive.major,
        archive.scratch.join("early"),
        &target,
    );
    assert_eq!(restored.cluster.rows(), archive.marks[0].with());
    let listed = archive.walden.ok(["wal", "list"]);
    assert!(
        listed.contains(&format!("GAP: {}", archive.segments[2])),
        "{listed}"
    );
    let verified = archive.walden.run(["wal", "verify"]);
    assert_eq!(verified.code, Some(3));
    assert!(
        verified.stdout.contains(&archive.segments[2]),
        "{}",
        verified.stdout
    );
}

/// A segment is lost after the restore was planned, when only replay can find out: PostgreSQL must stop, not promote.
#[test]
fn a_gap_met_during_replay_ends_the_restore_instead_of_promoting_early() {
    let archive = archive("during");
    // How long a gap is watched before it is called one.
    let settings = fs::read_to_string(&archive.walden.config).expect("the configuration");
    archive
        .scratch
        .write("main.toml", &(settings + "wal.timeout = \"5s\"\n"));
    let data = archive.scratch.join("restored");
    let target = [
        "restore",
        "--to-dir",
        &data.display().to_string(),
        "--xid",
        archive.marks[4].xid.as_str(),
    ];
    archive.walden.ok(target);
    fs::remove_file(archive.walden.segment_object(&archive.segments[2])).expect("lose a segment");
    let mut server = Cluster::of(
        archive.major.clone(),
        data.clone(),
        archive.scratch.path().to_path_buf(),
    );
    // Without queries during recovery pg_ctl does not wait for its end.
    server.try_start();
    wait_until("the server gives up", || {
        !data.join("postmaster.pid").exists()
    });
    assert!(
        server.log().contains(&archive.segments[2]),
        "{}",
        server.log()
    );
    let state = archive.cluster.sql(&format!(
        "select pg_read_file('{}/recovery.signal')",
        data.display()
    ));
    assert_eq!(state, "", "recovery is not over");
    // Planned now, it is refused.
    let told = archive.dry_run(&["--xid", archive.marks[4].xid.as_str()]);
    assert!(told.contains("no transaction"), "{told}");
}

#[test]
fn moments_outside_the_archive_are_refused_with_the_nearest_one() {
    let archive = archive("outside");
    let told = archive.dry_run(&["--time", "2020-01-01 00:00:00"]);
    assert!(
        told.contains("before the end of the oldest usable base backup"),
        "{told}"
    );
    let suggested = suggestion(&told, "after");
    let restored = restore(
        &archive.walden,
        &archive.major,
        archive.scratch.join("after"),
        &suggested,
    );
    assert_eq!(restored.cluster.rows(), archive.marks[0].before);
    let told = archive.dry_run(&["--time", "2999-01-01 00:00:00+00"]);
    assert!(told.contains("after the end of the archived WAL"), "{told}");
    let suggested = suggestion(&told, "before");
    let restored = restore(
        &archive.walden,
        &archive.major,
        archive.scratch.join("before"),
        &suggested,
    );
    assert_eq!(restored.cluster.rows(), archive.marks[4].with());
    let told = archive.dry_run(&["--lsn", "FF/0"]);
    assert!(told.contains("after the end of the archived WAL"), "{told}");
    let told = archive.dry_run(&["--latest", "--timeline", "7"]);
    assert!(told.contains("timeline 7 is not known"), "{told}");
    let told = archive.dry_run(&["--latest", "--backup", "20200101-000000Z"]);
    assert!(told.contains("does not exist"), "{told}");
    let plan = archive.walden.json([
        "restore",
        "--dry-run",
        "--time",
        &archive.marks[2].commit_time,
    ]);
    assert_eq!(plan["plan"]["backup"]["id"], *archive.backup);
}

#[test]
fn a_target_that_is_not_in_the_archive_is_refused_before_anything_is_written() {
    let archive = archive("unmet");
    for target in [["--name", "never made"], ["--xid", "4000000"]] {
        let data = archive.scratch.join(target[1]);
        let told = archive
            .walden
            .refused(4, super::arguments(&archive.major, &data, &target));
        assert!(
            told.contains(target[1]) && told.contains("in the archived WAL of timeline 1"),
            "{told}"
        );
        assert!(!data.exists());
    }
    // Nothing ended after the last mark, but nobody has proven that.
    for time in [
        &archive.marks[4].commit_time,
        &archive.cluster.sql("select now()"),
    ] {
        let told = archive.dry_run(&["--time", time]);
        assert!(
            told.contains("after the end of the archived WAL") && !told.contains("proven"),
            "{told}"
        );
        assert_eq!(suggestion(&told, "before"), ["--latest", "--timeline", "1"]);
    }
}

#[test]
fn folders_in_use_are_refused_and_stay_as_they_are() {
    let archive = archive("in use");
    let into = |folder: &std::path::Path| {
        archive.walden.refused(
            1,
            [
                "restore",
                "--latest",
                "--to-dir",
                &folder.display().to_string(),
            ],
        )
    };
    let told = into(&archive.cluster.data);
    assert!(
        told.contains(&format!("process {}", archive.cluster.pid())),
        "{told}"
    );
    let full = archive.scratch.folder("full");
    fs::write(full.join("precious"), "x").expect("write a file");
    let told = into(&full);
    assert!(
        told.contains("precious") && told.contains("nothing is ever overwritten"),
        "{told}"
    );
    assert_eq!(fs::read_dir(&full).expect("list").count(), 1);
    let told = into(&archive.walden.repository.join("main"));
    assert!(told.contains("repository"), "{told}");
    assert_eq!(archive.cluster.rows(), archive.marks[4].with());
}

#[test]
fn another_majors_programs_are_refused_before_anything_is_written() {
    let archive = archive("major");
    let Some(other) = (13..18).find_map(Major::find) else {
        return;
    };
    let data = archive.scratch.join("restored");
    let told = archive
        .walden
        .refused(1, super::arguments(&other, &data, &["--latest"]));
    assert!(
        told.contains("--pg-bin") && told.contains(&other.number.to_string()),
        "{told}"
    );
    assert!(!data.exists());
}

outer_majors!(wal_written_at_minimal_level_is_not_replayed, minimal);

/// While archiving was off, within one segment: no other sign of it is in the archive.
fn minimal(major: Major) {
    let scratch = Scratch::new("minimal");
    let cluster = Cluster::builder(major.clone()).start(&scratch);
    let (mut cluster, walden) = archiving(&scratch, cluster);
    walden.expect_log("its records break off: WAL is written at wal_level = minimal");
    cluster.open_ledger();
    take_backup(&walden);
    let before = cluster.mark("before");
    let settings = |level: &str, archive: &str| {
        format!(
            "wal_level = {level}\narchive_mode = {archive}\nmax_wal_senders = {}\n",
            if archive == "on" { 5 } else { 0 }
        )
    };
    cluster.append_conf(&settings("minimal", "off"));
    cluster.restart();
    // The rows are written to the table's file only.
    cluster.sql("begin; create table lost (n int); copy lost from program 'seq 1000'; commit");
    cluster.append_conf(&settings("replica", "on"));
    cluster.restart();
    let behind = cluster.mark("behind");
    let segment = cluster.archive_now();

    let shown = walden.ok(["wal", "show", &segment]);
    assert!(shown.contains("wal_level = minimal"), "{shown}");
    let data = scratch.join("refused");
    for target in [
        vec!["--latest"],
        vec!["--xid", &behind.xid],
        vec!["--lsn", &behind.lsn_before],
        vec!["--time", &behind.commit_time],
    ] {
        let told = walden.refused(4, arguments(&major, &data, &target));
        assert!(
            told.contains(&segment) && told.contains("nearest reachable moment before"),
            "{target:?}: {told}"
        );
        assert!(!data.exists());
    }
    let told = walden.refused(4, ["restore", "--dry-run", "--xid", &behind.xid]);
    let suggested = suggestion(&told, "before");
    let restored = restore(&walden, &major, scratch.join("before"), &suggested);
    assert_eq!(restored.cluster.rows(), before.with());

    take_backup(&walden);
    let later = cluster.mark("later");
    cluster.archive_now();
    let restored = restore(
        &walden,
        &major,
        scratch.join("later"),
        &["--xid", &later.xid],
    );
    assert_eq!(
        (
            restored.cluster.rows(),
            restored.cluster.sql("select count(*) from lost")
        ),
        (later.with(), "1000".into())
    );
}
