//! Failover: both timelines are archived, and every moment of both can be had.

use super::{archiving, restore, take_backup};
use crate::harness::{Cluster, Major, Scratch, Stop, outer_majors, wait_until};

outer_majors!(
    moments_on_both_sides_of_a_promotion_are_restored_on_either_timeline,
    on_either_timeline
);

fn on_either_timeline(major: Major) {
    let scratch = Scratch::new("paths");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    let first_backup = take_backup(&walden);
    cluster.burst(2, 10);
    let before = cluster.mark("before the switch");
    let both = cluster.commit("on both timelines");
    let mut standby = cluster.standby(&scratch);
    standby.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
    standby.promote();
    // The old primary lives on for a while and archives its own end of timeline 1.
    let old = cluster.mark("on the old timeline alone");
    let old_last = cluster.commit("last on the old timeline");
    cluster.archive_now();
    let new = standby.mark("on the new timeline");
    standby.archive_now();
    let last = standby.commit("last");
    standby.archive_now();
    wait_until("the new timeline's history is archived", || {
        walden
            .repository
            .join("main/wal/00000002.history.zst")
            .exists()
    });

    let rows = |name: &str, target: &[&str]| {
        let restored = restore(&walden, &major, scratch.join(name), target);
        (
            restored.cluster.rows(),
            restored.said["plan"]["timeline"]
                .as_u64()
                .expect("a timeline"),
        )
    };
    let mut old_rows = old.with();
    old_rows.insert(old_last);
    let mut on_both = before.with();
    on_both.insert(both);
    // The latest timeline is the default.
    let mut everything = new.with();
    everything.insert(last);
    assert_eq!(rows("latest", &["--latest"]), (everything, 2));
    assert_eq!(rows("new", &["--time", &new.commit_time]), (new.with(), 2));
    assert_eq!(
        rows("not new", &["--time", &new.quiet_time]),
        (on_both.clone(), 2)
    );
    assert_eq!(
        rows("before by 2", &["--time", &before.commit_time]),
        (before.with(), 2)
    );
    assert_eq!(
        rows(
            "before by 1",
            &["--time", &before.commit_time, "--timeline", "1"]
        ),
        (before.with(), 1)
    );
    assert_eq!(
        rows("old", &["--time", &old.commit_time, "--timeline", "1"]),
        (old.with(), 1)
    );
    assert_eq!(
        rows(
            "current",
            &[
                "--latest",
                "--timeline",
                "current",
                "--backup",
                &first_backup
            ]
        ),
        (old_rows, 1)
    );
    assert_eq!(
        rows("name", &["--name", &old.restore_point, "--timeline", "1"]),
        (on_both, 1)
    );

    // A backup of the old timeline from behind the switch does not lead to the new one; 13 and 14 would mix them.
    let late = take_backup(&walden);
    let told = walden.refused(4, ["restore", "--dry-run", "--latest", "--backup", &late]);
    assert!(
        told.contains("does not lead to timeline 2") && told.contains("--timeline 1"),
        "{told}"
    );
    // A backup of the new timeline needs its history and is used by itself.
    standby.stop(Stop::Fast);
}

/// The new primary has archived its history but no segment yet, while the old one goes on archiving under the same
/// numbers: a server tries these when the new timeline's are not there.
#[test]
fn what_the_new_timeline_left_behind_is_not_replayed_in_place_of_what_is_missing() {
    for number in [13, 18] {
        let Some(major) = Major::find(number) else {
            continue;
        };
        let scratch = Scratch::new("stale");
        let cluster = Cluster::builder(major.clone())
            .segment_mib(1)
            .start(&scratch);
        let (cluster, walden) = archiving(&scratch, cluster);
        cluster.open_ledger();
        take_backup(&walden);
        let first = cluster.mark("archived before the switch");
        cluster.archive_now();
        let standby = cluster.standby(&scratch);
        standby.wait_for_replay(&cluster.sql("select pg_current_wal_lsn()"));
        standby.promote();
        wait_until("the new timeline's history is archived", || {
            walden
                .repository
                .join("main/wal/00000002.history.zst")
                .exists()
        });
        let stray = cluster.mark("on the old timeline alone");
        cluster.archive_now();
        let restored = restore(&walden, &major, scratch.join("latest"), &["--latest"]);
        assert_eq!(restored.said["plan"]["timeline"], 2);
        assert!(
            restored.said["plan"]["wal_end"].is_string(),
            "{}",
            restored.said["plan"]
        );
        assert_eq!(restored.cluster.rows(), first.with());
        let beyond = walden.refused(4, ["restore", "--dry-run", "--lsn", &stray.lsn_after]);
        assert!(
            beyond.contains("after the end of the archived WAL"),
            "{beyond}"
        );
    }
}

/// A standby's backup has no end record; its end comes from its own pg_control.
#[test]
fn a_backup_of_a_standby_is_restored_to_moments_after_it() {
    for number in [13, 18] {
        let Some(major) = Major::find(number) else {
            continue;
        };
        let scratch = Scratch::new("standby");
        let cluster = Cluster::builder(major.clone())
            .segment_mib(1)
            .start(&scratch);
        let (cluster, walden) = archiving(&scratch, cluster);
        cluster.open_ledger();
        let mut before = cluster.burst(2, 10).with();
        let standby = cluster.standby(&scratch);
        let done = std::sync::atomic::AtomicBool::new(false);
        let backup = std::thread::scope(|scope| {
            // The standby's WAL comes from the primary, segment by segment.
            let archiver = scope.spawn(|| {
                let mut rows = Vec::new();
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    rows.push(cluster.commit("meanwhile"));
                    cluster.archive_now();
                }
                rows
            });
            let mut command = walden.command(["--format", "json", "backup", "take"]);
            let output = command
                .env("WALDEN_POSTGRESQL__DSN", standby.dsn())
                .output()
                .expect("run walden");
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            before.extend(archiver.join().expect("the archiver"));
            serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("a JSON document")
        });
        assert_eq!(backup["from_standby"], true);
        let kept = cluster.mark("kept");
        cluster.mark("left out");
        cluster.archive_now();
        assert_eq!(kept.before, before);
        let restored = restore(
            &walden,
            &major,
            scratch.join("restored"),
            &["--time", &kept.commit_time],
        );
        assert_eq!(restored.cluster.rows(), kept.with());
        let immediate = restore(&walden, &major, scratch.join("immediate"), &["--immediate"]);
        assert!(immediate.cluster.rows().is_subset(&before));
    }
}

#[test]
fn a_cluster_that_replaces_its_source_archives_a_new_timeline_which_is_restored_in_turn() {
    let major = Major::newest();
    let scratch = Scratch::new("replace");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let kept = cluster.mark("kept");
    cluster.mark("dropped by the restore");
    cluster.archive_now();
    cluster.stop(Stop::Fast);
    let target = ["--time", kept.commit_time.as_str(), "--keep-archiving"];
    let replaced = restore(&walden, &major, scratch.join("replaced"), &target).cluster;
    assert_eq!(replaced.rows(), kept.with());
    assert_eq!(replaced.sql("show archive_mode"), "on");
    let new = replaced.mark("in the new life");
    replaced.archive_now();
    let latest = restore(&walden, &major, scratch.join("again"), &["--latest"]);
    assert_eq!(latest.cluster.rows(), new.with());
    assert_eq!(latest.said["plan"]["timeline"], 2);
    // The first life's end is still there, by its timeline.
    let first = restore(
        &walden,
        &major,
        scratch.join("first"),
        &["--latest", "--timeline", "1"],
    );
    assert_eq!(first.cluster.rows().len(), 2);
}
