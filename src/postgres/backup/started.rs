//! `started.json`: reserves a backup's name, and tells whether the process that takes the backup still lives.

use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Hint;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
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

/// A process, told apart from all others on all machines. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub host: String,
    /// Changes with every start of the machine (Linux, `random/boot_id`).
    pub boot_id: String,
    /// Process numbers mean something only within one (`/proc/self/ns/pid`).
    pub pid_namespace: String,
    pub pid: u32,
    /// When the process began, in the kernel's ticks since boot: numbers are used again (proc(5), `stat`, field 22).
    pub pid_start: String,
}

impl ProcessIdentity {
    /// This process.
    pub fn own() -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_string()
        };
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.display().to_string(),
            pid,
            pid_start: start_of(pid).unwrap_or_default(),
        }
    }

    /// Whether it is proven that the process has ended. False also means: not known.
    pub fn is_gone(&self) -> bool {
        let own = Self::own();
        let comparable = [&own.boot_id, &own.pid_namespace, &own.pid_start]
            .iter()
            .all(|part| !part.is_empty());
        let here = (&self.host, &self.boot_id, &self.pid_namespace)
            == (&own.host, &own.boot_id, &own.pid_namespace);
        comparable && here && start_of(self.pid).as_ref() != Some(&self.pid_start)
    }
}

/// When the process of that number began; `None` when there is none.
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the 22nd is the 20th after it.
    Some(
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .to_string(),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_only_when_that_is_proven() {
        let own = ProcessIdentity::own();
        assert!(!own.is_gone());
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id();
        let other = ProcessIdentity {
            pid,
            pid_start: start_of(pid).unwrap(),
            ..own.clone()
        };
        assert!(!other.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone());
        let used_again = ProcessIdentity {
            pid_start: "1".into(),
            ..own.clone()
        };
        assert!(used_again.is_gone());
        for elsewhere in [
            ProcessIdentity {
                host: "other".into(),
                ..other.clone()
            },
            ProcessIdentity {
                boot_id: "other".into(),
                ..other.clone()
            },
            ProcessIdentity {
                pid_namespace: "other".into(),
                ..other.clone()
            },
        ] {
            assert!(!elsewhere.is_gone());
        }
    }
}
