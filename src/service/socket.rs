//! The hook socket in the file system: made private, never taken from a service that lives.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::net::UnixListener;

use crate::error::{Hint, with_hint};
use crate::fsync;
use crate::owner;

/// A bound socket; its file goes away with it.
#[derive(Debug)]
pub struct Socket {
    pub listener: UnixListener,
    path: PathBuf,
    inode: u64,
    /// Locked while the service lives. The file stays: removing a lock file lets two hold it.
    _lock: File,
}

impl Socket {
    /// Makes the socket at `path`, 0600, and a missing folder for it, 0700. Errors: another service lives there.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot make the hook socket \"{}\"", path.display());
        let hint = "let the user who runs Walden create files in the folder of `service.socket`";
        let folder = path.parent().unwrap_or(Path::new("/"));
        fsync::create_folders_for(folder, &|made| owner::inherit(made, Path::new("/")))
            .with_context(cannot)
            .hint(hint)?;
        let lock = lock(path).with_context(cannot)?;
        if is_answered(path) {
            return Err(taken(path)).with_context(cannot);
        }
        // A name of its own first: the socket appears at its place closed to others, and replaces a stale one.
        let temporary = with_suffix(path, ".new");
        remove(&temporary).with_context(cannot).hint(hint)?;
        let listener = UnixListener::bind(&temporary)
            .with_context(cannot)
            .hint(hint)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).with_context(cannot)?;
        let inode = fs::metadata(&temporary).with_context(cannot)?.ino();
        fs::rename(&temporary, path)
            .with_context(cannot)
            .hint(hint)?;
        Ok(Self {
            listener,
            path: path.to_path_buf(),
            inode,
            _lock: lock,
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            // Best effort: a stale socket is replaced by the next service.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let lock_path = with_suffix(path, ".lock");
    let open = match owner::create(&lock_path, |made| owner::inherit(made, Path::new("/"))) {
        // One that was there stays whose it is; a link, or a pipe without a reader, is none.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(&lock_path)
        }
        made => made,
    };
    let file = open.with_context(|| format!("cannot open \"{}\"", lock_path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(taken(path)),
        Err(error) => {
            Err(error).with_context(|| format!("cannot lock \"{}\"", lock_path.display()))
        }
    }
}

fn taken(path: &Path) -> anyhow::Error {
    let error = anyhow!("another service answers on \"{}\"", path.display());
    with_hint(
        error,
        "one service is enough for a cluster; a second one needs another `service.socket`",
    )
}

fn is_answered(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_goes_away_with_its_service() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder/hook.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_service_is_refused_and_a_stale_socket_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook.sock");
        let first = Socket::bind(&path).unwrap();
        assert!(format!("{:#}", Socket::bind(&path).unwrap_err()).contains("another service"));
        assert!(is_answered(&path), "the first one is as it was");
        drop(first);
        // What a killed service leaves: a file on which nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let again = Socket::bind(&path).unwrap();
        assert!(is_answered(&path));
        drop(again);
    }

    #[tokio::test]
    async fn a_lock_file_that_was_there_stays_whose_it_is_and_no_link_is_followed() {
        if !owner::is_root() {
            println!("skipped: only root gives files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (home, path) = (
            folder.path().join("home"),
            folder.path().join("home/hook.sock"),
        );
        let (victim, lock) = (folder.path().join("victim"), with_suffix(&path, ".lock"));
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(12345), Some(54321)).unwrap();
        let uid = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(&victim, &lock).unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(uid(&victim), 0);
        fs::remove_file(&lock).unwrap();
        fs::hard_link(&victim, &lock).unwrap();
        drop(Socket::bind(&path).unwrap());
        assert_eq!(uid(&victim), 0);
        fs::remove_file(&lock).unwrap();
        drop(Socket::bind(&path).unwrap());
        assert_eq!(
            uid(&lock),
            12345,
            "one that root made is the folder's user's"
        );
    }

    #[tokio::test]
    async fn a_socket_of_something_else_that_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook.sock");
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(Socket::bind(&path).is_err());
        assert!(is_answered(&path));
        drop(other);
    }
}
