//! As much is read as was asked for: a sample, the rest, WAL alone or one backup.

use super::*;

#[tokio::test]
async fn a_sample_reads_as_much_as_was_asked_for_and_still_finds_what_is_missing() {
    let (cluster, storage) = example().await;
    storage.delete(&Key::new(PACK).unwrap()).await.unwrap();
    let report = verified(
        &cluster,
        VerifyOptions {
            extent: SampleExtent::Objects(3),
            ..options()
        },
    )
    .await;
    // Two files that are no segments are always read.
    assert_eq!(
        report.found.wal_files + report.found.packs,
        3 + 2,
        "{report:?}"
    );
    assert_eq!(found(&report), [(ProblemKind::Missing, PACK, 0)]);
}

#[tokio::test]
async fn a_sample_is_drawn_only_from_what_is_read() {
    let (cluster, storage) = example().await;
    // Of an interrupted backup, and one that no manifest names.
    let pack = Key::new(PACK).unwrap();
    let content = crate::storage::get_all(&*storage, &pack, u64::MAX)
        .await
        .unwrap()
        .unwrap();
    for folder in ["20260103-000000Z", "20260101-000000Z"] {
        for number in 100..150 {
            let key = Key::new(format!("main/base/{folder}/pack-{number:06}")).unwrap();
            let _ = storage
                .put(&key, content.clone().into(), PutMode::CreateOnly)
                .await
                .unwrap();
        }
    }
    for seed in 1..9 {
        let options = VerifyOptions {
            extent: SampleExtent::Objects(5),
            seed,
            ..options()
        };
        let found = verified(&cluster, options.clone()).await.found;
        assert_eq!(
            (found.drawn, found.sampled),
            (Some(5), 5),
            "seed {seed}: {found:?}"
        );
        // Going on reads no other objects.
        let after = Some(Key::new(SEGMENT_3).unwrap());
        let rest = verified(&cluster, VerifyOptions { after, ..options })
            .await
            .found;
        assert!(
            rest.drawn == Some(5) && rest.sampled <= found.sampled,
            "seed {seed}: {rest:?}"
        );
    }
    damage(&*storage, PACK).await;
    damage(&*storage, SEGMENT_3).await;
    let all = verified(
        &cluster,
        VerifyOptions {
            extent: SampleExtent::Objects(1000),
            ..options()
        },
    )
    .await
    .found;
    assert_eq!(
        (all.drawn, all.sampled),
        (Some(10), 10),
        "7 segments and 3 packs: {all:?}"
    );
}

#[tokio::test]
async fn a_verification_goes_on_where_it_ended() {
    let (cluster, _) = example().await;
    let layout = &cluster.layout;
    let second = layout.manifest(&SECOND.parse().unwrap());
    let first = layout.manifest(&"20260101-000000Z".parse().unwrap());
    let counts = async |after: &str| {
        let after = Some(Key::new(after).unwrap());
        let found = verified(&cluster, VerifyOptions { after, ..options() })
            .await
            .found;
        (found.backups, found.wal_files)
    };
    assert_eq!(counts(first.as_str()).await, (1, 9));
    assert_eq!(counts(second.as_str()).await, (0, 9));
    assert_eq!(
        counts(SEGMENT_3).await,
        (0, 9 - 2),
        "two segments lie before it"
    );
    assert_eq!(counts("main/wal/zzz").await, (0, 0));
}

#[tokio::test]
async fn wal_alone_is_sound_also_by_sample() {
    let (cluster, storage) = example().await;
    damage(&*storage, PACK).await;
    let all = wal_alone(&cluster, 1).await;
    assert!(all.is_sound(), "{all:?}");
    assert_eq!((all.segments, all.wal_files, all.backups), (7, 9, 0));
    let sampled = wal_alone(&cluster, 7).await;
    assert!(sampled.is_sound() && sampled.segments == 7, "{sampled:?}");
    assert_eq!(
        sampled.wal_files,
        1 + 2,
        "what is no segment is always read"
    );
}

#[tokio::test]
async fn one_backup_is_verified_with_the_packs_of_others_and_its_wal() {
    let (cluster, storage) = example().await;
    let backup =
        async |id: &str| verify(&cluster, VerifyScope::Backup(id.parse().unwrap()), 2).await;
    let sound = backup(SECOND).await.unwrap();
    assert!(sound.is_sound(), "{sound:?}");
    assert_eq!((sound.files, sound.looked_up, sound.wal_files), (8, 2, 0));
    damage(&*storage, SEGMENT_3).await;
    damage(&*storage, PACK).await;
    let damaged = backup(SECOND).await.unwrap().findings;
    let damages: Vec<_> = damaged
        .damages()
        .map(|damage| (damage.problem, damage.object, damage.file))
        .collect();
    assert_eq!(damages, [(ProblemKind::Damaged, PACK, Some("base/1/1"))]);
    assert!(find::<NoSuchBackup>(&backup("20260103-000000Z").await.unwrap_err()).is_some());
}
