//! Deleting dumps. Each exists until its manifest is gone, and nothing names it any more by then.

use std::collections::BTreeSet;

use anyhow::anyhow;

use super::latest;
use super::list::ListedDump;
use crate::error::with_hint;
use crate::postgres::backup::cleanup::delete_all;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpObject};
use crate::postgres::protection::{is_used, refuse_pinned, store_time};
use crate::storage::Key;

/// Deletes dumps: first what names them, then their manifests, then the rest. Safe to repeat; what is left after an
/// interruption is a leftover, which a later dump cleans up. Errors: one is pinned or being read, and nothing is deleted; or
/// the store's.
pub async fn delete(cluster: &Cluster, dumps: &[ListedDump]) -> anyhow::Result<()> {
    refuse_kept(cluster, dumps).await?;
    let ids: Vec<DumpId> = dumps.iter().map(|dump| dump.id.clone()).collect();
    let named: BTreeSet<_> = ids.iter().map(|id| (id.database(), id.kind())).collect();
    for (database, kind) in named {
        latest::update(cluster, database, kind, &ids).await?;
    }
    let keys = |wanted: fn(&DumpObject) -> bool| -> Vec<Key> {
        let objects = dumps.iter().flat_map(|dump| &dump.objects);
        objects
            .filter(|(object, _)| wanted(object))
            .map(|(_, meta)| meta.key.clone())
            .collect()
    };
    delete_all(
        cluster,
        keys(|object| *object == DumpObject::Manifest).iter(),
    )
    .await?;
    Ok(delete_all(
        cluster,
        keys(|object| *object != DumpObject::Manifest).iter(),
    )
    .await?)
}

/// What somebody pinned, reads or copies stays.
async fn refuse_kept(cluster: &Cluster, dumps: &[ListedDump]) -> anyhow::Result<()> {
    let now = store_time(cluster).await?;
    for dump in dumps {
        refuse_pinned(cluster, &dump.id.to_string()).await?;
        if is_used(cluster, now, |needs| needs.has_dump(&dump.id)).await? {
            let error = anyhow!("dump \"{}\" is being read or copied", dump.id);
            let hint = "wait until that is over: `walden retention pins` shows it";
            return Err(with_hint(error, hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::Utc;

    use super::*;
    use crate::error::one_line;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::dump::list::list;
    use crate::postgres::dump::testing::{id, store};
    use crate::postgres::layout::DumpKind;
    use crate::postgres::protection::{LeaseContent, LeaseKind, Needs, Pin, pin, register, unpin};
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn what_is_pinned_or_being_read_is_not_deleted_by_hand() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let id = id("shop", "14:05:00", DumpKind::Full);
        store(&cluster, &id).await;
        let kept = list(&cluster, None).await.unwrap().complete;
        let refused = async || one_line(&delete(&cluster, &kept).await.unwrap_err());
        let needs = Needs::dump(&id.to_string());
        let restore = LeaseContent::own(
            LeaseKind::DumpRestore,
            needs.clone(),
            Duration::from_secs(60),
        );
        let lease = register(&cluster, restore).await.unwrap().unwrap();
        assert!(refused().await.contains("is being read"));
        lease.release().await;
        let audit = Pin {
            item: format!("dump:{id}"),
            reason: "audit".into(),
            until: None,
            made_at: Utc::now(),
            made_by: "a test".into(),
        };
        let pinned = pin(&cluster, &audit, &needs).await.unwrap();
        assert!(refused().await.contains("is pinned: \"audit\""));
        unpin(&cluster, &pinned.to_string()).await.unwrap();
        delete(&cluster, &kept).await.unwrap();
        assert!(list(&cluster, None).await.unwrap().complete.is_empty());
    }
}
