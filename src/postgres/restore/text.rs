//! Text files of any encoding, read and written byte for byte.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

/// A file's bytes as characters of the same numbers: whatever encoding it has, [`write`] gives the same bytes back.
pub fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(as_characters(&bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read \"{}\"", path.display())),
    }
}

pub fn as_characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Writes what [`read`] gave.
pub fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    let bytes: Vec<u8> = content.chars().map(|character| character as u8).collect();
    let mut options = OpenOptions::new();
    put(options.create(true).truncate(true), path, &bytes)
}

pub fn write_new(path: &Path, content: &str) -> anyhow::Result<()> {
    put(
        OpenOptions::new().create_new(true),
        path,
        content.as_bytes(),
    )
}

fn put(options: &mut OpenOptions, path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let opened = options.write(true).mode(0o600).open(path);
    opened
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("cannot write \"{}\"", path.display()))
}
