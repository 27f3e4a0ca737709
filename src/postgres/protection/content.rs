//! Small JSON objects: put, listed, read.

use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::postgres::cluster::Cluster;
use crate::storage::{Body, Key, ObjectMeta, PutMode, PutOutcome, StorageError, Walk, get_all};

/// Bytes of an object at most: the first deletion of a long archive names many dumps.
const MOST: u64 = 64 << 20;

/// Stores a value; false: the key was taken, and was to be.
pub async fn put(
    cluster: &Cluster,
    key: &Key,
    value: &impl Serialize,
    mode: PutMode,
) -> Result<bool, StorageError> {
    let storage = cluster.repository.storage();
    let json = serde_json::to_vec_pretty(value).expect("plain values can be written as JSON");
    let outcome = storage.put(key, Body::from(json), mode).await?;
    Ok(outcome == PutOutcome::Stored)
}

/// What an object says; `None`: there is none. Inside: it cannot be understood, and why.
pub async fn get<T: DeserializeOwned>(
    cluster: &Cluster,
    key: &Key,
) -> Result<Option<Result<T, String>>, StorageError> {
    let bytes = get_all(cluster.repository.storage(), key, MOST).await?;
    let parse = |bytes: bytes::Bytes| serde_json::from_slice(&bytes).map_err(|why| why.to_string());
    Ok(bytes.map(parse))
}

/// When an object was stored, by the store's clock; `None`: there is none.
pub async fn stored_at(cluster: &Cluster, key: &Key) -> Result<Option<SystemTime>, StorageError> {
    let meta = cluster.repository.storage().head(key).await?;
    Ok(meta.map(|meta| meta.modified))
}

/// All objects of a folder, by name.
pub async fn list(cluster: &Cluster, folder: String) -> Result<Vec<ObjectMeta>, StorageError> {
    let (mut walk, mut all) = (Walk::new(folder), Vec::new());
    while let Some(meta) = walk.next(cluster.repository.storage()).await? {
        all.push(meta);
    }
    Ok(all)
}
