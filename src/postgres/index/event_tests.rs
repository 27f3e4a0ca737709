//! Events of all segments: summed, each told once, and found within bounds.

use std::sync::Arc;

use super::testing::{
    FIRST, MadeUp, SIZE, TIMELINE, cluster, indexed, seed, segment, store, store_history, summaries,
};
use super::update::{ListScope, complete};
use super::*;
use crate::postgres::catalog::{EventKind, Filter, LEAST_ROWS};
use crate::postgres::types::Lsn;

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
