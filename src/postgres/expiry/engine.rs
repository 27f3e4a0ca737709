//! The deletions themselves. What a repository refuses to delete is noted; if it does not answer, the work ends.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::gather::Gathered;
use crate::error::one_line;
use crate::postgres::catalog::{BackupDescription, ExpiredWal, WalSpan, without};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, DumpObject, ObjectKind};
use crate::postgres::protection::{Deletion, LeftItem, Needs};
use crate::postgres::types::{Lsn, SegmentName, TimelineId, WalFileName};
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
}

/// What was deleted so far.
pub struct Engine<'a> {
    cluster: &'a Cluster,
    deletion: &'a Deletion,
    progress: &'a ExpiryProgress,
    pub deleted: Needs,
    pub objects: u64,
    pub left: Vec<LeftItem>,
}

impl<'a> Engine<'a> {
    /// Nothing yet.
    pub fn new(cluster: &'a Cluster, deletion: &'a Deletion, progress: &'a ExpiryProgress) -> Self {
        Self {
            cluster,
            deletion,
            progress,
            deleted: Needs::default(),
            objects: 0,
            left: Vec::new(),
        }
    }

    /// Deletes all this: dumps and base backups, the manifest of each first, then WAL, the oldest first. Errors: the repository did
    /// not answer, or the lease ended.
    pub async fn run(&mut self, deletes: &Needs, gathered: &Gathered) -> anyhow::Result<()> {
        for id in &deletes.dumps {
            self.dump(id, gathered).await?;
        }
        for id in &gathered.leftovers {
            self.rest_of_backup(id).await?;
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
        let mut gone = self.deleted.wal.clone();
        // An interrupted deletion did not come to this.
        let open = gathered.expiry.open.iter();
        let open = open.flat_map(|open| open.deletes.wal.clone()).collect();
        gone.extend(without(open, &gathered.holdings.wal.ranges.spans(), size));
        self.beside(&gone, gathered).await?;
        self.idle_markers(&gone).await
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
        let rest = dump.objects.iter().map(|(_, meta)| meta.key.clone());
        let rest = rest.filter(|key| *key != manifest).collect();
        self.keys(&format!("objects of dump {id}"), rest).await?;
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

    /// Deletes what is named after deleted segments.
    async fn beside(&mut self, wal: &[WalSpan], gathered: &Gathered) -> anyhow::Result<()> {
        let named_after = |name: &WalFileName| match name {
            WalFileName::Partial(segment)
            | WalFileName::Backup { segment, .. }
            | WalFileName::Aside { segment, .. } => Some(*segment),
            WalFileName::Segment(_) | WalFileName::History(_) => None,
        };
        let goes =
            |name: &&WalFileName| named_after(name).is_some_and(|segment| contain(wal, segment));
        let keys = gathered.beside.iter().filter(goes);
        let keys = keys.map(|name| self.cluster.layout.wal(name)).collect();
        self.keys("files beside WAL", keys).await?;
        Ok(())
    }

    /// Deletes the idle markers that lie in deleted segments: they prove nothing any more.
    async fn idle_markers(&mut self, wal: &[WalSpan]) -> anyhow::Result<()> {
        let size = self.cluster.description.segment_size;
        let folder = |span: &WalSpan| {
            let (from, to) = (
                span.first.start(size).0 >> 32,
                span.last.start(size).0 >> 32,
            );
            let timeline: TimelineId = span.timeline();
            let group = move |high| (timeline, Lsn(high << 32));
            (from..=to).map(group).collect::<Vec<_>>()
        };
        let groups: BTreeSet<_> = wal.iter().flat_map(folder).collect();
        let mut keys = Vec::new();
        for (timeline, lsn) in groups {
            let mut walk = Walk::new(self.cluster.layout.idle_group_folder(timeline, lsn));
            while let Some(meta) = walk.next(self.cluster.repository.storage()).await? {
                if let Some(ObjectKind::Idle(mark)) = self.cluster.layout.parse(&meta.key)
                    && contain(wal, SegmentName::containing(mark.timeline, mark.lsn, size))
                {
                    keys.push(meta.key);
                }
            }
        }
        self.keys("idle markers", keys).await?;
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

fn contain(spans: &[WalSpan], segment: SegmentName) -> bool {
    spans.iter().any(|span| span.contains(segment))
}

fn key_of(cluster: &Cluster, name: &SegmentName) -> Key {
    cluster.layout.wal(&WalFileName::Segment(*name))
}
