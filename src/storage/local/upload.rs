use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{LocalStorage, absent_as_none, create, give_name, temporary_for};
use crate::storage::{Key, Part, PutMode, PutOutcome, Sent, StorageError, Upload};

/// A temporary file that is to become an object.
#[derive(Debug)]
pub(super) struct Begun {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    mode: PutMode,
}

/// Makes the file; `None` if the key is taken.
pub(super) fn begin(root: &Path, path: PathBuf, mode: PutMode) -> io::Result<Option<Begun>> {
    let Some(temporary) = temporary_for(&path, mode)? else {
        return Ok(None);
    };
    Ok(Some(Begun {
        file: create(root, &temporary)?,
        temporary,
        path,
        mode,
    }))
}

/// Parts are written to their places in one file.
#[derive(Debug)]
pub(super) struct LocalUpload<'a> {
    storage: &'a LocalStorage,
    key: Key,
    begun: Arc<Begun>,
}

impl<'a> LocalUpload<'a> {
    pub(super) fn new(storage: &'a LocalStorage, key: &Key, begun: Begun) -> Self {
        Self {
            storage,
            key: key.clone(),
            begun: Arc::new(begun),
        }
    }
}

#[async_trait]
impl Upload for LocalUpload<'_> {
    async fn send(&self, part: Part) -> Result<Sent, StorageError> {
        let begun = self.begun.clone();
        let work = move |_: &Path| {
            let mut at = part.at;
            for piece in &part.body.0 {
                begun.file.write_all_at(piece, at)?;
                at += piece.len() as u64;
            }
            Ok(Sent::new(&part, None))
        };
        self.storage.run("put", self.key.as_str(), work).await
    }

    async fn complete(&self, _parts: &[Sent]) -> Result<PutOutcome, StorageError> {
        let (begun, durable) = (self.begun.clone(), self.storage.durable.clone());
        let work = move |root: &Path| {
            let outcome = give_name(&begun.file, &begun.temporary, &begun.path, begun.mode)?;
            durable.ensure_above(root, &begun.path)?;
            Ok(outcome)
        };
        // Never repeated: the kernel tells of a failed write once, so that a second fsync would say that all is well.
        let completed = self.storage.run("put", self.key.as_str(), work).await;
        completed.map_err(|error| StorageError {
            lasting: true,
            ..error
        })
    }

    async fn abort(&self) -> Result<(), StorageError> {
        let begun = self.begun.clone();
        let work = move |_: &Path| absent_as_none(fs::remove_file(&begun.temporary)).map(drop);
        self.storage.run("put", self.key.as_str(), work).await
    }
}
