//! A restored copy touches nothing outside its folder, while its source lives beside it. Each row of the table in
//! docs/operations/restore.md has its proof here, or by unit tests of `postgres::restore`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::{archiving, arguments, register, restore, take_backup};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden, each_major, outer_majors, wait_until};

/// Every file below a folder, with its size and time.
fn state(folder: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).expect("list a folder") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("look at a file");
            if meta.is_dir() {
                left.push(path);
            } else {
                found.insert(
                    path.display().to_string(),
                    (meta.len(), meta.modified().expect("a time")),
                );
            }
        }
    }
    found
}

/// A subscription in one database of the source to a publication in another.
fn subscribe(source: &Cluster) {
    source.sql_each("create database publisher; create database subscriber");
    source.sql_in("publisher", "create table orders (id int primary key)");
    source.sql_in("publisher", "create publication p for table orders");
    source.sql_in(
        "publisher",
        "select pg_create_logical_replication_slot('s', 'pgoutput')",
    );
    source.sql_in("subscriber", "create table orders (id int primary key)");
    let dsn = source
        .dsn()
        .replace("dbname=postgres", "dbname=publisher")
        .replace('\'', "''");
    let subscribe = "with (create_slot = false, slot_name = 's', copy_data = false)";
    source.sql_in(
        "subscriber",
        &format!("create subscription s connection '{dsn}' publication p {subscribe}"),
    );
}

each_major!(
    a_copy_touches_nothing_of_its_living_source,
    beside_its_source
);

fn beside_its_source(major: Major) {
    let number = major.number;
    let scratch = Scratch::new("apart");
    let logs = scratch.folder("source-logs");
    let mut builder = Cluster::builder(major.clone()).segment_mib(1);
    for (name, value) in [
        ("wal_level", "logical"),
        ("logging_collector", "on"),
        ("log_directory", &*logs.display().to_string()),
        ("log_filename", "../source-logs/server.log"),
        ("log_destination", "stderr,csvlog,syslog"),
        ("log_error_verbosity", "verbose"),
        ("log_min_messages", "fatal"),
        ("log_line_prefix", "LOG:  %m "),
        ("unix_socket_group", ""),
        ("shared_preload_libraries", "plpgsql,pgoutput"),
        ("synchronous_commit", "local"),
        ("synchronous_standby_names", "nobody"),
    ] {
        builder = builder.setting(name, value);
    }
    let (source, walden) = archiving(&scratch, builder.start(&scratch));
    subscribe(&source);
    source.open_ledger();
    take_backup(&walden);
    let kept = source.mark("kept");
    source.mark("left out");
    source.archive_now();
    // The slot is free for whoever comes first, and the source writes nothing of its own.
    source.sql_in("subscriber", "alter subscription s disable");
    wait_until("the source left the slot", || {
        source.sql("select active from pg_replication_slots") == "f"
    });
    source.sql_in("publisher", "insert into orders values (1)");
    let slot = source.sql("select confirmed_flush_lsn from pg_replication_slots");
    let before = state(&logs);
    let copy = restore(
        &walden,
        &major,
        scratch.join("copy"),
        &["--time", &kept.commit_time],
    );
    assert_eq!(copy.cluster.rows(), kept.with(), "{number}");
    let of_copy = |sql: &str| copy.cluster.sql(sql);
    assert_eq!(
        copy.cluster.socket_folder, copy.cluster.data,
        "{number}: its socket lies in its folder"
    );
    let enabled = copy
        .cluster
        .sql_in("subscriber", "select subenabled from pg_subscription");
    assert_eq!(enabled, "t", "{number}: the subscription is as it was");
    for (name, value) in [
        ("max_logical_replication_workers", "0"),
        ("max_worker_processes", "0"),
        ("listen_addresses", ""),
        ("ssl", "off"),
        ("log_directory", "log"),
        ("archive_mode", "off"),
        ("synchronous_standby_names", ""),
    ] {
        assert_eq!(of_copy(&format!("show {name}")), value, "{number}: {name}");
    }
    let workers = "select count(*) from pg_stat_activity where backend_type like '%logical%'";
    assert_eq!(of_copy(workers), "0", "{number}");
    assert_eq!(
        of_copy("select count(*) from pg_replication_slots"),
        "0",
        "{number}"
    );
    let notes = copy.said["restored"]["notes"].to_string();
    assert!(
        notes.contains("shared_preload_libraries has pgoutput"),
        "{number}: {notes}"
    );
    // Started again by PostgreSQL's own means, with its own logging, it still keeps to itself.
    let auto = fs::read_to_string(copy.cluster.data.join("postgresql.auto.conf")).expect("read it");
    assert!(
        auto.contains("log_destination = 'stderr'") && auto.contains("log_filename = 'postgresql-"),
        "{auto}"
    );
    let mut again = copy.cluster;
    again.restart();
    assert_eq!(again.rows(), kept.with());
    assert!(
        again.data.join("log").is_dir(),
        "{number}: its log lies in its folder"
    );
    assert_eq!(state(&logs), before, "{number}: the source's logs");
    assert_eq!(
        source.sql("select confirmed_flush_lsn from pg_replication_slots"),
        slot,
        "{number}"
    );
}

