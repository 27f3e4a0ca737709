//! Base backups: taken, listed, shown, verified, deleted; and what spoils them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::harness::{Cluster, Major, Scratch, Stop, Walden, each_major, is_long, outer_majors, wait_until};

/// A registered cluster that archives.
struct Ready {
    walden: Walden,
    cluster: Cluster,
    scratch: Scratch,
}

impl Ready {
    fn new(name: &str, major: Major, settings: &str) -> Self {
        let builder = Cluster::builder(major).segment_mib(1).checksums(true).setting("autovacuum", "off");
        Self::of(Scratch::new(name), builder, settings)
    }

    fn of(scratch: Scratch, builder: crate::harness::Builder, settings: &str) -> Self {
        let mut cluster = builder.start(&scratch);
        let walden = Walden::with(&scratch, &cluster, settings);
        walden.ok(["init"]);
        cluster.archive_with(&walden);
        Self { walden, cluster, scratch }
    }

    /// Takes a backup; its description.
    fn take(&self, label: &str) -> Value {
        self.walden.json(["backup", "take", "--label", label])
    }

    fn list(&self) -> Value {
        self.walden.json(["backup", "list"])
    }

    fn folder(&self, backup: &Value) -> PathBuf {
        self.walden.repository.join("main/base").join(text(&backup["id"]))
    }

    /// The lines of a backup's manifest, by `zstd` alone.
    fn manifest(&self, backup: &Value) -> Vec<Value> {
        let object = fs::read(self.folder(backup).join("manifest.zst")).expect("read the manifest");
        let lines = zstd::decode_all(&object[..]).expect("zstd opens the manifest");
        lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(json_line).collect()
    }

    /// A file's content, put together as docs/repository-format.md tells.
    fn content(&self, file: &Value) -> Vec<u8> {
        let mut content = Vec::new();
        for extent in list_of(&file["extents"]) {
            let pack = self.walden.repository.join("main/base").join(text(&extent["pack"]));
            let frames: u64 = list_of(&extent["frames"]).iter().filter_map(Value::as_u64).sum();
            let mut stored = vec![0; frames as usize];
            let pack = fs::File::open(pack).expect("open a pack");
            pack.read_exact_at(&mut stored, number(&extent["offset"])).expect("read frames");
            let plain = zstd::decode_all(&stored[..]).expect("zstd opens frames");
            content.extend_from_slice(&plain[extent["skip"].as_u64().unwrap_or(0) as usize..]);
        }
        content.truncate(number(&file["size"]) as usize);
        content
    }

    /// Nothing that looks like a backup, or like a piece of one, is left.
    fn assert_nothing_kept(&self) {
        assert!(!self.walden.repository.join("main/base").exists());
        let listed = self.list();
        assert!(list_of(&listed["backups"]).is_empty() && list_of(&listed["unfinished"]).is_empty(), "{listed}");
    }
}

fn json_line(line: &[u8]) -> Value {
    serde_json::from_slice(line).expect("a JSON line")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn flip_a_byte(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read a byte");
    file.write_all_at(&[byte[0] ^ 0x40], at).expect("flip a bit");
}

#[track_caller]
fn says(stderr: &str, parts: &[&str]) {
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in:\n{stderr}");
    }
}

each_major!(a_backup_holds_every_byte_of_every_file, every_byte);

