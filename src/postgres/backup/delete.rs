//! Deleting a base backup: what would go, what can no longer be restored, and what forbids it; then the deletion.

use anyhow::{Context, anyhow};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::cleanup::{PARALLEL_DELETES, keys};
use super::manifest::{self, ManifestEntry, entries};
use crate::error::{Hint, one_line, with_hint};
use crate::postgres::catalog::{BackupDescription, TimelinePath, WalRanges};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::load::{
    LoadedBackups, LoadedHistories, load_backups, load_histories, load_wal,
};
use crate::postgres::protection::{Deletion, Expiry, Needs, StoredLease, refuse_pinned};
use crate::postgres::types::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::repo::SealedObject;
use crate::storage::Key;

/// What deleting a backup would do. Printed, then carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeletePlan {
    pub id: BackupId,
    /// In the order of their deletion.
    #[serde(skip)]
    pub keys: Vec<Key>,
    pub objects: u64,
    pub stored_bytes: u64,
    /// What can be restored now, and not any more afterwards.
    pub lost: Vec<Moments>,
    /// Why what is lost is not all known; empty when it is.
    pub lost_unknown: Vec<String>,
    /// Whether it is the only backup that can be used.
    pub only_usable: bool,
    /// Backups that hold frames in this one's packs.
    pub needed_by: Vec<BackupId>,
    /// Backups of which that is not known, because their manifests are damaged.
    pub unknown: Vec<BackupId>,
}

/// A range of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moments {
    pub timeline: TimelineId,
    pub from: Lsn,
    /// The first LSN after it.
    pub to: Lsn,
}

/// There is no such backup.
#[derive(Debug, thiserror::Error)]
#[error("there is no backup \"{id}\" in cluster \"{cluster}\"")]
pub struct NoSuchBackup {
    pub id: BackupId,
    pub cluster: String,
}

impl NoSuchBackup {
    /// The error with its hint.
    pub fn error<T>(cluster: &Cluster, id: &BackupId) -> anyhow::Result<T> {
        Err(Self {
            id: id.clone(),
            cluster: cluster.layout.cluster().to_string(),
        })
        .hint("`walden backup list` shows all backups")
    }
}

/// Finds out what deleting a backup would do. Errors: [`NoSuchBackup`], or the store did not answer.
pub async fn plan_delete(cluster: &Cluster, id: &BackupId) -> anyhow::Result<DeletePlan> {
    let loaded = load_backups(cluster).await?;
    let objects = cluster.objects_of(id).await?;
    if objects.is_empty() {
        return NoSuchBackup::error(cluster, id);
    }
    let wal = load_wal(cluster).await?;
    let histories = load_histories(cluster, &wal.histories).await?;
    let lost_unknown = doubts(&loaded, &histories, id);
    let paths = TimelinePath::all(histories.known.into_values(), &loaded.complete, &wal.ranges);
    let (needed_by, unknown) = users(cluster, &loaded, id).await?;
    let usable = |backup: &&BackupDescription| {
        let has_history = backup.timeline.0 <= 1 || wal.histories.contains(&backup.timeline);
        backup.is_sound() && has_history && has_own_wal(backup, &wal.ranges)
    };
    let others = loaded
        .complete
        .iter()
        .filter(usable)
        .filter(|backup| backup.id != *id)
        .count();
    let own = loaded
        .complete
        .iter()
        .filter(usable)
        .any(|backup| backup.id == *id);
    let manifest = cluster.layout.manifest(id);
    let reservation = cluster.layout.started(id);
    let mut keys = keys(&objects);
    keys.sort_by_key(|key| (*key != manifest, *key != reservation));
    Ok(DeletePlan {
        id: id.clone(),
        keys,
        objects: objects.len() as u64,
        stored_bytes: objects.iter().map(|meta| meta.size).sum(),
        lost: lost(&loaded.complete, &wal.ranges, &paths, id),
        lost_unknown,
        only_usable: own && others == 0,
        needed_by,
        unknown,
    })
}

