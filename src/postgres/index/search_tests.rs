//! What a search for events costs, and that it ends in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::testing::{MadeUp, cluster};
use super::tests::{indexed, seed, summaries};
use super::*;
use crate::error::{TooLong, find, hints};
use crate::postgres::catalog::{EventKind, Filter};

fn of_no_such_relation() -> Filter {
    Filter { relation: Some("nosuch".into()), all: true, ..Filter::default() }
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
        assert!(find::<TooLong>(&error).is_some() && !hints(&error).is_empty(), "{error:#}");
        // The next search is another one's.
        let whole = index.events(&filter).unwrap();
        assert_eq!(index.events_until(&filter, passed + Duration::from_secs(3600)).unwrap(), whole);
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
    index.connection().progress_handler(1, Some(counting)).unwrap();
    index.events(filter).unwrap();
    index.connection().progress_handler(0, None::<fn() -> bool>).unwrap();
    count.load(Ordering::Relaxed)
}

#[tokio::test]
async fn what_is_not_wanted_is_not_traced() {
    let made = MadeUp::new(seed("cost"), 40);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let everything = Filter { all: true, ..Filter::default() };
    let (all, none) = (cost(&index, &everything), cost(&index, &of_no_such_relation()));
    assert!(none > 0 && 3 * none < all, "{none} of {all}");
    // That those are drops is known without a trace.
    let truncates = Filter { kinds: vec![EventKind::Truncate], ..everything };
    let none = cost(&index, &truncates);
    assert!(3 * none < all, "{none} of {all}");
}
