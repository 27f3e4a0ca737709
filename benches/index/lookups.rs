//! Questions to the index itself, without service and HTTP.

use std::sync::Arc;

use chrono::DateTime;
use walden::postgres::catalog::{EventKind, Filter, WalIndex};
use walden::postgres::index::update::{ListScope, list};
use walden::postgres::index::{Archived, Index};
use walden::postgres::types::TimelineId;
use walden::storage::MemoryStorage;

use crate::made_up::{LATE, Random, Shape, TIMELINES, name, restore_point, time, xid};
use crate::table::Table;

const LOOKUPS: u64 = 20_000;
/// Of those that give many answers.
const SEARCHES: u64 = 500;
/// Of a million segments, whatever the repository has.
const GAPS: u64 = 1000;
const WITH_GAPS: Shape = Shape {
    each: 1_000_000 / TIMELINES,
};

pub fn look_up(index: &Index, shape: Shape, random: &mut Random, table: &mut Table) {
    let mut place = || {
        let timeline = 1 + random.below(TIMELINES);
        // Where a timeline begins the transactions of the segment before are another's.
        (
            timeline,
            shape.first(timeline) + 1 + random.below(shape.each - 2),
        )
    };
    let line = |timeline: u64| {
        (
            TimelineId(timeline as u32),
            shape.first(timeline),
            shape.end(timeline),
        )
    };
    table.measure("index: first commit after a time", LOOKUPS, || {
        let (timeline, number) = place();
        let (timeline, from, until) = line(timeline);
        // Of the last that may end in the segment before.
        let found = index
            .first_later(timeline, from, until, time(number - 1, 5010), false)
            .expect("an answer");
        assert_eq!(found, Some(number));
    });
    table.measure("index: end of a transaction", LOOKUPS, || {
        let (timeline, number) = place();
        let (timeline, from, until) = line(timeline);
        let told = index
            .ending(xid(number, 4000), timeline, from, until)
            .expect("an answer");
        assert!(told.more.is_none() && told.found.contains(&number));
        let told = index
            .ending(xid(number, LATE - 1), timeline, from, until)
            .expect("an answer");
        assert!(told.more.is_none() && told.found.contains(&(number + 1)));
    });
    table.measure("index: restore point", LOOKUPS, || {
        let (timeline, number) = place();
        let (id, from, until) = line(timeline);
        let number = number / 100 * 100;
        let told = index
            .restore_points(&restore_point((timeline, number)), id, from, until)
            .expect("an answer");
        // Those that are real without being looked into have none.
        assert!(told.more.is_none() && told.found.iter().all(|point| point.segment() == number));
    });
    table.measure("index: commits around a segment", LOOKUPS, || {
        let (timeline, number) = place();
        let (timeline, from, _) = line(timeline);
        index
            .last_commit(timeline, from, number + 1)
            .expect("an answer")
            .expect("a commit");
        index
            .first_commit(timeline, number, number + 1)
            .expect("an answer")
            .expect("a commit");
    });
    table.measure("index: the latest 100 drops", SEARCHES, || {
        let filter = Filter {
            kinds: vec![EventKind::Drop],
            latest: Some(100),
            ..Filter::default()
        };
        // Every fiftieth segment has one, but for the real ones.
        let least = (shape.each * TIMELINES / 100).min(100) as usize;
        assert!(index.events(&filter).expect("an answer").events.len() >= least);
    });
    table.measure("index: which segments are archived", SEARCHES, || {
        assert_eq!(archived(index), shape.each * TIMELINES)
    });
    table.measure("index: how far it is", SEARCHES, || {
        drop(index.state().expect("an answer"))
    });
}

fn archived(index: &Index) -> u64 {
    index
        .ranges()
        .expect("an answer")
        .expect("all were listed")
        .iter()
        .map(|range| range.segments)
        .sum()
}

/// Which segments are archived, where every so many one is missing.
pub fn with_gaps(runtime: &tokio::runtime::Runtime, table: &mut Table) {
    let shape = WITH_GAPS;
    let cluster = runtime.block_on(crate::repository::register(Arc::new(
        MemoryStorage::default(),
    )));
    let index = Arc::new(Index::temporary(&cluster).expect("an index"));
    let every = shape.each * TIMELINES / GAPS;
    for timeline in 1..=TIMELINES {
        let archived = |number| Archived {
            name: name((timeline, number)),
            bytes: 4 << 20,
            stored_at: DateTime::UNIX_EPOCH,
        };
        let there = (shape.first(timeline)..shape.end(timeline))
            .filter(|number| number % every != every / 2);
        index
            .list(&there.map(archived).collect::<Vec<_>>())
            .expect("listed");
    }
    // The repository has nothing to add.
    runtime
        .block_on(list(&index, &cluster, ListScope::New))
        .expect("listed");
    let ranges = index
        .ranges()
        .expect("an answer")
        .expect("all were listed")
        .iter()
        .count() as u64;
    table.measure(
        &format!("index: which segments are archived, in {ranges} ranges"),
        10,
        || {
            assert!(archived(&index) < shape.each * TIMELINES);
        },
    );
}
