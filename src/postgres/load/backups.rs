//! Reading of backups no more than is new, or than a question needs: there may be thousands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Loaded, LoadedBackups, PARALLEL_READS, begun, is_lasting, list_backups, read_descriptions,
};
use crate::error::one_line;
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::storage::Watched;

/// Backups behind which new ones are expected: another host's clock may be late.
const LATE: usize = 4;
/// Complete backups that each look asks after, others each time: a manifest can go before its folder does.
const AGAIN: usize = 2;
/// Damaged ones that each look reads again, others each time.
const DAMAGED_AGAIN: usize = 4;
/// The newest backups are looked for among those of so many days, then among all.
const RECENT: TimeDelta = TimeDelta::days(35);

/// All base backups, as they were read once: a complete one never changes.
#[derive(Debug)]
pub struct KeptBackups {
    folder: Watched,
    /// The folder's changes that were taken in.
    seen: u64,
    /// Oldest first; shared with what was given.
    complete: Arc<Vec<BackupDescription>>,
    damaged: BTreeMap<BackupId, String>,
    /// The store gives others, not these.
    unread: BTreeMap<BackupId, String>,
    /// All others: also those of which there is nothing but a folder yet.
    unfinished: BTreeSet<BackupId>,
    /// The last ones that it was the turn of.
    asked: Option<BackupId>,
    read_again: [Option<BackupId>; 2],
}

/// Those behind the last one that it was the turn of, so many, then from the beginning. `all` ascends.
fn turn<'a>(
    all: impl Iterator<Item = &'a BackupId>,
    last: &mut Option<BackupId>,
    most: usize,
) -> BTreeSet<BackupId> {
    let behind = all.skip_while(|id| last.as_ref().is_some_and(|last| *id <= last));
    let next: BTreeSet<BackupId> = behind.take(most).cloned().collect();
    *last = next.last().cloned().filter(|_| next.len() == most);
    next
}

impl KeptBackups {
    /// None is known yet.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            folder: Watched::new(cluster.layout.base_folder()),
            seen: 0,
            complete: Arc::default(),
            damaged: BTreeMap::new(),
            unread: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            asked: None,
            read_again: [None, None],
        }
    }

    /// Reads what came, forgets what went, and gives what there is. A backup that was taken or deleted in a folder shows at
    /// once; in a store without folders a new one shows at once, too, and one that went after as many looks as there are
    /// thousands of backups. Errors: the store did not answer.
    pub async fn refresh(&mut self, cluster: &Cluster) -> anyhow::Result<LoadedBackups> {
        let late = self.folder.names().iter().rev().nth(LATE).cloned();
        self.folder
            .poll(cluster.repository.storage(), late.as_slice(), false)
            .await?;
        self.take_in_names(cluster);
        self.miss_manifests(cluster).await?;
        let [damaged, unread] = &mut self.read_again;
        let mut again = turn(self.damaged.keys(), damaged, DAMAGED_AGAIN);
        again.append(&mut turn(self.unread.keys(), unread, DAMAGED_AGAIN));
        again.extend(self.unfinished.iter().cloned());
        let mut read = Vec::new();
        let all_read = read_descriptions(cluster, again, |id, found| {
            read.push((id, found));
            Ok(())
        });
        let all_read = all_read.await;
        self.add(read);
        all_read?;
        let mut loaded = LoadedBackups {
            complete: self.complete.clone(),
            damaged: self.damaged.clone().into_iter().collect(),
            unread: self.unread.clone().into_iter().collect(),
            unfinished: Vec::new(),
        };
        for id in &self.unfinished {
            if let Some(found) = begun(cluster, id).await? {
                loaded.add(id.clone(), found);
            }
        }
        Ok(loaded)
    }

    /// Takes in which backups there are, if others than before.
    fn take_in_names(&mut self, cluster: &Cluster) {
        if self.seen == self.folder.changes() {
            return;
        }
        let there = self
            .folder
            .names()
            .iter()
            .filter_map(|name| cluster.layout.parse_backup_folder(name));
        let mut there: BTreeSet<BackupId> = there.collect();
        if self
            .complete
            .iter()
            .any(|backup| !there.contains(&backup.id))
        {
            Arc::make_mut(&mut self.complete).retain(|backup| there.contains(&backup.id));
        }
        self.damaged.retain(|id, _| there.contains(id));
        self.unread.retain(|id, _| there.contains(id));
        for id in self
            .complete
            .iter()
            .map(|backup| &backup.id)
            .chain(self.damaged.keys())
            .chain(self.unread.keys())
        {
            there.remove(id);
        }
        (self.unfinished, self.seen) = (there, self.folder.changes());
    }

    fn add(&mut self, read: Vec<(BackupId, Loaded<BackupDescription>)>) {
        let mut complete = Vec::new();
        for (id, found) in read {
            self.damaged.remove(&id);
            self.unread.remove(&id);
            self.unfinished.remove(&id);
            match found {
                Loaded::Whole(description) => complete.push(description),
                Loaded::Damaged(error) => drop(self.damaged.insert(id, one_line(&error))),
                Loaded::Unread(error) => drop(self.unread.insert(id, one_line(&error))),
                Loaded::Absent => drop(self.unfinished.insert(id)),
            }
        }
        if !complete.is_empty() {
            let all = Arc::make_mut(&mut self.complete);
            all.append(&mut complete);
            all.sort_by(|a, b| a.id.cmp(&b.id));
        }
    }

    /// Of the complete backups that it is the turn of, those whose manifests are not there any more are complete no more.
    async fn miss_manifests(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let asked = self.asked.as_ref();
        let behind = self
            .complete
            .partition_point(|backup| asked.is_some_and(|asked| backup.id <= *asked));
        for id in turn(
            self.complete[behind..].iter().map(|backup| &backup.id),
            &mut self.asked,
            AGAIN,
        ) {
            if cluster
                .repository
                .storage()
                .head(&cluster.layout.manifest(&id))
                .await?
                .is_none()
            {
                Arc::make_mut(&mut self.complete).retain(|backup| backup.id != id);
                self.unfinished.insert(id);
            }
        }
        Ok(())
    }
}

