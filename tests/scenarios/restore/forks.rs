//! What PostgreSQL writes where timelines fork, in every way that it may, is archived and can be restored.

use std::fs;
use std::path::Path;

use super::{archiving, restore, take_backup};
use crate::harness::{Cluster, Major, Rows, Scratch, Stop, Walden, wait_until};

/// Starts a copy of a cluster that was made by PostgreSQL's own means as a recovery; it archives as the original does.
pub fn recover(
    major: &Major,
    data: &Path,
    scratch: &Scratch,
    restore_command: &str,
    settings: &str,
) -> Cluster {
    let mut cluster = Cluster::of(
        major.clone(),
        data.to_path_buf(),
        scratch.path().to_path_buf(),
    );
    cluster.append_conf(&format!(
        "restore_command = '{}'\n{settings}\n",
        restore_command.replace('\'', "''")
    ));
    fs::write(data.join("recovery.signal"), "").expect("write recovery.signal");
    scratch.give(&data.join("recovery.signal"));
    if cluster.try_start().success() {
        wait_until("recovery ends", || {
            !data.join("postmaster.pid").exists()
                || cluster.try_sql("select pg_is_in_recovery()").stdout.trim() == "f"
        });
    }
    cluster
}

/// Nothing that the server handed over was refused, and all of it is archived by now.
pub fn archived_everything(cluster: &Cluster) {
    cluster.archive_now();
    let failed = cluster
        .sql("select failed_count || ' ' || coalesce(last_failed_wal, '') from pg_stat_archiver");
    assert_eq!(failed, "0", "{}", cluster.log());
}

/// Recovery along timeline 2 that ends before the place where timeline 2 began: its history file has switch points that do
/// not ascend.
#[test]
fn recovery_to_before_the_switch_point_that_its_timeline_inherited() {
    let major = Major::newest();
    let scratch = Scratch::new("back");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let copy = scratch.join("copy");
    cluster.copy_to(&copy);
    let standby = cluster.standby(&scratch);
    let kept = cluster.mark("kept");
    let point = cluster.mark("left out").restore_point;
    standby.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    cluster.stop(Stop::Immediate);
    standby.promote();
    standby.commit("on timeline 2");
    archived_everything(&standby);

    let target = format!(
        "recovery_target_name = '{point}'\nrecovery_target_timeline = '2'\nrecovery_target_action = promote"
    );
    let third = recover(&major, &copy, &scratch, &walden.restore_command(), &target);
    let history = third.sql("select pg_read_file('pg_wal/00000003.history')");
    let switch_points: Vec<u64> = history
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .map(crate::harness::lsn_number)
        .collect();
    assert!(switch_points[0] > switch_points[1], "{history}");
    let new = third.commit("on timeline 3");
    archived_everything(&third);

    let mut rows: Rows = kept.with();
    rows.insert(new);
    assert_eq!(third.rows(), rows);
    let latest = restore(&walden, &major, scratch.join("latest"), &["--latest"]);
    assert_eq!(
        (latest.cluster.rows(), &latest.said["plan"]["timeline"]),
        (rows, &serde_json::json!(3))
    );
    let path: Vec<u64> = latest.said["plan"]["path"]
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|step| step["timeline"].as_u64())
        .collect();
    assert_eq!(path, [1, 3], "nothing is left of timeline 2");
    assert_eq!(latest.said["plan"]["other_timelines"][0]["timeline"], 2);
    let second = restore(
        &walden,
        &major,
        scratch.join("second"),
        &["--latest", "--timeline", "00000002"],
    );
    assert_eq!(second.cluster.rows(), standby.rows());
    let listed = walden.ok(["target"]);
    assert!(listed.contains("timeline 2 goes on beside it"), "{listed}");
}

/// Two standbys are promoted one after the other, from the same segment of timeline 1: each hands over what it has of it as
/// `.partial`.
#[test]
fn a_second_failover_from_the_same_segment_is_archived_and_both_partial_segments_are_kept() {
    let major = Major::newest();
    let scratch = Scratch::new("partial");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let [mut first, second] = [(), ()].map(|()| {
        let mut standby = cluster.standby(&scratch);
        standby.append_conf(&format!(
            "restore_command = '{}'\n",
            walden.restore_command().replace('\'', "''")
        ));
        standby.restart();
        standby
    });
    cluster.switch_wal();
    cluster.commit("on all");
    first.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    first.stop(Stop::Fast);
    cluster.commit("not on the first");
    second.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    cluster.stop(Stop::Immediate);
    first.start();
    first.promote();
    first.commit("on timeline 2");
    archived_everything(&first);
    first.stop(Stop::Immediate);
    second.promote();
    second.commit("on timeline 3");
    archived_everything(&second);
    assert_eq!(
        second.sql("select left(pg_walfile_name(pg_current_wal_lsn()), 8)"),
        "00000003"
    );

    let listed = walden.json(["wal", "list"]);
    let aside = listed["aside"].as_array().expect("a list");
    assert_eq!(
        (
            listed["partials"].as_array().expect("a list").len(),
            aside.len()
        ),
        (1, 1),
        "{listed}"
    );
    let name = aside[0].as_str().expect("a name");
    let told = walden.ok(["wal", "list"]);
    assert!(
        told.contains(&format!("kept aside: \"{name}\" was handed over as \"")),
        "{told}"
    );
    let latest = restore(&walden, &major, scratch.join("latest"), &["--latest"]);
    assert_eq!(latest.cluster.rows(), second.rows());
    walden.ok(["wal", "verify"]);
    // A copy has it, too.
    let copy = scratch.join("copied");
    walden.ok([
        "repo",
        "copy",
        "--to",
        &format!("file://{}", copy.display()),
    ]);
    assert!(copy.join(format!("main/wal/{name}.zst")).exists());
}

