//! Summaries tell the ends of transactions, and which are open.

use super::super::testing::Writer;
use super::*;
use crate::postgres::types::Lsn;

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
