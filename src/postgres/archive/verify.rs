//! Is the archive whole? Every object in the WAL folder is read and checked against its own header and name, and what is
//! missing between segments is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::aside;
use super::identity::{check_backup, check_history, check_segment};
use crate::codec::Check;
use crate::error::one_line;
use crate::postgres::catalog::load::{LoadedWal, list_wal, load_histories, load_wal};
use crate::postgres::catalog::{Gap, TimelinePath, WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::trouble::{Trouble, Why};
use crate::postgres::types::{LongPageHeader, TimelineId, WalFileName};
use crate::repo::{SealedObject, reread};
use crate::storage::{Key, ObjectMeta};

/// Damages that are told one by one; the rest is counted.
const MAX_DAMAGES: usize = 1000;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    All,
    /// All but segments, and every n-th segment from a random one on.
    EveryNth(u64),
}

/// An object that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Damage {
    pub object: String,
    pub trouble: Trouble,
    pub why: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// Segments there are.
    pub segments: u64,
    /// Objects read whole.
    pub read: u64,
    /// Bytes of their content.
    pub plain_bytes: u64,
    /// By key.
    pub damages: Vec<Damage>,
    /// Damages beyond those listed.
    pub more_damages: u64,
    pub gaps: Vec<Gap>,
    /// Objects in the WAL folder that are no WAL file's.
    pub foreign: Vec<String>,
    /// Timelines with segments but without the history file that tells where they come from.
    pub missing_histories: Vec<TimelineId>,
}

impl Verified {
    /// Whether nothing is damaged or missing.
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty() && self.gaps.is_empty() && self.missing_histories.is_empty()
    }

    fn add(&mut self, key: &Key, checked: Result<u64, Why>) {
        self.read += 1;
        match checked {
            Ok(bytes) => self.plain_bytes += bytes,
            Err(Why { trouble, why }) if self.damages.len() < MAX_DAMAGES => {
                self.damages.push(Damage { object: key.to_string(), trouble, why });
            }
            Err(_) => self.more_damages += 1,
        }
    }
}

/// What a verification reads, and who is told. Objects are begun in the order of their keys.
pub trait Reading {
    /// Whether to read the object of a WAL file.
    fn wants(&mut self, meta: &ObjectMeta, name: WalFileName) -> bool;
    /// An object was read: the bytes of its content, or what is wrong with it. In any order. Errors end the reading.
    fn read(&mut self, key: &Key, checked: &Result<u64, Why>) -> anyhow::Result<()>;
}

/// An extent that nobody watches.
struct Unwatched {
    extent: Extent,
    /// Objects so far, from a random number on.
    number: u64,
}

impl Reading for Unwatched {
    fn wants(&mut self, _: &ObjectMeta, name: WalFileName) -> bool {
        self.number = self.number.wrapping_add(1);
        match (self.extent, name) {
            (Extent::EveryNth(n), WalFileName::Segment(_)) => self.number.is_multiple_of(n.max(1)),
            _ => true,
        }
    }

