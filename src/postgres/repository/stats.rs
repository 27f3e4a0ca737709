//! How many objects of which kind and size: from listings, and from the headers of manifests. Memory grows with gaps
//! and backups, not with segments.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::MAX_TOLD;
use crate::postgres::catalog::WalRanges;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, ClusterName, ObjectKind};
use crate::postgres::load::{LoadedBackups, load_backups};
use crate::postgres::types::{SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::storage::{ObjectMeta, Walk};

/// What objects are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StatsKind {
    Segments,
    Histories,
    /// Backup history files.
    BackupHistories,
    Partials,
    /// Kept beside their names.
    Aside,
    Packs,
    Manifests,
    /// `cluster.json`, and what reserves the names of backups that are being taken.
    Markers,
    /// What relations were called.
    Names,
    /// Idle markers.
    Idle,
    /// Logical dumps, also unfinished ones, and what names the latest.
    Dumps,
    /// Pins, leases, and what was deleted.
    Retention,
    /// Leases and records of jobs.
    Jobs,
    /// Records of what was done.
    Evidence,
    /// The state of the alerts.
    Alerts,
    /// Objects whose keys the layout does not know.
    Foreign,
}

impl StatsKind {
    fn of(kind: Option<&ObjectKind>) -> Self {
        match kind {
            Some(ObjectKind::Wal(WalFileName::Segment(_))) => Self::Segments,
            Some(ObjectKind::Wal(WalFileName::Partial(_))) => Self::Partials,
            Some(ObjectKind::Wal(WalFileName::History(_))) => Self::Histories,
            Some(ObjectKind::Wal(WalFileName::Backup { .. })) => Self::BackupHistories,
            Some(ObjectKind::Wal(WalFileName::Aside { .. })) => Self::Aside,
            Some(ObjectKind::Manifest(_)) => Self::Manifests,
            Some(ObjectKind::Pack(_)) => Self::Packs,
            Some(ObjectKind::Description | ObjectKind::Started(_)) => Self::Markers,
            Some(ObjectKind::Names(_)) => Self::Names,
            Some(ObjectKind::Idle(_)) => Self::Idle,
            Some(ObjectKind::Dump(..) | ObjectKind::LatestDump(..)) => Self::Dumps,
            Some(ObjectKind::Pin(_) | ObjectKind::Lease(_) | ObjectKind::Expiry(_)) => {
                Self::Retention
            }
            Some(ObjectKind::Job) => Self::Jobs,
            Some(ObjectKind::Evidence) => Self::Evidence,
            Some(ObjectKind::Alert) => Self::Alerts,
            None => Self::Foreign,
        }
    }
}

/// Objects and their stored bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    pub objects: u64,
    pub stored_bytes: u64,
}

impl Size {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.stored_bytes += bytes;
    }
}

/// The segments of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineStats {
    pub timeline: TimelineId,
    pub segments: u64,
    pub stored_bytes: u64,
    /// Bytes of the segments themselves.
    pub plain_bytes: u64,
    pub first: SegmentName,
    pub last: SegmentName,
    /// Ranges of segments that are missing in between.
    pub gaps: u64,
}

/// Objects and bytes of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupStats {
    pub id: BackupId,
    pub state: BackupState,
    pub packs: u64,
    /// Bytes of all its objects.
    pub stored_bytes: u64,
    /// Bytes of its files; absent when its manifest is absent or damaged.
    pub plain_bytes: Option<u64>,
}

/// Whether a backup can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    Complete,
    /// Its manifest is there and cannot be used.
    Damaged,
    /// The repository does not give its manifest.
    Unread,
    /// It has no manifest: it is being taken, or was interrupted.
    Unfinished,
}

/// An object, by its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StoredObject {
    /// By the store's clock.
    pub at: DateTime<Utc>,
    pub object: String,
}

/// What a cluster takes in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub cluster: ClusterName,
    /// The repository's URL.
    pub repository: String,
    pub total: Size,
    pub kinds: BTreeMap<StatsKind, Size>,
    /// By storage class, in stores that have such.
    pub classes: BTreeMap<String, Size>,
    pub timelines: Vec<TimelineStats>,
    pub backups: Vec<BackupStats>,
    pub oldest: Option<StoredObject>,
    pub newest: Option<StoredObject>,
    /// Keys of unknown objects, as far as they are told one by one.
    pub foreign: Vec<String>,
    /// Folders that the repository did not give: what lies there is not counted.
    pub unread: Vec<String>,
}

