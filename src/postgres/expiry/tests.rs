//! Deleting in a made-up repository: stopped at every call of the store, beside readers, pins and another deletion, and
//! where a store refuses.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;

use super::apply::{Chosen, Decision, PlanChanged, apply};
use super::engine::ExpiryProgress;
use super::testing::*;
use crate::error::find;
use crate::postgres::backup::delete::{delete, plan_delete};
use crate::postgres::catalog::missing_wal;
use crate::postgres::layout::BackupId;
use crate::postgres::load::load;
use crate::postgres::protection::{
    LeaseContent, LeaseKind, Needs, OtherDeletion, Pin, leases, pin, register,
};
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{Key, MemoryStorage};

/// Nothing promised is lost, and nothing looks whole or damaged that is not.
async fn assert_right(storage: Arc<MemoryStorage>, kept: &BTreeSet<BackupId>, at: &str) {
    let cluster = open(storage.clone()).await.unwrap();
    let facts = load(&cluster).await.unwrap();
    let can = restorable(&facts);
    assert!(can.is_superset(kept), "{at}: {can:?}");
    for backup in facts.backups.iter() {
        assert!(
            can.contains(&backup.id),
            "{at}: {} exists and leads nowhere",
            backup.id
        );
        let earlier = backup.earlier_backups.iter().flatten();
        for id in earlier.chain([&backup.id]) {
            let objects = cluster.objects_of(id).await.unwrap();
            assert_eq!(
                objects.len(),
                3,
                "{at}: {} exists and lacks objects of {id}",
                backup.id
            );
        }
    }
    // The window: everything since the backup that is older than two days, to the end.
    let window = begin(3)..begin(0) + A_DAY;
    for number in window {
        assert!(facts.ranges.contains(segment(number)), "{at}: {number}");
    }
    assert_eq!(missing_wal(&facts), [], "{at}: what was let go is no gap");
}

#[tokio::test]
async fn what_the_policy_lets_go_is_deleted_and_nothing_else() {
    let (cluster, storage) = world().await;
    let before = content(&*storage).await;
    let decision = Decision::make(&cluster, &policy(), std::time::SystemTime::now())
        .await
        .unwrap();
    let digest = decision.plan.deletions().digest();
    assert!(
        decision.plan.warnings.is_empty(),
        "{:?}",
        decision.plan.warnings
    );
    let printed = Chosen::Printed(digest.clone());
    let done = apply(&cluster, &policy(), &printed, &ExpiryProgress::default())
        .await
        .unwrap();
    assert!(done.is_whole() && !done.resumed, "{done:?}");
    assert_eq!(done.digest, digest);
    assert!(!done.deleted.backups.is_empty() && !done.deleted.wal.is_empty());
    let after = content(&*storage).await;
    assert_eq!((before.len() - after.len()) as u64, done.objects);
    let facts = load(&cluster).await.unwrap();
    for days in 1..=DAYS {
        let stays = facts.ranges.contains(segment(begin(days)));
        let key = cluster.layout.wal(&beside(days));
        assert_eq!(
            after.contains(key.as_str()),
            stays,
            "it goes with its segment"
        );
    }
    let kept: BTreeSet<BackupId> = facts
        .backups
        .iter()
        .map(|backup| backup.id.clone())
        .collect();
    assert!(
        kept.is_superset(&[1, 2, 3].map(backup_id).into()),
        "{kept:?}"
    );
    assert!(kept.len() < DAYS as usize);
    assert_right(storage.clone(), &kept, "at the end").await;
    // The gaps between islands are not told to be damage, and a second run has nothing to do.
    assert_eq!(
        facts.ranges.iter().count(),
        1 + kept.len() - 3,
        "{:?}",
        facts.ranges
    );
    let again = applied(&cluster).await.unwrap();
    assert_eq!((again.objects, again.is_whole()), (0, true));
    assert!(leases(&cluster).await.unwrap().is_empty());
    let error = apply(&cluster, &policy(), &printed, &ExpiryProgress::default()).await;
    assert!(
        find::<PlanChanged>(&error.unwrap_err()).is_some(),
        "that plan is no more"
    );
}

