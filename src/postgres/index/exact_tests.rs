//! What the index says of events where summaries left something out, and of databases.

use super::testing::{
    FIRST, Random, SIZE, assert_same, cluster, indexed, seed, segment, summarize,
};
use super::*;
use crate::postgres::catalog::{EventKind, Filter, FoundEvent, Point, WalIndex};
use crate::postgres::types::Lsn;
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Summary, rmgr};

const TIMELINE: TimelineId = TimelineId(1);
const DELETE: u8 = 0x10;
const ABORT: u8 = 0x20;
const CREATE_BY_COPY: u8 = 0x00;
const CREATE_BY_WAL: u8 = 0x10;
const DROP: u8 = 0x20;

fn words(parts: &[u32]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.to_le_bytes()).collect()
}

fn ends(xid: u32, info: u8) -> Draft {
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info,
        main: 5_000_000i64.to_le_bytes().to_vec(),
        ..Draft::default()
    }
}

/// A commit that drops one file.
fn drops(xid: u32, file: u32) -> Draft {
    let main = [
        5_000_000i64.to_le_bytes().to_vec(),
        words(&[1 << 2, 1, 1663, 5, file]),
    ]
    .concat();
    Draft {
        main,
        info: 0x80,
        ..ends(xid, 0)
    }
}

fn deletes(xid: u32, file: u32) -> Draft {
    Draft {
        xid,
        rmgr: rmgr::HEAP,
        info: DELETE,
        main: vec![0; 8],
        block: Some((file, Vec::new())),
    }
}

fn of_database(xid: u32, info: u8, parts: &[u32]) -> Draft {
    Draft {
        xid,
        rmgr: rmgr::DATABASE,
        info,
        main: words(parts),
        ..Draft::default()
    }
}

fn point(name: &str) -> Draft {
    let mut main = 5_000_000i64.to_le_bytes().to_vec();
    main.extend_from_slice(name.as_bytes());
    main.resize(72, 0);
    Draft {
        rmgr: rmgr::XLOG,
        info: 0x70,
        main,
        ..Draft::default()
    }
}

/// Segments with these records, and where the records begin.
fn written(segments: &[Vec<Draft>]) -> (Vec<(SegmentName, Summary)>, Vec<Vec<u64>>) {
    let mut wal = Writer::new(0xD110, SIZE, FIRST * SIZE);
    let mut lsns = Vec::new();
    for (at, drafts) in segments.iter().enumerate() {
        lsns.push(drafts.iter().map(|draft| wal.write(draft)).collect());
        let last = Draft {
            rmgr: rmgr::XLOG,
            info: 0x40,
            ..Draft::default()
        };
        wal.write(&last);
        wal.bytes.resize((at + 1) * SIZE as usize, 0);
    }
    let whole = wal.bytes.chunks_exact(SIZE as usize).zip(FIRST..);
    (
        whole
            .map(|(bytes, number)| (segment(1, number), summarize(bytes, number)))
            .collect(),
        lsns,
    )
}

fn all() -> Filter {
    Filter {
        all: true,
        ..Filter::default()
    }
}

fn kinds(events: &[FoundEvent]) -> Vec<(EventKind, u32, bool)> {
    events
        .iter()
        .map(|event| (event.kind, event.id.number, event.exact))
        .collect()
}

#[tokio::test]
async fn restore_points_that_a_summary_left_out_are_told_by_their_segment() {
    let (mut segments, lsns) = written(&[
        vec![point("a"), point("b")],
        vec![point("a")],
        vec![point("a")],
    ]);
    assert_eq!(segments[0].1.stop, None);
    segments[0].1.events.truncate(1);
    segments[0].1.events_left_out.restore_points = 1;
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &segments, 2);
    let asked = |name: &str| {
        index
            .restore_points(name, TIMELINE, FIRST, FIRST + 3)
            .unwrap()
            .found
    };
    let told: Vec<(u64, bool)> = asked("a")
        .iter()
        .map(|point| (point.segment(), matches!(point, Point::Named { .. })))
        .collect();
    assert_eq!(told.len(), 4);
    assert!(
        told.contains(&(FIRST, false)) && told[2..] == [(FIRST + 1, true), (FIRST + 2, true)],
        "{told:?}"
    );
    assert_eq!(asked("b"), [Point::Unnamed { segment: FIRST }]);
    assert_eq!(
        index
            .restore_points("b", TIMELINE, FIRST + 1, FIRST + 3)
            .unwrap()
            .found,
        []
    );
    let found = index.events(&Filter::default()).unwrap();
    assert_eq!((found.events.len(), found.overfull_segments), (3, 1));
    assert_eq!(found.events[0].lsn, Lsn(lsns[0][0]));
    let later = Filter {
        since: Some(crate::postgres::wal::Timestamp(i64::MAX)),
        ..Filter::default()
    };
    assert_eq!(
        index.events(&later).unwrap().overfull_segments,
        1,
        "without a time it may be of any"
    );
}

