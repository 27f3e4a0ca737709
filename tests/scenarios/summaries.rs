//! What the archive says of each segment without its being read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use walden::codec::Envelope;

use crate::harness::{Cluster, Major, Scratch, Stop, Walden, outer_majors, run_as_server};

/// The summaries in the headers of all archived segments, by name.
fn stored(walden: &Walden) -> BTreeMap<String, Value> {
    let mut summaries = BTreeMap::new();
    for folder in fs::read_dir(walden.repository.join("main/wal")).expect("read the repository") {
        let folder = folder.expect("an entry").path();
        for object in folder
            .is_dir()
            .then(|| fs::read_dir(folder).expect("read a folder"))
            .into_iter()
            .flatten()
        {
            let object = fs::read(object.expect("an entry").path()).expect("read an object");
            let envelope = Envelope::parse(&object).expect("an envelope");
            assert!(
                envelope.len <= 68 << 10,
                "an envelope of {} bytes",
                envelope.len
            );
            let about: Value = envelope.header.about.read().expect("JSON");
            summaries.insert(
                about["name"].as_str().expect("a name").to_string(),
                about["summary"].clone(),
            );
        }
    }
    summaries
}

fn sum(summaries: &BTreeMap<String, Value>, pointer: &str) -> u64 {
    summaries
        .values()
        .map(|summary| {
            summary
                .pointer(pointer)
                .and_then(Value::as_u64)
                .expect("a number")
        })
        .sum()
}

outer_majors!(each_segment_tells_what_it_holds, each_segment_tells);

fn each_segment_tells(major: Major) {
    let scratch = Scratch::new("summaries");
    let mut cluster = Cluster::builder(major)
        .segment_mib(1)
        .setting("wal_keep_size", "1GB")
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let service = walden.serve();
    cluster.sql("create table orders (id int, note text); create table gone as select generate_series(1, 100) x");
    let xid = cluster.sql("begin; insert into orders select i, md5(i::text) from generate_series(1, 60000) i; select pg_current_xact_id(); commit");
    let xid: u32 = xid
        .lines()
        .find_map(|line| line.parse().ok())
        .expect("an xid");
    cluster.sql("select pg_create_restore_point('before')");
    cluster.sql("drop table gone");
    for _ in 0..50 {
        cluster.sql("update orders set note = 'x' where id = 7");
    }
    cluster.archive_now();

    let summaries = stored(&walden);
    assert!(summaries.len() > 5, "{} segments", summaries.len());
    assert!(
        summaries
            .values()
            .all(|summary| summary["stop"].is_null() && summary["records"].as_u64() > Some(0))
    );
    assert!(sum(&summaries, "/commits/count") >= 53 && sum(&summaries, "/ends/count") >= 53);
    let events = summaries
        .values()
        .flat_map(|summary| summary["events"].as_array().expect("a list"));
    let kinds: Vec<&str> = events
        .map(|event| event["kind"].as_str().expect("a kind"))
        .collect();
    assert!(
        kinds.contains(&"restore-point") && kinds.contains(&"dropped"),
        "{kinds:?}"
    );
    // The rows of one transaction over several segments, but for those in records that cross.
    let rows = summaries
        .values()
        .flat_map(|summary| summary["rows"]["largest"].as_array().expect("a list"));
    let mine = rows
        .filter(|rows| rows["xid"] == xid)
        .filter_map(|rows| rows["inserted"].as_u64());
    let inserted: Vec<u64> = mine.collect();
    let total: u64 = inserted.iter().sum();
    assert!(
        inserted.len() > 3 && (60000 - 2 * inserted.len() as u64..=60000).contains(&total),
        "{inserted:?}"
    );
    let ended = summaries
        .values()
        .flat_map(|summary| summary["oldest_ended"].as_array().expect("a list"));
    assert_eq!(
        ended
            .filter(|ended| ended[0] == xid && ended[4] == true)
            .count(),
        1,
        "its end is named"
    );

    for (name, summary) in &summaries {
        assert_eq!(
            walden.json(["wal", "show", name])["summary"],
            *summary,
            "{name}"
        );
        let file = cluster.data.join("pg_wal").join(name);
        if file.exists() {
            assert_eq!(
                walden.json(["wal".as_ref(), "show".as_ref(), file.as_os_str()])["summary"],
                *summary,
                "{name}"
            );
        }
    }
    let said: String = summaries
        .keys()
        .map(|name| walden.ok(["wal", "show", name]))
        .collect();
    assert!(
        said.contains("restore point \"before\"") && said.contains("files removed: "),
        "{said}"
    );
    cluster.stop(Stop::Fast);
    service.stop();
}

