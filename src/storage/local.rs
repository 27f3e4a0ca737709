mod listing;

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
use tokio::sync::Semaphore;

use self::listing::Listings;
use super::{Body, FolderStamp, Key, ListEntry, ObjectMeta, PutMode, PutOutcome, Storage, StorageError};
use crate::error::with_hint;
use crate::fsync;

/// Names of files being written begin so; no key does, hence listings never show them.
const TEMPORARY: &str = ".walden-tmp-";

/// Operations under way at once. One on a file server that went away cannot be interrupted: it keeps its thread, and its
/// place here, until the server is back. Further ones wait without a thread and can be given up.
const AT_ONCE: usize = 16;
/// Folders known to be durable; more are looked at again.
const MOST_DURABLE: usize = 4096;

/// Objects as files below a folder. A put writes a temporary file beside its place, fsyncs it, renames it without
/// replacing and fsyncs the folder. Files are 0600, folders 0700.
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
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
            fsync::sync_folder(above)?;
        }
        let mut known = known();
        if known.len() >= MOST_DURABLE {
            known.clear();
        }
        known.insert(id);
        Ok(())
    }
}

impl LocalStorage {
    /// The folder need not exist yet; the first put makes it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let (durable, listings) = (Arc::default(), Arc::default());
        Self { root: root.into(), places: Arc::new(Semaphore::new(AT_ONCE)), durable, listings }
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
        result.unwrap_or_else(|panicked| Err(io::Error::other(panicked))).map_err(|source| StorageError {
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
fn next_step(error: &io::Error) -> Option<&'static str> {
    use ErrorKind::{
        NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StaleNetworkFileHandle, StorageFull,
    };
    match error.kind() {
        NotFound => Some("check what is mounted there, and `repository.url`"),
        PermissionDenied => {
            Some("check that the user who runs Walden owns the folder and all in it, and may write there")
        }
        StorageFull | QuotaExceeded => Some("make room there: a larger disk or quota, or fewer other files"),
        ReadOnlyFilesystem => Some("mount it so that it can be written; a file system with errors turns read-only"),
        StaleNetworkFileHandle => Some("the file server has another file system there than before: mount it again"),
        _ => error
            .raw_os_error()
            .map(|_| "look into the kernel's log (`dmesg`) for what is wrong with that disk or mount"),
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
            path.parent().map_or(Ok(()), |folder| durable.ensure(root, folder))?;
            Ok(outcome)
        };
        self.run("put", key.as_str(), work).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        let path = self.root.join(key.as_str());
        self.run("get", key.as_str(), move |_| absent_as_none(read_range(&path, range))).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        let (path, owned) = (self.root.join(key.as_str()), key.clone());
        let work = move |_: &Path| {
            let Some(meta) = absent_as_none(fs::metadata(&path))?.filter(fs::Metadata::is_file) else {
                return Ok(None);
            };
            Ok(Some(describe(owned, &meta)?))
        };
        self.run("head", key.as_str(), work).await
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StorageError> {
        let (prefix, after, listings) = (folder.to_string(), after.map(str::to_string), self.listings.clone());
        self.run("list", folder, move |root| listings.begin(root, &prefix, after.as_deref())).await
    }

    async fn list_on(&self, folder: &str, after: &str) -> Result<Vec<ListEntry>, StorageError> {
        let (prefix, after, listings) = (folder.to_string(), after.to_string(), self.listings.clone());
        self.run("list", folder, move |root| listings.go_on(root, &prefix, &after)).await
    }

    async fn stamp(&self, folder: &str) -> Result<Option<FolderStamp>, StorageError> {
        let prefix = folder.to_string();
        self.run("list", folder, move |root| listing::stamp(&root.join(prefix), SystemTime::now())).await.map(Some)
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

    async fn sweep(&self, age: Duration) -> Result<u64, StorageError> {
        self.run("sweep", "", move |root| sweep(root, SystemTime::now() - age)).await
    }
}

fn is_lasting(kind: ErrorKind) -> bool {
    use ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(kind, PermissionDenied | StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

fn describe(key: Key, meta: &fs::Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta { key, size: meta.len(), modified: meta.modified()?, class: None, encryption: None })
}

fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn put(root: &Path, path: &Path, body: &Body, mode: PutMode) -> io::Result<PutOutcome> {
    let folder = path.parent().ok_or_else(|| io::Error::other("an object needs a folder"))?;
    if mode == PutMode::CreateOnly && path.exists() {
        // Whoever put it may not have come to this yet, and our caller takes the answer for durable.
        fsync::sync_folder(folder)?;
        return Ok(PutOutcome::AlreadyExists);
    }
    let temporary = folder.join(format!("{TEMPORARY}{:016x}", random()?));
    let result = create(root, &temporary).and_then(|file| write_and_rename(file, &temporary, path, body, mode));
    if result.is_err() || matches!(result, Ok(PutOutcome::AlreadyExists)) {
        // Best effort: a leftover is invisible and swept later.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Makes a file, and the folders above it that are missing. A folder directly below the root is made for an object
/// directly in it alone: one that lies deeper was preceded by such an object, so where that folder is missing the store
/// is not what it was, such as the empty folder below a disk that is not mounted any more.
fn create(root: &Path, path: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let folder = path.parent().unwrap_or(root);
    match create() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut below = folder.strip_prefix(root).unwrap_or(folder).components();
            let top = below.next().map_or(root.to_path_buf(), |top| root.join(top));
            if below.next().is_some() && !top.is_dir() {
                let what = format!("the folder \"{}\" is gone, which was there before", top.display());
                return Err(io::Error::new(ErrorKind::NotFound, what));
            }
            fsync::create_folders(folder)?;
            create()
        }
        other => other,
    }
}

fn write_and_rename(
    mut file: File,
    temporary: &Path,
    path: &Path,
    body: &Body,
    mode: PutMode,
) -> io::Result<PutOutcome> {
    write_all(&mut file, body)?;
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

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
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
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
}

fn sweep(folder: &Path, before: SystemTime) -> io::Result<u64> {
    let Some(entries) = absent_as_none(fs::read_dir(folder))? else { return Ok(0) };
    let mut swept = 0;
    for entry in entries {
        let entry = entry?;
        let Some(meta) = absent_as_none(entry.metadata())? else { continue };
        if meta.is_dir() {
            swept += sweep(&entry.path(), before)?;
        } else if entry.file_name().to_string_lossy().starts_with(TEMPORARY) && meta.modified()? < before {
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
mod tests {
    use super::*;

    #[test]
    fn each_trouble_of_a_file_system_has_its_next_step() {
        // EACCES, ENOSPC, EROFS, ESTALE, EIO and ENOENT, as Linux numbers them.
        let steps = [13, 28, 30, 116, 5, 2].map(|number| next_step(&io::Error::from_raw_os_error(number)).unwrap());
        assert_eq!(HashSet::from(steps).len(), steps.len(), "{steps:?}");
        assert_eq!(next_step(&io::Error::from_raw_os_error(122)), Some(steps[1]), "a quota is a full disk");
        assert_eq!(next_step(&io::Error::other("a thread panicked")), None);
    }

    #[tokio::test]
    async fn leftovers_of_interrupted_puts_are_invisible_and_swept_when_old() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(folder.path());
        let key = Key::new("a/b").unwrap();
        assert_eq!(storage.put(&key, "x".into(), PutMode::CreateOnly).await.unwrap(), PutOutcome::Stored);
        let leftover = folder.path().join("a").join(format!("{TEMPORARY}1"));
        fs::write(&leftover, "half").unwrap();
        assert_eq!(storage.list("a/", None).await.unwrap().len(), 1);
        assert_eq!(storage.sweep(Duration::from_secs(3600)).await.unwrap(), 0);
        assert_eq!(storage.sweep(Duration::ZERO).await.unwrap(), 1);
        assert!(!leftover.exists() && folder.path().join("a/b").exists());
    }

    #[tokio::test]
    async fn folders_above_are_made_durable_once_and_again_when_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(folder.path());
        let known = || storage.durable.0.lock().unwrap().len();
        for (name, expected) in [("a/first", 1), ("a/b/1", 2), ("a/b/2", 2), ("a/c/1", 3), ("top", 4)] {
            let _ = storage.put(&Key::new(name).unwrap(), "x".into(), PutMode::CreateOnly).await.unwrap();
            assert_eq!(known(), expected, "{name}");
        }
        // Also where the object is there: another process may have put it, and died.
        let second = LocalStorage::new(folder.path());
        let outcome = second.put(&Key::new("a/b/1").unwrap(), "x".into(), PutMode::CreateOnly).await.unwrap();
        assert_eq!(outcome, PutOutcome::AlreadyExists);
        assert_eq!(second.durable.0.lock().unwrap().len(), 1);
        fs::rename(folder.path().join("a/b"), folder.path().join("a/old")).unwrap();
        let _ = storage.put(&Key::new("a/b/1").unwrap(), "x".into(), PutMode::CreateOnly).await.unwrap();
        assert_eq!(known(), 5);
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("mounted");
        let storage = LocalStorage::new(&root);
        let put = |name: &'static str| {
            let storage = storage.clone();
            async move { storage.put(&Key::new(name).unwrap(), "x".into(), PutMode::CreateOnly).await }
        };
        for name in ["marker", "main/cluster", "main/wal/group/1"] {
            assert_eq!(put(name).await.unwrap(), PutOutcome::Stored, "{name}");
        }
        fs::rename(&root, folder.path().join("elsewhere")).unwrap();
        for without in ["the folder", "the mount"] {
            for name in ["main/wal/group/2", "main/wal/history"] {
                let error = put(name).await.unwrap_err();
                assert!(!error.lasting && error.source.to_string().contains("is gone"), "{without}: {error:?}");
            }
            fs::create_dir_all(&root).unwrap();
        }
        fs::remove_dir(&root).unwrap();
        fs::rename(folder.path().join("elsewhere"), &root).unwrap();
        assert_eq!(put("main/wal/group/2").await.unwrap(), PutOutcome::Stored);
    }

    #[tokio::test]
    async fn operations_that_hang_keep_a_bounded_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let (storage, key) = (LocalStorage::new(folder.path()), Key::new("pipe").unwrap());
        for _ in 0..AT_ONCE + 3 {
            let read = tokio::time::timeout(Duration::from_millis(20), storage.get(&key, 0..1));
            assert!(read.await.is_err());
        }
        assert_eq!(storage.places.available_permits(), 0);
        // What they wait for is back: all of them end, none of the given up ones was begun.
        let _writer = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let all = storage.places.acquire_many(AT_ONCE as u32);
        assert!(tokio::time::timeout(Duration::from_secs(30), all).await.is_ok());
    }

    #[tokio::test]
    async fn an_unreadable_folder_is_unknown_not_absent() {
        let folder = tempfile::tempdir().unwrap();
        let (itself, key) = (folder.path().join("itself"), Key::new("a").unwrap());
        std::os::unix::fs::symlink(&itself, &itself).unwrap();
        let storage = LocalStorage::new(itself);
        assert!(storage.put(&key, "x".into(), PutMode::CreateOnly).await.is_err());
        assert!(storage.get(&key, 0..1).await.is_err());
        assert!(storage.head(&key).await.is_err());
        assert!(storage.list("", None).await.is_err());
    }
}
