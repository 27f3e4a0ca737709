//! Is it whole: WAL, one backup, or everything of a cluster? Everything is read in the order of the keys (backups, dumps,
//! names, idle markers, then WAL), so that a verification which was interrupted goes on where it ended. Manifests, history files
//! and what ought to be there are always checked; of segments and packs a sample may do.

mod backup;
mod dumps;
mod findings;
mod report;
mod wal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, anyhow};

use super::sample::{Lowest, Watermark};
use super::{MAX_TOLD, MAX_UNREAD, Sample, SampleExtent, TaskPool, whole_pack};
use crate::budget::Budget;
use crate::error::find;
use crate::postgres::backup::{delete::NoSuchBackup, manifest};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::list;
use crate::postgres::idle;
use crate::postgres::index::recordings;
use crate::postgres::layout::{BackupId, DumpId, DumpObject, ObjectKind, PackName};
use crate::postgres::load::{LoadedBackups, load_backups};
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::types::WalFileName;
use crate::repo::{ObjectError, SealedObject, is_unusable};
use crate::storage::{Key, ObjectMeta, StorageError, Walk};

pub use findings::{ColdFound, Damage, Finding, Findings};
pub use report::{VerifyOptions, VerifyProgress, VerifyReport, VerifyResult, VerifyScope};

#[derive(Debug, Default)]
struct VerifyState {
    found: VerifyResult,
    mark: Watermark,
    unread: u64,
    /// Packs of a sample that were read.
    packs: BTreeSet<Key>,
}

/// A verification that is under way or over.
pub struct Verification {
    cluster: Cluster,
    options: VerifyOptions,
    /// `None`: everything is read. Set once the objects are counted.
    sample: OnceLock<Option<Sample>>,
    budget: Budget,
    /// Segments so far, from a random number on.
    number: AtomicU64,
    state: Mutex<VerifyState>,
    pub progress: VerifyProgress,
}

impl Verification {
    /// Nothing read yet.
    pub fn new(cluster: Cluster, options: VerifyOptions) -> Self {
        let (budget, state, progress) = (
            Budget::new(options.memory),
            Mutex::default(),
            VerifyProgress::default(),
        );
        let number = AtomicU64::new(options.seed);
        Self {
            cluster,
            options,
            sample: OnceLock::new(),
            budget,
            number,
            state,
            progress,
        }
    }

    /// Reads and verifies. Errors: the repository does not answer; what was found until then is in the
    /// [report](Self::report).
    pub async fn run(self: &Arc<Self>) -> anyhow::Result<()> {
        match &self.options.scope {
            VerifyScope::All => self.all().await,
            VerifyScope::Wal { .. } => self.wal().await,
            VerifyScope::Backup(id) => self.backup(id).await,
        }
    }

    async fn all(self: &Arc<Self>) -> anyhow::Result<()> {
        let backups = load_backups(&self.cluster).await?;
        self.survey(&backups).await?;
        self.state().found.unfinished = backups.unfinished.clone();
        let mut ids: Vec<&BackupId> = backups.complete.iter().map(|backup| &backup.id).collect();
        ids.extend(backups.unusable().map(|(id, _)| id));
        ids.sort();
        for id in ids {
            let key = self.cluster.layout.manifest(id);
            if self.is_done(&key) {
                continue;
            }
            let unread = self.state().unread;
            self.state().mark.begin(key.clone());
            match self.sample() {
                None => match self.backup(id).await {
                    Ok(()) => (),
                    Err(error) => self.note_error(&key, error)?,
                },
                Some(sample) => self.sample_of_backup(id, sample).await?,
            }
            self.over(&key, unread);
            self.state().found.backups += 1;
        }
        self.dumps().await?;
        self.small(self.cluster.layout.names_folder()).await?;
        self.small(self.cluster.layout.idle_folder()).await?;
        self.wal().await
    }

