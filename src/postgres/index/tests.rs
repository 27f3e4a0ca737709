use std::os::unix::fs::PermissionsExt;

use std::sync::Arc;

use chrono::DateTime;

use super::testing::{
    FIRST, MadeUp, Random, SIZE, cluster, segment, store, store_history, summarize,
};
use super::update::{ListScope, complete, list, update};
use super::*;
use crate::postgres::catalog::{
    EventKind, Filter, KnownPrefix, LEAST_ROWS, Point, Unknown, WalIndex, WalRanges,
};
use crate::postgres::types::Lsn;
use crate::postgres::wal::{Commit, Summary, Timestamp};
use crate::storage::{PutMode, Storage};

pub(super) const TIMELINE: TimelineId = TimelineId(1);

pub(super) type Made = Vec<(SegmentName, Vec<u8>, Summary)>;

pub(super) fn archived(name: SegmentName) -> Archived {
    Archived {
        name,
        bytes: 100,
        stored_at: DateTime::UNIX_EPOCH,
    }
}

/// Indexed in the order in which they are given, in batches.
pub(super) fn indexed(
    cluster: &Cluster,
    segments: &[(SegmentName, Summary)],
    batch: usize,
) -> Index {
    let index = Index::temporary(cluster).unwrap();
    let all: Vec<_> = segments
        .iter()
        .map(|(name, summary)| (archived(*name), Box::new(summary.clone())))
        .collect();
    for batch in all.chunks(batch) {
        index
            .list(
                &batch
                    .iter()
                    .map(|(segment, _)| *segment)
                    .collect::<Vec<_>>(),
            )
            .unwrap();
        index.learn(batch).unwrap();
    }
    learn(&index, &all);
    index
}

/// Puts in what segments hold; again, where that shows that one has to be read again.
pub(super) fn learn(index: &Index, segments: &[(Archived, Box<Summary>)]) {
    index.learn(segments).unwrap();
    let mut left = u64::MAX;
    while index.count_not_indexed().unwrap() < left {
        left = index.count_not_indexed().unwrap();
        index.learn(segments).unwrap();
    }
}

pub(super) fn summaries(made: &Made) -> Vec<(SegmentName, Summary)> {
    made.iter()
        .map(|(name, _, summary)| (*name, summary.clone()))
        .collect()
}

pub(super) fn seed(name: &str) -> u64 {
    let seed = getrandom::u64().unwrap();
    eprintln!("{name}: seed {seed}");
    seed
}

pub(super) fn assert_same(expected: &[String], found: &[String]) {
    for line in expected.iter().filter(|line| !found.contains(line)).take(5) {
        eprintln!("missing {line}");
    }
    for line in found.iter().filter(|line| !expected.contains(line)).take(5) {
        eprintln!("extra   {line}");
    }
    assert!(expected == found, "two indexes of the same segments differ");
}

#[tokio::test]
async fn deletes_are_summed_over_segments_and_told_where_they_commit() {
    let made = MadeUp::new(seed("deletes"), 40);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let end = (FIRST + 40) * SIZE;
    let whole = |lsn: u64| {
        made.ends
            .iter()
            .any(|one| one.lsn == lsn && (one.segment + 1) * SIZE <= end)
    };
    let mut expected: Vec<(u64, u32, u64)> = made
        .deletes
        .iter()
        .filter(|((lsn, _), rows)| **rows >= LEAST_ROWS && whole(*lsn))
        .map(|((lsn, file), rows)| (*lsn, *file, *rows))
        .collect();
    expected.sort();
    let filter = Filter {
        kinds: vec![EventKind::Delete],
        ..Filter::default()
    };
    let events = index.events(&filter).unwrap().events;
    let mut found: Vec<(u64, u32, u64)> = events
        .iter()
        .map(|event| (event.lsn.0, event.file.unwrap().number, event.rows.unwrap()))
        .collect();
    found.sort();
    assert_eq!(found, expected);
    assert!(expected.len() > 3, "{expected:?}");
    for event in events {
        assert_eq!(index.event(event.id).unwrap().as_ref(), Some(&event));
        assert_eq!(event.commit_lsn, Some(event.lsn));
    }
    let drops = Filter {
        kinds: vec![EventKind::Drop],
        ..Filter::default()
    };
    let found: Vec<u64> = index
        .events(&drops)
        .unwrap()
        .events
        .iter()
        .map(|event| event.lsn.0)
        .collect();
    let mut dropped: Vec<u64> = made
        .drops
        .iter()
        .map(|(lsn, _)| *lsn)
        .filter(|lsn| whole(*lsn))
        .collect();
    let mut sorted = found.clone();
    sorted.sort();
    dropped.sort();
    assert_eq!(sorted, dropped);
}

