//! What summaries say of the ends of transactions and of files, and how they are kept small.

use proptest::prelude::*;

use super::testing::{Draft, Writer};
use super::tests::{HEAP, SEGMENT, START, commit, insert, summaries, summarize, writer};
use super::*;
use crate::postgres::types::Lsn;

fn end(xid: u32, time: i64, info: u8, subxids: &[u32]) -> Draft {
    let mut main = time.to_le_bytes().to_vec();
    main.extend_from_slice(&2u32.to_le_bytes());
    main.extend_from_slice(&(subxids.len() as u32).to_le_bytes());
    subxids
        .iter()
        .for_each(|xid| main.extend_from_slice(&xid.to_le_bytes()));
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x80 | info,
        main,
        block: None,
    }
}

fn abort(xid: u32, time: i64) -> Draft {
    Draft {
        info: 0x20,
        ..commit(xid, time)
    }
}

fn file(number: u32) -> RelFileLocator {
    RelFileLocator {
        tablespace: 1663,
        database: 5,
        number,
    }
}

fn created(xid: u32, number: u32) -> Draft {
    let main = [1663, 5, number, 0]
        .iter()
        .flat_map(|field: &u32| field.to_le_bytes())
        .collect();
    Draft {
        xid,
        rmgr: rmgr::STORAGE,
        info: 0x10,
        main,
        block: None,
    }
}

fn row(xid: u32, number: u32) -> Draft {
    Draft {
        xid,
        rmgr: HEAP,
        info: 0,
        main: vec![0; 3],
        block: Some((number, vec![])),
    }
}

fn page(xid: u32, number: u32) -> Draft {
    Draft {
        xid,
        rmgr: rmgr::XLOG,
        info: 0xB0,
        main: vec![],
        block: Some((number, vec![1; 50])),
    }
}

/// The summary of a segment with these records.
fn summary_of(drafts: &[Draft]) -> Summary {
    let mut wal = writer();
    for draft in drafts {
        wal.write(draft);
    }
    wal.fill();
    summarize(&wal.bytes, START)
}

#[test]
fn a_rollback_is_an_end_too() {
    let summary = summary_of(&[
        commit(7, 100),
        abort(8, 300),
        end(9, 50, 0x20, &[]),
        commit(6, 200),
    ]);
    assert_eq!(
        (summary.commits.count, summary.commits.max_time),
        (2, Some(Timestamp(200)))
    );
    let times = (Some(Timestamp(50)), Some(Timestamp(300)));
    assert_eq!(
        (
            summary.ends.count,
            (summary.ends.min_time, summary.ends.max_time)
        ),
        (4, times)
    );
    assert_eq!(summary.ends.newest, Some(9));
    let oldest: Vec<(u32, bool)> = summary
        .oldest_ended
        .iter()
        .map(|ended| (ended.xid, ended.committed))
        .collect();
    assert_eq!(
        (oldest, summary.ended_left_out),
        (vec![(6, true), (7, true), (8, false), (9, false)], 0)
    );
}

#[test]
fn a_subtransaction_ends_with_its_transaction() {
    let summary = summary_of(&[end(20, 1, 0, &[21, 25]), abort(22, 2)]);
    let oldest: Vec<(u32, u32)> = summary
        .oldest_ended
        .iter()
        .map(|ended| (ended.xid, ended.top))
        .collect();
    assert_eq!(oldest, [(20, 20), (21, 20), (22, 22), (25, 20)]);
    assert_eq!((summary.ends.count, summary.ends.newest), (2, Some(25)));
}

#[test]
fn the_oldest_ends_are_named_also_where_numbers_go_round() {
    let xids: Vec<u32> = (0..300)
        .map(|n: u32| 100u32.wrapping_sub(150).wrapping_add(n * 7 % 300))
        .collect();
    let drafts: Vec<Draft> = xids
        .iter()
        .filter(|xid| **xid > 2)
        .map(|xid| commit(*xid, 1))
        .collect();
    let summary = summary_of(&drafts);
    let mut expected: Vec<u32> = xids.into_iter().filter(|xid| *xid > 2).collect();
    expected.sort_by_key(|xid| xid.wrapping_add(1000));
    assert_eq!(
        summary
            .oldest_ended
            .iter()
            .map(|ended| ended.xid)
            .collect::<Vec<u32>>(),
        expected[..ENDED]
    );
    assert_eq!(summary.ends.newest, expected.last().copied());
    assert_eq!(summary.ended_left_out as usize + ENDED, expected.len());
}

