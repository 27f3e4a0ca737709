//! Is a backup whole? Every frame and file is read and checked, and the WAL that it needs is looked up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;
use tokio::runtime::Handle;

use super::cleanup::objects;
use super::delete::NoSuchBackup;
use super::inventory::{Homes, Inventory};
use super::manifest::{self, Entry, FRAME_SIZE, File, Paths, entries};
use super::wal::{NeededWal, is_proven};
use crate::codec::Hasher;
use crate::error::one_line;
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, Layout};
use crate::postgres::trouble::{Trouble, Why};
use crate::repo::{FramePlace, Frames, ObjectError, SealedObject, is_unusable};

/// Files are handed to the workers in batches of about as many stored bytes, and of as many files at most.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_FILES: usize = 1000;
/// Damages that are told one by one; the rest is counted. A pack can cost many files, and must not hide another.
const MAX_DAMAGES: usize = 100;
const MAX_DAMAGED_OBJECTS: usize = 1000;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The object's key.
    pub object: String,
    pub trouble: Trouble,
    /// The file that cannot be restored because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub why: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub id: BackupId,
    /// Files read.
    pub files: u64,
    /// Bytes of their content.
    pub plain_bytes: u64,
    /// WAL files looked up.
    pub wal_files: u64,
    pub damages: Vec<Damage>,
    /// Damages beyond those listed.
    pub more_damages: u64,
}

impl Verified {
    fn new(id: &BackupId) -> Self {
        Self { id: id.clone(), files: 0, plain_bytes: 0, wal_files: 0, damages: Vec::new(), more_damages: 0 }
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty()
    }

    fn add(&mut self, damage: Damage) {
        let known = self.damages.iter().any(|other| other.object == damage.object);
        match self.damages.len() < if known { MAX_DAMAGES } else { MAX_DAMAGED_OBJECTS } {
            true => self.damages.push(damage),
            false => self.more_damages += 1,
        }
    }
}

/// Verifies one backup with `workers` threads; `read` grows by the plain bytes that were read. Errors: [`NoSuchBackup`]; or the store did not answer, so that the
/// answer is not known.
pub async fn verify(
    cluster: &Cluster,
    id: &BackupId,
    workers: usize,
    read: &Arc<AtomicU64>,
) -> anyhow::Result<Verified> {
    let key = cluster.layout.manifest(id);
    let mut verified = Verified::new(id);
    let damage = |trouble, why: String| Damage { object: key.to_string(), trouble, file: None, why };
    let manifest = match cluster.repository.get_verified(&key, manifest::KIND, manifest::LONGEST).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) if objects(cluster, id).await?.is_empty() => {
            return NoSuchBackup::error(cluster, id);
        }
        Ok(None) => {
            verified.add(damage(Trouble::Missing, "there is no such object: the backup is not finished".into()));
            return Ok(verified);
        }
        Err(error) => {
            let why = Why::from(error);
            if why.trouble == Trouble::Unread {
                cluster.confirm().await?;
            }
            verified.add(damage(why.trouble, why.why));
            return Ok(verified);
        }
    };
    let (description, mut verified) = verify_content(cluster, id, manifest, workers, read).await?;
    if let Some(description) = description {
        let (files, damages) = verify_wal(cluster, &description).await?;
        verified.wal_files = files;
        damages.into_iter().for_each(|damage| verified.add(damage));
    }
    Ok(verified)
}

/// Reads all files that a manifest, whose content was verified, lists from the packs. The backup's description, where
/// that can be read. Errors: the store did not answer.
pub async fn verify_content(
    cluster: &Cluster,
    id: &BackupId,
    object: SealedObject,
    workers: usize,
    read: &Arc<AtomicU64>,
) -> anyhow::Result<(Option<BackupDescription>, Verified)> {
    let key = cluster.layout.manifest(id);
    let mut verified = Verified::new(id);
    let damage = |why: String| Damage { object: key.to_string(), trouble: Trouble::Damaged, file: None, why };
    let description: BackupDescription = match object.header().about.read() {
        Ok(description) => description,
        Err(error) => {
            verified.add(damage(format!("its description cannot be read: {error}")));
            return Ok((None, verified));
        }
    };
    let mut verified = files(cluster, verified, object, workers, read).await?;
    if (verified.files, verified.plain_bytes) != (description.file_count, description.plain_bytes) {
        let (files, bytes) = (verified.files, verified.plain_bytes);
        verified.add(damage(format!(
            "it lists {files} files of {bytes} bytes where its description says {} of {}",
            description.file_count, description.plain_bytes
        )));
    }
    Ok((Some(description), verified))
}

