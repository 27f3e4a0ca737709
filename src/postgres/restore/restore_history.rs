//! What past restores on this machine took: a line of JSON each, in a file beside the index. It can be deleted at any
//! time; plans then say nothing of how long they take.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use crate::postgres::catalog::{PAST_RESTORES, PastRestore};

/// The file's name.
pub const FILE: &str = "restores.jsonl";

/// The past restores in a folder, oldest first. Lines that are none are passed over. Errors: the file cannot be read.
pub fn read(folder: &Path) -> anyhow::Result<Vec<PastRestore>> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read \"{}\"", path.display())),
    }
}

/// Adds one, and lets go of those that no longer count. Errors: the file cannot be written.
pub fn add(folder: &Path, restore: PastRestore) -> anyhow::Result<()> {
    let mut past = read(folder)?;
    past.push(restore);
    let kept = &past[past.len().saturating_sub(PAST_RESTORES)..];
    let lines = kept
        .iter()
        .map(|one| Ok(serde_json::to_string(one)? + "\n"))
        .collect::<anyhow::Result<String>>()?;
    let path = folder.join(FILE);
    // Renamed into place: who reads it meanwhile sees the old one or the new one.
    let new = folder.join(format!("{FILE}.{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(lines.as_bytes())?;
            fs::rename(&new, &path)
        });
    written.with_context(|| format!("cannot write \"{}\"", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_restores_are_kept_as_far_as_they_count() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        let one = |segments| PastRestore {
            at: chrono::DateTime::UNIX_EPOCH,
            plain_bytes: 1,
            seconds_for_files: 0.5,
            segments,
            seconds_for_replay: 1.5,
        };
        let count = PAST_RESTORES as u64;
        (0..count + 3).for_each(|segments| add(folder.path(), one(segments)).unwrap());
        fs::write(
            folder.path().join(FILE),
            fs::read_to_string(folder.path().join(FILE)).unwrap() + "cut{",
        )
        .unwrap();
        assert_eq!(
            read(folder.path()).unwrap(),
            (3..count + 3).map(one).collect::<Vec<_>>()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