/// Segments that each end some transactions; into the one `at` there crosses the commit of transaction 1000 with
/// subtransactions 1001 to 1200, more than a summary names.
fn crossed_by_many(count: u64, at: u64) -> Vec<(SegmentName, Summary)> {
    let mut wal = Writer::new(0xD110, SIZE, FIRST * SIZE);
    for number in FIRST..FIRST + count {
        let begin = if number < FIRST + at { 500 } else { 1300 };
        for xid in 0..5 {
            wal.write(&ends(begin + 5 * (number - FIRST) as u32 + xid, 0));
        }
        let end = (number + 1) * SIZE;
        while wal.position() + 400 < end {
            let image = if wal.position() + 8400 < end {
                7000
            } else {
                40
            };
            let block = Some((1, vec![1; image]));
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0xB0,
                block,
                ..Draft::default()
            });
        }
        if number + 1 == FIRST + at {
            let subxids: Vec<u32> = (1001..=1200).collect();
            let main = [
                5_000_000i64.to_le_bytes().to_vec(),
                words(&[1 << 1, 200]),
                words(&subxids),
            ]
            .concat();
            wal.write(&Draft {
                main,
                info: 0x80,
                ..ends(1000, 0)
            });
        }
        while wal.position() < end {
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0xB0,
                block: Some((1, vec![1; 40])),
                ..Draft::default()
            });
        }
    }
    let whole = wal.bytes.chunks_exact(SIZE as usize).zip(FIRST..);
    whole
        .take(count as usize)
        .map(|(bytes, n)| (segment(1, n), summarize(bytes, n)))
        .collect()
}

#[tokio::test]
async fn a_segment_into_which_a_commit_of_many_subtransactions_crosses_is_looked_into_for_each() {
    let (cluster, _) = cluster().await;
    let (count, at) = (WINDOW + 4, WINDOW + 2);
    let mut segments = crossed_by_many(count, at);
    assert!(segments.iter().all(|(_, summary)| summary.stop.is_none()));
    let mut random = Random(seed("subtransactions"));
    let expected = indexed(&cluster, &segments, 3).dump();
    for batch in 1..4 {
        let index = indexed(&cluster, &segments, batch);
        assert_same(&expected, &index.dump());
        for xid in 1000..=1200 {
            let found = index
                .ending(xid, TIMELINE, FIRST, FIRST + count)
                .unwrap()
                .found;
            assert_eq!(found, [FIRST + at], "transaction {xid}");
        }
        random.shuffle(&mut segments);
    }
}

#[tokio::test]
async fn a_drop_is_a_guess_where_files_that_its_transaction_made_may_be_left_out() {
    let segments = [
        vec![ends(700, 0)],
        vec![deletes(710, 20000), ends(701, 0)],
        vec![drops(710, 20000)],
        vec![drops(720, 20001)],
    ];
    let (whole, _) = written(&segments);
    let (cluster, _) = cluster().await;
    let told = |segments: &[(SegmentName, Summary)]| {
        let drops = Filter {
            kinds: vec![EventKind::Drop],
            ..all()
        };
        let events = indexed(&cluster, segments, 3)
            .events(&drops)
            .unwrap()
            .events;
        events
            .iter()
            .map(|event| event.exact)
            .collect::<Vec<bool>>()
    };
    assert_eq!(told(&whole), [true, true]);
    for (at, expected) in [
        (0, [true, true]),
        (1, [false, true]),
        (2, [false, true]),
        (3, [true, false]),
    ] {
        let mut short = whole.clone();
        short[at].1.created_left_out = 1;
        assert_eq!(told(&short), expected, "in segment {at}");
    }
    let mut missing = whole.clone();
    missing.remove(1);
    assert_eq!(
        told(&missing),
        [false, true],
        "a file may be made in a segment that is not there"
    );
}