/// The server is idle, so its files are what the backup must hold.
fn every_byte(major: Major) {
    let number_of_major = major.number;
    let ready = Ready::new("every", major, "backup.max_rate = \"1GiB\"\nbackup.pack_size = \"1MiB\"");
    let cluster = &ready.cluster;
    let location = ready.scratch.folder("table space");
    cluster.sql(&format!("create tablespace other location '{}'", location.display()));
    cluster.sql("create table here as select n, md5(n::text) t from generate_series(1, 20000) n");
    cluster.sql("create table there tablespace other as select n, md5(n::text) t from generate_series(1, 20000) n");
    cluster.sql("create table empty(n int)");
    cluster.sql("checkpoint");
    let backup = ready.take("it's a \"label\" \\ ü");
    assert_eq!(backup["label"], "it's a \"label\" \\ ü");
    assert_eq!(number(&backup["major"]), u64::from(number_of_major));
    assert_eq!(backup["data_checksums"], true);
    let tablespace = &list_of(&backup["tablespaces"])[0];
    assert_eq!(text(&tablespace["location"]), location.display().to_string());
    let mut compared = 0;
    for file in ready.manifest(&backup).iter().filter(|entry| entry["kind"] == "file") {
        let path = text(&file["path"]);
        let content = ready.content(file);
        assert_eq!(content.len() as u64, number(&file["size"]), "{path}");
        let folder = if file["tablespace"].is_u64() { &location } else { &cluster.data };
        if file["tablespace"].is_u64() || path.starts_with("base/") || path == "PG_VERSION" {
            assert!(fs::read(folder.join(path)).expect("the server's file") == content, "{path} differs");
            let mode = fs::metadata(folder.join(path)).expect("the server's file").permissions().mode();
            assert_eq!(number(&file["mode"]), u64::from(mode & 0o7777), "{path}");
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared} files compared");
    assert!(number(&backup["pack_count"]) > 2);
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
}

each_major!(bad_pages_are_told_and_the_backup_is_kept_marked, bad_pages);

fn bad_pages(major: Major) {
    let mut ready = Ready::new("pages", major, "");
    ready.cluster.sql("create table t as select n, md5(n::text) from generate_series(1, 5000) n");
    let path = ready.cluster.sql("select pg_relation_filepath('t')");
    ready.cluster.stop(Stop::Fast);
    flip_a_byte(&ready.cluster.data.join(&path), 8192 + 100);
    ready.cluster.start();
    ready.walden.expect_log("checksum");
    let stderr = ready.walden.refused(3, ["backup", "take", "--label", "marked"]);
    says(&stderr, &["do not match their checksums", &path]);
    let listed = ready.list();
    let backup = &list_of(&listed["backups"])[0];
    assert!(text(&list_of(&backup["checksum_failures"])[0]).contains(&path), "{backup}");
    says(&ready.walden.ok(["backup", "list"]), &["FAILURES", "marked"]);
    // What was stored is what the server sent; whether to look at pages at all is a setting.
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
    let mut unverified = ready.walden.command(["backup", "take"]);
    let output = unverified.env("WALDEN_BACKUP__VERIFY_CHECKSUMS", "false").output().expect("run walden");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

each_major!(a_standby_is_a_source, standby_source);

/// Settings that change what a session answers, or end it.
const HOSTILE: &[&str] = &[
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "search_path = 'pg_toast'",
    "client_min_messages = 'error'",
    "client_encoding = 'LATIN1'",
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
];

fn standby_source(major: Major) {
    let timeouts: &[&str] = match major.number {
        ..14 => &[],
        14..17 => &["idle_session_timeout = '5s'"],
        17.. => &["idle_session_timeout = '5s'", "transaction_timeout = '1ms'"],
    };
    let builder = Cluster::builder(major.clone()).segment_mib(1).checksums(true).setting("autovacuum", "off");
    // Replication sessions have the server's settings, whatever the role's are.
    let builder = builder.setting("default_transaction_isolation", "serializable");
    let ready = Ready::of(Scratch::new("standby"), builder, "");
    ready.cluster.sql("create table t as select n from generate_series(1, 1000) n");
    ready.cluster.sql("create role hostile superuser replication login");
    for setting in HOSTILE.iter().chain(timeouts) {
        ready.cluster.sql(&format!("alter role hostile set {setting}"));
    }
    let standby = ready.cluster.standby(&ready.scratch);
    let dsn = standby.dsn().replace("user=walden", "user=hostile");
    let mut take = ready.walden.command(["--format", "json", "backup", "take"]);
    let mut child = take.env("WALDEN_POSTGRESQL__DSN", dsn).stdout(Stdio::piped()).spawn().expect("run");
    // A standby does not switch WAL: its last segment is archived when the primary goes on.
    wait_until("the backup of the standby is complete", || {
        ready.cluster.sql("select pg_create_restore_point('on')");
        ready.cluster.switch_wal();
        std::thread::sleep(std::time::Duration::from_millis(100));
        child.try_wait().expect("wait for walden").is_some()
    });
    assert!(child.wait().expect("wait for walden").success());
    let backup = &ready.list()["backups"][0];
    assert_eq!(backup["from_standby"], true);
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
}

each_major!(a_server_that_stops_in_the_middle_leaves_nothing, stops_in_the_middle);

fn stops_in_the_middle(major: Major) {
    let mut ready = Ready::new("middle", major, "backup.max_rate = \"2MiB\"");
    ready.cluster.sql("create table t as select n, md5(n::text) from generate_series(1, 50000) n");
    let mut child = running(&ready);
    ready.cluster.stop(Stop::Fast);
    assert_eq!(child.wait().expect("wait for walden").code(), Some(1));
    ready.assert_nothing_kept();
}

/// A slow `walden backup take` that has begun to store.
fn running(ready: &Ready) -> Child {
    let child = ready.walden.command(["backup", "take"]).stderr(Stdio::piped()).spawn().expect("run walden");
    let base = ready.walden.repository.join("main/base");
    wait_until("a backup has its name", || base.exists());
    child
}

outer_majors!(what_the_server_leaves_out_is_no_backup, left_out);

fn left_out(major: Major) {
    let mut ready = Ready::new("leftout", major, "");
    let location = ready.scratch.folder("space");
    ready.cluster.sql(&format!("create tablespace apart location '{}'", location.display()));
    ready.cluster.sql("create database shop");
    let shop = ready.cluster.sql("select 'base/' || oid from pg_database where datname = 'shop'");
    let data = ready.cluster.data.clone();
    // Moved to another disk: the server follows the link, and leaves it out.
    for part in ["pg_xact", shop.as_str()] {
        ready.cluster.stop(Stop::Fast);
        let moved = ready.scratch.join("moved");
        fs::rename(data.join(part), &moved).expect("move a folder");
        std::os::unix::fs::symlink(&moved, data.join(part)).expect("link it");
        ready.cluster.start();
        ready.walden.expect_log("skipping special file");
        let stderr = ready.walden.refused(1, ["backup", "take"]);
        says(&stderr, &[&format!("leaves \"{part}\" out of the backup"), "HINT: put it back"]);
        ready.assert_nothing_kept();
        ready.cluster.stop(Stop::Fast);
        fs::remove_file(data.join(part)).expect("remove the link");
        fs::rename(&moved, data.join(part)).expect("move it back");
        ready.cluster.start();
    }
    // A tablespace's disk that is not mounted is left out without a word.
    ready.cluster.sql("checkpoint");
    let version = fs::read_dir(&location).expect("list").next().expect("a folder").expect("a folder").path();
    fs::rename(&version, ready.scratch.join("unmounted")).expect("unmount");
    let oid = ready.cluster.sql("select oid from pg_tablespace where spcname = 'apart'");
    let part = format!("pg_tblspc/{oid}");
    says(&ready.walden.refused(3, ["backup", "take"]), &["cannot be used", &part, "HINT: "]);
    fs::rename(ready.scratch.join("unmounted"), &version).expect("mount");
    let backup = &ready.list()["backups"][0];
    let id = text(&backup["id"]);
    assert_eq!(text(&backup["left_out"][0]), part);
    says(&ready.walden.ok(["backup", "list"]), &["UNUSABLE", &part]);
    says(&ready.walden.ok(["backup", "show", id]), &["LACKS", &part, "cannot be used"]);
    for arguments in [&["target", "--latest"][..], &["target", "--immediate", "--backup", id]] {
        let output = ready.walden.run(arguments);
        assert!(!output.success() && format!("{}{}", output.stdout, output.stderr).contains(&part), "{output:?}");
    }
    assert!(ready.take("whole")["left_out"].as_array().is_some_and(Vec::is_empty));
}

outer_majors!(strangers_files_do_not_end_a_backup, strangers);

fn strangers(major: Major) {
    let trips_over_dots = major.number < 17;
    let ready = Ready::new("strangers", major, "");
    let data = ready.cluster.data.clone();
    let database = ready.cluster.sql("select 'base/' || oid from pg_database where datname = current_database()");
    std::os::unix::fs::symlink("/nonexistent", data.join("log")).expect("link");
    for socket in ["sock et", &format!("{database}/cache.sock")] {
        std::os::unix::net::UnixListener::bind(data.join(socket)).expect("make a socket");
    }
    // No page of a relation, though as long as one.
    let junk = data.join(&database).join("junk");
    fs::write(&junk, [7; 8192]).expect("write a file");
    // Not UTF-8.
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
    fs::write(data.join(name), "x").expect("write a file");
    for path in [junk, data.join(name)] {
        ready.scratch.give(&path);
    }
    for part in ["skipping special file", "checksum", "is not UTF-8"] {
        ready.walden.expect_log(part);
    }
    let backup = ready.take("");
    let told: Vec<&str> = list_of(&backup["warnings"]).iter().map(text).collect();
    for part in ["./log", "./sock et", "cache.sock", "caf\\xe9"] {
        assert_eq!(told.iter().filter(|line| line.contains(part)).count(), 1, "{part}: {told:?}");
    }
    assert_eq!(backup["checksums_verified"], true);
    let listed = ready.walden.ok(["backup", "list"]);
    assert!(listed.contains(" on") && !listed.contains("not verified"), "{listed}");
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
    // An administrator's copy: 13 to 16 take what follows the dot for a segment's number.
    let copy = data.join(&database).join("16384.bak");
    fs::write(&copy, [7; 8192]).expect("write a file");
    ready.scratch.give(&copy);
    ready.walden.expect_log("cannot verify page checksums (");
    let backup = ready.take("");
    assert_eq!(backup["checksums_verified"], !trips_over_dots, "{backup}");
    assert_eq!(ready.walden.ok(["backup", "list"]).contains("not verified"), trips_over_dots);
    // What cannot be sent is told with a way past it.
    let long = data.join("x".repeat(120));
    fs::write(&long, "x").expect("write a file");
    ready.scratch.give(&long);
    says(&ready.walden.refused(1, ["backup", "take"]), &["xxx", "HINT: move that file out of the data directory"]);
}

#[test]
fn missing_wal_is_named_and_nothing_is_kept() {
    let ready = Ready::new("nowal", Major::with_clients(), "backup.wal_timeout = \"2s\"");
    ready.take("before");
    ready.cluster.append_conf("archive_command = '/bin/false'\n");
    ready.cluster.reload();
    let current = ready.cluster.switch_wal();
    let stderr = ready.walden.refused(1, ["backup", "take"]);
    says(&stderr, &["still lacks the WAL file \"0000000100000000", "HINT: ", "archive_command", "wal_timeout"]);
    assert!(stderr.contains("pg_stat_archiver") && stderr.contains(&current[..20]), "{stderr}");
    assert_eq!(list_of(&ready.list()["backups"]).len(), 1);
    assert_eq!(fs::read_dir(ready.walden.repository.join("main/base")).expect("list").count(), 1);
}

#[test]
fn an_interrupted_backup_leaves_nothing() {
    let ready = Ready::new("term", Major::with_clients(), "backup.max_rate = \"1MiB\"");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut child = running(&ready);
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).expect("signal walden");
        assert_eq!(child.wait().expect("wait for walden").code(), Some(1));
        let mut told = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut told).expect("read");
        says(&told, &["interrupted", "nothing of it is kept"]);
        ready.assert_nothing_kept();
    }
}

