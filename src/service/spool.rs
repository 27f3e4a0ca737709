//! Where fetched files wait for being asked for: a folder beside their destination, hence on the same file system.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::postgres::types::WalFileName;

/// The folder's name, beside the destination.
const FOLDER: &str = "walden-spool";

/// One folder; all methods block.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    /// Tells this service's files from what a killed one left.
    mark: String,
    /// Places given out: the same file can be on its way twice.
    places: u64,
}

impl Spool {
    /// For files that go into `folder`. Makes nothing yet.
    pub fn beside(folder: &Path) -> io::Result<Self> {
        let mark = format!("{:016x}-", getrandom::u64().map_err(io::Error::other)?);
        Ok(Self {
            folder: folder.join(FOLDER),
            mark,
            places: 0,
        })
    }

    /// A new place for a file to wait.
    pub fn place(&mut self, name: &WalFileName) -> PathBuf {
        self.places += 1;
        self.folder
            .join(format!("{}{name}-{}", self.mark, self.places))
    }

    /// Makes the folder, 0700.
    pub fn make(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what another service left.
    pub fn remove_leftovers(&self) {
        self.remove_files(|name| !name.starts_with(&self.mark));
    }

    /// Whether the folder is there.
    pub fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    fn remove_files(&self, of_name: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries
            .flatten()
            .filter(|entry| of_name(&entry.file_name().to_string_lossy()))
        {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Removes this service's files, and the folder when nothing else is in it.
    pub fn clear(&self) {
        self.remove_files(|name| name.starts_with(&self.mark));
        if let Err(error) = fs::remove_dir(&self.folder)
            && !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
            )
        {
            tracing::warn!("cannot remove \"{}\": {error}", self.folder.display());
        }
    }
}
