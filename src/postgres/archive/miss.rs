//! What the repository has besides what it does not have, and whether it is the repository that answers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};

use super::absent::{BackedUp, Facts, Kept};
use crate::error::with_hint;
use crate::postgres::catalog::BackupDescription;
use crate::postgres::catalog::load::{read_history, refresh_backups};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::types::{SegmentName, TimelineHistory, TimelineId, WalFileName};
use crate::repo::{is_damage, repair_or_wait, reread};
use crate::storage::{LIST_PAGE, ListEntry, ObjectMeta};

/// Pages of a listing that are read at most: 10 million segments of 16 MiB, or as many history files as fit.
const MOST_PAGES: usize = 100;

/// The history file that tells whether the archive ends before a file cannot be read. That file itself is not damaged.
#[derive(Debug, thiserror::Error)]
#[error(
    "whether \"{missing}\" is missing in the archive is not known: timeline history file \"{}\" cannot be read",
    WalFileName::History(*timeline)
)]
pub struct Untold {
    pub missing: WalFileName,
    pub timeline: TimelineId,
}

/// Makes sure that what answers is still the cluster's repository: the empty folder below an unmounted disk has no
/// segments either.
pub async fn confirm(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.confirm().await.context("the file is missing, and what must be there beside it cannot be read")
}

/// Makes sure that WAL is missing for no other reason than that there is none; whether there is any. Errors: the store did
/// not answer, or shows no WAL at all where it has backups.
pub async fn confirm_wal(cluster: &Cluster) -> anyhow::Result<bool> {
    // Backups first: the WAL of one that was complete by then is there when it is looked for.
    let mut backups = BTreeMap::new();
    refresh_backups(cluster, &mut backups).await?;
    let (now, mut folders) = (SystemTime::now(), Vec::new());
    for entry in entries(cluster, &cluster.layout.wal_folder()).await? {
        if kept(cluster, &entry, now).is_some() {
            return Ok(true);
        }
        if let ListEntry::Folder(folder) = entry {
            folders.push(folder);
        }
    }
    match any_segment(cluster, &folders, now).await? {
        false if !backups.is_empty() => Err(no_wal(cluster)),
        is_there => Ok(is_there),
    }
}

/// Reads what tells whether `missing` was lost: files of its timeline, newer timelines' history, and base backups. Those
/// that `known` has are not read again. Errors: the store did not answer, or shows no WAL at all where it has backups, or
/// had when `known` was read.
pub async fn gather(
    cluster: &Cluster,
    missing: &WalFileName,
    known: &mut BTreeMap<BackupId, BackupDescription>,
) -> anyhow::Result<Facts> {
    let now = SystemTime::now();
    let mut backups = known.clone();
    refresh_backups(cluster, &mut backups).await?;
    let mut facts = Facts { backups: backups.values().flat_map(backed_up).collect(), ..Facts::default() };
    let mut folders = Vec::new();
    for entry in entries(cluster, &cluster.layout.wal_folder()).await? {
        match entry {
            ListEntry::Folder(folder) => {
                if may_tell(cluster, &folder, missing) {
                    facts.kept.extend(first_in(cluster, &folder, now).await?);
                }
                folders.push(folder);
            }
            ListEntry::Object(meta) => match cluster.layout.parse_wal(&meta.key) {
                Some(WalFileName::History(timeline)) if timeline > missing.timeline() => {
                    facts.histories.push((history(cluster, timeline, missing).await?, age(&meta, now)));
                }
                Some(name) => facts.kept.push(Kept { name, age: age(&meta, now) }),
                None => (),
            },
        }
    }
    // Last: what came meanwhile shows here, and a file server brings its view of a folder up to date when it is listed.
    if let WalFileName::Segment(segment) = missing {
        facts.kept.extend(later_in_group(cluster, *segment, now).await?);
    }
    let nothing = facts.kept.is_empty() && facts.histories.is_empty();
    if nothing && !(known.is_empty() && backups.is_empty()) && !any_segment(cluster, &folders, now).await? {
        return Err(no_wal(cluster));
    }
    *known = backups;
    Ok(facts)
}