    fn read(&mut self, _: &Key, _: &Result<u64, Why>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Reads the archive with `workers` objects in work at once. An object that cannot be read counts as damaged: the
/// others are still checked. Errors: the store does not list.
pub async fn verify(cluster: &Cluster, extent: Extent, workers: usize) -> anyhow::Result<Verified> {
    verify_watched(cluster, &mut Unwatched { extent, number: getrandom::u64()? }, workers).await
}

/// The same, of the objects that `reading` wants.
pub async fn verify_watched(cluster: &Cluster, reading: &mut dyn Reading, workers: usize) -> anyhow::Result<Verified> {
    let mut found = Verified::default();
    let slots = Arc::new(Semaphore::new(workers.max(1)));
    let mut reads = JoinSet::new();
    let mut listing = list_wal(cluster);
    let mut loaded = LoadedWal::new(cluster.description.segment_size);
    while let Some((name, meta)) = listing.next().await? {
        loaded.add(name, &meta);
        let Some(name) = name.filter(|name| reading.wants(&meta, *name)) else { continue };
        let slot = slots.clone().acquire_owned().await?;
        while let Some(read) = reads.try_join_next() {
            let (key, checked): (Key, _) = read?;
            reading.read(&key, &checked)?;
            found.add(&key, checked);
        }
        let cluster = cluster.clone();
        reads.spawn(async move {
            let checked = check(&cluster, name).await;
            drop(slot);
            (meta.key, checked)
        });
    }
    while let Some(read) = reads.join_next().await {
        let (key, checked) = read?;
        reading.read(&key, &checked)?;
        found.add(&key, checked);
    }
    found.damages.sort();
    found.conclude(cluster, loaded).await?;
    Ok(found)
}

impl Verified {
    /// What is missing between the objects that there are.
    async fn conclude(&mut self, cluster: &Cluster, loaded: LoadedWal) -> anyhow::Result<()> {
        self.segments = loaded.ranges.iter().map(|range| range.segments).sum();
        self.gaps = self.gaps_of(cluster, &loaded).await?;
        if !self.gaps.is_empty() {
            // Segments are stored several at a time: some that were on their way then are there now.
            let now = self.gaps_of(cluster, &load_wal(cluster).await?).await?;
            self.gaps = now.into_iter().filter(|gap| self.gaps.iter().any(|old| gap.overlaps(old))).collect();
        }
        self.foreign = loaded.foreign;
        self.missing_histories = loaded.ranges.iter().map(|range| range.timeline()).collect();
        self.missing_histories.dedup();
        self.missing_histories.retain(|timeline| timeline.0 > 1 && !loaded.histories.contains(timeline));
        Ok(())
    }

    /// What is missing within timelines and where one follows another. A history that is told as damaged tells nothing.
    async fn gaps_of(&self, cluster: &Cluster, loaded: &LoadedWal) -> anyhow::Result<Vec<Gap>> {
        let damaged: BTreeSet<&str> = self.damages.iter().map(|damage| damage.object.as_str()).collect();
        let key = |timeline: TimelineId| cluster.layout.wal(&WalFileName::History(timeline));
        let whole = loaded.histories.iter().copied().filter(|timeline| !damaged.contains(key(*timeline).as_str()));
        let histories = load_histories(cluster, &whole.collect::<Vec<_>>()).await?;
        let paths = TimelinePath::all(histories.known.into_values(), &[], &loaded.ranges);
        Ok(TimelinePath::all_gaps(&paths, &loaded.ranges))
    }
}

/// Reads one object whole, twice if it is damaged; the bytes of its content, or what is wrong with it.
async fn check(cluster: &Cluster, name: WalFileName) -> Result<u64, Why> {
    let longest = name.longest(cluster.description.segment_size);
    let read = async || {
        let object = cluster.repository.get_sealed(&cluster.layout.wal(&name), WAL_KIND, longest).await?;
        let object = object.ok_or_else(|| Why::missing("it vanished while the archive was read"))?;
        check_object(cluster, name, object).await
    };
    reread(Why::is_damage, read).await
}

/// Checks a whole object against its own header, its name and the cluster's identity; the bytes of its content, or
/// what is wrong with it.
pub async fn check_object(cluster: &Cluster, name: WalFileName, object: SealedObject) -> Result<u64, Why> {
    let cluster = cluster.clone();
    let checking = tokio::task::spawn_blocking(move || check_content(&cluster, name, &object));
    checking.await.unwrap_or_else(|panicked| Err(Why::unread(&panicked.into())))
}

fn check_content(cluster: &Cluster, name: WalFileName, object: &SealedObject) -> Result<u64, Why> {
    let mut content = Beginning { bytes: Vec::new(), most: beginning(name) };
    object.unseal(Check::Content, &mut content).map_err(|error| Why::unread(&error.into()))??;
    let header = object.header();
    let about: WalDescription = header
        .about
        .read()
        .map_err(|error| Why::damaged(format!("its header does not describe a WAL file: {error}")))?;
    let ours = &cluster.description;
    if about.name != name.handed_over() {
        return Err(Why::damaged(format!("it holds \"{}\"", about.name)));
    }
    if about.system_identifier != ours.system_identifier {
        let why = format!("it is of the cluster with system identifier {}", about.system_identifier);
        return Err(Why::damaged(why));
    }
    let refused = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            check_segment(ours, &segment, header.plain.size, &content.bytes).err()
        }
        WalFileName::History(timeline) => check_history(timeline, &content.bytes).err(),
        WalFileName::Backup { segment, offset } => check_backup(ours, &segment, offset, &content.bytes).err(),
        // It is there because it is not what its name says; its own name says what it is.
        WalFileName::Aside { .. } => match aside::name(&name.handed_over(), &header.plain.digest) == Some(name) {
            true => None,
            false => return Err(Why::damaged(format!("its content has digest {}", header.plain.digest))),
        },
    };
    match refused {
        Some(refused) => Err(Why::damaged(one_line(&refused.into()))),
        None => Ok(header.plain.size),
    }
}

/// How much of a file's content is looked at: a segment's first header; a text file whole.
fn beginning(name: WalFileName) -> usize {
    match name {
        WalFileName::Segment(_) | WalFileName::Partial(_) | WalFileName::Aside { .. } => LongPageHeader::LEN,
        WalFileName::History(_) | WalFileName::Backup { .. } => 1 << 20,
    }
}

