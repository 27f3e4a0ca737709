//! Damaged objects: refused, and named.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{archiving, arguments, restore, take_backup};
use crate::harness::{Cluster, Major, Random, Scratch};

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("list") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn a_damaged_cut_or_unreadable_object_is_refused_by_name_and_no_server_starts() {
    let (scratch, major) = (Scratch::new("damage"), Major::newest());
    let mut random = Random::seeded("damage");
    let cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(&scratch);
    let (cluster, walden) = archiving(&scratch, cluster);
    cluster.open_ledger();
    let backup = take_backup(&walden);
    let kept = cluster.mark("kept");
    let segment = cluster.archive_now();
    let folder = walden.repository.join("main/base").join(&backup);
    let packs: Vec<PathBuf> = files(&folder)
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("pack-"))
        .collect();
    let mut number = 0;
    let mut refuses = |object: &Path, what: &str, expected: &str| {
        number += 1;
        let data = scratch.join(&format!("r{number}"));
        let output = walden.run(arguments(&major, &data, &["--latest"]));
        assert!(
            !output.success(),
            "{what} of {} is not noticed",
            object.display()
        );
        let name = object
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            output.stderr.contains(expected) && output.stderr.contains("HINT"),
            "{what} {name}: {}",
            output.stderr
        );
        assert!(
            !data.join("global/pg_control").exists() || object.to_string_lossy().contains("/wal/"),
            "{what}"
        );
        assert!(!data.join("postmaster.pid").exists(), "{what}");
    };
    let pack = random.pick(&packs).clone();
    let manifest = folder.join("manifest.zst");
    for object in [&pack, &manifest, &walden.segment_object(&segment)] {
        let name = object
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // A damaged manifest makes the backup unusable: there is no other.
        let expected = if *object == manifest {
            backup.as_str()
        } else {
            name.as_str()
        };
        let whole = fs::read(object).expect("read an object");
        for _ in 0..3 {
            let mut flipped = whole.clone();
            // Of single bits some are of no use to zstd, and flip without harm.
            let place = random.below(flipped.len() - 16);
            flipped[place..place + 16]
                .iter_mut()
                .for_each(|byte| *byte ^= 0x5A);
            fs::write(object, &flipped).expect("damage an object");
            refuses(object, &format!("damage at {place}"), expected);
        }
        fs::write(object, &whole[..random.below(whole.len())]).expect("cut an object");
        refuses(object, "a cut", expected);
        fs::write(object, &whole).expect("mend the object");
        fs::set_permissions(object, fs::Permissions::from_mode(0o000)).expect("close the object");
        refuses(object, "a closed object", &name);
        fs::set_permissions(object, fs::Permissions::from_mode(0o600)).expect("open the object");
    }
    fs::rename(&pack, scratch.join("away")).expect("lose a pack");
    refuses(
        &pack,
        "a lost pack",
        &pack.file_name().expect("a name").to_string_lossy(),
    );
    fs::rename(scratch.join("away"), &pack).expect("find the pack");
    assert_eq!(
        restore(&walden, &major, scratch.join("whole"), &["--latest"])
            .cluster
            .rows(),
        kept.with()
    );
}
