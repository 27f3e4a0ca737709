//! A restore of a backup or store that is broken names what is wrong and leaves nothing that starts.

use super::*;
use crate::repo::Repository;
use crate::storage::faulty::{CrashPoint, FaultyStorage, GarblingStorage};

#[tokio::test]
async fn a_label_or_control_file_of_another_backup_is_refused() {
    type Change = fn(&mut Vec<(&'static str, Option<u32>, Vec<u8>)>);
    let changes: [(Change, &str); 5] = [
        (|files| files[0].2 = b"14\n".to_vec(), "PG_VERSION"),
        (
            |files| files[1].2 = LABEL.replace("0/2000028", "0/3000028").into(),
            "backup_label",
        ),
        (
            |files| files[1].2 = (LABEL.to_string() + "INCREMENTAL FROM LSN: 0/1\n").into(),
            "incremental",
        ),
        (|files| files[2].2[0] = 8, "pg_control"),
        (|files| drop(files.remove(2)), "pg_control"),
    ];
    for (change, expected) in changes {
        let stored = stored_with(change).await;
        let error = format!("{:#}", stored.restore().await.unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(!stored.data().join("global/pg_control").exists());
    }
}

#[tokio::test]
async fn a_damaged_cut_or_missing_pack_is_named_and_leaves_nothing_that_starts() {
    for damage in ["flipped", "cut", "missing"] {
        let stored = stored().await;
        let key = stored.cluster.layout.pack(&PackName {
            backup: stored.plan.backup.id.clone(),
            number: 1,
        });
        let mut pack = crate::storage::get_all(&*stored.storage, &key, u64::MAX)
            .await
            .unwrap()
            .unwrap()
            .to_vec();
        let middle = pack.len() / 2;
        match damage {
            "flipped" => pack[middle..middle + 4]
                .iter_mut()
                .for_each(|byte| *byte ^= 0x55),
            "cut" => pack.truncate(middle),
            _ => stored.storage.delete(&key).await.unwrap(),
        }
        if damage != "missing" {
            let _ = stored
                .storage
                .put(&key, pack.into(), PutMode::Overwrite)
                .await
                .unwrap();
        }
        let error = stored.restore().await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("pack-000001"), "{damage}: {text}");
        assert!(!stored.data().join("global/pg_control").exists());
        let again = format!("{:#}", stored.restore().await.unwrap_err());
        assert!(again.contains("interrupted"), "{again}");
    }
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_once_more() {
    for at in 0.. {
        let stored = stored().await;
        let garbling = Arc::new(GarblingStorage::new(stored.storage.clone(), at));
        let repository = Repository::open(garbling.clone()).await.unwrap();
        let cluster = Cluster::open(repository, "main".parse().unwrap())
            .await
            .unwrap();
        let done = Stored { cluster, ..stored };
        done.restore()
            .await
            .unwrap_or_else(|error| panic!("get {at}: {error:#}"));
        assert!(done.read("base/1/large") == large(), "get {at}");
        if !garbling.garbled() {
            assert!(
                at > 5,
                "two to open, two for the manifest, two or more for the pack"
            );
            return;
        }
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_told_before_anything_is_made_of_it() {
    let stored = stored().await;
    let key = stored.cluster.layout.manifest(&stored.plan.backup.id);
    let mut manifest = crate::storage::get_all(&*stored.storage, &key, u64::MAX)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    let last = manifest.len() - 1;
    manifest[last] ^= 1;
    let _ = stored
        .storage
        .put(&key, manifest.into(), PutMode::Overwrite)
        .await
        .unwrap();
    let error = format!("{:#}", stored.restore().await.unwrap_err());
    assert!(
        error.contains("manifest.zst") && error.contains("damaged"),
        "{error}"
    );
    assert!(!stored.data().join("PG_VERSION").exists() && !stored.data().join("base").exists());
}

#[tokio::test]
async fn stopped_at_any_call_of_the_store_it_leaves_nothing_that_starts() {
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let stored = stored().await;
            // Opening reads the marker, what it needs and cluster.json first.
            let faulty = Arc::new(FaultyStorage::new(
                stored.storage.clone(),
                stop_at + 3,
                point,
            ));
            let repository = Repository::open(faulty.clone()).await.unwrap();
            let cluster = Cluster::open(repository, "main".parse().unwrap())
                .await
                .unwrap();
            let done = Stored { cluster, ..stored };
            let result = done.restore().await;
            if !faulty.stopped() {
                result.unwrap();
                assert!(stop_at > 3, "the manifest and the pack are read");
                break;
            }
            assert!(result.is_err(), "call {stop_at}");
            assert!(
                !done.data().join("global/pg_control").exists(),
                "call {stop_at}"
            );
        }
    }
}