/// Keeps the first bytes written to it.
struct Beginning {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.most - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..room.min(bytes.len())]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::{cluster_in, segment};
    use crate::postgres::types::SystemIdentifier;
    use crate::storage::{MemoryStorage, PutMode, Storage};

    async fn put(cluster: &Cluster, under: &str, name: &str, content: &[u8]) {
        let about = WalDescription {
            name: name.parse().unwrap(),
            system_identifier: SystemIdentifier(7),
            timeline: crate::postgres::types::TimelineId(1),
            major: None,
            archived_at: chrono::DateTime::UNIX_EPOCH,
            frames: Vec::new(),
            summary: None,
        };
        let sealed = crate::codec::seal(WAL_KIND, &about, &mut &content[..], content.len() as u64, 1).unwrap();
        let key = cluster.layout.wal(&under.parse().unwrap());
        let _ = cluster.repository.put_sealed(&key, &sealed).await.unwrap();
    }

    const SECOND: &str = "000000010000000000000002";
    const THIRD: &str = "000000010000000000000003";
    const FIFTH: &str = "000000010000000000000005";
    const HISTORY: &str = "00000002.history";

    async fn archive() -> (Cluster, Arc<MemoryStorage>) {
        let storage = Arc::new(MemoryStorage::default());
        let cluster = cluster_in(storage.clone()).await;
        put(&cluster, SECOND, SECOND, &segment(SECOND, 1)).await;
        put(&cluster, THIRD, THIRD, &segment(THIRD, 1)).await;
        put(&cluster, HISTORY, HISTORY, b"1\t0/300000\tno recovery target specified\n").await;
        (cluster, storage)
    }

    #[tokio::test]
    async fn a_whole_archive_is_sound_also_by_sample() {
        let (cluster, _) = archive().await;
        let all = verify(&cluster, Extent::All, 2).await.unwrap();
        assert!(all.is_sound(), "{all:?}");
        assert_eq!((all.segments, all.read), (2, 3));
        let sampled = verify(&cluster, Extent::EveryNth(2), 2).await.unwrap();
        assert!(sampled.is_sound() && sampled.segments == 2 && sampled.read < 3, "{sampled:?}");
    }

    #[tokio::test]
    async fn a_hole_before_a_new_timeline_is_a_gap() {
        let (cluster, storage) = archive().await;
        let fifth_of_second = "000000020000000000000005";
        let other = cluster.layout.wal(&HISTORY.parse().unwrap());
        storage.delete(&other).await.unwrap();
        put(&cluster, HISTORY, HISTORY, b"1\t0/500100\tno recovery target specified\n").await;
        put(&cluster, fifth_of_second, fifth_of_second, &segment(fifth_of_second, 1)).await;
        let found = verify(&cluster, Extent::All, 2).await.unwrap();
        assert_eq!(gaps(&found), [("000000010000000000000004".into(), "000000010000000000000004".into())]);
        assert!(found.damages.is_empty() && !found.is_sound());
    }

    /// Segments in the order of their arrival while the archive is read.
    #[tokio::test]
    async fn of_a_gap_stays_what_did_not_arrive_meanwhile() {
        let (cluster, _) = archive().await;
        let name = |number: u32| format!("00000001000000000000000{number}");
        put(&cluster, &name(8), &name(8), &segment(&name(8), 1)).await;
        let before = load_wal(&cluster).await.unwrap();
        for number in [4, 6] {
            put(&cluster, &name(number), &name(number), &segment(&name(number), 1)).await;
        }
        let mut found = Verified::default();
        found.conclude(&cluster, before.clone()).await.unwrap();
        assert_eq!(gaps(&found), [(name(5), name(5)), (name(7), name(7))]);
        for number in [5, 7] {
            put(&cluster, &name(number), &name(number), &segment(&name(number), 1)).await;
        }
        // Nor is a gap told that was none when the archive was read.
        put(&cluster, "00000001000000000000000A", "00000001000000000000000A", &segment(&name(9), 1)).await;
        found.conclude(&cluster, before).await.unwrap();
        assert!(found.is_sound(), "{found:?}");
    }

    fn gaps(found: &Verified) -> Vec<(String, String)> {
        found.gaps.iter().map(|gap| (gap.first_missing.to_string(), gap.last_missing.to_string())).collect()
    }

    #[tokio::test]
    async fn every_kind_of_trouble_is_named() {
        let (cluster, storage) = archive().await;
        put(&cluster, FIFTH, SECOND, &segment(SECOND, 1)).await;
        put(&cluster, "000000030000000000000003", "000000030000000000000003", &segment(THIRD, 1)).await;
        let key = cluster.layout.wal(&THIRD.parse().unwrap());
        let mut flipped = crate::storage::get_all(&*storage, &key, u64::MAX).await.unwrap().unwrap().to_vec();
        let last = flipped.len() - 9;
        flipped[last] ^= 1;
        let _ = storage.put(&key, flipped.into(), PutMode::Overwrite).await.unwrap();
        let found = verify(&cluster, Extent::All, 2).await.unwrap();
        let named: Vec<(&str, &str)> =
            found.damages.iter().map(|d| (d.object.rsplit('/').next().unwrap(), d.why.as_str())).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(named[0].0.starts_with(THIRD), "{named:?}");
        assert!(named[1].0.starts_with(FIFTH) && named[1].1.contains("it holds"), "{named:?}");
        assert_eq!(found.gaps.len(), 1);
        assert_eq!(found.missing_histories, [TimelineId(3)]);
    }
}
