//! What is removed from the repository is forgotten, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::testing::{FIRST, MadeUp, Random, SIZE, cluster, segment, store, store_history};
use super::tests::{assert_same, seed};
use super::trust_tests::{look, remove};
use super::update::{Scope, list};
use super::*;
use crate::postgres::archive::testing::cluster_in;
use crate::postgres::types::{Lsn, WalFileName};
use crate::storage::counting::CountingStorage;
use crate::storage::{LocalStorage, PutMode, Storage};

/// All but what joining needs, which is read again where it is wanted.
fn answers(index: &Index) -> Vec<String> {
    index.dump().into_iter().filter(|line| !line.starts_with("edge")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_forgotten_with_what_it_told_and_no_more() {
    let seed = seed("removed");
    let mut random = Random(seed);
    let made = MadeUp::new(seed, 60).segments();
    let (cluster, storage) = cluster().await;
    let fork = 25 + random.below(10) as usize;
    let copy = (segment(2, FIRST + fork as u64), made[fork].1.clone(), made[fork].2.clone());
    let all: Vec<_> = made.iter().cloned().chain([copy]).collect();
    let history = format!("1\t{}\tpromoted\n", Lsn((FIRST + fork as u64 + 1) * SIZE - 8));
    for (name, bytes, summary) in &all {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    store_history(&cluster, 2, &history).await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    look(&index, &cluster, Scope::New);
    let complete = index.dump();
    for round in 0..6 {
        // The oldest ones, any others, and a timeline's only one.
        let count = 1 + random.below(4) as usize;
        let gone: Vec<usize> = match round {
            0 => (0..count).collect(),
            1 => vec![all.len() - 1],
            _ => (0..count).map(|_| random.below(all.len() as u64) as usize).collect(),
        };
        for at in &gone {
            remove(&storage, &cluster, all[*at].0).await;
        }
        let history_too = round == 1;
        if history_too {
            storage.delete(&cluster.layout.wal(&WalFileName::History(TimelineId(2)))).await.unwrap();
        }
        let (before, listed) = (index.state().unwrap(), list(&index, &cluster, Scope::New).await.unwrap());
        let state = index.state().unwrap();
        let distinct: BTreeSet<&usize> = gone.iter().collect();
        assert!(listed.gone && state.segments == before.segments - distinct.len() as u64);
        assert!(state.not_indexed <= 18 * distinct.len() as u64, "{state:?}");
        look(&index, &cluster, Scope::New);
        let anew = Arc::new(Index::temporary(&cluster).unwrap());
        look(&anew, &cluster, Scope::All);
        assert_same(&answers(&anew), &answers(&index));
        assert_eq!(index.ranges().unwrap(), anew.ranges().unwrap());
        // What comes back is as if it had never been away.
        for at in distinct {
            let (name, bytes, summary) = &all[*at];
            store(&cluster, *name, bytes, Some(summary)).await;
        }
        if history_too {
            store_history(&cluster, 2, &history).await;
        }
        look(&index, &cluster, Scope::New);
        assert_eq!(index.dump().len(), complete.len(), "round {round}");
        let anew = Arc::new(Index::temporary(&cluster).unwrap());
        look(&anew, &cluster, Scope::All);
        assert_same(&anew.dump(), &index.dump());
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_is_forgotten_and_its_neighbours_stay() {
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let per_log = index.size.per_log();
    let put = async |number: u64| {
        let key = cluster.layout.wal(&WalFileName::Segment(segment(1, number)));
        let _ = storage.put(&key, "not read here".into(), PutMode::CreateOnly).await.unwrap();
    };
    let numbers = [per_log - 1, per_log, per_log + 1, 2 * per_log - 1, 2 * per_log];
    for number in numbers {
        put(number).await;
    }
    list(&index, &cluster, Scope::New).await.unwrap();
    for number in &numbers[1..4] {
        remove(&storage, &cluster, segment(1, *number)).await;
    }
    assert!(list(&index, &cluster, Scope::New).await.unwrap().gone);
    let ranges = index.ranges().unwrap().unwrap();
    let kept: Vec<u64> = ranges.iter().map(|range| range.first.number(index.size)).collect();
    assert_eq!(kept, [numbers[0], numbers[4]]);
    assert!(!list(&index, &cluster, Scope::New).await.unwrap().gone, "once");
    put(numbers[2]).await;
    list(&index, &cluster, Scope::New).await.unwrap();
    assert_eq!(index.state().unwrap().segments, 3);
}

#[tokio::test]
async fn folders_that_rest_are_not_listed_again() {
    let root = tempfile::tempdir().unwrap();
    let storage = Arc::new(CountingStorage::new(Arc::new(LocalStorage::new(root.path()))));
    let cluster = cluster_in(storage.clone()).await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let key = |number| cluster.layout.wal(&WalFileName::Segment(segment(1, number)));
    let put = async |number| {
        let _ = storage.put(&key(number), "not read here".into(), PutMode::CreateOnly).await.unwrap();
    };
    let per_log = index.size.per_log();
    let rest = || {
        let then = std::time::SystemTime::now() - Duration::from_secs(60);
        for folder in ["", "0000000100000000", "0000000100000001"] {
            let folder = root.path().join("main/wal").join(folder);
            fs::File::open(folder).unwrap().set_modified(then).unwrap();
        }
    };
    for number in [7, per_log] {
        put(number).await;
    }
    rest();
    list(&index, &cluster, Scope::New).await.unwrap();
    storage.forget();
    list(&index, &cluster, Scope::New).await.unwrap();
    assert_eq!(storage.calls(), ["get", "get", "stamp", "stamp", "stamp"]);
    put(8).await;
    storage.delete(&key(7)).await.unwrap();
    assert!(list(&index, &cluster, Scope::New).await.unwrap().gone);
    let ranges = index.ranges().unwrap().unwrap();
    assert_eq!(ranges.iter().map(|range| range.first.number(index.size)).collect::<Vec<_>>(), [8, per_log]);
    storage.forget();
    list(&index, &cluster, Scope::All).await.unwrap();
    assert_eq!(storage.calls().iter().filter(|call| **call == "list").count(), 3);
}
