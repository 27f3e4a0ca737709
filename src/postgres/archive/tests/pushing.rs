use std::sync::Arc;

use crate::error::{find, hints, one_line};
use crate::postgres::archive::testing::*;
use crate::postgres::archive::{Conflict, Fetched, ForeignFile, PushOutcome};
use crate::postgres::load::load_wal;
use crate::postgres::repository::verify::{VerifyScope, verify};
use crate::repo::ObjectError;
use crate::storage::{Key, LocalStorage, MemoryStorage, PutMode, Storage, get_all};

const FIRST: &str = "000000010000000000000001";

#[tokio::test]
async fn what_was_pushed_comes_back_byte_by_byte() {
    let (repository, wal) = (tempfile::tempdir().unwrap(), PgWal::new());
    let cluster = cluster_in(Arc::new(LocalStorage::new(repository.path()))).await;
    let label = "START WAL LOCATION: 0/100028 (file 000000010000000000000001)\nSTOP WAL LOCATION: 0/100100 (file \
        000000010000000000000001)\nCHECKPOINT LOCATION: 0/100060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        LABEL: x\nSTART TIMELINE: 1\n";
    for (name, bytes) in [
        (FIRST, segment(FIRST, 5)),
        (
            "000000010000000000000002.partial",
            segment("000000010000000000000002.partial", 6),
        ),
        (
            "00000002.history",
            b"1\t0/200100\tno recovery target specified\n".to_vec(),
        ),
        ("000000010000000000000001.00000028.backup", label.into()),
    ] {
        let path = wal.ready(name, &bytes);
        assert_eq!(
            pusher(&cluster).push(&path).await.unwrap(),
            PushOutcome::Now,
            "{name}"
        );
        let back = wal.folder().join("RECOVERYXLOG");
        let fetched = fetcher(&cluster)
            .fetch(&name.parse().unwrap(), &back, None)
            .await
            .unwrap();
        assert_eq!(
            (fetched, content(&back)),
            (Fetched::Delivered, Some(bytes)),
            "{name}"
        );
        assert_eq!(
            pusher(&cluster).push(&path).await.unwrap(),
            PushOutcome::Before,
            "{name}"
        );
    }
}

#[tokio::test]
async fn other_content_under_the_same_name_is_refused_with_both_digests() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    pusher(&cluster).push(&wal.segment(FIRST, 1)).await.unwrap();
    let key = cluster.layout.wal(&FIRST.parse().unwrap());
    let kept = get_all(&*storage, &key, u64::MAX).await.unwrap();
    let other = wal.segment(FIRST, 2);
    let error = pusher(&cluster).push(&other).await.unwrap_err();
    let conflict = find::<Conflict>(&error).expect("a conflict");
    let text = one_line(&error);
    for part in [
        conflict.kept.to_string(),
        conflict.found.to_string(),
        conflict.kept_at.clone(),
        conflict.found_at.clone(),
    ] {
        assert!(text.contains(&part), "{text} lacks {part}");
    }
    assert_ne!(conflict.kept, conflict.found);
    assert!(hints(&error)[0].contains("does a second server or a restored copy archive"));
    assert_eq!(
        get_all(&*storage, &key, u64::MAX).await.unwrap(),
        kept,
        "what was stored stays as it was"
    );
}

#[tokio::test]
async fn files_of_another_identity_leave_no_object() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    for (name, bytes) in [
        (FIRST, with_bytes(segment(FIRST, 1), 24, &8u64.to_le_bytes())),
        (FIRST, segment("000000020000000000000001", 1)),
        (FIRST, segment(FIRST, 1)[..SEGMENT - 8192].to_vec()),
        (FIRST, Vec::new()),
        ("000000010000000000000001.partial", vec![1; SEGMENT]),
        ("00000002.history", b"garbage".to_vec()),
        ("00000002.history", Vec::new()),
        (
            "000000010000000000000001.00000028.backup",
            b"START WAL LOCATION: 0/200028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/200060\nBACKUP METHOD: \
              streamed\nBACKUP FROM: primary\nLABEL: x\nSTART TIMELINE: 1\n"
                .to_vec(),
        ),
    ] {
        let error = pusher(&cluster).push(&wal.ready(name, &bytes)).await.unwrap_err();
        assert!(find::<ForeignFile>(&error).is_some(), "{name}: {error:#}");
        assert!(!hints(&error).is_empty(), "{name}");
        assert_eq!(storage.head(&cluster.layout.wal(&name.parse().unwrap())).await.unwrap(), None, "{name}");
    }
}