    /// Work on a key ended; `unread`: how many objects could not be read before.
    fn over(&self, key: &Key, unread: u64) {
        let mut state = self.state();
        match state.unread == unread {
            true => state.mark.end(key),
            false => state.mark.fail(key),
        }
    }

    /// Reads all recordings of names, or all idle markers.
    async fn small(&self, folder: String) -> anyhow::Result<()> {
        let mut walk = Walk::new(folder);
        while let Some(ObjectMeta { key, .. }) =
            walk.next(self.cluster.repository.storage()).await?
        {
            let kind = self.cluster.object_kind(&key);
            if self.is_done(&key)
                || !matches!(kind, Some(ObjectKind::Names(_) | ObjectKind::Idle(_)))
            {
                continue;
            }
            self.state().mark.begin(key.clone());
            let read = match kind {
                Some(ObjectKind::Idle(mark)) => idle::check(&self.cluster, &key, &mark).await,
                _ => recordings::load(&self.cluster, &key).await.map(drop),
            };
            let unread = read.as_ref().is_err_and(|error| !is_unusable(error));
            match read {
                Ok(()) => (),
                Err(error) if unread => self.note(key.as_str(), ObjectProblem::unread(&error))?,
                Err(error) => self.note(key.as_str(), ObjectProblem::unusable(&error))?,
            }
            let mut state = self.state();
            match unread {
                true => state.mark.fail(&key),
                false => state.mark.end(&key),
            }
        }
        Ok(())
    }

    /// What was found so far.
    pub fn report(&self, finished: bool) -> VerifyReport {
        let state = self.state();
        let found = state.found.clone();
        VerifyReport {
            cluster: self.cluster.description.name.clone(),
            repository: self.cluster.repository.describe(),
            sound: found.is_sound(),
            finished,
            began_after: self.options.after.as_ref().map(Key::to_string),
            done: state
                .mark
                .done
                .as_ref()
                .or(self.options.after.as_ref())
                .map(Key::to_string),
            seed: (self.options.extent != SampleExtent::All).then_some(self.options.seed),
            found,
        }
    }

