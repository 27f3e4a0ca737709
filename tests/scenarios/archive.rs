//! WAL out of real servers into the repository, and back into others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{
    Cluster, Major, Rows, Scratch, Stop, Walden, outer_majors, run_as_server, wait_until,
};
use crate::small_disk::SmallDisk;

/// A registered cluster that archives, and a copy of its data directory from before most of its WAL.
pub struct Primary {
    pub cluster: Cluster,
    base: PathBuf,
    pub walden: Walden,
    pub scratch: Scratch,
}

fn primary(major: Major, segment_mib: u32, settings: &str) -> Primary {
    primary_with(major, segment_mib, |scratch, cluster| {
        Walden::with(scratch, cluster, settings)
    })
}

/// With Walden as `beside` sets it up.
pub fn primary_with(
    major: Major,
    segment_mib: u32,
    beside: impl FnOnce(&Scratch, &Cluster) -> Walden,
) -> Primary {
    let scratch = Scratch::new("wal");
    // What is archived stays in pg_wal: a checkpoint would recycle files while they are compared.
    let builder = Cluster::builder(major)
        .segment_mib(segment_mib)
        .setting("wal_keep_size", "2GB");
    let mut cluster = builder.setting("archive_timeout", "0").start(&scratch);
    let walden = beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.open_ledger();
    cluster.archive_with(&walden);
    cluster.stop(Stop::Fast);
    let base = scratch.join("base");
    run_as_server(
        "cp",
        ["-a".as_ref(), cluster.data.as_os_str(), base.as_os_str()],
    );
    cluster.start();
    Primary {
        cluster,
        base,
        walden,
        scratch,
    }
}

impl Primary {
    /// Commits and switches segments, then waits until all is archived.
    pub fn write_segments(&self, segments: usize) -> Rows {
        for _ in 0..segments {
            self.cluster.burst(2, 6);
            self.cluster.switch_wal();
        }
        let rows = self.cluster.rows();
        self.cluster.archive_now();
        rows
    }

    /// A server that replays from the archive, made of the copy; not started.
    pub fn replica(&self, name: &str, signal: &str, settings: &str) -> Cluster {
        let data = self.scratch.join(name);
        run_as_server(
            "cp",
            ["-a".as_ref(), self.base.as_os_str(), data.as_os_str()],
        );
        // What it needs comes from the archive.
        run_as_server(
            "find",
            [
                data.join("pg_wal").as_os_str(),
                "-type".as_ref(),
                "f".as_ref(),
                "-delete".as_ref(),
            ],
        );
        let replica = Cluster::of(
            self.cluster.major.clone(),
            data.clone(),
            self.scratch.path().to_path_buf(),
        );
        let restore = self.walden.restore_command().replace('\'', "''");
        replica.append_conf(&format!("restore_command = '{restore}'\n{settings}\n"));
        fs::write(data.join(signal), "").expect("write the signal file");
        self.scratch.give(&data.join(signal));
        replica
    }

    /// Every file that is archived and still in pg_wal is byte for byte in the repository.
    pub fn check_archive(&self) {
        let pg_wal = self.cluster.data.join("pg_wal");
        let mut checked = 0;
        for entry in fs::read_dir(pg_wal.join("archive_status")).expect("read archive_status") {
            let status = entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name");
            assert!(!status.ends_with(".ready"), "{status} is not archived");
            let Some(name) = status
                .strip_suffix(".done")
                .filter(|name| pg_wal.join(name).exists())
            else {
                continue;
            };
            let back = self.scratch.join("back");
            self.walden.ok([
                "wal".as_ref(),
                "fetch".as_ref(),
                name.as_ref(),
                back.as_os_str(),
            ]);
            assert!(
                fs::read(&back).expect("read") == fs::read(pg_wal.join(name)).expect("read"),
                "{name} differs"
            );
            checked += 1;
        }
        assert!(checked > 0, "nothing to compare");
        self.walden.ok(["wal", "verify"]);
    }
}

fn spool(cluster: &Cluster) -> PathBuf {
    cluster.data.join("pg_wal/walden-spool")
}

