//! A cluster into another repository: history files and WAL first, then packs, a backup's manifest last, and dumps in the same
//! way, so that the destination is right wherever it is interrupted. What is there already is not copied again.

mod backups;
mod dumps;
mod evidence;
mod let_go;
mod proof;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::sleep;

use crate::error::{Hint, find, one_line};
use crate::postgres::backup::delete::NoSuchBackup;
use crate::postgres::catalog::{Gap, TimelinePath};
use crate::postgres::cluster::{Cluster, NotRegistered};
use crate::postgres::dump::list::{ListedDump, list};
use crate::postgres::idle;
use crate::postgres::index::recordings;
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::load::{list_wal, load_backups, load_histories, load_wal};
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::protection::{
    BeingDeleted, LeaseContent, LeaseKind, Needs, register, register_writer,
};
use crate::postgres::types::WalFileName;
use crate::repo::Repository;
use crate::storage::{ObjectMeta, Storage, Walk};

use super::TaskPool;
use let_go::{LetGo, note};
pub use proof::{Continuity, ProofVerdict, RecoverabilityProof, Snapshot};
use transfer::{Copier, CopyGroup};
pub use transfer::{CopyCount, CopyFailure, CopySide, Counts};

/// How long a copy that was killed keeps what it read from deletion.
const LEASE: Duration = Duration::from_secs(3600);
/// How long a deletion is waited for, and how often is looked whether it is over.
const PATIENCE: Duration = Duration::from_secs(1800);
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is copied, and its bounds.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Only this backup with the WAL that it cannot be restored without.
    pub backup: Option<BackupId>,
    /// Objects in work at once.
    pub workers: usize,
    /// Bytes of objects in memory at once; a larger object goes alone.
    pub memory: u64,
}

/// How far a copy is, in stored bytes.
#[derive(Debug, Default)]
pub struct CopyProgress {
    pub done: AtomicU64,
    /// Of WAL, packs and dumps; 0 until it is known.
    pub total: AtomicU64,
    /// What is being done, in words.
    pub phase: Mutex<String>,
}

impl CopyProgress {
    fn set_phase(&self, phase: impl Into<String>) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase.into();
    }
}

/// What was copied, and what proves it.
#[derive(Debug, Clone, Serialize)]
pub struct Copied {
    pub cluster: ClusterName,
    /// The repositories' URLs.
    pub source: String,
    pub destination: String,
    /// Everything that the source had when the copy began is at the destination.
    pub complete: bool,
    #[serde(flatten)]
    pub counts: Counts,
    pub failures: Vec<CopyFailure>,
    /// Failures beyond those listed.
    pub more_failures: u64,
    pub continuity: Continuity,
    /// What the source itself lacks.
    pub source_gaps: Vec<Gap>,
    /// Not copied: being taken, or interrupted.
    pub unfinished: Vec<BackupId>,
    /// Not copied: objects in the folders of WAL, names and idle markers that are none.
    pub foreign: Vec<String>,
}

impl Copied {
    /// Whether all that the source had is at the destination, and every backup can be restored from there.
    pub fn is_sound(&self) -> bool {
        self.complete && self.continuity.not_restorable.is_empty()
    }
}

/// Both URLs lead to the same repository.
#[derive(Debug, thiserror::Error)]
#[error("\"{destination}\" is the same repository as \"{source_url}\": both have the id {id}")]
pub struct SameRepository {
    pub source_url: String,
    pub destination: String,
    pub id: String,
}

/// The destination has another cluster of that name.
#[derive(Debug, thiserror::Error)]
#[error(
    "repository \"{destination}\" has a cluster \"{name}\" with system identifier {found}; the one to copy has {expected}"
)]
pub struct OtherCluster {
    pub destination: String,
    pub name: ClusterName,
    pub found: String,
    pub expected: String,
}

/// Opens the destination, and makes it a repository with this cluster where it is not one yet; says whether it was.
/// Errors: [`SameRepository`], [`OtherCluster`], or the store's.
pub async fn open_destination(
    source: &Cluster,
    storage: Arc<dyn Storage>,
    now: DateTime<Utc>,
) -> anyhow::Result<(Cluster, bool)> {
    let (repository, created) = Repository::init(storage, now).await?;
    if repository.marker().id == source.repository.marker().id {
        let (source_url, destination) = (source.repository.describe(), repository.describe());
        return Err(SameRepository { source_url, destination, id: repository.marker().id.clone() })
            .hint("name another destination; one that was copied by other means carries its source's walden.json");
    }
    let ours = &source.description;
    match Cluster::open(repository.clone(), ours.name.clone()).await {
        Ok(theirs) if theirs.description.system_identifier != ours.system_identifier => {
            let (found, expected) = (theirs.description.system_identifier, ours.system_identifier);
            let (found, expected) = (found.to_string(), expected.to_string());
            return Err(OtherCluster {
                destination: repository.describe(),
                name: ours.name.clone(),
                found,
                expected,
            })
            .hint("copy into another repository: names and what lies below them are never mixed");
        }
        Err(error) if find::<NotRegistered>(&error).is_none() => return Err(error),
        _ => (),
    }
    Ok((
        Cluster::register(repository, ours.clone()).await?.0,
        created,
    ))
}

