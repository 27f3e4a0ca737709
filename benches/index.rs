//! How large and how fast the index is: `WALDEN_BENCH_SEGMENTS` made up segments, a million if not set, on 5 timelines.
//! Prints a table; takes some minutes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use walden::postgres::catalog::{EventKind, Filter, Moments};
use walden::postgres::cluster::{Cluster, describe_server};
use walden::postgres::index::update::{Scope, list};
use walden::postgres::index::{Archived, Index};
use walden::postgres::types::{Lsn, MajorVersion, SegmentName, SegmentSize, SystemIdentifier, TimelineId};
use walden::postgres::wal::{
    Commit, Commits, Ended, Ends, Event, FirstRecord, RelFileLocator, RowCounts, Rows, RowsOf, Summary, Timestamp, What,
};
use walden::repo::Repository;
use walden::storage::MemoryStorage;

const TIMELINES: u64 = 5;
const SIZE: u64 = 16 << 20;
/// Of the server's clock, between two segments.
const SECONDS: i64 = 10;
const LOOKUPS: u64 = 20_000;
/// Of those that give many events.
const SEARCHES: u64 = 500;
const BATCH: u64 = 256;
/// Transactions that end in a segment.
const XIDS: u64 = 5000;

fn main() {
    let segments = std::env::var("WALDEN_BENCH_SEGMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let each = segments / TIMELINES;
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = cluster();
    let index = Index::open(folder.path(), &cluster).expect("an index");
    let before = Instant::now();
    for timeline in 1..=TIMELINES {
        fill(&index, timeline, each);
    }
    let took = before.elapsed().as_secs_f64();
    println!("{segments} segments in {took:.0} s: {:.0} a second", segments as f64 / took);
    println!("{} MiB in files, {} MiB resident", size(folder.path()) >> 20, resident() >> 20);
    drop(index);
    let before = Instant::now();
    let index = Arc::new(Index::open(folder.path(), &cluster).expect("an index"));
    let state = index.state().expect("its state");
    println!("open and state: {:?} ({} segments)", before.elapsed(), state.segments);
    // The repository has nothing to add.
    runtime().block_on(list(&index, &cluster, Scope::New)).expect("listed");
    look_up(&index, each);
    println!("{} MiB resident after lookups", resident() >> 20);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn cluster() -> Cluster {
    runtime().block_on(async {
        let storage = Arc::new(MemoryStorage::default());
        let (repository, _) = Repository::init(storage, DateTime::UNIX_EPOCH).await.expect("a repository");
        let (size, major) = (SegmentSize::new(SIZE as u32).expect("a size"), MajorVersion::new(16).expect("a major"));
        let name = "main".parse().expect("a name");
        let server = describe_server(name, SystemIdentifier(7), size, major, DateTime::UNIX_EPOCH);
        Cluster::register(repository, server).await.expect("a cluster").0
    })
}

/// Each timeline begins where the one before is three quarters through.
fn first(timeline: u64, each: u64) -> u64 {
    1 + (timeline - 1) * each * 3 / 4
}

fn name(timeline: u64, number: u64) -> SegmentName {
    SegmentName::from_number(TimelineId(timeline as u32), number, SegmentSize::new(SIZE as u32).expect("a size"))
}

fn fill(index: &Index, timeline: u64, each: u64) {
    let begin = first(timeline, each);
    for from in (begin..begin + each).step_by(BATCH as usize) {
        let numbers = from..(from + BATCH).min(begin + each);
        let stored_at = DateTime::UNIX_EPOCH;
        let archived = |number| Archived { name: name(timeline, number), bytes: 4 << 20, stored_at };
        index.list(&numbers.clone().map(archived).collect::<Vec<_>>()).expect("listed");
        let summaries = numbers.map(|number| (archived(number), Box::new(summary(timeline, number))));
        index.learn(&summaries.collect::<Vec<_>>()).expect("learned");
    }
}

/// A segment of a busy server: thousands of small transactions, some that began before it, now and then a mass delete, a
/// dropped table, a restore point.
fn summary(timeline: u64, number: u64) -> Summary {
    let start = number * SIZE;
    let lsn = |part: u64| Lsn(start + part * SIZE / 1000 / 8 * 8);
    let time = |part: i64| Timestamp(number as i64 * SECONDS * 1_000_000 + part * 1000);
    let xid = |part: u64| ((number * XIDS + part) as u32).max(3);
    let commit = |part: u64| Commit { lsn: lsn(part), xid: xid(part), time: time(part as i64) };
    let file = |number| RelFileLocator { tablespace: 1663, database: 5, number };
    // Ten transactions began in the segment before.
    let ended = |part: u64| {
        let old = if part < 10 { xid(part).wrapping_sub(XIDS as u32 / 2) } else { xid(part) };
        Ended { xid: old, top: old, lsn: lsn(part), time: time(part as i64), committed: true }
    };
    let rows = |part: u64| {
        let deleted = if part == 0 && number.is_multiple_of(10) { 5000 } else { 1 };
        let commit = (part < 54).then(|| (lsn(part + 20), time(part as i64)));
        RowsOf {
            xid: xid(part + 20),
            file: file(20000 + part as u32),
            counts: RowCounts { deleted, ..RowCounts::default() },
            commit,
        }
    };
    let mut events = Vec::new();
    let mut event = |part: u64, what| events.push(Event { lsn: lsn(part), end: lsn(part + 1), xid: xid(part), what });
    if number.is_multiple_of(50) {
        let files = vec![file(20000 + number as u32)];
        event(
            500,
            What::Dropped { time: time(500), subxids: vec![], relations: vec![files[0].number], files, cut: false },
        );
    }
    if number.is_multiple_of(100) {
        event(600, What::RestorePoint { name: format!("point {number} on {timeline}"), time: time(600) });
    }
    Summary {
        major: MajorVersion::new(16).ok(),
        first_timeline: Some(TimelineId(timeline as u32)),
        timeline: Some(TimelineId(timeline as u32)),
        first: Some(FirstRecord { lsn: lsn(0), prev: Lsn(lsn(999).0 - SIZE) }),
        last: Some(lsn(999)),
        end: Some(Lsn(start + SIZE)),
        records: 100_000,
        commits: Commits {
            count: XIDS,
            first: Some(commit(1)),
            last: Some(commit(998)),
            min_time: Some(time(1)),
            max_time: Some(time(998)),
        },
        ends: Ends { count: XIDS, min_time: Some(time(1)), max_time: Some(time(998)), newest: Some(xid(XIDS - 1)) },
        oldest_ended: (0..128).map(ended).collect(),
        ended_left_out: XIDS - 128,
        rows: Rows { largest: (0..64).map(rows).collect(), left_out: 1000, largest_left_out: 1, newest_open: None },
        events,
        ..Summary::default()
    }
}

fn look_up(index: &Index, each: u64) {
    let mut state = 1u64;
    let mut random = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let mut place = || {
        let timeline = 1 + random(TIMELINES);
        (timeline, first(timeline, each), first(timeline, each) + random(each))
    };
    measure("first commit after a time", LOOKUPS, || {
        let (timeline, from, number) = place();
        let time = Timestamp(number as i64 * SECONDS * 1_000_000);
        let found = index.first_later(TimelineId(timeline as u32), from, u64::MAX, time, false).expect("an answer");
        assert_eq!(found, Some(number));
    });
    measure("end of a transaction", LOOKUPS, || {
        let (timeline, from, number) = place();
        let xid = (number * XIDS + 4000) as u32;
        let until = first(timeline, each) + each;
        let told = index.ending(xid, TimelineId(timeline as u32), from, until).expect("an answer");
        assert!(told.more.is_none() && told.found.contains(&number));
    });
    measure("restore point", LOOKUPS, || {
        let (timeline, from, number) = place();
        let name = format!("point {} on {timeline}", number / 100 * 100);
        let until = first(timeline, each) + each;
        let told = index.restore_points(&name, TimelineId(timeline as u32), from, until).expect("an answer");
        assert!(told.more.is_none());
    });
    measure("commits around a segment", LOOKUPS, || {
        let (timeline, from, number) = place();
        let timeline = TimelineId(timeline as u32);
        index.last_commit(timeline, from, number + 1).expect("an answer").expect("a commit");
        index.first_commit(timeline, number, number + 1).expect("an answer").expect("a commit");
    });
    measure("events of an hour", SEARCHES, || {
        let (_, _, number) = place();
        let since = Timestamp(number as i64 * SECONDS * 1_000_000);
        let until = Timestamp(since.0 + 3_600_000_000);
        let filter = Filter { since: Some(since), until: Some(until), ..Filter::default() };
        index.events(&filter).expect("an answer");
    });
    measure("the latest 100 drops", SEARCHES, || {
        let filter = Filter { kinds: vec![EventKind::Drop], latest: Some(100), ..Filter::default() };
        assert_eq!(index.events(&filter).expect("an answer").events.len(), 100);
    });
    measure("which segments are archived", SEARCHES, || {
        let ranges = index.ranges().expect("an answer").expect("all were listed");
        assert_eq!(ranges.iter().map(|range| range.segments).sum::<u64>(), each * TIMELINES);
    });
    measure("how far it is", SEARCHES, || drop(index.state().expect("an answer")));
}

fn measure(what: &str, count: u64, mut ask: impl FnMut()) {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let before = Instant::now();
            ask();
            before.elapsed()
        })
        .collect();
    times.sort();
    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_micros();
    println!("{what}: median {} us, p99 {} us, longest {} us", at(0.5), at(0.99), times[times.len() - 1].as_micros());
}

fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("the folder");
    files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |meta| meta.len())).sum()
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() << 10
}
