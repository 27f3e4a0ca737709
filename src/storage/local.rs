mod direct;
mod links;
mod listing;
mod upload;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::sync::Semaphore;

use self::listing::Listings;
use self::upload::{LocalUpload, begin};
use super::{
    Body, FolderStamp, IsOwnKey, Key, ListEntry, ObjectMeta, PutMode, PutOutcome, Storage,
    StorageError, Upload,
};
use crate::error::with_hint;
use crate::fsync::{self, Made, TEMPORARY};
use crate::owner::{self, NotOwner};

/// Operations under way at once. One on a file server that went away cannot be interrupted: it keeps its thread, and its
/// place here, until the server is back. Further ones wait without a thread and can be given up.
const AT_ONCE: usize = 16;
/// Folders known to be durable; more are looked at again.
const MOST_DURABLE: usize = 4096;

/// Objects as files below a folder. A put writes a temporary file beside its place, fsyncs it, renames it without
/// replacing and fsyncs the folder. Files are 0600, folders 0700; what root makes belongs to whom the folders belong to.
#[derive(Debug, Clone)]
pub struct LocalStorage {
    root: PathBuf,
    places: Arc<Semaphore>,
    durable: Arc<DurableFolders>,
    listings: Arc<Listings>,
}

/// Folders whose own entries, and those of the folders above them, are on disk. Whoever made a folder may have died
/// before that, so that it is there says nothing. By device and inode: a folder made anew is another one.
#[derive(Debug, Default)]
struct DurableFolders(Mutex<HashSet<(u64, u64)>>);

impl DurableFolders {
    /// Makes the entries of `folder` and of what is above it, up to `root`, durable, once.
    fn ensure(&self, root: &Path, folder: &Path) -> io::Result<()> {
        let meta = fs::metadata(folder)?;
        let id = (meta.dev(), meta.ino());
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&id) {
            return Ok(());
        }
        for above in folder
            .ancestors()
            .skip(1)
            .take_while(|above| above.starts_with(root))
        {
            fsync::sync_folder(above)?;
        }
        let mut known = known();
        if known.len() >= MOST_DURABLE {
            known.clear();
        }
        known.insert(id);
        Ok(())
    }

    /// The same for the folder of an object.
    fn ensure_above(&self, root: &Path, path: &Path) -> io::Result<()> {
        path.parent()
            .map_or(Ok(()), |folder| self.ensure(root, folder))
    }
}

impl LocalStorage {
    /// The folder need not exist yet; the first put makes it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let (durable, listings) = (Arc::default(), Arc::default());
        Self {
            root: root.into(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            durable,
            listings,
        }
    }

    /// Runs blocking file work off the async threads.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let root = self.root.clone();
        let place = self.places.clone().acquire_owned().await;
        let result = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&root)
        })
        .await;
        result
            .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
            .map_err(|source| StorageError {
                operation,
                key: key.to_string(),
                store: self.describe(),
                lasting: is_lasting(source.kind()),
                source: match next_step(&source) {
                    Some(hint) => with_hint(source.into(), hint),
                    None => source.into(),
                },
            })
    }
}

/// What to do about an error of the file system; `None` for other errors.
fn next_step(error: &io::Error) -> Option<String> {
    let refusal = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<NotOwner>());
    match refusal {
        Some(NotOwner { owner, .. }) => Some(format!(
            "run this as {owner}, to whom the repository belongs"
        )),
        None => step_of_kind(error).map(str::to_string),
    }
}

fn step_of_kind(error: &io::Error) -> Option<&'static str> {
    use ErrorKind::{
        NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle,
        StorageFull,
    };
    match error.kind() {
        NotFound => Some("check what is mounted there, and `repository.url`"),
        PermissionDenied => Some(
            "check that the user who runs Walden owns the folder and all in it, and may write there",
        ),
        StorageFull | QuotaExceeded => {
            Some("make room there: a larger disk or quota, or fewer other files")
        }
        ReadOnlyFilesystem => {
            Some("mount it so that it can be written; a file system with errors turns read-only")
        }
        StaleNetworkFileHandle => {
            Some("the file server has another file system there than before: mount it again")
        }
        _ => error.raw_os_error().map(
            |_| "look into the kernel's log (`dmesg`) for what is wrong with that disk or mount",
        ),
    }
}

