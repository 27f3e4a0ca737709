//! What is removed from the repository is forgotten, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::testing::{MadeUp, cluster, remove, seed, segment, store};
use super::update::{IndexProgress, ListScope, list, update};
use super::*;
use crate::postgres::archive::testing::cluster_in;
use crate::postgres::types::WalFileName;
use crate::storage::counting::CountingStorage;
use crate::storage::{LocalStorage, PutMode, Storage};

#[tokio::test]
async fn of_what_follows_on_what_is_gone_only_what_that_concerns_is_read_again() {
    let made = MadeUp::new(seed("front"), 40).segments();
    let (cluster, storage) = cluster().await;
    for (name, bytes, summary) in &made {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    for (name, ..) in &made[..5] {
        remove(&storage, &cluster, *name).await;
    }
    assert!(list(&index, &cluster, ListScope::New).await.unwrap().gone);
    let state = index.state().unwrap();
    assert_eq!((state.segments, state.not_indexed), (35, 1));
    let total = AtomicU64::new(0);
    let count = |progress: IndexProgress| total.store(progress.total, Ordering::Relaxed);
    update(&index, &cluster, ListScope::New, &count)
        .await
        .unwrap();
    // Of transactions that the removed ones began the next few do not hand on the same either.
    assert!((1..10).contains(&total.into_inner()));
    assert_eq!(index.state().unwrap().not_indexed, 0);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_forgotten_and_its_neighbours_stay() {
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let per_log = index.size.per_log();
    let put = async |number: u64| {
        let key = cluster
            .layout
            .wal(&WalFileName::Segment(segment(1, number)));
        let _ = storage
            .put(&key, "not read here".into(), PutMode::CreateOnly)
            .await
            .unwrap();
    };
    let numbers = [
        per_log - 1,
        per_log,
        per_log + 1,
        2 * per_log - 1,
        2 * per_log,
    ];
    for number in numbers {
        put(number).await;
    }
    list(&index, &cluster, ListScope::New).await.unwrap();
    for number in &numbers[1..4] {
        remove(&storage, &cluster, segment(1, *number)).await;
    }
    assert!(list(&index, &cluster, ListScope::New).await.unwrap().gone);
    let ranges = index.ranges().unwrap().unwrap();
    let kept: Vec<u64> = ranges
        .iter()
        .map(|range| range.first.number(index.size))
        .collect();
    assert_eq!(kept, [numbers[0], numbers[4]]);
    assert!(
        !list(&index, &cluster, ListScope::New).await.unwrap().gone,
        "once"
    );
    put(numbers[2]).await;
    list(&index, &cluster, ListScope::New).await.unwrap();
    assert_eq!(index.state().unwrap().segments, 3);
}

#[tokio::test]
async fn folders_that_rest_are_not_listed_again() {
    let root = tempfile::tempdir().unwrap();
    let storage = Arc::new(CountingStorage::new(Arc::new(LocalStorage::new(
        root.path(),
    ))));
    let cluster = cluster_in(storage.clone()).await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let key = |number| {
        cluster
            .layout
            .wal(&WalFileName::Segment(segment(1, number)))
    };
    let put = async |number| {
        let _ = storage
            .put(&key(number), "not read here".into(), PutMode::CreateOnly)
            .await
            .unwrap();
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
    list(&index, &cluster, ListScope::New).await.unwrap();
    storage.forget();
    list(&index, &cluster, ListScope::New).await.unwrap();
    assert_eq!(storage.calls(), ["get", "get", "stamp", "stamp", "stamp"]);
    put(8).await;
    storage.delete(&key(7)).await.unwrap();
    assert!(list(&index, &cluster, ListScope::New).await.unwrap().gone);
    let ranges = index.ranges().unwrap().unwrap();
    assert_eq!(
        ranges
            .iter()
            .map(|range| range.first.number(index.size))
            .collect::<Vec<_>>(),
        [8, per_log]
    );
    storage.forget();
    list(&index, &cluster, ListScope::All).await.unwrap();
    assert_eq!(
        storage
            .calls()
            .iter()
            .filter(|call| **call == "list")
            .count(),
        3
    );
}
