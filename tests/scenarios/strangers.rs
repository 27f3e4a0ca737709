//! What others put into the repository's folders, such as file servers, is foreign: never opened, never damaged, never in
//! the way.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Major, Scratch, Walden, wait_until};

/// All folders of a repository.
fn folders(root: &Path) -> Vec<PathBuf> {
    let (mut waiting, mut found) = (vec![root.to_path_buf()], Vec::new());
    while let Some(folder) = waiting.pop() {
        let entries = fs::read_dir(&folder)
            .expect("list")
            .map(|entry| entry.expect("an entry").path());
        waiting.extend(entries.filter(|path| path.is_dir()));
        found.push(folder);
    }
    found
}

fn litter(folder: &Path, scratch: &Scratch) {
    for name in ["Thumbs.db", ".DS_Store", "zzz~", "backup.bak"] {
        fs::write(folder.join(name), "x").expect("write a file");
        scratch.give(&folder.join(name));
    }
    fs::write(
        folder.join(std::ffi::OsStr::from_bytes(b"not \xff UTF-8")),
        "x",
    )
    .expect("write a file");
    for name in ["@eaDir", "lost+found", "Archive"] {
        fs::create_dir(folder.join(name)).expect("make a folder");
    }
    let fifo = rustix::fs::FileType::Fifo;
    for name in ["pipe", "20200101T000000Z-00000000.zst"] {
        rustix::fs::mknodat(rustix::fs::CWD, folder.join(name), fifo, 0o644.into(), 0)
            .expect("make a pipe");
    }
    symlink("nowhere", folder.join("dangling")).expect("make a link");
    symlink("..", folder.join("up")).expect("make a link");
}

#[test]
fn strangers_in_every_folder_are_in_nobodys_way() {
    let scratch = Scratch::new("strangers");
    let mut cluster = Cluster::builder(Major::newest())
        .segment_mib(1)
        .start(&scratch);
    let walden = Walden::with(&scratch, &cluster, "catalog.names_interval = \"1s\"");
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    let service = walden.serve();
    cluster.sql("create table t(a int)");
    let first = walden.json(["backup", "take"])["id"]
        .as_str()
        .expect("an id")
        .to_string();
    cluster.archive_now();
    wait_until("names are recorded", || {
        walden.repository.join("main/names").is_dir()
    });
    folders(&walden.repository)
        .iter()
        .for_each(|folder| litter(folder, &scratch));
    let stats = walden.json(["repo", "stats"]);
    let foreign = stats["foreign"].as_array().expect("a list");
    assert!(
        foreign.len() >= 10
            && foreign.iter().all(|key| {
                key.as_str()
                    .is_some_and(|key| key.ends_with("/Thumbs.db") || key.ends_with("/backup.bak"))
            }),
        "{foreign:?}"
    );
    assert_eq!(
        walden.json(["repo", "verify"])["findings"],
        serde_json::json!([])
    );
    let copy = scratch.join("copy");
    let copied = walden.ok([
        "repo",
        "copy",
        "--to",
        &format!("file://{}", copy.display()),
    ]);
    assert!(
        copied.contains("foreign, not copied: object \"main/names/Thumbs.db\""),
        "{copied}"
    );
    let of_strangers = |path: &PathBuf| path.ends_with("Thumbs.db") || path.ends_with("pipe");
    let copied = folders(&copy)
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).expect("list"));
    assert!(
        !copied
            .map(|entry| entry.expect("an entry").path())
            .any(|path| of_strangers(&path))
    );
    // What is archived later sorts before some of them, and is seen nevertheless.
    let last = cluster.archive_now();
    let targets = walden.ok(["target"]);
    walden.ok(["find"]);
    walden.ok(["wal", "verify"]);
    let taken = walden.json(["backup", "take"])["id"]
        .as_str()
        .expect("an id")
        .to_string();
    cluster.archive_now();
    let to_dir = scratch.join("restored").display().to_string();
    let plan = walden.ok(["restore", "--latest", "--dry-run", "--to-dir", &to_dir]);
    assert!(plan.contains(&taken), "after {last}: {targets}{plan}");
    // Deleting a backup leaves a stranger's files, and no unfinished backup.
    walden.ok(["backup", "delete", &first, "--yes"]);
    assert!(
        walden
            .repository
            .join("main/base")
            .join(&first)
            .join("Thumbs.db")
            .exists()
    );
    assert_eq!(
        walden.json(["backup", "list"])["unfinished"],
        serde_json::json!([])
    );
    service.stop();
}
