//! Pushes into a bucket and fetches out of it that stop at each call to the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use walden::postgres::archive::{Fetched, Fetcher, Pusher};
use walden::postgres::cluster::Cluster as Registered;
use walden::postgres::types::WalFileName;
use walden::repo::Repository;
use walden::storage::faulty::{CrashPoint, FaultyStorage};
use walden::storage::{Key, PutMode, Storage, get_all};

use crate::backup_crash::record;
use crate::harness::{ObjectStore, Scratch};

const LIMIT: Duration = Duration::from_secs(60);

/// Files of a real archive, in the order of the archiver.
fn files(archive: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(archive)
        .expect("read the archive")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let history = archive.join("00000002.history");
    std::fs::write(&history, b"1\t0/300100\tno recovery target specified\n")
        .expect("write a history file");
    files.push(history);
    files.sort();
    files
}

fn name(file: &Path) -> WalFileName {
    file.file_name()
        .and_then(|name| name.to_str()?.parse().ok())
        .expect("the name of a WAL file")
}

async fn open(storage: Arc<dyn Storage>) -> anyhow::Result<Registered> {
    Registered::open(Repository::open(storage).await?, "main".parse()?).await
}

/// Pushes in order, as the archiver would: the first failure ends it. How many were acknowledged.
async fn push_all(storage: Arc<dyn Storage>, files: &[PathBuf]) -> usize {
    let Ok(cluster) = open(storage).await else {
        return 0;
    };
    let pusher = Pusher::new(cluster, 1, LIMIT);
    for (acknowledged, file) in files.iter().enumerate() {
        if pusher.push(file).await.is_err() {
            return acknowledged;
        }
    }
    files.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_or_fetch_that_stops_at_any_call_to_the_bucket_loses_and_overwrites_nothing() {
    let Some(store) = ObjectStore::radosgw() else {
        return;
    };
    let bucket = store.fresh_bucket();
    let scratch = Scratch::new("s3 wal crash");
    let recorded = record(&scratch).await.store;
    let files = files(&scratch.join("archive"));
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let storage = bucket.storage(&format!("{stop_at}-{point:?}"), |_| {});
            for key in ["walden.json", "main/cluster.json"] {
                let key = Key::new(key).expect("a key");
                let content = get_all(&*recorded, &key, u64::MAX)
                    .await
                    .expect("get")
                    .expect("the registration");
                let _ = storage
                    .put(&key, content.into(), PutMode::CreateOnly)
                    .await
                    .expect("put");
            }
            let faulty = Arc::new(FaultyStorage::new(storage.clone(), stop_at, point));
            let acknowledged = push_all(faulty.clone(), &files).await;
            let layout = open(storage.clone()).await.expect("open").layout;
            let mut kept = Vec::new();
            for file in &files {
                kept.push(
                    get_all(&*storage, &layout.wal(&name(file)), u64::MAX)
                        .await
                        .expect("get"),
                );
            }
            let stored = kept.iter().take_while(|object| object.is_some()).count();
            assert_eq!(
                stored,
                kept.iter().flatten().count(),
                "in order: {point:?} {stop_at}"
            );
            let lost_an_answer = usize::from(point == CrashPoint::After);
            assert!(
                (acknowledged..=acknowledged + lost_an_answer).contains(&stored),
                "{point:?} {stop_at}"
            );

            assert_eq!(
                push_all(storage.clone(), &files).await,
                files.len(),
                "it goes on: {point:?} {stop_at}"
            );
            for (file, before) in files
                .iter()
                .zip(kept)
                .filter(|(_, object)| object.is_some())
            {
                let after = get_all(&*storage, &layout.wal(&name(file)), u64::MAX)
                    .await
                    .expect("get");
                assert!(before == after, "{} was overwritten", file.display());
            }
            fetch_all(storage, &files, &scratch.join("back"), stop_at, point).await;
            if !faulty.stopped() {
                assert!(
                    stop_at >= files.len() as u64,
                    "each push makes at least one call"
                );
                break;
            }
        }
    }
}

/// Each file is delivered whole, and fetches that stop deliver nothing and never say that there is none.
async fn fetch_all(
    storage: Arc<dyn Storage>,
    files: &[PathBuf],
    back: &Path,
    stop_at: u64,
    point: CrashPoint,
) {
    let faulty = Arc::new(FaultyStorage::new(storage.clone(), stop_at, point));
    for (storage, stops) in [(faulty as Arc<dyn Storage>, true), (storage, false)] {
        let Ok(cluster) = open(storage).await else {
            continue;
        };
        let fetcher = Fetcher::new(cluster, LIMIT, 1);
        for file in files {
            let _ = std::fs::remove_file(back);
            match fetcher.fetch(&name(file), back, None).await {
                Ok(Fetched::Delivered) => {
                    let same =
                        std::fs::read(back).expect("read") == std::fs::read(file).expect("read");
                    assert!(same, "{} differs", file.display());
                }
                Ok(Fetched::Absent) => panic!("{} is there", file.display()),
                Err(error) => assert!(stops && !back.exists(), "{}: {error:#}", file.display()),
            }
        }
    }
}
