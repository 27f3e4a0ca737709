//! Second step: the files, in parallel, every frame and every file's digest verified. `global/pg_control` is kept in
//! memory: without it no server starts from the folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{BufReader, ErrorKind, Seek};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use tokio::runtime::Handle;

use super::destination::Destination;
use super::names::{CONFIGURATION, LOG, MARKER, PG_CONTROL};
use super::queue::{Queue, Unit};
use crate::codec::{Digest, Hasher};
use crate::error::{Hint, find, with_hint};
use crate::fsync;
use crate::postgres::backup::manifest::{
    self, FRAME_SIZE, FileEntry, FolderEntry, ManifestEntry, Paths, read_entries,
};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::Layout;
use crate::repo::{Frames, ObjectError, repair_or_wait, reread};
use crate::storage::Key;

/// The manifest, while it has a name.
const MANIFEST: &str = ".walden-manifest";
/// Small files that one worker takes at once, by number and bytes.
const MAX_UNIT_FILES: usize = 2048;
const MAX_UNIT_BYTES: u64 = 8 << 20;
/// Bytes written to a file before the kernel is asked to begin with the disk.
const WRITE_BEHIND: u64 = 8 << 20;

/// Files that would make the restored server something else than what was asked for.
const LEFT_OUT: [&str; 12] = [
    "postmaster.pid",
    "postmaster.opts",
    "standby.signal",
    "recovery.signal",
    "recovery.conf",
    "recovery.done",
    "backup_manifest",
    // Written anew.
    "tablespace_map",
    "current_logfiles",
    // Of an earlier restore.
    CONFIGURATION,
    MARKER,
    LOG,
];

/// How far the step is; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct RestoreProgress {
    /// Plain bytes.
    pub bytes: AtomicU64,
    pub files: AtomicU64,
}

/// What was written, and what was held back.
#[derive(Debug)]
pub struct RestoredFiles {
    /// Content of `global/pg_control`.
    pub control_file: Vec<u8>,
    pub files: u64,
    pub bytes: u64,
}

/// Writes all files of a backup below `destination`, which must be empty. Errors: an object is missing or damaged
/// (named), the store did not answer, or the disk refuses.
pub async fn restore_files(
    cluster: &Cluster,
    backup: &BackupDescription,
    destination: Destination,
    workers: usize,
    progress: Arc<RestoreProgress>,
) -> anyhow::Result<RestoredFiles> {
    let key = cluster.layout.manifest(&backup.id);
    let manifest = reread(is_damaged, || {
        verified_manifest(cluster, &key, &destination.data_directory)
    })
    .await;
    let manifest = manifest.map_err(|error| {
        if is_damaged(&error) {
            with_hint(error, DAMAGED)
        } else {
            error
        }
    })?;
    let shared = Arc::new(Shared {
        queue: Queue::default(),
        frames: Frames::new(cluster.repository.clone(), FRAME_SIZE),
        layout: cluster.layout.clone(),
        runtime: Handle::current(),
        destination,
        tablespaces: backup
            .tablespaces
            .iter()
            .map(|tablespace| tablespace.oid)
            .collect(),
        control_file: Mutex::new(None),
        progress,
    });
    let mut threads = tokio::task::JoinSet::new();
    for _ in 0..workers.max(1) {
        let shared = shared.clone();
        threads.spawn_blocking(move || shared.work());
    }
    let feeder = shared.clone();
    threads.spawn_blocking(move || feeder.feed(BufReader::with_capacity(FRAME_SIZE, manifest)));
    let mut first_error = None;
    while let Some(ended) = threads.join_next().await {
        if let Err(error) = ended
            .context("a restoring thread failed")
            .and_then(|result| result)
        {
            shared.queue.abort();
            first_error.get_or_insert(error);
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    let control_file = shared
        .control_file
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    Ok(RestoredFiles {
        control_file: control_file
            .with_context(|| format!("backup \"{}\" has no {PG_CONTROL}", backup.id))?,
        files: shared.progress.files.load(Ordering::Relaxed),
        bytes: shared.progress.bytes.load(Ordering::Relaxed),
    })
}

/// The content of a manifest, all of it verified before anything is made of it, in a file without a name in `folder`:
/// memory does not grow with it.
async fn verified_manifest(
    cluster: &Cluster,
    key: &Key,
    folder: &Path,
) -> anyhow::Result<fs::File> {
    let opened = cluster.repository.open_stream(key, manifest::KIND).await?;
    let (_, mut stream) = opened
        .ok_or_else(|| cluster.repository.absent(key))
        .hint(DAMAGED)?;
    let path = folder.join(MANIFEST);
    let write = move || {
        let open = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            fs::remove_file(&path)?;
            Ok::<_, std::io::Error>(file)
        };
        let mut file = open().with_context(|| cannot_write(&path)).hint(DISK)?;
        std::io::copy(&mut stream, &mut file).with_context(|| {
            format!(
                "cannot copy the backup's manifest to \"{}\"",
                path.display()
            )
        })?;
        file.rewind()
            .with_context(|| cannot_write(&path))
            .hint(DISK)?;
        Ok(file)
    };
    tokio::task::spawn_blocking(write)
        .await
        .context("the thread that reads the manifest failed")?
}

fn is_damaged(error: &anyhow::Error) -> bool {
    let in_stream =
        find::<std::io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::InvalidData);
    in_stream || find::<ObjectError>(error).is_some_and(ObjectError::is_damage)
}

