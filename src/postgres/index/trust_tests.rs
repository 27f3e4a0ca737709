//! What the index does not have it does not answer for, and what changed in the repository it reads again.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::DateTime;

use super::testing::{
    FIRST, MadeUp, Random, SIZE, Waiting, cluster, segment, store, store_history, summarize,
};
use super::tests::{TIMELINE, archived, assert_same, indexed, learn, seed, summaries};
use super::update::{ListScope, complete, decode, list, read_headers, update};
use super::*;
use crate::error::hints;
use crate::postgres::archive::testing::{SEGMENT, back_up, cluster_in};
use crate::postgres::catalog::{KnownPrefix, Unknown, WalIndex};
use crate::postgres::load;
use crate::postgres::types::{Lsn, WalFileName};
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Ended, Ends, Summary, Timestamp, rmgr};
use crate::storage::{LocalStorage, MemoryStorage, PutMode, Storage};

const NEVER: Timestamp = Timestamp(i64::MAX - 1);

/// The end of all that the index answers for.
fn unknown(index: &Index, timeline: TimelineId, from: u64, until: u64) -> Option<Unknown> {
    index.first_later(timeline, from, until, NEVER, true).err()
}

pub(super) async fn remove(storage: &MemoryStorage, cluster: &Cluster, name: SegmentName) {
    storage
        .delete(&cluster.layout.wal(&WalFileName::Segment(name)))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_segment_that_was_never_listed_is_unknown_and_not_empty() {
    let made = MadeUp::new(seed("absent"), 12);
    let (cluster, _) = cluster().await;
    let mut segments = summaries(&made.segments());
    let (absent, _) = segments.remove(7);
    let index = indexed(&cluster, &segments, 16);
    let (first, until) = (FIRST, FIRST + 12);
    let expected = Unknown::Segment(absent);
    assert_eq!(
        unknown(&index, TIMELINE, first, until),
        Some(expected.clone())
    );
    assert_eq!(unknown(&index, TIMELINE, first, FIRST + 7), None);
    assert_eq!(unknown(&index, TIMELINE, FIRST + 8, until), None);
    assert_eq!(
        unknown(&index, TIMELINE, FIRST + 8, until + 1),
        Some(Unknown::Segment(segment(1, until)))
    );
    // What lies before it stands.
    let end = made
        .ends
        .iter()
        .rfind(|end| end.segment < FIRST + 7)
        .unwrap();
    let told = index.ending(end.xid, TIMELINE, first, until).unwrap();
    assert!(
        told.found.contains(&end.segment) && told.more == Some(expected.clone()),
        "{told:?}"
    );
    for (name, ..) in &made.points {
        let KnownPrefix { found, more } =
            index.restore_points(name, TIMELINE, first, until).unwrap();
        let points = made
            .points
            .iter()
            .filter(|(one, _, segment)| one == name && *segment < FIRST + 7);
        assert_eq!(
            (found.len(), more),
            (points.count(), Some(expected.clone()))
        );
    }
    // The commits around are looked for on the other side of it only if it is known.
    assert_eq!(
        index.last_commit(TIMELINE, first, FIRST + 8),
        Err(expected.clone())
    );
    assert_eq!(
        index.first_commit(TIMELINE, FIRST + 7, until),
        Err(expected)
    );
    assert!(
        index
            .last_commit(TIMELINE, first, FIRST + 7)
            .unwrap()
            .is_some()
    );
    index.clear().unwrap();
    assert_eq!(
        unknown(&index, TIMELINE, first, until),
        Some(Unknown::Segment(segment(1, FIRST)))
    );
}

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
async fn lookups_go_through_keys() {
    let (cluster, _) = cluster().await;
    let index = Index::temporary(&cluster).unwrap();
    let db = index.connection();
    let within = [
        wal_index::FIRST_COMMIT,
        wal_index::LAST_COMMIT,
        wal_index::NAMED_POINTS,
    ];
    let range = [
        wal_index::BROKEN,
        tablespace::TABLESPACES,
        wal_index::LISTED,
        wal_index::FULL_BLOCKS,
        wal_index::BLOCKS_MAYBE_ENDING,
        wal_index::MAYBE_ENDING,
    ];
    for sql in within.into_iter().chain(range) {
        let mut select = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let bounds = rusqlite::params_from_iter(1..=select.parameter_count() as i64);
        let plan = select
            .query_map(bounds, |row| row.get::<_, String>(3))
            .unwrap();
        let plan: Vec<String> = plan.collect::<rusqlite::Result<_>>().unwrap();
        let [step] = plan.as_slice() else {
            panic!("{sql}: {plan:?}")
        };
        assert!(
            step.starts_with("SEARCH") && step.contains("timeline=? AND "),
            "{sql}: {step}"
        );
    }
}

#[tokio::test]
async fn what_breaks_off_at_the_end_counts_up_to_there() {
    let made = MadeUp::new(seed("tail"), 8);
    let (cluster, _) = cluster().await;
    let mut segments = made.segments();
    let (name, bytes, summary) = &mut segments[7];
    bytes[SIZE as usize / 2..].fill(0);
    *summary = summarize(bytes, FIRST + 7);
    let broken = Unknown::Broken {
        segment: *name,
        lsn: summary.stop.clone().unwrap().lsn,
    };
    let index = indexed(&cluster, &summaries(&segments), 3);
    let until = FIRST + 8;
    let end = made
        .ends
        .iter()
        .rfind(|end| end.segment < FIRST + 7)
        .unwrap();
    let told = index.ending(end.xid, TIMELINE, FIRST, until).unwrap();
    assert!(
        told.found.contains(&end.segment) && told.more == Some(broken),
        "{told:?}"
    );
    let last = made
        .ends
        .iter()
        .rfind(|one| one.committed && one.lsn < (FIRST + 7) * SIZE + SIZE / 4);
    let found = index.last_commit(TIMELINE, FIRST, until).unwrap();
    assert!(
        found.map(|commit| commit.lsn.0) >= last.map(|last| last.lsn),
        "{found:?}"
    );
    assert!(matches!(
        index.last_commit(TIMELINE, FIRST, until + 1),
        Err(Unknown::Broken { .. })
    ));
    // Of a segment that does not follow on the one before nothing counts.
    let whole = made.segments();
    let mut other = MadeUp::new(1, 9).segments();
    let segments = [whole, other.split_off(8)].concat();
    let index = indexed(&cluster, &summaries(&segments), 3);
    let found = |until| index.last_commit(TIMELINE, FIRST, until).unwrap();
    assert_eq!(found(until + 1), found(until));
}

#[tokio::test]
async fn where_a_timeline_does_not_follow_on_its_parent_replay_ends() {
    let (cluster, _) = cluster().await;
    let made = summaries(&MadeUp::new(seed("boundary"), 4).segments());
    let other = summaries(&MadeUp::new(1, 4).segments());
    let (second, fork) = (TimelineId(2), FIRST + 3);
    for (first, follows) in [(&made[3].1, true), (&other[3].1, false)] {
        let mut segments = made[..3].to_vec();
        segments.push((segment(2, fork), first.clone()));
        let index = indexed(&cluster, &segments, 2);
        let told = index.check_boundary(second, fork);
        let broken =
            matches!(&told, Err(Unknown::Broken { segment: at, .. }) if *at == segment(2, fork));
        assert!(if follows { told == Ok(()) } else { broken }, "{told:?}");
        assert_eq!(
            unknown(&index, second, fork, fork + 1),
            None,
            "what lies before its first segment is left out"
        );
    }
}

/// As the store has it.
pub(super) async fn stored(cluster: &Cluster, name: SegmentName) -> Archived {
    let key = cluster.layout.wal(&WalFileName::Segment(name));
    let bytes = cluster
        .repository
        .storage()
        .head(&key)
        .await
        .unwrap()
        .unwrap()
        .size;
    Archived {
        bytes,
        ..archived(name)
    }
}

#[tokio::test]
async fn what_crosses_into_a_fork_is_told_until_what_lies_before_is_another() {
    let (cluster, _) = cluster().await;
    // A commit that begins in one segment and ends in the next.
    let mut wal = Writer::new(0xD110, SIZE, FIRST * SIZE);
    let fill = |wal: &mut Writer, until: u64| {
        while wal.position() + 8000 < until {
            let block = Some((1, vec![1; 7000]));
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0xB0,
                block,
                ..Draft::default()
            });
        }
    };
    fill(&mut wal, (FIRST + 2) * SIZE);
    let mut main = 5000i64.to_le_bytes().to_vec();
    main.extend_from_slice(&(1u32 << 2).to_le_bytes());
    main.extend_from_slice(&2000u32.to_le_bytes());
    (0..2000u32).for_each(|file| {
        [1663, 5, file]
            .iter()
            .for_each(|part: &u32| main.extend_from_slice(&part.to_le_bytes()))
    });
    wal.write(&Draft {
        xid: 77,
        rmgr: rmgr::TRANSACTION,
        info: 0x80,
        main,
        ..Draft::default()
    });
    fill(&mut wal, (FIRST + 4) * SIZE);
    let made: Vec<(u64, Vec<u8>, Summary)> = wal
        .bytes
        .chunks_exact(SEGMENT)
        .zip(FIRST..)
        .map(|(bytes, number)| (number, bytes.to_vec(), summarize(bytes, number)))
        .collect();
    let fork = FIRST + 2;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    for (number, bytes, summary) in &made[..3] {
        store(&cluster, segment(1, *number), bytes, Some(summary)).await;
        index
            .observe(stored(&cluster, segment(1, *number)).await, summary)
            .unwrap();
    }
    assert_eq!(
        index.first_later(TIMELINE, FIRST, FIRST + 3, Timestamp(4000), true),
        Ok(Some(fork))
    );
    let (_, bytes, summary) = &made[2];
    store(&cluster, segment(2, fork), bytes, None).await;
    store_history(
        &cluster,
        2,
        &format!("1\t{}\tpromoted\n", Lsn((fork + 1) * SIZE - 8)),
    )
    .await;
    index
        .observe(stored(&cluster, segment(2, fork)).await, summary)
        .unwrap();
    let second = TimelineId(2);
    assert_eq!(
        index.first_later(second, fork, fork + 1, Timestamp(4000), true),
        Ok(Some(fork))
    );
    let replaced = Archived {
        bytes: 1,
        ..archived(segment(1, fork - 1))
    };
    index.list(&[replaced]).unwrap();
    assert_eq!(
        unknown(&index, second, fork, fork + 1),
        Some(Unknown::Segment(segment(2, fork)))
    );
    // Also when it has to be read whole.
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    decode(&index, &cluster, 9).await.unwrap();
    assert_eq!(
        index.first_later(second, fork, fork + 1, Timestamp(4000), true),
        Ok(Some(fork))
    );
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
async fn an_object_that_was_repaired_is_read_again() {
    let made = MadeUp::new(seed("repaired"), 3).segments();
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    for (at, (name, bytes, summary)) in made.iter().enumerate() {
        let key = cluster.layout.wal(&WalFileName::Segment(*name));
        match at {
            1 => drop(
                storage
                    .put(&key, "no envelope at all".into(), PutMode::CreateOnly)
                    .await
                    .unwrap(),
            ),
            _ => store(&cluster, *name, bytes, Some(summary)).await,
        }
    }
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let (name, bytes, summary) = &made[1];
    assert_eq!(
        unknown(&index, TIMELINE, FIRST, FIRST + 3),
        Some(Unknown::Segment(*name))
    );
    let told = index.state().unwrap().first_unreadable.unwrap();
    assert!(
        told.segment == *name && told.why.contains("damaged"),
        "{told:?}"
    );
    // It is tried again when asked to, and not at every look.
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().unreadable, 1);
    index.try_again(*name).unwrap();
    assert_eq!(
        (
            index.state().unwrap().unreadable,
            index.state().unwrap().not_indexed
        ),
        (0, 1)
    );
    remove(&storage, &cluster, *name).await;
    store(&cluster, *name, bytes, Some(summary)).await;
    // By the size that it was listed with it is damaged still.
    read_headers(&index, &cluster, &|_| ()).await.unwrap();
    assert_eq!(unknown(&index, TIMELINE, FIRST, FIRST + 3), None);
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(unknown(&index, TIMELINE, FIRST, FIRST + 3), None);
    assert_eq!(index.state().unwrap().first_unreadable, None);
}

