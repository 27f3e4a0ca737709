//! Quiet marks in the repository: one object each, whose key says it all.

use std::sync::Arc;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::decide::{Memory, decide};
use super::read::read;
use crate::codec::seal;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::Index;
use crate::postgres::layout::QuietMark;
use crate::postgres::names::Resolve;
use crate::postgres::types::{Lsn, SystemIdentifier, TimelineId};
use crate::storage::{Body, Key, PutMode};

/// Kind of the objects.
pub const KIND: &str = "quiet";
/// zstd level.
const LEVEL: i32 = 3;

/// What the envelope tells (`about` of kind `quiet`), and the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct QuietDescription {
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    lsn: Lsn,
    time: DateTime<Utc>,
}

/// Asks the server whether it is quiet, remembers what it says, and stores a mark if one is due; the time that it proves.
/// Errors: the server or the store did not answer, or the index cannot be read.
pub async fn observe(
    cluster: &Cluster,
    index: &Arc<Index>,
    resolve: Resolve<'_>,
    memory: &mut Option<Memory>,
) -> anyhow::Result<Option<DateTime<Utc>>> {
    let Some(reading) = read(cluster, resolve).await? else { return Ok(None) };
    let index = index.clone();
    let state = tokio::task::spawn_blocking(move || index.state()).await??;
    let own = state.positions.iter().find(|position| position.timeline == reading.timeline);
    let archived = own.map(|position| position.archived.end(cluster.description.segment_size));
    let (remembered, mark) = decide(*memory, &reading, archived);
    *memory = remembered;
    let Some(mark) = mark else { return Ok(None) };
    store(cluster, &mark).await?;
    *memory = remembered.map(|first| Memory { marked: Some(mark.time), ..first });
    Ok(Some(mark.time))
}

/// Stores a mark. Errors: the store did not answer.
pub async fn store(cluster: &Cluster, mark: &QuietMark) -> anyhow::Result<()> {
    let QuietMark { timeline, lsn, time } = *mark;
    let system_identifier = cluster.description.system_identifier;
    let about = serde_json::to_value(QuietDescription { system_identifier, timeline, lsn, time })?;
    let body = format!("{about}\n");
    let sealed = seal(KIND, about, &mut body.as_bytes(), body.len() as u64, LEVEL)?;
    let body = Body(vec![sealed.envelope, sealed.body]);
    // One that is there already says the same.
    let _ = cluster.repository.storage().put(&cluster.layout.quiet(mark), body, PutMode::CreateOnly).await?;
    Ok(())
}

/// Checks the object of a mark. Errors: it is damaged or another's, or the store did not answer.
pub async fn check(cluster: &Cluster, key: &Key, mark: &QuietMark) -> anyhow::Result<()> {
    let Some((header, _)) = cluster.repository.read_small(key, KIND).await? else { return Ok(()) };
    let about: QuietDescription =
        serde_json::from_value(header.about).with_context(|| format!("object \"{key}\" does not hold a quiet mark"))?;
    let QuietDescription { system_identifier, timeline, lsn, time } = about;
    ensure!(
        (system_identifier, QuietMark { timeline, lsn, time }) == (cluster.description.system_identifier, *mark),
        "object \"{key}\" holds a quiet mark of another moment or server: {timeline} {lsn} {time} of {system_identifier}"
    );
    Ok(())
}
