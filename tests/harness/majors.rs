//! The PostgreSQL majors that tests/postgres-majors brought.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::process;

/// One major and its programs.
#[derive(Debug, Clone)]
pub struct Major {
    pub number: u32,
    bin: PathBuf,
}

impl Major {
    /// The major, if it is there; says aloud when it is not.
    pub fn find(number: u32) -> Option<Self> {
        let cache = std::env::var_os("WALDEN_POSTGRES_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres"),
            PathBuf::from,
        );
        let folder = cache.join(number.to_string());
        if !folder.join("bin/postgres").exists() {
            say_skipped(&format!(
                "PostgreSQL {number}: skipped (not in {}; run tests/postgres-majors)",
                cache.display()
            ));
            return None;
        }
        Some(Self {
            number,
            bin: reachable(&folder, number).join("bin"),
        })
    }

    /// The newest major there is.
    pub fn newest() -> Self {
        (13..=18)
            .rev()
            .find_map(Self::find)
            .expect("a PostgreSQL (run tests/postgres-majors)")
    }

    /// Whether this is the oldest or the newest major there is, which get more of what is sampled on the others.
    pub fn is_first_or_last(&self) -> bool {
        let found: Vec<u32> = (13..=18)
            .filter(|number| Self::find(*number).is_some())
            .collect();
        found.first() == Some(&self.number) || found.last() == Some(&self.number)
    }

    /// The oldest major there is for 13, the newest for 18; with the soaks also those that each stands for.
    pub fn outer(number: u32) -> Vec<Self> {
        let mut older: Vec<Self> = (13..=18).filter_map(Self::find).collect();
        let newer = older.split_off(older.len().div_ceil(2));
        match (number, is_long()) {
            (13, true) => older,
            (13, false) => older.into_iter().take(1).collect(),
            (_, true) => newer,
            (_, false) => newer.into_iter().last().into_iter().collect(),
        }
    }

    /// The major that the tests know best.
    pub fn with_clients() -> Self {
        Self::find(15).unwrap_or_else(Self::newest)
    }

    /// A program of this major.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The folder with its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Whether this build of PostgreSQL can encrypt connections.
    pub fn speaks_tls(&self) -> bool {
        let program = std::fs::read(self.program("postgres")).expect("read postgres");
        program.windows(11).any(|window| window == b"SSL_CTX_new")
    }

    /// Whether this major came with a program: some are servers only.
    pub fn has(&self, name: &str) -> bool {
        self.bin.join(name).exists()
    }
}

/// Says once on the real standard error that something is left out: libtest shows nothing of tests that pass.
pub fn say_skipped(words: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .insert(words.to_string())
    {
        let _ = writeln!(std::io::stderr(), "{words}");
    }
}

/// The folder itself, or a copy of it where the server's user can get at it.
fn reachable(folder: &Path, number: u32) -> PathBuf {
    static COPY: Mutex<()> = Mutex::new(());
    let _one_at_a_time = COPY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if process::is_reachable(&folder.join("bin/postgres")) {
        return folder.to_path_buf();
    }
    let real = folder.canonicalize().expect("the major's folder");
    let copy = process::shared_folder().join(format!("postgres-{number}"));
    if !copy.exists() {
        let status = std::process::Command::new("cp")
            .arg("-a")
            .arg(&real)
            .arg(&copy)
            .status()
            .expect("run cp");
        assert!(
            status.success(),
            "cannot copy {} to {}",
            real.display(),
            copy.display()
        );
    }
    copy
}

/// Runs a scenario on each major as tests `pg13` to `pg18` in a module of the scenario's name.
macro_rules! each_major {
    ($(#[$meta:meta])* $name:ident, $scenario:path) => {
        $(#[$meta])*
        mod $name {
            use super::*;
            $crate::harness::each_major!(@one $scenario, pg13 13, pg14 14, pg15 15, pg16 16, pg17 17, pg18 18);
        }
    };
    (@one $scenario:path, $($test:ident $number:literal),*) => {
        $(
            #[test]
            fn $test() {
                if let Some(major) = $crate::harness::Major::find($number) {
                    $scenario(major);
                }
            }
        )*
    };
}
pub(crate) use each_major;

/// The same on the oldest and the newest major, for what does not depend on the major.
macro_rules! outer_majors {
    ($(#[$meta:meta])* $name:ident, $scenario:path) => {
        $(#[$meta])*
        mod $name {
            use super::*;
            $crate::harness::outer_majors!(@one $scenario, pg13 13, pg18 18);
        }
    };
    (@one $scenario:path, $($test:ident $number:literal),*) => {
        $(
            #[test]
            fn $test() {
                $crate::harness::Major::outer($number).into_iter().for_each($scenario);
            }
        )*
    };
}
pub(crate) use outer_majors;

/// Whether the soaks run, too (`./tests/run --long`).
pub fn is_long() -> bool {
    std::env::var_os("WALDEN_TEST_LONG").is_some()
}
