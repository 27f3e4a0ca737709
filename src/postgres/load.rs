//! The catalog's one door to the repository: reads the facts that decisions are made over. An object that is there
//! but cannot be read is an answer of its own, and a store that does not answer is an error: neither is ever taken
//! for absent.

mod backups;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use tokio::task::JoinSet;

use crate::error::{find, one_line};
use crate::postgres::catalog::{
    BACKUP_KIND, BackupDescription, Facts, IdleTimes, Unusable, WAL_KIND, WalRanges,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, IdleMarker, ObjectKind};
use crate::postgres::protection::load_expired;
use crate::postgres::types::{
    LONGEST_SMALL_FILE, Lsn, ParseError, SegmentName, SegmentSize, TimelineHistory, TimelineId,
    WalFileName,
};
use crate::repo::{is_damage, is_newer, is_unusable, reread};
use crate::storage::{Key, ObjectMeta, Pages, StorageError, Walk};

pub use backups::{KeptBackups, NewestBackups};

/// Headers read at once.
const PARALLEL_READS: usize = 16;
/// When the store did not answer so often, it is not a matter of single objects.
const MOST_SILENT: u32 = 20;

/// All base backups, by what their manifests say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedBackups {
    /// Oldest first.
    pub complete: Arc<Vec<BackupDescription>>,
    /// The manifest is there and cannot be used; and why.
    pub damaged: Vec<(BackupId, String)>,
    /// The store gives all but these: whether they are complete is not known; and why.
    pub unread: Vec<(BackupId, String)>,
    /// Without a manifest: being taken, or interrupted.
    pub unfinished: Vec<BackupId>,
}

impl LoadedBackups {
    /// Those that are there and of no use as long as nobody mends them; and why.
    pub fn unusable(&self) -> impl Iterator<Item = (&BackupId, String)> {
        let damaged = self.damaged.iter().map(|(id, why)| (id, why.clone()));
        damaged.chain(
            self.unread
                .iter()
                .map(|(id, why)| (id, format!("it cannot be read: {why}"))),
        )
    }
}

/// All timeline history files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedHistories {
    pub known: BTreeMap<TimelineId, TimelineHistory>,
    /// The file is there and cannot be used; and why.
    pub damaged: BTreeMap<TimelineId, Unusable>,
}

/// A history file that is whole, and that no server can read.
#[derive(Debug, thiserror::Error)]
#[error("object \"{key}\"")]
pub struct UnreadableObject {
    key: Key,
    /// What the lines say that are as they should be.
    pub rest: TimelineHistory,
    source: ParseError,
}

/// What lies in the WAL folder.
#[derive(Debug, Clone)]
pub struct LoadedWal {
    pub ranges: WalRanges,
    /// Last, unfinished segments of timelines that a promotion ended.
    pub partials: Vec<SegmentName>,
    /// Timelines that have a history file.
    pub histories: Vec<TimelineId>,
    /// Backup history files: the segment, and where in it a backup began.
    pub backup_files: Vec<(SegmentName, u32)>,
    /// Objects whose names are no WAL file's, or that lie where their name does not belong.
    pub foreign: Vec<String>,
    /// Files that are kept beside their names.
    pub aside: Vec<WalFileName>,
}

/// Reads the headers of all manifests. Errors: the store did not answer.
pub async fn load_backups(cluster: &Cluster) -> anyhow::Result<LoadedBackups> {
    let (ids, mut loaded) = (list_backups(cluster, None).await?, LoadedBackups::default());
    let add = |id, found| {
        loaded.add(id, found);
        Ok(())
    };
    read_descriptions(cluster, ids, add).await?;
    for id in std::mem::take(&mut loaded.unfinished) {
        if let Some(found) = begun(cluster, &id).await? {
            loaded.add(id, found);
        }
    }
    Arc::make_mut(&mut loaded.complete).sort_by(|a, b| a.id.cmp(&b.id));
    loaded.damaged.sort();
    loaded.unread.sort();
    loaded.unfinished.sort();
    Ok(loaded)
}

/// What there is of a backup without a manifest; `None`: nothing. In a file system a folder can be there before its first
/// object, and for what is foreign there.
async fn begun(
    cluster: &Cluster,
    id: &BackupId,
) -> anyhow::Result<Option<Loaded<BackupDescription>>> {
    match cluster.objects_of(id).await {
        Ok(objects) if objects.is_empty() => Ok(None),
        Ok(_) => Ok(Some(Loaded::Absent)),
        Err(error) => unread(cluster, error.into()).await.map(Some),
    }
}

