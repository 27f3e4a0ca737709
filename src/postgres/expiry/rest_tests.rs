//! What interrupted deletions leave: nothing of it is forgotten, taken for somebody else's, or left for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::apply::{Chosen, Decision, apply};
use super::engine::ExpiryProgress;
use super::testing::*;
use crate::postgres::backup::delete::{delete, plan_delete};
use crate::postgres::catalog::missing_wal;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::testing::{id as dump_id, store as store_dump};
use crate::postgres::layout::{DumpKind, DumpObject, IdleMarker, PackName};
use crate::postgres::load::load;
use crate::postgres::protection::{Expiry, LeaseContent, LeaseKind, Needs, register_writer};
use crate::postgres::types::{Lsn, TimelineId, WalFileName};
use crate::retention::{Keep, KindPolicy, PlanDigest, Policy, Tier, Tiers};
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{MemoryStorage, Storage};

async fn printed(cluster: &Cluster) -> PlanDigest {
    let decision = Decision::make(cluster, &policy(), SystemTime::now()).await;
    decision.unwrap().plan.deletions().digest()
}

/// Carries out a plan that was printed, and dies at a call of the store; whether it did.
async fn interrupted(storage: &Arc<MemoryStorage>, digest: &PlanDigest, stop_at: u64) -> bool {
    let faulty = FaultyStorage::new(storage.clone(), stop_at, CrashPoint::Before);
    let faulty = Arc::new(faulty);
    let cluster = open(faulty.clone()).await.unwrap();
    let chosen = Chosen::Printed(digest.clone());
    let _ = apply(&cluster, &policy(), &chosen, &ExpiryProgress::default()).await;
    bury(&open(storage.clone()).await.unwrap()).await;
    faulty.stopped()
}

/// Interrupts a deletion when so many objects are left.
async fn interrupted_at(storage: &Arc<MemoryStorage>, digest: &PlanDigest, left: usize) {
    let whole = content(&**storage).await.len();
    for stop_at in (3..).step_by(5) {
        assert!(
            interrupted(storage, digest, stop_at).await,
            "it came to its end"
        );
        if whole - content(&**storage).await.len() >= left {
            return;
        }
    }
}

#[tokio::test]
async fn a_plan_is_finished_however_often_it_is_interrupted() {
    let (cluster, storage) = world().await;
    let whole = copy_of(&storage).await;
    applied(&open(whole.clone()).await.unwrap()).await.unwrap();
    let digest = printed(&cluster).await;
    for _ in 0..3 {
        interrupted_at(&storage, &digest, 4).await;
        assert_ne!(printed(&cluster).await, digest, "a part of it is gone");
    }
    let chosen = Chosen::Printed(digest.clone());
    let done = apply(&cluster, &policy(), &chosen, &ExpiryProgress::default()).await;
    let done = done.unwrap();
    assert!(done.resumed && done.digest == digest, "{done:?}");
    assert_eq!(content(&*storage).await, content(&*whole).await);
}

#[tokio::test]
async fn a_deletion_by_hand_leaves_an_interrupted_one_for_the_next_run() {
    let (cluster, storage) = world().await;
    let digest = printed(&cluster).await;
    interrupted_at(&storage, &digest, 12).await;
    let before = load(&cluster).await.unwrap();
    let kept: BTreeSet<_> = before
        .backups
        .iter()
        .map(|backup| backup.id.clone())
        .collect();
    // The newest one is needed by none.
    let by_hand = plan_delete(&cluster, &backup_id(1)).await.unwrap();
    delete(&cluster, &by_hand).await.unwrap();
    let expiry = Expiry::load(&cluster).await.unwrap();
    assert_eq!(
        expiry.open.as_ref().map(|open| &open.digest),
        Some(&digest.0)
    );
    let facts = load(&cluster).await.unwrap();
    assert_eq!(missing_wal(&facts), [], "what it deleted is no gap");
    // Of what stayed nothing counts as gone once that one is closed: a copy must bring it back if it is lost.
    let outcome = expiry.outcome(
        Needs::default(),
        &facts.ranges,
        facts.backups.iter().map(|backup| &backup.id),
    );
    assert!(outcome.expired.iter().all(|span| {
        !facts
            .ranges
            .spans()
            .iter()
            .any(|there| there.overlaps(span))
    }));
    assert!(
        outcome.gone_backups.is_disjoint(
            &facts
                .backups
                .iter()
                .map(|backup| backup.id.clone())
                .collect()
        )
    );
    assert!(outcome.gone_backups.contains(&backup_id(1)) && kept.contains(&backup_id(1)));
    // Nor does a refused one close it.
    let reader = LeaseContent::own(
        LeaseKind::Restore,
        needs(&backup_id(2)),
        Duration::from_secs(60),
    );
    let reader = register_writer(&cluster, reader).await.unwrap();
    let by_hand = plan_delete(&cluster, &backup_id(2)).await.unwrap();
    assert!(delete(&cluster, &by_hand).await.is_err());
    reader.release().await;
    let expiry = Expiry::load(&cluster).await.unwrap();
    assert_eq!(
        expiry.open.as_ref().map(|open| &open.digest),
        Some(&digest.0)
    );
    assert!(!expiry.gone_backups.contains(&backup_id(2)));
    let done = applied(&cluster).await.unwrap();
    assert!(done.resumed && done.is_whole(), "{done:?}");
    assert_eq!(Expiry::load(&cluster).await.unwrap().open, None);
    assert_eq!(missing_wal(&load(&cluster).await.unwrap()), []);
}

