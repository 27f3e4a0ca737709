use std::sync::Arc;

use chrono::DateTime;

use super::*;
use crate::postgres::archive::testing::segment;
use crate::postgres::backup::delete::{delete, plan_delete};
use crate::postgres::catalog::WalSpan;
use crate::postgres::cluster::testing::registered;
use crate::postgres::dump::list::read_all;
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back::check;
use crate::postgres::dump::testing::{id, store};
use crate::postgres::dump::{self, latest};
use crate::postgres::expiry::apply::{Chosen, apply};
use crate::postgres::layout::{DumpFormat, DumpKind, DumpObject, ExpiryRecord};
use crate::postgres::protection::{Deletion, Expiry, ExpiryOutcome, leases};
use crate::postgres::repository::testing::{FIRST, SECOND, content, damage, example, wal};
use crate::postgres::repository::verify::{VerifyScope, verify};
use crate::retention::{Keep, KindPolicy, Policy, Tier};
use crate::storage::faulty::{CrashPoint, FaultyStorage, GarblingStorage};
use crate::storage::{
    Body, IsOwnKey, Key, ListEntry, MemoryStorage, PutMode, PutOutcome, StorageError,
};

const PACK: &str = "main/base/20260101-000000Z/pack-000002";
const SEGMENT_5: &str = "main/wal/0000000100000000/000000010000000000000005.zst";

fn options() -> CopyOptions {
    // Less than two packs: they go one by one.
    CopyOptions {
        backup: None,
        workers: 3,
        memory: 1 << 16,
    }
}

async fn copied(
    source: &Cluster,
    to: Arc<dyn Storage>,
    options: &CopyOptions,
) -> anyhow::Result<Copied> {
    let destination = open_destination(source, to, DateTime::UNIX_EPOCH).await?.0;
    copy(source, &destination, options, Arc::default()).await
}

async fn open_again(storage: &Arc<MemoryStorage>) -> Cluster {
    let repository = Repository::open(storage.clone()).await.unwrap();
    Cluster::open(repository, "main".parse().unwrap())
        .await
        .unwrap()
}

/// What makes a backup that is there one that can be restored.
async fn assert_backups_whole(storage: Arc<dyn Storage>) {
    let Ok(repository) = Repository::open(storage.clone()).await else {
        return;
    };
    let Ok(cluster) = Cluster::open(repository, "main".parse().unwrap()).await else {
        return;
    };
    for backup in load_backups(&cluster).await.unwrap().complete.iter() {
        let verified = verify(&cluster, VerifyScope::Backup(backup.id.clone()), 1)
            .await
            .unwrap();
        assert!(verified.is_sound(), "{verified:?}");
    }
    for (dump, manifest) in read_all(&cluster, list(&cluster, None).await.unwrap().complete).await {
        let (manifest, progress) = (manifest.unwrap().unwrap(), DumpProgress::default());
        let faults = check(&cluster, &manifest, None, &progress).await.unwrap();
        assert!(faults.is_empty(), "{}: {faults:?}", dump.id);
    }
}

fn problems(copied: &Copied) -> Vec<(CopySide, ProblemKind, &str)> {
    copied
        .failures
        .iter()
        .map(|failure| (failure.at, failure.problem, failure.object.as_str()))
        .collect()
}

#[tokio::test]
async fn a_copy_equals_its_source_and_a_second_one_copies_nothing() {
    let (source, storage) = example().await;
    let to = Arc::new(MemoryStorage::default());
    let first = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(first.complete, "{first:?}");
    assert_eq!(
        (
            first.counts.wal.copied,
            first.counts.packs.copied,
            first.counts.backups.copied
        ),
        (9, 3, 2)
    );
    assert!(
        first
            .continuity
            .proofs
            .iter()
            .all(|proof| proof.source_end.is_some()),
        "{:?}",
        first.continuity
    );
    assert_eq!(content(&*to).await, content(&*storage).await);
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(again.complete);
    let counts = again.counts;
    assert_eq!(
        (
            counts.wal.copied,
            counts.packs.copied,
            counts.backups.copied
        ),
        (0, 0, 0)
    );
    assert_eq!((counts.wal.present, counts.backups.present), (9, 2));
    // What is there is compared, and no more is claimed.
    let not_read =
        |counts: Counts| [counts.wal, counts.packs, counts.backups].map(|count| count.not_read);
    assert_eq!(
        (not_read(first.counts), not_read(again.counts)),
        ([0, 0, 0], [9, 4, 2])
    );
    to.delete(&Key::new("main/base/20260102-000000Z/manifest.zst").unwrap())
        .await
        .unwrap();
    let third = copied(&source, to.clone(), &options())
        .await
        .unwrap()
        .counts;
    assert_eq!((third.packs.present, third.backups.copied), (4, 1));
    assert_eq!(
        not_read(third),
        [9, 2, 1],
        "the packs of the backup that was made are read back"
    );
}

