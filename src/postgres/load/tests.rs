//! Tests of what is read of a repository.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::*;
use crate::postgres::catalog::testing;
use crate::postgres::cluster::testing::{cluster_in, put, sealed};
use crate::repo::Repository;
use crate::storage::decorator::Decorator;
use crate::storage::faulty::{CrashPoint, FaultyStorage, GarblingStorage};
use crate::storage::{ListEntry, MemoryStorage, Storage};

async fn cluster() -> (Cluster, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::default());
    (cluster_in(storage.clone()).await, storage)
}

#[tokio::test]
async fn complete_damaged_and_unfinished_backups_are_three_answers() {
    let (cluster, _) = cluster().await;
    let backup = testing::backup("20260102-000000Z");
    let object = sealed(BACKUP_KIND, &backup, "");
    put(
        &cluster,
        &cluster.layout.manifest(&backup.id),
        object.clone(),
    )
    .await;
    let cut: BackupId = "20260101-000000Z".parse().unwrap();
    put(
        &cluster,
        &cluster.layout.manifest(&cut),
        object[..50].to_vec(),
    )
    .await;
    let moved: BackupId = "20260103-000000Z".parse().unwrap();
    put(&cluster, &cluster.layout.manifest(&moved), object.clone()).await;
    let started: BackupId = "20260104-000000Z".parse().unwrap();
    put(&cluster, &cluster.layout.started(&started), b"{}".to_vec()).await;
    let loaded = load_backups(&cluster).await.unwrap();
    assert_eq!(*loaded.complete, [backup]);
    assert_eq!(
        loaded
            .damaged
            .iter()
            .map(|(id, _)| id.clone())
            .collect::<Vec<_>>(),
        [cut, moved]
    );
    assert!(
        loaded.damaged[1].1.contains("moved"),
        "{:?}",
        loaded.damaged
    );
    assert_eq!(loaded.unfinished, [started]);
}

#[tokio::test]
async fn a_backup_whose_manifest_is_gone_is_unfinished_as_long_as_packs_of_it_are_left() {
    let (cluster, storage) = cluster().await;
    let backup = testing::backup("20260102-000000Z");
    let object = sealed(BACKUP_KIND, &backup, "");
    put(
        &cluster,
        &cluster.layout.manifest(&backup.id),
        object.clone(),
    )
    .await;
    let pack = cluster
        .layout
        .pack(&format!("{}/pack-000001", backup.id).parse().unwrap());
    put(&cluster, &pack, b"x".to_vec()).await;
    assert_eq!(load(&cluster).await.unwrap().backups.len(), 1);
    storage
        .delete(&cluster.layout.manifest(&backup.id))
        .await
        .unwrap();
    let facts = load(&cluster).await.unwrap();
    assert_eq!((facts.backups.len(), facts.damaged_backups.len()), (0, 0));
    assert_eq!(facts.unfinished_backups, [backup.id]);
    storage.delete(&pack).await.unwrap();
    assert!(load(&cluster).await.unwrap().unfinished_backups.is_empty());
}

