//! Base backups: taken, listed, shown, verified, deleted.

mod spoiled;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Cluster, Major, Scratch, Walden, each_major, is_long, wait_until};

/// A registered cluster that archives.
struct Ready {
    walden: Walden,
    cluster: Cluster,
    scratch: Scratch,
}

impl Ready {
    fn new(name: &str, major: Major, settings: &str) -> Self {
        let builder = Cluster::builder(major)
            .segment_mib(1)
            .checksums(true)
            .setting("autovacuum", "off");
        Self::of(Scratch::new(name), builder, settings)
    }

    fn of(scratch: Scratch, builder: crate::harness::Builder, settings: &str) -> Self {
        let mut cluster = builder.start(&scratch);
        let walden = Walden::with(&scratch, &cluster, settings);
        walden.ok(["init"]);
        cluster.archive_with(&walden);
        Self {
            walden,
            cluster,
            scratch,
        }
    }

    /// Takes a backup; its description.
    fn take(&self, label: &str) -> Value {
        self.walden.json(["backup", "take", "--label", label])
    }

    fn list(&self) -> Value {
        self.walden.json(["backup", "list"])
    }

    fn folder(&self, backup: &Value) -> PathBuf {
        self.walden
            .repository
            .join("main/base")
            .join(text(&backup["id"]))
    }

    /// The lines of a backup's manifest, by `zstd` alone.
    fn manifest(&self, backup: &Value) -> Vec<Value> {
        let object = fs::read(self.folder(backup).join("manifest.zst")).expect("read the manifest");
        let lines = zstd::decode_all(&object[..]).expect("zstd opens the manifest");
        lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(json_line)
            .collect()
    }

