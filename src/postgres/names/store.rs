//! Names in the repository: what was new at a moment, one object each.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::read::{Databases, Resolve, read_databases, read_relations};
use crate::codec::seal;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::update::{Scope, read_names};
use crate::postgres::index::{Index, RecordedName, Recording, on_index};
use crate::postgres::layout::NamesId;
use crate::postgres::types::{Lsn, SystemIdentifier, TimelineId};
use crate::postgres::wal::RelFileLocator;
use crate::storage::{Key, PutMode, PutOutcome};

/// Kind of the objects.
pub const KIND: &str = "names";
/// Names in one object at most.
const MOST: usize = 100_000;
/// Bytes of an object's content at most: a line has three names of 63 bytes at most, and some numbers.
pub const LONGEST: u64 = MOST as u64 * 1024;
/// zstd level.
const LEVEL: i32 = 3;

/// What the envelope tells (`about` of kind `names`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesDescription {
    pub system_identifier: SystemIdentifier,
    /// Where the WAL was just before the names were read.
    pub timeline: TimelineId,
    pub lsn: Lsn,
    pub recorded_at: DateTime<Utc>,
}

/// A line of the body.
#[derive(Serialize, Deserialize)]
struct Line {
    file: RelFileLocator,
    #[serde(flatten)]
    name: RecordedName,
}

/// Reads the server's names, database by database, and stores those that the index, which must be up to date, does not
/// know; how many that were. Errors: the server or the store did not answer.
pub async fn record(cluster: &Cluster, index: &Arc<Index>, resolve: Resolve<'_>) -> anyhow::Result<u64> {
    let Databases { recording, open } = read_databases(cluster, resolve).await?;
    let (timeline, lsn) = (recording.timeline, recording.lsn);
    let mut new = only_new(index, recording).await?;
    let mut count = 0;
    for database in open {
        let names = read_relations(resolve, &database).await?;
        new.names.append(&mut only_new(index, Recording { timeline, lsn, names }).await?.names);
        while new.names.len() >= MOST {
            let rest = new.names.split_off(MOST);
            count += keep(cluster, index, new).await?;
            new = Recording { timeline, lsn, names: rest };
        }
    }
    Ok(count + keep(cluster, index, new).await?)
}

async fn only_new(index: &Arc<Index>, mut recording: Recording) -> anyhow::Result<Recording> {
    on_index(index, move |index| index.keep_new_names(&mut recording).map(|()| recording)).await
}

/// Stores names, if there are any, and puts them into the index.
async fn keep(cluster: &Cluster, index: &Arc<Index>, names: Recording) -> anyhow::Result<u64> {
    if names.names.is_empty() {
        return Ok(0);
    }
    let key = store(cluster, &names).await?;
    let count = names.names.len() as u64;
    on_index(index, move |index| index.add_names(key.as_str(), &names)).await?;
    Ok(count)
}

/// [`record`] where no index is at hand: with the one in `folder` if that can be used, else after reading all names that
/// the repository has.
pub async fn record_alone(cluster: &Cluster, folder: &Path, resolve: Resolve<'_>) -> anyhow::Result<u64> {
    let (folder, of) = (folder.to_path_buf(), cluster.clone());
    let open = move || Index::open(&folder, &of).or_else(|_| Index::temporary(&of));
    let index = Arc::new(tokio::task::spawn_blocking(open).await??);
    read_names(&index, cluster, Scope::New).await?;
    record(cluster, &index, resolve).await
}

async fn store(cluster: &Cluster, recording: &Recording) -> anyhow::Result<Key> {
    let now = Utc::now();
    let about = NamesDescription {
        system_identifier: cluster.description.system_identifier,
        timeline: recording.timeline,
        lsn: recording.lsn,
        recorded_at: now,
    };
    let mut body = Vec::new();
    for (file, name) in &recording.names {
        serde_json::to_writer(&mut body, &Line { file: *file, name: name.clone() })?;
        body.push(b'\n');
    }
    let sealed = seal(KIND, &about, &mut &body[..], body.len() as u64, LEVEL)?;
    let random = getrandom::u32()?;
    let key = cluster.layout.names(&NamesId::new(now, random));
    let body = crate::storage::Body(vec![sealed.envelope, sealed.body]);
    match cluster.repository.storage().put(&key, body, PutMode::CreateOnly).await? {
        PutOutcome::Stored => Ok(key),
        PutOutcome::AlreadyExists => anyhow::bail!("object \"{key}\" is there already, under a random name"),
    }
}

/// The names in an object; `None` when there is none. Errors: it is damaged, or the store did not answer.
pub async fn load(cluster: &Cluster, key: &Key) -> anyhow::Result<Option<Recording>> {
    let Some((header, body)) = cluster.repository.read_small(key, KIND, LONGEST).await? else { return Ok(None) };
    let wrong = || format!("object \"{key}\" does not hold names");
    let about: NamesDescription = header.about.read().with_context(wrong)?;
    anyhow::ensure!(
        about.system_identifier == cluster.description.system_identifier,
        "object \"{key}\" holds names of the server with system identifier {}",
        about.system_identifier
    );
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let names = lines.map(|line| serde_json::from_slice(line).map(|Line { file, name }| (file, name)));
    let names = names.collect::<Result<Vec<_>, _>>().with_context(wrong)?;
    Ok(Some(Recording { timeline: about.timeline, lsn: about.lsn, names }))
}
