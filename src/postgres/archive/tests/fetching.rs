//! What a fetch delivers, what it says is absent, and what it takes for a gap or for damage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::pushing::damage;
use crate::error::{find, hints, one_line};
use crate::postgres::archive::testing::*;
use crate::postgres::archive::{Fetched, GapError, HistoryLost, Untold};
use crate::repo::ObjectError;
use crate::storage::{LocalStorage, MemoryStorage};

#[tokio::test]
async fn the_end_of_the_archive_is_absent_and_a_hole_is_not() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1, 2, 4]).await;
    assert_eq!(
        fetch(&cluster, &number(5), &to).await.unwrap(),
        Fetched::Absent
    );
    let error = fetch(&cluster, &number(3), &to).await.unwrap_err();
    let gap = find::<GapError>(&error).expect("a gap");
    assert_eq!(gap.missing.to_string(), number(3));
    assert!(one_line(&error).contains(&number(3)) && hints(&error)[0].contains("gap"));
    assert!(!to.exists());
}

#[tokio::test]
async fn who_asks_again_need_not_watch_a_hole() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1, 3]).await;
    let fetcher = crate::postgres::archive::Fetcher::new(cluster, Duration::from_secs(60), 1);
    let (fetcher, name) = (
        fetcher.watching_gaps(Duration::ZERO),
        number(2).parse().unwrap(),
    );
    let asked = fetcher.fetch(&name, &to, None);
    let error = tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .expect("it is told at once")
        .unwrap_err();
    assert!(find::<GapError>(&error).is_some());
}

#[tokio::test]
async fn a_hole_shows_also_when_what_follows_lies_in_another_folder() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    pusher(&cluster)
        .push(&wal.segment("000000010000000300000000", 1))
        .await
        .unwrap();
    assert!(find::<GapError>(&fetch(&cluster, &number(2), &to).await.unwrap_err()).is_some());
    assert!(
        find::<GapError>(
            &fetch(&cluster, "000000010000000200000000", &to)
                .await
                .unwrap_err()
        )
        .is_some()
    );
    assert_eq!(
        fetch(&cluster, "000000010000000300000001", &to)
            .await
            .unwrap(),
        Fetched::Absent
    );
}

#[tokio::test]
async fn a_child_timeline_shows_what_its_parent_must_have_had() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    pusher(&cluster)
        .push(&wal.ready("00000002.history", b"1\t0/300100\tx\n"))
        .await
        .unwrap();
    assert!(find::<GapError>(&fetch(&cluster, &number(2), &to).await.unwrap_err()).is_some());
    assert_eq!(
        fetch(&cluster, &number(3), &to).await.unwrap(),
        Fetched::Absent
    );
}

#[tokio::test]
async fn a_partial_segment_never_serves_the_plain_name() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    let partial = format!("{}.partial", number(2));
    pusher(&cluster)
        .push(&wal.ready(&partial, &segment(&partial, 1)))
        .await
        .unwrap();
    assert_eq!(
        fetch(&cluster, &number(2), &to).await.unwrap(),
        Fetched::Absent
    );
    assert!(!to.exists());
}

#[tokio::test]
async fn a_missing_history_file_is_absent_also_of_timeline_1() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYHISTORY");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    for name in ["00000001.history", "00000002.history"] {
        assert_eq!(fetch(&cluster, name, &to).await.unwrap(), Fetched::Absent);
    }
}

#[tokio::test]
async fn a_lost_history_file_is_not_absent() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYHISTORY");
    let child = "000000020000000000000003";
    for witness in [
        child.to_string(),
        format!("{child}.partial"),
        "00000003.history".into(),
    ] {
        let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
        let bytes = match witness.as_str() {
            "00000003.history" => b"1\t0/200100\tx\n2\t0/300100\tx\n".to_vec(),
            file => segment(file, 1),
        };
        pusher(&cluster)
            .push(&wal.ready(&witness, &bytes))
            .await
            .unwrap();
        let error = fetch(&cluster, "00000002.history", &to).await.unwrap_err();
        assert!(
            find::<HistoryLost>(&error).is_some() && one_line(&error).contains(&witness),
            "{error:#}"
        );
        assert!(
            hints(&error)[0].contains("walden wal push"),
            "{:?}",
            hints(&error)
        );
        assert_eq!(
            fetch(&cluster, "00000004.history", &to).await.unwrap(),
            Fetched::Absent
        );
        pusher(&cluster)
            .push(&wal.ready("00000002.history", b"1\t0/200100\tx\n"))
            .await
            .unwrap();
        assert_eq!(
            fetch(&cluster, "00000002.history", &to).await.unwrap(),
            Fetched::Delivered
        );
    }
}

#[tokio::test]
async fn a_backup_shows_what_wal_there_must_be() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = archive(storage.clone(), &wal, &[1]).await;
    back_up(&*storage, &cluster).await;
    let to = wal.folder().join("RECOVERYXLOG");
    assert!(find::<GapError>(&fetch(&cluster, &number(2), &to).await.unwrap_err()).is_some());
    assert_eq!(
        fetch(&cluster, &number(3), &to).await.unwrap(),
        Fetched::Absent
    );
}

#[tokio::test]
async fn what_a_killed_fetch_left_is_replaced_and_a_failed_rename_leaves_nothing() {
    let wal = PgWal::new();
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    let beside = wal.folder().join(".walden-fetch-RECOVERYXLOG");
    std::fs::write(&beside, "half").unwrap();
    let to = wal.folder().join("RECOVERYXLOG");
    assert_eq!(
        fetch(&cluster, &number(1), &to).await.unwrap(),
        Fetched::Delivered
    );
    assert!(content(&to) == Some(segment(&number(1), 1)) && !beside.exists());
    std::fs::remove_file(&to).unwrap();
    std::fs::create_dir(&to).unwrap();
    assert!(fetch(&cluster, &number(1), &to).await.is_err());
    assert!(!beside.exists());
}