    /// A file's content, put together as docs/repository-format.md tells.
    fn content(&self, file: &Value) -> Vec<u8> {
        let mut content = Vec::new();
        for extent in list_of(&file["extents"]) {
            let pack = self
                .walden
                .repository
                .join("main/base")
                .join(text(&extent["pack"]));
            let frames: u64 = list_of(&extent["frames"])
                .iter()
                .filter_map(Value::as_u64)
                .sum();
            let mut stored = vec![0; frames as usize];
            let pack = fs::File::open(pack).expect("open a pack");
            pack.read_exact_at(&mut stored, number(&extent["offset"]))
                .expect("read frames");
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
        assert!(
            list_of(&listed["backups"]).is_empty() && list_of(&listed["unfinished"]).is_empty(),
            "{listed}"
        );
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
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("open to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read a byte");
    file.write_all_at(&[byte[0] ^ 0x40], at)
        .expect("flip a bit");
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
    let ready = Ready::new(
        "every",
        major,
        "backup.max_rate = \"1GiB\"\nbackup.pack_size = \"1MiB\"",
    );
    let cluster = &ready.cluster;
    let location = ready.scratch.folder("table space");
    cluster.sql(&format!(
        "create tablespace other location '{}'",
        location.display()
    ));
    cluster.sql("create table here as select n, md5(n::text) t from generate_series(1, 20000) n");
    cluster.sql("create table there tablespace other as select n, md5(n::text) t from generate_series(1, 20000) n");
    cluster.sql("create table empty(n int)");
    cluster.sql("checkpoint");
    let backup = ready.take("it's a \"label\" \\ ü");
    assert_eq!(backup["label"], "it's a \"label\" \\ ü");
    assert_eq!(number(&backup["major"]), u64::from(number_of_major));
    assert_eq!(backup["data_checksums"], true);
    let tablespace = &list_of(&backup["tablespaces"])[0];
    assert_eq!(
        text(&tablespace["location"]),
        location.display().to_string()
    );
    let mut compared = 0;
    for file in ready
        .manifest(&backup)
        .iter()
        .filter(|entry| entry["kind"] == "file")
    {
        let path = text(&file["path"]);
        let content = ready.content(file);
        assert_eq!(content.len() as u64, number(&file["size"]), "{path}");
        let folder = if file["tablespace"].is_u64() {
            &location
        } else {
            &cluster.data
        };
        if file["tablespace"].is_u64() || path.starts_with("base/") || path == "PG_VERSION" {
            assert!(
                fs::read(folder.join(path)).expect("the server's file") == content,
                "{path} differs"
            );
            let mode = fs::metadata(folder.join(path))
                .expect("the server's file")
                .permissions()
                .mode();
            assert_eq!(number(&file["mode"]), u64::from(mode & 0o7777), "{path}");
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared} files compared");
    assert!(number(&backup["pack_count"]) > 2);
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
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
    let builder = Cluster::builder(major.clone())
        .segment_mib(1)
        .checksums(true)
        .setting("autovacuum", "off");
    // Replication sessions have the server's settings, whatever the role's are.
    let builder = builder.setting("default_transaction_isolation", "serializable");
    let ready = Ready::of(Scratch::new("standby"), builder, "");
    ready
        .cluster
        .sql("create table t as select n from generate_series(1, 1000) n");
    ready
        .cluster
        .sql("create role hostile superuser replication login");
    for setting in HOSTILE.iter().chain(timeouts) {
        ready
            .cluster
            .sql(&format!("alter role hostile set {setting}"));
    }
    let standby = ready.cluster.standby(&ready.scratch);
    let dsn = standby.dsn().replace("user=walden", "user=hostile");
    let mut take = ready.walden.command(["--format", "json", "backup", "take"]);
    let mut child = take
        .env("WALDEN_POSTGRESQL__DSN", dsn)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run");
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

#[test]
fn deleting_says_what_is_lost_and_refuses_the_only_backup() {
    let ready = Ready::new("delete", Major::with_clients(), "");
    let first = ready.take("first");
    let id = text(&first["id"]);
    says(
        &ready.walden.refused(1, ["backup", "delete", id, "--yes"]),
        &["the only one", "HINT: ", "--force"],
    );
    let second = ready.take("second");
    says(
        &ready.walden.refused(1, ["backup", "delete", id]),
        &["needs a confirmation", "--yes"],
    );
    assert!(ready.folder(&first).exists());
    let told = ready.walden.ok(["backup", "delete", id, "--yes"]);
    let window = format!(
        "from {} to before {}",
        text(&first["stop_lsn"]),
        text(&second["stop_lsn"])
    );
    says(&told, &["no longer restorable", &window, "deleted"]);
    assert!(!ready.folder(&first).exists());
    for verb in [&["delete", id, "--yes"][..], &["verify", id], &["show", id]] {
        let arguments = std::iter::once(&"backup").chain(verb);
        says(
            &ready.walden.refused(1, arguments),
            &["there is no backup", id, "backup list"],
        );
    }
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
    ready
        .walden
        .ok(["backup", "delete", text(&second["id"]), "--yes", "--force"]);
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
    let file = lines.iter_mut().find(|line| {
        line["extents"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    });
    file.expect("a file")["extents"][0]["pack"] =
        format!("{}/pack-000001", text(&first["id"])).into();
    let plain: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let about = walden::codec::Envelope::parse(&object)
        .expect("an envelope")
        .header
        .about;
    let mut about: Value = about.read().expect("a description");
    let id = text(&first["id"]);
    // The description tells; in older ones it does not, and the lines do.
    for earlier in [serde_json::json!([id]), Value::Null] {
        about["earlier_backups"] = earlier;
        let sealed = walden::codec::seal(
            "backup",
            &about,
            &mut plain.as_bytes(),
            plain.len() as u64,
            3,
        )
        .expect("seal");
        fs::write(&path, [sealed.envelope, sealed.body].concat()).expect("write the manifest");
        let stderr = ready
            .walden
            .refused(1, ["backup", "delete", id, "--yes", "--force"]);
        says(
            &stderr,
            &["cannot be deleted", text(&second["id"]), "HINT: "],
        );
        assert!(ready.folder(&first).join("manifest.zst").exists());
    }
}

#[test]
fn configuration_files_outside_the_data_directory_are_in_the_backup() {
    let scratch = Scratch::new("outside");
    let folder = scratch.folder("etc");
    let hba = scratch.write(
        "etc/hba's.conf",
        "local all all trust\nlocal replication all trust\n",
    );
    let extra = scratch.write("etc/extra.conf", "work_mem = '5MB'\n");
    let builder = Cluster::builder(Major::with_clients())
        .setting("hba_file", &hba.display().to_string().replace('\'', "''"))
        .setting("include_if_exists", "/nonexistent");
    let ready = Ready::of(scratch, builder, "");
    ready.cluster.append_conf(&format!(
        "include_dir = '{}'\n",
        folder.join("conf.d").display()
    ));
    fs::create_dir(folder.join("conf.d")).expect("make conf.d");
    fs::rename(&extra, folder.join("conf.d/extra.conf")).expect("move");
    for path in [&folder.join("conf.d"), &folder.join("conf.d/extra.conf")] {
        ready.scratch.give(path);
    }
    ready.cluster.reload();
    let backup = ready.take("");
    let kept: BTreeMap<&str, &str> = list_of(&backup["configuration_files"])
        .iter()
        .map(|f| (text(&f["original"]), text(&f["path"])))
        .collect();
    let manifest = ready.manifest(&backup);
    for original in [hba, folder.join("conf.d/extra.conf")] {
        let path = kept[original.to_str().expect("UTF-8")];
        let file = manifest
            .iter()
            .find(|line| line["path"] == path)
            .expect("it is in the manifest");
        assert_eq!(
            ready.content(file),
            fs::read(&original).expect("read the original")
        );
    }
    assert_eq!(kept.len(), 2, "{kept:?}");
    says(
        &ready
            .walden
            .ok(["backup", "show", text(&backup["id"]), "--files"]),
        &["extra.conf", "hba's.conf"],
    );
    // A role that may only replicate takes backups, too, and is told once what is not in them.
    ready.cluster.sql("create role plain login replication");
    let dsn = ready.cluster.dsn().replace("user=walden", "user=plain");
    let output = ready
        .walden
        .command(["backup", "take"])
        .env("WALDEN_POSTGRESQL__DSN", &dsn)
        .output()
        .expect("run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    says(
        &stderr,
        &[
            "configuration files",
            "not in the backup",
            "pg_read_all_settings",
        ],
    );
    ready.cluster.sql("grant pg_read_all_settings to plain");
    let of_plain = |verb: &[&str]| {
        let mut command = ready.walden.command(verb);
        let output = command
            .env("WALDEN_POSTGRESQL__DSN", &dsn)
            .output()
            .expect("run");
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    };
    let told = of_plain(&["backup", "take"]);
    assert_eq!(told.matches(" WARN ").count(), 1, "{told}");
    says(
        &told,
        &[
            "hba's.conf",
            "extra.conf",
            "HINT: as a superuser run GRANT ",
        ],
    );
    let checked = of_plain(&["check", "--no-probe", "--check", "privileges"]);
    says(
        &checked,
        &["configuration files outside the data directory", "GRANT "],
    );
    // What the hint says is enough.
    let grants = told
        .split("as a superuser run ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .expect("a hint");
    ready.cluster.sql_each(grants);
    says(
        &of_plain(&["check", "--no-probe", "--check", "privileges"]),
        &["may do all that Walden does"],
    );
    let told = of_plain(&["backup", "take"]);
    assert!(!told.contains(" WARN "), "{told}");
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
    let mut child = ready
        .walden
        .command(["backup", "take"])
        .stderr(Stdio::null())
        .spawn()
        .expect("run walden");
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
    assert!(
        plain > if long { 2 << 30 } else { 180 << 20 },
        "{plain} bytes"
    );
    assert!(
        (10 << 10..96 << 10).contains(&peak),
        "{peak} KiB for {plain} bytes"
    );
    says(&ready.walden.ok(["backup", "verify", "all"]), &["sound"]);
}
