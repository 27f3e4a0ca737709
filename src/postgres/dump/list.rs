//! Which dumps there are: by one listing, without reading any.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::{StreamExt, stream};

use super::manifest::{self, DumpManifest};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpKind, DumpObject, ObjectKind};
use crate::repo::ObjectError;
use crate::storage::{ObjectMeta, StorageError, Walk};

/// Manifests read at once.
const AT_ONCE: usize = 16;

/// What lies in the repository of one dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDump {
    pub id: DumpId,
    /// All objects, in the order of their keys.
    pub objects: Vec<(DumpObject, ObjectMeta)>,
}

impl ListedDump {
    /// Whether the dump exists; else it is being taken, or a leftover.
    pub fn is_complete(&self) -> bool {
        self.has(&DumpObject::Manifest)
    }

    /// Whether there is such an object.
    pub fn has(&self, object: &DumpObject) -> bool {
        self.objects.iter().any(|(kind, _)| kind == object)
    }

    /// Stored bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|(_, meta)| meta.size).sum()
    }

    /// When the newest object was stored, by the store's clock.
    pub fn modified(&self) -> Option<SystemTime> {
        self.objects.iter().map(|(_, meta)| meta.modified).max()
    }
}

/// All dumps of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedDumps {
    /// Those with a manifest, by database and name.
    pub complete: Vec<ListedDump>,
    /// Those without.
    pub unfinished: Vec<ListedDump>,
}

impl ListedDumps {
    /// The newest complete one of a database and kind that holds all tables.
    pub fn latest(&self, database: &str, kind: DumpKind) -> Option<&ListedDump> {
        self.complete
            .iter()
            .filter(|dump| dump.id.database() == database && dump.id.kind() == kind)
            .filter(|dump| !dump.id.name().is_partial())
            .max_by_key(|dump| (dump.id.time(), dump.id.name().clone()))
    }
}

/// Lists the dumps of one database or of all. Errors: the store did not answer.
pub async fn list(cluster: &Cluster, database: Option<&str>) -> Result<ListedDumps, StorageError> {
    let folder = match database {
        Some(database) => cluster.layout.database_dumps_folder(database),
        None => cluster.layout.dumps_folder(),
    };
    let (mut walk, mut dumps) = (Walk::new(folder), BTreeMap::<DumpId, Vec<_>>::new());
    while let Some(meta) = walk.next(cluster.repository.storage()).await? {
        if let Some(ObjectKind::Dump(id, object)) = cluster.layout.parse(&meta.key) {
            dumps.entry(id).or_default().push((object, meta));
        }
    }
    let dumps = dumps
        .into_iter()
        .map(|(id, objects)| ListedDump { id, objects });
    let (complete, unfinished) = dumps.partition(ListedDump::is_complete);
    Ok(ListedDumps {
        complete,
        unfinished,
    })
}

/// A complete dump and its manifest. `None`: it went meanwhile.
pub type LoadedDump = (ListedDump, Result<Option<DumpManifest>, ObjectError>);

/// Reads the manifests of complete dumps, in order.
pub async fn read_all(cluster: &Cluster, complete: Vec<ListedDump>) -> Vec<LoadedDump> {
    let read = |dump: ListedDump| async move {
        let manifest = manifest::read(cluster, &dump.id).await;
        (dump, manifest)
    };
    let reads: Vec<_> = complete.into_iter().map(read).collect();
    stream::iter(reads).buffered(AT_ONCE).collect().await
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
