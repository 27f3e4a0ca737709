//! Settings for tests, and files of the tree that are made of them.

use std::path::Path;

use super::{Health, Settings, load_with_default};

/// Settings with every default, and a repository in /srv/archive.
pub fn defaults() -> Settings {
    load_with_default(
        None,
        [("WALDEN_REPOSITORY__URL", "file:///srv/archive")],
        Path::new("/dev/null"),
    )
    .unwrap()
}

/// Settings with lines of a file over the defaults.
pub fn settings(lines: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("walden.toml");
    std::fs::write(
        &file,
        format!("repository.url = \"file:///srv/archive\"\n{lines}\n"),
    )
    .unwrap();
    super::load(Some(&file), std::iter::empty::<(&str, &str)>()).unwrap()
}

/// The default limits of what is good.
pub fn health_limits() -> Health {
    defaults().health
}

/// Fails if a file of the tree is not what the code makes; writes it first when `WALDEN_TEST_WRITE` is set.
#[track_caller]
pub fn assert_fresh(file: &str, rendered: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("WALDEN_TEST_WRITE").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == rendered,
        "{file} is out of date; make it anew: `WALDEN_TEST_WRITE=1 cargo test --lib is_fresh`"
    );
}