#[tokio::test]
async fn what_somebody_brings_back_is_no_leftover() {
    let (cluster, storage) = world().await;
    applied(&cluster).await.unwrap();
    let gone = backup_id(10);
    let pack = PackName {
        backup: gone.clone(),
        number: 1,
    };
    let key = cluster.layout.pack(&pack);
    for needs in [needs(&gone), Needs::everything()] {
        let copy = LeaseContent::own(LeaseKind::Copy, needs, Duration::from_secs(60));
        let lease = register_writer(&cluster, copy).await.unwrap();
        put(&*storage, &key, b"frames".to_vec()).await;
        applied(&cluster).await.unwrap();
        assert!(storage.head(&key).await.unwrap().is_some());
        lease.release().await;
        let done = applied(&cluster).await.unwrap();
        assert!(done.is_whole() && storage.head(&key).await.unwrap().is_none());
    }
}

/// The first dump of each day, and the newest.
fn of_dumps() -> Policy {
    let mut tiers = Tiers::default();
    tiers.0[Tier::Daily as usize] = Some(Keep::Count(2));
    let dump = KindPolicy { tiers, minimum: 1 };
    Policy {
        dump,
        window: None,
        base: KindPolicy::default(),
        ..policy()
    }
}

#[tokio::test]
async fn the_rest_of_a_dump_is_deleted_by_the_next_run() {
    let (cluster, storage) = world().await;
    for time in ["01:00:00", "02:00:00", "03:00:00", "04:00:00"] {
        store_dump(&cluster, &dump_id("shop", time, DumpKind::Full)).await;
    }
    // One that is being taken, and what an interrupted one left: neither was let go.
    for (time, object) in [
        ("05:00:00", DumpObject::Started),
        ("06:00:00", DumpObject::Globals),
    ] {
        let id = dump_id("shop", time, DumpKind::Full);
        put(
            &*storage,
            &cluster.layout.dump(&id, &object),
            b"{}".to_vec(),
        )
        .await;
    }
    let whole = content(&*storage).await;
    let run = async |cluster: &Cluster| {
        apply(
            cluster,
            &of_dumps(),
            &Chosen::Any,
            &ExpiryProgress::default(),
        )
        .await
    };
    let expected = copy_of(&storage).await;
    let done = run(&open(expected.clone()).await.unwrap()).await.unwrap();
    assert_eq!((done.deleted.dumps.len(), done.objects), (2, 8), "{done:?}");
    let expected = content(&*expected).await;
    for stop_at in 3.. {
        let inner = copy_of(&storage).await;
        let faulty = Arc::new(FaultyStorage::new(
            inner.clone(),
            stop_at,
            CrashPoint::Before,
        ));
        let _ = run(&open(faulty.clone()).await.unwrap()).await;
        if !faulty.stopped() {
            break;
        }
        let next = open(inner.clone()).await.unwrap();
        bury(&next).await;
        assert!(run(&next).await.unwrap().is_whole());
        assert_eq!(content(&*inner).await, expected, "call {stop_at}");
    }
    // What a store refuses is tried again, too.
    let name = dump_id("shop", "02:00:00", DumpKind::Full);
    let file = cluster.layout.dump(&name, &DumpObject::Globals);
    let locked = Meddling::locked(storage.clone(), file.as_str());
    let locked = open(Arc::new(locked)).await.unwrap();
    assert_eq!(run(&locked).await.unwrap().left.len(), 1);
    assert_eq!(run(&locked).await.unwrap().left.len(), 1, "told each time");
    assert_eq!(run(&cluster).await.unwrap().objects, 1);
    assert_eq!(content(&*storage).await, expected);
    assert!(whole.is_superset(&expected));
    let gone = Expiry::load(&cluster).await.unwrap().gone_dumps;
    assert_eq!(gone.len(), 2, "no copy brings them back: {gone:?}");
}

#[tokio::test]
async fn what_lies_beside_wal_gets_more_than_one_chance() {
    for (locked, item) in [
        (".partial", "files beside WAL"),
        ("main/quiet/", "idle markers"),
    ] {
        let (cluster, storage) = world().await;
        let mark = |number: u64| {
            let mark = IdleMarker {
                timeline: TimelineId(1),
                lsn: Lsn(number * crate::postgres::catalog::testing::SEGMENT + 0x100),
                time: chrono::DateTime::UNIX_EPOCH,
            };
            cluster.layout.idle(&mark)
        };
        let partial = |number| cluster.layout.wal(&WalFileName::Partial(segment(number)));
        let (old, new) = (begin(10) + 3, begin(1));
        for number in [old, new] {
            put(&*storage, &mark(number), b"mark".to_vec()).await;
            put(&*storage, &partial(number), b"wal".to_vec()).await;
        }
        let refusing = Meddling::locked(storage.clone(), locked);
        let refusing = open(Arc::new(refusing)).await.unwrap();
        let left = applied(&refusing).await.unwrap().left;
        assert!(left.iter().any(|left| left.item == item), "{left:?}");
        let again = applied(&refusing).await.unwrap().left;
        if item == "idle markers" {
            // They are looked for when something else goes.
            take(&*storage, &cluster, 0).await;
        } else {
            assert_eq!(again, left, "told again");
        }
        let done = applied(&cluster).await.unwrap();
        assert!(done.is_whole() && done.objects > 0, "{done:?}");
        let found = content(&*storage).await;
        let has = |key: crate::storage::Key| found.contains(key.as_str());
        assert!(!has(mark(old)) && !has(partial(old)), "{found:?}");
        assert!(has(mark(new)) && has(partial(new)));
        assert_eq!(applied(&cluster).await.unwrap().objects, 0);
    }
}
