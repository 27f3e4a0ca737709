//! The deletions themselves. What a repository refuses to delete is noted; if it does not answer, the work ends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::beside::{GoneWal, named_after};
use super::gather::Gathered;
use crate::error::one_line;
use crate::postgres::catalog::{BackupDescription, ExpiredWal, WalSpan, without};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::ListedDump;
use crate::postgres::layout::{BackupId, DumpObject, ObjectKind};
use crate::postgres::protection::{Deletion, LeftItem, Needs};
use crate::postgres::types::{SegmentName, WalFileName};
use crate::retention::{Item, ItemId, ItemKind, Needs as ItemNeeds};
use crate::storage::{Key, StorageError, Walk, until};

/// Objects deleted at once.
const PARALLEL: usize = 16;
/// Objects between two looks at the lease.
const BATCH: usize = 256;

/// How far a deletion is, in stored bytes; of WAL estimated.
#[derive(Debug, Default)]
pub struct ExpiryProgress {
    pub done: AtomicU64,
    pub total: AtomicU64,
    /// What went, once it is over, however it ended.
    deleted: Mutex<Needs>,
}

impl ExpiryProgress {
    /// What went of a deletion that is over.
    pub fn deleted(&self) -> Needs {
        let deleted = self.deleted.lock();
        deleted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn tell(&self, deleted: &Needs) {
        *self.deleted.lock().unwrap_or_else(PoisonError::into_inner) = deleted.clone();
    }
}

/// What was deleted so far.
pub struct Engine<'a> {
    cluster: &'a Cluster,
    deletion: &'a Deletion,
    progress: &'a ExpiryProgress,
    /// What somebody reads or brings.
    used: Vec<Needs>,
    pub deleted: Needs,
    pub objects: u64,
    pub left: Vec<LeftItem>,
    /// Deleted dumps of which objects are left.
    pub dump_leftovers: BTreeSet<String>,
}

impl<'a> Engine<'a> {
    /// Nothing yet.
    pub fn new(
        cluster: &'a Cluster,
        deletion: &'a Deletion,
        progress: &'a ExpiryProgress,
        used: Vec<Needs>,
    ) -> Self {
        Self {
            cluster,
            deletion,
            progress,
            used,
            deleted: Needs::default(),
            objects: 0,
            left: Vec::new(),
            dump_leftovers: BTreeSet::new(),
        }
    }

    /// Deletes all this: dumps and base backups, the manifest of each first, then WAL, the oldest first. Errors: the repository did
    /// not answer, or the lease ended.
    pub async fn run(&mut self, deletes: &Needs, gathered: &Gathered) -> anyhow::Result<()> {
        for id in &deletes.dumps {
            self.dump(id, gathered).await?;
        }
        // A copy may be bringing back what was deleted before.
        for dump in &gathered.dump_leftovers {
            if !self.used.iter().any(|used| used.has_dump(&dump.id)) {
                self.rest_of_dump(dump).await?;
            }
        }
        for id in &gathered.leftovers {
            if !self.used.iter().any(|used| used.has_backup(id)) {
                self.rest_of_backup(id).await?;
            }
        }
        // A backup may name packs of earlier ones.
        for id in deletes.backups.iter().rev() {
            match self.user_of(id, gathered) {
                None => self.backup(id).await?,
                Some(user) => self.left.push(LeftItem {
                    item: format!("backup {id}"),
                    why: format!("backup {user} is still there, and may hold frames in it"),
                }),
            }
        }
        let size = self.cluster.description.segment_size;
        for span in without(
            deletes.wal.clone(),
            &self.still_needed(deletes, gathered),
            size,
        ) {
            self.wal(span, gathered).await?;
        }
        self.beside(gathered).await
    }