#[async_trait]
impl Storage for LocalStorage {
    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        let path = self.root.join(key.as_str());
        let durable = self.durable.clone();
        let work = move |root: &Path| {
            let outcome = put(root, &path, &body, mode)?;
            durable.ensure_above(root, &path)?;
            Ok(outcome)
        };
        self.run("put", key.as_str(), work).await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        let path = self.root.join(key.as_str());
        let durable = self.durable.clone();
        let work = move |root: &Path| {
            let begun = begin(root, path.clone(), mode)?;
            if begun.is_none() {
                // Who stored what is there may have died before it was durable.
                durable.ensure_above(root, &path)?;
            }
            Ok(begun)
        };
        let begun = self.run("put", key.as_str(), work).await?;
        Ok(begun.map(|begun| Box::new(LocalUpload::new(self, key, begun)) as Box<dyn Upload + '_>))
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        let path = self.root.join(key.as_str());
        self.run("get", key.as_str(), move |_| {
            absent_as_none(read_range(&path, range))
        })
        .await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        let (path, owned) = (self.root.join(key.as_str()), key.clone());
        let work = move |_: &Path| {
            let Some(meta) = absent_as_none(fs::metadata(&path))?.filter(fs::Metadata::is_file)
            else {
                return Ok(None);
            };
            Ok(Some(describe(owned, &meta)?))
        };
        self.run("head", key.as_str(), work).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        let (prefix, after, listings) = (
            folder.to_string(),
            after.map(str::to_string),
            self.listings.clone(),
        );
        self.run("list", folder, move |root| {
            listings.begin(root, &prefix, after.as_deref())
        })
        .await
    }

    async fn list_on(&self, folder: &str, after: &str) -> Result<Vec<ListEntry>, StorageError> {
        let (prefix, after, listings) =
            (folder.to_string(), after.to_string(), self.listings.clone());
        self.run("list", folder, move |root| {
            listings.go_on(root, &prefix, &after)
        })
        .await
    }

    async fn stamp(&self, folder: &str) -> Result<Option<FolderStamp>, StorageError> {
        let prefix = folder.to_string();
        self.run("list", folder, move |root| {
            listing::stamp(&root.join(prefix), SystemTime::now())
        })
        .await
        .map(Some)
    }

    async fn link(&self, key: &Key, beside: &str) -> Result<(), StorageError> {
        let (path, beside) = (self.root.join(key.as_str()), beside.to_string());
        self.run("put", key.as_str(), move |_| links::make(&path, &beside))
            .await
    }

    async fn linked(&self, key: &Key) -> Result<Option<String>, StorageError> {
        let path = self.root.join(key.as_str());
        self.run("get", key.as_str(), move |_| {
            absent_as_none(links::target(&path))
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let path = self.root.join(key.as_str());
        let work = move |root: &Path| {
            absent_as_none(fs::remove_file(&path))?;
            remove_empty_parents(root, &path);
            Ok(())
        };
        self.run("delete", key.as_str(), work).await
    }

    async fn sweep(&self, age: Duration, _ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.run("sweep", "", move |root| {
            sweep(root, SystemTime::now() - age)
        })
        .await
    }
}

fn is_lasting(kind: ErrorKind) -> bool {
    use ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        kind,
        PermissionDenied | StorageFull | QuotaExceeded | ReadOnlyFilesystem
    )
}

fn describe(key: Key, meta: &fs::Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta {
        key,
        size: meta.len(),
        modified: meta.modified()?,
        class: None,
        encryption: None,
    })
}

fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn put(root: &Path, path: &Path, body: &Body, mode: PutMode) -> io::Result<PutOutcome> {
    let Some(temporary) = temporary_for(path, mode)? else {
        return Ok(PutOutcome::AlreadyExists);
    };
    let result = create(root, &temporary).and_then(|mut file| {
        write_all(&mut file, body)?;
        give_name(&file, &temporary, path, mode)
    });
    if result.is_err() || matches!(result, Ok(PutOutcome::AlreadyExists)) {
        // Best effort: a leftover is invisible and swept later.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// A name beside an object's place for what is to become it; `None` if the key is taken.
fn temporary_for(path: &Path, mode: PutMode) -> io::Result<Option<PathBuf>> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::other("an object needs a folder"))?;
    if mode == PutMode::CreateOnly && path.exists() {
        // Whoever put it may not have come to this yet, and our caller takes the answer for durable.
        fsync::sync_folder(folder)?;
        return Ok(None);
    }
    Ok(Some(folder.join(format!("{TEMPORARY}{:016x}", random()?))))
}

/// Makes a file, and the folders above it that are missing. A folder directly below the root is made for an object
/// directly in it alone: one that lies deeper was preceded by such an object, so where that folder is missing the store
/// is not what it was, such as the empty folder below a disk that is not mounted any more.
fn create(root: &Path, path: &Path) -> io::Result<File> {
    let settle = |made: &Made<'_>| owner::settle(made, root);
    let create = || owner::create(path, settle);
    let folder = path.parent().unwrap_or(root);
    match create() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut below = folder.strip_prefix(root).unwrap_or(folder).components();
            let top = below
                .next()
                .map_or(root.to_path_buf(), |top| root.join(top));
            if below.next().is_some() && !top.is_dir() {
                let what = format!(
                    "the folder \"{}\" is gone, which was there before",
                    top.display()
                );
                return Err(io::Error::new(ErrorKind::NotFound, what));
            }
            fsync::create_folders_for(folder, &settle)?;
            create()
        }
        other => other,
    }
}

