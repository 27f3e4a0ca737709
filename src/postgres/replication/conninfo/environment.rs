//! What libpq reads around a connection string: environment, files, the operating system's user.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::owner::{Owner, account};

/// The env in which a connection string is resolved; [`ProcessEnv`] in production.
pub trait LibpqEnv {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The operating system's name of the user that runs this process.
    fn user(&self) -> Option<String>;
    /// That user's home folder.
    fn home(&self) -> Option<PathBuf>;
    /// A file with its content; `None` when it does not exist.
    fn file(&self, path: &Path) -> io::Result<Option<FileStat>>;
    /// Whether something exists at the path.
    fn exists(&self, path: &Path) -> bool;
}

/// A file as the rules for password and service files see it.
#[derive(Clone, Debug)]
pub struct FileStat {
    /// The whole content; empty for what is no plain file.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Numeric user id of the owner.
    pub owner: u32,
    /// Whether it is a plain file.
    pub regular: bool,
}

/// The env of this process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnv;

/// Nothing is around: for a server of Walden's own. PGHOSTADDR, a service or a file of passwords would lead to another one.
#[derive(Clone, Copy, Debug)]
pub struct NoEnv;

impl LibpqEnv for NoEnv {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn user(&self) -> Option<String> {
        ProcessEnv.user()
    }

    fn home(&self) -> Option<PathBuf> {
        None
    }

    fn file(&self, _: &Path) -> io::Result<Option<FileStat>> {
        Ok(None)
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }
}

impl LibpqEnv for ProcessEnv {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn user(&self) -> Option<String> {
        // Users of a directory service are not in /etc/passwd; `id` asks the name service without unsafe code here.
        account(Owner::own().uid).map(|(name, _)| name).or_else(|| {
            let output = std::process::Command::new("id").arg("-un").output().ok()?;
            let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            (output.status.success() && !name.is_empty()).then_some(name)
        })
    }

    fn home(&self) -> Option<PathBuf> {
        let given = std::env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from);
        given.or_else(|| account(Owner::own().uid).map(|(_, home)| home))
    }

    fn file(&self, path: &Path) -> io::Result<Option<FileStat>> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let content = match metadata.is_file() {
            true => std::fs::read(path)?,
            false => Vec::new(),
        };
        let mode = metadata.mode() & 0o7777;
        Ok(Some(FileStat {
            content,
            mode,
            owner: metadata.uid(),
            regular: metadata.is_file(),
        }))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}