outer_majors!(
    what_is_archived_through_the_service_replays_through_it,
    archive_and_replay
);

fn archive_and_replay(major: Major) {
    archive_and_replay_with(major, 16);
}

fn archive_and_replay_with(major: Major, segment_mib: u32) {
    let mut primary = primary(major, segment_mib, "");
    let service = primary.walden.serve();
    let rows = primary.write_segments(12);
    assert_eq!(
        primary
            .cluster
            .sql("select failed_count from pg_stat_archiver"),
        "0",
        "{}",
        primary.cluster.log()
    );
    primary.check_archive();
    primary.cluster.stop(Stop::Fast);

    let mut replica = primary.replica("replica", "recovery.signal", "archive_mode = off");
    replica.start();
    wait_until("recovery ends", || {
        replica.sql("select pg_is_in_recovery()") == "f"
    });
    assert_eq!(replica.rows(), rows);
    assert!(
        replica.log().contains("restored log file"),
        "{}",
        replica.log()
    );
    assert!(spool(&replica).exists(), "segments were fetched ahead");
    service.stop();
    assert!(!spool(&replica).exists(), "and nothing stays behind");
}

#[test]
fn segments_of_1_and_64_mib_archive_and_replay() {
    archive_and_replay_with(Major::with_clients(), 1);
    archive_and_replay_with(Major::with_clients(), 64);
}

#[test]
fn without_a_service_the_hooks_do_it_themselves() {
    let mut primary = primary(Major::newest(), 16, "");
    let rows = primary.write_segments(3);
    assert_eq!(
        primary
            .cluster
            .sql("select failed_count from pg_stat_archiver"),
        "0"
    );
    primary.check_archive();
    primary.cluster.stop(Stop::Fast);
    let mut replica = primary.replica("replica", "recovery.signal", "archive_mode = off");
    replica.start();
    wait_until("recovery ends", || {
        replica.sql("select pg_is_in_recovery()") == "f"
    });
    assert_eq!(replica.rows(), rows);
}

outer_majors!(
    a_standby_polls_the_archive_and_takes_over,
    standby_takes_over
);

fn standby_takes_over(major: Major) {
    let mut primary = primary(major, 16, "");
    let service = primary.walden.serve();
    primary.write_segments(2);
    let mut standby = primary.replica(
        "standby",
        "standby.signal",
        "wal_retrieve_retry_interval = 100ms\nhot_standby = on",
    );
    standby.start();
    let rows = primary.write_segments(3);
    wait_until("the standby has replayed what was archived", || {
        standby.rows() == rows
    });

    // A clean stop archives everything there is.
    primary.cluster.stop(Stop::Fast);
    let stopped = primary.cluster.data.join("pg_wal");
    wait_until("the last segment is archived", || {
        no_file_is_ready(&stopped)
    });
    standby.promote();
    standby.commit("after the failover");
    let rows = standby.rows();
    standby.archive_now();
    assert!(
        primary
            .walden
            .repository
            .join("main/wal/00000002.history.zst")
            .exists()
    );
    standby.stop(Stop::Fast);

    let mut replica = primary.replica(
        "replica",
        "recovery.signal",
        "archive_mode = off\nrecovery_target_timeline = 'latest'",
    );
    replica.start();
    wait_until("recovery ends", || {
        replica.sql("select pg_is_in_recovery()") == "f"
    });
    assert_eq!(replica.rows(), rows, "the path goes over the failover");
    service.stop();
}

fn no_file_is_ready(pg_wal: &Path) -> bool {
    let entries = fs::read_dir(pg_wal.join("archive_status")).expect("read archive_status");
    entries.into_iter().all(|entry| {
        !entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .ends_with(".ready")
    })
}

