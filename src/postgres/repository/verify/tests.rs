use std::sync::Arc;

use super::*;
use crate::codec::Envelope;
use crate::error::hints;
use crate::postgres::archive::testing::{PgWal, cluster_in, fetcher, pusher, segment};
use crate::postgres::load::{load_histories, load_wal};
use crate::postgres::repository::testing::{SECOND, damage, example, wal};
use crate::postgres::types::{Lsn, TimelineId};
use crate::repo::{Repository, UPGRADE};
use crate::storage::faulty::{CrashPoint, FaultyStorage, GarblingStorage};
use crate::storage::{MemoryStorage, PutMode, Storage, get_all, list_all};

const PACK: &str = "main/base/20260101-000000Z/pack-000002";
const SEGMENT_3: &str = "main/wal/0000000100000000/000000010000000000000003.zst";

fn options() -> VerifyOptions {
    VerifyOptions {
        scope: VerifyScope::All,
        extent: SampleExtent::All,
        seed: 1,
        after: None,
        workers: 2,
        memory: 1 << 20,
    }
}

async fn verified(cluster: &Cluster, options: VerifyOptions) -> VerifyReport {
    let verification = Arc::new(Verification::new(cluster.clone(), options));
    verification.run().await.unwrap();
    let progress = &verification.progress;
    assert_eq!(
        progress.total.load(Ordering::Relaxed) == 0,
        progress.done.load(Ordering::Relaxed) == 0
    );
    verification.report(true)
}

fn found(report: &VerifyReport) -> Vec<(ProblemKind, &str, u64)> {
    let findings = report.found.findings.list.iter();
    findings
        .map(|finding| (finding.problem, finding.object.as_str(), finding.files))
        .collect()
}

fn samples() -> [SampleExtent; 3] {
    [
        SampleExtent::All,
        SampleExtent::Percent(100.0),
        SampleExtent::Objects(1000),
    ]
}

#[tokio::test]
async fn a_whole_cluster_is_sound_and_all_of_it_was_read() {
    let (cluster, _) = example().await;
    for extent in samples() {
        let report = verified(
            &cluster,
            VerifyOptions {
                extent,
                ..options()
            },
        )
        .await;
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
        let report = verified(
            &cluster,
            VerifyOptions {
                extent,
                ..options()
            },
        )
        .await;
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
        let report = verified(
            &cluster,
            VerifyOptions {
                extent,
                ..options()
            },
        )
        .await;
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
async fn nothing_archived_is_sound() {
    let storage = Arc::new(MemoryStorage::default());
    let cluster = crate::postgres::archive::testing::cluster_in(storage).await;
    assert!(verified(&cluster, options()).await.sound);
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
            let report = verified(
                &cluster,
                VerifyOptions {
                    extent,
                    ..options()
                },
            )
            .await;
            assert!(report.sound, "get {at}: {report:?}");
            if !garbling.garbled() {
                assert!(at > 15, "{at} reads");
                break;
            }
        }
    }
}

/// WAL alone, as of the example's cluster.
async fn wal_alone(cluster: &Cluster, every: u64) -> VerifyResult {
    verify(cluster, VerifyScope::Wal { every }, 2)
        .await
        .unwrap()
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