#[tokio::test]
async fn moments_are_as_a_look_at_all_records_tells() {
    let seed = seed("moments");
    let made = MadeUp::new(seed, 40);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let (last, mut random) = (FIRST + 40, Random(seed));
    for _ in 0..2000 {
        let from = FIRST + random.below(40);
        let until = from + random.below(last - from + 1);
        let within = |number: u64| number >= from && number < until;
        let end = made.ends[random.below(made.ends.len() as u64) as usize];
        let (time, or_at) = (end.time + random.below(3) as i64 - 1, random.below(2) == 0);
        // What crosses into the first segment is not lost: it was asked for from there.
        let later = made
            .ends
            .iter()
            .filter(|one| within(one.segment) && (one.time > time || or_at && one.time == time));
        let expected = later.map(|one| one.segment).min();
        assert_eq!(
            index
                .first_later(TIMELINE, from, until, Timestamp(time), or_at)
                .unwrap(),
            expected
        );
        let KnownPrefix {
            found: candidates,
            more,
        } = index.ending(end.xid, TIMELINE, from, until).unwrap();
        assert_eq!(more, None);
        assert!(
            !within(end.segment) || candidates.contains(&end.segment),
            "{end:?} {candidates:?}"
        );
        assert!(candidates.iter().all(|number| within(*number)));
        assert!(candidates.len() <= 4, "{end:?} {candidates:?}");
        let (name, ..) = &made.points[random.below(made.points.len() as u64) as usize];
        let named = |point| match point {
            Point::Named { segment, lsn, .. } => Some((segment, lsn.0)),
            Point::Unnamed { .. } => None,
        };
        let found = index
            .restore_points(name, TIMELINE, from, until)
            .unwrap()
            .found
            .into_iter()
            .filter_map(named);
        let points = made
            .points
            .iter()
            .filter(|(one, _, segment)| one == name && within(*segment));
        let expected: Vec<(u64, u64)> = points.map(|(_, lsn, segment)| (*segment, *lsn)).collect();
        assert_eq!(found.collect::<Vec<_>>(), expected);
        let mut commits = made
            .ends
            .iter()
            .filter(|one| one.committed && within(one.segment))
            .map(|one| one.lsn);
        let found = |commit: Option<Commit>| commit.map(|commit| commit.lsn.0);
        assert_eq!(
            found(index.first_commit(TIMELINE, from, until).unwrap()),
            commits.clone().next()
        );
        assert_eq!(
            found(index.last_commit(TIMELINE, from, until).unwrap()),
            commits.next_back()
        );
    }
}

#[tokio::test]
async fn what_is_not_indexed_is_unknown_and_what_is_broken_ends_replay() {
    let made = MadeUp::new(seed("unknown"), 10).segments();
    let (cluster, _) = cluster().await;
    let mut segments = summaries(&made);
    let (name, bytes, _) = &made[4];
    let mut broken = bytes.clone();
    broken[SIZE as usize / 2..]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);
    segments[4].1 = summarize(&broken, FIRST + 4);
    assert!(segments[4].1.stop.is_some());
    let (hidden, _) = segments.remove(7);
    let index = indexed(&cluster, &segments, 3);
    index.list(&[archived(hidden)]).unwrap();
    let never = Timestamp(i64::MAX - 1);
    let ask = |from: u64, until: u64| {
        index.first_later(TIMELINE, FIRST + from, FIRST + until, never, true)
    };
    assert_eq!(ask(0, 4), Ok(None));
    let stop = segments[4].1.stop.clone().unwrap().lsn;
    assert_eq!(
        ask(0, 5),
        Err(Unknown::Broken {
            segment: *name,
            lsn: stop
        })
    );
    assert!(matches!(ask(5, 10), Err(Unknown::Segment(segment)) if segment == hidden));
    let first = Timestamp(i64::MIN);
    let found = index
        .first_later(TIMELINE, FIRST, FIRST + 10, first, true)
        .unwrap();
    assert!(
        found.is_some_and(|number| number <= FIRST + 4),
        "what lies before the answer counts: {found:?}"
    );
    let state = index.state().unwrap();
    assert_eq!((state.segments, state.not_indexed), (10, 1));
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