/// Wherever it ends, what is at the destination is right; and the next run brings the rest.
#[tokio::test]
async fn a_copy_that_dies_anywhere_is_right_so_far_and_the_next_one_completes_it() {
    let (source, storage) = example().await;
    let dump = id("shop", "14:05:00", DumpKind::Full);
    store(&source, &dump).await;
    let kind = DumpKind::Full;
    latest::update(&source, "shop", kind, &[]).await.unwrap();
    let expected = content(&*storage).await;
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let to = Arc::new(MemoryStorage::default());
            let faulty = Arc::new(FaultyStorage::new(to.clone(), stop_at, point));
            let died = copied(&source, faulty.clone(), &options()).await;
            if !faulty.stopped() {
                assert!(died.unwrap().complete);
                break;
            }
            // At the last call the lease is given up: then all is there.
            assert!(died.is_err() || content(&*to).await.len() >= expected.len());
            assert_backups_whole(to.clone()).await;
            // What the dead left would end by itself.
            for key in content(&*to).await.into_iter().map(|(key, _)| key) {
                if key.as_str().starts_with("main/leases/") {
                    to.delete(&key).await.unwrap();
                }
            }
            let again = copied(&source, to.clone(), &options()).await.unwrap();
            assert!(again.complete, "call {stop_at}, {point:?}: {again:?}");
            assert!(content(&*to).await == expected, "call {stop_at}, {point:?}");
        }
    }
}

