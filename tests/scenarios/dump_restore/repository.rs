//! Dumps of a repository: which one is meant, and that it is what was stored.

use std::fs;

use serde_json::Value;

use super::shop::{self, fingerprint};
use super::{databases, walden};
use crate::harness::{Cluster, Major, ObjectStore, Scratch, Walden};

/// Takes a dump; its ID.
fn take(walden: &Walden, options: &[&str]) -> String {
    walden.ok(["dump", "take", "--database", "shop"].iter().chain(options));
    let all = walden.json(["dump", "list"]);
    let newest = all["dumps"]
        .as_array()
        .expect("dumps")
        .iter()
        .max_by_key(|dump| dump["time"].to_string());
    newest.expect("a dump")["id"]
        .as_str()
        .expect("an ID")
        .to_string()
}

/// What the list says of a dump.
fn listed(walden: &Walden, id: &str) -> Value {
    let all = walden.json(["dump", "list"]);
    let dumps = all["dumps"].as_array().expect("dumps");
    dumps
        .iter()
        .find(|dump| dump["id"] == id)
        .expect("the dump")
        .clone()
}

#[test]
fn the_dump_that_is_meant_comes_back_and_is_proven() {
    let scratch = Scratch::new("dump which");
    let cluster = Cluster::builder(Major::with_clients()).start(&scratch);
    let walden = walden(&scratch, &cluster, "");
    walden.ok(["init"]);
    shop::roles(&cluster);
    shop::make(&cluster, "shop");
    let (mut ids, mut states, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for format in ["custom", "directory", "plain"] {
        cluster.sql_in(
            "shop",
            &format!("insert into parent_log values (1, '{format}')"),
        );
        states.push(fingerprint(&cluster, "shop"));
        ids.push(take(&walden, &["--format", format]));
        times.push(cluster.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"));
        // A dump's name has whole seconds.
        cluster.sql("select pg_sleep(1.1)");
    }
    take(&walden, &["--table", "customers"]);
    cluster.sql_in("shop", "drop table documents");
    assert!(listed(&walden, &ids[2])["proven_at"].is_null());

    let latest = walden.json(["dump", "restore", "--latest", "--database", "shop"]);
    assert_eq!(latest["dump"], ids[2].as_str(), "{latest:#}");
    assert_eq!(fingerprint(&cluster, "shop"), states[2]);
    assert!(!listed(&walden, &ids[2])["proven_at"].is_null());
    let at = walden.json([
        "dump",
        "restore",
        "--at",
        &times[1],
        "--database",
        "shop",
        "--drop-old",
    ]);
    assert_eq!(at["dump"], ids[1].as_str(), "{at:#}");
    assert_eq!(fingerprint(&cluster, "shop"), states[1]);
    walden.ok(["dump", "restore", &ids[0], "--drop-old", "--jobs", "3"]);
    assert_eq!(fingerprint(&cluster, "shop"), states[0]);
    // Where no database of that name is left, a plain dump's manifest tells how it was.
    walden.ok(["dump", "drop-old", "--yes"]);
    cluster.sql("drop database shop");
    walden.ok(["dump", "restore", &ids[2]]);
    assert_eq!(fingerprint(&cluster, "shop"), states[2]);
    let early = walden.refused(
        1,
        [
            "dump",
            "restore",
            "--at",
            "2020-01-01 00:00",
            "--database",
            "shop",
        ],
    );
    assert!(
        early.contains("no complete dump of all of database \"shop\""),
        "{early}"
    );
    walden.refused(2, ["dump", "restore"]);
    walden.refused(2, ["dump", "restore", "--latest", &ids[0]]);

    let folder = walden.repository.join("main/dumps");
    let file = folder.join(format!("{}.dump", ids[0]));
    let mut bytes = fs::read(&file).expect("read the dump");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&file, bytes).expect("damage the dump");
    let damaged = walden.refused(3, ["dump", "restore", &ids[0]]);
    assert!(
        damaged.contains("is damaged") && damaged.contains("SHA-256"),
        "{damaged}"
    );
    assert_eq!(databases(&cluster), ["postgres", "shop"]);
    // Nothing is left that keeps dumps from deletion.
    let leases = fs::read_dir(walden.repository.join("main/leases"))
        .into_iter()
        .flatten()
        .count();
    assert_eq!(leases, 0);
}

#[test]
fn a_dump_in_a_bucket_comes_back_through_a_local_file_that_goes() {
    let Some(store) = ObjectStore::moto() else {
        return;
    };
    let scratch = Scratch::new("dump bucket");
    let cluster = Cluster::builder(Major::with_clients()).start(&scratch);
    let programs = cluster.major.bin().display().to_string();
    let spool = scratch.folder("spool");
    let settings = format!(
        "dump.programs = \"{programs}\"\ndump.spool = \"{}\"\n",
        spool.display()
    );
    let bucket = store.fresh_bucket();
    let walden = Walden::on_s3(&scratch, &cluster, &bucket, &settings);
    let latest = || {
        let answer = bucket.request("GET", "main/dumps/shop/shop_latest", b"");
        String::from_utf8(answer.body).expect("a name")
    };
    let mut ids = Vec::new();
    walden.ok(["init"]);
    shop::roles(&cluster);
    shop::make(&cluster, "shop");
    let before = fingerprint(&cluster, "shop");
    for format in ["custom", "directory"] {
        ids.push(take(&walden, &["--format", format]));
        let (_, name) = ids[ids.len() - 1].split_once('/').expect("a database");
        let endings = [("custom", ".dump"), ("directory", ".dir")];
        let (_, ending) = endings
            .into_iter()
            .find(|(one, _)| *one == format)
            .expect("one");
        assert_eq!(latest().trim_end(), format!("{name}{ending}"));
        walden.ok([
            "dump",
            "restore",
            "--latest",
            "--database",
            "shop",
            "--drop-old",
        ]);
        assert_eq!(fingerprint(&cluster, "shop"), before, "{format}");
        assert_eq!(fs::read_dir(&spool).expect("list the folder").count(), 0);
        cluster.sql("select pg_sleep(1.1)");
    }
    walden.ok(["dump", "delete", "--yes", "shop_latest"]);
    let (_, first) = ids[0].split_once('/').expect("a database");
    assert_eq!(latest().trim_end(), format!("{first}.dump"));
    assert_eq!(listed(&walden, &ids[0])["tier"], Value::Null);
}