/// Carries a plan out, unless somebody reads the backup: then it is left. Safe to repeat. Errors: the store's; it is read;
/// another deletion is under way; or the backup was completed meanwhile, and all that belongs to it is left.
pub async fn delete(cluster: &Cluster, plan: &DeletePlan) -> anyhow::Result<()> {
    let mut deletion = Deletion::begin(cluster).await?;
    let needs = Needs {
        backups: [plan.id.clone()].into(),
        ..Needs::default()
    };
    let before = deletion.while_held(async {
        let backups = load_backups(cluster).await?.complete;
        let wal = load_wal(cluster).await?.ranges;
        anyhow::Ok((Expiry::load(cluster).await?, wal, backups))
    });
    let before = before.await;
    let work = async {
        let (expiry, wal, backups) = before?;
        let outcome = |deleted| expiry.outcome(deleted, &wal, backups.iter().map(|one| &one.id));
        deletion.announce("by hand", needs.clone()).await?;
        if let Err(refused) = refuse_used(cluster, &deletion, &plan.id, &needs).await {
            return Ok((outcome(Needs::default()), Err(refused)));
        }
        deletion
            .while_held(delete_objects(cluster, plan, &deletion))
            .await?;
        anyhow::Ok((outcome(needs.clone()), Ok(())))
    };
    let (outcome, done) = match work.await {
        Ok((outcome, done)) => (Some(outcome), done),
        Err(error) => (None, Err(error)),
    };
    deletion.end(outcome.as_ref()).await?;
    done
}

/// Refuses what somebody reads, or pinned.
async fn refuse_used(
    cluster: &Cluster,
    deletion: &Deletion,
    id: &BackupId,
    needs: &Needs,
) -> anyhow::Result<()> {
    let readers = deletion.readers().await?;
    let reads = |lease: &&StoredLease| lease.needs().common(needs).is_some();
    if let Some(reader) = readers.iter().find(reads) {
        let error = anyhow!("backup \"{id}\" is being read by {}", reader.holder());
        return Err(with_hint(
            error,
            "wait until that is over: `walden retention pins` shows it",
        ));
    }
    refuse_pinned(cluster, &id.to_string()).await
}

/// The manifest goes first, so that the backup stops existing at once. Of an unfinished backup the reservation goes first:
/// a process that still takes it sees that once it has written its manifest, and takes that back.
async fn delete_objects(
    cluster: &Cluster,
    plan: &DeletePlan,
    deletion: &Deletion,
) -> anyhow::Result<()> {
    let storage = cluster.repository.storage();
    let manifest = cluster.layout.manifest(&plan.id);
    if !plan.keys.contains(&manifest) {
        deletion.delete(&cluster.layout.started(&plan.id)).await??;
        if storage.head(&manifest).await?.is_some() {
            let error = anyhow!(
                "backup {} was completed just now: what it holds was not deleted",
                plan.id
            );
            return Err(with_hint(
                error,
                "look at it with `walden backup show`, and delete it again if it is not wanted",
            ));
        }
    }
    let first = plan.keys.iter().take_while(|key| **key == manifest).count();
    let (first, rest) = plan.keys.split_at(first);
    for keys in [first, rest] {
        let delete = |key| async move { anyhow::Ok(deletion.delete(key).await??) };
        let deletes: Vec<_> = keys.iter().map(delete).collect();
        let all = stream::iter(deletes).buffer_unordered(PARALLEL_DELETES);
        all.try_collect::<()>().await?;
    }
    Ok(())
}

/// Whether all segments are kept without which the backup cannot become consistent.
fn has_own_wal(backup: &BackupDescription, ranges: &WalRanges) -> bool {
    let size = ranges.segment_size();
    let last = SegmentName::ending_at(backup.timeline, backup.stop_lsn, size);
    let first = ranges.holding(SegmentName::containing(
        backup.timeline,
        backup.start_lsn,
        size,
    ));
    first.is_some_and(|range| range.holds(last.number(size), size))
}

