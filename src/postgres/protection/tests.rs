//! Who sees whom: readers, deletions and pins, in every order.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::record::{put_intent, put_outcome, trim_records};
use super::*;
use crate::postgres::archive::testing::cluster_in;
use crate::postgres::catalog::WalSpan;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::TimedId;
use crate::postgres::types::WalFileName;
use crate::repo::Repository;
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{MemoryStorage, PutMode};

const LIFE: Duration = Duration::from_secs(600);
const BACKUP: &str = "20260101-000000Z";

async fn cluster() -> Cluster {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    store(&cluster, &cluster.layout.manifest(&BACKUP.parse().unwrap())).await;
    cluster
}

async fn store(cluster: &Cluster, key: &crate::storage::Key) {
    let storage = cluster.repository.storage();
    let _ = storage
        .put(key, "x".into(), PutMode::CreateOnly)
        .await
        .unwrap();
}

fn span(first: &str, last: &str) -> WalSpan {
    let name = |number: &str| format!("0000000100000000000000{number}").parse().unwrap();
    WalSpan {
        first: name(first),
        last: name(last),
    }
}

fn backup() -> Needs {
    Needs {
        backups: [BACKUP.parse().unwrap()].into(),
        ..Needs::default()
    }
}

fn wal(first: &str, last: &str) -> Needs {
    Needs {
        wal: vec![span(first, last)],
        ..Needs::default()
    }
}

fn reader(needs: Needs) -> LeaseContent {
    LeaseContent::own(LeaseKind::Restore, needs, LIFE)
}

/// What a deletion puts before it looks for readers.
async fn begin_deletion(cluster: &Cluster, number: u32, deletes: Needs) -> Lease {
    let intent = ExpiryIntent {
        digest: "d".into(),
        made_at: DateTime::UNIX_EPOCH,
        made_by: "a test".into(),
        deletes,
    };
    assert!(put_intent(cluster, number, &intent).await.unwrap());
    let mut content = LeaseContent::own(LeaseKind::Expiry, Needs::default(), LIFE);
    content.record = Some(number);
    Lease::put(cluster, content).await.unwrap()
}

async fn refused(cluster: &Cluster, needs: Needs) -> Option<String> {
    match register(cluster, reader(needs)).await {
        Ok(lease) => {
            lease.unwrap().release().await;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[tokio::test]
async fn a_reader_that_comes_later_sees_the_deletion_of_what_it_needs() {
    let cluster = cluster().await;
    let deleting = begin_deletion(&cluster, 1, backup()).await;
    let error = refused(&cluster, backup()).await.unwrap();
    assert!(
        error.contains(BACKUP) && error.contains("which process"),
        "{error}"
    );
    assert!(refused(&cluster, Needs::everything()).await.is_some());
    assert_eq!(
        refused(&cluster, wal("05", "09")).await,
        None,
        "other things"
    );
    assert_eq!(
        leases(&cluster).await.unwrap().len(),
        1,
        "who is refused leaves none"
    );
    // Whoever was killed does not keep readers away for ever, and what is there is there.
    deleting.release().await;
    assert_eq!(refused(&cluster, backup()).await, None);
}

#[tokio::test]
async fn a_deletion_that_comes_later_sees_the_reader() {
    let cluster = cluster().await;
    let lease = register(&cluster, reader(backup())).await.unwrap().unwrap();
    let deleting = begin_deletion(&cluster, 1, backup()).await;
    let now = deleting.stored_at().await.unwrap();
    let seen = leases(&cluster).await.unwrap();
    let seen: Vec<_> = seen
        .iter()
        .filter(|lease| lease.is_live(now) && lease.deletion().is_none())
        .collect();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].id, *lease.id());
    assert!(seen[0].needs().common(&backup()).is_some());
    let mut elsewhere = seen[0].clone();
    let content = elsewhere.content.as_mut().unwrap();
    content.process.as_mut().unwrap().host = "elsewhere".into();
    assert!(elsewhere.is_live(now + LIFE - Duration::from_secs(60)));
    assert!(
        !elsewhere.is_live(now + LIFE + Duration::from_secs(1)),
        "it ends by itself"
    );
    assert!(lease.left() > LIFE - Duration::from_secs(60) && lease.left() <= LIFE);
}

#[tokio::test]
async fn a_lease_that_ended_counts_no_more_however_often_it_is_stored_again() {
    let cluster = cluster().await;
    let short = LeaseContent::own(LeaseKind::Expiry, backup(), Duration::from_secs(1));
    let lease = Lease::put(&cluster, short).await.unwrap();
    lease.renew().await.unwrap();
    assert!(!lease.left().is_zero(), "in time");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        lease.renew().await.unwrap();
        assert_eq!(lease.left(), Duration::ZERO);
    }
}

