//! Faults of the repository and of the data.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::Value;

use super::{check, drill, drill_where, entry, flip_byte, is_empty, prepared, prepared_by};
use crate::harness::{Cluster, Major, Scratch, Walden};

/// Programs of a major whose server runs `script` before it starts for good.
pub fn programs(scratch: &Scratch, major: &Major, name: &str, script: &str) -> PathBuf {
    let folder = scratch.folder(name);
    for program in fs::read_dir(major.bin()).unwrap().flatten() {
        if program.file_name() != "postgres" {
            symlink(program.path(), folder.join(program.file_name())).unwrap();
        }
    }
    let postgres = folder.join("postgres");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in --version*|*' -C '*) ;; *) {script} ;; esac\nexec '{}' \"$@\"\n",
        major.program("postgres").display()
    );
    fs::write(&postgres, text).unwrap();
    fs::set_permissions(&postgres, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A drill with other settings, as the environment gives them.
pub fn drill_with(walden: &Walden, code: i32, settings: &[(&str, &str)]) -> Value {
    let names = settings.iter().map(|(name, _)| format!("WALDEN_{name}"));
    let names: Vec<String> = names.collect();
    let values = settings.iter().map(|(_, value)| *value);
    let variables: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
    drill_where(walden, code, &[], &variables)
}

pub fn reason(report: &Value) -> &str {
    report["reason"].as_str().expect("a reason")
}

/// The segments of the archive, oldest first.
fn segments(walden: &Walden) -> Vec<PathBuf> {
    let timelines = fs::read_dir(walden.repository.join("main/wal")).unwrap();
    let folders = timelines.flatten().map(|entry| entry.path());
    let mut segments: Vec<PathBuf> = folders
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap().flatten())
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    segments
}

#[test]
fn what_replay_lacks_is_asked_for_again_before_the_backup_is_blamed() {
    let (scratch, major) = (Scratch::new("drillwal"), Major::newest());
    let (cluster, walden) = prepared(&scratch, &major);
    for round in 0..3 {
        cluster.sql(&format!("create table more{round}()"));
        cluster.archive_now();
    }
    let (repository, away) = (walden.repository.display(), scratch.join("away"));
    let lost = segments(&walden)[segments(&walden).len() - 2].clone();
    let with = |name: &str, script: String, code: i32| {
        let programs = programs(&scratch, &major, name, &script);
        let programs = programs.to_str().unwrap();
        let settings = [("DRILL__PROGRAMS", programs), ("WAL__TIMEOUT", "10s")];
        drill_with(&walden, code, &settings)
    };
    // The disk of the repository is unmounted.
    walden.expect_log("no record of this is kept");
    let script = format!("mv '{repository}' '{}'", away.display());
    let report = with("unmounting", script, 1);
    assert_eq!(report["verdict"], "could-not-run", "{report:#}");
    assert!(reason(&report).contains("cannot be reached"), "{report:#}");
    fs::rename(&away, &walden.repository).unwrap();
    // The segment cannot be read for a while.
    let script = format!("chmod 0 '{}'", lost.display());
    let report = with("closing", script, 1);
    assert_eq!(report["verdict"], "could-not-run", "{report:#}");
    fs::set_permissions(&lost, fs::Permissions::from_mode(0o600)).unwrap();
    // It is lost.
    let script = format!("mv '{}' '{}'", lost.display(), away.display());
    let report = with("losing", script, 3);
    assert_eq!(report["verdict"], "failed", "{report:#}");
    assert!(reason(&report).contains("is missing"), "{report:#}");
    // It was lost before.
    let report = drill(&walden, 3, &[]);
    assert_eq!(report["verdict"], "failed", "{report:#}");
    fs::rename(&away, &lost).unwrap();
    // It is damaged.
    flip_byte(&lost);
    let report = drill(&walden, 3, &[]);
    assert_eq!(report["verdict"], "failed", "{report:#}");
    flip_byte(&lost);
    // A newer backup that cannot be read is passed over, and told.
    walden.ok(["backup", "take"]);
    let base = walden.repository.join("main/base");
    let mut backups: Vec<PathBuf> = fs::read_dir(base)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    backups.sort();
    let newest = backups.last().expect("a backup");
    let manifest = entry(newest, |name| name.contains("manifest"));
    fs::write(manifest, "damaged").unwrap();
    let report = drill(&walden, 3, &[]);
    assert!(reason(&report).starts_with("backup 2"), "{report:#}");
    assert!(is_empty(&scratch.join("drills")));
}

#[test]
fn a_wrong_page_under_a_right_digest_fails() {
    let (scratch, major) = (Scratch::new("drillpage"), Major::newest());
    let builder = Cluster::builder(major.clone()).checksums(true);
    let (cluster, walden) = prepared_by(&scratch, builder);
    let report = drill(&walden, 0, &[]);
    let pages = check(&report, "page checksums");
    assert_eq!(pages["verdict"], "passed", "{report:#}");
    // Behind the restore's back; nothing that replay writes whole again.
    let file = cluster.sql("select pg_relation_filepath('pg_description')");
    let spoil = format!("printf x | dd of=\"$2/{file}\" bs=1 seek=8100 conv=notrunc 2>/dev/null");
    let programs = programs(&scratch, &major, "spoiling", &spoil);
    let programs = programs.to_str().unwrap();
    let report = drill_with(&walden, 3, &[("DRILL__PROGRAMS", programs)]);
    let pages = check(&report, "page checksums");
    assert_eq!(pages["verdict"], "failed", "{report:#}");
    assert!(
        pages["seen"].as_str().unwrap().contains(&file),
        "{report:#}"
    );
    assert!(is_empty(&scratch.join("drills")));
}
