//! A cluster's objects as a whole: copied into another repository ([`copy`]), read and verified ([`verify`]), counted
//! ([`stats`]).
//!
//! All three go through the objects in the order of their keys, so an interrupted run can go on. Memory does not grow with
//! the archive, and foreign objects are never opened.

pub mod copy;
mod sample;
pub mod stats;
mod task_pool;
#[cfg(test)]
mod testing;
pub mod verify;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::postgres::backup::manifest;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, ObjectKind};
use crate::postgres::object_problem::ObjectProblem;
use crate::repo::Frames;
use crate::storage::Key;

pub use sample::{Sample, SampleExtent};
use task_pool::TaskPool;

/// Objects of the source or of a cluster that are told one by one; the rest is counted.
const MAX_TOLD: usize = 1000;
/// When so many objects could not be read, the repository is taken for gone.
const MAX_UNREAD: u64 = 20;

/// A whole pack, all of it checked, and the bytes of its content.
async fn whole_pack(cluster: &Cluster, key: &Key) -> Result<(Bytes, u64), ObjectProblem> {
    let frames = Frames::new(cluster.repository.clone(), manifest::FRAME_SIZE);
    Ok(frames.whole(key, manifest::LONGEST_PACK).await?)
}

/// Stored bytes of a backup's packs.
async fn pack_sizes(cluster: &Cluster, id: &BackupId) -> anyhow::Result<BTreeMap<Key, u64>> {
    let found = cluster.objects_of(id).await?;
    let packs = found
        .into_iter()
        .filter(|meta| matches!(cluster.layout.parse(&meta.key), Some(ObjectKind::Pack(_))));
    Ok(packs.map(|meta| (meta.key, meta.size)).collect())
}
