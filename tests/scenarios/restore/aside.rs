//! A restore in place: what was there is kept, and works.

use std::fs;
use std::path::{Path, PathBuf};

use super::{archiving, arguments, take_backup};
use crate::harness::{Cluster, Major, Scratch, Stop, Walden};

/// The first entry of a folder whose name begins so.
fn entry(folder: &Path, begins: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("list a folder").flatten();
    let mut meant = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begins));
    meant.next().expect("an entry").path()
}

#[test]
fn what_was_there_is_kept_with_its_tablespace_and_can_be_had_again() {
    let scratch = Scratch::new("aside");
    let major = Major::newest();
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (mut cluster, walden) = archiving(&scratch, cluster);
    let fast = scratch.folder("fast space");
    cluster.sql(&format!(
        "create tablespace fast location '{}'",
        fast.display()
    ));
    cluster.sql("create table orders(n) tablespace fast as select generate_series(1, 100)");
    take_backup(&walden);
    cluster.sql("select pg_create_restore_point('before the accident')");
    cluster.sql(
        "delete from orders where n > 10; create table evidence as select 'who did it' as note",
    );
    cluster.archive_now();
    let target = [
        "--name",
        "before the accident",
        "--keep-archiving",
        "--snapshot-first",
    ];
    let to = cluster.data.clone();
    let oid = cluster.sql("select oid from pg_tablespace where spcname = 'fast'");
    let moved = format!("{oid}={}", scratch.join("new space").display());
    let target = [&target[..], &["--tablespace", &moved]].concat();
    let restore = arguments(&major, &to, &target);

    // One that runs is not touched, and both ways are named.
    let told = walden.refused(1, &restore);
    assert!(
        told.contains("runs in") && told.contains("walden backup take"),
        "{told}"
    );
    assert!(told.contains(" stop"), "{told}");
    cluster.stop(Stop::Fast);
    // Two clusters would have one tablespace.
    let shared = arguments(&major, &to, &target[..4]);
    let told = walden.refused(1, &shared);
    assert!(told.contains("--tablespace OID=NEW"), "{told}");
    let mut dry = vec![
        "restore".to_string(),
        "--to-dir".into(),
        to.display().to_string(),
    ];
    dry.extend(target.iter().map(|word| word.to_string()));
    dry.push("--dry-run".into());
    let told = walden.ok(&dry);
    assert!(
        told.contains("keeps") && told.contains(".before-"),
        "{told}"
    );
    assert!(fs::exists(to.join("PG_VERSION")).unwrap());

    what_fails_midway_has_lost_nothing(&mut cluster, &walden, &restore);
    fs::remove_dir_all(scratch.join("new space")).unwrap();
    let mut json = vec!["--format".to_string(), "json".into()];
    json.extend(restore);
    let done: serde_json::Value = serde_json::from_str(&walden.ok(&json)).expect("JSON");
    let kept = done["kept"].as_array().expect("what is kept");
    assert_eq!(kept.len(), 1, "{done:#}");
    assert_eq!(kept[0]["was"], to.display().to_string());
    let kept = PathBuf::from(kept[0]["kept_as"].as_str().unwrap());
    cluster.adopt(
        done["recovered"]["port"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap(),
        done["recovered"]["socket_directory"]
            .as_str()
            .unwrap()
            .as_ref(),
    );
    assert_eq!(cluster.sql("select count(*) from orders"), "100");
    assert_eq!(cluster.sql("select to_regclass('evidence') is null"), "t");
    let record = walden.json(["evidence", "list", "--act", "restore"]);
    let kept_of = &record[0]["details"]["kept"][0]["kept_as"];
    assert_eq!(*kept_of, kept.display().to_string());
    cluster.stop(Stop::Fast);

    let location = shown_beside(Cluster::of(major, kept, scratch.folder("old")));
    assert_eq!(location, fast.display().to_string());
}

/// It says how to go back, and that is done here.
fn what_fails_midway_has_lost_nothing(cluster: &mut Cluster, walden: &Walden, restore: &[String]) {
    let to = cluster.data.clone();
    let pack = entry(&entry(&walden.repository.join("main/base"), ""), "pack-");
    let hidden = pack.with_file_name("hidden");
    fs::rename(&pack, &hidden).unwrap();
    let failed = walden.refused(1, restore);
    assert!(
        failed.contains("to go back: ") && failed.contains("mv "),
        "{failed}"
    );
    let name = format!("{}.before-", to.file_name().unwrap().display());
    let kept = entry(to.parent().unwrap(), &name);
    fs::remove_dir_all(&to).unwrap();
    fs::rename(&kept, &to).unwrap();
    cluster.start();
    assert_eq!(cluster.sql("select count(*) from orders"), "10");
    cluster.stop(Stop::Fast);
    fs::rename(&hidden, &pack).unwrap();
}

/// What is kept shows what happened, beside the new one. Where its tablespace lies.
fn shown_beside(mut old: Cluster) -> String {
    old.append_conf("archive_mode = off\n");
    old.start();
    assert_eq!(old.sql("select note from evidence"), "who did it");
    assert_eq!(old.sql("select count(*) from orders"), "10");
    old.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'")
}
