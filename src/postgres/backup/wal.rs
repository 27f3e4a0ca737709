//! A backup needs its WAL: every segment from its start to its stop, proven by the headers of the stored objects.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::{BackupObserver, BackupStep};
use crate::error::with_hint;
use crate::postgres::catalog::{WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::repo::repair_or_wait;

/// First and longest pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The WAL that a backup cannot be restored without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeededWal {
    pub timeline: TimelineId,
    pub start: Lsn,
    pub stop: Lsn,
}

impl NeededWal {
    /// All its files in order: the timeline's history first, where it has one.
    pub fn files(&self, size: SegmentSize) -> impl Iterator<Item = WalFileName> + use<> {
        let first = SegmentName::containing(self.timeline, self.start, size);
        let last = SegmentName::ending_at(self.timeline, self.stop, size);
        let history = (self.timeline.0 > 1).then_some(WalFileName::History(self.timeline));
        let next = move |segment: &SegmentName| (*segment < last).then(|| segment.next(size));
        history
            .into_iter()
            .chain(std::iter::successors(Some(first), next).map(WalFileName::Segment))
    }
}

/// Whether a WAL file is kept: its object's header must be whole and carry the file's name and the cluster's identity.
/// False: it is absent. Errors: it is damaged or another's, also when it is read once more; or the store did not answer.
pub async fn is_proven(cluster: &Cluster, name: &WalFileName) -> anyhow::Result<bool> {
    let key = cluster.layout.wal(name);
    let Some(header) = cluster.repository.header(&key, WAL_KIND).await? else {
        return Ok(false);
    };
    let found: WalDescription = header
        .about
        .read()
        .with_context(|| format!("object \"{key}\" does not describe a WAL file"))?;
    let ours = &cluster.description;
    let whole =
        !matches!(name, WalFileName::Segment(_)) || header.plain.size == ours.segment_size.bytes();
    if found.name != *name || found.system_identifier != ours.system_identifier || !whole {
        let error = anyhow!(
            "object \"{key}\" holds \"{}\" of the cluster with system identifier {}, {} bytes",
            found.name,
            found.system_identifier,
            header.plain.size
        );
        return Err(with_hint(
            error,
            "find out with `walden wal verify` what else is wrong in the archive",
        ));
    }
    Ok(true)
}

/// Not all WAL of a backup arrived in time.
#[derive(Debug, thiserror::Error)]
#[error("after {} s the repository still lacks the WAL file \"{missing}\", which the backup needs", .waited.as_secs())]
pub struct WalMissing {
    pub missing: WalFileName,
    pub waited: Duration,
}

/// Waits until all of `needed` is kept. Errors: [`WalMissing`] after `timeout`, and those of [`is_proven`].
pub async fn wait_for_wal(
    cluster: &Cluster,
    needed: &NeededWal,
    timeout: Duration,
    observer: BackupObserver<'_>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    for name in needed.files(cluster.description.segment_size) {
        let hint = "repair that object: without it the backup cannot be restored";
        while !is_proven(cluster, &name)
            .await
            .map_err(|error| repair_or_wait(error, hint))?
        {
            let waited = begun.elapsed();
            if waited >= timeout {
                return Err(WalMissing {
                    missing: name,
                    waited,
                }
                .into());
            }
            observer(BackupStep::WaitingForWal { missing: name });
            tokio::time::sleep(pause.min(timeout - waited)).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needed_files_are_the_segments_of_the_bytes_and_the_history() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let names = |timeline, start: &str, stop: &str| {
            let needed = NeededWal {
                timeline: TimelineId(timeline),
                start: start.parse().unwrap(),
                stop: stop.parse().unwrap(),
            };
            needed
                .files(size)
                .map(|name| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(1, "0/2000028", "0/2000100"),
            ["000000010000000000000002"]
        );
        assert_eq!(
            names(1, "0/2000028", "0/3000000"),
            ["000000010000000000000002"]
        );
        assert_eq!(
            names(1, "0/2000028", "0/3000001"),
            ["000000010000000000000002", "000000010000000000000003"]
        );
        assert_eq!(
            names(2, "0/2000028", "0/2000100"),
            ["00000002.history", "000000020000000000000002"]
        );
    }
}
