//! Whatever goes wrong, the old database stays, and nothing half-made does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::shop::{self, dump, fingerprint};
use super::{databases, restore_of, walden};
use crate::harness::{Cluster, Major, Scratch, Walden, command, wait_until};
use crate::small_disk::SmallDisk;

/// A database whose restore pauses while it loads its table, for as long as the role's setting says.
struct Paused {
    scratch: Scratch,
    cluster: Cluster,
    walden: Walden,
    dump: PathBuf,
    before: String,
}

const PAUSED: &str = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";

impl Paused {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let cluster = Cluster::builder(Major::with_clients()).start(&scratch);
        let walden = walden(&scratch, &cluster, "");
        cluster.sql("create database shop");
        cluster.sql_in(
            "shop",
            "create function slow(int) returns bool language plpgsql immutable as $$ begin \
             perform pg_sleep(coalesce(nullif(current_setting('test.pause', true), ''), '0')::float); return true; end $$; \
             create table stock(id int check (slow(id)), text text); \
             insert into stock select 1, repeat('x', 1000)",
        );
        let dump = dump(
            &cluster,
            "shop",
            &scratch,
            "shop.dump",
            &["--format=custom"],
        );
        cluster.sql_in("shop", "insert into stock values (2, 'newer')");
        let before = fingerprint(&cluster, "shop");
        Self {
            scratch,
            cluster,
            walden,
            dump,
            before,
        }
    }

    fn pause(&self, seconds: u32) {
        self.cluster
            .sql(&format!("alter role walden set test.pause = '{seconds}'"));
    }

    /// Starts a restore and waits until it is in the middle.
    fn begin(&self, options: &[&str]) -> Child {
        self.pause(300);
        let mut command = self.walden.command(restore_of(&self.dump, options));
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start walden");
        wait_until("the restore is in the middle", || {
            self.cluster.sql(PAUSED) == "1"
        });
        self.pause(0);
        child
    }

    /// The old database is there, unchanged, and alone.
    fn check(&self, said: &str) {
        assert_eq!(databases(&self.cluster), ["postgres", "shop"], "{said}");
        assert_eq!(fingerprint(&self.cluster, "shop"), self.before, "{said}");
        let left: Vec<_> = fs::read_dir(self.scratch.join("spool"))
            .into_iter()
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What a child said on standard error, after it ended with this code.
fn said(child: Child, code: i32) -> String {
    let output = child.wait_with_output().expect("wait for walden");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// The process that restores this dump: `pg_restore` alone has its path as an argument behind its options.
fn restoring_process(dump: &Path) -> rustix::process::Pid {
    let own = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_program = words
            .first()
            .is_some_and(|word| word.ends_with(b"pg_restore"));
        is_program && words.contains(&dump.as_os_str().as_encoded_bytes())
    };
    let entries = fs::read_dir("/proc").expect("list processes").flatten();
    let found = entries
        .filter(own)
        .find_map(|entry| entry.file_name().to_str()?.parse().ok());
    found
        .and_then(rustix::process::Pid::from_raw)
        .expect("a running pg_restore")
}

#[test]
fn a_killed_program_an_interrupt_and_a_killed_walden_leave_the_old_database() {
    use rustix::process::{Signal, kill_process};
    let shop = Paused::new("dump killed");
    let killed = shop.begin(&["--jobs", "1"]);
    kill_process(restoring_process(&shop.dump), Signal::KILL).expect("kill pg_restore");
    let told = said(killed, 1);
    assert!(
        told.contains(
            "the restore failed; database \"shop\" is as it was: pg_restore was ended by signal 9"
        ),
        "{told}"
    );
    shop.check(&told);

    for signal in [Signal::INT, Signal::TERM] {
        let interrupted = shop.begin(&["--jobs", "2"]);
        kill_process(rustix::process::Pid::from_child(&interrupted), signal)
            .expect("interrupt walden");
        let told = said(interrupted, 1);
        assert!(
            told.contains("database \"shop\" is as it was: interrupted"),
            "{told}"
        );
        shop.check(&told);
    }

    let mut died = shop.begin(&["--jobs", "1"]);
    died.kill().expect("kill walden");
    died.wait().expect("wait for walden");
    let left = databases(&shop.cluster);
    assert!(
        left.len() == 3 && left[2].starts_with("walden_restoring_"),
        "{left:?}"
    );
    // Another database of such a name is nobody's business.
    shop.cluster.sql("create database walden_restoring_mine");
    shop.walden.expect_log("walden_restoring_mine");
    let restored = shop
        .walden
        .json(restore_of(&shop.dump, &["--as", "again", "--jobs", "1"]));
    assert_eq!(restored["removed_leftovers"][0], left[2], "{restored:#}");
    assert!(
        restored["notes"][0]
            .as_str()
            .is_some_and(|note| note.contains("walden_restoring_mine")),
        "{restored:#}"
    );
    shop.cluster
        .sql_each("drop database again; drop database walden_restoring_mine");
    shop.check("swept");

    // A restore that is under way is no leftover.
    let busy = shop.begin(&["--jobs", "1"]);
    shop.walden.ok(["dump", "drop-old", "--yes"]);
    assert_eq!(shop.cluster.sql(PAUSED), "1");
    kill_process(rustix::process::Pid::from_child(&busy), Signal::INT).expect("interrupt walden");
    said(busy, 1);
    shop.check("interrupted");
}

/// A session that runs SQL until it is ended.
fn session(cluster: &Cluster, sql: &str) -> Child {
    let mut psql = command(Major::with_clients().program("psql"));
    psql.args(["-X", "-c", sql, "-d", &cluster.dsn()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    psql.spawn().expect("start psql")
}

/// Waits for a session that waits so, and ends it.
fn end_who_waits(cluster: &Cluster, how: &str) {
    let there = format!("from pg_stat_activity where {how}");
    wait_until(how, || {
        cluster.sql(&format!("select count(*) {there}")) == "1"
    });
    cluster.sql(&format!("select pg_terminate_backend(pid, 10000) {there}"));
}

#[test]
fn a_commit_whose_answer_is_lost_is_told_as_the_server_tells_it() {
    let shop = Paused::new("dump doubt");
    let cluster = &shop.cluster;
    // The swap waits for the database's lock; then for a standby that is not there, when its COMMIT is carried out.
    let mut holder = session(
        cluster,
        "begin; comment on database shop is 'x'; select pg_sleep(600)",
    );
    wait_until("the lock is held", || cluster.sql(PAUSED) == "1");
    let mut restore = shop.walden.command(restore_of(&shop.dump, &[]));
    restore.args(["--format", "json"]);
    let restore = restore.stdout(Stdio::piped()).stderr(Stdio::piped());
    let restore = restore.spawn().expect("start walden");
    wait_until("the swap waits", || {
        cluster.sql("select count(*) from pg_stat_activity where wait_event_type = 'Lock'") == "1"
    });
    cluster.sql("alter system set synchronous_standby_names = 'nobody'");
    cluster.reload();
    let mut probe = session(cluster, "create table probe()");
    end_who_waits(cluster, "wait_event = 'SyncRep'");
    end_who_waits(cluster, "wait_event = 'PgSleep'");
    end_who_waits(cluster, "wait_event = 'SyncRep'");
    let output = restore.wait_with_output().expect("wait for walden");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let restored: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        restored["notes"][0]
            .as_str()
            .is_some_and(|note| note.contains("is complete, although its last step failed")),
        "{restored:#}"
    );
    assert_eq!(cluster.sql_in("shop", "select count(*) from stock"), "1");
    let kept = restored["kept_as"].as_str().expect("a name");
    assert_eq!(databases(cluster), ["postgres", "shop", kept]);
    for session in [&mut holder, &mut probe] {
        session.wait().expect("wait for psql");
    }
}

#[test]
fn a_cut_dump_a_full_disk_and_a_lost_server_leave_the_old_database() {
    let mut shop = Paused::new("dump broken");
    let whole = fs::read(&shop.dump).expect("read the dump");
    let cut = shop.scratch.write("cut.dump", "");
    fs::write(&cut, &whole[..whole.len() - 20]).expect("write a cut dump");
    let told = shop.walden.refused(1, restore_of(&cut, &[]));
    assert!(told.contains("database \"shop\" is as it was"), "{told}");
    shop.check(&told);
    let script = shop.scratch.write(
        "cut.sql",
        "-- PostgreSQL database dump\nCREATE TABLE a(b int);\n",
    );
    let told = shop
        .walden
        .refused(1, restore_of(&script, &["--database", "shop"]));
    assert!(told.contains("does not end with the line"), "{told}");

    // The database lies where there is room for it, a table of the dump does not.
    let small = shop.scratch.folder("small");
    if let Some(disk) = SmallDisk::mount(&small, &shop.scratch) {
        shop.cluster.sql(&format!(
            "create tablespace small location '{}'",
            small.display()
        ));
        shop.cluster
            .sql_each("create database large; alter database large set default_tablespace = small");
        shop.cluster
            .sql_in("large", "create table kept as select 1 as a");
        shop.cluster.sql_in("postgres", "create database other");
        shop.cluster.sql_in("other", "create table noise as select md5(g::text) || md5(g::text) as t from generate_series(1, 400000) g");
        let path = dump(
            &shop.cluster,
            "other",
            &shop.scratch,
            "large.dump",
            &["--format=custom"],
        );
        shop.cluster
            .sql("alter role walden set default_tablespace = small");
        let told = shop
            .walden
            .refused(1, restore_of(&path, &["--as", "large", "--no-tablespaces"]));
        assert!(
            told.contains("No space left on device") && told.contains("\"large\" is as it was"),
            "{told}"
        );
        assert_eq!(shop.cluster.sql_in("large", "select a from kept"), "1");
        shop.cluster
            .sql("alter role walden reset default_tablespace");
        shop.cluster
            .sql_each("drop database large; drop database other; drop tablespace small");
        shop.check(&told);
        drop(disk);
    }

    let orphan = shop.begin(&["--jobs", "1"]);
    shop.cluster.stop(crate::harness::Stop::Immediate);
    let told = said(orphan, 1);
    assert!(
        told.contains("database \"shop\" is as it was") && told.contains("walden dump drop-old"),
        "{told}"
    );
    shop.cluster.start();
    shop.walden.ok(["dump", "drop-old", "--yes"]);
    shop.check(&told);
}

#[test]
fn what_the_server_lacks_is_told_all_at_once_and_nothing_is_touched() {
    let scratch = Scratch::new("dump lacks");
    let source = Cluster::builder(Major::newest()).start(&scratch);
    shop::roles(&source);
    shop::make(&source, "shop");
    let folder = scratch.folder("fast disk");
    source.sql(&format!(
        "create tablespace \"fast one\" location '{}'",
        folder.display()
    ));
    source.sql_in("shop", "alter table child_log set tablespace \"fast one\"");
    let path = dump(&source, "shop", &scratch, "shop.dump", &["--format=custom"]);

    let target = Cluster::builder(Major::newest()).start(&scratch);
    let walden = walden(&scratch, &target, "");
    target.sql("create database shop");
    let refused = walden.run([&["--format", "json"][..], &restore_of(&path, &[])].concat());
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    let reasons: serde_json::Value = serde_json::from_str(&refused.stdout).expect("JSON");
    let text = reasons.to_string();
    for part in [
        "\\\"owner\\\"",
        "\\\"reader\\\"",
        "\\\"Mary \\\"M\\\"\\\"",
        "tablespace \\\"fast one\\\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(databases(&target), ["postgres", "shop"]);
    assert_eq!(
        target.sql_in(
            "shop",
            "select count(*) from pg_class where relname = 'customers'"
        ),
        "0"
    );
    // What is missing can be done without.
    walden.ok(restore_of(
        &path,
        &[
            "--no-owner",
            "--no-privileges",
            "--no-tablespaces",
            "--as",
            "other",
            "--table",
            "child_log",
        ],
    ));
    assert_eq!(
        target.sql_in("other", "select count(*) from child_log"),
        "10"
    );

    if let Some(older) = Major::find(15).filter(|older| older.number < source.major.number) {
        let older = Cluster::builder(older).start(&scratch);
        let walden = super::walden(&scratch, &older, "");
        let told = walden.refused(
            4,
            restore_of(&path, &["--database", "shop", "--verify-only"]),
        );
        assert!(told.contains("the server is of version 15"), "{told}");
        // A server that is as old as the dump's, and a pg_dump that is too new for it.
        let plain = scratch.join("newer.dump");
        older.sql("create database plain");
        shop::dump_with(&source.major, &older, "plain", &plain, &["--format=custom"]);
        let told = walden.refused(4, restore_of(&plain, &[]));
        assert!(told.contains("was made by pg_dump 18"), "{told}");
    }
}
