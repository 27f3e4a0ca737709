//! What a search for events costs, that it ends in time, and that "none" is told apart from "not known".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::testing::{FIRST, MadeUp, SIZE, cluster, indexed, seed, segment, store, summaries};
use super::update::{ListScope, complete, list};
use super::*;
use crate::error::{DeadlineExceeded, find, hints};
use crate::postgres::catalog::{EventId, EventKind, Filter, Unknown};
use crate::postgres::types::WalFileName;
use crate::storage::Storage;

fn of_no_such_relation() -> Filter {
    Filter {
        relation: Some("nosuch".into()),
        all: true,
        ..Filter::default()
    }
}

#[tokio::test]
async fn a_search_ends_at_its_deadline_and_says_so() {
    let (cluster, _) = cluster().await;
    let index = Index::temporary(&cluster).unwrap();
    let kind = EventKind::RestorePoint as i64;
    let points = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
         INSERT INTO event (timeline, number, lsn, kind, time, label) SELECT 1, i, i, {kind}, i, 'point' FROM n"
    );
    index.connection().execute_batch(&points).unwrap();
    let passed = Instant::now();
    // The second one passes over all rows in one statement.
    for filter in [Filter::default(), of_no_such_relation()] {
        let error = index.events_until(&filter, passed).unwrap_err();
        assert!(
            find::<DeadlineExceeded>(&error).is_some() && !hints(&error).is_empty(),
            "{error:#}"
        );
        // The next search is another one's.
        let whole = index.events(&filter).unwrap();
        assert_eq!(
            index
                .events_until(&filter, passed + Duration::from_secs(3600))
                .unwrap(),
            whole
        );
    }
}

/// Of a search, in instructions of SQLite's.
fn cost(index: &Index, filter: &Filter) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let counting = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    // The first time statements are prepared.
    index.events(filter).unwrap();
    index
        .connection()
        .progress_handler(1, Some(counting))
        .unwrap();
    index.events(filter).unwrap();
    index
        .connection()
        .progress_handler(0, None::<fn() -> bool>)
        .unwrap();
    count.load(Ordering::Relaxed)
}

#[tokio::test]
async fn what_is_not_wanted_is_not_traced() {
    let made = MadeUp::new(seed("cost"), 40);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let everything = Filter {
        all: true,
        ..Filter::default()
    };
    let (all, none) = (
        cost(&index, &everything),
        cost(&index, &of_no_such_relation()),
    );
    assert!(none > 0 && 3 * none < all, "{none} of {all}");
    // That those are drops is known without a trace.
    let truncates = Filter {
        kinds: vec![EventKind::Truncate],
        ..everything
    };
    let none = cost(&index, &truncates);
    assert!(3 * none < all, "{none} of {all}");
}

#[tokio::test]
async fn an_event_is_absent_only_where_all_that_could_hold_it_is_known() {
    let segments = MadeUp::new(seed("absent event"), 12).segments();
    let (cluster, storage) = cluster().await;
    for (_, (name, bytes, summary)) in segments.iter().enumerate().filter(|(at, _)| *at != 6) {
        store(&cluster, *name, bytes, Some(summary)).await;
    }
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    // No record begins within a page's header.
    let id = |number: u64| {
        format!("1-0-{:X}-d16384", number * SIZE + 8)
            .parse::<EventId>()
            .unwrap()
    };
    let absent = |number: u64| match index.event(id(FIRST + number)) {
        Ok(found) => Ok(found.is_none()),
        Err(error) => Err(find::<Unknown>(&error).unwrap().clone()),
    };
    let unknown = |number: u64| Err(Unknown::Segment(segment(1, FIRST + number)));
    let filter = Filter {
        all: true,
        ..Filter::default()
    };
    let told = index.events(&filter).unwrap();
    assert!(
        told.events.is_empty() && !told.state.whole && !told.state.is_complete(),
        "{told:?}"
    );
    assert_eq!(absent(2), unknown(2), "nothing is listed");
    list(&index, &cluster, ListScope::New).await.unwrap();
    let told = index.events(&filter).unwrap().state;
    assert_eq!(
        (told.whole, told.segments, told.not_indexed),
        (true, 11, 11)
    );
    assert_eq!(
        (absent(2), absent(6), absent(40)),
        (unknown(2), Ok(true), Ok(true)),
        "the last two are not archived"
    );
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert!(index.events(&filter).unwrap().state.is_complete());
    assert_eq!((0..12).map(absent).collect::<Vec<_>>(), vec![Ok(true); 12]);
    // Another object lies there now.
    let meta = storage
        .head(
            &cluster
                .layout
                .wal(&WalFileName::Segment(segment(1, FIRST + 3))),
        )
        .await
        .unwrap()
        .unwrap();
    let replaced = Archived {
        name: segment(1, FIRST + 3),
        bytes: meta.size + 1,
        stored_at: meta.modified.into(),
    };
    index.list(&[replaced]).unwrap();
    assert_eq!(
        (absent(3), absent(5)),
        (unknown(3), unknown(3)),
        "what makes an event of a record may lie before it"
    );
    assert!(
        absent(2).is_err() && absent(1) == Ok(true),
        "a record that begins in one may end in the next"
    );
    assert_eq!(absent(6), Ok(true));
    index.give_up(&replaced, "damaged").unwrap();
    assert_eq!(absent(3), unknown(3));
    index.clear().unwrap();
    assert_eq!(absent(40), unknown(40));
}
