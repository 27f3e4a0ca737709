use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::pushing::damage;
use crate::error::{find, hints, one_line};
use crate::postgres::archive::testing::*;
use crate::postgres::archive::{Fetched, GapError, HistoryLost, Untold};
use crate::postgres::cluster::Cluster;
use crate::repo::{ObjectError, Repository};
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{
    Body, IsOwnKey, Key, ListEntry, LocalStorage, MemoryStorage, ObjectMeta, PutMode, PutOutcome,
    Storage, StorageError,
};

fn number(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// An archive that has these segments of timeline 1.
async fn archive(storage: Arc<dyn Storage>, wal: &PgWal, numbers: &[u32]) -> Cluster {
    let cluster = cluster_in(storage).await;
    for each in numbers {
        pusher(&cluster)
            .push(&wal.segment(&number(*each), 1))
            .await
            .unwrap();
    }
    cluster
}

async fn fetch(cluster: &Cluster, name: &str, to: &Path) -> anyhow::Result<Fetched> {
    fetcher(cluster)
        .fetch(&name.parse().unwrap(), to, None)
        .await
}

#[tokio::test]
async fn the_end_of_the_archive_is_absent_and_a_hole_is_not() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1, 2, 4]).await;
    assert_eq!(
        fetch(&cluster, &number(5), &to).await.unwrap(),
        Fetched::Absent
    );
    let error = fetch(&cluster, &number(3), &to).await.unwrap_err();
    let gap = find::<GapError>(&error).expect("a gap");
    assert_eq!(gap.missing.to_string(), number(3));
    assert!(one_line(&error).contains(&number(3)) && hints(&error)[0].contains("gap"));
    assert!(!to.exists());
}

#[tokio::test]
async fn who_asks_again_need_not_watch_a_hole() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1, 3]).await;
    let fetcher = crate::postgres::archive::Fetcher::new(cluster, Duration::from_secs(60), 1);
    let (fetcher, name) = (
        fetcher.watching_gaps(Duration::ZERO),
        number(2).parse().unwrap(),
    );
    let asked = fetcher.fetch(&name, &to, None);
    let error = tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .expect("it is told at once")
        .unwrap_err();
    assert!(find::<GapError>(&error).is_some());
}

#[tokio::test]
async fn a_hole_shows_also_when_what_follows_lies_in_another_folder() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    pusher(&cluster)
        .push(&wal.segment("000000010000000300000000", 1))
        .await
        .unwrap();
    assert!(find::<GapError>(&fetch(&cluster, &number(2), &to).await.unwrap_err()).is_some());
    assert!(
        find::<GapError>(
            &fetch(&cluster, "000000010000000200000000", &to)
                .await
                .unwrap_err()
        )
        .is_some()
    );
    assert_eq!(
        fetch(&cluster, "000000010000000300000001", &to)
            .await
            .unwrap(),
        Fetched::Absent
    );
}

#[tokio::test]
async fn a_child_timeline_shows_what_its_parent_must_have_had() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    pusher(&cluster)
        .push(&wal.ready("00000002.history", b"1\t0/300100\tx\n"))
        .await
        .unwrap();
    assert!(find::<GapError>(&fetch(&cluster, &number(2), &to).await.unwrap_err()).is_some());
    assert_eq!(
        fetch(&cluster, &number(3), &to).await.unwrap(),
        Fetched::Absent
    );
}

#[tokio::test]
async fn a_partial_segment_never_serves_the_plain_name() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    let partial = format!("{}.partial", number(2));
    pusher(&cluster)
        .push(&wal.ready(&partial, &segment(&partial, 1)))
        .await
        .unwrap();
    assert_eq!(
        fetch(&cluster, &number(2), &to).await.unwrap(),
        Fetched::Absent
    );
    assert!(!to.exists());
}

#[tokio::test]
async fn a_missing_history_file_is_absent_also_of_timeline_1() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYHISTORY");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    for name in ["00000001.history", "00000002.history"] {
        assert_eq!(fetch(&cluster, name, &to).await.unwrap(), Fetched::Absent);
    }
}