/// The location of a tablespace in the scratch folder, made in the source with a table in it.
fn new_tablespace(scratch: &Scratch, source: &Cluster) -> (std::path::PathBuf, String) {
    let place = scratch.folder("fast");
    source.sql_each(&format!(
        "create tablespace fast location '{}'",
        place.display()
    ));
    source.sql_each(
        "create table orders tablespace fast as select 'first' as v from generate_series(1, 500); checkpoint",
    );
    (
        place,
        source.sql("select oid from pg_tablespace where spcname = 'fast'"),
    )
}

outer_majors!(
    a_tablespace_made_after_the_backup_stays_the_source_s,
    tablespace_after_the_backup
);

fn tablespace_after_the_backup(major: Major) {
    let scratch = Scratch::new("tablespace");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut source, walden) = archiving(&scratch, cluster);
    take_backup(&walden);
    let (place, oid) = new_tablespace(&scratch, &source);
    source.sql("select pg_create_restore_point('first')");
    source.sql_each("update orders set v = 'second'; checkpoint");
    source.archive_now();
    let before = state(&place);
    let copy = scratch.join("copy");
    let at_first = ["--name", "first"];
    let told = walden.refused(1, arguments(&major, &copy, &at_first));
    for part in [
        &*oid,
        &*place.display().to_string(),
        "take a backup",
        "--exclusive",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let elsewhere = format!("{oid}={}", scratch.join("elsewhere").display());
    let told = walden.refused(
        1,
        arguments(&major, &copy, &["--latest", "--tablespace", &elsewhere]),
    );
    assert!(told.contains("cannot go to"), "{told}");
    let own = format!("{oid}={}", place.display());
    let told = walden.refused(
        1,
        arguments(&major, &copy, &["--latest", "--tablespace", &own]),
    );
    assert!(told.contains("replay cannot make a tablespace"), "{told}");
    let told = walden.refused(
        1,
        arguments(&major, &copy, &["--latest", "--keep-archiving"]),
    );
    assert!(told.contains("replay cannot make a tablespace"), "{told}");
    assert!(!copy.exists(), "nothing is written");
    // Without an index, as on a new machine.
    fs::remove_dir_all(scratch.join("cache")).ok();
    let told = walden.refused(1, arguments(&major, &copy, &["--latest"]));
    assert!(told.contains(&oid) && !copy.exists(), "{told}");
    assert!(
        walden
            .ok(["restore", "--dry-run", "--latest"])
            .contains(&format!("replay makes tablespace {oid}"))
    );
    assert_eq!(state(&place), before, "the source's files");
    // A backup that has it can put it elsewhere, and the refusal says which that is.
    let id = take_backup(&walden);
    source.archive_now();
    let told = walden.refused(1, arguments(&major, &copy, &at_first));
    assert!(told.contains(&format!("backup \"{id}\" has it")), "{told}");
    let moved = restore(
        &walden,
        &major,
        scratch.join("moved"),
        &["--latest", "--tablespace", &elsewhere],
    )
    .cluster;
    assert_eq!(moved.sql("select distinct v from orders"), "second");
    assert_eq!(state(&place), before, "the source's files");
    // On another machine the folder is not there, and can be this restore's own.
    source.stop(Stop::Fast);
    fs::rename(&place, scratch.join("gone")).expect("move the tablespace away");
    let given = restore(
        &walden,
        &major,
        copy,
        &["--name", "first", "--tablespace", &own],
    )
    .cluster;
    assert_eq!(given.sql("select distinct v from orders"), "first");
    assert!(place.is_dir());
}

