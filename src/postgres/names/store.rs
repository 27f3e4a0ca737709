//! Names in the repository: what was new at a moment, one object each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chrono::Utc;

use super::read::{Databases, Relations, read_databases};
use crate::error::one_line;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::recordings::store;
use crate::postgres::index::update::{ListScope, read_names};
use crate::postgres::index::{Index, Recording, on_index};
use crate::postgres::layout::NamesId;
use crate::postgres::replication::ResolveConnInfo;
use crate::postgres::types::TimelineId;

/// Names in one object at most, so that a database of any size is recorded in bounded memory.
pub(super) const MOST: usize = 16_384;
/// After so many readings everything is read again: what changes without a transaction shows then.
const READINGS_PER_WHOLE: u32 = 24 * 60;
/// A database that could not be asked is asked again after so many readings.
const READINGS_AT_REST: u32 = 60;
/// What readings of names leave for the next one.
#[derive(Debug, Default)]
pub struct NamesMemory {
    readings: u32,
    timeline: Option<TimelineId>,
    /// Databases whose names are recorded, and the transaction from which on theirs may have changed since.
    read: BTreeMap<u32, u32>,
    /// Databases that could not be asked, and at which reading.
    refused: BTreeMap<u32, u32>,
}

impl NamesMemory {
    /// A reading begins.
    fn begin(&mut self, timeline: TimelineId) {
        self.readings = self.readings.wrapping_add(1);
        if self.timeline.replace(timeline) != Some(timeline)
            || self.readings.is_multiple_of(READINGS_PER_WHOLE)
        {
            self.read.clear();
        }
        let readings = self.readings;
        self.refused
            .retain(|_, at| readings.wrapping_sub(*at) < READINGS_AT_REST);
    }
}

/// Reads the server's names, database by database, and stores those that the index, which must be up to date, does not
/// know; how many that were. Errors: the server or the store did not answer.
pub async fn record(
    cluster: &Cluster,
    index: &Arc<Index>,
    resolve: ResolveConnInfo<'_>,
    memory: &mut NamesMemory,
) -> anyhow::Result<u64> {
    let Databases {
        recording,
        open,
        horizon,
    } = read_databases(cluster, resolve).await?;
    memory.begin(recording.timeline);
    let mut recorder = Recorder {
        cluster,
        index,
        new: only_new(index, recording).await?,
        count: 0,
    };
    let mut read = Vec::new();
    for (oid, database) in &open {
        if memory.refused.contains_key(oid) {
            continue;
        }
        match recorder
            .database(resolve, database, memory.read.get(oid).copied())
            .await?
        {
            Ok(()) => read.push(*oid),
            // Told once: it stays in `refused` while it is refused.
            Err(error) => {
                tracing::info!(
                    "the names in database \"{database}\" cannot be read: {}",
                    one_line(&error)
                );
                memory.refused.insert(*oid, memory.readings);
            }
        }
    }
    recorder.keep().await?;
    memory
        .read
        .retain(|oid, _| open.iter().any(|(known, _)| known == oid));
    memory
        .read
        .extend(read.into_iter().map(|oid| (oid, horizon)));
    Ok(recorder.count)
}

/// Names on their way into the repository.
struct Recorder<'a> {
    cluster: &'a Cluster,
    index: &'a Arc<Index>,
    new: Recording,
    /// Names that were stored.
    count: u64,
}

impl Recorder<'_> {
    /// Adds the names of a database's relations. Errors: outside, the store did not answer; inside, the database did not.
    async fn database(
        &mut self,
        resolve: ResolveConnInfo<'_>,
        database: &str,
        since: Option<u32>,
    ) -> anyhow::Result<anyhow::Result<()>> {
        let mut relations = match Relations::open(resolve, database, since).await {
            Ok(Some(relations)) => relations,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let names = match relations.next().await {
                Ok(names) if names.is_empty() => return Ok(relations.close().await),
                Ok(names) => names,
                Err(error) => return Ok(Err(error)),
            };
            let portion = Recording { names, ..self.new };
            self.new
                .names
                .append(&mut only_new(self.index, portion).await?.names);
            if self.new.names.len() + MOST / 4 > MOST {
                self.keep().await?;
            }
        }
    }

    /// Stores names, if there are any, and puts them into the index.
    async fn keep(&mut self) -> anyhow::Result<()> {
        let (timeline, lsn) = (self.new.timeline, self.new.lsn);
        let names = std::mem::replace(
            &mut self.new,
            Recording {
                timeline,
                lsn,
                names: Vec::new(),
            },
        );
        if names.names.is_empty() {
            return Ok(());
        }
        let now = Utc::now();
        let names = [names];
        let key = store(
            self.cluster,
            &names,
            NamesId::new(now, getrandom::u32()?),
            now,
        )
        .await?;
        self.count += names[0].names.len() as u64;
        on_index(self.index, move |index| {
            index.add_names(key.as_str(), &names)
        })
        .await
    }
}

async fn only_new(index: &Arc<Index>, mut recording: Recording) -> anyhow::Result<Recording> {
    on_index(index, move |index| {
        index.keep_new_names(&mut recording).map(|()| recording)
    })
    .await
}

/// [`record`] where no index is at hand: with the one in `folder` if that can be used, else after reading all names that
/// the repository has.
pub async fn record_alone(
    cluster: &Cluster,
    folder: &Path,
    resolve: ResolveConnInfo<'_>,
) -> anyhow::Result<u64> {
    let (folder, of) = (folder.to_path_buf(), cluster.clone());
    let open = move || Index::open(&folder, &of).or_else(|_| Index::temporary(&of));
    let index = Arc::new(tokio::task::spawn_blocking(open).await??);
    read_names(&index, cluster, ListScope::New).await?;
    record(cluster, &index, resolve, &mut NamesMemory::default()).await
}
