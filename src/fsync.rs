//! The one place that makes files durable: fsync of files and folders, and renames that never replace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

/// Names of files and folders that are being made begin so. No key of a store does, hence listings never show them.
pub const TEMPORARY: &str = ".walden-tmp-";

/// Flushes a folder's entries to disk: creating or renaming a file is durable only after this.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Creates `path` and what is missing above it, mode 0700, each entry durable.
pub fn create_folders(path: &Path) -> io::Result<()> {
    create_folders_for(path, &|_| Ok(()))
}

/// What was just made, the folder in which it was made, and how it was named.
#[derive(Debug)]
pub struct Made<'a> {
    pub made: &'a File,
    pub parent: &'a File,
    pub path: &'a Path,
}

/// Opens a folder to look at it and to make things in it.
pub fn open_folder(path: &Path) -> io::Result<File> {
    open_folder_at(CWD, path, OFlags::PATH)
}

/// The same, seen from another folder.
pub fn open_folder_at(from: impl AsFd, path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(from, path, flags, Mode::empty())?.into())
}

/// Whether nothing is in a folder, opened to be read.
pub fn is_empty(folder: &File) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The same; `settle` sees to it to whom each new folder belongs. One that it refuses is not made.
pub fn create_folders_for(
    path: &Path,
    settle: &dyn Fn(&Made<'_>) -> io::Result<()>,
) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::NotFound.into());
    };
    create_folders_for(above, settle)?;
    let parent = open_folder(above)?;
    // Under a name of its own until it is settled: others may use it as soon as it has its name.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!("{TEMPORARY}folder-{}-{number}", std::process::id());
    rustix::fs::mkdirat(&parent, &*temporary, Mode::RWXU)?;
    let settled = open_new(&parent, OsStr::new(&temporary))
        .and_then(|made| {
            settle(&Made {
                made: &made,
                parent: &parent,
                path,
            })
        })
        .and_then(|()| rename_folder(&parent, &temporary, name));
    let Err(error) = settled else {
        return sync_folder(above);
    };
    let _ = rustix::fs::unlinkat(&parent, &*temporary, AtFlags::REMOVEDIR);
    match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty if path.is_dir() => Ok(()),
        _ => Err(error),
    }
}

/// Gives a new folder its name, unless that is taken.
fn rename_folder(parent: &File, temporary: &str, name: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat_with(parent, temporary, parent, name, RenameFlags::NOREPLACE) {
        // Replaces an empty folder at most.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            Ok(rustix::fs::renameat(parent, temporary, parent, name)?)
        }
        result => Ok(result?),
    }
}

/// Opens the folder just made. Who may rename there could have put another one in its place, which holds something.
fn open_new(parent: &File, name: &OsStr) -> io::Result<File> {
    let made = open_folder_at(parent, Path::new(name), OFlags::RDONLY | OFlags::NOFOLLOW)?;
    match is_empty(&made)? {
        true => Ok(made),
        false => Err(io::Error::other(
            "another folder came in the place of the one just made",
        )),
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

/// Has the kernel begin to write a range of a file to disk without waiting for it, so that a later fsync finds little
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
    fn many_make_and_use_the_same_folders_at_once() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let inner = folder.path().join("a/b");
            std::thread::scope(|scope| {
                for number in 0..8 {
                    let inner = &inner;
                    scope.spawn(move || {
                        create_folders_for(inner, &|_| Ok(())).unwrap();
                        fs::write(inner.join(number.to_string()), "").unwrap();
                    });
                }
            });
            assert_eq!(fs::read_dir(&inner).unwrap().count(), 8);
            assert_eq!(
                fs::read_dir(folder.path()).unwrap().count(),
                1,
                "nothing is left beside it"
            );
        }
    }

    #[test]
    fn a_rename_never_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        assert_eq!(
            rename_new(&a, &b).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read_to_string(&b).unwrap(), "b");
        rename_new(&a, &folder.path().join("c")).unwrap();
        assert!(!a.exists());
    }
}
