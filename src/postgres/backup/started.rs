//! `started.json`: reserves a backup's name, and tells whether the process that takes the backup still lives.

use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Hint;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
pub use crate::postgres::protection::ProcessIdentity;
use crate::storage::{FEW_LINES, PutMode, PutOutcome, get_all};

/// Names that are tried, a second apart, before something must be wrong.
const RESERVE_TRIES: u32 = 30;

/// Who takes a backup, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub started_at: DateTime<Utc>,
    #[serde(flatten)]
    pub process: ProcessIdentity,
}

/// Reserves the name of a backup that begins now.
pub async fn reserve(cluster: &Cluster) -> anyhow::Result<(BackupId, Started)> {
    for _ in 0..RESERVE_TRIES {
        let started = Started {
            started_at: Utc::now(),
            process: ProcessIdentity::own(),
        };
        let id = BackupId::at(started.started_at);
        if put(cluster, &id, &started).await? {
            return Ok((id, started));
        }
        let to_next_second = 1_000_u32.saturating_sub(started.started_at.timestamp_subsec_millis());
        tokio::time::sleep(Duration::from_millis(to_next_second.into())).await;
    }
    Err(anyhow!(
        "no free name for a backup was found in {RESERVE_TRIES} seconds"
    ))
    .hint("was the clock set back? `walden backup list` shows the names in use")
}

async fn put(cluster: &Cluster, id: &BackupId, started: &Started) -> anyhow::Result<bool> {
    let (storage, key) = (cluster.repository.storage(), cluster.layout.started(id));
    let json = serde_json::to_vec_pretty(started)?;
    let hint = "check that the user who runs Walden may write to the repository";
    if storage
        .put(&key, json.into(), PutMode::CreateOnly)
        .await
        .hint(hint)?
        == PutOutcome::AlreadyExists
    {
        return Ok(false);
    }
    // Another backup may have had this name before, if the clock was set back.
    let alone = cluster.objects_of(id).await?.len() == 1;
    if !alone {
        storage.delete(&key).await?;
    }
    Ok(alone)
}

/// Reads the reservation; `None` when there is none. One that cannot be understood says nothing of a process.
pub async fn read(cluster: &Cluster, id: &BackupId) -> anyhow::Result<Option<Reservation>> {
    let bytes = get_all(
        cluster.repository.storage(),
        &cluster.layout.started(id),
        FEW_LINES,
    )
    .await?;
    Ok(bytes.map(|bytes| match serde_json::from_slice(&bytes) {
        Ok(started) => Reservation::By(started),
        Err(_) => Reservation::Unreadable,
    }))
}

/// What a reservation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    By(Started),
    Unreadable,
}