async fn backups_in(storage: &Arc<MemoryStorage>) -> BTreeSet<BackupId> {
    let facts = load(&open(storage.clone()).await.unwrap()).await.unwrap();
    let backups = facts.backups.iter();
    backups.map(|backup| backup.id.clone()).collect()
}

#[tokio::test]
async fn wherever_it_is_stopped_nothing_promised_is_lost_and_the_next_run_ends_it() {
    let (cluster, storage) = world().await;
    let whole = copy_of(&storage).await;
    let done = applied(&open(whole.clone()).await.unwrap()).await.unwrap();
    assert!(done.objects > 0);
    let expected = content(&*whole).await;
    let facts = load(&open(whole).await.unwrap()).await.unwrap();
    let kept: BTreeSet<BackupId> = facts
        .backups
        .iter()
        .map(|backup| backup.id.clone())
        .collect();
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 3.. {
            let at = format!("call {stop_at}, {point:?}");
            let inner = copy_of(&storage).await;
            let faulty = Arc::new(FaultyStorage::new(inner.clone(), stop_at, point));
            let (progress, there) = (ExpiryProgress::default(), backups_in(&inner).await);
            let broken = open(faulty.clone()).await.unwrap();
            let died = apply(&broken, &policy(), &Chosen::Any, &progress).await;
            if !faulty.stopped() {
                assert!(died.unwrap().is_whole());
                break;
            }
            assert_right(inner.clone(), &kept, &at).await;
            // The call after which it stopped may have been the one that deleted.
            let (gone, told) = (
                &there - &backups_in(&inner).await,
                progress.deleted().backups,
            );
            assert!(
                told.is_subset(&gone) && gone.len() <= told.len() + 1,
                "{at}: {told:?}"
            );
            let next = open(inner.clone()).await.unwrap();
            bury(&next).await;
            // A new backup comes in between.
            let is_new = stop_at % 2 == 0;
            if is_new {
                take(&*inner, &cluster, 0).await;
            }
            let again = applied(&next).await;
            let again = again.unwrap_or_else(|error| panic!("{at}: {error:#}"));
            assert!(again.is_whole(), "{at}: {again:?}");
            let kept: BTreeSet<BackupId> = match is_new {
                // It moves the window: what it no longer needs may be gone, too.
                true => [0, 1, 2].map(backup_id).into(),
                false => kept.clone(),
            };
            let found = content(&*inner).await;
            match is_new {
                true => assert!(found.len() < content(&*storage).await.len(), "{at}"),
                false => assert_eq!(found, expected, "{at}"),
            }
            let facts = load(&next).await.unwrap();
            assert!(restorable(&facts).is_superset(&kept), "{at}");
            assert_eq!(missing_wal(&facts), [], "{at}");
        }
    }
}

#[tokio::test]
async fn what_a_reader_or_a_pin_keeps_stays_also_when_they_come_at_the_last_moment() {
    let days = 10;
    let (old, name) = (backup_id(days), "20260101T000000Z-00000001");
    let content = LeaseContent::own(LeaseKind::Restore, needs(&old), Duration::from_secs(600));
    let pinned = Pin {
        item: format!("base:{old}"),
        reason: "audit".into(),
        until: None,
        made_at: Utc::now(),
        made_by: "a test".into(),
    };
    let lease = serde_json::to_vec(&content).unwrap();
    for (folder, object) in [
        ("main/leases/", lease),
        ("main/pins/", serde_json::to_vec(&pinned).unwrap()),
    ] {
        let (_, storage) = world().await;
        let key = Key::new(format!("{folder}{name}.json")).unwrap();
        let meddling = Meddling {
            inner: storage.clone(),
            at: "main/retention/",
            then: Mutex::new(Some((key, object))),
            locked: "none".into(),
        };
        // It comes after the decision, just before it is written down what goes.
        let cluster = open(Arc::new(meddling)).await.unwrap();
        let done = applied(&cluster).await.unwrap();
        assert!(done.put_off.backups.contains(&old), "{folder}: {done:?}");
        assert!(!done.deleted.backups.contains(&old) && !done.is_whole());
        let facts = load(&cluster).await.unwrap();
        assert!(
            restorable(&facts).contains(&old),
            "{folder}: with its own WAL"
        );
        assert_eq!(missing_wal(&facts), []);
        // The next decision knows it.
        let again = applied(&cluster).await.unwrap();
        assert!(
            again.is_whole() && again.objects == 0,
            "{folder}: {again:?}"
        );
    }
}