    fn state(&self) -> MutexGuard<'_, VerifyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> VerifyResult {
        self.state().found.clone()
    }

    fn sample(&self) -> Option<Sample> {
        self.sample.get().copied().flatten()
    }

    fn is_done(&self, key: &Key) -> bool {
        self.options
            .after
            .as_ref()
            .is_some_and(|after| key <= after)
    }

    /// Lists everything: which objects make the sample, what does not belong there, and how much there is to read.
    async fn survey(&self, backups: &LoadedBackups) -> anyhow::Result<()> {
        let sample = match self.options.extent {
            SampleExtent::All => None,
            SampleExtent::Percent(percent) => Some(Sample::percent(self.options.seed, percent)),
            SampleExtent::Objects(count) => Some(Sample::lowest(
                self.options.seed,
                self.lowest(count, backups).await?,
            )),
        };
        let _ = self.sample.set(sample);
        let waits =
            |backup: &&BackupDescription| !self.is_done(&self.cluster.layout.manifest(&backup.id));
        let mut bytes = match sample {
            None => backups
                .complete
                .iter()
                .filter(waits)
                .map(|backup| backup.plain_bytes)
                .sum(),
            Some(_) => 0,
        };
        let mut walk = Walk::new(self.cluster.layout.folder());
        while let Some(meta) = self.next(&mut walk).await? {
            bytes += match self.cluster.object_kind(&meta.key) {
                Some(ObjectKind::Wal(name)) if self.wants_wal(&meta.key, name) => match name {
                    WalFileName::Segment(_) | WalFileName::Partial(_) => {
                        self.cluster.description.segment_size.bytes()
                    }
                    _ => 0,
                },
                Some(ObjectKind::Pack(pack)) if self.wants_pack(&pack) => meta.size,
                Some(ObjectKind::Dump(id, object))
                    if self.sample().is_none() && object.is_content() =>
                {
                    let key = self.cluster.layout.dump(&id, &DumpObject::Manifest);
                    if self.is_done(&key) { 0 } else { meta.size }
                }
                Some(_) => 0,
                None => self.note_foreign(&meta.key),
            };
        }
        self.progress.total.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The next object. A folder that the store does not give, while it gives others, is noted.
    async fn next(&self, walk: &mut Walk) -> anyhow::Result<Option<ObjectMeta>> {
        loop {
            let error = match walk.next(self.cluster.repository.storage()).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            self.cluster.confirm().await?;
            self.note(&error.key.clone(), ObjectProblem::unread(&error.into()))?;
        }
    }

    /// The lowest numbers of all segments, and of all packs that complete backups need: no others are read. Also of
    /// those before `after`, so that going on reads the rest of the same sample.
    async fn lowest(&self, count: u32, backups: &LoadedBackups) -> anyhow::Result<Lowest> {
        let mut needed: BTreeSet<PackName> = BTreeSet::new();
        for backup in backups.complete.iter() {
            // Damage is told when the backup's turn comes, and none of its packs is read then.
            match self
                .manifest(&self.cluster.layout.manifest(&backup.id))
                .await
            {
                Ok(read) => {
                    needed.extend(read.into_iter().flat_map(|(_, packs)| packs.into_keys()))
                }
                Err(error) if !is_unusable(&error) => return Err(error),
                Err(_) => (),
            }
        }
        let dumps = list(&self.cluster, None).await?.complete;
        let dumps: BTreeSet<DumpId> = dumps.into_iter().map(|dump| dump.id).collect();
        let mut lowest = Lowest::new(self.options.seed, count);
        let mut walk = Walk::new(self.cluster.layout.folder());
        while let Some(meta) = self.next(&mut walk).await? {
            match self.cluster.object_kind(&meta.key) {
                Some(ObjectKind::Wal(WalFileName::Segment(_))) => lowest.add(&meta.key),
                Some(ObjectKind::Pack(pack)) if needed.contains(&pack) => lowest.add(&meta.key),
                Some(ObjectKind::Dump(id, object))
                    if object.is_content() && dumps.contains(&id) =>
                {
                    lowest.add(&meta.key)
                }
                _ => (),
            }
        }
        self.state().found.drawn = Some(lowest.drawn());
        Ok(lowest)
    }

    /// Nothing to read.
    fn note_foreign(&self, key: &Key) -> u64 {
        let mut state = self.state();
        if state.found.foreign.len() < MAX_TOLD {
            state.found.foreign.push(key.to_string());
        }
        0
    }

    fn wants_wal(&self, key: &Key, name: WalFileName) -> bool {
        let is_segment = matches!(name, WalFileName::Segment(_));
        let chosen = || match self.options.scope {
            VerifyScope::Wal { every } => self
                .number
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(every.max(1)),
            _ => self.sample().is_none_or(|sample| sample.holds(key)),
        };
        !self.is_done(key) && (!is_segment || chosen())
    }

    /// Whether a pack is read by itself, for a sample. It belongs to its backup, and goes with its manifest.
    fn wants_pack(&self, pack: &PackName) -> bool {
        let key = self.cluster.layout.pack(pack);
        !self.is_done(&self.cluster.layout.manifest(&pack.backup))
            && self.sample().is_some_and(|one| one.holds(&key))
    }

    /// Notes what is wrong with an object. Errors: so many could not be read that the repository is taken for gone.
    fn note(&self, object: &str, why: ObjectProblem) -> anyhow::Result<()> {
        self.note_file(object, why, None)
    }

    /// The same, of an object without which a file of a backup cannot be restored.
    fn note_file(
        &self,
        object: &str,
        why: ObjectProblem,
        file: Option<String>,
    ) -> anyhow::Result<()> {
        let mut state = self.state();
        if why.problem == ProblemKind::Cold {
            state.found.cold.add(object, file.is_some());
            return Ok(());
        }
        if why.problem == ProblemKind::Unread {
            state.unread += 1;
            if state.unread > MAX_UNREAD && self.options.scope == VerifyScope::All {
                return Err(anyhow!(
                    "more than {MAX_UNREAD} objects cannot be read, the last: object \"{object}\": {why}"
                ));
            }
        }
        state.found.findings.add(object, why, file);
        Ok(())
    }

    /// An error of one object: the store did not give it. Others are passed on.
    fn note_error(&self, key: &Key, error: anyhow::Error) -> anyhow::Result<()> {
        match find::<StorageError>(&error) {
            Some(unanswered) => self.note(&unanswered.key.clone(), ObjectProblem::unread(&error)),
            // Deleted meanwhile.
            None if find::<NoSuchBackup>(&error).is_some() => Ok(()),
            None if !is_unusable(&error) => self.note(key.as_str(), ObjectProblem::unread(&error)),
            None => self.note(key.as_str(), ObjectProblem::unusable(&error)),
        }
    }

    /// A manifest's description, and the packs that it names. `None`: it was deleted meanwhile.
    async fn manifest(
        &self,
        key: &Key,
    ) -> anyhow::Result<Option<(BackupDescription, BTreeMap<PackName, u64>)>> {
        let repository = &self.cluster.repository;
        let read = repository
            .get_verified(key, manifest::KIND, manifest::LONGEST)
            .await;
        let Some(object) = read.map_err(cause)? else {
            return Ok(None);
        };
        let description = object
            .header()
            .about
            .read()
            .context("its description cannot be read")?;
        let scan = tokio::task::spawn_blocking(move || manifest::needed_packs(&object));
        Ok(Some((
            description,
            scan.await
                .context("the thread that reads a manifest failed")??,
        )))
    }

    async fn pack(&self, key: &Key, size: u64) -> anyhow::Result<bool> {
        let _share = self.budget.share(size).await;
        let read = whole_pack(&self.cluster, key).await;
        if !matches!(
            read,
            Err(ObjectProblem {
                problem: ProblemKind::Unread | ProblemKind::Cold | ProblemKind::Missing,
                ..
            })
        ) {
            // One that was read counts once, whole or not.
            let mut state = self.state();
            state.found.sampled += u64::from(state.packs.insert(key.clone()));
        }
        match read {
            Ok((_, bytes)) => {
                self.progress.done.fetch_add(size, Ordering::Relaxed);
                let mut state = self.state();
                (state.found.packs, state.found.plain_bytes) =
                    (state.found.packs + 1, state.found.plain_bytes + bytes);
                Ok(true)
            }
            Err(why) => self.note(key.as_str(), why).map(|()| false),
        }
    }
}

