//! A copy that dies anywhere, at its source or its destination, is right so far.

use super::*;
use crate::postgres::dump::latest;
use crate::storage::faulty::{CrashPoint, FaultyStorage};

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
