//! Idle markers in the repository: one object each, whose key says it all.

use std::sync::Arc;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::decide::{IdleMemory, decide};
use super::read::read;
use crate::codec::seal;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::{Index, on_index};
use crate::postgres::layout::IdleMarker;
use crate::postgres::load::idle_markers;
use crate::postgres::replication::ResolveConnInfo;
use crate::postgres::types::{Lsn, SystemIdentifier, TimelineId};
use crate::repo::is_unusable;
use crate::storage::{Body, Key, PutMode};

/// Kind of the objects.
pub const KIND: &str = "quiet";
/// Bytes of a mark's body at most.
pub const LONGEST: u64 = 4096;
/// zstd level.
const LEVEL: i32 = 3;

/// What the envelope tells (`about` of kind `quiet`), and the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IdleDescription {
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    lsn: Lsn,
    time: DateTime<Utc>,
    /// With these the next service goes on.
    xmax: u64,
    since: DateTime<Utc>,
}

impl IdleDescription {
    fn mark(&self) -> IdleMarker {
        IdleMarker {
            timeline: self.timeline,
            lsn: self.lsn,
            time: self.time,
        }
    }

    fn memory(&self) -> IdleMemory {
        let Self {
            timeline,
            lsn,
            xmax,
            since,
            ..
        } = *self;
        IdleMemory {
            timeline,
            lsn,
            xmax,
            since,
            marked: Some(self.time),
        }
    }
}

/// What the server proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleProof {
    pub mark: IdleMarker,
    pub is_stored: bool,
}

/// Asks the server whether it is idle, remembers what it says, and stores a mark if one is due; what is proven of the WAL
/// that is archived. Errors: the server or the store did not answer, or the index cannot be read.
pub async fn observe(
    cluster: &Cluster,
    index: &Arc<Index>,
    resolve: ResolveConnInfo<'_>,
    memory: &mut Option<IdleMemory>,
) -> anyhow::Result<Option<IdleProof>> {
    let Some(reading) = read(cluster, resolve).await? else {
        return Ok(None);
    };
    let state = on_index(index, |index| index.state()).await?;
    let own = state
        .positions
        .iter()
        .find(|position| position.timeline == reading.timeline);
    let archived = own.map(|position| position.archived.end(cluster.description.segment_size));
    if let Some(archived) = archived.filter(|_| memory.is_none()) {
        *memory = recall(cluster, reading.timeline, archived).await?;
    }
    *memory = decide(*memory, &reading);
    let Some(first) = memory else { return Ok(None) };
    let Some(mark) = first.proves(&reading, archived) else {
        return Ok(None);
    };
    let is_stored = first.is_due(&reading);
    if is_stored {
        store(cluster, &mark, first).await?;
        first.marked = Some(mark.time);
    }
    Ok(Some(IdleProof { mark, is_stored }))
}

/// Asks the server what it proves now of the WAL that is archived up to where `archived` says, and stores nothing. Errors:
/// the server or the store did not answer.
pub async fn proof(
    cluster: &Cluster,
    archived: impl Fn(TimelineId) -> Option<Lsn>,
    resolve: ResolveConnInfo<'_>,
) -> anyhow::Result<Option<IdleMarker>> {
    let Some(reading) = read(cluster, resolve).await? else {
        return Ok(None);
    };
    let Some(end) = archived(reading.timeline) else {
        return Ok(None);
    };
    let first = decide(recall(cluster, reading.timeline, end).await?, &reading);
    Ok(first.and_then(|first| first.proves(&reading, Some(end))))
}

/// What an earlier service remembered when it stored the last mark; what it proves is archived, so no crash took it back.
async fn recall(
    cluster: &Cluster,
    timeline: TimelineId,
    archived: Lsn,
) -> anyhow::Result<Option<IdleMemory>> {
    let marks = idle_markers(cluster, timeline, archived).await?;
    let Some(last) = marks.iter().rfind(|mark| mark.lsn <= archived) else {
        return Ok(None);
    };
    let key = cluster.layout.idle(last);
    match load(cluster, &key, last).await {
        Ok(about) => Ok(about.map(|about| about.memory())),
        // Damage stays. `repo verify` tells of it.
        Err(error) if is_unusable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Stores a mark. Errors: the store did not answer.
pub async fn store(cluster: &Cluster, mark: &IdleMarker, first: &IdleMemory) -> anyhow::Result<()> {
    let IdleMarker {
        timeline,
        lsn,
        time,
    } = *mark;
    let (system_identifier, IdleMemory { xmax, since, .. }) =
        (cluster.description.system_identifier, *first);
    let about = IdleDescription {
        system_identifier,
        timeline,
        lsn,
        time,
        xmax,
        since,
    };
    let body = format!("{}\n", serde_json::to_string(&about)?);
    let sealed = seal(KIND, &about, &mut body.as_bytes(), body.len() as u64, LEVEL)?;
    let body = Body(vec![sealed.envelope, sealed.body]);
    // One that is there already says the same.
    let _ = cluster
        .repository
        .storage()
        .put(&cluster.layout.idle(mark), body, PutMode::CreateOnly)
        .await?;
    Ok(())
}

/// Checks the object of a mark. Errors: it is damaged or another's, or the store did not answer.
pub async fn check(cluster: &Cluster, key: &Key, mark: &IdleMarker) -> anyhow::Result<()> {
    load(cluster, key, mark).await.map(drop)
}

async fn load(
    cluster: &Cluster,
    key: &Key,
    mark: &IdleMarker,
) -> anyhow::Result<Option<IdleDescription>> {
    let Some((header, _)) = cluster.repository.read_small(key, KIND, LONGEST).await? else {
        return Ok(None);
    };
    let about: IdleDescription = header
        .about
        .read()
        .with_context(|| format!("object \"{key}\" does not hold an idle marker"))?;
    ensure!(
        (about.mark(), about.system_identifier) == (*mark, cluster.description.system_identifier),
        "object \"{key}\" holds the idle marker \"{}\" of the server with system identifier {}",
        about.mark(),
        about.system_identifier
    );
    Ok(Some(about))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::cluster_in;
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn a_service_that_is_started_anew_goes_on_from_the_last_mark() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let timeline = TimelineId(1);
        let time = |second: i64| DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap();
        let recalled =
            async |archived: u64| recall(&cluster, timeline, Lsn(archived)).await.unwrap();
        assert_eq!(recalled(1 << 24).await, None);
        for (lsn, second, xmax) in [(100, 9, 7), (200, 1, 8), (200, 2, 8), (300, 3, 9)] {
            let mark = IdleMarker {
                timeline,
                lsn: Lsn(lsn),
                time: time(second),
            };
            let first = IdleMemory {
                timeline,
                lsn: mark.lsn,
                xmax,
                since: time(0),
                marked: None,
            };
            store(&cluster, &mark, &first).await.unwrap();
        }
        let expected = IdleMemory {
            timeline,
            lsn: Lsn(200),
            xmax: 8,
            since: time(0),
            marked: Some(time(2)),
        };
        assert_eq!(recalled(250).await, Some(expected));
        let last = IdleMarker {
            timeline,
            lsn: Lsn(300),
            time: time(3),
        };
        let key = cluster.layout.idle(&last);
        cluster.repository.storage().delete(&key).await.unwrap();
        let _ = cluster
            .repository
            .storage()
            .put(&key, b"cut".to_vec().into(), PutMode::CreateOnly)
            .await
            .unwrap();
        assert_eq!(recalled(400).await, None, "a new mark can be made");
    }
}
