//! A folder for files that `pg_dump` or `pg_restore` want on disk.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

use crate::error::Hint;

/// What the folders' names begin with.
const NAME: &str = "walden-dump-";

/// A folder of mode 0700 that is removed when this is dropped. Its lock tells that somebody uses it.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    _lock: File,
}

impl Spool {
    /// Below the folder that the settings name, else below the system's for temporary files. Removes those that killed
    /// processes left there.
    pub fn make(folder: Option<&Path>) -> anyhow::Result<Self> {
        let below = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        remove_abandoned(&below);
        let path = below.join(format!("{NAME}{:016x}", getrandom::u64()?));
        let make = || -> io::Result<File> {
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = File::open(&path)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(lock)
        };
        let _lock = make()
            .with_context(|| format!("cannot make the folder \"{}\"", path.display()))
            .hint("`dump.spool` names a folder that the user who runs Walden may write to")?;
        Ok(Self { path, _lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Best effort: a later one removes what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_abandoned(below: &Path) {
    let Ok(entries) = fs::read_dir(below) else {
        return;
    };
    for entry in entries.flatten() {
        let is_spool = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(NAME));
        if is_spool
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && is_abandoned(&entry.path())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Nobody holds its lock, and it is not just being made.
fn is_abandoned(path: &Path) -> bool {
    let is_old = || {
        let age = fs::metadata(path)?
            .modified()?
            .elapsed()
            .unwrap_or_default();
        io::Result::Ok(age.as_secs() > 60)
    };
    let unlocked = File::open(path)
        .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok());
    unlocked && is_old().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!("{NAME}0"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("1.dat"), "x").unwrap();
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        File::open(&left).unwrap().set_modified(hour_ago).unwrap();
        let used = Spool::make(Some(folder.path())).unwrap();
        assert!(!left.exists());
        File::open(used.path())
            .unwrap()
            .set_modified(hour_ago)
            .unwrap();
        let other = Spool::make(Some(folder.path())).unwrap();
        assert!(used.path().exists() && other.path().exists());
        drop((used, other));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