/// Complete backups, the newest first, read a few at a time; those that were read before are not read again.
#[derive(Debug)]
pub struct NewestBackups<'a> {
    cluster: &'a Cluster,
    known: &'a BTreeMap<BackupId, BackupDescription>,
    /// Not looked at yet.
    left: BTreeSet<BackupId>,
    /// From when on they were listed; `None`: all.
    since: Option<DateTime<Utc>>,
}

impl<'a> NewestBackups<'a> {
    /// Of a cluster at a time, with those that were read before. Errors: the store did not answer.
    pub async fn new(
        cluster: &'a Cluster,
        known: &'a BTreeMap<BackupId, BackupDescription>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Self> {
        let since = Some(now - RECENT);
        Ok(Self {
            cluster,
            known,
            left: list_backups(cluster, since).await?,
            since,
        })
    }

    /// The next ones, in no order; `None` when there are no more. Damaged and unfinished ones are left out, and those that
    /// the store will not give. Errors: the store did not answer.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<BackupDescription>>> {
        if self.left.is_empty()
            && let Some(since) = self.since.take()
        {
            let first = BackupId::at(since);
            self.left = list_backups(self.cluster, None).await?;
            self.left.retain(|id| *id <= first);
        }
        let mut next = Vec::new();
        while next.len() < PARALLEL_READS
            && let Some(id) = self.left.pop_last()
        {
            next.push(id);
        }
        if next.is_empty() {
            return Ok(None);
        }
        let (known, unknown): (Vec<_>, Vec<_>) =
            next.into_iter().partition(|id| self.known.contains_key(id));
        let mut found: Vec<BackupDescription> = known
            .iter()
            .filter_map(|id| self.known.get(id).cloned())
            .collect();
        read_descriptions(self.cluster, unknown, |_, read| {
            match read {
                Loaded::Whole(description) => found.push(description),
                // It may be given the next time.
                Loaded::Unread(error) if !is_lasting(&error) => return Err(error),
                _ => (),
            }
            Ok(())
        })
        .await?;
        Ok(Some(found))
    }

    /// Whether there is any. Errors: the store did not answer.
    pub async fn any(mut self) -> anyhow::Result<bool> {
        while let Some(found) = self.next().await? {
            if !found.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::backup::manifest;
    use crate::postgres::catalog::testing;
    use crate::postgres::cluster::testing::{cluster_in, put, sealed};
    use crate::postgres::load::load_backups;
    use crate::storage::counting::CountingStorage;
    use crate::storage::{LocalStorage, MemoryStorage, PutMode, Storage};

    fn id(number: usize) -> BackupId {
        BackupId::at(DateTime::UNIX_EPOCH + TimeDelta::hours(number as i64))
    }

    async fn take(cluster: &Cluster, number: usize) {
        let backup = testing::backup(&id(number).to_string());
        let key = cluster.layout.manifest(&backup.id);
        let object = sealed(manifest::KIND, &backup, "");
        let storage = cluster.repository.storage();
        let put = storage.put(&key, object.into(), PutMode::Overwrite).await;
        let _ = put.unwrap();
    }

    async fn delete(cluster: &Cluster, number: usize) {
        cluster
            .repository
            .storage()
            .delete(&cluster.layout.manifest(&id(number)))
            .await
            .unwrap();
    }

    fn ids(loaded: &LoadedBackups) -> Vec<BackupId> {
        loaded
            .complete
            .iter()
            .map(|backup| backup.id.clone())
            .collect()
    }

    #[tokio::test]
    async fn a_look_costs_the_same_however_many_backups_there_are() {
        let mut costs = Vec::new();
        for count in [10, 1200] {
            let storage = Arc::new(CountingStorage::new(Arc::new(MemoryStorage::default())));
            let cluster = cluster_in(storage.clone()).await;
            for number in 0..count {
                take(&cluster, number).await;
            }
            let mut kept = KeptBackups::new(&cluster);
            assert_eq!(kept.refresh(&cluster).await.unwrap().complete.len(), count);
            storage.forget();
            take(&cluster, count).await;
            let loaded = kept.refresh(&cluster).await.unwrap();
            assert_eq!(loaded.complete.len(), count + 1);
            costs.push(
                storage
                    .calls()
                    .iter()
                    .filter(|call| **call != "put")
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
        // Beyond a thousand one page is not all.
        assert_eq!(
            costs,
            ["get head head head list", "get head head head list list"]
        );
    }

    #[tokio::test]
    async fn what_is_kept_is_what_reading_all_gives() {
        for in_folder in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let storage: Arc<dyn Storage> = match in_folder {
                true => Arc::new(LocalStorage::new(folder.path())),
                false => Arc::new(MemoryStorage::default()),
            };
            let cluster = cluster_in(storage.clone()).await;
            let mut kept = KeptBackups::new(&cluster);
            for step in 0..30 {
                match step % 6 {
                    0 | 1 | 4 => take(&cluster, step).await,
                    // Copied in, older than all there are.
                    2 => take(&cluster, 0).await,
                    3 => {
                        put(
                            &cluster,
                            &cluster.layout.started(&id(100 + step)),
                            b"{}".to_vec(),
                        )
                        .await
                    }
                    _ => {
                        delete(&cluster, step - 5).await;
                        put(
                            &cluster,
                            &cluster.layout.manifest(&id(200 + step)),
                            b"damaged".to_vec(),
                        )
                        .await;
                    }
                }
                let (found, expected) = (
                    kept.refresh(&cluster).await.unwrap(),
                    load_backups(&cluster).await.unwrap(),
                );
                assert_eq!(ids(&found), ids(&expected), "step {step}");
                assert_eq!(
                    (found.damaged, found.unfinished),
                    (expected.damaged, expected.unfinished)
                );
            }
            // What was damaged is repaired.
            take(&cluster, 205).await;
            for _ in 0..2 {
                kept.refresh(&cluster).await.unwrap();
            }
            assert!(ids(&kept.refresh(&cluster).await.unwrap()).contains(&id(205)));
        }
    }

    #[tokio::test]
    async fn a_manifest_that_went_before_its_folder_is_missed_in_its_turn() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        for number in 0..7 {
            take(&cluster, number).await;
            put(
                &cluster,
                &cluster.layout.started(&id(number)),
                b"{}".to_vec(),
            )
            .await;
        }
        let mut kept = KeptBackups::new(&cluster);
        assert_eq!(kept.refresh(&cluster).await.unwrap().complete.len(), 7);
        delete(&cluster, 5).await;
        let mut found = LoadedBackups::default();
        for _ in 0..7_usize.div_ceil(AGAIN) + 1 {
            found = kept.refresh(&cluster).await.unwrap();
        }
        assert_eq!((found.complete.len(), found.unfinished), (6, vec![id(5)]));
    }

    #[tokio::test]
    async fn the_newest_backups_come_first_and_in_the_end_all() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        // Some 21 days, so that the oldest are of long ago on the day that is asked on.
        for number in 0..500 {
            take(&cluster, number).await;
        }
        let now = DateTime::UNIX_EPOCH + RECENT + TimeDelta::hours(250);
        let known = BTreeMap::new();
        let mut newest = NewestBackups::new(&cluster, &known, now).await.unwrap();
        let mut all = Vec::new();
        while let Some(mut found) = newest.next().await.unwrap() {
            found.sort_by(|a, b| b.id.cmp(&a.id));
            all.extend(found.into_iter().map(|backup| backup.id));
        }
        assert!(
            all.iter()
                .eq((0..500).rev().map(id).collect::<Vec<_>>().iter())
        );
        for (now, expected) in [(now, true), (now + TimeDelta::days(9999), true)] {
            assert_eq!(
                NewestBackups::new(&cluster, &known, now)
                    .await
                    .unwrap()
                    .any()
                    .await
                    .unwrap(),
                expected
            );
        }
        let empty = cluster_in(Arc::new(MemoryStorage::default())).await;
        assert!(
            !NewestBackups::new(&empty, &known, now)
                .await
                .unwrap()
                .any()
                .await
                .unwrap()
        );
    }
}
