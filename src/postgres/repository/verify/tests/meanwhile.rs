//! A store that goes away, garbles what it gives, or fills while it is read deceives nobody.

use super::*;
use crate::postgres::archive::testing::segment;
use crate::postgres::load::load_wal;
use crate::postgres::repository::testing::wal;
use crate::repo::Repository;
use crate::storage::faulty::{CrashPoint, FaultyStorage, GarblingStorage};

/// A store that goes away leaves a report that says how far it came; going on from there reads the rest, and nothing
/// is left out.
#[tokio::test]
async fn a_store_that_goes_away_is_never_sound_and_nothing_is_left_out_after_going_on() {
    let (_, storage) = example().await;
    damage(&*storage, SEGMENT_3).await;
    for stop_at in 3.. {
        let faulty = Arc::new(FaultyStorage::new(
            storage.clone() as Arc<dyn Storage>,
            stop_at,
            CrashPoint::Before,
        ));
        let open = async |storage: Arc<dyn Storage>| {
            let repository = Repository::open(storage).await.unwrap();
            Cluster::open(repository, "main".parse().unwrap())
                .await
                .unwrap()
        };
        let verification = Arc::new(Verification::new(open(faulty.clone()).await, options()));
        let ended = verification.run().await;
        let report = verification.report(ended.is_ok());
        if !faulty.stopped() {
            assert_eq!(found(&report), [(ProblemKind::Damaged, SEGMENT_3, 0)]);
            return;
        }
        assert!(ended.is_err() || !report.sound, "call {stop_at}");
        let after = report.done.clone().map(|key| Key::new(key).unwrap());
        let rest = verified(
            &open(storage.clone()).await,
            VerifyOptions { after, ..options() },
        )
        .await;
        let all = [found(&report), found(&rest)].concat();
        assert!(
            all.contains(&(ProblemKind::Damaged, SEGMENT_3, 0)),
            "call {stop_at}: {report:?} {rest:?}"
        );
    }
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_once_more() {
    let (_, storage) = example().await;
    for extent in samples() {
        for at in 0.. {
            let garbling = Arc::new(GarblingStorage::new(storage.clone(), at));
            let repository = Repository::open(garbling.clone()).await.unwrap();
            let cluster = Cluster::open(repository, "main".parse().unwrap())
                .await
                .unwrap();
            let report = verified_to(&cluster, extent).await;
            assert!(report.sound, "get {at}: {report:?}");
            if !garbling.garbled() {
                assert!(at > 15, "{at} reads");
                break;
            }
        }
    }
}

/// Segments in the order of their arrival while the archive is read.
#[tokio::test]
async fn of_a_gap_stays_what_did_not_arrive_meanwhile() {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    let name = |number: u32| format!("{number:024X}").replacen("00000000", "00000001", 1);
    let put = async |number: u32| wal(&cluster, &name(number), &segment(&name(number), 1)).await;
    let found = async |loaded| {
        let verification = plain(&cluster, VerifyScope::Wal { every: 1 }, 2).unwrap();
        verification.conclude(loaded).await.unwrap();
        verification.found()
    };
    for number in [2, 3, 8] {
        put(number).await;
    }
    let before = load_wal(&cluster).await.unwrap();
    for number in [4, 6] {
        put(number).await;
    }
    let gaps = found(before.clone()).await.gaps;
    let gaps: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.first_missing.to_string(), gap.last_missing.to_string()))
        .collect();
    assert_eq!(gaps, [(name(5), name(5)), (name(7), name(7))]);
    // Nor is a gap told that was none when the archive was read.
    for number in [5, 7, 10] {
        put(number).await;
    }
    let found = found(before).await;
    assert!(found.is_sound(), "{found:?}");
}
