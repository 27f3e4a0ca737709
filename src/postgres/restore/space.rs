//! Whether there is room, before anything is written.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use super::destination::Destination;
use crate::error::with_hint;
use crate::postgres::backup::manifest::{self, ManifestEntry, read_entries};
use crate::postgres::catalog::{BackupDescription, RecoveryPlan};
use crate::postgres::cluster::Cluster;

/// WAL that lies in pg_wal during replay, at most: `max_wal_size`, from which on the server removes what it replayed.
const MOST_WAL: u64 = 1 << 30;

/// What is to be written to one place, and what its file system has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Need {
    place: PathBuf,
    bytes: u64,
    device: u64,
    free: u64,
}

/// Refuses a restore that does not fit: each file system by itself. What cannot be found out is no reason to refuse.
pub async fn check(
    cluster: &Cluster,
    plan: &RecoveryPlan,
    destination: &Destination,
) -> anyhow::Result<()> {
    let sizes = match sizes(cluster, &plan.backup).await {
        Ok(sizes) => sizes,
        Err(error) => {
            tracing::debug!("how much space each tablespace takes is not known: {error:#}");
            return Ok(());
        }
    };
    let size = |tablespace: Option<u32>| sizes.get(&tablespace).copied().unwrap_or_default();
    let own = (destination.data_directory.as_path(), size(None) + wal(plan));
    let others = destination
        .tablespaces
        .iter()
        .map(|(oid, place)| (place.as_path(), size(Some(*oid))));
    let needs: Vec<Need> = [own]
        .into_iter()
        .chain(others)
        .filter_map(|(place, bytes)| need(place, bytes))
        .collect();
    match too_small(&needs) {
        None => Ok(()),
        Some(told) => Err(with_hint(
            anyhow!("there is not enough space: {told}"),
            "make room, or choose another folder; --ignore-free-space restores all the same, where files are compressed",
        )),
    }
}

/// Bytes of the files of the data directory and of each tablespace.
async fn sizes(
    cluster: &Cluster,
    backup: &BackupDescription,
) -> anyhow::Result<BTreeMap<Option<u32>, u64>> {
    if backup.tablespaces.is_empty() {
        return Ok(BTreeMap::from([(None, backup.plain_bytes)]));
    }
    let opened = cluster
        .repository
        .open_stream(&cluster.layout.manifest(&backup.id), manifest::KIND)
        .await?;
    let (_, stream) = opened.context("the manifest is missing")?;
    let sum = move || {
        let mut sizes = BTreeMap::new();
        for entry in read_entries(BufReader::new(stream)) {
            if let ManifestEntry::File(file) = entry? {
                *sizes.entry(file.tablespace).or_default() += file.size;
            }
        }
        anyhow::Ok(sizes)
    };
    tokio::task::spawn_blocking(sum)
        .await
        .context("the thread that reads the manifest failed")?
}

/// WAL that lies in pg_wal at once: what is replayed, and one segment to go on with.
fn wal(plan: &RecoveryPlan) -> u64 {
    let segment = plan.backup.segment_size.bytes();
    ((plan.segments + 1) * segment).min(MOST_WAL.max(2 * segment))
}

fn need(place: &Path, bytes: u64) -> Option<Need> {
    let existing = place.ancestors().find(|folder| folder.is_dir())?;
    let (device, stat) = (
        fs::metadata(existing).ok()?.dev(),
        rustix::fs::statvfs(existing).ok()?,
    );
    Some(Need {
        place: place.to_path_buf(),
        bytes,
        device,
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Says which file systems are too small for what is to lie on them.
fn too_small(needs: &[Need]) -> Option<String> {
    let mut by_device: BTreeMap<u64, (u64, &Need)> = BTreeMap::new();
    for need in needs {
        by_device.entry(need.device).or_insert((0, need)).0 += need.bytes;
    }
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let short = by_device
        .values()
        .filter(|(bytes, need)| *bytes > need.free)
        .map(|(bytes, need)| {
            let (place, bytes, free) = (need.place.display(), mib(*bytes), mib(need.free));
            format!("the file system of \"{place}\" has {free}, files and WAL take {bytes}")
        });
    let short: Vec<String> = short.collect();
    (!short.is_empty()).then(|| short.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need_of(place: &str, mib: u64, device: u64) -> Need {
        Need {
            place: place.into(),
            bytes: mib << 20,
            device,
            free: 100 << 20,
        }
    }

    #[test]
    fn each_file_system_counts_by_itself_with_all_that_goes_there() {
        assert_eq!(
            too_small(&[need_of("/data", 90, 1), need_of("/fast", 90, 2)]),
            None
        );
        assert_eq!(
            too_small(&[need_of("/data", 60, 1), need_of("/fast", 40, 1)]),
            None
        );
        let told = too_small(&[
            need_of("/data", 60, 1),
            need_of("/fast", 41, 1),
            need_of("/slow", 200, 2),
        ])
        .unwrap();
        assert_eq!(
            told,
            "the file system of \"/data\" has 100.0 MiB, files and WAL take 101.0 MiB; the file system of \"/slow\" has \
             100.0 MiB, files and WAL take 200.0 MiB"
        );
    }

    #[test]
    fn a_folder_that_is_to_be_made_lies_where_its_nearest_ancestor_does() {
        let folder = tempfile::tempdir().unwrap();
        let found = need(&folder.path().join("a/b/c"), 5).unwrap();
        assert_eq!(found.device, fs::metadata(folder.path()).unwrap().dev());
        assert!(found.free > 0);
    }
}
