//! What interrupted dumps leave. Never touches a dump that is complete, or that somebody may still be writing.

use std::time::SystemTime;

use super::list::{ListedDump, ListedDumps};
use super::started::{self, DumpReservation};
use crate::postgres::backup::cleanup::{ABANDONED_AFTER, delete_all, told};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpObject};
use crate::postgres::protection::{is_used, store_time};
use crate::storage::Key;

/// Leftovers that one dump cleans up at most.
const AT_ONCE: usize = 64;

/// Removes dumps that nobody will finish, and what is left of a reservation beside a complete one.
pub async fn remove_leftovers(
    cluster: &Cluster,
    kept: &ListedDumps,
) -> anyhow::Result<Vec<DumpId>> {
    let reserved = kept.complete.iter();
    let mut reserved = reserved
        .filter(|dump| dump.has(&DumpObject::Started))
        .peekable();
    let mut removed = Vec::new();
    if reserved.peek().is_none() && kept.unfinished.is_empty() {
        return Ok(removed);
    }
    let now = store_time(cluster).await?;
    for dump in reserved.take(AT_ONCE) {
        if is_abandoned(cluster, dump, now).await? {
            let deleted = delete(cluster, &dump.id, &DumpObject::Started).await;
            told(deleted.map(|()| true), &dump.id)?;
        }
    }
    for dump in kept.unfinished.iter().take(AT_ONCE) {
        // A copy may be bringing it, also since just now.
        if is_abandoned(cluster, dump, now).await?
            && !is_used(cluster, now, |needs| needs.has_dump(&dump.id)).await?
            && told(remove(cluster, dump).await, &dump.id)?
        {
            tracing::info!(
                "removed the unfinished dump {}: {} objects, {} bytes",
                dump.id,
                dump.objects.len(),
                dump.bytes()
            );
            removed.push(dump.id.clone());
        }
    }
    Ok(removed)
}

/// Whether the process that takes the dump is proven to have ended with it, or nothing showed of it for a long time before
/// `now` of the store's clock.
pub async fn is_abandoned(
    cluster: &Cluster,
    dump: &ListedDump,
    now: SystemTime,
) -> anyhow::Result<bool> {
    if dump.has(&DumpObject::Started)
        && let DumpReservation::By(started) = started::read(cluster, &dump.id).await?
        && started.is_over()
    {
        return Ok(true);
    }
    let age = dump
        .modified()
        .and_then(|newest| now.duration_since(newest).ok());
    Ok(age.is_some_and(|age| age > ABANDONED_AFTER))
}

/// Removes the reservation first. Who is alive after all sees that it is missing once the manifest is written, and takes
/// that back; a manifest that is there by now is left with all that belongs to it.
async fn remove(cluster: &Cluster, dump: &ListedDump) -> anyhow::Result<bool> {
    delete(cluster, &dump.id, &DumpObject::Started).await?;
    if has_manifest(cluster, &dump.id).await? {
        return Ok(false);
    }
    let keys: Vec<Key> = dump
        .objects
        .iter()
        .map(|(_, meta)| meta.key.clone())
        .collect();
    delete_all(cluster, keys.iter()).await?;
    Ok(true)
}

/// Removes what a dump of this process has stored. When its manifest is there after all, the dump exists and nothing is
/// removed: the answer is false.
pub async fn discard(cluster: &Cluster, id: &DumpId) -> anyhow::Result<bool> {
    if has_manifest(cluster, id).await? {
        return Ok(false);
    }
    let kept = super::list::list(cluster, Some(id.database())).await?;
    let of_it = kept.unfinished.into_iter().find(|dump| dump.id == *id);
    let objects = of_it.map(|dump| dump.objects).unwrap_or_default();
    let others: Vec<Key> = objects
        .iter()
        .filter(|(object, _)| *object != DumpObject::Started)
        .map(|(_, meta)| meta.key.clone())
        .collect();
    // The reservation goes last: it lets a later process see at once that this one is gone.
    delete_all(cluster, others.iter()).await?;
    delete(cluster, id, &DumpObject::Started).await?;
    Ok(true)
}

async fn has_manifest(cluster: &Cluster, id: &DumpId) -> anyhow::Result<bool> {
    let key = cluster.layout.dump(id, &DumpObject::Manifest);
    Ok(cluster.repository.storage().head(&key).await?.is_some())
}

async fn delete(cluster: &Cluster, id: &DumpId, object: &DumpObject) -> anyhow::Result<()> {
    let key = cluster.layout.dump(id, object);
    Ok(cluster.repository.storage().delete(&key).await?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::list::list;
    use super::super::testing::{id, put};
    use super::*;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::layout::DumpKind;
    use crate::postgres::protection::{LeaseContent, LeaseKind, Needs, register_writer};
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn what_a_copy_brings_stays_while_it_works() {
        let storage = Arc::new(MemoryStorage::default());
        let cluster = cluster_in(storage.clone()).await;
        let id = id("shop", "14:05:00", DumpKind::Full);
        put(&cluster, &cluster.layout.dump(&id, &DumpObject::Globals)).await;
        let removed = async || {
            let kept = list(&cluster, None).await.unwrap();
            remove_leftovers(&cluster, &kept).await.unwrap()
        };
        storage.set_ahead(ABANDONED_AFTER - Duration::from_secs(60));
        assert_eq!(removed().await, []);
        storage.set_ahead(2 * ABANDONED_AFTER);
        let life = Duration::from_secs(60);
        for needs in [Needs::dump(&id.to_string()), Needs::everything()] {
            let copy = LeaseContent::own(LeaseKind::Copy, needs, life);
            let lease = register_writer(&cluster, copy).await.unwrap();
            assert_eq!(removed().await, []);
            lease.release().await;
        }
        assert_eq!(removed().await, [id]);
    }
}
