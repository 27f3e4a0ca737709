//! Reading a backup whole: every frame and file is checked, and the WAL that it needs is looked up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::runtime::Handle;

use super::Verification;
use crate::codec::Hasher;
use crate::error::one_line;
use crate::postgres::backup::delete::NoSuchBackup;
use crate::postgres::backup::inventory::{Homes, Inventory};
use crate::postgres::backup::manifest::{
    self, FRAME_SIZE, FileEntry, ManifestEntry, Paths, entries,
};
use crate::postgres::backup::wal::{NeededWal, is_proven};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::layout::{BackupId, Layout};
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::repository::{Sample, TaskPool, pack_sizes};
use crate::repo::{FramePlace, Frames, ObjectError, SealedObject, is_unusable};
use crate::storage::Key;

/// Files are handed to the workers in batches of about as many stored bytes, and of as many files at most.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_FILES: usize = 1000;

impl Verification {
    /// Reads a manifest, checks that all it names is there, and reads the packs that are in the sample.
    pub(super) async fn sample_of_backup(
        self: &Arc<Self>,
        id: &BackupId,
        sample: Sample,
    ) -> anyhow::Result<()> {
        let key = self.cluster.layout.manifest(id);
        let (description, needed) = match self.manifest(&key).await {
            Ok(Some(read)) => read,
            Ok(None) => return Ok(()),
            Err(error) => return self.note_error(&key, error),
        };
        let mut pool = TaskPool::new(self.options.workers);
        let mut sizes: BTreeMap<BackupId, BTreeMap<Key, u64>> = BTreeMap::new();
        for (pack, least) in needed {
            if !sizes.contains_key(&pack.backup) {
                sizes.insert(
                    pack.backup.clone(),
                    pack_sizes(&self.cluster, &pack.backup).await?,
                );
            }
            let key = self.cluster.layout.pack(&pack);
            match sizes.get(&pack.backup).and_then(|sizes| sizes.get(&key)) {
                None => {
                    let why = format!("backup {id} needs it, and there is no such object");
                    self.note(key.as_str(), ObjectProblem::missing(why))?;
                }
                Some(size) if *size < least => {
                    let why = format!("it has {size} bytes where backup {id} needs {least}");
                    self.note(key.as_str(), ObjectProblem::damaged(why))?;
                }
                Some(size) if sample.holds(&key) => {
                    let (own, size) = (self.clone(), *size);
                    pool.add(async move { own.pack(&key, size).await }).await?;
                }
                Some(_) => (),
            }
        }
        pool.finish().await?;
        match self.needed_wal(&description).await {
            Ok(()) => Ok(()),
            Err(error) => self.note_error(&key, error),
        }
    }

    /// Reads a backup whole. Errors: [`NoSuchBackup`]; or the store did not answer, so that the answer is not known.
    pub(super) async fn backup(self: &Arc<Self>, id: &BackupId) -> anyhow::Result<()> {
        let key = self.cluster.layout.manifest(id);
        let manifest = match self
            .cluster
            .repository
            .get_verified(&key, manifest::KIND, manifest::LONGEST)
            .await
        {
            Ok(Some(manifest)) => manifest,
            Ok(None) if self.cluster.objects_of(id).await?.is_empty() => {
                return NoSuchBackup::error(&self.cluster, id);
            }
            Ok(None) => {
                return self.note(
                    key.as_str(),
                    ObjectProblem::missing("there is no such object: the backup is not finished"),
                );
            }
            Err(error) => {
                let why = ObjectProblem::from(error);
                if why.problem == ProblemKind::Unread {
                    self.cluster.confirm().await?;
                }
                return self.note(key.as_str(), why);
            }
        };
        match self.content(id, manifest).await? {
            Some(description) => self.needed_wal(&description).await,
            None => Ok(()),
        }
    }

    /// Reads all files that a manifest, whose content was verified, lists from the packs. The backup's description,
    /// where that can be read. Errors: the store did not answer.
    pub(super) async fn content(
        self: &Arc<Self>,
        id: &BackupId,
        object: SealedObject,
    ) -> anyhow::Result<Option<BackupDescription>> {
        let key = self.cluster.layout.manifest(id);
        let description: BackupDescription = match object.header().about.read() {
            Ok(description) => description,
            Err(error) => {
                self.note(
                    key.as_str(),
                    ObjectProblem::damaged(format!("its description cannot be read: {error}")),
                )?;
                return Ok(None);
            }
        };
        let (files, bytes) = self.files(&key, object).await?;
        if (files, bytes) != (description.file_count, description.plain_bytes) {
            let why = format!(
                "it lists {files} files of {bytes} bytes where its description says {} of {}",
                description.file_count, description.plain_bytes
            );
            self.note(key.as_str(), ObjectProblem::damaged(why))?;
        }
        Ok(Some(description))
    }