/// The names of all backups, complete or not; of those that began after a time.
async fn list_backups(
    cluster: &Cluster,
    since: Option<DateTime<Utc>>,
) -> anyhow::Result<BTreeSet<BackupId>> {
    let mut ids = BTreeSet::new();
    let after = since.map(|since| cluster.layout.backup_folder(&BackupId::at(since)));
    let mut folders = Pages::new(cluster.layout.base_folder(), after);
    while let Some(page) = folders.next(cluster.repository.storage()).await? {
        ids.extend(
            page.iter()
                .filter_map(|entry| cluster.layout.parse_backup_folder(entry.name())),
        );
    }
    Ok(ids)
}

/// Reads the headers of manifests, several at once, in no order.
async fn read_descriptions(
    cluster: &Cluster,
    ids: impl IntoIterator<Item = BackupId>,
    mut take: impl FnMut(BackupId, Loaded<BackupDescription>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut reads, mut silent) = (JoinSet::new(), 0);
    let mut ids = ids.into_iter();
    loop {
        for id in ids.by_ref().take(PARALLEL_READS - reads.len()) {
            let cluster = cluster.clone();
            reads.spawn(async move {
                let found = match find_out(|| read_description(&cluster, &id)).await {
                    Err(error) => unread(&cluster, error).await?,
                    Ok(found) => found,
                };
                anyhow::Ok((id, found))
            });
        }
        let Some(read) = reads.join_next().await else {
            return Ok(());
        };
        let (id, found) = read??;
        match found {
            // Each took its time.
            Loaded::Unread(error) if !is_lasting(&error) && silent == MOST_SILENT => {
                return Err(error);
            }
            Loaded::Unread(ref error) if !is_lasting(error) => silent += 1,
            _ => (),
        }
        take(id, found)?;
    }
}

/// An object that the store does not give, while it gives others. Errors: it gives none.
async fn unread<T>(cluster: &Cluster, error: anyhow::Error) -> anyhow::Result<Loaded<T>> {
    match cluster.confirm().await {
        Ok(()) => Ok(Loaded::Unread(error)),
        Err(_) => Err(error),
    }
}

/// Whether it will not be had the next time either: the store refuses it, or a newer Walden wrote it.
fn is_lasting(error: &anyhow::Error) -> bool {
    is_unusable(error) || find::<StorageError>(error).is_some_and(|error| error.lasting)
}

impl LoadedBackups {
    fn add(&mut self, id: BackupId, found: Loaded<BackupDescription>) {
        match found {
            Loaded::Whole(description) => Arc::make_mut(&mut self.complete).push(description),
            Loaded::Damaged(error) => self.damaged.push((id, one_line(&error))),
            Loaded::Unread(error) => self.unread.push((id, one_line(&error))),
            Loaded::Absent => self.unfinished.push(id),
        }
    }
}

/// Everything that planning a restore needs. Errors: the store did not answer, or is another's by now.
pub async fn load(cluster: &Cluster) -> anyhow::Result<Facts> {
    // Backups first: the WAL of one that was complete by then is in the listing that follows.
    let backups = load_backups(cluster).await?;
    let wal = load_wal(cluster).await?;
    let histories = load_histories(cluster, &wal.histories).await?;
    let idle = load_idle(cluster, &wal.ranges).await?;
    // The empty folder below an unmounted disk has nothing, either.
    cluster.confirm().await?;
    Ok(facts(cluster, backups, wal.ranges, histories, idle))
}

/// All that was read, together.
pub fn facts(
    cluster: &Cluster,
    backups: LoadedBackups,
    ranges: WalRanges,
    histories: LoadedHistories,
    idle: IdleTimes,
) -> Facts {
    Facts {
        cluster: cluster.description.name.clone(),
        damaged_backups: backups
            .unusable()
            .map(|(id, why)| (id.clone(), why))
            .collect(),
        backups: backups.complete,
        unfinished_backups: backups.unfinished,
        ranges,
        histories: histories.known,
        damaged_histories: histories.damaged,
        idle,
    }
}

