//! Clusters of many shapes: tablespaces, segment sizes, checksums, configuration elsewhere, and ways to end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{archiving, arguments, restore, take_backup};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, each_major};

each_major!(
    tablespaces_are_moved_and_the_originals_stay_untouched,
    tablespaces_move
);

fn tablespaces_move(major: Major) {
    let scratch = Scratch::new("spaces");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    let (one, two) = (scratch.folder("space one"), scratch.folder("space=two"));
    cluster.sql(&format!(
        "create tablespace one location '{}'",
        one.display()
    ));
    cluster.sql(&format!(
        "create tablespace two location '{}'",
        two.display()
    ));
    cluster.sql("create table in_one(x) tablespace one as select generate_series(1, 1000)");
    cluster.sql("create table in_two(x) tablespace two as select generate_series(1, 2000)");
    take_backup(&walden);
    cluster.sql("insert into in_one values (1001)");
    cluster.archive_now();
    let none = scratch.join("none").display().to_string();
    for more in [&[][..], &["--dry-run"]] {
        let told = walden.refused(
            1,
            [&["restore", "--to-dir", &none, "--latest"], more].concat(),
        );
        assert!(
            told.contains("--tablespace") && told.contains("space one"),
            "{told}"
        );
    }
    assert!(!scratch.join("none").exists());

    let oid = cluster.sql("select oid from pg_tablespace where spcname = 'two'");
    let (new_one, new_two) = (scratch.join("new one"), scratch.join("new two"));
    let moved_one = format!("{}={}", one.display(), new_one.display());
    let moved_two = format!("{oid}={}", new_two.display());
    let target = [
        "--latest",
        "--tablespace",
        &moved_one,
        "--tablespace",
        &moved_two,
    ];
    let mut restored = restore(&walden, &major, scratch.join("re stored"), &target).cluster;
    let check = |restored: &Cluster| {
        assert_eq!(restored.sql("select count(*) from in_one"), "1001");
        assert_eq!(restored.sql("select count(*) from in_two"), "2000");
        let places = restored.sql(
            "select string_agg(pg_tablespace_location(oid), '|' order by spcname) from pg_tablespace where spcname in ('one', 'two')",
        );
        assert_eq!(
            places,
            format!("{}|{}", new_one.display(), new_two.display())
        );
    };
    check(&restored);
    restored.sql("insert into in_one values (0)");
    restored.stop(Stop::Fast);
    restored.start();
    assert_eq!(
        restored.sql("delete from in_one where x = 0 returning x"),
        "0"
    );
    check(&restored);
    assert_eq!(cluster.sql("select count(*) from in_one where x = 0"), "0");
}

#[test]
fn segments_of_1_and_64_mib_and_checksums_on_and_off() {
    for (mib, checksums) in [(1, true), (64, false), (64, true)] {
        let major = Major::newest();
        let scratch = Scratch::new("sizes");
        let cluster = Cluster::builder(major.clone())
            .segment_mib(mib)
            .checksums(checksums)
            .start(&scratch);
        let (cluster, walden) = archiving(&scratch, cluster);
        cluster.open_ledger();
        take_backup(&walden);
        let kept = cluster.mark("kept");
        cluster.mark("left out");
        cluster.archive_now();
        let restored = restore(
            &walden,
            &major,
            scratch.join("restored"),
            &["--time", &kept.commit_time],
        )
        .cluster;
        assert_eq!(restored.rows(), kept.with(), "{mib} MiB");
        assert_eq!(
            restored.sql("show data_checksums"),
            if checksums { "on" } else { "off" }
        );
    }
}

/// Debian keeps its configuration in /etc: data_directory, hba_file and ident_file point across.
#[test]
fn a_cluster_whose_configuration_lies_elsewhere_starts_from_its_folder() {
    let major = Major::newest();
    let scratch = Scratch::new("etc");
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    cluster.stop(Stop::Fast);
    let etc = scratch.folder("etc");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(cluster.data.join(name), etc.join(name)).expect("move a configuration file");
    }
    let shown = |name: &str| etc.join(name).display().to_string();
    let mut text = fs::read_to_string(etc.join("postgresql.conf")).expect("postgresql.conf");
    text += &format!("data_directory = '{}'\n", cluster.data.display());
    text += &format!(
        "hba_file = '{}'\nident_file = '{}'\n",
        shown("pg_hba.conf"),
        shown("pg_ident.conf")
    );
    let walden = Walden::beside(&scratch, &cluster);
    text += &format!(
        "archive_mode = on\narchive_command = '{}'\n",
        walden.archive_command()
    );
    fs::write(etc.join("postgresql.conf"), text).expect("write postgresql.conf");
    // The server still finds it: pg_ctl -D names the folder with the configuration.
    let data = std::mem::replace(&mut cluster.data, etc);
    cluster.start();
    walden.ok(["init"]);
    cluster.open_ledger();
    let row = cluster.commit("kept");
    take_backup(&walden);
    cluster.archive_now();
    let restored = restore(&walden, &major, scratch.join("restored"), &["--latest"]);
    assert_eq!(restored.said["recovered"]["phase"], "promoted");
    let folder = &restored.cluster.data;
    assert!(folder.join("pg_hba.conf").exists() && folder.join("walden-configuration").exists());
    let notes = restored.said["restored"]["notes"].to_string();
    assert!(notes.contains("postgresql.conf"), "{notes}");
    // The minimal pg_hba.conf lets in by peer, and the tests' role has another name than the system's user.
    fs::write(folder.join("pg_hba.conf"), "local all all trust\n").expect("write pg_hba.conf");
    restored.cluster.reload();
    crate::harness::wait_until("pg_hba.conf is read again", || {
        restored.cluster.try_sql("select 1").success()
    });
    assert!(restored.cluster.rows().contains(&row));
    assert_eq!(
        restored.cluster.sql("show data_directory"),
        folder.display().to_string()
    );
    cluster.stop(Stop::Fast);
    cluster.data = data;
}