#[test]
fn a_tablespace_made_and_dropped_again_is_refused_too_and_one_behind_the_target_is_not() {
    let major = Major::newest();
    let scratch = Scratch::new("dropped");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .setting("allow_in_place_tablespaces", "on");
    let cluster = cluster.start(&scratch);
    let (source, walden) = archiving(&scratch, cluster);
    take_backup(&walden);
    source.sql("select pg_create_restore_point('before')");
    new_tablespace(&scratch, &source);
    source.sql_each("drop table orders; drop tablespace fast");
    // Within the data directory: no copy's concern.
    source.sql_each("create tablespace inside location ''");
    source.archive_now();
    let told = walden.refused(1, arguments(&major, &scratch.join("copy"), &["--latest"]));
    assert!(
        told.contains("replay makes tablespace") && !scratch.join("copy").exists(),
        "{told}"
    );
    let before = restore(
        &walden,
        &major,
        scratch.join("before"),
        &["--name", "before"],
    )
    .cluster;
    assert_eq!(before.sql("select count(*) from pg_tablespace"), "2");
    take_backup(&walden);
    source.sql_each("create tablespace inner2 location ''");
    source.archive_now();
    let inside = restore(&walden, &major, scratch.join("inside"), &["--latest"]).cluster;
    assert_eq!(inside.sql("select count(*) from pg_tablespace"), "4");
}

#[test]
fn configuration_that_was_not_in_force_stays_out_of_force() {
    let major = Major::newest();
    let scratch = Scratch::new("in-force");
    let mut source = Cluster::builder(major.clone())
        .segment_mib(64)
        .start(&scratch);
    source.stop(Stop::Fast);
    // The data directory keeps what initdb left: trust for everybody.
    let etc = scratch.folder("etc");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::copy(source.data.join(name), etc.join(name)).expect("copy the configuration");
        scratch.give(&etc.join(name));
    }
    fs::write(source.data.join("postgresql.conf"), "work_mem = '7MB'\n")
        .expect("write a stale file");
    let hba = "local all walden trust\nlocal replication walden trust\nhost all all 127.0.0.1/32 reject\n";
    fs::write(etc.join("pg_hba.conf"), hba).expect("write pg_hba.conf");
    let data = std::mem::replace(&mut source.data, etc.clone());
    source.append_conf(&format!(
        "data_directory = '{}'\nhba_file = '{}/pg_hba.conf'\n",
        data.display(),
        etc.display()
    ));
    std::os::unix::fs::symlink(data.join("postmaster.pid"), etc.join("postmaster.pid"))
        .expect("show pg_ctl's file");
    source.start();
    let walden = Walden::beside(&scratch, &source);
    register(&mut source, &walden);
    take_backup(&walden);
    source.archive_now();
    let copy = scratch.join("copy");
    let said = walden.json(arguments(&major, &copy, &["--latest"]));
    let mut restored = Cluster::of(major, copy.clone(), copy.clone());
    restored.adopt(
        said["recovered"]["port"].as_u64().expect("a port") as u32,
        &copy,
    );
    let text = |name: &str| fs::read_to_string(copy.join(name)).expect("read a file");
    assert!(
        !text("pg_hba.conf").contains("trust"),
        "{}",
        text("pg_hba.conf")
    );
    assert!(
        !text("postgresql.conf").contains("work_mem"),
        "{}",
        text("postgresql.conf")
    );
    assert!(text("walden-configuration/not-in-force/postgresql.conf").contains("7MB"));
    assert!(
        text("postgresql.auto.conf").contains("min_wal_size = '320MB'"),
        "{}",
        text("postgresql.auto.conf")
    );
    let notes = said["restored"]["notes"].to_string();
    assert!(
        notes.contains("postgresql.conf, pg_hba.conf, pg_ident.conf lay in the data directory without being in force"),
        "{notes}"
    );
    source.stop(Stop::Fast);
    source.data = data;
}