/// Lists the idle markers near the end of each timeline's WAL. Errors: the store did not answer.
pub async fn load_idle(cluster: &Cluster, ranges: &WalRanges) -> anyhow::Result<IdleTimes> {
    let ends: BTreeMap<TimelineId, Lsn> = ranges
        .iter()
        .map(|range| (range.timeline(), ranges.end(range)))
        .collect();
    let mut times = IdleTimes::default();
    for (timeline, end) in ends {
        idle_markers(cluster, timeline, end)
            .await?
            .into_iter()
            .for_each(|mark| times.add(mark));
    }
    Ok(times)
}

/// The idle markers of a timeline in the 4 to 8 GiB of WAL before `end`, by place and time: older ones prove nothing unless
/// all WAL since has ended no transaction. Errors: the store did not answer.
pub async fn idle_markers(
    cluster: &Cluster,
    timeline: TimelineId,
    end: Lsn,
) -> anyhow::Result<Vec<IdleMarker>> {
    let mut marks = Vec::new();
    for place in BTreeSet::from([end.0.saturating_sub(1 << 32) >> 32, end.0 >> 32]) {
        let mut walk = Walk::new(cluster.layout.idle_group_folder(timeline, Lsn(place << 32)));
        while let Some(meta) = walk.next(cluster.repository.storage()).await? {
            if let Some(ObjectKind::Idle(mark)) = cluster.layout.parse(&meta.key) {
                marks.push(mark);
            }
        }
    }
    Ok(marks)
}

/// Four answers; that the store answers nothing is an error beside them.
enum Loaded<T> {
    Whole(T),
    Damaged(anyhow::Error),
    /// The store does not give it, and gives others; or a newer Walden wrote it.
    Unread(anyhow::Error),
    Absent,
}

/// What there is of something that is read; twice, if it is damaged. Errors: the store did not answer.
async fn find_out<T, F: Future<Output = anyhow::Result<Option<T>>>>(
    read: impl Fn() -> F,
) -> anyhow::Result<Loaded<T>> {
    match reread(is_damage, read).await {
        Ok(Some(whole)) => Ok(Loaded::Whole(whole)),
        Ok(None) => Ok(Loaded::Absent),
        Err(error) if is_damage(&error) => Ok(Loaded::Damaged(error)),
        Err(error) if is_unusable(&error) => Ok(Loaded::Unread(error)),
        Err(error) => Err(error),
    }
}

async fn read_description(
    cluster: &Cluster,
    id: &BackupId,
) -> anyhow::Result<Option<BackupDescription>> {
    let key = cluster.layout.manifest(id);
    let Some(header) = cluster.repository.header(&key, BACKUP_KIND).await? else {
        return Ok(None);
    };
    let read = header.about.read();
    let description =
        read.with_context(|| format!("object \"{key}\" does not describe a backup"))?;
    check_description(cluster, id, &key, description).map(Some)
}

fn check_description(
    cluster: &Cluster,
    id: &BackupId,
    key: &Key,
    found: BackupDescription,
) -> anyhow::Result<BackupDescription> {
    let ours = &cluster.description;
    ensure!(
        found.id == *id,
        "object \"{key}\" describes backup \"{}\": it was moved",
        found.id
    );
    ensure!(
        found.system_identifier == ours.system_identifier
            && found.segment_size == ours.segment_size,
        "object \"{key}\" is a backup of the cluster with system identifier {}, not of \"{}\" with {}",
        found.system_identifier,
        ours.name,
        ours.system_identifier
    );
    ensure!(
        found.start_lsn < found.stop_lsn,
        "object \"{key}\" ends at {}, not after its start {}",
        found.stop_lsn,
        found.start_lsn
    );
    Ok(found)
}

/// Reads all history files. Errors: the store did not answer.
pub async fn load_histories(
    cluster: &Cluster,
    timelines: &[TimelineId],
) -> anyhow::Result<LoadedHistories> {
    let mut loaded = LoadedHistories::default();
    loaded.refresh(cluster, timelines).await?;
    Ok(loaded)
}

impl LoadedHistories {
    /// Brings it up to date with the timelines that have a history file, reading only those that were not read well: a
    /// history file never changes. Errors: the store did not answer.
    pub async fn refresh(
        &mut self,
        cluster: &Cluster,
        timelines: &[TimelineId],
    ) -> anyhow::Result<()> {
        self.known
            .retain(|timeline, _| timelines.contains(timeline));
        self.damaged.clear();
        for timeline in timelines.iter().copied() {
            if self.known.contains_key(&timeline) {
                continue;
            }
            match find_out(|| read_history(cluster, timeline)).await? {
                Loaded::Whole(history) => drop(self.known.insert(timeline, history)),
                Loaded::Damaged(error) | Loaded::Unread(error) => {
                    let whole = find::<UnreadableObject>(&error).is_some();
                    let unusable = Unusable {
                        why: one_line(&error),
                        whole,
                        newer: is_newer(&error),
                    };
                    self.damaged.insert(timeline, unusable);
                }
                Loaded::Absent => {
                    bail!("{timeline}.history vanished while the repository was read: try again")
                }
            }
        }
        Ok(())
    }
}