#[test]
fn at_the_target_the_server_pauses_or_shuts_down_when_asked_to() {
    for number in [13, 18] {
        let Some(major) = Major::find(number) else {
            continue;
        };
        let scratch = Scratch::new("action");
        let cluster = Cluster::builder(major.clone())
            .segment_mib(1)
            .start(&scratch);
        let (cluster, walden) = archiving(&scratch, cluster);
        cluster.open_ledger();
        take_backup(&walden);
        let kept = cluster.mark("kept");
        cluster.mark("left out");
        cluster.archive_now();
        let by_time = |action: &'static str| {
            [
                "--time",
                kept.commit_time.as_str(),
                "--target-action",
                action,
            ]
        };
        let paused = restore(&walden, &major, scratch.join("paused"), &by_time("pause"));
        assert_eq!(paused.said["recovered"]["phase"], "paused");
        assert_eq!(paused.cluster.sql("select pg_is_in_recovery()"), "t");
        assert_eq!(paused.cluster.rows(), kept.with());
        assert!(
            paused.said["recovered"]["lsn"].is_string(),
            "{}",
            paused.said["recovered"]
        );
        let shut = restore(&walden, &major, scratch.join("shut"), &by_time("shutdown"));
        assert_eq!(shut.said["recovered"]["phase"], "shut_down");
        assert!(!shut.cluster.data.join("postmaster.pid").exists());
        let told = walden.refused(
            1,
            [
                "restore",
                "--dry-run",
                "--latest",
                "--target-action",
                "pause",
            ],
        );
        assert!(told.contains("needs a target"), "{told}");
    }
}

/// A cluster that was itself a restored standby carries settings of its recovery: two targets are fatal.
#[test]
fn leftovers_of_an_earlier_recovery_do_not_disturb() {
    let major = Major::newest();
    let scratch = Scratch::new("leftovers");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .setting("recovery_target_xid", "7")
        .setting(
            "external_pid_file",
            &scratch.join("other.pid").display().to_string(),
        )
        .setting("archive_cleanup_command", "rm -rf %r")
        .setting("synchronous_standby_names", "nobody")
        .setting("synchronous_commit", "local")
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.sql("alter system set recovery_target_timeline = 'current'");
    cluster.sql("alter system set primary_conninfo = 'host=nowhere'");
    cluster.sql("alter system set work_mem = '7MB'");
    cluster.open_ledger();
    take_backup(&walden);
    let kept = cluster.mark("kept");
    cluster.mark("left out");
    cluster.archive_now();
    fs::remove_file(scratch.join("other.pid")).expect("the source's pid file");
    let restored = restore(
        &walden,
        &major,
        scratch.join("it's \"restored\" 100%"),
        &["--time", &kept.commit_time],
    )
    .cluster;
    assert_eq!(restored.rows(), kept.with());
    assert_eq!(
        restored.sql("show work_mem"),
        "7MB",
        "what ALTER SYSTEM set stays"
    );
    assert_eq!(restored.sql("show synchronous_standby_names"), "");
    assert!(
        !scratch.join("other.pid").exists(),
        "the restored server must not write the source's pid file"
    );
    let mode = fs::metadata(&restored.data)
        .expect("the folder")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_environment_alone_configures_a_restore_whose_server_needs_no_environment() {
    let major = Major::newest();
    let scratch = Scratch::new("environment");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    take_backup(&walden);
    let kept = cluster.mark("kept");
    cluster.archive_now();
    let data = scratch.join("restored");
    let mut command = crate::harness::command(Walden::program("walden"));
    command.args(arguments(&major, &data, &["--latest", "--format", "json"]));
    command.env(
        "WALDEN_REPOSITORY__URL",
        format!("file://{}", walden.repository.display()),
    );
    command.env("WALDEN_SERVICE__SOCKET", &walden.socket);
    let output = command.output().expect("run walden");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    let mut restored = Cluster::of(major, data.clone(), scratch.path().to_path_buf());
    let socket = said["recovered"]["socket_directory"]
        .as_str()
        .expect("a folder");
    restored.adopt(
        said["recovered"]["port"].as_u64().expect("a port") as u32,
        socket.as_ref(),
    );
    assert_eq!(restored.rows(), kept.with());
    let written = data.join("walden-restore.toml");
    assert_eq!(
        fs::metadata(&written)
            .expect("its configuration")
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}