/// Lists everything of the cluster. Errors: the store did not answer.
pub async fn stats(cluster: &Cluster) -> anyhow::Result<Stats> {
    let mut tally = StatsTally::new(cluster.description.segment_size);
    let mut walk = Walk::new(cluster.layout.folder());
    loop {
        match walk.next(cluster.repository.storage()).await {
            Ok(Some(meta)) => tally.add(cluster.object_kind(&meta.key), &meta),
            Ok(None) => break,
            Err(error) => {
                cluster.confirm().await?;
                tally.unread.push(error.key.clone());
            }
        }
    }
    let loaded = load_backups(cluster).await?;
    Ok(tally.finish(
        cluster.description.name.clone(),
        cluster.repository.describe(),
        &loaded,
    ))
}

/// The count so far.
struct StatsTally {
    total: Size,
    kinds: BTreeMap<StatsKind, Size>,
    classes: BTreeMap<String, Size>,
    ranges: WalRanges,
    /// Packs, and bytes of all objects.
    backups: BTreeMap<BackupId, (u64, u64)>,
    oldest: Option<StoredObject>,
    newest: Option<StoredObject>,
    foreign: Vec<String>,
    unread: Vec<String>,
}

impl StatsTally {
    fn new(segment_size: SegmentSize) -> Self {
        Self {
            total: Size::default(),
            kinds: BTreeMap::new(),
            classes: BTreeMap::new(),
            ranges: WalRanges::new(segment_size),
            backups: BTreeMap::new(),
            oldest: None,
            newest: None,
            foreign: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn add(&mut self, kind: Option<ObjectKind>, meta: &ObjectMeta) {
        self.total.add(meta.size);
        self.kinds
            .entry(StatsKind::of(kind.as_ref()))
            .or_default()
            .add(meta.size);
        if let Some(class) = &meta.class {
            self.classes
                .entry(class.clone())
                .or_default()
                .add(meta.size);
        }
        let at = DateTime::from(meta.modified);
        if self.oldest.as_ref().is_none_or(|oldest| at < oldest.at) {
            self.oldest = Some(StoredObject {
                at,
                object: meta.key.to_string(),
            });
        }
        if self.newest.as_ref().is_none_or(|newest| at > newest.at) {
            self.newest = Some(StoredObject {
                at,
                object: meta.key.to_string(),
            });
        }
        let (id, pack) = match kind {
            Some(ObjectKind::Wal(WalFileName::Segment(name))) => {
                return self.ranges.add(name, meta.size, at);
            }
            Some(ObjectKind::Pack(pack)) => (pack.backup, 1),
            Some(ObjectKind::Manifest(id) | ObjectKind::Started(id)) => (id, 0),
            None if self.foreign.len() < MAX_TOLD => {
                return self.foreign.push(meta.key.to_string());
            }
            _ => return,
        };
        let (packs, bytes) = self.backups.entry(id).or_default();
        (*packs, *bytes) = (*packs + pack, *bytes + meta.size);
    }

    fn finish(self, cluster: ClusterName, repository: String, loaded: &LoadedBackups) -> Stats {
        let timelines = timelines(&self.ranges);
        let backup = |(id, (packs, stored_bytes)): (BackupId, (u64, u64))| {
            let complete = loaded.complete.iter().find(|backup| backup.id == id);
            let is_among =
                |others: &[(BackupId, String)]| others.iter().any(|(other, _)| *other == id);
            let state = match complete {
                Some(_) => BackupState::Complete,
                None if is_among(&loaded.damaged) => BackupState::Damaged,
                None if is_among(&loaded.unread) => BackupState::Unread,
                None => BackupState::Unfinished,
            };
            BackupStats {
                id,
                state,
                packs,
                stored_bytes,
                plain_bytes: complete.map(|backup| backup.plain_bytes),
            }
        };
        Stats {
            cluster,
            repository,
            total: self.total,
            kinds: self.kinds,
            classes: self.classes,
            timelines,
            backups: self.backups.into_iter().map(backup).collect(),
            oldest: self.oldest,
            newest: self.newest,
            foreign: self.foreign,
            unread: self.unread,
        }
    }
}

fn timelines(ranges: &WalRanges) -> Vec<TimelineStats> {
    let mut timelines: Vec<TimelineStats> = Vec::new();
    for range in ranges.iter() {
        let plain_bytes = range.segments * ranges.segment_size().bytes();
        match timelines
            .last_mut()
            .filter(|last| last.timeline == range.timeline())
        {
            Some(last) => {
                last.segments += range.segments;
                last.stored_bytes += range.stored_bytes;
                last.plain_bytes += plain_bytes;
                last.last = range.last;
                last.gaps += 1;
            }
            None => timelines.push(TimelineStats {
                timeline: range.timeline(),
                segments: range.segments,
                stored_bytes: range.stored_bytes,
                plain_bytes,
                first: range.first,
                last: range.last,
                gaps: 0,
            }),
        }
    }
    timelines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::storage::{Key, MemoryStorage, PutMode, Storage};

    #[test]
    fn classes_are_counted_where_the_store_has_them() {
        let mut tally = StatsTally::new(SegmentSize::new(1 << 24).unwrap());
        for (size, class) in [
            (1, None),
            (10, Some("STANDARD")),
            (20, Some("GLACIER_IR")),
            (30, Some("STANDARD")),
        ] {
            let (key, modified) = (
                Key::new("main/x").unwrap(),
                std::time::SystemTime::UNIX_EPOCH,
            );
            let class = class.map(String::from);
            tally.add(
                None,
                &ObjectMeta {
                    key,
                    size,
                    modified,
                    class,
                    encryption: None,
                },
            );
        }
        let classes: Vec<_> = tally
            .classes
            .iter()
            .map(|(class, size)| (class.as_str(), size.stored_bytes))
            .collect();
        assert_eq!(classes, [("GLACIER_IR", 20), ("STANDARD", 40)]);
    }

    #[tokio::test]
    async fn every_object_is_counted_once_by_what_it_is() {
        let storage = Arc::new(MemoryStorage::default());
        let cluster = cluster_in(storage.clone()).await;
        for (key, size) in [
            ("wal/0000000100000000/000000010000000000000002.zst", 100),
            ("wal/0000000100000000/000000010000000000000003.zst", 50),
            ("wal/0000000100000000/000000010000000000000007.zst", 7),
            ("wal/0000000200000000/000000020000000000000007.zst", 9),
            ("wal/0000000100000000/stray", 3),
            // No segment of this cluster: its segments have 16 MiB, so there are 256 in 4 GiB.
            ("wal/0000000100000000/000000010000000000000100.zst", 5),
            ("wal/00000002.history.zst", 11),
            ("wal/000000010000000000000007.partial.zst", 12),
            ("wal/000000010000000000000002.00000028.backup.zst", 13),
            ("base/20260101-000000Z/pack-000001", 1000),
            ("base/20260101-000000Z/pack-000002", 500),
            ("base/20260101-000000Z/started.json", 30),
            ("base/20260102-000000Z/manifest.zst", 10),
            ("names/20260101T000000Z-0123abcd.zst", 19),
            (
                "quiet/0000000100000000/0000000008000000-20260101T000000Z.zst",
                21,
            ),
            ("dumps/postgres/x", 17),
        ] {
            let key = Key::new(format!("main/{key}")).unwrap();
            let _ = storage
                .put(&key, vec![0; size].into(), PutMode::CreateOnly)
                .await
                .unwrap();
        }
        let other = Key::new("mainframe/wal/00000002.history.zst").unwrap();
        let _ = storage
            .put(&other, "not ours".into(), PutMode::CreateOnly)
            .await
            .unwrap();
        let stats = stats(&cluster).await.unwrap();
        let kind = |kind: StatsKind| {
            stats
                .kinds
                .get(&kind)
                .map(|size| (size.objects, size.stored_bytes))
        };
        assert_eq!(kind(StatsKind::Segments), Some((4, 166)));
        assert_eq!(kind(StatsKind::Histories), Some((1, 11)));
        assert_eq!(kind(StatsKind::Partials), Some((1, 12)));
        assert_eq!(kind(StatsKind::BackupHistories), Some((1, 13)));
        assert_eq!(kind(StatsKind::Packs), Some((2, 1500)));
        assert_eq!(kind(StatsKind::Manifests), Some((1, 10)));
        assert_eq!(
            (kind(StatsKind::Names), kind(StatsKind::Idle)),
            (Some((1, 19)), Some((1, 21)))
        );
        assert_eq!(kind(StatsKind::Foreign), Some((3, 25)));
        assert_eq!(stats.foreign.len(), 3, "{:?}", stats.foreign);
        assert_eq!(
            stats.kinds.values().map(|size| size.objects).sum::<u64>(),
            stats.total.objects
        );
        let lines: Vec<_> = stats
            .timelines
            .iter()
            .map(|t| (t.timeline.0, t.segments, t.stored_bytes, t.gaps))
            .collect();
        assert_eq!(lines, [(1, 3, 157, 1), (2, 1, 9, 0)]);
        let backups: Vec<_> = stats
            .backups
            .iter()
            .map(|b| (b.state, b.packs, b.stored_bytes))
            .collect();
        assert_eq!(
            backups,
            [
                (BackupState::Unfinished, 2, 1530),
                (BackupState::Damaged, 0, 10)
            ]
        );
    }
}
