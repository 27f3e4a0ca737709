//! Recordings of names as objects of the repository (docs/repository-format.md).

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{RecordedName, Recording};
use crate::codec::seal;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::NamesId;
use crate::postgres::types::{Lsn, SystemIdentifier, TimelineId};
use crate::postgres::wal::RelFileLocator;
use crate::storage::{Body, Key, PutMode, PutOutcome};

/// Kind of the objects.
pub const KIND: &str = "names";
/// Bytes of an object's content that are read at most: once there were up to 100,000 names in one, and a line has three
/// names of 63 bytes at most, and some numbers.
pub const LONGEST: u64 = 100_000 * 1024;
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
#[serde(untagged)]
enum RecordingLine {
    Name {
        file: RelFileLocator,
        #[serde(flatten)]
        name: RecordedName,
    },
    /// The names from here on were read at another place than those before.
    Place { timeline: TimelineId, lsn: Lsn },
}

/// Stores recordings as one object.
pub async fn store(
    cluster: &Cluster,
    recordings: &[Recording],
    id: NamesId,
    recorded_at: DateTime<Utc>,
) -> anyhow::Result<Key> {
    let first = recordings.first().context("no names to be stored")?;
    let about = NamesDescription {
        system_identifier: cluster.description.system_identifier,
        timeline: first.timeline,
        lsn: first.lsn,
        recorded_at,
    };
    let mut body = Vec::new();
    let mut put = |line: RecordingLine| -> anyhow::Result<()> {
        serde_json::to_writer(&mut body, &line)?;
        body.push(b'\n');
        Ok(())
    };
    for (
        at,
        Recording {
            timeline,
            lsn,
            names,
        },
    ) in recordings.iter().enumerate()
    {
        if at > 0 {
            put(RecordingLine::Place {
                timeline: *timeline,
                lsn: *lsn,
            })?;
        }
        names.iter().try_for_each(|(file, name)| {
            put(RecordingLine::Name {
                file: *file,
                name: name.clone(),
            })
        })?;
    }
    let sealed = seal(KIND, &about, &mut &body[..], body.len() as u64, LEVEL)?;
    let key = cluster.layout.names(&id);
    let body = Body(vec![sealed.envelope, sealed.body]);
    match cluster
        .repository
        .storage()
        .put(&key, body, PutMode::CreateOnly)
        .await?
    {
        PutOutcome::Stored => Ok(key),
        PutOutcome::AlreadyExists => {
            anyhow::bail!("object \"{key}\" is there already, under a random name")
        }
    }
}

/// The names in an object; `None` when there is none. Errors: it is damaged, or the store did not answer.
pub async fn load(cluster: &Cluster, key: &Key) -> anyhow::Result<Option<Vec<Recording>>> {
    let Some((header, body)) = cluster.repository.read_small(key, KIND, LONGEST).await? else {
        return Ok(None);
    };
    let wrong = || format!("object \"{key}\" does not hold names");
    let about: NamesDescription = header.about.read().with_context(wrong)?;
    anyhow::ensure!(
        about.system_identifier == cluster.description.system_identifier,
        "object \"{key}\" holds names of the server with system identifier {}",
        about.system_identifier
    );
    let mut now = Recording {
        timeline: about.timeline,
        lsn: about.lsn,
        names: Vec::new(),
    };
    let mut recordings = Vec::new();
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        match serde_json::from_slice(line).with_context(wrong)? {
            RecordingLine::Name { file, name } => now.names.push((file, name)),
            RecordingLine::Place { timeline, lsn } => {
                recordings.push(std::mem::replace(
                    &mut now,
                    Recording {
                        timeline,
                        lsn,
                        names: Vec::new(),
                    },
                ));
            }
        }
    }
    recordings.push(now);
    Ok(Some(recordings))
}