#[test]
fn what_a_killed_backup_left_is_shown_and_removed_by_the_next() {
    let ready = Ready::new("kill", Major::with_clients(), "backup.pack_size = \"1MiB\"");
    ready.cluster.sql("create table t as select n, md5(random()::text) from generate_series(1, 100000) n");
    let mut random = crate::harness::Random::seeded("killed backups");
    let mut left = 0;
    for _ in 0..6 {
        let mut child = running(&ready);
        std::thread::sleep(std::time::Duration::from_millis(random.below(150) as u64));
        child.kill().expect("kill walden");
        child.wait().expect("wait for walden");
        let listed = ready.list();
        for backup in list_of(&listed["backups"]) {
            ready.walden.ok(["backup", "verify", text(&backup["id"])]);
        }
        for unfinished in list_of(&listed["unfinished"]) {
            assert_eq!(unfinished["interrupted"], true, "{unfinished}");
            left += 1;
        }
        let output = ready.walden.run(["backup", "take"]);
        assert!(output.success(), "{}", output.stderr);
        let listed = ready.list();
        assert!(list_of(&listed["unfinished"]).is_empty(), "{listed}");
        let folders = fs::read_dir(ready.walden.repository.join("main/base")).expect("list");
        let holds_objects = |folder: &fs::DirEntry| {
            let mut files = fs::read_dir(folder.path()).expect("list a backup's folder");
            files.any(|file| !file.expect("a file").file_name().to_string_lossy().starts_with(".walden-tmp-"))
        };
        let kept = folders.filter(|folder| holds_objects(folder.as_ref().expect("a folder"))).count();
        assert_eq!(kept, list_of(&listed["backups"]).len());
        // The next one shall wait for a folder that appears.
        fs::remove_dir_all(ready.walden.repository.join("main/base")).expect("start anew");
    }
    assert!(left > 0, "no kill hit a backup");
}