    /// Looks up the WAL that a backup needs, by headers. Errors: the store did not answer.
    pub(super) async fn needed_wal(&self, backup: &BackupDescription) -> anyhow::Result<()> {
        let needed = NeededWal {
            timeline: backup.timeline,
            start: backup.start_lsn,
            stop: backup.stop_lsn,
        };
        for name in needed.files(backup.segment_size) {
            self.state().found.looked_up += 1;
            let why = match is_proven(&self.cluster, &name).await {
                Ok(true) => continue,
                Ok(false) => {
                    let why = format!(
                        "backup {} needs this WAL file, and there is no such object",
                        backup.id
                    );
                    ObjectProblem::missing(why)
                }
                Err(error) if is_unusable(&error) => ObjectProblem::unusable(&error),
                Err(error) => return Err(error),
            };
            self.note(self.cluster.layout.wal(&name).as_str(), why)?;
        }
        Ok(())
    }

    /// Reads all files that the manifest `key` lists: how many, and of how many bytes.
    async fn files(
        self: &Arc<Self>,
        key: &Key,
        object: SealedObject,
    ) -> anyhow::Result<(u64, u64)> {
        let workers = self.options.workers.max(1);
        let (batches, batches_out) = sync_channel(workers);
        let batches_out = Arc::new(Mutex::new(batches_out));
        let given_up = Arc::new(AtomicBool::new(false));
        let _when_dropped = GiveUp(given_up.clone());
        let reading = tokio::task::spawn_blocking(move || read_manifest(&object, &batches));
        let mut checking = Vec::new();
        for _ in 0..workers {
            let (own, runtime) = (self.clone(), Handle::current());
            let (batches, given_up) = (batches_out.clone(), given_up.clone());
            checking.push(tokio::task::spawn_blocking(move || {
                own.check_batches(&runtime, &batches, &given_up)
            }));
        }
        drop(batches_out);
        let mut checked = Ok((0, 0));
        for worker in checking {
            let one = worker
                .await
                .context("a verifying thread failed")
                .and_then(|result| result);
            checked =
                checked.and_then(|(files, bytes)| one.map(|one| (files + one.0, bytes + one.1)));
        }
        let listed = reading
            .await
            .context("the thread that reads the manifest failed")?;
        let checked = checked?;
        if let Err(error) = listed {
            self.note(key.as_str(), ObjectProblem::damaged(one_line(&error)))?;
        }
        Ok(checked)
    }

    /// Checks files until there are no more: how many, and of how many bytes.
    fn check_batches(
        &self,
        runtime: &Handle,
        batches: &Mutex<Receiver<Vec<FileEntry>>>,
        given_up: &AtomicBool,
    ) -> anyhow::Result<(u64, u64)> {
        let layout = &self.cluster.layout;
        let frames = Frames::new(self.cluster.repository.clone(), FRAME_SIZE);
        let (mut count, mut bytes) = (0, 0);
        loop {
            // The lock is held while waiting: one worker waits for a batch, the others for the lock.
            let batch = batches
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            let Some(batch) = batch.ok().filter(|_| !given_up.load(Ordering::Relaxed)) else {
                return Ok((count, bytes));
            };
            for checking in self.check_batch(runtime, &frames, &batch)? {
                let file = checking.file;
                self.progress
                    .done
                    .fetch_add(checking.left, Ordering::Relaxed);
                (count, bytes) = (count + 1, bytes + file.size);
                let mut state = self.state();
                state.found.files += 1;
                state.found.plain_bytes += file.size;
                drop(state);
                if let Some((object, why)) = checking.finish(layout) {
                    self.note_file(&object, why, Some(full_path(file)))?;
                }
            }
        }
    }

    /// Reads all frames of some files.
    fn check_batch<'a>(
        &self,
        runtime: &Handle,
        frames: &Frames,
        batch: &'a [FileEntry],
    ) -> anyhow::Result<Vec<Checking<'a>>> {
        let mut files: Vec<Checking> = batch.iter().map(Checking::new).collect();
        let places = batch.iter().enumerate().flat_map(|(number, file)| {
            let places = file.places(&self.cluster.layout);
            places.map(move |(place, skip)| (place.clone(), (number, skip as usize, place)))
        });
        let take = |sharing: &[(usize, usize, FramePlace)], opened: Result<&[u8], ObjectError>| {
            let opened = opened.map_err(ObjectProblem::from);
            for (number, skip, place) in sharing {
                let content = opened
                    .as_ref()
                    .map_err(Clone::clone)
                    .map(|plain| plain.get(*skip..));
                self.progress
                    .done
                    .fetch_add(files[*number].add(place, content), Ordering::Relaxed);
            }
            Ok(())
        };
        frames.each(runtime, places, take)?;
        Ok(files)
    }
}