#[test]
fn a_missing_segment_stops_recovery_instead_of_ending_it() {
    for serving in [true, false] {
        let mut primary = primary(Major::with_clients(), 16, "wal.timeout = \"4s\"");
        let service = serving.then(|| primary.walden.serve());
        primary.write_segments(6);
        primary.cluster.stop(Stop::Fast);
        let objects = primary.walden.repository.join("main/wal/0000000100000000");
        let mut segments: Vec<PathBuf> = fs::read_dir(objects)
            .expect("read the repository")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        segments.sort();
        let missing = &segments[segments.len() - 3];
        fs::remove_file(missing).expect("remove a segment");
        let name = missing
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        primary
            .walden
            .expect_log(&format!("WAL segment \"{name}\" is missing"));

        let mut replica = primary.replica("replica", "recovery.signal", "archive_mode = off");
        let _ = replica.try_start();
        wait_until("the server gives up", || {
            !replica.data.join("postmaster.pid").exists()
        });
        let log = replica.log();
        assert!(
            log.contains(&format!("WAL segment \"{name}\" is missing")) && log.contains("HINT: "),
            "{log}"
        );
        assert!(log.contains("FATAL:  could not restore file"), "{log}");
        assert!(!log.contains("archive recovery complete"), "{log}");
        drop(service);
    }
}

#[test]
fn a_killed_service_loses_nothing_and_stops_nothing() {
    let primary = primary(Major::with_clients(), 1, "");
    for round in 0..6 {
        let service = primary.walden.serve();
        for _ in 0..10 {
            primary.cluster.burst(1, 3);
            primary.cluster.switch_wal();
        }
        std::thread::sleep(std::time::Duration::from_millis(20 * round));
        service.kill9();
        // Now the hook program is on its own.
        primary.cluster.burst(1, 3);
        primary.cluster.switch_wal();
    }
    let service = primary.walden.serve();
    primary.write_segments(2);
    primary.check_archive();
    assert_eq!(
        primary.walden.json(["wal", "list"])["gaps"],
        serde_json::json!([])
    );
    service.stop();
}

#[test]
fn a_copy_that_archives_too_is_refused_with_both_digests() {
    let primary = primary(Major::with_clients(), 16, "");
    let service = primary.walden.serve();
    primary.write_segments(2);
    // The copy goes its own way on the same timeline.
    let data = primary.scratch.join("copy");
    run_as_server(
        "cp",
        ["-a".as_ref(), primary.base.as_os_str(), data.as_os_str()],
    );
    let mut copy = Cluster::of(
        primary.cluster.major.clone(),
        data,
        primary.scratch.path().to_path_buf(),
    );
    primary
        .walden
        .expect_log("archived already with other content");
    copy.start();
    copy.burst(2, 10);
    copy.switch_wal();
    wait_until("the copy's archiver is refused", || {
        copy.log().contains("archived already with other content")
    });
    let log = copy.log();
    assert!(
        log.matches("digest blake3:").count() >= 2
            && log.contains("HINT: does a second server or a restored copy"),
        "{log}"
    );
    copy.stop(Stop::Immediate);
    primary.check_archive();
    service.stop();
}

#[test]
fn a_full_disk_is_told_and_archiving_goes_on_when_there_is_room() {
    let primary = primary(Major::with_clients(), 1, "repository.retries = 0");
    let Some(_disk) = SmallDisk::mount(&primary.walden.repository, &primary.scratch) else {
        return;
    };
    primary.walden.expect_log("No space left");
    let service = primary.walden.serve();
    let filler = primary.walden.repository.join("filler");
    let free = disk_free_kib(&primary.walden.repository);
    fs::write(&filler, vec![1; (free as usize - 300) << 10]).expect("fill the disk");
    primary
        .cluster
        .sql("create table noise as select md5(random()::text) t from generate_series(1, 100000)");
    primary.cluster.switch_wal();
    wait_until("the archiver is told", || {
        primary.cluster.log().contains("No space left on device")
    });
    assert!(
        primary
            .cluster
            .log()
            .contains("HINT: check the repository's space"),
        "{}",
        primary.cluster.log()
    );
    fs::remove_file(&filler).expect("make room");
    primary.cluster.archive_now();
    primary.check_archive();
    service.stop();
}

fn disk_free_kib(path: &Path) -> u64 {
    let output = Command::new("df")
        .args(["-k", "--output=avail"])
        .arg(path)
        .output()
        .expect("run df");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .expect("a number")
}