#[tokio::test]
async fn a_lost_history_file_is_not_absent() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYHISTORY");
    let child = "000000020000000000000003";
    for witness in [
        child.to_string(),
        format!("{child}.partial"),
        "00000003.history".into(),
    ] {
        let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
        let bytes = match witness.as_str() {
            "00000003.history" => b"1\t0/200100\tx\n2\t0/300100\tx\n".to_vec(),
            file => segment(file, 1),
        };
        pusher(&cluster)
            .push(&wal.ready(&witness, &bytes))
            .await
            .unwrap();
        let error = fetch(&cluster, "00000002.history", &to).await.unwrap_err();
        assert!(
            find::<HistoryLost>(&error).is_some() && one_line(&error).contains(&witness),
            "{error:#}"
        );
        assert!(
            hints(&error)[0].contains("walden wal push"),
            "{:?}",
            hints(&error)
        );
        assert_eq!(
            fetch(&cluster, "00000004.history", &to).await.unwrap(),
            Fetched::Absent
        );
        pusher(&cluster)
            .push(&wal.ready("00000002.history", b"1\t0/200100\tx\n"))
            .await
            .unwrap();
        assert_eq!(
            fetch(&cluster, "00000002.history", &to).await.unwrap(),
            Fetched::Delivered
        );
    }
}

#[tokio::test]
async fn a_backup_shows_what_wal_there_must_be() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = archive(storage.clone(), &wal, &[1]).await;
    back_up(&*storage, &cluster).await;
    let to = wal.folder().join("RECOVERYXLOG");
    assert!(find::<GapError>(&fetch(&cluster, &number(2), &to).await.unwrap_err()).is_some());
    assert_eq!(
        fetch(&cluster, &number(3), &to).await.unwrap(),
        Fetched::Absent
    );
}

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
async fn what_a_killed_fetch_left_is_replaced_and_a_failed_rename_leaves_nothing() {
    let wal = PgWal::new();
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    let beside = wal.folder().join(".walden-fetch-RECOVERYXLOG");
    std::fs::write(&beside, "half").unwrap();
    let to = wal.folder().join("RECOVERYXLOG");
    assert_eq!(
        fetch(&cluster, &number(1), &to).await.unwrap(),
        Fetched::Delivered
    );
    assert!(content(&to) == Some(segment(&number(1), 1)) && !beside.exists());
    std::fs::remove_file(&to).unwrap();
    std::fs::create_dir(&to).unwrap();
    assert!(fetch(&cluster, &number(1), &to).await.is_err());
    assert!(!beside.exists());
}

#[tokio::test]
async fn from_the_known_end_on_everything_is_absent_without_looking() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1, 2, 4]).await;
    let end = Some(name(&number(3)));
    for asked in [number(3), number(4), "000000020000000000000003".into()] {
        let fetched = fetcher(&cluster)
            .fetch(&asked.parse().unwrap(), &to, end)
            .await
            .unwrap();
        assert_eq!(fetched, Fetched::Absent, "{asked}");
    }
    assert_eq!(
        fetcher(&cluster)
            .fetch(&number(2).parse().unwrap(), &to, end)
            .await
            .unwrap(),
        Fetched::Delivered
    );
}

#[tokio::test]
async fn a_damaged_object_is_never_absent_and_never_delivered() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let damages: [fn(&mut Vec<u8>); 6] = [
        |object| object.clear(),
        |object| object.truncate(10),
        |object| object.truncate(object.len() - 1),
        |object| object[30] ^= 1,
        |object| *object.last_mut().unwrap() ^= 0x80,
        |object| object.push(0),
    ];
    for (which, change) in damages.into_iter().enumerate() {
        let storage = Arc::new(MemoryStorage::default());
        let cluster = archive(storage.clone(), &wal, &[1]).await;
        let key = cluster.layout.wal(&number(1).parse().unwrap());
        damage(&*storage, &key, change).await;
        let error = fetch(&cluster, &number(1), &to).await.unwrap_err();
        assert!(
            matches!(
                find::<ObjectError>(&error),
                Some(ObjectError::Damaged { .. })
            ),
            "{which}: {error:#}"
        );
        assert!(
            one_line(&error).contains(key.as_str()),
            "{which}: the object is named"
        );
        assert!(std::fs::read_dir(wal.folder()).unwrap().all(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name != "RECOVERYXLOG" && !name.starts_with(".walden")
        }));
    }
}

