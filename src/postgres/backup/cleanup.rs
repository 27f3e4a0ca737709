//! Backups without a manifest: what an interrupted process leaves. Never touches one that has a manifest.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::started::{self, Reservation};
use crate::error::{find, one_line};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::protection::{is_used, store_time};
use crate::storage::{Key, ObjectMeta, StorageError};

/// An unfinished backup whose newest object is older is taken for abandoned.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Objects deleted at once.
pub const PARALLEL_DELETES: usize = 16;

/// A backup that was removed because nobody will finish it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedBackup {
    pub id: BackupId,
    pub objects: u64,
    /// Stored bytes.
    pub bytes: u64,
}

/// Removes all abandoned backups among `unfinished`, and logs them.
pub async fn remove_abandoned(
    cluster: &Cluster,
    unfinished: &[BackupId],
) -> anyhow::Result<Vec<RemovedBackup>> {
    let mut removed = Vec::new();
    if unfinished.is_empty() {
        return Ok(removed);
    }
    let now = store_time(cluster).await?;
    for id in unfinished {
        let objects = cluster.objects_of(id).await?;
        // A copy may be bringing it, also since just now.
        if !is_abandoned(cluster, id, &objects, now).await?
            || is_used(cluster, now, |needs| needs.has_backup(id)).await?
            || !told(remove(cluster, id, &objects).await, id)?
        {
            continue;
        }
        let bytes = objects.iter().map(|meta| meta.size).sum();
        tracing::info!(
            "removed the unfinished backup {id}: {} objects, {bytes} bytes",
            objects.len()
        );
        removed.push(RemovedBackup {
            id: id.clone(),
            objects: objects.len() as u64,
            bytes,
        });
    }
    Ok(removed)
}

/// What a store refuses to delete stays, and keeps nobody from going on.
pub fn told(removed: anyhow::Result<bool>, id: &impl Display) -> anyhow::Result<bool> {
    let is_lasting = |error: &StorageError| error.lasting;
    removed.or_else(|error| match find(&error).is_some_and(is_lasting) {
        true => {
            tracing::warn!("cannot remove what is left of {id}: {}", one_line(&error));
            Ok(false)
        }
        false => Err(error),
    })
}

/// Removes what puts that were interrupted long ago left in the store, such as uploads in parts. Nothing depends on it.
pub async fn sweep(cluster: &Cluster) {
    let ours = |key: &Key| cluster.layout.parse(key).is_some();
    match cluster
        .repository
        .storage()
        .sweep(ABANDONED_AFTER, &ours)
        .await
    {
        Ok(0) => (),
        Ok(count) => tracing::info!("removed {count} leftovers of interrupted puts"),
        Err(error) => tracing::warn!(
            "cannot look for leftovers of interrupted puts: {error}: {:#}",
            error.source
        ),
    }
}

/// Removes what a failed backup of this process has stored. When its manifest is there after all, the backup exists
/// and nothing is removed: the answer is false.
pub async fn discard(cluster: &Cluster, id: &BackupId) -> anyhow::Result<bool> {
    let storage = cluster.repository.storage();
    if storage.head(&cluster.layout.manifest(id)).await?.is_some() {
        return Ok(false);
    }
    let reservation = cluster.layout.started(id);
    // The reservation goes last: it lets a later process see at once that this one is gone.
    let all = keys(&cluster.objects_of(id).await?);
    delete_all(cluster, all.iter().filter(|key| **key != reservation)).await?;
    storage.delete(&reservation).await?;
    Ok(true)
}

/// Whether the process that takes the backup is proven to be gone, or nothing was stored for a long time.
async fn is_abandoned(
    cluster: &Cluster,
    id: &BackupId,
    objects: &[ObjectMeta],
    now: SystemTime,
) -> anyhow::Result<bool> {
    if let Some(Reservation::By(started)) = started::read(cluster, id).await?
        && started.process.is_gone()
    {
        return Ok(true);
    }
    let is_old = |meta: &ObjectMeta| {
        now.duration_since(meta.modified)
            .is_ok_and(|age| age > ABANDONED_AFTER)
    };
    Ok(objects.iter().all(is_old))
}

/// Removes the reservation first. A process that is alive after all sees that it is missing once it has written its
/// manifest, and takes that back; a manifest that is there by now is left with all that belongs to it.
async fn remove(cluster: &Cluster, id: &BackupId, objects: &[ObjectMeta]) -> anyhow::Result<bool> {
    let storage = cluster.repository.storage();
    storage.delete(&cluster.layout.started(id)).await?;
    if storage.head(&cluster.layout.manifest(id)).await?.is_some() {
        return Ok(false);
    }
    delete_all(cluster, keys(objects).iter()).await?;
    Ok(true)
}