/// The backups whose manifests name packs of `id`, and those that cannot tell.
async fn users(
    cluster: &Cluster,
    loaded: &LoadedBackups,
    id: &BackupId,
) -> anyhow::Result<(Vec<BackupId>, Vec<BackupId>)> {
    let (mut users, mut unknown) = (Vec::new(), Vec::new());
    unknown.extend(
        loaded
            .unusable()
            .map(|(unusable, _)| unusable.clone())
            .filter(|unusable| unusable != id),
    );
    // A backup takes frames of earlier ones only.
    for backup in loaded.complete.iter().filter(|backup| backup.id > *id) {
        if let Some(earlier) = &backup.earlier_backups {
            if earlier.contains(id) {
                users.push(backup.id.clone());
            }
            continue;
        }
        let key = cluster.layout.manifest(&backup.id);
        let object = match cluster
            .repository
            .get_verified(&key, manifest::KIND, manifest::LONGEST)
            .await
        {
            Ok(Some(object)) => object,
            Ok(None) => continue,
            Err(error) if error.is_damage() => {
                unknown.push(backup.id.clone());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let wanted = id.clone();
        let scan = tokio::task::spawn_blocking(move || uses(&object, &wanted));
        match scan
            .await
            .context("the thread that reads a manifest failed")?
        {
            Ok(true) => users.push(backup.id.clone()),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    "the manifest of backup {} cannot be read: {}",
                    backup.id,
                    one_line(&error)
                );
                unknown.push(backup.id.clone());
            }
        }
    }
    Ok((users, unknown))
}

