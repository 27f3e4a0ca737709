//! What listing the repository shows: segments that come and go, and WAL or a repository that is not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::DateTime;

use super::testing::{
    FIRST, MadeUp, Random, TIMELINE, Waiting, archived, cluster, seed, segment, store, unknown,
};
use super::update::{ListScope, complete, list, update};
use super::*;
use crate::error::hints;
use crate::postgres::archive::testing::{back_up, cluster_in};
use crate::postgres::catalog::WalRanges;
use crate::postgres::load;
use crate::postgres::types::WalFileName;
use crate::storage::{LocalStorage, PutMode, Storage};

#[tokio::test]
async fn the_first_absent_segment_is_found_over_blocks() {
    let mut random = Random(seed("holes"));
    let (cluster, _) = cluster().await;
    let last = 5 * BLOCK + 100;
    for holes in 0..8 {
        let index = Index::temporary(&cluster).unwrap();
        let absent: BTreeSet<u64> = (0..holes).map(|_| random.below(last)).collect();
        let there = (0..last)
            .filter(|number| !absent.contains(number))
            .map(|number| archived(segment(1, number)));
        index.list(&there.collect::<Vec<_>>()).unwrap();
        for _ in 0..200 {
            let from = random.below(last);
            let until = from + random.below(last + 10 - from);
            let expected = (from..until).find(|number| absent.contains(number) || *number >= last);
            assert_eq!(
                wal_index::first_absent(&index.connection(), TIMELINE, from..until).unwrap(),
                expected
            );
        }
    }
}

#[tokio::test]
async fn a_segment_that_comes_before_the_first_of_a_timeline_is_listed() {
    let made = MadeUp::new(seed("late"), 4).segments();
    let (cluster, _) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    for at in [1, 2, 0, 3] {
        let (name, bytes, summary) = &made[at];
        store(&cluster, *name, bytes, Some(summary)).await;
        update(&index, &cluster, ListScope::New, &|_| ())
            .await
            .unwrap();
    }
    assert_eq!(unknown(&index, TIMELINE, FIRST, FIRST + 4), None);
}

#[tokio::test]
async fn what_comes_last_is_listed_however_many_folders_have_gaps() {
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let put = async |timeline: u32, number: u64| {
        let key = cluster
            .layout
            .wal(&WalFileName::Segment(segment(timeline, number)));
        let _ = storage
            .put(&key, "not read here".into(), PutMode::CreateOnly)
            .await
            .unwrap();
    };
    for timeline in 1..=70 {
        put(timeline, FIRST).await;
        put(timeline, FIRST + 2).await;
    }
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    for timeline in 1..=70 {
        put(timeline, FIRST + 3).await;
    }
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().segments, 3 * 70);
}

