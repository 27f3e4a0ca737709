//! One backup into the other repository: its packs, then, after reading them back, its manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;

use super::proof::{Snapshot, needed};
use super::transfer::{AGAIN, Came, Copier, CopyGroup, CopySide};
use crate::error::{Hint, one_line};
use crate::postgres::backup::manifest;
use crate::postgres::backup::wal::is_proven;
use crate::postgres::catalog::BackupDescription;
use crate::postgres::layout::{BackupId, PackName};
use crate::postgres::object_problem::{ObjectProblem, ProblemKind};
use crate::postgres::repository::verify::read_back;
use crate::postgres::repository::{TaskPool, pack_sizes, whole_pack};
use crate::repo::{ObjectError, SealedObject, is_unusable};
use crate::storage::Key;

/// What is to be done about a pack that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PackAction {
    Copy(u64),
    Present,
    Fail(ProblemKind),
}

/// Decides by the pack's size at the source and at the destination; the manifest needs `least` bytes of it.
fn step(source: Option<u64>, destination: Option<u64>, least: u64) -> PackAction {
    match (source, destination) {
        (None, None) => PackAction::Fail(ProblemKind::Missing),
        (Some(size), _) if size < least => PackAction::Fail(ProblemKind::Damaged),
        (Some(size), None) => PackAction::Copy(size),
        (Some(size), Some(there)) if size != there => PackAction::Fail(ProblemKind::Conflict),
        // Lost at the source since an earlier copy.
        (None, Some(there)) if there < least => PackAction::Fail(ProblemKind::Missing),
        _ => PackAction::Present,
    }
}

impl Copier {
    /// Copies a backup: the packs, then, after reading them back, the manifest. The WAL it needs was copied before.
    pub async fn backup(
        self: &Arc<Self>,
        before: &Snapshot,
        backup: &BackupDescription,
    ) -> anyhow::Result<()> {
        let (key, kind) = (self.source.layout.manifest(&backup.id), manifest::KIND);
        self.progress.set_phase(format!("backup {}", backup.id));
        // Not of the budget: there is one manifest at a time, and its packs must find room beside it.
        let read = self
            .source
            .repository
            .get_verified(&key, kind, manifest::LONGEST)
            .await;
        let Some(manifest) = self.given(&key, read.map_err(ObjectProblem::from))? else {
            return Ok(());
        };
        let scanned = manifest.clone();
        let scan = tokio::task::spawn_blocking(move || manifest::needed_packs(&scanned));
        let packs = match scan
            .await
            .context("the thread that reads a manifest failed")?
        {
            Ok(packs) => packs,
            Err(error) => {
                return self
                    .failed(
                        CopySide::Source,
                        &key,
                        ProblemKind::Damaged,
                        one_line(&error),
                    )
                    .map(drop);
            }
        };
        let Some(present) = self.has_manifest(&key, kind, &manifest).await? else {
            return Ok(());
        };
        // The packs of a backup that is there are not read back.
        let there = if present {
            Came::NotRead
        } else {
            Came::Present
        };
        let whole = self.packs(&backup.id, packs, there).await?;
        if present {
            self.count(CopyGroup::Backups, 0, Came::NotRead);
        } else if whole
            && self.has_wal(before, backup).await?
            && self.reads_back(&backup.id, manifest.clone()).await?
        {
            self.store(
                &key,
                manifest.into_bytes(),
                CopyGroup::Backups,
                Came::NotRead,
            )
            .await?;
        }
        Ok(())
    }

    /// Whether the destination has a manifest; `None` after noting that it is another one, or of no use.
    pub(super) async fn has_manifest(
        &self,
        key: &Key,
        kind: &str,
        manifest: &SealedObject,
    ) -> anyhow::Result<Option<bool>> {
        let theirs = match self.destination.repository.header(key, kind).await {
            Err(ObjectError::Storage(error)) => return Err(error).hint(AGAIN),
            theirs => theirs.map_err(ObjectProblem::from),
        };
        let (problem, why) = match theirs {
            Ok(None) => return Ok(Some(false)),
            Ok(Some(theirs)) if theirs.plain == manifest.header().plain => return Ok(Some(true)),
            Ok(Some(_)) => (
                ProblemKind::Conflict,
                "the destination has another one of that name".to_string(),
            ),
            Err(ObjectProblem { problem, why }) => (problem, why),
        };
        self.failed(CopySide::Destination, key, problem, why)
            .map(|_| None)
    }