#[tokio::test]
async fn a_damaged_history_file_leaves_the_end_unknown() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = archive(storage.clone(), &wal, &[1]).await;
    pusher(&cluster)
        .push(&wal.ready("00000002.history", b"1\t0/100100\tx\n"))
        .await
        .unwrap();
    let key = cluster.layout.wal(&"00000002.history".parse().unwrap());
    damage(&*storage, &key, |object| object.truncate(object.len() / 2)).await;
    let error = fetch(&cluster, &number(2), &wal.folder().join("x"))
        .await
        .unwrap_err();
    assert!(one_line(&error).contains(key.as_str()), "{error:#}");
    assert!(
        find::<Untold>(&error).is_some_and(|untold| untold.timeline.0 == 2),
        "{error:#}"
    );
    assert!(
        hints(&error)[0].contains("repair the repository"),
        "{error:#}"
    );
}

#[tokio::test]
async fn an_object_of_another_name_is_not_delivered() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = archive(storage.clone(), &wal, &[1, 2]).await;
    let key = |each| cluster.layout.wal(&number(each).parse().unwrap());
    let second = crate::storage::get_all(&*storage, &key(2), u64::MAX)
        .await
        .unwrap()
        .unwrap();
    damage(&*storage, &key(1), |object| *object = second.to_vec()).await;
    let error = fetch(&cluster, &number(1), &wal.folder().join("x"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            find::<ObjectError>(&error),
            Some(ObjectError::Damaged { .. })
        ),
        "{error:#}"
    );
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
async fn what_is_at_the_destination_stays_until_it_is_replaced_whole() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    std::fs::write(&to, "old").unwrap();
    assert_eq!(
        fetch(&cluster, &number(2), &to).await.unwrap(),
        Fetched::Absent
    );
    assert_eq!(content(&to), Some(b"old".to_vec()));
    assert_eq!(
        fetch(&cluster, &number(1), &to).await.unwrap(),
        Fetched::Delivered
    );
    assert!(content(&to) == Some(segment(&number(1), 1)));
    assert!(
        fetch(&cluster, &number(1), Path::new("/nowhere/at/all"))
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

#[tokio::test]
async fn a_huge_stranger_in_a_segments_place_is_damage_and_is_not_read() {
    let (wal, folder) = (PgWal::new(), tempfile::tempdir().unwrap());
    let storage = Arc::new(LocalStorage::new(folder.path()));
    let cluster = archive(storage, &wal, &[1]).await;
    let key = cluster.layout.wal(&number(1).parse().unwrap());
    // Without a bound, reading it would take as much memory.
    let stranger = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join(key.as_str()))
        .unwrap();
    stranger.set_len(1 << 40).unwrap();
    let to = wal.folder().join("RECOVERYXLOG");
    let error = fetch(&cluster, &number(1), &to).await.unwrap_err();
    assert!(
        matches!(
            find::<ObjectError>(&error),
            Some(ObjectError::Damaged { .. })
        ),
        "{error:#}"
    );
    assert!(
        one_line(&error).contains("it has more than")
            && hints(&error)[0].contains("repair the repository")
    );
    let error = pusher(&cluster)
        .push(&wal.segment(&number(1), 1))
        .await
        .unwrap_err();
    assert!(one_line(&error).contains("it has more than"), "{error:#}");
    assert!(!to.exists());
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
impl Storage for Unmounted {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.now().put(key, body, mode).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.now().get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.now().head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.now().list(folder, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.now().delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.now().sweep(age, ours).await
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
