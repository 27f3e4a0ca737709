//! A made-up repository for the tests of deletions: a backup a day, and a store that meddles or refuses.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, Datelike, TimeDelta, Utc};

use super::apply::{Applied, Chosen, apply};
use super::engine::ExpiryProgress;
use crate::codec::seal;
use crate::postgres::backup::manifest;
use crate::postgres::catalog::testing::{self, SEGMENT};
use crate::postgres::catalog::{Facts, TimelinePath};
use crate::postgres::cluster::Cluster;
use crate::postgres::cluster::testing::cluster_in;
use crate::postgres::layout::{BackupId, PackName};
use crate::postgres::protection::{LeaseKind, Needs, leases};
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::repo::Repository;
use crate::retention::{Keep, KindPolicy, Policy, Tier, Tiers};
use crate::storage::decorator::Decorator;
use crate::storage::{
    Body, Key, MemoryStorage, PutMode, PutOutcome, Storage, StorageError, Walk, get_all,
};

/// Segments between two backups, which are a day apart.
pub(super) const A_DAY: u64 = 4;
pub(super) const DAYS: u64 = 12;

/// The same in all of a run.
fn today() -> DateTime<Utc> {
    static TODAY: LazyLock<DateTime<Utc>> = LazyLock::new(|| {
        let now = Utc::now() - TimeDelta::hours(6);
        // A Monday, so that the same backups are the first of their weeks whenever this runs.
        now - TimeDelta::days(now.weekday().num_days_from_monday().into())
    });
    *TODAY
}

/// The backup of so many days ago.
pub(super) fn backup_id(days: u64) -> BackupId {
    BackupId::at(today() - TimeDelta::days(days as i64))
}

pub(super) fn segment(number: u64) -> SegmentName {
    SegmentName::from_number(
        TimelineId(1),
        number,
        SegmentSize::new(SEGMENT as u32).unwrap(),
    )
}

/// The backup that the one of so many days ago holds frames in.
fn earlier(days: u64) -> Option<BackupId> {
    (days.is_multiple_of(2) && days < DAYS).then(|| backup_id(days + 1))
}

/// The first segment of the backup of so many days ago.
pub(super) fn begin(days: u64) -> u64 {
    2 + (DAYS - days) * A_DAY
}

pub(super) async fn put(storage: &dyn Storage, key: &Key, object: Vec<u8>) {
    let _ = storage
        .put(key, object.into(), PutMode::CreateOnly)
        .await
        .unwrap();
}

pub(super) async fn open(storage: Arc<dyn Storage>) -> anyhow::Result<Cluster> {
    let repository = Repository::open(storage).await?;
    Cluster::open(repository, "main".parse().unwrap()).await
}

pub(super) async fn take(storage: &dyn Storage, cluster: &Cluster, days: u64) {
    let id = backup_id(days);
    let first = begin(days);
    let description = crate::postgres::catalog::BackupDescription {
        start_lsn: Lsn(first * SEGMENT + 0x28),
        stop_lsn: Lsn((first + 1) * SEGMENT + 0x100),
        earlier_backups: Some(earlier(days).into_iter().collect()),
        ..testing::backup(&id.to_string())
    };
    for number in 1..=2 {
        let pack = PackName {
            backup: id.clone(),
            number,
        };
        put(storage, &cluster.layout.pack(&pack), b"frames".to_vec()).await;
    }
    let sealed = seal(manifest::KIND, &description, &mut &b""[..], 0, 1).unwrap();
    let manifest = [sealed.envelope, sealed.body].concat();
    put(storage, &cluster.layout.manifest(&id), manifest).await;
}

/// A file that is named after the first segment of a backup.
pub(super) fn beside(days: u64) -> WalFileName {
    WalFileName::Backup {
        segment: segment(begin(days)),
        offset: 0x28,
    }
}

/// A backup a day, for twelve days, and all WAL since the first.
pub(super) async fn world() -> (Cluster, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::default());
    let cluster = cluster_in(storage.clone()).await;
    for number in begin(DAYS)..begin(0) + A_DAY {
        let name = WalFileName::Segment(segment(number));
        put(&*storage, &cluster.layout.wal(&name), b"wal".to_vec()).await;
    }
    for days in (1..=DAYS).rev() {
        take(&*storage, &cluster, days).await;
    }
    for days in 1..=DAYS {
        put(
            &*storage,
            &cluster.layout.wal(&beside(days)),
            b"wal".to_vec(),
        )
        .await;
    }
    (cluster, storage)
}

