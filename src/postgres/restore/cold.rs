//! Whether what a plan reads can be read now, before anything is written.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};

use crate::config::{Restore as Settings, ThawSpeed as SetSpeed};
use crate::error::with_hint;
use crate::postgres::backup::manifest;
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, PackName};
use crate::postgres::types::{SegmentName, WalFileName};
use crate::repo::cold::{self, ColdObjects, ThawProgress, ThawWait};
use crate::storage::classes::{ThawOrder, ThawSpeed};
use crate::storage::{ListEntry, ObjectMeta, list_all};

/// What a plan reads that must be thawed first. In a store without classes that is nothing, and costs a listing.
pub async fn survey(cluster: &Cluster, plan: &RecoveryPlan) -> anyhow::Result<ColdObjects> {
    let storage = cluster.repository.storage();
    let own = cluster.objects_of(&plan.backup.id).await?;
    if own.iter().all(|object| object.class.is_none()) {
        return Ok(ColdObjects::default());
    }
    let mut objects = packs(cluster, &plan.backup.id, own).await?;
    objects.extend(wal(cluster, plan).await?);
    Ok(cold::survey(storage, objects).await?)
}

/// The packs that a backup's manifest names, also those of others.
async fn packs(
    cluster: &Cluster,
    id: &BackupId,
    own: Vec<ObjectMeta>,
) -> anyhow::Result<Vec<ObjectMeta>> {
    let key = cluster.layout.manifest(id);
    let read = cluster
        .repository
        .get_verified(&key, manifest::KIND, manifest::LONGEST)
        .await?;
    let object = read.ok_or_else(|| cluster.repository.absent(&key))?;
    let scan = tokio::task::spawn_blocking(move || manifest::needed_packs(&object));
    let needed = scan
        .await
        .context("the thread that reads a manifest failed")??;
    let mut folders: BTreeMap<BackupId, Vec<ObjectMeta>> = BTreeMap::from([(id.clone(), own)]);
    let backups: BTreeSet<BackupId> = needed.keys().map(|pack| pack.backup.clone()).collect();
    for backup in backups {
        if let Entry::Vacant(folder) = folders.entry(backup) {
            let objects = cluster.objects_of(folder.key()).await?;
            folder.insert(objects);
        }
    }
    let keys: BTreeSet<_> = needed
        .keys()
        .map(|pack: &PackName| cluster.layout.pack(pack))
        .collect();
    let all = folders.into_values().flatten();
    Ok(all.filter(|object| keys.contains(&object.key)).collect())
}

/// The WAL that replay may read.
async fn wal(cluster: &Cluster, plan: &RecoveryPlan) -> anyhow::Result<Vec<ObjectMeta>> {
    let (layout, size) = (&cluster.layout, cluster.description.segment_size);
    let mut objects = Vec::new();
    for piece in &plan.wal {
        let timeline = piece.first.timeline;
        let numbers = piece.first.number(size)..=piece.last.number(size);
        let names = numbers.map(|number| SegmentName::from_number(timeline, number, size));
        let folders: BTreeSet<String> = names.map(|name| layout.wal_group_folder(&name)).collect();
        let (first, last) = (
            layout.wal(&WalFileName::Segment(piece.first)),
            layout.wal(&WalFileName::Segment(piece.last)),
        );
        for folder in folders {
            let entries = list_all(cluster.repository.storage(), &folder).await?;
            objects.extend(entries.into_iter().filter_map(|entry| match entry {
                ListEntry::Object(object) if (&first..=&last).contains(&&object.key) => {
                    Some(object)
                }
                _ => None,
            }));
        }
    }
    Ok(objects)
}

/// Refuses what cannot be read now, such as `the backup`, with what to do.
pub fn refuse(what: &str, cold: &ColdObjects) -> anyhow::Result<()> {
    if cold.is_empty() {
        return Ok(());
    }
    let error = anyhow!("{what} cannot be read yet: {cold}");
    Err(with_hint(
        error,
        "add --thaw: it orders that and waits, for hours or days; stores charge for it",
    ))
}

/// Has it thawed, and waits for that.
pub async fn thaw(
    cluster: &Cluster,
    cold: &ColdObjects,
    settings: &Settings,
    progress: &ThawProgress,
) -> anyhow::Result<()> {
    let storage = cluster.repository.storage();
    let wait = ThawWait::of(settings.thaw_timeout);
    cold::thaw(storage, cold, order(settings), wait, progress).await
}

/// How the settings say that objects are thawed.
pub fn order(settings: &Settings) -> ThawOrder {
    ThawOrder {
        days: settings.thaw_days,
        speed: match settings.thaw_speed {
            SetSpeed::Bulk => ThawSpeed::Bulk,
            SetSpeed::Standard => ThawSpeed::Standard,
            SetSpeed::Expedited => ThawSpeed::Expedited,
        },
    }
}