/// A timeline's history; `None` when it has no history file. Errors: [`UnreadableObject`], the file is damaged, or the store did
/// not answer.
pub async fn read_history(
    cluster: &Cluster,
    timeline: TimelineId,
) -> anyhow::Result<Option<TimelineHistory>> {
    let key = cluster.layout.wal(&WalFileName::History(timeline));
    let read = cluster
        .repository
        .read_small(&key, WAL_KIND, LONGEST_SMALL_FILE)
        .await?;
    let Some((_, content)) = read else {
        return Ok(None);
    };
    let content = String::from_utf8_lossy(&content);
    let unreadable = |source| {
        let good = content
            .lines()
            .filter(|line| TimelineHistory::parse(timeline, line).is_ok());
        let rest = TimelineHistory::parse(timeline, &good.collect::<Vec<_>>().join("\n"));
        UnreadableObject {
            key,
            rest: rest.unwrap_or(TimelineHistory::root(timeline)),
            source,
        }
    };
    Ok(Some(
        TimelineHistory::parse(timeline, &content).map_err(unreadable)?,
    ))
}

/// Lists the WAL folder. Errors: the store did not answer.
pub async fn load_wal(cluster: &Cluster) -> anyhow::Result<LoadedWal> {
    let mut loaded = LoadedWal::new(cluster.description.segment_size);
    let mut listing = list_wal(cluster);
    while let Some((name, meta)) = listing.next().await? {
        loaded.add(name, &meta);
    }
    // After the listing: what is deleted meanwhile is told before it goes.
    loaded.ranges = loaded.ranges.with_expired(load_expired(cluster).await?);
    Ok(loaded)
}

/// Everything in the WAL folder, in the order of the keys: segments ascend within a timeline.
pub fn list_wal(cluster: &Cluster) -> WalListing<'_> {
    WalListing {
        cluster,
        walk: Walk::new(cluster.layout.wal_folder()),
    }
}

/// A listing of WAL that is under way.
pub struct WalListing<'a> {
    cluster: &'a Cluster,
    walk: Walk,
}

impl WalListing<'_> {
    /// The next object, with the WAL file that it holds; `None` for an object that is none. Errors: the store did not
    /// answer.
    pub async fn next(&mut self) -> anyhow::Result<Option<(Option<WalFileName>, ObjectMeta)>> {
        let Some(meta) = self.walk.next(self.cluster.repository.storage()).await? else {
            return Ok(None);
        };
        Ok(Some((self.cluster.wal_file(&meta.key), meta)))
    }
}

impl LoadedWal {
    /// Nothing yet.
    pub fn new(size: SegmentSize) -> Self {
        Self {
            ranges: WalRanges::new(size),
            partials: Vec::new(),
            histories: Vec::new(),
            backup_files: Vec::new(),
            foreign: Vec::new(),
            aside: Vec::new(),
        }
    }

    /// All files but segments and history files: each is named after a segment.
    pub fn beside_segments(&self) -> Vec<WalFileName> {
        let partials = self.partials.iter().copied().map(WalFileName::Partial);
        let of_backups = self.backup_files.iter().copied();
        let of_backups =
            of_backups.map(|(segment, offset)| WalFileName::Backup { segment, offset });
        let all = partials.chain(of_backups);
        all.chain(self.aside.iter().copied()).collect()
    }

    /// Adds one object of a listing.
    pub fn add(&mut self, name: Option<WalFileName>, meta: &ObjectMeta) {
        match name {
            Some(WalFileName::Segment(name)) => {
                self.ranges.add(name, meta.size, meta.modified.into())
            }
            Some(WalFileName::Partial(name)) => self.partials.push(name),
            Some(WalFileName::History(timeline)) => self.histories.push(timeline),
            Some(WalFileName::Backup { segment, offset }) => {
                self.backup_files.push((segment, offset))
            }
            Some(name @ WalFileName::Aside { .. }) => self.aside.push(name),
            None => self.foreign.push(meta.key.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