#[test]
fn a_replacement_that_cannot_listen_names_the_address() {
    let major = Major::newest();
    let scratch = Scratch::new("listen");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut source, walden) = archiving(&scratch, cluster);
    // The tests start the source with addresses of their own.
    source.append_conf("listen_addresses = '192.0.2.1'\n");
    take_backup(&walden);
    source.archive_now();
    source.stop(Stop::Fast);
    let told = walden.refused(
        1,
        arguments(
            &major,
            &scratch.join("replacement"),
            &["--latest", "--keep-archiving"],
        ),
    );
    assert!(
        told.contains("192.0.2.1") && told.contains("HINT: set listen_addresses"),
        "{told}"
    );
    let copy = restore(&walden, &major, scratch.join("copy"), &["--latest"]).cluster;
    assert_eq!(copy.sql("show listen_addresses"), "");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let major = Major::newest();
    let scratch = Scratch::new("space");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (source, walden) = archiving(&scratch, cluster);
    take_backup(&walden);
    source.archive_now();
    // A file system without any room.
    let full = Path::new("/proc/walden-copy");
    let told = walden.refused(
        1,
        [
            "restore",
            "--immediate",
            "--to-dir",
            &full.display().to_string(),
        ],
    );
    assert!(
        told.contains("has 0.0 MiB") && told.contains("--ignore-free-space"),
        "{told}"
    );
    let told = walden.refused(
        1,
        [
            "restore",
            "--immediate",
            "--ignore-free-space",
            "--to-dir",
            "/proc/walden-copy",
        ],
    );
    assert!(told.contains("cannot make folder"), "{told}");
}

#[test]
fn no_secret_goes_into_a_restored_folder_and_no_backup_carries_on_what_names_the_repository() {
    let major = Major::newest();
    let scratch = Scratch::new("secret");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let secret = "[s3]\naccess_key_id = \"AKIDEXAMPLE\"\nsecret_access_key = \"SUPERSECRETKEY\"\n";
    let walden = Walden::with(&scratch, &cluster, secret);
    let mut source = cluster;
    register(&mut source, &walden);
    // As if this were a copy that an older Walden left.
    let stale = source.data.join("walden-restore.toml");
    fs::write(&stale, "secret_access_key = \"SUPERSECRETKEY\"\n").expect("write a file");
    scratch.give(&stale);
    let id = take_backup(&walden);
    source.archive_now();
    let files = walden.ok(["backup", "show", &id, "--files"]);
    assert!(
        files.contains("PG_VERSION") && !files.contains("walden-restore.toml"),
        "{files}"
    );
    let run = |to: &str, name: &str, value: &str| {
        let mut command = walden.command([
            "restore",
            "--latest",
            "--to-dir",
            &scratch.join(to).display().to_string(),
        ]);
        let output = command.env(name, value).output().expect("run walden");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, told) = run(
        "socket",
        "WALDEN_SERVICE__SOCKET",
        &scratch.join("other.sock").display().to_string(),
    );
    assert_eq!(code, Some(0), "{told}");
    assert!(
        !scratch.join("socket/walden-restore.toml").exists(),
        "the configuration file is enough"
    );
    let url = format!("file://{}", walden.repository.display());
    let (code, told) = run("url", "WALDEN_REPOSITORY__URL", &url);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("must hold no secret") && !told.contains("SUPERSECRETKEY"),
        "{told}"
    );
    assert!(!scratch.join("url").exists(), "nothing is written");
}