#[test]
fn damage_is_found_and_named() {
    let ready = Ready::new("damage", Major::with_clients(), "backup.pack_size = \"1MiB\"");
    let backup = ready.take("");
    let id = text(&backup["id"]);
    let pack = ready.folder(&backup).join("pack-000002");
    let whole = fs::read(&pack).expect("read a pack");
    let verify = || {
        let output = ready.walden.run(["--format", "json", "backup", "verify", id]);
        assert_eq!(output.code, Some(3), "{}{}", output.stdout, output.stderr);
        let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
        list_of(&found[0]["damages"]).to_vec()
    };
    flip_a_byte(&pack, 1000);
    let damages = verify();
    assert!(!damages.is_empty() && damages.iter().all(|damage| text(&damage["object"]).ends_with("pack-000002")));
    assert!(damages.iter().all(|damage| damage["file"].is_string()), "{damages:?}");
    fs::write(&pack, &whole[..whole.len() - 1]).expect("cut a pack");
    assert!(text(&verify()[0]["why"]).contains("ends before"));
    fs::remove_file(&pack).expect("remove a pack");
    assert!(text(&verify()[0]["why"]).contains("no such object"));
    fs::write(&pack, &whole).expect("mend the pack");
    ready.walden.ok(["backup", "verify", id]);
    let start = ready.walden.repository.join("main/wal/0000000100000000");
    let segments: BTreeMap<_, _> = fs::read_dir(&start)
        .expect("list WAL")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(&path).expect("read WAL")))
        .collect();
    segments.keys().for_each(|path| fs::remove_file(path).expect("remove WAL"));
    assert!(text(&verify()[0]["object"]).contains("main/wal/"));
    segments.iter().for_each(|(path, content)| fs::write(path, content).expect("put WAL back"));
    flip_a_byte(&ready.folder(&backup).join("manifest.zst"), 2000);
    assert!(text(&verify()[0]["object"]).ends_with("manifest.zst"));
}