/// Deletes objects, several at once. Errors: the first one's; those under way then are not waited for.
pub async fn delete_all<'a>(
    cluster: &'a Cluster,
    keys: impl Iterator<Item = &'a Key>,
) -> Result<(), StorageError> {
    let storage = cluster.repository.storage();
    let deletes: Vec<_> = keys.map(|key| storage.delete(key)).collect();
    stream::iter(deletes)
        .buffer_unordered(PARALLEL_DELETES)
        .try_collect()
        .await
}

pub fn keys(objects: &[ObjectMeta]) -> Vec<Key> {
    objects.iter().map(|meta| meta.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;

    use super::super::started::{ProcessIdentity, Started};
    use super::*;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::protection::{LeaseContent, LeaseKind, Needs, register_writer};
    use crate::storage::{MemoryStorage, PutMode, PutOutcome};

    const ID: &str = "20260101-000000Z";

    async fn cluster(storage: Arc<MemoryStorage>) -> (Cluster, BackupId) {
        (cluster_in(storage).await, ID.parse().unwrap())
    }

    async fn put(cluster: &Cluster, key: &Key, content: Vec<u8>) {
        let outcome = cluster
            .repository
            .storage()
            .put(key, content.into(), PutMode::CreateOnly)
            .await
            .unwrap();
        assert_eq!(outcome, PutOutcome::Stored);
    }

    /// An unfinished backup of a process, with one pack.
    async fn unfinished_by(process: ProcessIdentity) -> (Cluster, BackupId, Arc<MemoryStorage>) {
        let storage = Arc::new(MemoryStorage::default());
        let (cluster, id) = cluster(storage.clone()).await;
        let started = Started {
            started_at: DateTime::UNIX_EPOCH,
            process,
        };
        put(
            &cluster,
            &cluster.layout.started(&id),
            serde_json::to_vec(&started).unwrap(),
        )
        .await;
        let pack = format!("{ID}/pack-000001").parse().unwrap();
        put(&cluster, &cluster.layout.pack(&pack), b"frames".to_vec()).await;
        (cluster, id, storage)
    }

    async fn removes(cluster: &Cluster, id: &BackupId) -> bool {
        let removed = remove_abandoned(cluster, std::slice::from_ref(id))
            .await
            .unwrap();
        assert_eq!(
            cluster.objects_of(id).await.unwrap().is_empty(),
            !removed.is_empty()
        );
        !removed.is_empty()
    }

    fn gone() -> ProcessIdentity {
        ProcessIdentity {
            pid_start: "0".into(),
            ..ProcessIdentity::own()
        }
    }

    #[tokio::test]
    async fn what_a_process_that_is_gone_left_is_removed_at_once() {
        let (cluster, id, _) = unfinished_by(gone()).await;
        assert!(removes(&cluster, &id).await);
    }

    #[tokio::test]
    async fn what_may_still_be_written_stays_for_a_day_of_the_store_s_clock() {
        let elsewhere = ProcessIdentity {
            host: "elsewhere".into(),
            ..gone()
        };
        for process in [ProcessIdentity::own(), elsewhere] {
            let (cluster, id, storage) = unfinished_by(process).await;
            assert!(!removes(&cluster, &id).await);
            storage.set_ahead(ABANDONED_AFTER - Duration::from_secs(60));
            assert!(!removes(&cluster, &id).await);
            storage.set_ahead(ABANDONED_AFTER + Duration::from_secs(60));
            assert!(removes(&cluster, &id).await);
        }
    }

    #[tokio::test]
    async fn what_a_copy_brings_stays_while_it_works() {
        let (cluster, id, _) = unfinished_by(gone()).await;
        let needs = Needs {
            backups: [id.clone()].into(),
            ..Needs::default()
        };
        let life = Duration::from_secs(60);
        let copy = LeaseContent::own(LeaseKind::Copy, needs, life);
        let lease = register_writer(&cluster, copy).await.unwrap();
        assert!(!removes(&cluster, &id).await);
        lease.release().await;
        assert!(removes(&cluster, &id).await);
    }

    #[test]
    fn what_a_store_refuses_keeps_nobody_from_going_on() {
        let refused = |lasting| {
            let error = StorageError {
                operation: "delete",
                key: ID.into(),
                store: "a test".into(),
                lasting,
                source: anyhow::anyhow!("no"),
            };
            told(Err(error.into()), &ID)
        };
        assert!(!refused(true).unwrap());
        assert!(refused(false).is_err(), "it does not answer");
    }

    #[tokio::test]
    async fn a_backup_with_a_manifest_is_never_touched() {
        let (cluster, id, storage) = unfinished_by(gone()).await;
        put(
            &cluster,
            &cluster.layout.manifest(&id),
            b"whatever it holds".to_vec(),
        )
        .await;
        storage.set_ahead(2 * ABANDONED_AFTER);
        assert!(
            remove_abandoned(&cluster, std::slice::from_ref(&id))
                .await
                .unwrap()
                .is_empty()
        );
        assert!(!discard(&cluster, &id).await.unwrap());
        let left = keys(&cluster.objects_of(&id).await.unwrap());
        assert_eq!(left.len(), 2, "all but the reservation: {left:?}");
    }
}