#[test]
fn each_part_tells_which_ends_begin_in_it() {
    let mut wal = writer();
    wal.write(&end(20, 300, 0, &[15, 31]));
    wal.write(&abort(25, 400));
    let until = |wal: &mut Writer, position: u64| {
        while wal.position() + 400 < position {
            wal.write(&insert(4, 100));
        }
    };
    until(&mut wal, START + SEGMENT / 2);
    let many: Vec<u32> = (40..300).collect();
    let lsn = wal.write(&end(39, 350, 0, &many));
    assert!(
        lsn < START + SEGMENT / 2 && wal.position() > START + SEGMENT / 2,
        "the record crosses"
    );
    wal.write(&end(u32::MAX, 360, 0, &[5]));
    until(&mut wal, START + SEGMENT);
    wal.write(&end(9, 900, 0, &many));
    wal.fill();
    let parts: Vec<_> = summaries(&wal.bytes)
        .into_iter()
        .map(|summary| summary.part_ends)
        .collect();
    let expected = serde_json::json!([[[400, 15, 299], [360, u32::MAX, 5]], [null, null]]);
    assert_eq!(serde_json::to_value(&parts).unwrap(), expected);
    let [Some(first), Some(second)] = parts[0][..] else {
        panic!("{parts:?}")
    };
    assert_eq!(
        [14, 15, 22, 299, 300].map(|xid| first.may_hold(xid)),
        [false, true, true, true, false]
    );
    assert_eq!(
        [u32::MAX - 1, u32::MAX, 3, 6].map(|xid| second.may_hold(xid)),
        [false, true, true, false]
    );
}

#[test]
fn what_fills_a_file_is_its_own_transaction() {
    let made = summary_of(&[
        created(10, 1),
        created(10, 2),
        created(10, 3),
        created(11, 4),
        row(10, 1),
        page(10, 2),
        row(12, 9),
        commit(10, 1),
        row(12, 3),
        page(12, 4),
    ]);
    let created: Vec<(u32, bool, bool)> = made
        .created
        .iter()
        .map(|created| (created.file.number, created.filled, created.pages))
        .collect();
    // Nobody but its own transaction writes to a file of a transaction that is open.
    assert_eq!(
        created,
        [
            (1, true, false),
            (2, true, true),
            (3, false, false),
            (4, true, true)
        ]
    );
    assert_eq!(made.created[0].file, file(1));
}

#[test]
fn a_short_summary_stays_as_it_is() {
    let summary = summary_of(&[created(10, 1), row(10, 1), commit(10, 1), abort(11, 2)]);
    let mut fitted = summary.clone();
    fitted.truncate_to(STORED);
    assert_eq!(fitted, summary);
}

#[test]
fn a_record_that_crosses_is_in_neither_summary_but_in_what_joins_them() {
    let mut wal = Writer::new(0xD110, SEGMENT, START);
    let early = wal.write(&commit(3, 1));
    while wal.position() < START + SEGMENT - 1000 {
        wal.write(&insert(4, 100));
    }
    let subxids: Vec<u32> = (100..1500).collect();
    let crossing = wal.write(&end(4, 2, 0, &subxids));
    wal.write(&abort(5, 3));
    wal.fill();
    let [earlier, later] = &summaries(&wal.bytes)[..] else {
        panic!("two segments")
    };
    assert_eq!(
        (
            earlier.commits.first.unwrap().lsn,
            earlier.ends.count,
            later.ends.count
        ),
        (Lsn(early), 1, 1)
    );
    let Ok(Boundary::Crossed(crossed)) = join(earlier, earlier.tail.as_ref(), later) else {
        panic!("a record crosses")
    };
    assert_eq!(
        (crossed.ends.count, crossed.oldest_ended[0].lsn),
        (1, Lsn(crossing))
    );
}