/// Makes a file that is written the object.
fn give_name(file: &File, temporary: &Path, path: &Path, mode: PutMode) -> io::Result<PutOutcome> {
    file.sync_all()?;
    let renamed = match mode {
        PutMode::CreateOnly => fsync::rename_new(temporary, path),
        PutMode::Overwrite => fs::rename(temporary, path),
    };
    let outcome = match renamed {
        Ok(()) => PutOutcome::Stored,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => PutOutcome::AlreadyExists,
        Err(error) => return Err(error),
    };
    path.parent().map_or(Ok(()), fsync::sync_folder)?;
    Ok(outcome)
}

fn write_all(file: &mut File, body: &Body) -> io::Result<()> {
    if body.len() >= direct::SHORTEST {
        return direct::write_all(file, body);
    }
    let mut slices: Vec<IoSlice> = body.0.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match file.write_vectored(rest)? {
            0 if rest.iter().all(|slice| slice.is_empty()) => break,
            0 => return Err(ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}

/// Opens what may be an object. A foreign pipe in its place is not waited for.
fn open_object(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| {
            match error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
                // A socket.
                true => ErrorKind::NotFound.into(),
                false => error,
            }
        })
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let file = open_object(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(ErrorKind::NotFound.into());
    }
    let end = range.end.min(meta.len());
    let length = usize::try_from(end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

/// Folders exist only because of objects, as in a bucket.
fn remove_empty_parents(root: &Path, path: &Path) {
    for folder in path
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != root)
    {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
}

fn sweep(folder: &Path, before: SystemTime) -> io::Result<u64> {
    let Some(entries) = absent_as_none(fs::read_dir(folder))? else {
        return Ok(0);
    };
    let mut swept = 0;
    for entry in entries {
        let entry = entry?;
        if absent_as_none(entry.file_type())?.is_some_and(|kind| kind.is_dir()) {
            swept += sweep(&entry.path(), before)?;
            continue;
        }
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        let Some(meta) = absent_as_none(entry.metadata())? else {
            continue;
        };
        if meta.modified()? < before {
            absent_as_none(fs::remove_file(entry.path()))?;
            swept += 1;
        }
    }
    Ok(swept)
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
