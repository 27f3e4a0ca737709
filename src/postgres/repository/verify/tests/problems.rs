//! What is whole is sound, and each problem has an answer of its own.

use super::*;
use crate::codec::Envelope;
use crate::error::hints;
use crate::postgres::archive::testing::{PgWal, fetcher, pusher};
use crate::postgres::load::load_histories;
use crate::postgres::types::{Lsn, TimelineId};
use crate::repo::UPGRADE;
use crate::storage::list_all;

#[tokio::test]
async fn a_whole_cluster_is_sound_and_all_of_it_was_read() {
    let (cluster, _) = example().await;
    for extent in samples() {
        let report = verified_to(&cluster, extent).await;
        assert!(report.sound && report.finished, "{report:?}");
        let packs = if extent == SampleExtent::All { 0 } else { 4 };
        assert_eq!(
            (
                report.found.wal_files,
                report.found.backups,
                report.found.packs
            ),
            (9, 2, packs)
        );
    }
}

#[tokio::test]
async fn damaged_missing_and_unknown_objects_are_told_apart() {
    for extent in samples() {
        let (cluster, storage) = example().await;
        damage(&*storage, PACK).await;
        damage(&*storage, SEGMENT_3).await;
        storage
            .delete(&Key::new("main/base/20260102-000000Z/pack-000001").unwrap())
            .await
            .unwrap();
        storage
            .delete(&Key::new("main/wal/0000000200000000/000000020000000000000005.zst").unwrap())
            .await
            .unwrap();
        let _ = storage
            .put(
                &Key::new("main/base/x").unwrap(),
                "x".into(),
                PutMode::CreateOnly,
            )
            .await
            .unwrap();
        let report = verified_to(&cluster, extent).await;
        // Reading all tells how many files are lost.
        let files = |count| {
            if extent == SampleExtent::All {
                count
            } else {
                0
            }
        };
        let mut told = found(&report);
        told.sort();
        assert_eq!(
            told,
            [
                (ProblemKind::Damaged, PACK, files(2)),
                (ProblemKind::Damaged, SEGMENT_3, 0),
                (
                    ProblemKind::Missing,
                    "main/base/20260102-000000Z/pack-000001",
                    files(7)
                ),
                (
                    ProblemKind::Missing,
                    "main/wal/0000000200000000/000000020000000000000005.zst",
                    0
                ),
            ]
        );
        assert_eq!(
            (report.found.gaps.len(), report.found.foreign.as_slice()),
            (1, &["main/base/x".to_string()][..])
        );
        assert!(!report.sound);
    }
}

