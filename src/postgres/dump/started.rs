//! `started.json` of a dump: reserves its name, and tells whether somebody still writes it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Hint, one_line, with_hint};
use crate::postgres::backup::started::ProcessIdentity;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpKind, DumpName, DumpObject};
use crate::storage::{FEW_LINES, PutMode, PutOutcome, get_all};

/// Names that are tried, a second apart, before something must be wrong.
const RESERVE_TRIES: u32 = 30;
/// How often who writes a dump shows that it still does: far more often than it would be taken for abandoned.
const BEAT: Duration = Duration::from_secs(600);

/// Dumps that this process is taking: one that was given up by dropping its future is not among them any more.
static RUNNING: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Who takes a dump, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpStarted {
    pub started_at: DateTime<Utc>,
    /// Random: tells the dumps of one process apart.
    pub run: u64,
    #[serde(flatten)]
    pub process: ProcessIdentity,
}

impl DumpStarted {
    /// Whether it is proven that nobody goes on with it.
    pub fn is_over(&self) -> bool {
        match self.process == ProcessIdentity::own() {
            true => !running().contains(&self.run),
            false => self.process.is_gone(),
        }
    }
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<u64>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A dump of this process, until this is dropped.
#[derive(Debug)]
struct Run(u64);

impl Run {
    fn begin() -> anyhow::Result<Self> {
        let run = getrandom::u64()?;
        running().insert(run);
        Ok(Self(run))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

/// A name that is this dump's alone.
#[derive(Debug)]
pub struct Reserved {
    pub id: DumpId,
    pub started: DumpStarted,
    _run: Run,
}

/// Reserves the name of a dump that begins now.
pub async fn reserve(
    cluster: &Cluster,
    template: &str,
    database: &str,
    kind: DumpKind,
    is_partial: bool,
) -> anyhow::Result<Reserved> {
    let run = Run::begin()?;
    for _ in 0..RESERVE_TRIES {
        let started = DumpStarted {
            started_at: Utc::now(),
            run: run.0,
            process: ProcessIdentity::own(),
        };
        let name = DumpName::new(template, database, started.started_at, kind)
            .hint("`dump.file_name` must hold {time}, perhaps behind {database}, and no other signs than letters, digits, '_', '-' and '.'")?;
        let name = match is_partial {
            true => name.of_some_tables()?,
            false => name,
        };
        let id = DumpId::new(database, name)?;
        if put(cluster, &id, &started).await? {
            return Ok(Reserved {
                id,
                started,
                _run: run,
            });
        }
        let to_next_second = 1_000_u32.saturating_sub(started.started_at.timestamp_subsec_millis());
        tokio::time::sleep(Duration::from_millis(to_next_second.into())).await;
    }
    Err(anyhow!(
        "no free name for a dump was found in {RESERVE_TRIES} seconds"
    ))
    .hint("was the clock set back? `walden dump list` shows the names in use")
}

async fn put(cluster: &Cluster, id: &DumpId, started: &DumpStarted) -> anyhow::Result<bool> {
    let (storage, key) = (
        cluster.repository.storage(),
        cluster.layout.dump(id, &DumpObject::Started),
    );
    let json = serde_json::to_vec_pretty(started)?;
    let hint = "check that the user who runs Walden may write to the repository";
    let outcome = storage
        .put(&key, json.into(), PutMode::CreateOnly)
        .await
        .hint(hint)?;
    if outcome == PutOutcome::AlreadyExists {
        return Ok(false);
    }
    // Another dump may have had this name before, if the clock was set back. Its objects sort behind the name itself.
    let folder = cluster.layout.database_dumps_folder(id.database());
    let name = format!("{folder}{}", id.name());
    let near = storage.list(&folder, Some(&name)).await?;
    let mut others = near
        .iter()
        .map(crate::storage::ListEntry::name)
        .filter(|found| {
            *found != key.as_str()
                && found
                    .strip_prefix(&name)
                    .is_some_and(|rest| rest.starts_with('.'))
        });
    let alone = others.next().is_none();
    if !alone {
        storage.delete(&key).await?;
    }
    Ok(alone)
}

/// Shows again and again that the dump is still being written. Ends when the reservation is gone: somebody took the dump for
/// abandoned, and what it stores from then on must not look like one that is being written.
pub async fn beat(cluster: &Cluster, reserved: &Reserved) {
    let key = cluster.layout.dump(&reserved.id, &DumpObject::Started);
    loop {
        tokio::time::sleep(BEAT).await;
        if let Ok(None) = cluster.repository.storage().head(&key).await {
            return;
        }
        let Ok(json) = serde_json::to_vec_pretty(&reserved.started) else {
            continue;
        };
        let put = cluster
            .repository
            .storage()
            .put(&key, json.into(), PutMode::Overwrite);
        if let Err(error) = put.await {
            tracing::warn!(
                "cannot show that the dump is still being written: {}",
                one_line(&error.into())
            );
        }
    }
}

/// What a dump's `started.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpReservation {
    None,
    By(DumpStarted),
    /// It says nothing of a process.
    Unreadable,
}

/// Reads the reservation of a dump.
pub async fn read(cluster: &Cluster, id: &DumpId) -> anyhow::Result<DumpReservation> {
    let key = cluster.layout.dump(id, &DumpObject::Started);
    let bytes = get_all(cluster.repository.storage(), &key, FEW_LINES).await?;
    Ok(match bytes.map(|bytes| serde_json::from_slice(&bytes)) {
        None => DumpReservation::None,
        Some(Ok(started)) => DumpReservation::By(started),
        Some(Err(_)) => DumpReservation::Unreadable,
    })
}

/// The error of a dump whose reservation somebody removed.
pub(super) fn taken_for_abandoned(id: &DumpId) -> anyhow::Error {
    with_hint(
        anyhow!("another dump took {id} for abandoned and removed it"),
        "take it again; are the clocks of this machine and the repository right?",
    )
}