/// Tells the threads of a verification that nobody waits for it any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hands the files out. Errors: the manifest cannot be read on.
fn read_manifest(
    object: &SealedObject,
    batches: &SyncSender<Vec<FileEntry>>,
) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let (mut came, mut label) = (Inventory::default(), false);
    let (mut paths, mut twice) = (Paths::default(), None);
    for entry in entries(object)? {
        let file = match entry? {
            ManifestEntry::File(file) => file,
            ManifestEntry::Folder(folder) => {
                came.folder(folder.tablespace, &folder.path);
                continue;
            }
        };
        came.file(file.tablespace, &file.path);
        if !paths.is_new(file.tablespace, &file.path) {
            twice.get_or_insert_with(|| full_path(&file));
        }
        label |= file.tablespace.is_none() && file.path == "backup_label";
        bytes += file
            .extents
            .iter()
            .map(manifest::Extent::stored_len)
            .sum::<u64>();
        batch.push(file);
        if bytes >= BATCH_BYTES || batch.len() >= BATCH_FILES {
            bytes = 0;
            if batches.send(std::mem::take(&mut batch)).is_err() {
                // No worker is left; they tell why.
                return Ok(());
            }
        }
    }
    let _ = batches.send(batch);
    if let Some(path) = twice {
        anyhow::bail!("it lists \"{path}\" twice: a restore takes the first");
    }
    let label = (!label).then(|| "backup_label".to_string());
    match label
        .into_iter()
        .chain(came.missing(&Homes::default()))
        .next()
    {
        Some(path) => {
            anyhow::bail!("it does not list \"{path}\", without which there is no cluster")
        }
        None => Ok(()),
    }
}

/// A file whose frames come one after the other.
struct Checking<'a> {
    file: &'a FileEntry,
    hasher: Hasher,
    /// Bytes that did not come yet.
    left: u64,
    /// ObjectProblem it cannot be restored, and which object is to blame.
    wrong: Option<(String, ObjectProblem)>,
}

impl<'a> Checking<'a> {
    fn new(file: &'a FileEntry) -> Self {
        Self {
            file,
            hasher: Hasher::default(),
            left: file.size,
            wrong: None,
        }
    }

    /// What a frame has from the file's bytes on, `None` where it ends before; how many bytes of the file that is.
    fn add(&mut self, place: &FramePlace, content: Result<Option<&[u8]>, ObjectProblem>) -> u64 {
        if self.wrong.is_some() {
            return 0;
        }
        let wanted = self.left.min(FRAME_SIZE as u64);
        match content.map(|content| content.and_then(|content| content.get(..wanted as usize))) {
            Ok(Some(content)) => {
                self.hasher.update(content);
                self.left -= wanted;
                return wanted;
            }
            Ok(None) => {
                let why = ObjectProblem::damaged(format!(
                    "the frame at byte {} is too short",
                    place.offset
                ));
                self.wrong = Some((place.key.to_string(), why));
            }
            Err(why) => self.wrong = Some((place.key.to_string(), why)),
        }
        0
    }

    /// Which object is to blame for what is wrong with it.
    fn finish(self, layout: &Layout) -> Option<(String, ObjectProblem)> {
        let (file, found) = (self.file, self.hasher.finish());
        match self.wrong {
            Some(wrong) => Some(wrong),
            None if self.left == 0 && found == file.digest => None,
            None => {
                // Each frame is whole: the digest was of other content, or the frames are another file's.
                let object = file
                    .extents
                    .first()
                    .map(|extent| layout.pack(&extent.pack).to_string());
                let why = format!(
                    "the file's content has digest {found}, the manifest says {}",
                    file.digest
                );
                Some((object.unwrap_or_default(), ObjectProblem::damaged(why)))
            }
        }
    }
}

/// The file's path with its tablespace.
fn full_path(file: &FileEntry) -> String {
    match file.tablespace {
        Some(oid) => format!("pg_tblspc/{oid}/{}", file.path),
        None => file.path.clone(),
    }
}