#[tokio::test]
async fn of_histories_only_what_is_new_or_was_not_whole_is_read_again() {
    let (cluster, storage) = cluster().await;
    let (second, third) = (TimelineId(2), TimelineId(3));
    let key = |timeline| cluster.layout.wal(&WalFileName::History(timeline));
    let history = sealed(
        WAL_KIND,
        &serde_json::json!({}),
        "1\t0/3000000\tno recovery target specified\n",
    );
    put(&cluster, &key(second), history.clone()).await;
    put(&cluster, &key(third), b"cut".to_vec()).await;
    let mut loaded = load_histories(&cluster, &[second, third]).await.unwrap();
    assert_eq!((loaded.known.len(), loaded.damaged.len()), (1, 1));
    assert!(!loaded.damaged[&third].whole);
    let unreadable = "1\t0/3000000\tat restore point \"a\nb\"\n2\t0/5000000\tx\n";
    let unreadable = sealed(WAL_KIND, &serde_json::json!({}), unreadable);
    storage.delete(&key(third)).await.unwrap();
    put(&cluster, &key(third), unreadable).await;
    loaded.refresh(&cluster, &[second, third]).await.unwrap();
    assert!(loaded.damaged[&third].whole, "{:?}", loaded.damaged);
    let error = read_history(&cluster, third).await.unwrap_err();
    assert_eq!(
        find::<UnreadableObject>(&error)
            .unwrap()
            .rest
            .path()
            .map(|each| each.0)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    storage.delete(&key(second)).await.unwrap();
    storage.delete(&key(third)).await.unwrap();
    put(&cluster, &key(third), history).await;
    loaded.refresh(&cluster, &[second, third]).await.unwrap();
    assert_eq!((loaded.known.len(), loaded.damaged.len()), (2, 0));
    loaded.refresh(&cluster, &[third]).await.unwrap();
    assert_eq!(loaded.known.keys().copied().collect::<Vec<_>>(), [third]);
}

#[tokio::test]
async fn wal_is_listed_as_ranges_with_everything_else_told_apart() {
    let (cluster, _) = cluster().await;
    let names = [
        "000000010000000000000002",
        "000000010000000000000003",
        "000000010000000000000005",
        "000000010000000100000000",
        "000000020000000000000003",
        "000000010000000000000003.partial",
        "000000010000000000000002.00000028.backup",
        "00000002.history",
    ];
    for name in names {
        put(
            &cluster,
            &cluster.layout.wal(&name.parse().unwrap()),
            b"x".to_vec(),
        )
        .await;
    }
    put(
        &cluster,
        &Key::new("main/wal/0000000100000000/stray.txt").unwrap(),
        b"x".to_vec(),
    )
    .await;
    let loaded = load_wal(&cluster).await.unwrap();
    let shown: Vec<String> = loaded
        .ranges
        .iter()
        .map(|r| format!("{}..{}", r.first, r.last))
        .collect();
    let expected = [
        "000000010000000000000002..000000010000000000000003",
        "000000010000000000000005..000000010000000000000005",
        "000000010000000100000000..000000010000000100000000",
        "000000020000000000000003..000000020000000000000003",
    ];
    assert_eq!(shown, expected);
    assert_eq!((loaded.partials.len(), loaded.histories.len()), (1, 1));
    assert_eq!(loaded.foreign, ["main/wal/0000000100000000/stray.txt"]);
    let histories = load_histories(&cluster, &loaded.histories).await.unwrap();
    assert!(histories.known.is_empty() && histories.damaged.len() == 1);
}

#[tokio::test]
async fn idle_markers_are_read_near_the_ends_of_timelines_and_strangers_are_none() {
    let (cluster, _) = cluster().await;
    for name in ["000000010000000700000002", "000000020000000800000000"] {
        put(
            &cluster,
            &cluster.layout.wal(&name.parse().unwrap()),
            b"x".to_vec(),
        )
        .await;
    }
    for mark in [
        "0000000100000006/0000000600000000-20260101T000006Z",
        "0000000100000007/0000000703000000-20260101T000007Z",
        "0000000100000007/0000000703000000-20260101T000005Z",
        // Far before the end.
        "0000000200000006/0000000600000000-20260101T000009Z",
        "0000000200000007/00000007FF000000-20260101T000008Z",
        "0000000200000008/stray",
    ] {
        put(
            &cluster,
            &Key::new(format!("main/quiet/{mark}.zst")).unwrap(),
            b"x".to_vec(),
        )
        .await;
    }
    let idle = load(&cluster).await.unwrap().idle;
    let until = |timeline, lsn: u64| {
        let until = idle.until(TimelineId(timeline), None, Lsn(lsn));
        until.map(|time| time.format("%S").to_string())
    };
    let text = |text: &str| Some(text.to_string());
    assert_eq!(
        [until(1, 7 << 32), until(1, 0x7_0300_0000)],
        [text("06"), text("07")]
    );
    assert_eq!([until(2, 7 << 32), until(2, 8 << 32)], [None, text("08")]);
}

/// A backup and a timeline's history.
async fn filled() -> Arc<MemoryStorage> {
    let (cluster, storage) = cluster().await;
    let backup = testing::backup("20260102-000000Z");
    put(
        &cluster,
        &cluster.layout.manifest(&backup.id),
        sealed(BACKUP_KIND, &backup, ""),
    )
    .await;
    let history = sealed(
        WAL_KIND,
        &serde_json::json!({}),
        "1\t0/3000000\tno recovery target specified\n",
    );
    put(
        &cluster,
        &cluster.layout.wal(&"00000002.history".parse().unwrap()),
        history.clone(),
    )
    .await;
    storage
}

async fn open(storage: Arc<dyn Storage>) -> Cluster {
    Cluster::open(
        Repository::open(storage).await.unwrap(),
        "main".parse().unwrap(),
    )
    .await
    .unwrap()
}

async fn load_all(cluster: &Cluster) -> anyhow::Result<(LoadedBackups, LoadedHistories)> {
    let wal = load_wal(cluster).await?;
    let histories = load_histories(cluster, &wal.histories).await?;
    Ok((load_backups(cluster).await?, histories))
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_an_error_at_every_call() {
    let storage = filled().await;
    for stop_at in 0.. {
        // Opening reads the marker, what it needs and cluster.json first: three calls.
        let faulty = Arc::new(FaultyStorage::new(
            storage.clone(),
            stop_at + 3,
            CrashPoint::Before,
        ));
        let loaded = load_all(&open(faulty.clone()).await).await;
        if !faulty.stopped() {
            let (backups, histories) = loaded.unwrap();
            assert_eq!((backups.complete.len(), histories.known.len()), (1, 1));
            return;
        }
        assert!(loaded.is_err(), "call {stop_at}");
    }
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_once_more() {
    let storage = filled().await;
    for at in 0.. {
        let garbling = Arc::new(GarblingStorage::new(storage.clone(), at));
        let cluster = open(garbling.clone()).await;
        cluster.confirm().await.unwrap();
        let (backups, histories) = load_all(&cluster).await.unwrap();
        assert_eq!(
            (backups.complete.len(), histories.known.len()),
            (1, 1),
            "get {at}"
        );
        if !garbling.garbled() {
            assert_eq!(
                at, 6,
                "two each to open and to confirm, a history, a manifest"
            );
            return;
        }
    }
}

/// A store that does not give what lies below some prefixes.
#[derive(Debug)]
struct Withholding {
    inner: Arc<MemoryStorage>,
    withheld: Vec<String>,
    lasting: bool,
    /// Until it was opened all is given.
    opened: Arc<AtomicBool>,
}

impl Withholding {
    fn gives(&self, operation: &'static str, name: &str) -> Result<(), StorageError> {
        let opened = self.opened.load(Ordering::SeqCst);
        match opened && self.withheld.iter().any(|prefix| name.starts_with(prefix)) {
            true => Err(StorageError {
                operation,
                key: name.into(),
                store: self.describe(),
                lasting: self.lasting,
                source: anyhow::anyhow!("Permission denied"),
            }),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Decorator for Withholding {
    fn inner(&self) -> &dyn Storage {
        &*self.inner
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.gives("get", key.as_str())?;
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.gives("head", key.as_str())?;
        self.inner.head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.gives("list", folder)?;
        self.inner.list(folder, after).await
    }
}

/// A cluster with so many backups, of which the store withholds what lies below the prefixes.
async fn withholding(backups: u32, withheld: &[&str], lasting: bool) -> Cluster {
    let (cluster, inner) = cluster().await;
    for number in 0..backups {
        let backup = testing::backup(&format!("20260101-0000{number:02}Z"));
        put(
            &cluster,
            &cluster.layout.manifest(&backup.id),
            sealed(BACKUP_KIND, &backup, ""),
        )
        .await;
    }
    let (withheld, opened) = (
        withheld.iter().map(ToString::to_string).collect(),
        Arc::new(AtomicBool::new(false)),
    );
    let storage = Withholding {
        inner,
        withheld,
        lasting,
        opened: opened.clone(),
    };
    let repository = Repository::open(Arc::new(storage)).await.unwrap();
    let cluster = Cluster::open(repository, cluster.layout.cluster().clone())
        .await
        .unwrap();
    opened.store(true, Ordering::SeqCst);
    cluster
}

#[tokio::test]
async fn a_backup_that_the_store_does_not_give_leaves_the_others_usable() {
    for lasting in [true, false] {
        let cluster = withholding(3, &["main/base/20260101-000001Z/"], lasting).await;
        let loaded = load_backups(&cluster).await.unwrap();
        assert_eq!(
            (
                loaded.complete.len(),
                loaded.damaged.len(),
                loaded.unfinished.len()
            ),
            (2, 0, 0)
        );
        let (id, why) = &loaded.unread[0];
        assert!(
            id.to_string() == "20260101-000001Z" && why.contains("Permission denied"),
            "{why}"
        );
        let facts = load(&cluster).await.unwrap();
        assert!(
            facts.damaged_backups[id].starts_with("it cannot be read: "),
            "{:?}",
            facts.damaged_backups
        );
        // Of proofs of absence it is no witness, once it is certain that it will never be.
        let known = BTreeMap::new();
        let mut newest = NewestBackups::new(&cluster, &known, Utc::now())
            .await
            .unwrap();
        let told = newest.next().await;
        assert_eq!(
            (
                told.is_ok(),
                told.is_ok_and(|told| told.unwrap().len() == 2)
            ),
            (lasting, lasting)
        );
        let mut kept = KeptBackups::new(&cluster);
        for _ in 0..2 {
            let kept = kept.refresh(&cluster).await.unwrap();
            assert_eq!((kept.complete.len(), &kept.unread[0].0), (2, id));
        }
    }
}

#[tokio::test]
async fn a_store_that_gives_nothing_or_too_little_is_no_answer() {
    let cluster = withholding(1, &[""], false).await;
    assert!(load_backups(&cluster).await.is_err());
    let most = usize::try_from(MOST_SILENT).unwrap();
    for (backups, lasting, answers) in [
        (most, false, true),
        (most + 1, false, false),
        (most + 1, true, true),
    ] {
        let cluster = withholding(backups as u32, &["main/base/20260101-"], lasting).await;
        assert_eq!(
            load_backups(&cluster).await.is_ok(),
            answers,
            "{backups} {lasting}"
        );
    }
}