/// Looks up the WAL that a backup needs, by headers: how many files that is, and what is wrong. Errors: the store did
/// not answer.
pub async fn verify_wal(cluster: &Cluster, backup: &BackupDescription) -> anyhow::Result<(u64, Vec<Damage>)> {
    let needed = NeededWal { timeline: backup.timeline, start: backup.start_lsn, stop: backup.stop_lsn };
    let (mut files, mut damages) = (0, Vec::new());
    for name in needed.files(backup.segment_size) {
        files += 1;
        let (trouble, why) = match is_proven(cluster, &name).await {
            Ok(true) => continue,
            Ok(false) => {
                (Trouble::Missing, format!("backup {} needs this WAL file, and there is no such object", backup.id))
            }
            Err(error) if is_unusable(&error) => {
                let why = Why::unusable(&error);
                (why.trouble, why.why)
            }
            Err(error) => return Err(error),
        };
        damages.push(Damage { object: cluster.layout.wal(&name).to_string(), trouble, file: None, why });
    }
    Ok((files, damages))
}

/// Reads all files that the manifest lists.
async fn files(
    cluster: &Cluster,
    verified: Verified,
    object: SealedObject,
    workers: usize,
    read: &Arc<AtomicU64>,
) -> anyhow::Result<Verified> {
    let key = cluster.layout.manifest(&verified.id).to_string();
    let workers = workers.max(1);
    let (batches, batches_out) = sync_channel(workers);
    let batches_out = Arc::new(Mutex::new(batches_out));
    let shared = Arc::new(Mutex::new(verified));
    let given_up = Arc::new(AtomicBool::new(false));
    let _when_dropped = GiveUp(given_up.clone());
    let reading = tokio::task::spawn_blocking(move || read_manifest(&object, &batches));
    let mut checking = Vec::new();
    for _ in 0..workers {
        let (batches, shared, read, given_up) = (batches_out.clone(), shared.clone(), read.clone(), given_up.clone());
        let (cluster, runtime) = (cluster.clone(), Handle::current());
        checking.push(tokio::task::spawn_blocking(move || {
            check_batches(&cluster, &runtime, &batches, &shared, &read, &given_up)
        }));
    }
    drop(batches_out);
    let mut checked = Ok(());
    for worker in checking {
        checked = checked.and(worker.await.context("a verifying thread failed").and_then(|result| result));
    }
    let read = reading.await.context("the thread that reads the manifest failed")?;
    checked?;
    let mut verified = lock(&shared).clone();
    if let Err(error) = read {
        verified.add(Damage { object: key, trouble: Trouble::Damaged, file: None, why: one_line(&error) });
    }
    Ok(verified)
}

/// Tells the threads of a verification that nobody waits for it any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hands the files out. Errors: the manifest cannot be read on.
fn read_manifest(object: &SealedObject, batches: &SyncSender<Vec<File>>) -> anyhow::Result<()> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let (mut came, mut label) = (Inventory::default(), false);
    let (mut paths, mut twice) = (Paths::default(), None);
    for entry in entries(object)? {
        let file = match entry? {
            Entry::File(file) => file,
            Entry::Folder(folder) => {
                came.folder(folder.tablespace, &folder.path);
                continue;
            }
        };
        came.file(file.tablespace, &file.path);
        if !paths.is_new(file.tablespace, &file.path) {
            twice.get_or_insert_with(|| full_path(&file));
        }
        label |= file.tablespace.is_none() && file.path == "backup_label";
        bytes += file.extents.iter().map(manifest::Extent::stored_len).sum::<u64>();
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
    match label.into_iter().chain(came.missing(&Homes::default())).next() {
        Some(path) => anyhow::bail!("it does not list \"{path}\", without which there is no cluster"),
        None => Ok(()),
    }
}

