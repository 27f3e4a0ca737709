//! Whatever became of the segments meanwhile, the index is that of what is there, worked in in the order of the places;
//! and until it is, it says nothing else.

use std::sync::Arc;

use super::testing::{
    FIRST, Made, MadeUp, Random, SIZE, assert_same, cluster, remove, seed, segment, store,
    store_history, stored, summarize,
};
use super::update::{ListScope, complete, decode, list, update};
use super::*;
use crate::postgres::catalog::{Unknown, WalIndex};
use crate::postgres::types::{Lsn, WalFileName};
use crate::postgres::wal::{Commit, Timestamp};
use crate::storage::{MemoryStorage, PutMode, Storage};

/// Segments of the first timeline, with records that are longer than segments, and of a second one that begins among them.
fn all(seed: u64, random: &mut Random) -> (Made, u64) {
    let mut made = MadeUp::new(seed, 6);
    for segments in [10, 16, 23, 30, 36] {
        made.write_long((SIZE + random.below(3 * SIZE)) as usize);
        made.grow(segments);
    }
    let mut segments = made.segments();
    let fork = FIRST + 12 + random.below(12);
    for number in fork..fork + 6 {
        let (_, bytes, mut summary) = segments[(number - FIRST) as usize].clone();
        summary.first_timeline = Some(TimelineId(if number == fork { 1 } else { 2 }));
        segments.push((segment(2, number), bytes, summary));
    }
    (segments, fork)
}

struct Archive {
    cluster: Cluster,
    storage: Arc<MemoryStorage>,
    random: Random,
    all: Made,
    there: Vec<bool>,
}

impl Archive {
    /// Stores a segment as it was, in part, damaged, or without its summary.
    async fn store(&mut self, at: usize, index: &Index) {
        let (name, mut bytes, mut summary) = self.all[at].clone();
        self.remove(at).await;
        self.there[at] = true;
        match self.random.below(10) {
            0 => {
                let key = self.cluster.layout.wal(&WalFileName::Segment(name));
                let _ = self
                    .storage
                    .put(&key, "damaged".into(), PutMode::CreateOnly)
                    .await
                    .unwrap();
                return;
            }
            1 => {
                bytes[self.random.below(SIZE) as usize..].fill(0);
                summary = summarize(&bytes, name.number(index.size));
            }
            2 => return store(&self.cluster, name, &bytes, None).await,
            _ => {}
        }
        store(&self.cluster, name, &bytes, Some(&summary)).await;
        if self.random.below(3) == 0 {
            index
                .observe(stored(&self.cluster, name).await, &summary)
                .unwrap();
        }
    }

    async fn remove(&mut self, at: usize) {
        if std::mem::take(&mut self.there[at]) {
            remove(&self.storage, &self.cluster, self.all[at].0).await;
        }
    }

    /// A segment that is there or not.
    fn any(&mut self, there: bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.all.len())
            .filter(|at| self.there[*at] == there)
            .collect();
        // What comes comes nearly in order, and what goes is mostly old.
        let most = if self.random.below(4) == 0 {
            all.len()
        } else {
            all.len().min(4)
        };
        (most > 0).then(|| all[self.random.below(most as u64) as usize])
    }

    async fn step(&mut self, index: &Arc<Index>) {
        match self.random.below(12) {
            0..=6 => {
                if let Some(at) = self.any(false) {
                    self.store(at, index).await;
                }
            }
            7 => {
                if let Some(at) = self.any(true) {
                    self.store(at, index).await;
                }
            }
            8 | 9 => {
                // Of each timeline one stays, so that its folder is known.
                if let Some(at) = self
                    .any(true)
                    .filter(|at| ![0, self.all.len() - 1].contains(at))
                {
                    self.remove(at).await;
                }
            }
            10 => update(index, &self.cluster, ListScope::New, &|_| ())
                .await
                .unwrap(),
            _ => drop(decode(index, &self.cluster, 1).await.unwrap()),
        }
    }
}

/// What the index says of a range of WAL.
fn ask(
    index: &Index,
    (timeline, from, until): (TimelineId, u64, u64),
) -> Result<(Option<u64>, Option<Commit>), Unknown> {
    let later = index.first_later(timeline, from, until, Timestamp(i64::MAX), true)?;
    Ok((later, index.first_commit(timeline, from, until)?))
}

#[tokio::test]
async fn an_index_is_that_of_what_is_there_whatever_became_of_it() {
    let seed = seed("order");
    let mut random = Random(seed);
    let (all, fork) = all(seed, &mut random);
    let (cluster, storage) = cluster().await;
    store_history(
        &cluster,
        2,
        &format!("1\t{}\tpromoted\n", Lsn((fork + 1) * SIZE - 8)),
    )
    .await;
    let there = vec![false; all.len()];
    let mut archive = Archive {
        cluster: cluster.clone(),
        storage,
        random,
        all,
        there,
    };
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let last = archive.all.len() - 1;
    for at in 0..=last {
        if at == 0 || at == last || archive.random.below(3) > 0 {
            archive.store(at, &index).await;
        }
    }
    list(&index, &cluster, ListScope::New).await.unwrap();
    let mut told = 0;
    for _ in 0..12 {
        for _ in 0..archive.random.below(16) {
            archive.step(&index).await;
        }
        list(&index, &cluster, ListScope::All).await.unwrap();
        let pending = index.not_indexed(None, usize::MAX).unwrap();
        let mut ranges = Vec::new();
        for _ in 0..60 {
            let from = FIRST + archive.random.below(36);
            let until = from + 1 + archive.random.below(5);
            let timeline = TimelineId(1 + archive.random.below(2) as u32);
            // What crosses into the first one is asked for from the one before.
            if !pending
                .iter()
                .any(|one| one.name.number(index.size) + 1 == from)
            {
                ranges.push((timeline, from, until));
            }
        }
        let before: Vec<_> = ranges.iter().map(|asked| ask(&index, *asked)).collect();
        complete(&index, &cluster, ListScope::All, &|_| ())
            .await
            .unwrap();
        for (asked, before) in ranges.into_iter().zip(before) {
            let after = ask(&index, asked);
            assert!(
                matches!(before, Err(Unknown::Segment(_))) || before == after,
                "{asked:?}: {before:?} {after:?}"
            );
            told += usize::from(before.is_ok());
        }
        // One by one, in their order.
        let anew = Arc::new(Index::temporary(&cluster).unwrap());
        list(&anew, &cluster, ListScope::All).await.unwrap();
        decode(&anew, &cluster, usize::MAX).await.unwrap();
        assert_eq!(
            anew.count_not_indexed().unwrap(),
            0,
            "in their order nothing has to be read again"
        );
        assert_same(&anew.dump(), &index.dump());
        assert_eq!(index.ranges().unwrap(), anew.ranges().unwrap());
    }
    assert!(told > 20, "{told}");
}

/// Several segments are stored at a time, so they come in any order.
#[tokio::test]
async fn what_was_stored_before_the_one_ahead_of_it_need_not_be_read() {
    let (cluster, _storage) = cluster().await;
    let mut made = MadeUp::new(seed("stored out of order"), 6);
    made.grow(8);
    let made = made.segments();
    let index = Index::temporary(&cluster).unwrap();
    for at in [0, 3, 2, 1, 7, 5, 6, 4] {
        let (name, bytes, summary) = &made[at];
        store(&cluster, *name, bytes, Some(summary)).await;
        index
            .observe(stored(&cluster, *name).await, summary)
            .unwrap();
    }
    assert_eq!(index.count_not_indexed().unwrap(), 0);
}
