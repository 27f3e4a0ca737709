//! What the repository has besides what it does not have, and whether it is the repository that answers.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use chrono::Utc;

use super::absence::{ArchiveEvidence, BackedUp, StoredFile, settle};
use crate::error::{find, with_hint};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::load::{NewestBackups, UnreadableObject, read_history};
use crate::postgres::types::{SegmentName, TimelineHistory, TimelineId, WalFileName};
use crate::repo::repair_or_wait;
use crate::storage::{LIST_PAGE, ListEntry, ObjectMeta, Pages, list_all};

/// Pages of a listing that are read at most: 10 million segments of 16 MiB, or as many history files as fit.
const MOST_PAGES: usize = 100;
/// Sorts behind all that names of WAL files hold.
const BEHIND: char = '~';

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
    cluster
        .confirm()
        .await
        .context("the file is missing, and what must be there beside it cannot be read")
}

/// Makes sure that WAL is missing for no other reason than that there is none; whether there is any. Errors: the store did
/// not answer, or shows no WAL at all where it has backups.
pub async fn confirm_wal(cluster: &Cluster) -> anyhow::Result<bool> {
    // Backups first: the WAL of one that was complete by then is there when it is looked for.
    let none = BTreeMap::new();
    let has_backups = NewestBackups::new(cluster, &none, Utc::now())
        .await?
        .any()
        .await?;
    match any_wal(cluster, SystemTime::now()).await? {
        false if has_backups => Err(no_wal(cluster)),
        is_there => Ok(is_there),
    }
}

/// Reads what tells whether `missing` was lost: files of its timeline, newer timelines' history, and base backups, no more
/// than it takes. Those that `known` has are not read again. Errors: the store did not answer, or shows no WAL at all where
/// it has backups, or had when `known` was read.
pub async fn gather(
    cluster: &Cluster,
    missing: &WalFileName,
    known: &mut BTreeMap<BackupId, BackupDescription>,
) -> anyhow::Result<ArchiveEvidence> {
    let now = SystemTime::now();
    let backups = telling_backups(cluster, missing, known).await?;
    let mut facts = ArchiveEvidence {
        backups: backups.values().flat_map(backed_up).collect(),
        ..ArchiveEvidence::default()
    };
    for entry in bearing(cluster, missing).await? {
        match entry {
            ListEntry::Folder(folder) => {
                if may_tell(cluster, &folder, missing) {
                    facts.kept.extend(first_in(cluster, &folder, now).await?);
                }
            }
            ListEntry::Object(meta) => match cluster.layout.parse_wal(&meta.key) {
                Some(WalFileName::History(timeline)) if timeline > missing.timeline() => {
                    facts
                        .histories
                        .push((history(cluster, timeline, missing).await?, age(&meta, now)));
                }
                Some(name) => facts.kept.push(StoredFile {
                    name,
                    age: age(&meta, now),
                }),
                None => (),
            },
        }
    }
    // Last: what came meanwhile shows here, and a file server brings its view of a folder up to date when it is listed.
    if let WalFileName::Segment(segment) = missing {
        facts
            .kept
            .extend(later_in_group(cluster, *segment, now).await?);
    }
    let nothing = facts.kept.is_empty() && facts.histories.is_empty();
    if nothing && !(known.is_empty() && backups.is_empty()) && !any_wal(cluster, now).await? {
        return Err(no_wal(cluster));
    }
    *known = backups;
    Ok(facts)
}

/// The newest complete backups, until they settle what backups can tell of `missing`.
async fn telling_backups(
    cluster: &Cluster,
    missing: &WalFileName,
    known: &BTreeMap<BackupId, BackupDescription>,
) -> anyhow::Result<BTreeMap<BackupId, BackupDescription>> {
    let mut newest = NewestBackups::new(cluster, known, Utc::now()).await?;
    let mut telling = BTreeMap::new();
    while let Some(backups) = newest.next().await? {
        telling.extend(
            backups
                .into_iter()
                .map(|backup| (backup.id.clone(), backup)),
        );
        let told: Vec<_> = telling.values().map(backed_up).collect();
        if settle(missing, cluster.description.segment_size, &told) {
            break;
        }
    }
    Ok(telling)
}

fn backed_up(backup: &BackupDescription) -> [BackedUp; 2] {
    let until = |timeline, up_to| BackedUp {
        id: backup.id.clone(),
        timeline,
        up_to,
    };
    [
        until(backup.timeline, backup.start_lsn),
        until(backup.stop_timeline, backup.stop_lsn),
    ]
}

