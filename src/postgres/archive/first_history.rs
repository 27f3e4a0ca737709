//! The history of a timeline that was there before archiving began, as of a copy that was promoted and then registered
//! under a name of its own: PostgreSQL hands a history file over once, when the timeline begins. Backups need it.

use chrono::{DateTime, Utc};

use super::file_identity::check_history;
use crate::codec::seal;
use crate::postgres::catalog::{WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{TimelineId, WalFileName};
use crate::repo::PutSealed;

/// zstd level.
const LEVEL: i32 = 3;

/// Stores a history file as the server has it, unless there is one. Only for an archive that has just been made: elsewhere
/// it would lead restores of the original to the copy's timeline. Errors: it is not `timeline`'s; the store did not answer.
pub async fn store_first_history(
    cluster: &Cluster,
    timeline: TimelineId,
    content: &[u8],
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    check_history(timeline, content)?;
    let name = WalFileName::History(timeline);
    let about = WalDescription {
        name,
        system_identifier: cluster.description.system_identifier,
        timeline,
        major: None,
        archived_at: now,
        frames: Vec::new(),
        summary: None,
    };
    let sealed = seal(
        WAL_KIND,
        &about,
        &mut &content[..],
        content.len() as u64,
        LEVEL,
    )?;
    let put = cluster
        .repository
        .put_sealed(&cluster.layout.wal(&name), &sealed)
        .await?;
    anyhow::ensure!(
        !matches!(put, PutSealed::OtherContent(_)),
        "the archive has another history of timeline {timeline}"
    );
    Ok(())
}