/// Copies. What is damaged, missing or in conflict is told in the result, and the rest is copied. Errors: a repository
/// did not answer; the next run goes on where this one ended.
pub async fn copy(
    source: &Cluster,
    destination: &Cluster,
    options: &CopyOptions,
    progress: Arc<CopyProgress>,
) -> anyhow::Result<Copied> {
    let needs = match &options.backup {
        Some(id) => {
            let loaded = load_backups(source).await?;
            let backup = loaded.complete.iter().find(|backup| backup.id == *id);
            backup.map_or_else(Needs::everything, Needs::of_backup)
        }
        None => Needs::everything(),
    };
    let own = || LeaseContent::own(LeaseKind::Copy, needs.clone(), LEASE);
    let reading = patiently(options, &progress, || register(source, own())).await?;
    let copying = async {
        let writer = || register_writer(destination, own());
        let writing = patiently(options, &progress, writer).await?;
        let copying = copy_registered(source, destination, options, progress.clone());
        let copied = writing.while_held(copying).await;
        writing.release().await;
        copied
    };
    match reading {
        Ok(reading) => {
            let copied = reading.while_held(copying).await;
            reading.release().await;
            copied
        }
        // As with credentials that may only read.
        Err(error) => {
            tracing::info!("{}", one_line(&error.into()));
            copying.await
        }
    }
}

/// Registers the copy, so that retention deletes nothing of what it reads, nor what it brings before a backup is whole. A
/// deletion that is under way is waited for. Errors: it takes too long, or the repository did not answer.
async fn patiently<T, F: Future<Output = anyhow::Result<T>>>(
    options: &CopyOptions,
    progress: &CopyProgress,
    registered: impl Fn() -> F,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match registered().await {
            Err(error)
                if options.backup.is_none()
                    && find::<BeingDeleted>(&error).is_some()
                    && begun.elapsed() < PATIENCE =>
            {
                progress.set_phase("waiting until retention has deleted");
                sleep(LOOK_AGAIN).await;
            }
            registered => return registered,
        }
    }
}

async fn copy_registered(
    source: &Cluster,
    destination: &Cluster,
    options: &CopyOptions,
    progress: Arc<CopyProgress>,
) -> anyhow::Result<Copied> {
    let mut before = wanted(source, options.backup.as_ref()).await?;
    // What is asked for by name is brought back.
    let let_go = match options.backup {
        Some(_) => LetGo::default(),
        None => LetGo::load(destination).await?,
    };
    let_go.forget_in(&mut before);
    let dumps = match options.backup {
        Some(_) => Vec::new(),
        None => let_go.others(list(source, None).await?.complete),
    };
    let dump_bytes: u64 = dumps.iter().map(ListedDump::bytes).sum();
    for capability in source.repository.required().await? {
        destination.repository.require(&capability).await?;
    }
    progress
        .total
        .store(before.stored_bytes() + dump_bytes, Ordering::Relaxed);
    let copier = Arc::new(Copier::new(
        source.clone(),
        destination.clone(),
        options,
        progress,
    ));
    unusable(&copier, &before)?;
    let mut foreign = std::mem::take(&mut before.wal.foreign);
    foreign.extend(all_of(&copier, &before, options.backup.is_none(), &let_go).await?);
    copier.dumps(&dumps).await?;
    note(destination, before.wal.ranges.expired()).await?;
    let after = load(destination).await?;
    let continuity = proof::prove(&before, &after, &source.layout);
    let (counts, failures, more_failures) = copier.results();
    Ok(Copied {
        cluster: source.description.name.clone(),
        source: source.repository.describe(),
        destination: destination.repository.describe(),
        complete: failures.is_empty() && continuity.is_whole(),
        counts,
        failures,
        more_failures,
        continuity,
        source_gaps: TimelinePath::all_gaps(&before.paths(), &before.wal.ranges),
        unfinished: before.unfinished,
        foreign,
    })
}

/// Notes the backups that cannot be copied.
fn unusable(copier: &Copier, before: &Snapshot) -> anyhow::Result<()> {
    for (id, ObjectProblem { problem, why }) in &before.unusable {
        let key = copier.source.layout.manifest(id);
        copier.failed(CopySide::Source, &key, *problem, why.clone())?;
    }
    Ok(())
}

/// What the source has, or of it what one backup needs.
async fn wanted(source: &Cluster, backup: Option<&BackupId>) -> anyhow::Result<Snapshot> {
    let all = load(source).await?;
    let Some(id) = backup else { return Ok(all) };
    if let Some((_, ObjectProblem { why, .. })) =
        all.unusable.iter().find(|(unusable, _)| unusable == id)
    {
        return Err(anyhow!("backup {id} cannot be copied: {why}"))
            .hint("`walden backup list` shows all backups");
    }
    all.only(id)
        .map_or_else(|| NoSuchBackup::error(source, id), Ok)
}

