//! A copy brings back nothing that retention deleted, and loses nothing to retention while it runs.

use super::*;
use crate::postgres::backup::delete::{delete, plan_delete};
use crate::postgres::catalog::WalSpan;
use crate::postgres::dump;
use crate::postgres::expiry::apply::{Chosen, apply};
use crate::postgres::layout::ExpiryRecord;
use crate::postgres::protection::{Deletion, Expiry, ExpiryOutcome};
use crate::retention::{Keep, KindPolicy, Policy, Tier};
use crate::storage::{Body, IsOwnKey, ListEntry, PutOutcome, StorageError};

/// The first segments, and what tells that they were let go.
async fn let_go(storage: &Arc<MemoryStorage>, from: &str, to: &str) {
    let (first, last) = (from.parse().unwrap(), to.parse().unwrap());
    let span = WalSpan { first, last };
    let cluster = open_again(storage).await;
    for name in span.names(cluster.description.segment_size) {
        let key = cluster.layout.wal(&WalFileName::Segment(name));
        storage.delete(&key).await.unwrap();
    }
    let outcome = ExpiryOutcome {
        expired: vec![span],
        ..ExpiryOutcome::default()
    };
    let json = serde_json::to_vec(&outcome).unwrap();
    let number = 1;
    let record = ExpiryRecord { number, done: true };
    let _ = storage
        .put(
            &cluster.layout.expiry(record),
            json.into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
}

const HOLE: [&str; 2] = ["000000010000000000000004", "000000010000000000000004"];

#[tokio::test]
async fn what_the_source_let_go_is_no_gap_of_the_copy_either() {
    let (source, storage) = example().await;
    let_go(&storage, HOLE[0], HOLE[1]).await;
    let to = Arc::new(MemoryStorage::default());
    let result = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(
        result.complete && result.source_gaps.is_empty(),
        "{result:?}"
    );
    let copy = open_again(&to).await;
    let wal = load_wal(&copy).await.unwrap();
    assert!(wal.ranges.gaps().is_empty(), "{:?}", wal.ranges);
    assert!(wal.ranges.expired().contains(HOLE[0].parse().unwrap()));
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(again.complete, "{again:?}");
}

#[tokio::test]
async fn a_copy_does_not_bring_back_what_its_own_retention_deleted() {
    let (source, _) = example().await;
    let to = Arc::new(MemoryStorage::default());
    assert!(
        copied(&source, to.clone(), &options())
            .await
            .unwrap()
            .complete
    );
    let_go(&to, HOLE[0], HOLE[1]).await;
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(again.complete && again.counts.wal.copied == 0, "{again:?}");
    let wal = load_wal(&open_again(&to).await).await.unwrap();
    assert!(!wal.ranges.contains(HOLE[0].parse().unwrap()));
}

fn everything_goes() -> Policy {
    Policy {
        zone: chrono_tz::UTC,
        window: Some(chrono::TimeDelta::zero()),
        base: KindPolicy::default(),
        dump: KindPolicy::default(),
        schema: KindPolicy::default(),
    }
}

/// A destination where retention deletes after each object of a backup that comes.
#[derive(Debug)]
struct Expiring(Arc<MemoryStorage>, tokio::sync::Mutex<()>);

#[async_trait::async_trait]
impl Storage for Expiring {
    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        let outcome = self.0.put(key, body, mode).await;
        if key.as_str().starts_with("main/base/") || key.as_str().starts_with("main/wal/") {
            let policy = everything_goes();
            let cluster = open_again(&self.0).await;
            let _one = self.1.lock().await;
            apply(&cluster, &policy, &Chosen::Any, &Default::default())
                .await
                .expect("retention deletes what it may");
        }
        outcome
    }

    async fn get(
        &self,
        key: &Key,
        range: std::ops::Range<u64>,
    ) -> Result<Option<bytes::Bytes>, StorageError> {
        self.0.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.0.head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.0.list(folder, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.0.delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.0.sweep(age, ours).await
    }
}

#[tokio::test]
async fn retention_at_the_destination_leaves_what_a_copy_brings() {
    let (source, _) = example().await;
    for backup in [
        None,
        Some(SECOND.parse().unwrap()),
        Some(FIRST.parse().unwrap()),
    ] {
        let to = Arc::new(MemoryStorage::default());
        let all = copied(&source, to.clone(), &options()).await.unwrap();
        assert!(all.complete);
        let destination = open_again(&to).await;
        // All of it went before, as the records tell; of the second one a pack is left.
        for id in [SECOND, FIRST] {
            let plan = plan_delete(&destination, &id.parse().unwrap())
                .await
                .unwrap();
            delete(&destination, &plan).await.unwrap();
        }
        let again = CopyOptions {
            backup,
            ..options()
        };
        let back = copied(
            &source,
            Arc::new(Expiring(to.clone(), Default::default())),
            &again,
        )
        .await
        .unwrap();
        assert!(back.complete, "{back:?}");
        assert_eq!(
            back.counts.backups.copied,
            u64::from(again.backup.is_some())
        );
        assert_backups_whole(to.clone()).await;
        assert!(leases(&destination).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_dump_that_retention_deleted_at_the_destination_is_not_copied_again() {
    let (source, _) = example().await;
    for time in ["13:05:00", "14:05:00", "15:05:00"] {
        store(&source, &id("shop", time, DumpKind::Full)).await;
    }
    let to = Arc::new(MemoryStorage::default());
    let all = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(all.complete && all.counts.dumps.copied == 3, "{all:?}");
    let destination = open_again(&to).await;
    let mut dump = KindPolicy::default();
    dump.tiers.0[Tier::Daily as usize] = Some(Keep::Count(1));
    let policy = Policy {
        dump,
        window: None,
        ..everything_goes()
    };
    let run = async || apply(&destination, &policy, &Chosen::Any, &Default::default()).await;
    assert_eq!(run().await.unwrap().deleted.dumps.len(), 1);
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(
        again.complete && again.counts.dumps.copied == 0,
        "{again:?}"
    );
    // One that is lost there comes again.
    let kept = list(&destination, None).await.unwrap().complete;
    dump::delete::delete(&destination, &kept[..1])
        .await
        .unwrap();
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert_eq!(again.counts.dumps.copied, 1);
}

#[tokio::test]
async fn a_copy_tells_nothing_beside_a_deletion_at_its_destination() {
    let (source, storage) = example().await;
    let_go(&storage, HOLE[0], HOLE[1]).await;
    let expired = load_wal(&source).await.unwrap().ranges;
    let to = Arc::new(MemoryStorage::default());
    let destination = open_destination(&source, to.clone(), DateTime::UNIX_EPOCH)
        .await
        .unwrap()
        .0;
    let mut deletion = Deletion::begin(&destination).await.unwrap();
    note(&destination, expired.expired()).await.unwrap();
    let number = Expiry::load(&destination).await.unwrap().numbers.next();
    assert_eq!(number, 1, "the deletion's own records come first");
    deletion.announce("d", Needs::default()).await.unwrap();
    deletion.end(None).await.unwrap();
    note(&destination, expired.expired()).await.unwrap();
    let told = Expiry::load(&destination).await.unwrap();
    assert!(told.expired.contains(HOLE[0].parse().unwrap()));
    assert_eq!(told.open.map(|open| open.digest).as_deref(), Some("d"));
}