#[tokio::test]
async fn an_unreadable_object_is_told_and_tried_again() {
    let made = MadeUp::new(seed("unreadable"), 3).segments();
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let (name, bytes, summary) = &made[1];
    let key = cluster
        .layout
        .wal(&crate::postgres::types::WalFileName::Segment(*name));
    let _ = storage
        .put(
            &key,
            "no envelope at all, just some text".into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let state = index.state().unwrap();
    assert_eq!(
        (state.segments, state.not_indexed, state.unreadable),
        (1, 1, 1)
    );
    storage.delete(&key).await.unwrap();
    store(&cluster, *name, bytes, Some(summary)).await;
    complete(&index, &cluster, ListScope::All, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().unreadable, 0);
}

#[tokio::test]
async fn the_copy_at_a_timelines_begin_tells_nothing_twice() {
    let made = MadeUp::new(seed("fork"), 8);
    let segments = made.segments();
    let (cluster, _) = cluster().await;
    // Timeline 2 begins at the end of timeline 1's fourth segment but for some bytes: the same bytes so far.
    let fork = FIRST + 3;
    let copy = &segments[3];
    for (name, bytes, summary) in &segments[..4] {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    store(&cluster, segment(2, fork), &copy.1, Some(&copy.2)).await;
    store_history(
        &cluster,
        2,
        &format!("1\t{}\tpromoted\n", Lsn((fork + 1) * SIZE - 8)),
    )
    .await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let all = index
        .events(&Filter {
            all: true,
            ..Filter::default()
        })
        .unwrap()
        .events;
    assert!(all.iter().all(|event| event.timeline == TIMELINE));
    let mut ids: Vec<_> = all.iter().map(|event| event.id).collect();
    ids.dedup();
    assert_eq!(ids.len(), all.len());
    // Without the old timeline's own file only the copy is there, and tells the same.
    let (alone, _) = testing::cluster().await;
    for (name, bytes, summary) in &segments[..3] {
        store(&alone, *name, bytes, Some(summary)).await;
    }
    store(&alone, segment(2, fork), &copy.1, Some(&copy.2)).await;
    store_history(
        &alone,
        2,
        &format!("1\t{}\tpromoted\n", Lsn((fork + 1) * SIZE - 8)),
    )
    .await;
    let index = Arc::new(Index::temporary(&alone).unwrap());
    complete(&index, &alone, ListScope::New, &|_| ())
        .await
        .unwrap();
    let mut from_copy = index
        .events(&Filter {
            all: true,
            ..Filter::default()
        })
        .unwrap()
        .events;
    let mut expected = all;
    // How exact a count is depends on the segments there are.
    from_copy
        .iter_mut()
        .chain(&mut expected)
        .for_each(|event| event.exact = true);
    assert_eq!(from_copy, expected);
    for event in &expected {
        assert_eq!(
            index.event(event.id).unwrap().map(|found| found.id),
            Some(event.id)
        );
    }
}

#[tokio::test]
async fn the_latest_events_are_found_within_bounds() {
    let made = MadeUp::new(seed("bounds"), 20);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let all = index.events(&Filter::default()).unwrap();
    assert!(!all.more && all.events.is_sorted_by_key(|event| (event.time, event.id)));
    let latest = index
        .events(&Filter {
            latest: Some(5),
            ..Filter::default()
        })
        .unwrap();
    assert!(latest.more);
    assert_eq!(latest.events, all.events[all.events.len() - 5..]);
    let (since, until) = (all.events[2].time, all.events[9].time);
    let between = index
        .events(&Filter {
            since: Some(since),
            until: Some(until),
            ..Filter::default()
        })
        .unwrap()
        .events;
    let expected: Vec<_> = all
        .events
        .iter()
        .filter(|event| (since..=until).contains(&event.time))
        .cloned()
        .collect();
    assert_eq!(between, expected);
    let large = index
        .events(&Filter {
            min_rows: Some(50),
            ..Filter::default()
        })
        .unwrap()
        .events;
    assert!(
        large
            .iter()
            .all(|event| event.rows.is_none_or(|rows| rows >= 50))
    );
}

#[tokio::test]
async fn a_file_of_another_form_or_none_at_all_is_made_anew() {
    let (cluster, _) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cache");
    let index = Index::open(&folder, &cluster).unwrap();
    let path = index.path().unwrap().to_path_buf();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    index.list(&[archived(segment(1, 7))]).unwrap();
    // Two have it open at once.
    let second = Index::open(&folder, &cluster).unwrap();
    assert_eq!(second.state().unwrap().segments, 1);
    drop((index, second));
    assert_eq!(
        Index::open(&folder, &cluster)
            .unwrap()
            .state()
            .unwrap()
            .segments,
        1,
        "it is kept"
    );
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", VERSION + 1)
        .unwrap();
    let index = Index::open(&folder, &cluster).unwrap();
    assert_eq!(index.state().unwrap().segments, 0);
    index.list(&[archived(segment(1, 7))]).unwrap();
    drop(index);
    std::fs::write(
        &path,
        "this is no database, but it is long enough to be looked at as one".repeat(100),
    )
    .unwrap();
    assert_eq!(
        Index::open(&folder, &cluster)
            .unwrap()
            .state()
            .unwrap()
            .segments,
        0
    );
    std::fs::write(&path, "").unwrap();
    assert_eq!(
        Index::open(&folder, &cluster)
            .unwrap()
            .state()
            .unwrap()
            .segments,
        0
    );
}