/// A standby with `archive_mode = always` hands over the segment in which it followed another timeline, under its full name,
/// with what it has of it; the old primary, which lives on, has the whole one.
#[test]
fn what_an_always_archiving_standby_has_of_a_left_segment_does_not_take_its_name() {
    let major = Major::newest();
    let scratch = Scratch::new("always");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let new_primary = cluster.standby(&scratch);
    let mut always = cluster.standby(&scratch);
    cluster.commit("on both");
    always.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    always.stop(Stop::Fast);
    new_primary.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    new_primary.promote();
    let primary = format!(
        "host='{}' port={} user=walden",
        new_primary.socket_folder.display(),
        new_primary.port
    );
    always.append_conf(&format!(
        "archive_mode = always\nprimary_conninfo = '{}'\n",
        primary.replace('\'', "''")
    ));
    always.start();
    new_primary.commit("on timeline 2");
    archived_everything(&new_primary);
    always.wait_for_replay(&new_primary.sql("select pg_current_wal_lsn()"));
    cluster.commit("on timeline 1 alone");
    archived_everything(&cluster);
    wait_until("the standby has archived all", || {
        let status =
            fs::read_dir(always.data.join("pg_wal/archive_status")).expect("read archive_status");
        status.into_iter().all(|entry| {
            !entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .ends_with(".ready")
        })
    });
    assert_eq!(
        always.sql("select failed_count from pg_stat_archiver"),
        "0",
        "{}",
        always.log()
    );
    let old = restore(
        &walden,
        &major,
        scratch.join("old"),
        &["--latest", "--timeline", "1"],
    );
    assert_eq!(old.cluster.rows(), cluster.rows());
    let new = restore(&walden, &major, scratch.join("new"), &["--latest"]);
    assert_eq!(new.cluster.rows(), new_primary.rows());
    walden.ok(["wal", "verify"]);
}

/// A clone was promoted with archiving on: what follows the newest timeline by itself says that the old one goes on.
#[test]
fn a_timeline_that_goes_on_beside_the_newest_is_told_wherever_it_could_be_meant() {
    let major = Major::newest();
    let scratch = Scratch::new("clone");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let before = cluster.mark("before they parted");
    let clone = cluster.standby(&scratch);
    clone.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    clone.promote();
    let early = cluster.mark("on timeline 1 before anything is on timeline 2");
    clone.commit("on timeline 2");
    archived_everything(&clone);
    let late = cluster.mark("on timeline 1, later than all of timeline 2");
    let last = cluster.mark("the last on timeline 1");
    archived_everything(&cluster);
    let hint = "--timeline 1";
    let plan = walden.ok(["target", "--latest"]);
    assert!(
        plan.contains("everything that is archived on timeline 2") && plan.contains(hint),
        "{plan}"
    );
    assert!(plan.contains("timeline 1 goes on beside it from"), "{plan}");
    let plan = walden.ok(["target", "--time", &early.commit_time]);
    assert!(
        plan.contains(hint),
        "a commit of timeline 1 had ended by then: {plan}"
    );
    let plan = walden.ok(["target", "--time", &before.commit_time]);
    assert!(!plan.contains(hint), "the same on both: {plan}");
    let refused = walden.refused(4, ["target", "--time", &late.commit_time]);
    assert!(
        refused.contains("ask for the timeline that goes on with --timeline 1"),
        "{refused}"
    );
    let refused = walden.refused(4, ["target", "--time", &last.commit_time]);
    assert!(
        refused.contains("timeline 1 goes on") && !refused.contains("ask for the timeline"),
        "of no help: {refused}"
    );
    let plan = walden.json([
        "target",
        "--time",
        &late.commit_time,
        "--timeline",
        "00000001",
    ]);
    assert_eq!(plan["plan"]["timeline"], 1);
    assert_eq!(walden.json(["target"])["other_timelines"][0]["timeline"], 1);
    let checked = walden.run(["check", "--check", "recovery"]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for part in [
        "timeline 1 goes on beside it from",
        hint,
        "HINT: does a clone archive here?",
    ] {
        assert!(checked.stdout.contains(part), "{part}: {}", checked.stdout);
    }

    // Without the history of timeline 2 a server that ends recovery on timeline 1 stops in the end: so it does not begin.
    fs::remove_file(walden.repository.join("main/wal/00000002.history.zst"))
        .expect("lose a history file");
    let folder = scratch.join("refused");
    let refused = walden.refused(
        4,
        super::arguments(&major, &folder, &["--latest", "--timeline", "1"]),
    );
    assert!(
        refused.contains("asks for the history file of timeline 2, which is not archived"),
        "{refused}"
    );
    assert!(!folder.exists(), "nothing was written");
}

/// Walden itself, for what only needs its hooks.
pub fn hooks_and_copies(walden: &Walden, copies: &Path) -> String {
    format!(
        "{} && cp %p \"{}/%f\"",
        walden.archive_command(),
        copies.display()
    )
}