#[tokio::test]
async fn a_source_that_stops_answering_never_makes_a_complete_copy() {
    let (_, storage) = example().await;
    let expected = content(&*storage).await;
    for stop_at in 3.. {
        let faulty = Arc::new(FaultyStorage::new(
            storage.clone(),
            stop_at,
            CrashPoint::Before,
        ));
        let repository = Repository::open(faulty.clone()).await.unwrap();
        let source = Cluster::open(repository, "main".parse().unwrap())
            .await
            .unwrap();
        let to = Arc::new(MemoryStorage::default());
        let result = copied(&source, to.clone(), &options()).await;
        if !faulty.stopped() {
            assert!(result.unwrap().complete && content(&*to).await == expected);
            return;
        }
        // At the last call the lease is given up: then all is there.
        match result {
            Ok(copied) if copied.complete => assert!(content(&*to).await == expected),
            result => drop(result),
        }
        assert_backups_whole(to).await;
        // What the dead left would end by itself.
        for lease in leases(&open_again(&storage).await).await.unwrap() {
            let key = source.layout.lease(&lease.id);
            storage.delete(&key).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_damaged_at_the_source_is_named_and_no_backup_that_needs_it_is_made() {
    for (key, backups) in [
        (PACK, 0),
        ("main/base/20260102-000000Z/pack-000001", 1),
        ("main/base/20260101-000000Z/manifest.zst", 1),
        // The first backup's own segment.
        ("main/wal/0000000100000000/000000010000000000000002.zst", 1),
        (SEGMENT_5, 2),
        ("main/wal/00000002.history.zst", 1),
    ] {
        let (source, storage) = example().await;
        damage(&*storage, key).await;
        let to = Arc::new(MemoryStorage::default());
        let copied = copied(&source, to.clone(), &options()).await.unwrap();
        assert!(!copied.complete, "{key}");
        assert!(
            problems(&copied).contains(&(CopySide::Source, ProblemKind::Damaged, key)),
            "{key}: {copied:?}"
        );
        assert_eq!(copied.counts.backups.copied, backups, "{key}: {copied:?}");
        assert!(
            !content(&*to)
                .await
                .iter()
                .any(|(copy, _)| copy.as_str() == key)
        );
        assert_backups_whole(to).await;
    }
}

#[tokio::test]
async fn a_missing_pack_is_named_and_a_gap_of_the_source_is_told_and_no_failure() {
    let (source, storage) = example().await;
    storage.delete(&Key::new(PACK).unwrap()).await.unwrap();
    let without_pack = copied(&source, Arc::new(MemoryStorage::default()), &options())
        .await
        .unwrap();
    assert_eq!(
        problems(&without_pack),
        [(CopySide::Source, ProblemKind::Missing, PACK)]
    );
    assert_eq!(
        without_pack.continuity.missing.len(),
        2,
        "both backups need it"
    );

    let (source, storage) = example().await;
    storage
        .delete(&Key::new("main/wal/0000000100000000/000000010000000000000003.zst").unwrap())
        .await
        .unwrap();
    let with_gap = copied(&source, Arc::new(MemoryStorage::default()), &options())
        .await
        .unwrap();
    assert!(
        with_gap.complete && with_gap.counts.backups.copied == 2,
        "{with_gap:?}"
    );
    assert_eq!(with_gap.source_gaps.len(), 1);
}

#[tokio::test]
async fn a_backup_whose_wal_the_source_lacks_is_copied_and_named_as_not_restorable() {
    let (source, storage) = example().await;
    storage
        .delete(&Key::new("main/wal/0000000100000000/000000010000000000000002.zst").unwrap())
        .await
        .unwrap();
    for options in [
        options(),
        CopyOptions {
            backup: Some(FIRST.parse().unwrap()),
            ..options()
        },
    ] {
        let copied = copied(&source, Arc::new(MemoryStorage::default()), &options)
            .await
            .unwrap();
        assert!(copied.complete && !copied.is_sound(), "{copied:?}");
        assert_eq!(copied.continuity.not_restorable, [FIRST.parse().unwrap()]);
    }
}

#[tokio::test]
async fn other_content_under_the_same_key_is_a_conflict_and_stays() {
    let (source, _) = example().await;
    let to = Arc::new(MemoryStorage::default());
    let destination = open_destination(&source, to.clone(), DateTime::UNIX_EPOCH)
        .await
        .unwrap()
        .0;
    let name = "000000010000000000000005";
    wal(&destination, name, &segment(name, 99)).await;
    let pack = Key::new(PACK).unwrap();
    let _ = to
        .put(&pack, "another".into(), PutMode::CreateOnly)
        .await
        .unwrap();
    let copied = copy(&source, &destination, &options(), Arc::default())
        .await
        .unwrap();
    let conflict = |key| (CopySide::Destination, ProblemKind::Conflict, key);
    assert_eq!(problems(&copied), [conflict(PACK), conflict(SEGMENT_5)]);
    assert!(!copied.complete);
    assert_eq!(
        crate::storage::get_all(&*to, &pack, u64::MAX)
            .await
            .unwrap()
            .unwrap(),
        "another"
    );
}

/// A pack of the right size that an earlier copy cannot have left: its frames are whole and another file's.
#[tokio::test]
async fn a_pack_that_was_there_is_read_back_before_a_backup_counts() {
    let (source, storage) = example().await;
    let to = Arc::new(MemoryStorage::default());
    let object = crate::storage::get_all(&*storage, &Key::new(PACK).unwrap(), u64::MAX)
        .await
        .unwrap()
        .unwrap();
    let mut other = object.to_vec();
    let middle = other.len() / 2;
    other[middle] ^= 0x5A;
    let _ = to
        .put(&Key::new(PACK).unwrap(), other.into(), PutMode::CreateOnly)
        .await
        .unwrap();
    let copied = copied(&source, to.clone(), &options()).await.unwrap();
    assert_eq!(
        problems(&copied),
        [(CopySide::Destination, ProblemKind::Damaged, PACK)]
    );
    assert_eq!(copied.counts.backups.copied, 0);
    assert_backups_whole(to).await;
}

#[tokio::test]
async fn one_backup_comes_with_what_it_needs_and_no_more() {
    let (source, _) = example().await;
    let to = Arc::new(MemoryStorage::default());
    let options = |id: &str| CopyOptions {
        backup: Some(id.parse().unwrap()),
        ..options()
    };
    let one = copied(&source, to.clone(), &options(SECOND)).await.unwrap();
    assert!(one.complete, "{one:?}");
    let keys: Vec<String> = content(&*to)
        .await
        .into_iter()
        .map(|(key, _)| key.to_string())
        .collect();
    assert_eq!(
        keys,
        [
            PACK,
            "main/base/20260102-000000Z/manifest.zst",
            "main/base/20260102-000000Z/pack-000001",
            "main/cluster.json",
            "main/wal/00000002.history.zst",
            "main/wal/0000000200000000/000000020000000000000005.zst",
        ]
    );
    assert_backups_whole(to.clone()).await;
    let both = copied(&source, to.clone(), &options(FIRST)).await.unwrap();
    assert!(both.complete && both.counts.packs.present == 1, "{both:?}");
    let error = copied(&source, to, &options("20260103-000000Z"))
        .await
        .unwrap_err();
    assert!(find::<NoSuchBackup>(&error).is_some());
}

#[tokio::test]
async fn the_same_repository_and_another_cluster_of_that_name_are_refused() {
    let (source, storage) = example().await;
    let error = copied(&source, storage, &options()).await.unwrap_err();
    assert!(find::<SameRepository>(&error).is_some(), "{error:#}");
    let to = Arc::new(MemoryStorage::default());
    let mut other = source.description.clone();
    other.system_identifier = crate::postgres::types::SystemIdentifier(8);
    registered(to.clone(), other).await;
    let error = copied(&source, to.clone(), &options()).await.unwrap_err();
    assert!(find::<OtherCluster>(&error).is_some(), "{error:#}");
    assert_eq!(
        content(&*to).await.len(),
        1,
        "nothing but the other's cluster.json"
    );
}

/// From the source, and what is read back of the destination; then when all of it is compared.
#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_once_more() {
    let (source, storage) = example().await;
    let expected = content(&*storage).await;
    for at in 0.. {
        let garbling = Arc::new(GarblingStorage::new(storage.clone(), at));
        let repository = Repository::open(garbling.clone()).await.unwrap();
        let from = Cluster::open(repository, "main".parse().unwrap())
            .await
            .unwrap();
        let to = Arc::new(MemoryStorage::default());
        for round in ["copying", "comparing"] {
            let done = copied(&from, to.clone(), &options()).await.unwrap();
            assert!(done.complete, "get {at} of the source, {round}: {done:?}");
        }
        assert!(content(&*to).await == expected, "get {at} of the source");
        let garbling_to = Arc::new(GarblingStorage::new(Arc::new(MemoryStorage::default()), at));
        for round in ["copying", "comparing"] {
            let done = copied(&source, garbling_to.clone(), &options())
                .await
                .unwrap();
            assert!(
                done.complete,
                "get {at} of the destination, {round}: {done:?}"
            );
        }
        if !garbling.garbled() && !garbling_to.garbled() {
            assert!(at > 15, "{at} reads");
            return;
        }
    }
}

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

#[tokio::test]
async fn a_dump_is_copied_with_its_manifest_last_and_a_damaged_one_is_not() {
    let (source, storage) = example().await;
    let (good, bad) = (
        id("shop", "14:05:00", DumpKind::Full),
        id("shop", "15:05:00", DumpKind::Full),
    );
    let key = |id, object| source.layout.dump(id, &object);
    for id in [&good, &bad] {
        store(&source, id).await;
        // When a restore proved it, it was the source's.
        let proof = key(id, DumpObject::Proof);
        let _ = storage.put(&proof, "{}".into(), PutMode::CreateOnly).await;
    }
    let broken = key(&bad, DumpObject::Whole(DumpFormat::Custom));
    damage(&*storage, broken.as_str()).await;
    let to = Arc::new(MemoryStorage::default());
    let first = copied(&source, to.clone(), &options()).await.unwrap();
    assert_eq!(
        problems(&first),
        [(CopySide::Source, ProblemKind::Damaged, broken.as_str())]
    );
    let counts = |copied: &Copied| (copied.counts.dumps.copied, copied.counts.dumps.present);
    assert_eq!((first.complete, counts(&first)), (false, (1, 0)));
    let destination = open_again(&to).await;
    let kept = list(&destination, None).await.unwrap();
    assert_eq!((kept.complete.len(), &kept.complete[0].id), (1, &good));
    assert!(!kept.complete[0].has(&DumpObject::Proof));
    assert!(kept.complete[0].has(&DumpObject::Sha256(DumpFormat::Custom)));
    let latest = source.layout.latest_dump("shop", DumpKind::Full);
    let named = to.linked(&latest).await.unwrap();
    assert_eq!(named, Some(good.name().file(DumpFormat::Custom)));
    let sound = |result: crate::postgres::repository::verify::VerifyResult| {
        let found = result.findings.list.iter();
        let objects = found.map(|found| found.object.clone()).collect::<Vec<_>>();
        (result.dumps, objects)
    };
    let of = async |cluster: &Cluster| sound(verify(cluster, VerifyScope::All, 1).await.unwrap());
    assert_eq!(of(&destination).await, (1, vec![]));
    assert_eq!(of(&source).await, (2, vec![broken.to_string()]));

    // What an interrupted copy left is compared, and never taken for what it is not.
    let manifest = key(&good, DumpObject::Manifest);
    to.delete(&manifest).await.unwrap();
    let again = copied(&source, to.clone(), &options()).await.unwrap();
    assert_eq!(counts(&again), (1, 0));
    to.delete(&manifest).await.unwrap();
    damage(&*to, key(&good, DumpObject::Globals).as_str()).await;
    let conflict = copied(&source, to.clone(), &options()).await.unwrap();
    assert!(
        problems(&conflict)
            .iter()
            .any(|(at, problem, _)| (*at, *problem)
                == (CopySide::Destination, ProblemKind::Conflict))
    );
    assert!(to.head(&manifest).await.unwrap().is_none());
}