#[test]
fn deleting_says_what_is_lost_and_refuses_the_only_backup() {
    let ready = Ready::new("delete", Major::with_clients(), "");
    let first = ready.take("first");
    let id = text(&first["id"]);
    says(&ready.walden.refused(1, ["backup", "delete", id, "--yes"]), &["the only one", "HINT: ", "--force"]);
    let second = ready.take("second");
    says(&ready.walden.refused(1, ["backup", "delete", id]), &["needs a confirmation", "--yes"]);
    assert!(ready.folder(&first).exists());
    let told = ready.walden.ok(["backup", "delete", id, "--yes"]);
    let window = format!("from {} to before {}", text(&first["stop_lsn"]), text(&second["stop_lsn"]));
    says(&told, &["no longer restorable", &window, "deleted"]);
    assert!(!ready.folder(&first).exists());
    for verb in [&["delete", id, "--yes"][..], &["verify", id], &["show", id]] {
        let arguments = std::iter::once(&"backup").chain(verb);
        says(&ready.walden.refused(1, arguments), &["there is no backup", id, "backup list"]);
    }
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
    ready.walden.ok(["backup", "delete", text(&second["id"]), "--yes", "--force"]);
    ready.assert_nothing_kept();
}

#[test]
fn a_backup_whose_packs_another_one_uses_is_not_deleted() {
    let ready = Ready::new("shared", Major::with_clients(), "");
    let first = ready.take("first");
    ready.cluster.sql("select pg_create_restore_point('x')");
    let second = ready.take("second");
    // The second backup's manifest written anew, with its first extent in a pack of the first: as backups that store
    // only what changed will.
    let path = ready.folder(&second).join("manifest.zst");
    let object = fs::read(&path).expect("read the manifest");
    let mut lines = ready.manifest(&second);
    let file = lines.iter_mut().find(|line| line["extents"].as_array().is_some_and(|all| !all.is_empty()));
    file.expect("a file")["extents"][0]["pack"] = format!("{}/pack-000001", text(&first["id"])).into();
    let plain: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let about = walden::codec::Envelope::parse(&object).expect("an envelope").header.about;
    let mut about: Value = about.read().expect("a description");
    let id = text(&first["id"]);
    // The description tells; in older ones it does not, and the lines do.
    for earlier in [serde_json::json!([id]), Value::Null] {
        about["earlier_backups"] = earlier;
        let sealed = walden::codec::seal("backup", &about, &mut plain.as_bytes(), plain.len() as u64, 3).expect("seal");
        fs::write(&path, [sealed.envelope, sealed.body].concat()).expect("write the manifest");
        let stderr = ready.walden.refused(1, ["backup", "delete", id, "--yes", "--force"]);
        says(&stderr, &["cannot be deleted", text(&second["id"]), "HINT: "]);
        assert!(ready.folder(&first).join("manifest.zst").exists());
    }
}