/// Why an object is damaged, without its key, which is told beside it.
fn cause(error: ObjectError) -> anyhow::Error {
    match error {
        ObjectError::Damaged { source, .. } => source.into(),
        other => other.into(),
    }
}

/// Verifies without a sample or a beginning. Errors: there is no such backup, or the store did not answer.
pub async fn verify(
    cluster: &Cluster,
    scope: VerifyScope,
    workers: usize,
) -> anyhow::Result<VerifyResult> {
    let verification = plain(cluster, scope, workers)?;
    verification.run().await?;
    Ok(verification.found())
}

/// Reads all files back that a manifest, whose content was verified, lists. Errors: the store did not answer.
pub async fn read_back(
    cluster: &Cluster,
    id: &BackupId,
    manifest: SealedObject,
    workers: usize,
) -> anyhow::Result<Findings> {
    let verification = plain(cluster, VerifyScope::Backup(id.clone()), workers)?;
    verification.content(id, manifest).await?;
    Ok(verification.found().findings)
}

fn plain(
    cluster: &Cluster,
    scope: VerifyScope,
    workers: usize,
) -> anyhow::Result<Arc<Verification>> {
    let options = VerifyOptions {
        scope,
        extent: SampleExtent::All,
        seed: getrandom::u64()?,
        after: None,
        workers,
        memory: 0,
    };
    Ok(Arc::new(Verification::new(cluster.clone(), options)))
}

#[cfg(test)]
mod tests;