/// The store's clock is this machine's with a folder, and may be set.
#[tokio::test]
async fn a_clock_that_jumps_ends_no_lease_of_this_machine_and_keeps_none() {
    let cluster = cluster().await;
    let lease = register(&cluster, reader(backup())).await.unwrap().unwrap();
    let mut found = leases(&cluster).await.unwrap().remove(0);
    let year = Duration::from_secs(365 * 24 * 3600);
    for now in [found.stored, found.stored + year, found.stored - year] {
        assert!(found.is_live(now) && !found.is_old(now));
    }
    // It was stored ten minutes ago, whatever the store says.
    let content = found.content.as_mut().unwrap();
    content.stored_uptime = content
        .stored_uptime
        .map(|at| at.saturating_sub(LIFE.as_secs()));
    for now in [found.stored, found.stored + year, found.stored - year] {
        assert!(!found.is_live(now));
    }
    assert!(found.is_old(found.stored + year) && !found.is_old(found.stored + 2 * LIFE));
    lease.release().await;
}

#[tokio::test]
async fn a_lease_that_counts_is_taken_away_only_by_force_and_never_from_who_is_alive() {
    let cluster = cluster().await;
    let take = async |id: &TimedId, force| take_lease(&cluster, &id.to_string(), force).await;
    assert_eq!(take_lease(&cluster, "other", true).await.unwrap(), None);
    let mut lease = register(&cluster, reader(backup())).await.unwrap().unwrap();
    for force in [false, true] {
        let error = take(lease.id(), force).await.unwrap_err().to_string();
        assert!(error.ends_with("is alive"), "{error}");
    }
    // Nobody renews what a restore leaves for its server.
    lease.outlive(wal("05", "09"), LIFE).await.unwrap();
    let error = take(lease.id(), false).await.unwrap_err().to_string();
    assert!(error.contains("restored server"), "{error}");
    assert!(take(lease.id(), true).await.unwrap().is_some());
    lease
        .outlive(wal("05", "09"), Duration::ZERO)
        .await
        .unwrap();
    assert!(take(lease.id(), false).await.unwrap().is_some(), "it ended");
    for kind in [LeaseKind::Copy, LeaseKind::Expiry] {
        let mut elsewhere = LeaseContent::own(kind, backup(), LIFE);
        elsewhere.process.as_mut().unwrap().host = "elsewhere".into();
        let lease = Lease::put(&cluster, elsewhere).await.unwrap();
        let error = take(lease.id(), false).await.unwrap_err().to_string();
        assert!(error.contains("may be alive"), "{error}");
        assert!(take(lease.id(), true).await.unwrap().is_some());
    }
    assert!(leases(&cluster).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_deleted_since_it_was_looked_for_is_missed_before_it_is_read() {
    let cluster = cluster().await;
    for number in ["04", "05", "06"] {
        let name = WalFileName::Segment(span(number, number).first);
        store(&cluster, &cluster.layout.wal(&name)).await;
    }
    let outcome = ExpiryOutcome {
        expired: vec![span("02", "05")],
        ..ExpiryOutcome::default()
    };
    assert!(put_outcome(&cluster, 1, &outcome).await.unwrap());
    assert!(
        !put_outcome(&cluster, 1, &outcome).await.unwrap(),
        "one ends it"
    );
    let error = refused(&cluster, wal("03", "09")).await.unwrap();
    assert!(
        error.contains("000000010000000000000003 was let go"),
        "{error}"
    );
    // Stored again by hand.
    assert_eq!(refused(&cluster, wal("04", "06")).await, None);
    let storage = cluster.repository.storage();
    storage
        .delete(&cluster.layout.manifest(&BACKUP.parse().unwrap()))
        .await
        .unwrap();
    assert!(
        refused(&cluster, backup())
            .await
            .unwrap()
            .contains("meanwhile")
    );
}

#[tokio::test]
async fn a_repository_that_cannot_be_written_keeps_nobody_from_reading() {
    let storage = Arc::new(MemoryStorage::default());
    cluster_in(storage.clone()).await;
    // Gives just what opening reads.
    let open = async |calls| {
        let silent = FaultyStorage::new(storage.clone(), calls, CrashPoint::Before);
        let repository = Repository::open(Arc::new(silent)).await?;
        Cluster::open(repository, "main".parse().unwrap()).await
    };
    let mut calls = 0;
    let read_only = loop {
        match open(calls).await {
            Ok(cluster) => break cluster,
            Err(_) => calls += 1,
        }
    };
    let registered = register(&read_only, reader(backup())).await.unwrap();
    assert!(
        registered
            .unwrap_err()
            .to_string()
            .contains("not registered")
    );
}

#[tokio::test]
async fn what_a_newer_walden_wrote_counts_as_everything() {
    let cluster = cluster().await;
    let put = async |name: &str, json: &str| {
        let key = cluster.layout.lease(&name.parse().unwrap());
        let storage = cluster.repository.storage();
        let _ = storage
            .put(&key, json.to_string().into(), PutMode::CreateOnly)
            .await
            .unwrap();
    };
    put(
        "20260101T000000Z-00000001",
        r#"{"kind":"mount","holder":"h","begun":"2026-01-01T00:00:00Z","life_seconds":60,"needs":{}}"#,
    )
    .await;
    put(
        "20260101T000000Z-00000002",
        r#"{"kind":"restore","holder":"h","begun":"2026-01-01T00:00:00Z","life_seconds":60,"needs":{"planets":[1]}}"#,
    )
    .await;
    put("20260101T000000Z-00000003", "not JSON").await;
    let found = leases(&cluster).await.unwrap();
    assert_eq!(found.len(), 3);
    for lease in found {
        assert!(lease.needs().everything, "{lease:?}");
        assert!(lease.is_live(lease.stored));
    }
}

#[tokio::test]
async fn a_pin_is_seen_or_refused() {
    let cluster = cluster().await;
    let made = Pin {
        item: format!("base:{BACKUP}"),
        reason: "audit".into(),
        until: None,
        made_at: Utc::now(),
        made_by: "a test".into(),
    };
    let deleting = begin_deletion(&cluster, 1, backup()).await;
    let error = pin(&cluster, &made, &backup()).await.unwrap_err();
    assert!(
        error.to_string().contains("is being deleted by process"),
        "{error}"
    );
    assert!(
        pins(&cluster).await.unwrap().is_empty(),
        "nothing is pinned by halves"
    );
    deleting.release().await;
    let id = pin(&cluster, &made, &backup()).await.unwrap();
    let found = pins(&cluster).await.unwrap();
    assert_eq!((&found[0].id, &found[0].content), (&id, &Ok(made.clone())));
    assert!(unpin(&cluster, "base:other").await.is_err());
    assert_eq!(unpin(&cluster, &made.item).await.unwrap().len(), 1);
    assert!(unpin(&cluster, &id.to_string()).await.is_err());
}

#[tokio::test]
async fn records_tell_all_that_was_deleted_and_old_ones_go() {
    let cluster = cluster().await;
    assert_eq!(Expiry::load(&cluster).await.unwrap(), Expiry::default());
    for number in 1..=40 {
        let lease = begin_deletion(&cluster, number, wal("01", "05")).await;
        lease.release().await;
        let outcome = ExpiryOutcome {
            expired: vec![span("01", "05")],
            ..ExpiryOutcome::default()
        };
        assert!(put_outcome(&cluster, number, &outcome).await.unwrap());
    }
    begin_deletion(&cluster, 41, wal("08", "09")).await;
    trim_records(&cluster).await.unwrap();
    let found = Expiry::load(&cluster).await.unwrap();
    assert_eq!((found.open.is_some(), found.numbers.next()), (true, 42));
    let spans = [span("01", "05"), span("08", "09")];
    assert_eq!(found.expired.spans(), spans, "also what is being deleted");
    assert!(find_intent(&cluster, 5).await.unwrap().is_none());
    assert!(find_intent(&cluster, 20).await.unwrap().is_some());
}

#[test]
fn the_newest_deleted_dumps_are_remembered_and_all_of_which_objects_are_left() {
    let name = |at: i64| {
        let time = DateTime::from_timestamp(1_800_000_000 + at, 0).unwrap();
        // Of many databases: their names say nothing of time.
        format!("db{}/d_{}", at % 7, time.format("%Y%m%d_%H%M%S"))
    };
    let told = Expiry {
        gone_dumps: (0..10_000).map(name).collect(),
        ..Expiry::default()
    };
    let (deleted, left) = ([name(10_000)].into(), [name(1)].into());
    let gone = told.gone_dumps(&deleted, &left, |there| *there == name(9_000));
    assert!(gone.contains(&name(10_000)) && !gone.contains(&name(9_000)));
    assert!(gone.contains(&name(0)), "there is room for all others");
    let gone = told.gone_dumps(&deleted, &left, |_| false);
    assert!(gone.contains(&name(1)) && gone.contains(&name(2)) && !gone.contains(&name(0)));
}