fn check_batches(
    cluster: &Cluster,
    runtime: &Handle,
    batches: &Mutex<Receiver<Vec<File>>>,
    verified: &Mutex<Verified>,
    read: &AtomicU64,
    given_up: &AtomicBool,
) -> anyhow::Result<()> {
    let frames = Frames::new(cluster.repository.clone(), FRAME_SIZE);
    loop {
        // The lock is held while waiting: one worker waits for a batch, the others for the lock.
        let batch = lock(batches).recv();
        let Ok(batch) = batch else { return Ok(()) };
        if given_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut files: Vec<Checking> = batch.iter().map(Checking::new).collect();
        let places = batch.iter().enumerate().flat_map(|(number, file)| {
            let places = file.places(&cluster.layout);
            places.map(move |(place, skip)| (place.clone(), (number, skip as usize, place)))
        });
        let take = |sharing: &[(usize, usize, FramePlace)], opened: Result<&[u8], ObjectError>| {
            let opened = opened.map_err(Why::from);
            for (number, skip, place) in sharing {
                let content = opened.as_ref().map_err(Clone::clone).map(|plain| plain.get(*skip..));
                read.fetch_add(files[*number].add(place, content), Ordering::Relaxed);
            }
            Ok(())
        };
        frames.each(runtime, places, take)?;
        for checking in files {
            read.fetch_add(checking.left, Ordering::Relaxed);
            let mut verified = lock(verified);
            verified.files += 1;
            verified.plain_bytes += checking.file.size;
            checking.finish(&cluster.layout).into_iter().for_each(|damage| verified.add(damage));
        }
    }
}

/// A file whose frames come one after the other.
struct Checking<'a> {
    file: &'a File,
    hasher: Hasher,
    /// Bytes that did not come yet.
    left: u64,
    /// Why it cannot be restored, and which object is to blame.
    wrong: Option<(String, Why)>,
}

impl<'a> Checking<'a> {
    fn new(file: &'a File) -> Self {
        Self { file, hasher: Hasher::default(), left: file.size, wrong: None }
    }

    /// What a frame has from the file's bytes on, `None` where it ends before; how many bytes of the file that is.
    fn add(&mut self, place: &FramePlace, content: Result<Option<&[u8]>, Why>) -> u64 {
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
                let why = Why::damaged(format!("the frame at byte {} is too short", place.offset));
                self.wrong = Some((place.key.to_string(), why));
            }
            Err(why) => self.wrong = Some((place.key.to_string(), why)),
        }
        0
    }

    fn finish(self, layout: &Layout) -> Option<Damage> {
        let (file, found) = (self.file, self.hasher.finish());
        let (object, Why { trouble, why }) = match self.wrong {
            Some(wrong) => wrong,
            None if self.left == 0 && found == file.digest => return None,
            None => {
                // Each frame is whole: the digest was of other content, or the frames are another file's.
                let object = file.extents.first().map(|extent| layout.pack(&extent.pack).to_string());
                let why = format!("the file's content has digest {found}, the manifest says {}", file.digest);
                (object.unwrap_or_default(), Why::damaged(why))
            }
        };
        Some(Damage { object, trouble, file: Some(full_path(file)), why })
    }
}

/// The file's path with its tablespace.
fn full_path(file: &File) -> String {
    match file.tablespace {
        Some(oid) => format!("pg_tblspc/{oid}/{}", file.path),
        None => file.path.clone(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lost_pack_with_many_files_does_not_hide_another() {
        let mut verified = Verified::new(&"20260101-000000Z".parse().unwrap());
        let damage = |object: &str, file: u32| Damage {
            object: object.into(),
            trouble: Trouble::Missing,
            file: Some(file.to_string()),
            why: String::new(),
        };
        (0..500).for_each(|file| verified.add(damage("a", file)));
        (0..3).for_each(|file| verified.add(damage("b", file)));
        assert_eq!((verified.damages.len(), verified.more_damages), (101, 402));
        assert_eq!(verified.damages[100].object, "b");
    }
}
