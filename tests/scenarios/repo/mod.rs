//! Repositories as a whole: copied, verified, measured.

mod copy;
mod interrupted;
mod stats;
mod verify;

use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Major, Scratch, Walden};

/// A registered cluster that archives into a new repository through the hook, without a service.
fn archiving(scratch: &Scratch, major: &Major) -> (Cluster, Walden) {
    let mut cluster = Cluster::builder(major.clone())
        .segment_mib(1)
        .start(scratch);
    let walden = Walden::with(scratch, &cluster, "backup.pack_size = \"1MiB\"");
    walden.ok(["init"]);
    cluster.archive_with(&walden);
    cluster.open_ledger();
    (cluster, walden)
}

fn take(walden: &Walden) -> String {
    walden.json(["backup", "take"])["id"]
        .as_str()
        .expect("an id")
        .to_string()
}

/// The same cluster in another repository, by a configuration of its own.
fn other(scratch: &Scratch, cluster: &Cluster, name: &str) -> Walden {
    let folder = scratch.join(name);
    let text = format!(
        "repository.url = \"file://{}\"\ncluster.name = \"main\"\npostgresql.dsn = \"{}\"\n",
        folder.display(),
        cluster.dsn()
    );
    Walden::by(
        scratch,
        scratch.write(&format!("{name}.toml"), &text),
        folder,
    )
}

fn copy_to<'a>(other: &'a Walden, more: &[&'a str]) -> Vec<String> {
    let config = other.config.display().to_string();
    let arguments = ["repo", "copy", "--to-config", config.as_str()];
    arguments
        .iter()
        .chain(more)
        .map(|argument| argument.to_string())
        .collect()
}

/// Files below a folder, by their paths in it, in order.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut waiting = vec![folder.to_path_buf()];
    let mut found = Vec::new();
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).expect("list") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path
                .strip_prefix(folder)
                .expect("below")
                .display()
                .to_string();
            found.push((name, fs::read(path).expect("read an object")));
        }
    }
    found.sort();
    found
}