/// Commits that drop many files of many relations.
fn dropping(xid: u32, files: usize) -> Draft {
    let mut main = 7i64.to_le_bytes().to_vec();
    main.extend_from_slice(&4u32.to_le_bytes());
    main.extend_from_slice(&(files as u32).to_le_bytes());
    (0..files as u32 * 3).for_each(|field| main.extend_from_slice(&(field + 16384).to_le_bytes()));
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x80,
        main,
        block: None,
    }
}

fn prepared(xid: u32) -> Draft {
    let mut main = vec![0; 76];
    main[..4].copy_from_slice(&0x57F9_4534u32.to_le_bytes());
    main[8..12].copy_from_slice(&xid.to_le_bytes());
    (main[54], main[72]) = (2, b'g');
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x10,
        main,
        block: None,
    }
}

fn point(name: &str) -> Draft {
    let mut main = 7i64.to_le_bytes().to_vec();
    main.extend_from_slice(name.as_bytes());
    main.resize(72, 0);
    Draft {
        rmgr: rmgr::XLOG,
        info: 0x70,
        main,
        ..Draft::default()
    }
}

#[test]
fn what_nobody_looks_for_takes_no_room_from_what_somebody_does() {
    let dropped_database = Draft {
        rmgr: rmgr::DATABASE,
        info: 0x20,
        ..created(3000, 9)
    };
    let mut drafts: Vec<Draft> = (100..1000).map(prepared).collect();
    drafts.extend((0..600).map(|number| point(&format!("p{number}"))));
    drafts.extend([
        dropping(2000, 1),
        Draft {
            main: [9u32, 0].map(u32::to_le_bytes).concat(),
            ..dropped_database
        },
    ]);
    let mut summary = summary_of(&drafts);
    let left_out = EventOverflow {
        restore_points: 600 - EVENTS as u64,
        others: 900 - EVENTS as u64 / 4,
        ..EventOverflow::default()
    };
    assert_eq!(summary.events_left_out, left_out);
    let has = |summary: &Summary, wanted: fn(&EventDetail) -> bool| {
        summary.events.iter().any(|event| wanted(&event.what))
    };
    summary.truncate_to(45_000);
    assert_eq!(summary.events_left_out.others, 900, "they go first");
    assert!(has(&summary, |what| matches!(
        what,
        EventDetail::FilesRemoved { cut: false, .. }
    )));
    assert!(has(&summary, |what| matches!(
        what,
        EventDetail::DatabaseDropped { database: 9 }
    )));
    assert!(has(
        &summary,
        |what| matches!(what, EventDetail::RestorePoint { name, .. } if name == "p0")
    ));
}

#[test]
fn a_database_that_is_moved_is_not_made() {
    let by_copy = |parts: [u32; 4]| {
        let main = parts.map(u32::to_le_bytes).concat();
        Draft {
            xid: 10,
            rmgr: rmgr::DATABASE,
            main,
            ..Draft::default()
        }
    };
    let summary = summary_of(&[
        by_copy([20000, 1700, 20000, 1663]),
        by_copy([20001, 1663, 1, 1663]),
    ]);
    let what: Vec<&EventDetail> = summary.events.iter().map(|event| &event.what).collect();
    let moved = EventDetail::DatabaseMoved {
        database: 20000,
        tablespace: 1700,
    };
    assert_eq!(
        what,
        [
            &moved,
            &EventDetail::DatabaseCreated {
                database: 20001,
                tablespace: 1663
            }
        ]
    );
}

fn tablespace(info: u8, oid: u32, location: &str) -> Draft {
    let main = [&oid.to_le_bytes()[..], location.as_bytes(), &[0]].concat();
    Draft {
        xid: 7,
        rmgr: rmgr::TABLESPACE,
        info,
        main,
        block: None,
    }
}

#[test]
fn a_tablespace_made_outside_is_told_with_its_place() {
    let in_place = tablespace(0, 17000, "");
    let dropped = Draft {
        main: 16390u32.to_le_bytes().to_vec(),
        ..tablespace(0x10, 0, "")
    };
    let summary = summary_of(&[tablespace(0, 16390, "/srv/a b"), in_place, dropped]);
    let told: Vec<(u32, &str)> = summary
        .tablespaces
        .made
        .iter()
        .map(|one| (one.oid, &*one.location))
        .collect();
    assert_eq!((told, summary.unreadable), (vec![(16390, "/srv/a b")], 0));
    let many: Vec<Draft> = (0..40).map(|n| tablespace(0, 20000 + n, "/srv")).collect();
    let summary = summary_of(&many).tablespaces;
    assert_eq!(summary.made.len() as u64 + summary.left_out, 40);
    assert!(summary.left_out > 0);
}