/// Copies in an order in which the destination is sound at each moment; what else lies at the source.
async fn all_of(
    copier: &Arc<Copier>,
    before: &Snapshot,
    everything: bool,
    let_go: &LetGo,
) -> anyhow::Result<Vec<String>> {
    // History files first: with them the destination never takes an old timeline for the last.
    named(
        copier,
        before
            .wal
            .histories
            .iter()
            .map(|timeline| WalFileName::History(*timeline)),
    )
    .await?;
    match everything {
        true => all_wal(copier, true, let_go).await?,
        false => named(copier, before.segments().map(WalFileName::Segment)).await?,
    }
    for backup in &before.backups {
        copier.backup(before, backup).await?;
    }
    let mut foreign = all_names(copier).await?;
    if everything {
        all_wal(copier, false, let_go).await?;
        foreign.extend(all_small(copier, CopyGroup::Idle).await?);
        copier.evidence().await?;
    }
    Ok(foreign)
}

async fn load(cluster: &Cluster) -> anyhow::Result<Snapshot> {
    // Backups first: the WAL of one that was complete by then is in the listing that follows.
    let backups = load_backups(cluster).await?;
    let wal = load_wal(cluster).await?;
    let histories: BTreeMap<_, _> = load_histories(cluster, &wal.histories).await?.known;
    let damaged = backups
        .damaged
        .into_iter()
        .map(|(id, why)| (id, ObjectProblem::damaged(why)));
    let unread = backups.unread.into_iter().map(|(id, why)| {
        (
            id,
            ObjectProblem {
                problem: ProblemKind::Unread,
                why,
            },
        )
    });
    let unusable = damaged.chain(unread).collect();
    Ok(Snapshot {
        backups: Arc::unwrap_or_clone(backups.complete),
        unusable,
        unfinished: backups.unfinished,
        wal,
        histories,
    })
}

/// Copies these WAL files.
async fn named(
    copier: &Arc<Copier>,
    names: impl Iterator<Item = WalFileName>,
) -> anyhow::Result<()> {
    let mut pool = TaskPool::new(copier.workers);
    for name in names {
        let copier = copier.clone();
        pool.add(async move { copier.named_wal(name).await })
            .await?;
    }
    pool.finish().await?;
    Ok(())
}

/// Copies all recordings of names, also those that were merged meanwhile.
async fn all_names(copier: &Arc<Copier>) -> anyhow::Result<Vec<String>> {
    loop {
        let foreign = all_small(copier, CopyGroup::Names).await?;
        if !copier.merged.swap(false, Ordering::SeqCst) {
            return Ok(foreign);
        }
    }
}

/// Copies all recordings of names, or all idle markers; what else lies there.
async fn all_small(copier: &Arc<Copier>, group: CopyGroup) -> anyhow::Result<Vec<String>> {
    let mut pool = TaskPool::new(copier.workers);
    let layout = &copier.source.layout;
    let (folder, kind, most) = match group {
        CopyGroup::Idle => (layout.idle_folder(), idle::KIND, idle::LONGEST),
        _ => (layout.names_folder(), recordings::KIND, recordings::LONGEST),
    };
    let (mut walk, mut foreign) = (Walk::new(folder), Vec::new());
    while let Some(meta) = walk.next(copier.source.repository.storage()).await? {
        if layout.parse(&meta.key).is_none() {
            foreign.push(meta.key.to_string());
            continue;
        }
        let copier = copier.clone();
        pool.add(async move { copier.small(meta.key, group, (kind, most)).await })
            .await?;
    }
    pool.finish().await?;
    Ok(foreign)
}

/// Copies all WAL files that the destination has not. Both listings go by key, so they are read side by side. With
/// `compare` those that it has are compared, and history files are left out: they were copied before.
async fn all_wal(copier: &Arc<Copier>, compare: bool, let_go: &LetGo) -> anyhow::Result<()> {
    let mut pool = TaskPool::new(copier.workers);
    let (mut ours, mut theirs) = (list_wal(&copier.source), list_wal(&copier.destination));
    let mut next: Option<ObjectMeta> = theirs.next().await?.map(|(_, meta)| meta);
    while let Some((name, meta)) = ours.next().await? {
        let Some(name) = name.filter(|name| !compare || !matches!(name, WalFileName::History(_)))
        else {
            continue;
        };
        while next.as_ref().is_some_and(|next| next.key < meta.key) {
            next = theirs.next().await?.map(|(_, meta)| meta);
        }
        let there = next
            .as_ref()
            .filter(|next| next.key == meta.key)
            .map(|next| next.size);
        if there.is_none() && !let_go.has(&name) || there.is_some() && compare {
            let copier = copier.clone();
            pool.add(async move { copier.wal(name, meta.size, there).await })
                .await?;
        }
    }
    pool.finish().await?;
    Ok(())
}