#[tokio::test]
async fn a_folder_that_comes_while_two_list_makes_no_index_anew() {
    let made = MadeUp::new(seed("two lists"), 1).segments();
    let waiting = Arc::new(Waiting::default());
    let cluster = cluster_in(waiting.clone()).await;
    let cache = tempfile::tempdir().unwrap();
    let open = || Arc::new(Index::open(cache.path(), &cluster).unwrap());
    let index = open();
    let (name, bytes, summary) = &made[0];
    store(&cluster, *name, bytes, Some(summary)).await;
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    // One has listed the folders when another comes, which the other one lists.
    *waiting.folder.lock().unwrap() = Some(cluster.layout.wal_folder());
    let (slow, of) = (open(), cluster.clone());
    let slow = tokio::spawn(async move { list(&slow, &of, ListScope::New).await });
    waiting.listed.notified().await;
    store(&cluster, segment(2, FIRST), bytes, Some(summary)).await;
    assert!(!list(&index, &cluster, ListScope::New).await.unwrap().gone);
    waiting.go_on.notify_one();
    assert!(!slow.await.unwrap().unwrap().gone);
    let state = index.state().unwrap();
    assert_eq!(
        (state.segments, state.not_indexed),
        (2, 1),
        "what was indexed stays"
    );
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_no_empty_one() {
    let made = MadeUp::new(seed("unmounted"), 3).segments();
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("repository"), folder.path().join("away"));
    std::fs::create_dir(&here).unwrap();
    let cluster = cluster_in(Arc::new(LocalStorage::new(&here))).await;
    for (name, bytes, summary) in &made {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let known = index.dump();
    std::fs::rename(&here, &away).unwrap();
    // What an unmounted disk leaves is an empty folder, or none.
    for empty in [false, true] {
        if empty {
            std::fs::create_dir(&here).unwrap();
        }
        for scope in [ListScope::New, ListScope::All] {
            assert!(
                update(&index, &cluster, scope, &|_| ()).await.is_err(),
                "{scope:?}"
            );
        }
        assert!(load::load(&cluster).await.is_err());
        assert_eq!(index.dump(), known);
    }
    // Another repository is not it, either.
    std::fs::remove_dir(&here).unwrap();
    std::fs::create_dir(&here).unwrap();
    let _ = cluster_in(Arc::new(LocalStorage::new(&here))).await;
    let error = load::load(&cluster).await.unwrap_err();
    assert!(
        error.to_string().contains("another repository"),
        "{error:#}"
    );
    assert!(
        update(&index, &cluster, ListScope::New, &|_| ())
            .await
            .is_err()
    );
    assert_eq!(index.dump(), known);
    std::fs::remove_dir_all(&here).unwrap();
    std::fs::rename(&away, &here).unwrap();
    update(&index, &cluster, ListScope::All, &|_| ())
        .await
        .unwrap();
    assert_eq!(load::load(&cluster).await.unwrap().ranges.iter().count(), 1);
    assert_eq!(index.dump(), known);
}

#[tokio::test]
async fn wal_that_went_away_without_its_repository_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(LocalStorage::new(folder.path()));
    let cluster = cluster_in(storage.clone()).await;
    for (name, bytes, summary) in &MadeUp::new(seed("wal away"), 3).segments() {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    back_up(&*storage, &cluster).await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let (known, wal) = (index.dump(), folder.path().join("main/wal"));
    std::fs::rename(&wal, folder.path().join("away")).unwrap();
    for empty in [false, true] {
        if empty {
            std::fs::create_dir_all(wal.join("0000000100000000")).unwrap();
        }
        let anew = Arc::new(Index::temporary(&cluster).unwrap());
        for (scope, index) in [
            (ListScope::New, &index),
            (ListScope::All, &index),
            (ListScope::New, &anew),
        ] {
            let error = list(index, &cluster, scope).await.unwrap_err();
            assert!(
                format!("{error:#}").contains("no WAL at all") && !hints(&error).is_empty(),
                "{error:#}"
            );
        }
        assert!(
            index.dump() == known && index.state().unwrap().whole,
            "what is known stays"
        );
        assert!(!anew.state().unwrap().whole && anew.ranges().unwrap().is_none());
    }
    std::fs::remove_dir_all(&wal).unwrap();
    std::fs::rename(folder.path().join("away"), &wal).unwrap();
    assert!(!list(&index, &cluster, ListScope::All).await.unwrap().gone);
}

#[tokio::test]
async fn a_gap_is_seen_when_it_is_filled_and_what_is_gone_is_forgotten() {
    let made = MadeUp::new(seed("gap"), 6).segments();
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    for (name, bytes, summary) in made
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 2)
        .map(|(_, one)| one)
    {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().segments, 5);
    let (name, bytes, summary) = &made[2];
    store(&cluster, *name, bytes, Some(summary)).await;
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().segments, 6);
    let key = cluster
        .layout
        .wal(&crate::postgres::types::WalFileName::Segment(*name));
    crate::storage::Storage::delete(&*storage, &key)
        .await
        .unwrap();
    let listed = list(&index, &cluster, ListScope::New).await.unwrap();
    let state = index.state().unwrap();
    assert_eq!((listed.gone, state.segments), (true, 5));
    assert!(
        state.not_indexed < 5,
        "what it did not tell of stays: {state:?}"
    );
    assert_eq!(index.ranges().unwrap().unwrap().gaps().len(), 1);
    for (name, ..) in made
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 2)
        .map(|(_, one)| one)
    {
        let key = cluster
            .layout
            .wal(&crate::postgres::types::WalFileName::Segment(*name));
        crate::storage::Storage::delete(&*storage, &key)
            .await
            .unwrap();
    }
    assert!(list(&index, &cluster, ListScope::New).await.unwrap().gone);
    assert_eq!(index.ranges().unwrap().unwrap().iter().count(), 0);
}

#[tokio::test]
async fn ranges_are_those_of_all_segments_that_were_listed() {
    let seed = seed("ranges");
    let (cluster, _) = cluster().await;
    let index = Index::temporary(&cluster).unwrap();
    let mut random = Random(seed);
    // On the first timeline three whole blocks in a row, on the second none.
    let holes: Vec<u64> = (0..5).map(|_| 4 * BLOCK + random.below(BLOCK)).collect();
    let first = (BLOCK / 2..5 * BLOCK)
        .filter(|number| !holes.contains(number))
        .map(|number| (1, number));
    let second = (2 * BLOCK - 10..2 * BLOCK + 10).map(|number| (2, number));
    let listed = |(timeline, number): (u32, u64), bytes| Archived {
        name: segment(timeline, number),
        bytes,
        stored_at: DateTime::from_timestamp(number as i64, 0).unwrap(),
    };
    let all: Vec<(u32, u64)> = first.chain(second).collect();
    let mut expected = WalRanges::new(cluster.description.segment_size);
    for one in &all {
        let Archived {
            name,
            bytes,
            stored_at,
        } = listed(*one, 7);
        expected.add(name, bytes, stored_at);
    }
    let mut shuffled = all;
    random.shuffle(&mut shuffled);
    for (bytes, part) in [(5, &shuffled[..2000]), (7, &shuffled[..])] {
        for batch in part.chunks(700) {
            index
                .list(
                    &batch
                        .iter()
                        .map(|one| listed(*one, bytes))
                        .collect::<Vec<_>>(),
                )
                .unwrap();
        }
    }
    assert_eq!(index.ranges().unwrap(), None, "there may be more");
    index.listed_since(0).unwrap();
    assert_eq!(index.ranges().unwrap(), Some(expected));
    index.clear().unwrap();
    index.listed_since(0).unwrap();
    assert_eq!(
        index.ranges().unwrap(),
        None,
        "what was listed is forgotten"
    );
}
