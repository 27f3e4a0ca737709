//! Files that hold secrets.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};

use crate::error::{Hint, with_hint};

/// Bytes of such a file that are read.
const LONGEST_FILE: u64 = 64 << 10;

/// The text of a file that holds secrets: only its owner may read it; when that is root, its group, too.
pub fn read_private(path: &Path, setting: &str, hint: &str) -> anyhow::Result<String> {
    let shown = path.display();
    let what = || format!("cannot read \"{shown}\", named by {setting}");
    let file = File::open(path).with_context(what).hint(hint)?;
    let meta = file.metadata().with_context(what)?;
    let allowed_to_group = if meta.uid() == 0 { 0o040 } else { 0 };
    if meta.mode() & 0o077 & !allowed_to_group != 0 {
        let error = anyhow!(
            "\"{shown}\", named by {setting}, is open to others (mode {:04o})",
            meta.mode() & 0o7777
        );
        bail!(with_hint(error, format!("run `chmod 0600 '{shown}'`")));
    }
    ensure!(
        meta.is_file(),
        "\"{shown}\", named by {setting}, is not a file"
    );
    let mut text = String::new();
    file.take(LONGEST_FILE)
        .read_to_string(&mut text)
        .with_context(what)?;
    Ok(text)
}