#[test]
fn a_segment_whose_records_break_off_is_stored_warned_about_and_counted() {
    let scratch = Scratch::new("broken WAL");
    let builder = Cluster::builder(Major::newest())
        .segment_mib(1)
        .setting("wal_keep_size", "1GB");
    let mut cluster = builder.start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    cluster.sql("create table t as select i, md5(i::text) from generate_series(1, 30000) i");
    let name = cluster.sql("select pg_walfile_name(pg_current_wal_lsn() - 1048576)");
    cluster.switch_wal();
    cluster.stop(Stop::Fast);
    let file = scratch.join(&name);
    run_as_server(
        "cp",
        [
            cluster.data.join("pg_wal").join(&name).as_os_str(),
            file.as_os_str(),
        ],
    );
    let mut bytes = fs::read(&file).expect("read the segment");
    bytes[500_000] ^= 4;
    fs::write(&file, &bytes).expect("damage the segment");

    walden.expect_log("its records break off");
    let service = walden.serve();
    archive(&walden, &file);
    archive(&walden, &file);
    let status = walden.json(["status"]);
    let broken = &status["archiving"]["broken"];
    assert_eq!(
        (broken["count"].as_u64(), broken["last"].as_str()),
        (Some(1), Some(&*name)),
        "{status:#}"
    );
    assert!(
        walden
            .ok(["status"])
            .contains("1 with records that break off, stored as they are, last ")
    );
    assert_eq!(
        service.log().matches("its records break off").count(),
        1,
        "{}",
        service.log()
    );
    let said = walden.ok(["wal", "show", &name]);
    assert!(said.contains("breaks off "), "{said}");
    let back = scratch.join("back");
    walden.ok([
        "wal".as_ref(),
        "fetch".as_ref(),
        name.as_ref(),
        back.as_os_str(),
    ]);
    assert!(
        fs::read(&back).expect("read") == bytes,
        "what the server wrote is kept"
    );
    service.stop();
}

/// As the server's archiver does.
fn archive(walden: &Walden, file: &Path) {
    let mut command = crate::harness::command(Walden::program("archive-command"));
    command
        .arg("--config")
        .arg(&walden.config)
        .arg("--socket")
        .arg(&walden.socket)
        .arg(file);
    let output = command.output().expect("run archive-command");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_is_no_segment_is_told_with_the_next_step() {
    let scratch = Scratch::new("no segment");
    let cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::beside(&scratch, &cluster);
    walden.ok(["init"]);
    for (named, said, hint) in [
        (
            "0000000100000000000000FF",
            "\"0000000100000000000000FF\" is not archived in ",
            "walden wal list",
        ),
        (
            "nonsense",
            "\"nonsense\" is not the name of a WAL segment",
            "./<name>",
        ),
        (
            "/nowhere/000000010000000000000001",
            "cannot read \"/nowhere/000000010000000000000001\"",
            "path",
        ),
        (
            "/etc/passwd",
            "cannot read \"/etc/passwd\"",
            "only WAL segments",
        ),
    ] {
        let error = walden.refused(1, ["wal", "show", named]);
        assert!(
            error.contains(said) && error.contains("HINT: ") && error.contains(hint),
            "{named}: {error}"
        );
    }
}