struct Shared {
    queue: Queue,
    frames: Frames,
    layout: Layout,
    runtime: Handle,
    destination: Destination,
    /// OIDs: their folders in `pg_tblspc` become links later.
    tablespaces: Vec<u32>,
    control_file: Mutex<Option<Vec<u8>>>,
    progress: Arc<RestoreProgress>,
}

impl Shared {
    /// Reads the manifest: makes folders, queues files.
    fn feed(&self, manifest: impl std::io::BufRead) -> anyhow::Result<()> {
        let mut small: Vec<FileEntry> = Vec::new();
        let mut paths = Paths::default();
        for entry in read_entries(manifest) {
            match entry? {
                ManifestEntry::Folder(folder) => self.make_folder(&folder)?,
                ManifestEntry::File(file) if left_out(&file) => (),
                // Older backups may have configuration from outside, and behind it what an earlier restore left there.
                ManifestEntry::File(file) if !paths.is_new(file.tablespace, &file.path) => (),
                ManifestEntry::File(file) if file.size > FRAME_SIZE as u64 => {
                    if !self.queue.push(Unit::new(vec![file])) {
                        return Ok(());
                    }
                }
                ManifestEntry::File(file) => {
                    let bytes: u64 = small.iter().map(|file| file.size).sum();
                    let full = small.len() >= MAX_UNIT_FILES || bytes + file.size > MAX_UNIT_BYTES;
                    // Files that share a frame stay together, so that it is fetched and opened once.
                    let apart = small
                        .last()
                        .is_some_and(|last| !self.share_a_frame(last, &file));
                    if full && apart && !self.queue.push(Unit::new(std::mem::take(&mut small))) {
                        return Ok(());
                    }
                    small.push(file);
                }
            }
        }
        if !small.is_empty() {
            self.queue.push(Unit::new(small));
        }
        self.queue.end();
        Ok(())
    }

    fn make_folder(&self, folder: &FolderEntry) -> anyhow::Result<()> {
        let link = folder
            .path
            .strip_prefix("pg_tblspc/")
            .and_then(|name| name.parse().ok());
        if folder.tablespace.is_none()
            && link.is_some_and(|oid: u32| self.tablespaces.contains(&oid))
        {
            return Ok(());
        }
        let path = self.destination.path(folder.tablespace, &folder.path)?;
        create_folder(&path, folder.mode)
            .with_context(|| format!("cannot make folder \"{}\"", path.display()))
    }

    /// Takes units until there are none.
    fn work(&self) -> anyhow::Result<()> {
        while let Some(unit) = self.queue.pop() {
            let result = match unit.files.as_slice() {
                [large] if large.size > FRAME_SIZE as u64 => self.write_large(large),
                small => self.write_small(small),
            };
            if let Err(error) = result {
                self.queue.abort();
                return Err(error);
            }
        }
        Ok(())
    }

    /// A file of several frames: each is written as it is opened.
    fn write_large(&self, file: &FileEntry) -> anyhow::Result<()> {
        let (path, target) = self.create(file)?;
        let mut hasher = Hasher::default();
        let (mut at, mut begun) = (0u64, 0u64);
        let take = |_: &[()], opened: Result<&[u8], ObjectError>| {
            let plain = usable(opened)?;
            hasher.update(plain);
            target
                .write_all_at(plain, at)
                .with_context(|| cannot_write(&path))?;
            at += plain.len() as u64;
            if at - begun >= WRITE_BEHIND {
                fsync::start_writing(&target, begun, at - begun);
                begun = at;
            }
            self.progress
                .bytes
                .fetch_add(plain.len() as u64, Ordering::Relaxed);
            Ok(())
        };
        let places = file.places(&self.layout).map(|(place, _)| (place, ()));
        self.frames
            .each(&self.runtime, places, take)
            .with_context(|| restoring(file))?;
        check(file, at, hasher.finish())?;
        fsync::start_writing(&target, begun, at - begun);
        self.finish(file, &target)
    }

