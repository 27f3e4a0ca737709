//! A copy has all of its source, or one backup with what it needs, and never goes into another cluster.

use super::*;
use crate::postgres::cluster::testing::registered;

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