    /// Copies packs; whether all are at the destination. Those that were `there` before count as that.
    async fn packs(
        self: &Arc<Self>,
        id: &BackupId,
        needed: BTreeMap<PackName, u64>,
        there: Came,
    ) -> anyhow::Result<bool> {
        let mut pool = TaskPool::new(self.workers);
        let mut whole = true;
        let mut sizes: BTreeMap<BackupId, [BTreeMap<Key, u64>; 2]> = BTreeMap::new();
        for (pack, least) in needed {
            if !sizes.contains_key(&pack.backup) {
                let both = [
                    pack_sizes(&self.source, &pack.backup).await.hint(AGAIN)?,
                    pack_sizes(&self.destination, &pack.backup)
                        .await
                        .hint(AGAIN)?,
                ];
                sizes.insert(pack.backup.clone(), both);
            }
            let key = self.source.layout.pack(&pack);
            let size = |side: usize| {
                sizes
                    .get(&pack.backup)
                    .and_then(|both| both[side].get(&key).copied())
            };
            whole &= match step(size(0), size(1), least) {
                PackAction::Present => {
                    self.count(CopyGroup::Packs, size(1).unwrap_or_default(), there)
                }
                PackAction::Copy(size) => {
                    let copier = self.clone();
                    pool.add(async move { copier.pack(&key, size, there).await })
                        .await?;
                    true
                }
                PackAction::Fail(problem) => {
                    let why = match problem {
                        ProblemKind::Conflict => "its size is not that of the source's".to_string(),
                        ProblemKind::Damaged => {
                            format!("it has not the {least} bytes that backup {id} needs")
                        }
                        _ => format!("backup {id} needs it, and there is no such object"),
                    };
                    let at = if problem == ProblemKind::Conflict {
                        CopySide::Destination
                    } else {
                        CopySide::Source
                    };
                    self.failed(at, &key, problem, why)?
                }
            };
        }
        Ok(pool.finish().await? && whole)
    }

    async fn pack(&self, key: &Key, size: u64, there: Came) -> anyhow::Result<bool> {
        let _share = self.budget.share(size).await;
        let read = whole_pack(&self.source, key)
            .await
            .map(|(object, _)| Some(object));
        let Some(object) = self.given(key, read)? else {
            return Ok(false);
        };
        self.store(key, object, CopyGroup::Packs, there).await
    }

    /// Whether the destination has all WAL of a backup that the source has: what the source lacks is its own loss.
    async fn has_wal(&self, before: &Snapshot, backup: &BackupDescription) -> anyhow::Result<bool> {
        for name in needed(backup).files(backup.segment_size) {
            match is_proven(&self.destination, &name).await {
                Ok(true) => (),
                Ok(false) if before.has(&name) => return Ok(false),
                Ok(false) => (),
                Err(error) if !is_unusable(&error) => return Err(error).hint(AGAIN),
                Err(error) => {
                    let ObjectProblem { problem, why } = ObjectProblem::unusable(&error);
                    return self.failed(
                        CopySide::Destination,
                        &self.destination.layout.wal(&name),
                        problem,
                        why,
                    );
                }
            }
        }
        Ok(true)
    }

    /// Reads all files of a backup from the destination; whether all have the digests of the `manifest`.
    async fn reads_back(&self, id: &BackupId, manifest: SealedObject) -> anyhow::Result<bool> {
        self.progress.set_phase(format!("reading backup {id} back"));
        let findings = read_back(&self.destination, id, manifest, self.workers)
            .await
            .hint(AGAIN)?;
        for damage in findings.damages() {
            let key =
                Key::new(damage.object).unwrap_or_else(|_| self.destination.layout.manifest(id));
            self.failed(
                CopySide::Destination,
                &key,
                damage.problem,
                damage.why.to_string(),
            )?;
        }
        Ok(findings.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_copied_once_and_never_over_another() {
        assert_eq!(step(Some(10), None, 10), PackAction::Copy(10));
        assert_eq!(step(Some(10), Some(10), 10), PackAction::Present);
        assert_eq!(
            step(Some(10), Some(9), 5),
            PackAction::Fail(ProblemKind::Conflict)
        );
        assert_eq!(
            step(Some(9), None, 10),
            PackAction::Fail(ProblemKind::Damaged)
        );
        assert_eq!(step(None, None, 10), PackAction::Fail(ProblemKind::Missing));
        assert_eq!(step(None, Some(10), 10), PackAction::Present);
        assert_eq!(
            step(None, Some(9), 10),
            PackAction::Fail(ProblemKind::Missing)
        );
    }
}