#[test]
fn a_tablespace_whose_record_crosses_is_told_by_what_joins_the_segments() {
    for location in ["/srv/fast".to_string(), format!("/srv/{}", "x".repeat(900))] {
        let mut wal = writer();
        while wal.position() + 200 < START + SEGMENT {
            wal.write(&insert(4, 100));
        }
        while wal.position() + 40 < START + SEGMENT {
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0x20,
                main: vec![0],
                ..Draft::default()
            });
        }
        wal.write(&tablespace(0, 16390, &location));
        wal.fill();
        let parts = summaries(&wal.bytes);
        assert!(
            parts[0].tail.is_some() && parts.iter().all(|part| part.tablespaces.made.is_empty())
        );
        let Ok(Boundary::Crossed(crossing)) = join(&parts[0], parts[0].tail.as_ref(), &parts[1])
        else {
            panic!()
        };
        let [made] = &crossing.tablespaces.made[..] else {
            panic!("{crossing:?}")
        };
        assert_eq!(made.oid, 16390);
        assert!(
            location.starts_with(&made.location) && made.location.starts_with("/srv/"),
            "{}",
            made.location
        );
    }
}

#[test]
fn a_summary_that_does_not_tell_of_tablespaces_is_none() {
    let mut json = serde_json::to_value(summary_of(&[])).unwrap();
    assert!(serde_json::from_value::<Summary>(json.clone()).is_ok());
    json.as_object_mut().unwrap().remove("tablespaces");
    assert!(
        serde_json::from_value::<Summary>(json).is_err(),
        "it is made anew of the content"
    );
}

#[test]
fn the_newest_open_transaction_is_told_though_its_rows_are_left_out() {
    let many = (100..300).flat_map(|xid| {
        vec![
            Draft {
                info: 0x10,
                main: vec![0; 8],
                ..row(xid, 1)
            };
            3
        ]
    });
    let drafts: Vec<Draft> = many
        .chain([row(900, 1), row(901, 1), commit(901, 1)])
        .collect();
    let rows = summary_of(&drafts).rows;
    assert!(
        rows.largest.iter().all(|rows| rows.xid < 300),
        "{:?}",
        rows.largest
    );
    assert_eq!(rows.newest_open, Some(900));
}

/// What a summary says, and what it says that it does not: both together stay the same.
fn totals(summary: &Summary) -> [u64; 4] {
    [
        summary.events.len() as u64 + summary.events_left_out.total(),
        summary.created.len() as u64 + summary.created_left_out,
        summary.rows.largest.len() as u64 + summary.rows.left_out,
        summary.oldest_ended.len() as u64 + summary.ended_left_out,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_summary_can_be_made_to_fit(
        drops in prop::collection::vec(0usize..400, 0..300), files in 0u32..800, ends in 0u32..500, most in 8_000usize..80_000,
    ) {
        let drops = drops.iter().zip(1000..).map(|(files, xid)| dropping(xid, *files));
        let made = (0..files).flat_map(|number| [created(3, number), row(number + 3, number)]);
        let drafts: Vec<Draft> = made.chain(drops).chain((0..ends).map(|xid| commit(5000 + xid, 1))).collect();
        let mut wal = writer();
        for draft in &drafts {
            wal.write(draft);
        }
        wal.fill();
        for summary in summaries(&wal.bytes) {
            let mut fitted = summary.clone();
            fitted.truncate_to(most);
            let json = serde_json::to_vec(&fitted).unwrap();
            prop_assert!(json.len() <= most, "{} of {most}", json.len());
            prop_assert_eq!(totals(&fitted), totals(&summary));
            prop_assert_eq!(&serde_json::from_slice::<Summary>(&json).unwrap(), &fitted);
            prop_assert_eq!((fitted.ends, fitted.commits), (summary.ends, summary.commits));
        }
    }
}
