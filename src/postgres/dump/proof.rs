//! When a dump was last proven by a restore.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpObject};
use crate::storage::{FEW_LINES, PutMode, get_all};

/// A restore of the whole dump that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpProof {
    pub proven_at: DateTime<Utc>,
    /// The version of the server that it was restored on.
    pub server_version: String,
    /// The database that it became.
    pub restored_as: String,
}

/// Notes a proof, in place of the one before.
pub async fn record(cluster: &Cluster, id: &DumpId, proof: &DumpProof) -> anyhow::Result<()> {
    let key = cluster.layout.dump(id, &DumpObject::Proof);
    let json = serde_json::to_vec_pretty(proof)?;
    let _ = cluster
        .repository
        .storage()
        .put(&key, json.into(), PutMode::Overwrite)
        .await?;
    Ok(())
}

/// The last proof; `None` when there is none that can be understood.
pub async fn read(cluster: &Cluster, id: &DumpId) -> anyhow::Result<Option<DumpProof>> {
    let key = cluster.layout.dump(id, &DumpObject::Proof);
    let bytes = get_all(cluster.repository.storage(), &key, FEW_LINES).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