    /// A later backup that is still there and needs this one, or may.
    fn user_of<'g>(&self, id: &BackupId, gathered: &'g Gathered) -> Option<&'g str> {
        let used = ItemId::new(ItemKind::Base, id);
        let uses = |item: &&Item| match &item.needs {
            ItemNeeds::Known(earlier) => earlier.contains(&used),
            ItemNeeds::Unknown => item.id.kind == ItemKind::Base && item.id.name > used.name,
        };
        let is_there = |item: &&Item| {
            let gone = |gone: &BackupId| gone.to_string() == item.id.name;
            !self.deleted.backups.iter().any(gone)
        };
        let mut users = gathered.holdings.items.iter().filter(uses);
        users.find(is_there).map(|user| user.id.name.as_str())
    }

    /// The WAL of backups that could not be deleted: they are to lead somewhere as long as they are there.
    fn still_needed(&self, deletes: &Needs, gathered: &Gathered) -> Vec<WalSpan> {
        let stays = |backup: &&BackupDescription| {
            deletes.backups.contains(&backup.id) && !self.deleted.backups.contains(&backup.id)
        };
        let backups = gathered.facts.backups.iter().filter(stays);
        backups.flat_map(Needs::own_wal).collect()
    }

    /// Deletes a dump: without its manifest it is none.
    async fn dump(&mut self, id: &str, gathered: &Gathered) -> anyhow::Result<()> {
        let Some(dump) = gathered.dumps.get(id) else {
            return Ok(());
        };
        let manifest = self.cluster.layout.dump(&dump.id, &DumpObject::Manifest);
        let gone = self
            .keys(&format!("dump {id}"), vec![manifest.clone()])
            .await?;
        if gone.is_empty() {
            return Ok(());
        }
        self.deleted.dumps.insert(id.to_string());
        self.rest_of_dump(dump).await
    }

    /// Deletes what a dump without a manifest left.
    async fn rest_of_dump(&mut self, dump: &ListedDump) -> anyhow::Result<()> {
        let rest = dump.objects.iter();
        let rest = rest.filter(|(object, _)| *object != DumpObject::Manifest);
        let rest: Vec<Key> = rest.map(|(_, meta)| meta.key.clone()).collect();
        let (id, objects) = (&dump.id, rest.len());
        let gone = self.keys(&format!("objects of dump {id}"), rest).await?;
        if gone.len() < objects {
            self.dump_leftovers.insert(id.to_string());
        }
        self.progress
            .done
            .fetch_add(dump.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Deletes a backup: without its manifest it is none.
    async fn backup(&mut self, id: &BackupId) -> anyhow::Result<()> {
        let manifest = self.cluster.layout.manifest(id);
        let item = format!("backup {id}");
        if self.keys(&item, vec![manifest]).await?.is_empty() {
            return Ok(());
        }
        self.deleted.backups.insert(id.clone());
        self.rest_of_backup(id).await
    }

    /// Deletes what a backup without a manifest left.
    async fn rest_of_backup(&mut self, id: &BackupId) -> anyhow::Result<()> {
        let objects = self.cluster.objects_of(id).await?;
        let manifest = self.cluster.layout.manifest(id);
        // It came again, or is being taken.
        let started = self.cluster.layout.started(id);
        if objects
            .iter()
            .any(|meta| meta.key == manifest || meta.key == started)
        {
            return Ok(());
        }
        let bytes: u64 = objects.iter().map(|meta| meta.size).sum();
        let keys = objects.into_iter().map(|meta| meta.key).collect();
        self.keys(&format!("objects of backup {id}"), keys).await?;
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes segments, the oldest first.
    async fn wal(&mut self, span: WalSpan, gathered: &Gathered) -> anyhow::Result<()> {
        let ranges = &gathered.holdings.wal.ranges;
        let size = ranges.segment_size();
        let mean = ranges
            .holding(span.first)
            .map_or(0, |range| range.stored_bytes / range.segments);
        let names: Vec<SegmentName> = span.names(size).collect();
        let mut gone = Vec::new();
        for names in names.chunks(BATCH) {
            let key = |name: &SegmentName| self.cluster.layout.wal(&WalFileName::Segment(*name));
            let keys: Vec<Key> = names.iter().map(key).collect();
            let item = format!("WAL from {} on", span.first);
            let deleted = self.keys(&item, keys).await;
            let deleted = deleted?;
            let is_gone = |name: &&SegmentName| deleted.contains(&key_of(self.cluster, name));
            let names = names.iter().filter(is_gone);
            gone.extend(names.map(|name| WalSpan {
                first: *name,
                last: *name,
            }));
            self.progress
                .done
                .fetch_add(mean * deleted.len() as u64, Ordering::Relaxed);
        }
        let gone = ExpiredWal::new(gone, size);
        self.deleted.wal.extend(gone.spans());
        Ok(())
    }

    /// Deletes what is named after segments that went, and idle markers in them: they prove nothing any more.
    async fn beside(&mut self, gathered: &Gathered) -> anyhow::Result<()> {
        let wal = &gathered.holdings.wal;
        let expired = &gathered.expiry.expired;
        let gone = GoneWal::new(expired, &self.deleted.wal, &wal.ranges, &wal.histories);
        let goes = |segment| gone.takes_along(segment, &self.used);
        let names = gathered.beside.iter();
        let names = names.filter(|name| named_after(name).is_some_and(goes));
        let names = names.map(|name| self.cluster.layout.wal(name)).collect();
        let layout = &self.cluster.layout;
        let (mut walk, mut markers) = (Walk::new(layout.idle_folder()), Vec::new());
        while let Some(meta) = walk.next(self.cluster.repository.storage()).await? {
            if let Some(ObjectKind::Idle(mark)) = layout.parse(&meta.key)
                && gone.takes_mark(mark.timeline, mark.lsn, &self.used)
            {
                markers.push(meta.key);
            }
        }
        self.keys("files beside WAL", names).await?;
        self.keys("idle markers", markers).await?;
        Ok(())
    }

    /// Deletes objects, several at once, and gives those that are gone. What is refused is noted. Errors: the repository
    /// did not answer, or the lease ended.
    async fn keys(&mut self, item: &str, keys: Vec<Key>) -> anyhow::Result<BTreeSet<Key>> {
        let (mut gone, mut refused) = (BTreeSet::new(), None);
        for keys in keys.chunks(BATCH) {
            let deadline = Instant::now() + self.deletion.time_left()?;
            let deletion = self.deletion;
            let delete = |key: Key| async move {
                let deleted = deletion.delete(&key).await;
                (key, deleted)
            };
            let deletes: Vec<_> = keys.iter().cloned().map(delete).collect();
            let answers = stream::iter(deletes).buffer_unordered(PARALLEL).collect();
            let answers: Vec<(Key, anyhow::Result<Result<(), StorageError>>)> =
                until(deadline, answers).await;
            for (key, answer) in answers {
                match answer? {
                    Ok(()) => drop(gone.insert(key)),
                    Err(error) if error.lasting => refused = refused.or(Some(error)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.objects += gone.len() as u64;
        if let Some(error) = refused {
            let (item, why) = (item.to_string(), one_line(&error.into()));
            if !self.left.iter().any(|left| left.item == item) {
                self.left.push(LeftItem { item, why });
            }
        }
        Ok(gone)
    }
}

fn key_of(cluster: &Cluster, name: &SegmentName) -> Key {
    cluster.layout.wal(&WalFileName::Segment(*name))
}
