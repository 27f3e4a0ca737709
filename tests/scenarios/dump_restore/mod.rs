//! Restoring logical dumps: what comes back is what was dumped, and what fails costs nothing.

mod choices;
mod failures;
mod guards;
mod repository;
mod round_trip;
mod shop;

use std::path::Path;

use crate::harness::{Cluster, Scratch, Walden};

/// Walden beside a cluster, with its client programs and a folder of its own for files.
pub fn walden(scratch: &Scratch, cluster: &Cluster, settings: &str) -> Walden {
    let programs = cluster.major.bin().display().to_string();
    let settings = format!(
        "dump.programs = \"{programs}\"\ndump.spool = \"{}\"\n{settings}",
        scratch.folder("spool").display()
    );
    Walden::with(scratch, cluster, &settings)
}

/// `walden dump restore --file …` with further options.
pub fn restore_of<'a>(path: &'a Path, options: &[&'a str]) -> Vec<&'a str> {
    let file = [
        "dump",
        "restore",
        "--file",
        path.to_str().expect("a path in UTF-8"),
    ];
    file.into_iter().chain(options.iter().copied()).collect()
}

/// Names of all databases.
pub fn databases(cluster: &Cluster) -> Vec<String> {
    let names =
        cluster.sql("select datname from pg_database where datname !~ '^template' order by 1");
    names.lines().map(str::to_string).collect()
}
