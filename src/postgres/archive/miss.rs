//! Gathers what the repository has besides a segment that it does not have.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};

use super::absent::{Facts, Kept};
use crate::error::{Hint, with_hint};
use crate::postgres::catalog::WAL_KIND;
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{SegmentName, TimelineHistory, TimelineId, WalFileName};
use crate::storage::{LIST_PAGE, ListEntry, ObjectMeta};

/// Pages of a listing that are read at most: 10 million segments of 16 MiB, or as many history files as fit.
const MOST_PAGES: usize = 100;

/// Makes sure that what answers is still the cluster's repository: the empty folder below an unmounted disk has no
/// segments either.
pub async fn confirm(cluster: &Cluster) -> anyhow::Result<()> {
    let again = Cluster::open(cluster.repository.clone(), cluster.layout.cluster().clone()).await;
    let again = again.context("a file is missing, and so is what must be there")?;
    let reopened = crate::repo::Repository::open(cluster.repository.shared_storage()).await?;
    if reopened.marker().id != cluster.repository.marker().id
        || again.description.system_identifier != cluster.description.system_identifier
    {
        let error = anyhow::anyhow!("{} is another repository than before", cluster.repository.describe());
        return Err(with_hint(error, "restart `walden serve`, and check what is mounted there"));
    }
    Ok(())
}

/// Reads what tells whether `missing` is a gap: later files of its timeline, and newer timelines' history.
pub async fn gather(cluster: &Cluster, missing: SegmentName) -> anyhow::Result<Facts> {
    let now = SystemTime::now();
    let mut kept = later_in_group(cluster, missing, now).await?;
    let mut histories = Vec::new();
    for entry in entries(cluster, &cluster.layout.wal_folder()).await? {
        match entry {
            ListEntry::Folder(folder) => {
                if let Some(first) = first_of_later_group(cluster, &folder, missing, now).await? {
                    kept.push(first);
                }
            }
            ListEntry::Object(meta) => match cluster.layout.parse_wal(&meta.key) {
                Some(WalFileName::History(timeline)) if timeline > missing.timeline => {
                    histories.push((read_history(cluster, timeline).await?, age(&meta, now)));
                }
                Some(name) => kept.push(Kept { name, age: age(&meta, now) }),
                None => (),
            },
        }
    }
    Ok(Facts { kept, histories })
}

async fn later_in_group(cluster: &Cluster, missing: SegmentName, now: SystemTime) -> anyhow::Result<Vec<Kept>> {
    let folder = cluster.layout.wal_group_folder(&missing);
    Ok(entries(cluster, &folder).await?.iter().filter_map(|entry| kept(cluster, entry, now)).collect())
}

/// The first segment in a folder of the same timeline that lies after the missing one's: a folder can also be empty.
async fn first_of_later_group(
    cluster: &Cluster,
    folder: &str,
    missing: SegmentName,
    now: SystemTime,
) -> anyhow::Result<Option<Kept>> {
    let group = |folder: &str| folder.strip_suffix('/').and_then(|path| path.rsplit('/').next()).map(str::to_string);
    let (Some(found), Some(own)) = (group(folder), group(&cluster.layout.wal_group_folder(&missing))) else {
        return Ok(None);
    };
    let same_timeline = found.len() == own.len() && found.get(..8) == own.get(..8);
    if !same_timeline || found <= own {
        return Ok(None);
    }
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
    bail!("\"{folder}\" in {} has more than {} entries", cluster.repository.describe(), MOST_PAGES * LIST_PAGE)
}

/// A history file that is damaged tells nothing, so nothing may be concluded.
async fn read_history(cluster: &Cluster, timeline: TimelineId) -> anyhow::Result<TimelineHistory> {
    let key = cluster.layout.wal(&WalFileName::History(timeline));
    let hint = "repair the repository from a copy: without this file nobody can tell whether the archive ends here";
    let found = cluster.repository.read_small(&key, WAL_KIND).await.hint(hint)?;
    let (_, content) = found.with_context(|| format!("object \"{key}\" vanished while it was read"))?;
    TimelineHistory::parse(timeline, &String::from_utf8_lossy(&content))
        .with_context(|| format!("object \"{key}\""))
        .hint(hint)
}
