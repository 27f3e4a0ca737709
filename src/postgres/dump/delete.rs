//! Deleting dumps. Each exists until its manifest is gone, and nothing names it any more by then.

use std::collections::BTreeSet;

use super::latest;
use super::list::ListedDump;
use crate::postgres::backup::cleanup::delete_all;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpObject};
use crate::storage::Key;

/// Deletes dumps: first what names them, then their manifests, then the rest. Safe to repeat; what is left after an
/// interruption is a leftover, which a later dump cleans up. Errors: the store's.
pub async fn delete(cluster: &Cluster, dumps: &[ListedDump]) -> anyhow::Result<()> {
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
