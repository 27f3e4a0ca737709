//! Servers that must go on, or end, although the archive is away: standbys, promotions, a server that stops.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::archive::{Primary, primary_with};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, outer_majors, wait_until};

const FOLLOWS: &str = "wal_retrieve_retry_interval = 100ms\nhot_standby = on";

fn primary(major: Major) -> Primary {
    primary_with(major, 1, Walden::beside)
}

/// A repository that is away, as an unmounted disk is.
struct Away {
    repository: PathBuf,
    place: PathBuf,
}

impl Away {
    fn take(walden: &Walden) -> Self {
        let repository = walden.repository.clone();
        let place = repository.with_extension("away");
        fs::rename(&repository, &place).expect("take the repository away");
        Self { repository, place }
    }

    fn bring_back(self) {
        fs::rename(self.place, self.repository).expect("bring the repository back");
    }
}

/// Waits until a standby asked in vain, and again; it must go on.
fn asks_in_vain(standby: &Cluster) {
    let asked = || {
        standby
            .log()
            .lines()
            .filter(|line| line.starts_with("ERROR: "))
            .count()
    };
    let before = asked();
    wait_until("the standby asks again", || asked() >= before + 2);
    assert_eq!(
        standby.sql("select pg_is_in_recovery()"),
        "t",
        "{}",
        standby.log()
    );
}

outer_majors!(
    a_standby_outlives_its_archive_and_is_promoted_without_it,
    outlives_its_archive
);

/// Without a service. PostgreSQL asks for history files, too, when it is promoted: the last of them after standby.signal
/// is gone.
fn outlives_its_archive(major: Major) {
    let mut primary = primary(major);
    let rows = primary.write_segments(2);
    let mut standby = primary.replica("standby", "standby.signal", FOLLOWS);
    standby.start();
    wait_until("the standby has replayed what was archived", || {
        standby.rows() == rows
    });
    primary.cluster.stop(Stop::Fast);
    let away = Away::take(&primary.walden);
    asks_in_vain(&standby);
    standby.promote();
    standby.commit("on its own");
    away.bring_back();
    standby.archive_now();
    assert!(
        primary
            .walden
            .repository
            .join("main/wal/00000002.history.zst")
            .exists()
    );
    standby.stop(Stop::Fast);
}

/// With a service. Promoted while it cannot see that timeline 2 is taken, a standby takes it, too: its archiving stops
/// aloud at the first file that differs. Both history files are the same if both left at the same place.
#[test]
fn a_timeline_that_is_taken_meanwhile_is_refused_when_the_archive_is_back() {
    // So long a standby that starts asks which timelines there are.
    let impatient = |scratch: &Scratch, cluster: &Cluster| {
        Walden::with(scratch, cluster, "wal.timeout = \"3s\"")
    };
    let mut primary = primary_with(Major::newest(), 1, impatient);
    primary
        .walden
        .expect_log(&primary.walden.repository.display().to_string());
    primary
        .walden
        .expect_log("archived already with other content");
    let service = primary.walden.serve();
    let rows = primary.write_segments(2);
    let mut first = primary.replica("first", "standby.signal", FOLLOWS);
    let mut second = primary.replica("second", "standby.signal", FOLLOWS);
    first.start();
    second.start();
    wait_until("both have replayed what was archived", || {
        first.rows() == rows && second.rows() == rows
    });
    primary.cluster.stop(Stop::Fast);
    second.stop(Stop::Fast);
    first.promote();
    first.archive_now();
    first.stop(Stop::Fast);
    let archived = || primary.walden.ok(["wal", "list"]);
    let kept = archived();

    // It has not heard of timeline 2: started without the archive, it does not know.
    let away = Away::take(&primary.walden);
    second.start();
    asks_in_vain(&second);
    second.promote();
    second.commit("on a timeline that is taken");
    second.switch_wal();
    away.bring_back();
    wait_until("its archiver is refused", || {
        second
            .log()
            .contains("is archived already with other content")
    });
    assert_eq!(archived(), kept, "nothing of it is there");
    second.stop(Stop::Fast);
    service.stop();
}

/// Both signal files are gone when recovery asks for the history of the timeline that it leaves. Stopped there, the
/// server would start again on the old timeline, as if nothing had been recovered.
#[test]
fn the_last_question_of_a_recovery_that_ended_does_not_stop_it() {
    let mut primary = primary(Major::newest());
    let rows = primary.write_segments(2);
    primary.cluster.stop(Stop::Fast);
    let mut replica = primary.replica("replica", "recovery.signal", "archive_mode = off");
    let real = primary.walden.restore_command();
    let hook = Walden::program("restore-command");
    let without_archive = format!(
        "\"{}\" --socket /nowhere --walden /nowhere %f %p",
        hook.display()
    );
    let command =
        format!("case %f in 00000001.history) exec {without_archive};; *) exec {real};; esac");
    replica.append_conf(&format!(
        "restore_command = '{}'\n",
        command.replace('\'', "''")
    ));
    replica.start();
    wait_until("recovery ends", || {
        replica.sql("select pg_is_in_recovery()") == "f"
    });
    assert!(
        replica.log().contains("ERROR: no Walden service answers"),
        "{}",
        replica.log()
    );
    assert_eq!(replica.rows(), rows);
    assert_eq!(
        replica.sql("select timeline_id from pg_control_checkpoint()"),
        "2"
    );
}

/// `pg_ctl stop` waits a minute, other supervisors half of one, then kill.
#[test]
fn a_server_stops_soon_although_the_store_accepts_and_never_answers() {
    let scratch = Scratch::new("silent");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let store = TcpListener::bind("127.0.0.1:0").expect("listen");
    let endpoint = store.local_addr().expect("an address");
    let config = format!(
        "repository.url = \"s3://bucket/prefix\"\nhttp.listen = \"\"\n[s3]\nendpoint = \"http://{endpoint}\"\n\
         access_key_id = \"id\"\nsecret_access_key = \"secret\"\n"
    );
    let walden = Walden::by(
        &scratch,
        scratch.write("silent.toml", &config),
        PathBuf::new(),
    );
    cluster.archive_with(&walden);
    cluster.sql("create table t(a int)");
    let segment = cluster.switch_wal();
    store.set_nonblocking(true).expect("ask without waiting");
    let mut connections = Vec::new();
    wait_until("the archiver waits for the store", || {
        match store.accept() {
            Ok((connection, _)) => {
                connections.push(connection);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    });
    let began = Instant::now();
    cluster.stop(Stop::Fast);
    assert!(
        began.elapsed() < Duration::from_secs(45),
        "{:?}",
        began.elapsed()
    );
    let log = cluster.log();
    assert!(
        log.contains("ERROR: PostgreSQL is stopping") && log.contains("HINT: nothing is lost"),
        "{log}"
    );
    let waits = cluster
        .data
        .join("pg_wal/archive_status")
        .join(format!("{segment}.ready"));
    assert!(waits.exists(), "PostgreSQL keeps the file");
}
