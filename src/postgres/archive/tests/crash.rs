use std::sync::Arc;

use crate::postgres::archive::Fetched;
use crate::postgres::archive::testing::*;
use crate::postgres::cluster::Cluster;
use crate::repo::Repository;
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{LocalStorage, Storage, get_all};

const NAMES: [&str; 4] = [
    "00000002.history",
    "000000010000000000000001",
    "000000010000000000000002",
    "000000010000000000000003.partial",
];

fn bytes(name: &str) -> Vec<u8> {
    match name {
        "00000002.history" => b"1\t0/300100\tno recovery target specified\n".to_vec(),
        name => segment(name, 3),
    }
}

/// Pushes all files in order, as PostgreSQL would: the first failure ends it. The names that were acknowledged.
async fn push_all(storage: Arc<dyn Storage>, wal: &PgWal) -> Vec<&'static str> {
    let mut acknowledged = Vec::new();
    let Ok(repository) = Repository::open(storage).await else {
        return acknowledged;
    };
    let Ok(cluster) = Cluster::open(repository, "main".parse().unwrap()).await else {
        return acknowledged;
    };
    let pusher = pusher(&cluster);
    for name in NAMES {
        match pusher.push(&wal.folder().join(name)).await {
            Ok(_) => acknowledged.push(name),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test]
async fn a_stop_at_any_storage_call_loses_and_overwrites_nothing() {
    let wal = PgWal::new();
    for name in NAMES {
        wal.ready(name, &bytes(name));
    }
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(folder.path()));
            let cluster = cluster_in(storage.clone()).await;
            let faulty = Arc::new(FaultyStorage::new(storage.clone(), stop_at, point));
            let acknowledged = push_all(faulty.clone(), &wal).await;

            let key = |name: &str| cluster.layout.wal(&name.parse().unwrap());
            let mut kept = Vec::new();
            for name in NAMES {
                kept.push(get_all(&*storage, &key(name), u64::MAX).await.unwrap());
            }
            let stored = NAMES
                .iter()
                .zip(&kept)
                .filter(|(_, object)| object.is_some())
                .map(|(name, _)| *name);
            let stored: Vec<&str> = stored.collect();
            assert!(
                stored.starts_with(&acknowledged),
                "P1: {acknowledged:?} acknowledged, {stored:?} stored"
            );
            assert!(
                stored.len() <= acknowledged.len() + 1,
                "at most the answer of one was lost"
            );

            assert_eq!(
                push_all(storage.clone(), &wal).await,
                NAMES,
                "it goes on where it stopped: {point:?} {stop_at}"
            );
            for (name, before) in NAMES.iter().zip(kept) {
                let after = get_all(&*storage, &key(name), u64::MAX).await.unwrap();
                assert!(
                    before.is_none() || before == after,
                    "P2: {name} was overwritten"
                );
                let back = wal.folder().join("back");
                let fetched = fetcher(&cluster)
                    .fetch(&name.parse().unwrap(), &back, None)
                    .await
                    .unwrap();
                assert_eq!(
                    (fetched, content(&back) == Some(bytes(name))),
                    (Fetched::Delivered, true),
                    "P1: {name}"
                );
            }
            if !faulty.stopped() {
                assert!(
                    stop_at >= NAMES.len() as u64,
                    "each push makes at least one call"
                );
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_no_conflict() {
    let wal = PgWal::new();
    let storage: Arc<dyn Storage> = Arc::new(crate::storage::MemoryStorage::default());
    let cluster = cluster_in(storage.clone()).await;
    let path = wal.segment(NAMES[1], 1);
    let lost = Arc::new(FaultyStorage::new(storage.clone(), 3, CrashPoint::After));
    let through = Cluster::open(
        Repository::open(lost).await.unwrap(),
        "main".parse().unwrap(),
    )
    .await
    .unwrap();
    assert!(
        pusher(&through).push(&path).await.is_err(),
        "the put's answer was lost"
    );
    assert!(
        storage
            .head(&cluster.layout.wal(&NAMES[1].parse().unwrap()))
            .await
            .unwrap()
            .is_some()
    );
    assert!(pusher(&cluster).push(&path).await.is_ok());
}
