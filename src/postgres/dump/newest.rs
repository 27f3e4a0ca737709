//! The newest complete dump of each database, kept up to date at a cost that follows what is new.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::manifest;
use crate::error::find;
use crate::health::{NewestDump, SIZES};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpId, DumpKind, DumpObject, ObjectKind};
use crate::repo::is_unusable;
use crate::storage::{Key, StorageError, Watched};

/// Databases that are looked at at once.
const AT_ONCE: usize = 16;

/// What was seen of the dumps.
#[derive(Debug)]
pub struct NewestDumps {
    databases: Watched,
    /// By their folders.
    dumps: BTreeMap<String, Watched>,
    /// What was told last.
    known: BTreeMap<DumpId, NewestDump>,
    /// Bytes of those before them; `None`: it cannot be read.
    sizes: BTreeMap<DumpId, Option<u64>>,
}

impl NewestDumps {
    /// Nothing was seen yet.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            databases: Watched::new(cluster.layout.dumps_folder()),
            dumps: BTreeMap::new(),
            known: BTreeMap::new(),
            sizes: BTreeMap::new(),
        }
    }

    /// The newest of each database and kind that holds all tables and can be read. Errors: the store did not answer.
    pub async fn refresh(&mut self, cluster: &Cluster) -> anyhow::Result<Vec<NewestDump>> {
        self.look(cluster).await?;
        let by_kind = self.by_kind(cluster);
        let reads: Vec<_> = by_kind
            .values()
            .map(|dumps| self.first_readable(cluster, dumps))
            .collect();
        let reads = stream::iter(reads).buffer_unordered(AT_ONCE);
        let newest: Vec<_> = reads.try_collect().await?;
        self.known = newest.into_iter().flatten().collect();
        let series: Vec<_> = by_kind.values().map(Vec::as_slice).collect();
        self.add_sizes(cluster, &series).await;
        Ok(self.known.values().cloned().collect())
    }

    /// Which dumps there are.
    async fn look(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let storage = cluster.repository.storage();
        self.databases.poll(storage, &[], false).await?;
        let folders = self.databases.names();
        self.dumps.retain(|folder, _| folders.contains(folder));
        for folder in folders.iter().filter(|folder| folder.ends_with('/')) {
            let new = || Watched::new(folder.clone());
            self.dumps.entry(folder.clone()).or_insert_with(new);
        }
        let newest = self.known.keys();
        let newest: BTreeSet<String> = newest.map(|id| manifest_key(cluster, id)).collect();
        let poll = async |(folder, dumps): (&String, &mut Watched)| {
            let behind = newest.range(folder.clone()..);
            let behind = behind.take_while(|key| key.starts_with(folder.as_str()));
            let behind: Vec<String> = behind.cloned().collect();
            dumps.poll(storage, &behind, false).await
        };
        let polls: Vec<_> = self.dumps.iter_mut().map(poll).collect();
        let polls = stream::iter(polls).buffer_unordered(AT_ONCE);
        polls.try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// Says how large those before the newest were. `series`: the newest of each first.
    async fn add_sizes(&mut self, cluster: &Cluster, series: &[&[DumpId]]) {
        let mut sizes = BTreeMap::new();
        for ids in series {
            let newest = ids.iter().position(|id| self.known.contains_key(id));
            let earlier = newest.map_or(&[][..], |newest| &ids[newest + 1..]);
            let earlier = &earlier[..earlier.len().min(SIZES)];
            let size = async |id: &DumpId| match self.sizes.get(id) {
                Some(size) => (id.clone(), *size),
                // How large it was is only a hint.
                None => {
                    let read = manifest::read(cluster, id).await.ok().flatten();
                    (id.clone(), read.map(|manifest| manifest.size()))
                }
            };
            let reads: Vec<_> = earlier.iter().map(size).collect();
            let read: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
            if let Some(dump) = newest.and_then(|newest| self.known.get_mut(&ids[newest])) {
                dump.earlier = read.iter().filter_map(|(_, size)| *size).collect();
            }
            sizes.extend(read);
        }
        self.sizes = sizes;
    }

    /// Complete dumps of all tables by database and kind, the newest first.
    fn by_kind(&self, cluster: &Cluster) -> BTreeMap<(String, DumpKind), Vec<DumpId>> {
        let names = self.dumps.values().flat_map(Watched::names);
        let complete =
            names.filter_map(|name| match cluster.layout.parse(&Key::new(name).ok()?)? {
                ObjectKind::Dump(id, DumpObject::Manifest) if !id.name().is_partial() => Some(id),
                _ => None,
            });
        let mut all = BTreeMap::<_, Vec<DumpId>>::new();
        for id in complete {
            let dumps = all.entry((id.database().to_string(), id.kind()));
            dumps.or_default().push(id);
        }
        let sort = |dumps: &mut Vec<DumpId>| dumps.sort_by_key(|id| std::cmp::Reverse(id.time()));
        all.values_mut().for_each(sort);
        all
    }

    async fn first_readable(
        &self,
        cluster: &Cluster,
        dumps: &[DumpId],
    ) -> anyhow::Result<Option<(DumpId, NewestDump)>> {
        let mut unread = None;
        for id in dumps {
            if let Some(known) = self.known.get(id) {
                return Ok(Some((id.clone(), known.clone())));
            }
            match manifest::read(cluster, id)
                .await
                .map_err(anyhow::Error::from)
            {
                Ok(Some(manifest)) => {
                    let newest = NewestDump {
                        id: id.to_string(),
                        database: id.database().to_string(),
                        kind: id.kind(),
                        time: manifest.snapshot.time,
                        bytes: manifest.size(),
                        earlier: Vec::new(),
                    };
                    return Ok(Some((id.clone(), newest)));
                }
                // Asking again does not help: an older one may tell.
                Err(error) if find::<StorageError>(&error).is_some_and(|error| error.lasting) => {
                    unread.get_or_insert(error);
                }
                Err(error) if !is_unusable(&error) => return Err(error),
                // It went, or cannot be restored.
                _ => (),
            }
        }
        unread.map_or(Ok(None), Err)
    }
}

fn manifest_key(cluster: &Cluster, id: &DumpId) -> String {
    let key = cluster.layout.dump(id, &DumpObject::Manifest);
    key.to_string()
}
