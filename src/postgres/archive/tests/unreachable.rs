//! A repository that cannot be reached, or only in part: what it has is unknown, not absent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;

use crate::error::{find, hints};
use crate::postgres::archive::testing::*;
use crate::postgres::archive::{Fetched, GapError};
use crate::postgres::cluster::Cluster;
use crate::repo::Repository;
use crate::storage::decorator::Decorator;
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{LocalStorage, MemoryStorage, Storage};

#[tokio::test]
async fn a_wal_folder_that_went_away_is_unknown_not_absent() {
    let (folder, wal) = (tempfile::tempdir().unwrap(), PgWal::new());
    let storage = Arc::new(LocalStorage::new(folder.path()));
    let cluster = archive(storage.clone(), &wal, &[1, 2, 3]).await;
    let to = wal.folder().join("x");
    back_up(&*storage, &cluster).await;
    assert_eq!(
        fetch(&cluster, &number(4), &to).await.unwrap(),
        Fetched::Absent
    );
    let kept = folder.path().join("main/wal");
    std::fs::rename(&kept, folder.path().join("away")).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir_all(kept.join("0000000100000000")).unwrap();
        }
        for name in [number(2), number(4), "00000002.history".into()] {
            let error = fetch(&cluster, &name, &to).await.unwrap_err();
            assert!(!hints(&error).is_empty(), "{error:#}");
        }
    }
}

#[tokio::test]
async fn a_repository_that_went_away_is_unknown_not_absent() {
    let (folder, wal) = (tempfile::tempdir().unwrap(), PgWal::new());
    let root = folder.path().join("repository");
    let cluster = archive(Arc::new(LocalStorage::new(&root)), &wal, &[1]).await;
    let to = wal.folder().join("x");
    std::fs::rename(&root, folder.path().join("unmounted")).unwrap();
    assert!(fetch(&cluster, &number(1), &to).await.is_err(), "no folder");
    std::fs::create_dir(&root).unwrap();
    assert!(
        fetch(&cluster, &number(1), &to).await.is_err(),
        "an empty mount point"
    );
    assert!(fetch(&cluster, "00000002.history", &to).await.is_err());
    let other = cluster_in(Arc::new(LocalStorage::new(&root))).await;
    assert_eq!(
        fetch(&other, &number(1), &to).await.unwrap(),
        Fetched::Absent
    );
    assert!(
        fetch(&cluster, &number(1), &to).await.is_err(),
        "another repository in its place"
    );
}

#[tokio::test]
async fn an_unreadable_object_is_unknown() {
    let (folder, wal) = (tempfile::tempdir().unwrap(), PgWal::new());
    let cluster = archive(Arc::new(LocalStorage::new(folder.path())), &wal, &[1]).await;
    let path = folder
        .path()
        .join(cluster.layout.wal(&number(1).parse().unwrap()).as_str());
    std::fs::remove_file(&path).unwrap();
    // A link to itself cannot be read by anyone, root included.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert!(
        fetch(&cluster, &number(1), &wal.folder().join("x"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_store_that_stops_answering_at_any_call_is_unknown() {
    let wal = PgWal::new();
    let to = wal.folder().join("x");
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    archive(storage.clone(), &wal, &[1, 2]).await;
    for stop_at in 0.. {
        let faulty = Arc::new(FaultyStorage::new(
            storage.clone(),
            stop_at,
            CrashPoint::Before,
        ));
        let Ok(repository) = Repository::open(faulty.clone()).await else {
            continue;
        };
        let Ok(cluster) = Cluster::open(repository, "main".parse().unwrap()).await else {
            continue;
        };
        let fetched = fetcher(&cluster)
            .fetch(&number(3).parse().unwrap(), &to, None)
            .await;
        if !faulty.stopped() {
            assert_eq!(fetched.unwrap(), Fetched::Absent);
            assert!(stop_at > 4, "the proof takes several calls");
            break;
        }
        assert!(
            fetched.is_err(),
            "absent although call {stop_at} was not answered"
        );
    }
}

/// A disk that is unmounted, or mounted, once `calls` are over: the folder below it is empty.
#[derive(Debug)]
struct Unmounted {
    disk: Arc<dyn Storage>,
    below: MemoryStorage,
    calls: AtomicU64,
    then_mounted: AtomicBool,
}

impl Unmounted {
    fn new(disk: Arc<dyn Storage>) -> Self {
        let (calls, then_mounted) = (AtomicU64::new(0), AtomicBool::new(true));
        Self {
            disk,
            below: MemoryStorage::default(),
            calls,
            then_mounted,
        }
    }

    fn change(&self, calls: u64, then_mounted: bool) {
        self.then_mounted.store(then_mounted, Ordering::SeqCst);
        self.calls.store(calls, Ordering::SeqCst);
    }

    fn now(&self) -> &dyn Storage {
        let before = self
            .calls
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        if before != self.then_mounted.load(Ordering::SeqCst) {
            &*self.disk
        } else {
            &self.below
        }
    }
}

#[async_trait]
impl Decorator for Unmounted {
    fn inner(&self) -> &dyn Storage {
        self.now()
    }
}

#[tokio::test]
async fn a_disk_that_is_unmounted_at_any_call_is_no_end() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let to = wal.folder().join("x");
    let unmounted = Arc::new(Unmounted::new(storage.clone()));
    let cluster = archive(unmounted.clone(), &wal, &[1, 2, 3]).await;
    back_up(&*storage, &cluster).await;
    storage
        .delete(&cluster.layout.wal(&number(2).parse().unwrap()))
        .await
        .unwrap();
    let gap = number(2).parse().unwrap();
    for calls in 0.. {
        let fetcher = fetcher(&cluster);
        unmounted.change(0, true);
        let _ = fetcher.fetch(&number(4).parse().unwrap(), &to, None).await;
        unmounted.change(calls, false);
        let error = fetcher.fetch(&gap, &to, None).await.unwrap_err();
        if unmounted.calls.load(Ordering::SeqCst) > 0 {
            assert!(find::<GapError>(&error).is_some(), "{error:#}");
            assert!(calls > 5, "the proof takes several calls");
            return;
        }
        assert!(
            fetcher.fetch(&gap, &to, None).await.is_err(),
            "asked again after call {calls}"
        );
    }
}

#[tokio::test]
async fn a_disk_that_is_mounted_at_any_call_is_no_end() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let to = wal.folder().join("x");
    let unmounted = Arc::new(Unmounted::new(storage.clone()));
    let cluster = archive(unmounted.clone(), &wal, &[1, 2, 3]).await;
    storage
        .delete(&cluster.layout.wal(&number(2).parse().unwrap()))
        .await
        .unwrap();
    for calls in 1..30 {
        unmounted.change(calls, true);
        for segment in [2, 3] {
            let fetched = fetcher(&cluster)
                .fetch(&number(segment).parse().unwrap(), &to, None)
                .await;
            assert_ne!(
                fetched.ok(),
                Some(Fetched::Absent),
                "segment {segment}, call {calls}"
            );
        }
    }
}