#[tokio::test]
async fn databases_that_were_not_made_or_dropped_are_no_events() {
    let (segments, lsns) = written(&[
        vec![ends(690, 0)],
        // Its commit is in the next segment.
        vec![of_database(700, CREATE_BY_WAL, &[20000, 1663])],
        vec![
            ends(700, 0),
            // Fails.
            of_database(701, CREATE_BY_WAL, &[20001, 1663]),
            of_database(701, DROP, &[20001, 1, 1663]),
            ends(701, ABORT),
            // The same, by copy: what is made is told only when all is copied.
            of_database(702, DROP, &[20002, 1, 1663]),
            ends(702, ABORT),
            // ALTER DATABASE SET TABLESPACE.
            of_database(703, CREATE_BY_COPY, &[20000, 1700, 20000, 1663]),
            ends(703, 0),
            of_database(0, DROP, &[20000, 1, 1663]),
            // From a template with two tablespaces.
            of_database(704, CREATE_BY_COPY, &[20004, 1663, 20000, 1663]),
            of_database(704, CREATE_BY_COPY, &[20004, 1700, 20000, 1700]),
            ends(704, 0),
        ],
        vec![
            of_database(705, DROP, &[20000, 1, 1663]),
            ends(705, 0),
            // Open when the archive ends.
            of_database(706, DROP, &[20004, 1, 1663]),
            of_database(707, CREATE_BY_WAL, &[20007, 1663]),
        ],
    ]);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &segments, 2);
    let mut events = index.events(&all()).unwrap().events;
    events.sort_by_key(|event| event.lsn);
    let (made, dropped) = (EventKind::DatabaseCreate, EventKind::DatabaseDrop);
    let expected = [
        (made, 20000, true),
        (made, 20004, true),
        (dropped, 20000, true),
        (dropped, 20004, false),
    ];
    assert_eq!(kinds(&events), expected);
    let commits: Vec<Option<u64>> = events
        .iter()
        .map(|event| event.commit_lsn.map(|lsn| lsn.0))
        .collect();
    assert_eq!(
        commits,
        [Some(lsns[2][0]), Some(lsns[2][11]), Some(lsns[3][1]), None]
    );
    // Where a segment does not name all that ended in it, the open one may have.
    let mut short = segments.clone();
    short[3].1.ended_left_out = 1;
    short[3].1.ends.newest = Some(708);
    let events = indexed(&cluster, &short, 2).events(&all()).unwrap().events;
    assert!(
        kinds(&events).contains(&(made, 20007, false)),
        "{:?}",
        kinds(&events)
    );
}

#[tokio::test]
async fn rows_are_all_counted_only_if_each_segment_that_left_some_out_lists_the_transaction() {
    let many = |xid: u32| vec![deletes(xid, 20000); 20];
    let last = [many(710), vec![ends(710, 0)]].concat();
    let (mut segments, _) = written(&[
        vec![ends(700, 0)],
        many(710),
        vec![deletes(710, 20000)],
        last,
    ]);
    let (cluster, _) = cluster().await;
    let told = |segments: &[(SegmentName, Summary)]| {
        let events = indexed(&cluster, segments, 3)
            .events(&Filter::default())
            .unwrap()
            .events;
        events
            .iter()
            .map(|event| (event.rows, event.exact))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&segments), [(Some(41), true)]);
    // Two segments left something out and list the transaction.
    segments[1].1.rows.left_out = 3;
    segments[3].1.rows.left_out = 3;
    assert_eq!(told(&segments), [(Some(41), true)]);
    let listed = std::mem::take(&mut segments[2].1.rows.largest);
    segments[2].1.rows.left_out = 1;
    assert_eq!(told(&segments), [(Some(40), false)]);
    // So would a segment before the first rows that are known.
    segments[2].1.rows.largest = listed;
    segments[1].1.rows.largest.clear();
    assert_eq!(told(&segments), [(Some(21), false)]);
    let mut missing = segments.clone();
    missing.remove(1);
    assert_eq!(told(&missing), [(Some(21), false)]);
}

#[tokio::test]
async fn small_changes_are_found_where_the_summary_lists_all() {
    let five = [
        vec![deletes(710, 20000); 5],
        vec![deletes(710, 1259); 5],
        vec![ends(710, 0)],
    ]
    .concat();
    let (mut segments, _) = written(&[vec![ends(700, 0)], five]);
    let (cluster, _) = cluster().await;
    let told = |segments: &[(SegmentName, Summary)], filter: &Filter| {
        let events = indexed(&cluster, segments, 1)
            .events(filter)
            .unwrap()
            .events;
        events
            .iter()
            .map(|event| (event.file.unwrap().number, event.rows))
            .collect::<Vec<_>>()
    };
    let few = Filter {
        min_rows: Some(1),
        ..Filter::default()
    };
    assert_eq!(told(&segments, &Filter::default()), []);
    assert_eq!(told(&segments, &few), [(20000, Some(5))]);
    assert_eq!(told(&segments, &all()), [(20000, Some(5))]);
    assert_eq!(
        told(
            &segments,
            &Filter {
                min_rows: Some(6),
                ..all()
            }
        ),
        []
    );
    segments[1].1.rows.left_out = 1;
    assert_eq!(told(&segments, &few), []);
}