#[tokio::test]
async fn an_idle_marker_says_what_its_key_says() {
    let (cluster, storage) = example().await;
    let folder = cluster.layout.idle_group_folder(TimelineId(2), Lsn(0));
    let marks = list_all(&*storage, &folder).await.unwrap();
    let object = crate::storage::get_all(&*storage, &Key::new(marks[0].name()).unwrap(), 1 << 20)
        .await
        .unwrap()
        .unwrap();
    let moved = format!("{folder}0000000000600000-20260102T000000Z.zst");
    let _ = storage
        .put(
            &Key::new(moved.clone()).unwrap(),
            object.into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
    let report = verified(&cluster, options()).await;
    assert_eq!(found(&report), [(ProblemKind::Damaged, moved.as_str(), 0)]);
}

#[tokio::test]
async fn a_hole_where_one_timeline_follows_another_is_not_sound() {
    for lost in [
        "0000000200000000/000000020000000000000004",
        "0000000100000000/000000010000000000000003",
    ] {
        let (cluster, storage) = example().await;
        storage
            .delete(&Key::new(format!("main/wal/{lost}.zst")).unwrap())
            .await
            .unwrap();
        let report = verified(&cluster, options()).await;
        assert!(
            !report.sound && report.found.findings.is_empty(),
            "{report:?}"
        );
        let gaps: Vec<String> = report
            .found
            .gaps
            .iter()
            .map(|gap| gap.first_missing.to_string())
            .collect();
        assert_eq!(gaps, [lost.rsplit('/').next().unwrap()]);
    }
}

/// As a newer Walden would write it: the same object with a codec that this one does not know.
async fn written_by_a_newer(storage: &dyn Storage, key: &str) {
    let key = Key::new(key).unwrap();
    let object = get_all(storage, &key, u64::MAX).await.unwrap().unwrap();
    let Envelope { mut header, len } = Envelope::parse(&object).unwrap();
    header.codec = "zstd+age".into();
    let newer = [&Envelope::render(&header), &object[len as usize..]].concat();
    let _ = storage
        .put(&key, newer.into(), PutMode::Overwrite)
        .await
        .unwrap();
}

/// Two versions side by side: what the newer one wrote is neither damaged nor in the way of the rest.
#[tokio::test]
async fn what_a_newer_walden_wrote_is_an_answer_of_its_own() {
    let (cluster, storage) = example().await;
    let manifest = cluster
        .layout
        .manifest(&SECOND.parse().unwrap())
        .to_string();
    let history = cluster
        .layout
        .wal(&"00000002.history".parse().unwrap())
        .to_string();
    for key in [SEGMENT_3, &manifest, &history] {
        written_by_a_newer(&*storage, key).await;
    }
    for extent in samples() {
        let report = verified_to(&cluster, extent).await;
        let mut told = found(&report);
        told.retain(|(problem, ..)| *problem != ProblemKind::Missing);
        told.sort();
        let newer = |key| (ProblemKind::Newer, key, 0);
        assert_eq!(
            told,
            [newer(&*manifest), newer(SEGMENT_3), newer(&*history)],
            "{extent:?}"
        );
        assert!(!report.sound);
    }
    // Nobody is told to move it away, and the older backup stays usable.
    let wal = PgWal::new();
    let path = wal.segment("000000010000000000000003", 3);
    let error = pusher(&cluster).push(&path).await.unwrap_err();
    assert_eq!(hints(&error), [UPGRADE], "{error:#}");
    let to = wal.folder().join("fetched");
    let name = "000000010000000000000003".parse().unwrap();
    let error = fetcher(&cluster).fetch(&name, &to, None).await.unwrap_err();
    assert!(
        hints(&error).contains(&UPGRADE) && !to.exists(),
        "{error:#}"
    );
    let second = TimelineId(2);
    let histories = load_histories(&cluster, &[second]).await.unwrap();
    assert!(histories.damaged[&second].newer, "{histories:?}");
    let loaded = load_backups(&cluster).await.unwrap();
    assert_eq!((loaded.complete.len(), loaded.damaged.len()), (1, 0));
    assert!(
        loaded.unread[0].1.contains("a newer Walden wrote it"),
        "{:?}",
        loaded.unread
    );
}

#[tokio::test]
async fn nothing_archived_is_sound() {
    let storage = Arc::new(MemoryStorage::default());
    let cluster = crate::postgres::archive::testing::cluster_in(storage).await;
    assert!(verified(&cluster, options()).await.sound);
}

#[tokio::test]
async fn a_file_under_another_name_and_a_timeline_without_history_are_told() {
    let (cluster, storage) = example().await;
    let key = |name: &str| cluster.layout.wal(&name.parse().unwrap());
    let [other, moved] = ["000000010000000000000002", "000000010000000000000006"].map(key);
    let object = get_all(&*storage, &other, u64::MAX).await.unwrap().unwrap();
    let _ = storage
        .put(&moved, object.into(), PutMode::CreateOnly)
        .await
        .unwrap();
    storage.delete(&key("00000002.history")).await.unwrap();
    let found = wal_alone(&cluster, 1).await;
    let damages: Vec<_> = found.findings.damages().collect();
    assert!(
        damages.len() == 1 && damages[0].object == moved.as_str(),
        "{damages:?}"
    );
    assert!(damages[0].why.contains("it holds"), "{damages:?}");
    assert_eq!(found.missing_histories, [TimelineId(2)]);
}
