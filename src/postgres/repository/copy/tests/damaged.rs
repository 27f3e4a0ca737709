//! What is damaged, missing or different is named, and no backup counts that needs it.

use super::*;
use crate::postgres::archive::testing::segment;
use crate::postgres::repository::testing::wal;
use crate::storage::faulty::GarblingStorage;

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