fn backed_up(backup: &BackupDescription) -> [BackedUp; 2] {
    let until = |timeline, up_to| BackedUp { id: backup.id.clone(), timeline, up_to };
    [until(backup.timeline, backup.start_lsn), until(backup.stop_timeline, backup.stop_lsn)]
}

async fn any_segment(cluster: &Cluster, folders: &[String], now: SystemTime) -> anyhow::Result<bool> {
    for folder in folders {
        if first_in(cluster, folder, now).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Backups are complete only once their WAL is stored: what shows none of it does not show what there is.
fn no_wal(cluster: &Cluster) -> anyhow::Error {
    let folder = cluster.layout.wal_folder();
    let error = anyhow!("{} has base backups, but no WAL at all in \"{folder}\"", cluster.repository.describe());
    with_hint(error, "bring the folder back, or check what is mounted there; recovery goes on from here then")
}

async fn later_in_group(cluster: &Cluster, missing: SegmentName, now: SystemTime) -> anyhow::Result<Vec<Kept>> {
    let folder = cluster.layout.wal_group_folder(&missing);
    Ok(entries(cluster, &folder).await?.iter().filter_map(|entry| kept(cluster, entry, now)).collect())
}

/// Whether what lies in a folder of segments tells about the missing file: for a segment, those after it on its
/// timeline; for a history file, all of its timeline.
fn may_tell(cluster: &Cluster, folder: &str, missing: &WalFileName) -> bool {
    let name = |folder: &str| folder.strip_prefix(&cluster.layout.wal_folder()).map(str::to_string);
    match missing {
        WalFileName::Segment(segment) => {
            let (Some(found), Some(own)) = (name(folder), name(&cluster.layout.wal_group_folder(segment))) else {
                return false;
            };
            found.len() == own.len() && found.get(..8) == own.get(..8) && found > own
        }
        WalFileName::History(timeline) => {
            name(folder).is_some_and(|found| found.starts_with(&format!("{:08X}", timeline.0)))
        }
        WalFileName::Partial(_) | WalFileName::Backup { .. } | WalFileName::Aside { .. } => false,
    }
}

/// The first segment in a folder, which can also be empty.
async fn first_in(cluster: &Cluster, folder: &str, now: SystemTime) -> anyhow::Result<Option<Kept>> {
    let page = cluster.repository.storage().list(folder, None).await?;
    Ok(page.iter().find_map(|entry| kept(cluster, entry, now)))
}

fn kept(cluster: &Cluster, entry: &ListEntry, now: SystemTime) -> Option<Kept> {
    let ListEntry::Object(meta) = entry else { return None };
    Some(Kept { name: cluster.layout.parse_wal(&meta.key)?, age: age(meta, now) })
}

fn age(meta: &ObjectMeta, now: SystemTime) -> Duration {
    now.duration_since(meta.modified).unwrap_or_default()
}

async fn entries(cluster: &Cluster, folder: &str) -> anyhow::Result<Vec<ListEntry>> {
    let mut entries: Vec<ListEntry> = Vec::new();
    for _ in 0..MOST_PAGES {
        let page = cluster.repository.storage().list(folder, entries.last().map(ListEntry::name)).await?;
        let last = page.len() < LIST_PAGE;
        entries.extend(page);
        if last {
            return Ok(entries);
        }
    }
    let most = MOST_PAGES * LIST_PAGE;
    let error = anyhow!("\"{folder}\" in {} has more than {most} entries", cluster.repository.describe());
    Err(with_hint(error, "see with `walden wal list` what lies there, and move away what is no WAL file"))
}

/// A history file that is damaged tells nothing, so nothing may be concluded.
async fn history(cluster: &Cluster, timeline: TimelineId, missing: &WalFileName) -> anyhow::Result<TimelineHistory> {
    let hint = "repair the repository from a copy: without this file nobody can tell whether the archive ends here";
    let vanished = || anyhow!("it vanished while it was read");
    let read = reread(is_damage, || read_history(cluster, timeline)).await;
    let read = read.and_then(|history| history.ok_or_else(vanished));
    read.map_err(|error| repair_or_wait(error, hint)).context(Untold { missing: *missing, timeline })
}