#[test]
fn configuration_files_outside_the_data_directory_are_in_the_backup() {
    let scratch = Scratch::new("outside");
    let folder = scratch.folder("etc");
    let hba = scratch.write("etc/hba's.conf", "local all all trust\nlocal replication all trust\n");
    let extra = scratch.write("etc/extra.conf", "work_mem = '5MB'\n");
    let builder = Cluster::builder(Major::with_clients())
        .setting("hba_file", &hba.display().to_string().replace('\'', "''"))
        .setting("include_if_exists", "/nonexistent");
    let ready = Ready::of(scratch, builder, "");
    ready.cluster.append_conf(&format!("include_dir = '{}'\n", folder.join("conf.d").display()));
    fs::create_dir(folder.join("conf.d")).expect("make conf.d");
    fs::rename(&extra, folder.join("conf.d/extra.conf")).expect("move");
    for path in [&folder.join("conf.d"), &folder.join("conf.d/extra.conf")] {
        ready.scratch.give(path);
    }
    ready.cluster.reload();
    let backup = ready.take("");
    let kept: BTreeMap<&str, &str> =
        list_of(&backup["configuration_files"]).iter().map(|f| (text(&f["original"]), text(&f["path"]))).collect();
    let manifest = ready.manifest(&backup);
    for original in [hba, folder.join("conf.d/extra.conf")] {
        let path = kept[original.to_str().expect("UTF-8")];
        let file = manifest.iter().find(|line| line["path"] == path).expect("it is in the manifest");
        assert_eq!(ready.content(file), fs::read(&original).expect("read the original"));
    }
    assert_eq!(kept.len(), 2, "{kept:?}");
    says(&ready.walden.ok(["backup", "show", text(&backup["id"]), "--files"]), &["extra.conf", "hba's.conf"]);
    // A role that may only replicate takes backups, too, and is told what is not in them.
    ready.cluster.sql("create role plain login replication");
    let dsn = ready.cluster.dsn().replace("user=walden", "user=plain");
    let output = ready.walden.command(["backup", "take"]).env("WALDEN_POSTGRESQL__DSN", dsn).output().expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    says(&stderr, &["configuration files", "not in the backup", "pg_read_all_settings"]);
}

#[test]
fn memory_does_not_grow_with_the_database() {
    let long = is_long();
    let rows = if long { 2_000_000 } else { 180_000 };
    let ready = Ready::new("large", Major::with_clients(), "");
    ready.cluster.sql("create table t(n int, s text)");
    // Text that hardly compresses: packs and queues are as full as they can be.
    ready.cluster.sql(&format!(
        "insert into t select n, (select string_agg(md5(random()::text || n || i), '') from generate_series(1, 32) i) \
         from generate_series(1, {rows}) n"
    ));
    ready.cluster.sql("checkpoint");
    let mut child = ready.walden.command(["backup", "take"]).stderr(Stdio::null()).spawn().expect("run walden");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("wait for walden").is_none() {
        let now = fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(child.wait().expect("wait for walden").success());
    let backup = &ready.list()["backups"][0];
    let plain = number(&backup["plain_bytes"]);
    assert!(plain > if long { 2 << 30 } else { 180 << 20 }, "{plain} bytes");
    assert!((10 << 10..96 << 10).contains(&peak), "{peak} KiB for {plain} bytes");
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
}
