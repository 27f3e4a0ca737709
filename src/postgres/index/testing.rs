//! What the tests of the index are told in: a cluster, segments that are stored, listed and worked in, and a store that
//! waits.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::DateTime;
use tokio::sync::Notify;

pub use super::made_up::{FIRST, MadeUp, Random, SIZE, segment, summarize};
use super::{Archived, Index};
use crate::codec::seal;
use crate::postgres::archive::testing::cluster_in;
use crate::postgres::catalog::{Unknown, WAL_KIND, WalDescription, WalIndex};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{SegmentName, TimelineId, WalFileName};
use crate::postgres::wal::{Summary, Timestamp};
use crate::storage::decorator::Decorator;
use crate::storage::{ListEntry, MemoryStorage, PutMode, Storage, StorageError};

/// A cluster in memory.
pub async fn cluster() -> (Cluster, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::default());
    (cluster_in(storage.clone()).await, storage)
}

/// Stores a segment, with its summary in its header or without.
pub async fn store(cluster: &Cluster, name: SegmentName, bytes: &[u8], summary: Option<&Summary>) {
    let name = WalFileName::Segment(name);
    let about = WalDescription {
        name,
        system_identifier: cluster.description.system_identifier,
        timeline: name.timeline(),
        major: None,
        archived_at: DateTime::UNIX_EPOCH,
        frames: Vec::new(),
        summary: summary.cloned().map(Box::new),
    };
    let sealed = seal(WAL_KIND, &about, &mut &bytes[..], bytes.len() as u64, 1).unwrap();
    put(cluster, &name, [sealed.envelope, sealed.body].concat()).await;
}

/// Stores a history file.
pub async fn store_history(cluster: &Cluster, timeline: u32, content: &str) {
    let bytes = content.as_bytes();
    let sealed = seal(
        WAL_KIND,
        &serde_json::json!({}),
        &mut &bytes[..],
        bytes.len() as u64,
        1,
    )
    .unwrap();
    put(
        cluster,
        &WalFileName::History(TimelineId(timeline)),
        [sealed.envelope, sealed.body].concat(),
    )
    .await;
}

async fn put(cluster: &Cluster, name: &WalFileName, object: Vec<u8>) {
    let key = cluster.layout.wal(name);
    let _ = cluster
        .repository
        .storage()
        .put(&key, object.into(), PutMode::CreateOnly)
        .await
        .unwrap();
}

/// A store that waits when it has listed a folder.
#[derive(Debug, Default)]
pub struct Waiting {
    inner: MemoryStorage,
    /// It waits after the next listing of this one.
    pub folder: Mutex<Option<String>>,
    pub listed: Notify,
    pub go_on: Notify,
}

#[async_trait]
impl Decorator for Waiting {
    fn inner(&self) -> &dyn Storage {
        &self.inner
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        let page = self.inner.list(folder, after).await;
        if self
            .folder
            .lock()
            .unwrap()
            .take_if(|wanted| wanted == folder)
            .is_some()
        {
            self.listed.notify_one();
            self.go_on.notified().await;
        }
        page
    }
}

pub const TIMELINE: TimelineId = TimelineId(1);

pub type Made = Vec<(SegmentName, Vec<u8>, Summary)>;

pub fn archived(name: SegmentName) -> Archived {
    Archived {
        name,
        bytes: 100,
        stored_at: DateTime::UNIX_EPOCH,
    }
}

/// Indexed in the order in which they are given, in batches.
pub fn indexed(cluster: &Cluster, segments: &[(SegmentName, Summary)], batch: usize) -> Index {
    let index = Index::temporary(cluster).unwrap();
    let all: Vec<_> = segments
        .iter()
        .map(|(name, summary)| (archived(*name), Box::new(summary.clone())))
        .collect();
    for batch in all.chunks(batch) {
        index
            .list(
                &batch
                    .iter()
                    .map(|(segment, _)| *segment)
                    .collect::<Vec<_>>(),
            )
            .unwrap();
        index.learn(batch).unwrap();
    }
    learn(&index, &all);
    index
}

/// Puts in what segments hold; again, where that shows that one has to be read again.
pub fn learn(index: &Index, segments: &[(Archived, Box<Summary>)]) {
    index.learn(segments).unwrap();
    let mut left = u64::MAX;
    while index.count_not_indexed().unwrap() < left {
        left = index.count_not_indexed().unwrap();
        index.learn(segments).unwrap();
    }
}

pub fn summaries(made: &Made) -> Vec<(SegmentName, Summary)> {
    made.iter()
        .map(|(name, _, summary)| (*name, summary.clone()))
        .collect()
}

pub fn seed(name: &str) -> u64 {
    let seed = getrandom::u64().unwrap();
    eprintln!("{name}: seed {seed}");
    seed
}

pub fn assert_same(expected: &[String], found: &[String]) {
    for line in expected.iter().filter(|line| !found.contains(line)).take(5) {
        eprintln!("missing {line}");
    }
    for line in found.iter().filter(|line| !expected.contains(line)).take(5) {
        eprintln!("extra   {line}");
    }
    assert!(expected == found, "two indexes of the same segments differ");
}

const NEVER: Timestamp = Timestamp(i64::MAX - 1);

/// The end of all that the index answers for.
pub fn unknown(index: &Index, timeline: TimelineId, from: u64, until: u64) -> Option<Unknown> {
    index.first_later(timeline, from, until, NEVER, true).err()
}

pub async fn remove(storage: &MemoryStorage, cluster: &Cluster, name: SegmentName) {
    storage
        .delete(&cluster.layout.wal(&WalFileName::Segment(name)))
        .await
        .unwrap();
}

/// As the store has it.
pub async fn stored(cluster: &Cluster, name: SegmentName) -> Archived {
    let key = cluster.layout.wal(&WalFileName::Segment(name));
    let bytes = cluster
        .repository
        .storage()
        .head(&key)
        .await
        .unwrap()
        .unwrap()
        .size;
    Archived {
        bytes,
        ..archived(name)
    }
}