/// Two standbys that are promoted one after the other leave the same segment at different places; a backup history file
/// that was not on disk when the machine crashed is handed over once more.
#[tokio::test]
async fn what_there_can_be_several_of_is_kept_beside_its_name() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    for (name, contents) in [
        (
            "000000010000000000000002.partial",
            [1, 2, 3].map(|seed| segment("000000010000000000000002", seed)),
        ),
        (
            "000000010000000000000001.00000028.backup",
            ["", "START WAL", "\0\0\0"].map(|text| text.as_bytes().to_vec()),
        ),
    ] {
        let mut outcomes = Vec::new();
        for content in contents.iter().chain(&contents) {
            outcomes.push(
                pusher(&cluster)
                    .push(&wal.ready(name, content))
                    .await
                    .unwrap(),
            );
        }
        let [now, aside, before] = [PushOutcome::Now, PushOutcome::Aside, PushOutcome::Before];
        assert_eq!(
            outcomes,
            [now, aside, aside, before, aside, aside],
            "{name}"
        );
        let kept = load_wal(&cluster)
            .await
            .unwrap()
            .aside
            .into_iter()
            .filter(|file| file.to_string().starts_with(name));
        let mut found = Vec::new();
        for file in kept.chain([name.parse().unwrap()]) {
            let back = wal.folder().join("back");
            fetcher(&cluster).fetch(&file, &back, None).await.unwrap();
            found.push(content(&back).unwrap());
        }
        found.sort();
        let mut expected = contents.to_vec();
        expected.sort();
        assert!(found == expected, "{name}: each is there");
    }
    assert!(
        verify(&cluster, VerifyScope::Wal { every: 1 }, 2)
            .await
            .unwrap()
            .is_sound()
    );
}

/// Left behind by a server that crashed while it was promoted: the name stays free for what belongs there.
#[tokio::test]
async fn a_segment_to_which_nothing_was_written_yet_does_not_take_its_name() {
    let wal = PgWal::new();
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    for content in [vec![0; SEGMENT], segment("000000010000000000000003", 1)] {
        assert_eq!(
            pusher(&cluster)
                .push(&wal.ready(FIRST, &content))
                .await
                .unwrap(),
            PushOutcome::Aside
        );
    }
    assert_eq!(load_wal(&cluster).await.unwrap().aside.len(), 2);
    let (at, own) = (5 * 8192, 0x10_0000 + 5 * 8192_u64);
    for first in [vec![0; SEGMENT], segment("000000010000000000000003", 1)] {
        let torn = with_bytes(first, at + 8, &own.to_le_bytes());
        let error = pusher(&cluster)
            .push(&wal.ready(FIRST, &torn))
            .await
            .unwrap_err();
        assert!(
            find::<ForeignFile>(&error).is_some(),
            "the disk lost its first page, WAL is behind it: {error:#}"
        );
    }
    assert_eq!(
        pusher(&cluster).push(&wal.segment(FIRST, 1)).await.unwrap(),
        PushOutcome::Now
    );
}

#[tokio::test]
async fn files_that_do_not_say_whose_they_are_are_judged_by_the_data_directory_they_lie_in() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    let history = wal.ready(
        "00000002.history",
        b"1\t0/200100\tno recovery target specified\n",
    );
    let ours = cluster.description.system_identifier.0;
    wal.belongs_to(ours + 1);
    let error = pusher(&cluster).push(&history).await.unwrap_err();
    assert!(
        matches!(
            find::<ForeignFile>(&error),
            Some(ForeignFile::Cluster { .. })
        ),
        "{error:#}"
    );
    assert_eq!(
        storage
            .head(&cluster.layout.wal(&"00000002.history".parse().unwrap()))
            .await
            .unwrap(),
        None
    );
    wal.belongs_to(ours);
    assert_eq!(
        pusher(&cluster).push(&history).await.unwrap(),
        PushOutcome::Now
    );
}