/// Whether a manifest names a pack of backup `id`.
fn uses(object: &SealedObject, id: &BackupId) -> anyhow::Result<bool> {
    for entry in entries(object)? {
        if let ManifestEntry::File(file) = entry?
            && file.extents.iter().any(|extent| extent.pack.backup == *id)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What keeps from knowing what is lost with backup `id`: of a damaged one what it can restore, of a timeline whose
/// history is damaged where it leads. One without a manifest restores nothing.
fn doubts(loaded: &LoadedBackups, histories: &LoadedHistories, id: &BackupId) -> Vec<String> {
    if loaded.unfinished.contains(id) {
        return Vec::new();
    }
    let own = loaded.unusable().filter(|(unusable, _)| *unusable == id);
    let own = own.map(|(_, why)| format!("the manifest of the backup cannot be used: {why}"));
    let others = histories.damaged.iter();
    let others = others.map(|(timeline, unusable)| {
        format!(
            "\"{}\" cannot be used: {}",
            WalFileName::History(*timeline),
            unusable.why
        )
    });
    own.chain(others).collect()
}

/// What only backup `id` can restore, on each timeline.
fn lost(
    backups: &[BackupDescription],
    ranges: &WalRanges,
    paths: &[TimelinePath],
    id: &BackupId,
) -> Vec<Moments> {
    let mut lost = Vec::new();
    for path in paths {
        let reaches = |backup: &BackupDescription| {
            let (from, to) = path.moments(ranges, backup)?;
            Some((backup.id == *id, from, to))
        };
        let usable = backups
            .iter()
            .filter(|backup| backup.is_sound() && path.carries(backup));
        let (own, others): (Vec<_>, Vec<_>) =
            usable.filter_map(reaches).partition(|(own, ..)| *own);
        let mut left: Vec<(Lsn, Lsn)> = own.into_iter().map(|(_, from, to)| (from, to)).collect();
        for (_, from, to) in others {
            left = left
                .into_iter()
                .flat_map(|(a, b)| [(a, b.min(from)), (a.max(to), b)])
                .filter(|(a, b)| a < b)
                .collect();
        }
        // What lies before the path's last timeline is told with the timeline that it belongs to.
        let timeline = path.timeline();
        let begin = path
            .steps(timeline)
            .first()
            .map_or(Lsn(0), |step| step.from);
        let clipped = left.into_iter().map(|(from, to)| Moments {
            timeline,
            from: from.max(begin),
            to,
        });
        lost.extend(clipped.filter(|moments| moments.from < moments.to));
    }
    lost
}

#[cfg(test)]
#[path = "delete_tests.rs"]
mod delete_tests;

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::postgres::catalog::testing::{self, SEGMENT};
    use crate::postgres::types::{HistoryEntry, SegmentSize, TimelineHistory};

    /// A backup within one segment of a timeline.
    fn backup(second: u32, timeline: u32, segment: u64) -> BackupDescription {
        BackupDescription {
            timeline: TimelineId(timeline),
            stop_timeline: TimelineId(timeline),
            start_lsn: Lsn(segment * SEGMENT + 0x28),
            stop_lsn: Lsn(segment * SEGMENT + 0x100),
            ..testing::backup(&format!("20260101-0000{second:02}Z"))
        }
    }

    /// What is lost with the first backup, as `timeline: from..to` in segments.
    fn lost_with(
        backups: &[BackupDescription],
        kept: &[(u32, std::ops::Range<u64>)],
        ancestor: Option<u64>,
    ) -> Vec<String> {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        let mut ranges = WalRanges::new(size);
        for (timeline, segments) in kept {
            for number in segments.clone() {
                let name = SegmentName::from_number(TimelineId(*timeline), number, size);
                ranges.add(name, 1, DateTime::UNIX_EPOCH);
            }
        }
        let history = ancestor.map(|segment| {
            let switch_lsn = Lsn(segment * SEGMENT);
            let parent = HistoryEntry {
                timeline: TimelineId(1),
                switch_lsn,
                reason: String::new(),
            };
            TimelineHistory {
                timeline: TimelineId(2),
                ancestors: vec![parent],
            }
        });
        let paths = TimelinePath::all(history, backups, &ranges);
        let show = |m: &Moments| {
            format!(
                "{}: {}..{}",
                m.timeline,
                m.from.0 / SEGMENT,
                m.to.0 / SEGMENT
            )
        };
        lost(backups, &ranges, &paths, &backups[0].id)
            .iter()
            .map(show)
            .collect()
    }

    #[test]
    fn the_oldest_backup_takes_with_it_what_lies_before_the_next() {
        assert_eq!(
            lost_with(&[backup(1, 1, 2), backup(2, 1, 5)], &[(1, 2..9)], None),
            ["1: 2..5"]
        );
    }

    #[test]
    fn a_later_backup_takes_nothing_with_it_unless_wal_is_missing_before() {
        assert!(lost_with(&[backup(2, 1, 5), backup(1, 1, 2)], &[(1, 2..9)], None).is_empty());
        assert_eq!(
            lost_with(
                &[backup(2, 1, 5), backup(1, 1, 2)],
                &[(1, 2..4), (1, 5..9)],
                None
            ),
            ["1: 5..9"]
        );
    }

    #[test]
    fn the_only_backup_takes_all_timelines_with_it() {
        let kept = [(1, 2..6), (2, 5..8)];
        assert_eq!(
            lost_with(&[backup(1, 1, 2)], &kept, Some(5)),
            ["2: 5..8", "1: 2..6"]
        );
    }

    #[test]
    fn a_backup_with_bad_pages_stands_in_for_none_and_is_no_loss() {
        let bad = |backup| BackupDescription {
            checksum_failures: vec!["bad page".into()],
            ..backup
        };
        assert_eq!(
            lost_with(&[backup(2, 1, 5), bad(backup(1, 1, 2))], &[(1, 2..9)], None),
            ["1: 5..9"]
        );
        assert!(lost_with(&[bad(backup(1, 1, 2)), backup(2, 1, 5)], &[(1, 2..9)], None).is_empty());
    }
}