#[tokio::test]
async fn a_copy_of_everything_puts_all_off() {
    let (cluster, storage) = world().await;
    let before = content(&*storage).await;
    let copying = LeaseContent::own(
        LeaseKind::Copy,
        Needs::everything(),
        Duration::from_secs(60),
    );
    let lease = register(&cluster, copying).await.unwrap().unwrap();
    assert_eq!(applied(&cluster).await.unwrap().objects, 0);
    assert_eq!(content(&*storage).await, before);
    lease.release().await;
    assert!(applied(&cluster).await.unwrap().objects > 0);
}

#[tokio::test]
async fn a_pin_keeps_and_lets_go() {
    let (cluster, _) = world().await;
    let old = backup_id(11);
    let pinned = Pin {
        item: format!("base:{old}"),
        reason: "audit".into(),
        until: None,
        made_at: Utc::now(),
        made_by: "a test".into(),
    };
    pin(&cluster, &pinned, &needs(&old)).await.unwrap();
    applied(&cluster).await.unwrap();
    assert!(restorable(&load(&cluster).await.unwrap()).contains(&old));
    // Nor by hand.
    let by_hand = plan_delete(&cluster, &old).await.unwrap();
    let refused = delete(&cluster, &by_hand).await.unwrap_err();
    assert!(refused.to_string().contains("is pinned"), "{refused:#}");
    assert!(restorable(&load(&cluster).await.unwrap()).contains(&old));
    crate::postgres::protection::unpin(&cluster, &pinned.item)
        .await
        .unwrap();
    let done = applied(&cluster).await.unwrap();
    assert!(done.deleted.backups.contains(&old), "{done:?}");
}

#[tokio::test]
async fn of_two_at_once_one_at_most_deletes_and_all_is_right() {
    let (_, storage) = world().await;
    let [one, other] = [
        open(storage.clone()).await.unwrap(),
        open(storage.clone()).await.unwrap(),
    ];
    let (first, second) = tokio::join!(applied(&one), applied(&other));
    for result in [first, second] {
        if let Err(error) = result {
            assert!(find::<OtherDeletion>(&error).is_some(), "{error:#}");
        }
    }
    applied(&one).await.unwrap();
    let kept = [1, 2, 3].map(backup_id).into();
    assert_right(storage, &kept, "two at once").await;
}

#[tokio::test]
async fn what_the_store_refuses_to_delete_is_told_and_tried_again() {
    let of_one = backup_id(10).to_string();
    for locked in ["manifest.zst", "pack-000002", "/wal/", &of_one] {
        let (_, storage) = world().await;
        let cluster = open(Arc::new(Meddling::locked(storage.clone(), locked)))
            .await
            .unwrap();
        let done = applied(&cluster).await.unwrap();
        assert!(
            !done.is_whole() && !done.left.is_empty(),
            "{locked}: {done:?}"
        );
        assert!(
            done.left[0].why.contains("WORM protected"),
            "{:?}",
            done.left
        );
        let kept = [1, 2, 3].map(backup_id).into();
        if locked != "pack-000002" {
            assert_right(storage.clone(), &kept, locked).await;
        }
        let error_free = open(storage.clone()).await.unwrap();
        let again = applied(&error_free).await.unwrap();
        assert!(again.is_whole() && again.objects > 0, "{locked}: {again:?}");
        let (_, other) = world().await;
        applied(&open(other.clone()).await.unwrap()).await.unwrap();
        assert_eq!(content(&*storage).await, content(&*other).await, "{locked}");
    }
}