#[tokio::test]
async fn a_name_that_is_no_wal_file_is_refused() {
    let wal = PgWal::new();
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    for name in [
        "xlogtemp.1",
        "archive_status",
        "000000010000000000000001.gz",
    ] {
        assert!(
            pusher(&cluster)
                .push(&wal.folder().join(name))
                .await
                .is_err(),
            "{name}"
        );
    }
    assert!(
        pusher(&cluster)
            .push(&wal.folder().join(FIRST))
            .await
            .is_err(),
        "no such file"
    );
}

#[tokio::test]
async fn a_damaged_object_is_not_taken_for_the_same_content() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    let path = wal.segment(FIRST, 1);
    pusher(&cluster).push(&path).await.unwrap();
    let key = cluster.layout.wal(&FIRST.parse().unwrap());
    damage(&*storage, &key, |object| object.truncate(object.len() - 1)).await;
    let error = pusher(&cluster).push(&path).await.unwrap_err();
    assert!(
        matches!(
            find::<ObjectError>(&error),
            Some(ObjectError::Damaged { .. })
        ),
        "{error:#}"
    );
}

/// Changes an object behind everybody's back.
pub async fn damage(storage: &dyn Storage, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
    let mut object = get_all(storage, key, u64::MAX)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    change(&mut object);
    let _ = storage
        .put(key, object.into(), PutMode::Overwrite)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pushers_of_the_same_segments_both_succeed() {
    let (repository, wal) = (tempfile::tempdir().unwrap(), PgWal::new());
    let cluster = cluster_in(Arc::new(LocalStorage::new(repository.path()))).await;
    let names: Vec<String> = (1..=12)
        .map(|number| format!("0000000100000000{number:08X}"))
        .collect();
    let mut pushes = tokio::task::JoinSet::new();
    for _ in 0..2 {
        for name in &names {
            let (pusher, path) = (pusher(&cluster), wal.segment(name, 3));
            pushes.spawn(async move { pusher.push(&path).await.unwrap() });
        }
    }
    let outcomes = pushes.join_all().await;
    assert_eq!(
        outcomes
            .iter()
            .filter(|&&outcome| outcome == PushOutcome::Now)
            .count(),
        names.len()
    );
    for name in &names {
        let back = wal.folder().join("back");
        fetcher(&cluster)
            .fetch(&name.parse().unwrap(), &back, None)
            .await
            .unwrap();
        assert!(content(&back) == Some(segment(name, 3)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_contents_under_one_name_exactly_one_wins() {
    let repository = tempfile::tempdir().unwrap();
    let cluster = cluster_in(Arc::new(LocalStorage::new(repository.path()))).await;
    for number in 1..=10 {
        let name = format!("0000000100000000{number:08X}");
        let servers = [PgWal::new(), PgWal::new()];
        let mut pushes = tokio::task::JoinSet::new();
        for (seed, server) in servers.iter().enumerate() {
            let (pusher, path) = (pusher(&cluster), server.segment(&name, seed as u64 + 1));
            pushes.spawn(async move { (seed as u64 + 1, pusher.push(&path).await) });
        }
        let (won, lost): (Vec<_>, Vec<_>) = pushes
            .join_all()
            .await
            .into_iter()
            .partition(|(_, result)| result.is_ok());
        assert_eq!((won.len(), lost.len()), (1, 1));
        assert!(find::<Conflict>(lost[0].1.as_ref().unwrap_err()).is_some());
        let back = servers[0].folder().join("back");
        fetcher(&cluster)
            .fetch(&name.parse().unwrap(), &back, None)
            .await
            .unwrap();
        assert!(
            content(&back) == Some(segment(&name, won[0].0)),
            "the winner's bytes are there"
        );
    }
}