/// Whether there is any WAL file at all.
async fn any_wal(cluster: &Cluster, now: SystemTime) -> anyhow::Result<bool> {
    let mut pages = Pages::new(cluster.layout.wal_folder(), None);
    while let Some(page) = pages.next(cluster.repository.storage()).await? {
        for entry in page {
            let is_one = match &entry {
                ListEntry::Folder(folder) => first_in(cluster, folder, now).await?.is_some(),
                ListEntry::Object(_) => kept(cluster, &entry, now).is_some(),
            };
            if is_one {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Backups are complete only once their WAL is stored: what shows none of it does not show what there is.
fn no_wal(cluster: &Cluster) -> anyhow::Error {
    let folder = cluster.layout.wal_folder();
    let error = anyhow!(
        "{} has base backups, but no WAL at all in \"{folder}\"",
        cluster.repository.describe()
    );
    with_hint(
        error,
        "is its disk mounted? Bring the folder back, and recovery goes on",
    )
}

async fn later_in_group(
    cluster: &Cluster,
    missing: SegmentName,
    now: SystemTime,
) -> anyhow::Result<Vec<StoredFile>> {
    let entries = list_all(
        cluster.repository.storage(),
        &cluster.layout.wal_group_folder(&missing),
    )
    .await?;
    Ok(entries
        .iter()
        .filter_map(|entry| kept(cluster, entry, now))
        .collect())
}

/// Whether what lies in a folder of segments tells about the missing file: for a segment, those after it on its
/// timeline; for a history file, all of its timeline.
fn may_tell(cluster: &Cluster, folder: &str, missing: &WalFileName) -> bool {
    let name = |folder: &str| {
        folder
            .strip_prefix(&cluster.layout.wal_folder())
            .map(str::to_string)
    };
    match missing {
        WalFileName::Segment(segment) => {
            let (Some(found), Some(own)) = (
                name(folder),
                name(&cluster.layout.wal_group_folder(segment)),
            ) else {
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
async fn first_in(
    cluster: &Cluster,
    folder: &str,
    now: SystemTime,
) -> anyhow::Result<Option<StoredFile>> {
    let page = cluster.repository.storage().list(folder, None).await?;
    Ok(page.iter().find_map(|entry| kept(cluster, entry, now)))
}

fn kept(cluster: &Cluster, entry: &ListEntry, now: SystemTime) -> Option<StoredFile> {
    let ListEntry::Object(meta) = entry else {
        return None;
    };
    Some(StoredFile {
        name: cluster.layout.parse_wal(&meta.key)?,
        age: age(meta, now),
    })
}

fn age(meta: &ObjectMeta, now: SystemTime) -> Duration {
    now.duration_since(meta.modified).unwrap_or_default()
}

/// What lies in the WAL folder and bears on `missing`: everything of its timeline, of a segment's from its place on, and
/// of newer timelines the history files at least.
async fn bearing(cluster: &Cluster, missing: &WalFileName) -> anyhow::Result<Vec<ListEntry>> {
    let folder = cluster.layout.wal_folder();
    let of_timeline = |timeline: TimelineId| format!("{folder}{:08X}", timeline.0);
    let (mut found, mut after) = (
        Vec::new(),
        match missing {
            WalFileName::Segment(segment) => cluster.layout.wal_group_folder(segment),
            other => of_timeline(other.timeline()),
        },
    );
    for _ in 0..MOST_PAGES {
        let page = cluster
            .repository
            .storage()
            .list(&folder, Some(&after))
            .await?;
        let last = page
            .last()
            .filter(|_| page.len() == LIST_PAGE)
            .map(|entry| entry.name().to_string());
        found.extend(page);
        let Some(last) = last else { return Ok(found) };
        // The history file comes first of all that a timeline has.
        let number = last
            .get(folder.len()..folder.len() + 8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let newer = number
            .map(TimelineId)
            .filter(|timeline| *timeline > missing.timeline());
        after = newer.map_or(last, |timeline| {
            format!("{}{BEHIND}", of_timeline(timeline))
        });
    }
    let most = MOST_PAGES * LIST_PAGE;
    let error = anyhow!(
        "\"{folder}\" in {} has more than {most} entries",
        cluster.repository.describe()
    );
    Err(with_hint(
        error,
        "look with `walden wal list`, and move away what is no WAL file",
    ))
}

/// A history file that is damaged tells nothing, so nothing may be concluded. One that no server can read is no other
/// tomorrow: it tells what its good lines say.
async fn history(
    cluster: &Cluster,
    timeline: TimelineId,
    missing: &WalFileName,
) -> anyhow::Result<TimelineHistory> {
    let hint = "repair the repository from a copy: this file decides whether the archive ends here";
    let vanished = || anyhow!("it vanished while it was read");
    let read = read_history(cluster, timeline).await;
    if let Some(unreadable) = read.as_ref().err().and_then(find::<UnreadableObject>) {
        return Ok(unreadable.rest.clone());
    }
    let read = read.and_then(|history| history.ok_or_else(vanished));
    read.map_err(|error| repair_or_wait(error, hint))
        .context(Untold {
            missing: *missing,
            timeline,
        })
}