/// Any moment of the last two days, and the first backup of each of the last two weeks.
pub(super) fn policy() -> Policy {
    let mut tiers = Tiers::default();
    tiers.0[Tier::Weekly as usize] = Some(Keep::Count(2));
    Policy {
        zone: chrono_tz::UTC,
        window: Some(TimeDelta::days(2)),
        base: KindPolicy { tiers, minimum: 2 },
        dump: KindPolicy::default(),
        schema: KindPolicy::default(),
    }
}

pub(super) async fn applied(cluster: &Cluster) -> anyhow::Result<Applied> {
    apply(cluster, &policy(), &Chosen::Any, &ExpiryProgress::default()).await
}

/// All keys but what tells of deletions.
pub(super) async fn content(storage: &dyn Storage) -> BTreeSet<String> {
    let (mut walk, mut keys) = (Walk::new(String::new()), BTreeSet::new());
    while let Some(meta) = walk.next(storage).await.unwrap() {
        let own = ["main/retention/", "main/leases/", "main/pins/"];
        if !own
            .iter()
            .any(|folder| meta.key.as_str().starts_with(folder))
        {
            keys.insert(meta.key.to_string());
        }
    }
    keys
}

pub(super) async fn copy_of(storage: &MemoryStorage) -> Arc<MemoryStorage> {
    let copy = MemoryStorage::default();
    let mut walk = Walk::new(String::new());
    while let Some(meta) = walk.next(storage).await.unwrap() {
        let bytes = get_all(storage, &meta.key, 1 << 20).await.unwrap().unwrap();
        put(&copy, &meta.key, bytes.to_vec()).await;
    }
    Arc::new(copy)
}

/// What the dead left, as if its time were over.
pub(super) async fn bury(cluster: &Cluster) {
    for lease in leases(cluster).await.unwrap() {
        if lease
            .content
            .is_ok_and(|content| content.kind == LeaseKind::Expiry)
        {
            let key = cluster.layout.lease(&lease.id);
            cluster.repository.storage().delete(&key).await.unwrap();
        }
    }
}

/// The backups from which a restore is possible, and how far the newest leads back without a gap.
pub(super) fn restorable(facts: &Facts) -> BTreeSet<BackupId> {
    let paths = TimelinePath::all([], &facts.backups, &facts.ranges);
    let leads = |id: &crate::postgres::catalog::BackupDescription| {
        paths
            .iter()
            .any(|path| path.moments(&facts.ranges, id).is_some())
    };
    let backups = facts.backups.iter().filter(|backup| leads(backup));
    backups.map(|backup| backup.id.clone()).collect()
}

/// Does something at the first put below a folder, and refuses to delete some keys.
#[derive(Debug)]
pub(super) struct Meddling {
    pub(super) inner: Arc<MemoryStorage>,
    pub(super) at: &'static str,
    pub(super) then: Mutex<Option<(Key, Vec<u8>)>>,
    pub(super) locked: String,
}

impl Meddling {
    pub(super) fn locked(inner: Arc<MemoryStorage>, locked: &str) -> Self {
        Self {
            inner,
            at: "none",
            then: Mutex::default(),
            locked: locked.into(),
        }
    }
}

#[async_trait]
impl Decorator for Meddling {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        let then = match key.as_str().starts_with(self.at) {
            true => self.then.lock().unwrap().take(),
            false => None,
        };
        if let Some((key, object)) = then {
            put(&*self.inner, &key, object).await;
        }
        self.inner.put(key, body, mode).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        if key.as_str().contains(&self.locked) {
            return Err(StorageError {
                operation: "delete",
                key: key.to_string(),
                store: self.describe(),
                lasting: true,
                source: anyhow::anyhow!("AccessDenied: object is WORM protected"),
            });
        }
        self.inner.delete(key).await
    }
}

pub(super) fn needs(id: &BackupId) -> Needs {
    Needs {
        backups: [id.clone()].into(),
        ..Needs::default()
    }
}