    /// Whether two small files lie in one frame.
    fn share_a_frame(&self, a: &FileEntry, b: &FileEntry) -> bool {
        let place = |file: &FileEntry| file.places(&self.layout).next().map(|(place, _)| place);
        place(a).is_some_and(|place_of_a| place(b) == Some(place_of_a))
    }

    /// Files of at most one frame each.
    fn write_small(&self, files: &[FileEntry]) -> anyhow::Result<()> {
        for empty in files.iter().filter(|file| file.size == 0) {
            self.write_whole(empty, &[])?;
        }
        let places = files.iter().filter_map(|file| {
            let (place, skip) = file.places(&self.layout).next()?;
            Some((place, (file, skip as usize)))
        });
        let take = |sharing: &[(&FileEntry, usize)], opened: Result<&[u8], ObjectError>| {
            let plain = usable(opened)?;
            sharing.iter().try_for_each(|(file, skip)| {
                let content = plain
                    .get(*skip..)
                    .and_then(|rest| rest.get(..file.size as usize));
                let content = content
                    .ok_or_else(|| NotAsManifested("its frame is too short".into()))
                    .with_context(|| restoring(file))?;
                self.write_whole(file, content)
            })
        };
        self.frames
            .each(&self.runtime, places, take)
            .with_context(|| match files {
                [file] => restoring(file),
                _ => format!(
                    "restoring {} small files from \"{}\" on",
                    files.len(),
                    files[0].path
                ),
            })
    }

    fn write_whole(&self, file: &FileEntry, content: &[u8]) -> anyhow::Result<()> {
        check(file, content.len() as u64, Digest::of(content))?;
        self.progress
            .bytes
            .fetch_add(content.len() as u64, Ordering::Relaxed);
        if file.tablespace.is_none() && file.path == PG_CONTROL {
            *self
                .control_file
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(content.to_vec());
            return Ok(());
        }
        let (path, target) = self.create(file)?;
        target
            .write_all_at(content, 0)
            .with_context(|| cannot_write(&path))?;
        fsync::start_writing(&target, 0, content.len() as u64);
        self.finish(file, &target)
    }

    fn create(&self, file: &FileEntry) -> anyhow::Result<(PathBuf, fs::File)> {
        let path = self.destination.path(file.tablespace, &file.path)?;
        // Whatever the source allowed others: PostgreSQL knows 0600 and 0640.
        let mode = 0o600 | (file.mode & 0o040);
        let open = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
        };
        let opened = match (open(), path.parent()) {
            (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
                create_folder(parent, 0o700).with_context(|| cannot_write(&path))?;
                open()
            }
            (result, _) => result,
        };
        let target = opened.with_context(|| cannot_write(&path)).hint(DISK)?;
        Ok((path, target))
    }

    fn finish(&self, file: &FileEntry, target: &fs::File) -> anyhow::Result<()> {
        let modified = UNIX_EPOCH + Duration::from_secs(u64::try_from(file.mtime).unwrap_or(0));
        target
            .set_modified(modified)
            .with_context(|| format!("cannot set the time of \"{}\"", file.path))?;
        self.progress.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What to do about an object that is damaged or gone.
const DAMAGED: &str = "bring the object back from a copy, or restore another backup (--backup) that `walden backup verify` \
     finds whole";
const DISK: &str = "check free space and permissions of the target folder";

fn left_out(file: &FileEntry) -> bool {
    file.tablespace.is_none() && LEFT_OUT.contains(&file.path.as_str())
}

/// The content of a frame, or what to do without.
fn usable(opened: Result<&[u8], ObjectError>) -> anyhow::Result<&[u8]> {
    opened
        .map_err(|error| repair_or_wait(error.into(), DAMAGED))
        .context("the backup is not whole")
}

fn create_folder(path: &Path, mode: u32) -> std::io::Result<()> {
    let mode = 0o700 | (mode & 0o050);
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(mode).create(path)
        }
        result => result,
    }
}

/// What a backup holds of a file is not what its manifest says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAsManifested(pub String);

fn check(file: &FileEntry, size: u64, found: Digest) -> Result<(), NotAsManifested> {
    let path = &file.path;
    let differs = |what: String, wanted: String| {
        let why = format!("file \"{path}\" has {what}, its manifest says {wanted}");
        Err(NotAsManifested(why))
    };
    if size != file.size {
        return differs(format!("{size} bytes"), file.size.to_string());
    }
    match found == file.digest {
        true => Ok(()),
        false => differs(format!("digest {found}"), file.digest.to_string()),
    }
}

fn restoring(file: &FileEntry) -> String {
    format!("cannot restore file \"{}\"", file.path)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write \"{}\"", path.display())
}