#[tokio::test]
async fn what_a_replaced_segment_mentions_decides_again_what_is_new_behind_it() {
    let (cluster, _) = cluster().await;
    let (at, behind) = (FIRST + 18, FIRST + 21);
    let summary = |number: u64, newest: u32| {
        let ended = match number {
            number if number == at => newest,
            number if number == behind => 300,
            number if (at..behind).contains(&number) => return Summary::default(),
            number => 100 + number as u32,
        };
        let (lsn, time) = (Lsn(number * SIZE + 8), Timestamp(1));
        Summary {
            ends: Ends {
                count: 1,
                min_time: Some(time),
                max_time: Some(time),
                newest: Some(ended),
                cut: false,
            },
            oldest_ended: vec![Ended {
                xid: ended,
                top: ended,
                lsn,
                time,
                committed: true,
            }],
            ..Summary::default()
        }
    };
    let version = |newest| {
        (FIRST..=behind)
            .map(|n| (segment(1, n), summary(n, newest)))
            .collect::<Vec<_>>()
    };
    let facts = |index: &Index| -> Vec<String> {
        let tables = ["ended", "block"];
        index
            .dump()
            .into_iter()
            .filter(|line| tables.iter().any(|table| line.starts_with(table)))
            .collect()
    };
    // Transaction 300 is known to be older than its segment only by the number that one before it mentions.
    let (first, second) = (version(500), version(150));
    let index = indexed(&cluster, &first, 30);
    let before = facts(&index);
    for (bytes, replacement) in [(101, &second), (100, &first)] {
        let replaced = Archived {
            bytes,
            ..archived(segment(1, at))
        };
        index.list(&[replaced]).unwrap();
        let listed = |name| {
            if name == replaced.name {
                replaced
            } else {
                archived(name)
            }
        };
        let summaries: Vec<_> = replacement
            .iter()
            .map(|(name, one)| (listed(*name), Box::new(one.clone())))
            .collect();
        learn(&index, &summaries);
        let anew = Index::temporary(&cluster).unwrap();
        anew.list(&[replaced]).unwrap();
        anew.list(
            &(FIRST..=behind)
                .filter(|n| *n != at)
                .map(|n| archived(segment(1, n)))
                .collect::<Vec<_>>(),
        )
        .unwrap();
        anew.learn(&summaries).unwrap();
        assert_same(&facts(&anew), &facts(&index));
    }
    assert_eq!(facts(&index), before);
    assert_ne!(facts(&indexed(&cluster, &second, 30)), before);
}

