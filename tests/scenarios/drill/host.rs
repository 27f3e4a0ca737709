//! What the host of a drill lacks: told, and no fault of the backup.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::faults::{drill_with, programs, reason};
use super::{check, drill, is_empty, prepared};
use crate::harness::{Major, Scratch, command, finish};
use crate::small_disk::SmallDisk;

/// A library of PostgreSQL's, where it can be removed.
fn library(scratch: &Scratch, major: &Major, name: &str) -> PathBuf {
    let mut asked = command(major.program("pg_config"));
    let output = finish(asked.arg("--pkglibdir"));
    let library = scratch.join(name);
    fs::copy(Path::new(output.stdout.trim()).join(name), &library).expect("copy a library");
    scratch.give(&library);
    library
}

#[test]
fn what_the_host_lacks_is_told_and_no_failure() {
    let (scratch, major) = (Scratch::new("drillhost"), Major::newest());
    let (mut cluster, walden) = prepared(&scratch, &major);
    // Libraries that are not installed there, wherever the server looks for them.
    let library = library(&scratch, &major, "auto_explain.so");
    let of_extension = self::library(&scratch, &major, "citext.so");
    cluster.sql(&format!(
        "create function compare(text, text) returns int language c immutable strict as '{}', 'citext_cmp';
         create operator class odd for type text using btree as
             operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 compare(text, text);
         create table sayings(saying text); insert into sayings select 's' || n from generate_series(1, 900) n;
         create index of_extension on sayings(saying odd)",
        of_extension.display()
    ));
    cluster.append_conf(&format!(
        "shared_preload_libraries = '{}'\n",
        library.display()
    ));
    cluster.restart();
    // An index that is out of order, in a database that says that another library made that order.
    cluster.sql(
        "create database words template template0 encoding 'UTF8' lc_collate 'C.utf8' lc_ctype 'C.utf8'",
    );
    cluster.sql_in(
        "words",
        "create table words(word text); insert into words select 'w' || n from generate_series(1, 900) n;
         create index out_of_order on words(word);
         update pg_index set indoption = '1' where indexrelid = 'out_of_order'::regclass",
    );
    let version = |version: &str| {
        let sql = "update pg_database set datcollversion =";
        cluster.sql(&format!("{sql} {version} where datname = 'words'"));
    };
    version("'1'");
    walden.expect_log("has no actual collation version");
    walden.ok(["backup", "take"]);
    cluster.archive_now();
    fs::remove_file(&library).unwrap();
    fs::remove_file(&of_extension).unwrap();
    let own = "[[assert]]\nname = \"compared\"\ndatabase = \"postgres\"\nsql = \"select compare('a', 'A')\"\nmax = 0\n";
    let own = scratch.write("own.toml", own);
    let report = drill_with(&walden, 0, &[("DRILL__ASSERTS", own.to_str().unwrap())]);
    for name in ["compared", "indexes of \"postgres\""] {
        let lacking = check(&report, name);
        let seen = lacking["seen"].as_str().unwrap();
        assert!(seen.contains("could not access file"), "{report:#}");
    }
    assert_eq!(check(&report, "compared")["verdict"], "could-not-run");
    let libraries = check(&report, "preload libraries");
    assert_eq!(libraries["verdict"], "could-not-run", "{report:#}");
    let indexes = check(&report, "indexes of \"words\"");
    assert!(
        indexes["seen"]
            .as_str()
            .unwrap()
            .contains("collation default is of version 1, here of none"),
        "{report:#}"
    );
    // The same index, where the order is this library's.
    version("null");
    cluster.archive_now();
    let report = drill(&walden, 3, &[]);
    assert!(reason(&report).contains("invariant violated"), "{report:#}");
    // Nobody whom the drill knows is let in.
    let dsn = cluster.dsn().replace("user=walden", "user=somebody");
    let report = drill_with(&walden, 1, &[("POSTGRESQL__DSN", &dsn)]);
    assert!(
        reason(&report).contains("lets none of these roles in: somebody"),
        "{report:#}"
    );
    assert!(is_empty(&scratch.join("drills")));
}

#[test]
fn a_disk_that_is_full_at_any_stage_is_told_and_no_failure() {
    let (scratch, major) = (Scratch::new("drillfull"), Major::newest());
    let (_cluster, walden) = prepared(&scratch, &major);
    let drills = scratch.folder("drills");
    let could_not = |report: &serde_json::Value, why: &str| {
        assert_eq!(report["verdict"], "could-not-run", "{report:#}");
        assert!(reason(report).contains(why), "{report:#}");
    };
    // It is seen before anything is written.
    let Some(small) = SmallDisk::mount(&drills, &scratch) else {
        return;
    };
    could_not(&drill(&walden, 1, &[]), "not enough space");
    assert!(is_empty(&drills));
    drop(small);
    fs::remove_dir_all(scratch.join("aside")).unwrap();
    let _disk = SmallDisk::of_mib(128, &drills, &scratch).expect("it could be mounted before");
    // Somebody else fills it while the server starts.
    let filler = drills.join("filler");
    let fill = format!(
        "dd if=/dev/zero of='{}' bs=64k 2>/dev/null",
        filler.display()
    );
    let own = programs(&scratch, &major, "filling", &fill);
    let settings = [("DRILL__PROGRAMS", own.to_str().unwrap())];
    could_not(&drill_with(&walden, 1, &settings), "No space left");
    fs::remove_file(&filler).unwrap();
    assert!(is_empty(&drills));
    // And while files are written.
    let is_over = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            while is_empty(&drills) && !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&filler)
                .unwrap();
            while !is_over.load(Ordering::Relaxed) {
                if file.write(&[1; 4096]).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let output = walden.run(["--format", "json", "drill", "run"]);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(output.code, Some(1), "{output:?}");
        serde_json::from_str(&output.stdout).expect("JSON")
    });
    could_not(&report, "No space left");
    fs::remove_file(&filler).unwrap();
    assert!(is_empty(&drills));
    drill(&walden, 0, &[]);
}

#[test]
fn an_extension_that_is_not_installed_is_told_and_no_failure_of_a_dump() {
    let (scratch, major) = (Scratch::new("drillext"), Major::newest());
    if major.number < 18 {
        return; // Older servers look for extensions in one place.
    }
    let (mut cluster, walden) = prepared(&scratch, &major);
    let folder = scratch.folder("share");
    let inner = scratch.folder("share/extension");
    for (name, text) in [
        (
            "odd.control",
            "default_version = '1.0'\nrelocatable = true\n",
        ),
        (
            "odd--1.0.sql",
            "create function odd() returns int language sql as 'select 1';\n",
        ),
    ] {
        fs::write(inner.join(name), text).unwrap();
        scratch.give(&inner.join(name));
    }
    cluster.append_conf(&format!(
        "extension_control_path = '{}:$system'\n",
        folder.display()
    ));
    cluster.restart();
    cluster.sql("create extension odd");
    walden.ok(["dump", "take"]);
    let report = drill(&walden, 1, &["--dump"]);
    assert_eq!(report["verdict"], "could-not-run", "{report:#}");
    assert!(reason(&report).contains("\"odd\""), "{report:#}");
    assert!(is_empty(&scratch.join("drills")));
}
