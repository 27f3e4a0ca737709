//! The one place that makes files durable: fsync of files and folders, and renames that never replace.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

/// Flushes a folder's entries to disk: creating or renaming a file is durable only after this.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates `path` and what is missing above it, mode 0700, each entry durable.
pub fn create_folders(path: &Path) -> io::Result<()> {
    create_folders_for(path, &|_, _| Ok(()))
}

/// The same; `settle` sees to it to whom each new folder belongs. One that it refuses is not made.
pub fn create_folders_for(path: &Path, settle: &dyn Fn(&File, &Path) -> io::Result<()>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folders_for(parent, settle)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
            let made = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from).map(File::from);
            made.and_then(|made| settle(&made, path)).inspect_err(|_| drop(fs::remove_dir(path)))?;
            path.parent().map_or(Ok(()), sync_folder)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Moves `from` to `to` unless `to` exists, atomically; an existing `to` is `ErrorKind::AlreadyExists`. On file systems
/// without `renameat2(RENAME_NOREPLACE)` a hard link does the same.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

/// Has the kernel begin to write a stretch of a file to disk without waiting for it, so that a later fsync finds little
/// left to do. Best effort: on Linux `POSIX_FADV_DONTNEED` does that for pages that are not yet written.
pub fn start_writing(file: &File, offset: u64, length: u64) {
    if let Some(length) = std::num::NonZeroU64::new(length) {
        let _ = rustix::fs::fadvise(file, offset, Some(length), rustix::fs::Advice::DontNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        assert_eq!(rename_new(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&b).unwrap(), "b");
        rename_new(&a, &folder.path().join("c")).unwrap();
        assert!(!a.exists());
    }
}