#[tokio::test]
async fn what_was_read_of_an_object_is_not_taken_for_what_replaced_it() {
    let made = summaries(&MadeUp::new(seed("read"), 3).segments());
    let (cluster, _) = cluster().await;
    let later = |name| Archived {
        stored_at: DateTime::from_timestamp(1, 0).unwrap(),
        ..archived(name)
    };
    let index = indexed(&cluster, &made[..1], 2);
    let (name, summary) = &made[1];
    index.list(&[archived(*name)]).unwrap();
    // While it is read another one comes, of the same size.
    let [read]: [Archived; 1] = index.not_indexed(None, 9).unwrap().try_into().unwrap();
    index.list(&[later(*name)]).unwrap();
    index.learn(&[(read, Box::new(summary.clone()))]).unwrap();
    index.give_up(&read, "what it was cannot be read").unwrap();
    let state = index.state().unwrap();
    assert_eq!((state.not_indexed, state.unreadable), (1, 0));
    let [read]: [Archived; 1] = index.not_indexed(None, 9).unwrap().try_into().unwrap();
    index.learn(&[(read, Box::new(summary.clone()))]).unwrap();
    assert_eq!(index.state().unwrap().not_indexed, 0);
}

#[tokio::test]
async fn who_stored_a_segment_tells_another_time_than_the_store() {
    let made = MadeUp::new(seed("clock"), 2).segments();
    let (cluster, _) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let (name, bytes, summary) = &made[0];
    store(&cluster, *name, bytes, Some(summary)).await;
    let seen = stored(&cluster, *name).await;
    index.observe(seen, summary).unwrap();
    let before = index.dump().len();
    let listed = |stored_at| Archived { stored_at, ..seen };
    let (first, second) = (
        DateTime::from_timestamp(1, 0).unwrap(),
        DateTime::from_timestamp(2, 0).unwrap(),
    );
    index.list(&[listed(first)]).unwrap();
    assert_eq!(
        (index.state().unwrap().not_indexed, index.dump().len()),
        (0, before)
    );
    index.observe(listed(second), summary).unwrap();
    assert_eq!(index.state().unwrap().not_indexed, 0);
    index.list(&[listed(second)]).unwrap();
    assert_eq!(
        index.state().unwrap().not_indexed,
        1,
        "another object lies there"
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