#[tokio::test]
async fn from_the_known_end_on_everything_is_absent_without_looking() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1, 2, 4]).await;
    let end = Some(name(&number(3)));
    for asked in [number(3), number(4), "000000020000000000000003".into()] {
        let fetched = fetcher(&cluster)
            .fetch(&asked.parse().unwrap(), &to, end)
            .await
            .unwrap();
        assert_eq!(fetched, Fetched::Absent, "{asked}");
    }
    assert_eq!(
        fetcher(&cluster)
            .fetch(&number(2).parse().unwrap(), &to, end)
            .await
            .unwrap(),
        Fetched::Delivered
    );
}

#[tokio::test]
async fn a_damaged_object_is_never_absent_and_never_delivered() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let damages: [fn(&mut Vec<u8>); 6] = [
        |object| object.clear(),
        |object| object.truncate(10),
        |object| object.truncate(object.len() - 1),
        |object| object[30] ^= 1,
        |object| *object.last_mut().unwrap() ^= 0x80,
        |object| object.push(0),
    ];
    for (which, change) in damages.into_iter().enumerate() {
        let storage = Arc::new(MemoryStorage::default());
        let cluster = archive(storage.clone(), &wal, &[1]).await;
        let key = cluster.layout.wal(&number(1).parse().unwrap());
        damage(&*storage, &key, change).await;
        let error = fetch(&cluster, &number(1), &to).await.unwrap_err();
        assert!(
            matches!(
                find::<ObjectError>(&error),
                Some(ObjectError::Damaged { .. })
            ),
            "{which}: {error:#}"
        );
        assert!(
            one_line(&error).contains(key.as_str()),
            "{which}: the object is named"
        );
        assert!(std::fs::read_dir(wal.folder()).unwrap().all(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name != "RECOVERYXLOG" && !name.starts_with(".walden")
        }));
    }
}

#[tokio::test]
async fn a_damaged_history_file_leaves_the_end_unknown() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = archive(storage.clone(), &wal, &[1]).await;
    pusher(&cluster)
        .push(&wal.ready("00000002.history", b"1\t0/100100\tx\n"))
        .await
        .unwrap();
    let key = cluster.layout.wal(&"00000002.history".parse().unwrap());
    damage(&*storage, &key, |object| object.truncate(object.len() / 2)).await;
    let error = fetch(&cluster, &number(2), &wal.folder().join("x"))
        .await
        .unwrap_err();
    assert!(one_line(&error).contains(key.as_str()), "{error:#}");
    assert!(
        find::<Untold>(&error).is_some_and(|untold| untold.timeline.0 == 2),
        "{error:#}"
    );
    assert!(
        hints(&error)[0].contains("repair the repository"),
        "{error:#}"
    );
}

#[tokio::test]
async fn an_object_of_another_name_is_not_delivered() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = archive(storage.clone(), &wal, &[1, 2]).await;
    let key = |each| cluster.layout.wal(&number(each).parse().unwrap());
    let second = crate::storage::get_all(&*storage, &key(2), u64::MAX)
        .await
        .unwrap()
        .unwrap();
    damage(&*storage, &key(1), |object| *object = second.to_vec()).await;
    let error = fetch(&cluster, &number(1), &wal.folder().join("x"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            find::<ObjectError>(&error),
            Some(ObjectError::Damaged { .. })
        ),
        "{error:#}"
    );
}

#[tokio::test]
async fn what_is_at_the_destination_stays_until_it_is_replaced_whole() {
    let wal = PgWal::new();
    let to = wal.folder().join("RECOVERYXLOG");
    let cluster = archive(Arc::new(MemoryStorage::default()), &wal, &[1]).await;
    std::fs::write(&to, "old").unwrap();
    assert_eq!(
        fetch(&cluster, &number(2), &to).await.unwrap(),
        Fetched::Absent
    );
    assert_eq!(content(&to), Some(b"old".to_vec()));
    assert_eq!(
        fetch(&cluster, &number(1), &to).await.unwrap(),
        Fetched::Delivered
    );
    assert!(content(&to) == Some(segment(&number(1), 1)));
    assert!(
        fetch(&cluster, &number(1), Path::new("/nowhere/at/all"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_huge_stranger_in_a_segments_place_is_damage_and_is_not_read() {
    let (wal, folder) = (PgWal::new(), tempfile::tempdir().unwrap());
    let storage = Arc::new(LocalStorage::new(folder.path()));
    let cluster = archive(storage, &wal, &[1]).await;
    let key = cluster.layout.wal(&number(1).parse().unwrap());
    // Without a bound, reading it would take as much memory.
    let stranger = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.path().join(key.as_str()))
        .unwrap();
    stranger.set_len(1 << 40).unwrap();
    let to = wal.folder().join("RECOVERYXLOG");
    let error = fetch(&cluster, &number(1), &to).await.unwrap_err();
    assert!(
        matches!(
            find::<ObjectError>(&error),
            Some(ObjectError::Damaged { .. })
        ),
        "{error:#}"
    );
    assert!(
        one_line(&error).contains("it has more than")
            && hints(&error)[0].contains("repair the repository")
    );
    let error = pusher(&cluster)
        .push(&wal.segment(&number(1), 1))
        .await
        .unwrap_err();
    assert!(one_line(&error).contains("it has more than"), "{error:#}");
    assert!(!to.exists());
}
