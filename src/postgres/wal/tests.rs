use proptest::prelude::*;

use super::testing::{Draft, PAGE, Writer};
use super::*;
use crate::postgres::types::{Lsn, SegmentSize};

pub(super) const SEGMENT: u64 = 1 << 20;
pub(super) const START: u64 = 5 * SEGMENT;
const MAGICS: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];
pub(super) const HEAP: u8 = rmgr::HEAP;

/// A record as it was seen: LSN, xid, whole length, end.
type Seen = (u64, u32, u32, u64);

/// What decoding in pieces of one size gives.
fn decode(bytes: &[u8], piece: usize) -> (Vec<Seen>, Option<WalStop>, Option<Tail>) {
    let mut decoder = Decoder::new(Lsn(START));
    let mut seen = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        decoder.push(piece, |record| {
            let _ = read_fact(record);
            seen.push((
                record.lsn.0,
                record.header.xid,
                record.header.total_length,
                record.end.0,
            ));
        });
    }
    let tail = decoder.finish();
    (seen, decoder.stopped().cloned(), tail)
}

pub(super) fn insert(xid: u32, length: usize) -> Draft {
    Draft {
        xid,
        rmgr: HEAP,
        info: 0,
        main: vec![0; 3],
        block: Some((16384, vec![9; length])),
    }
}

pub(super) fn commit(xid: u32, time: i64) -> Draft {
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0,
        main: time.to_le_bytes().to_vec(),
        block: None,
    }
}

pub(super) fn writer() -> Writer {
    Writer::new(0xD110, SEGMENT, START)
}

pub(super) fn summarize(bytes: &[u8], start: u64) -> Summary {
    let mut summarizer = Summarizer::new(Lsn(start), SegmentSize::new(SEGMENT as u32).unwrap());
    bytes
        .chunks(10_000)
        .for_each(|piece| summarizer.push(piece));
    summarizer.finish()
}

/// The summary of each segment.
pub(super) fn summaries(bytes: &[u8]) -> Vec<Summary> {
    let segments = bytes.chunks(SEGMENT as usize).enumerate();
    segments
        .map(|(index, segment)| summarize(segment, START + index as u64 * SEGMENT))
        .collect()
}

/// What a server says at its start.
fn parameters(wal_level: u32) -> Draft {
    let main = [100, 8, 10, 0, 64, wal_level, 0]
        .iter()
        .flat_map(|value: &u32| value.to_le_bytes())
        .collect();
    Draft {
        rmgr: rmgr::XLOG,
        info: 0x60,
        main,
        ..Draft::default()
    }
}

#[test]
fn no_recovery_gets_past_where_wal_becomes_minimal() {
    let mut wal = writer();
    wal.write(&parameters(1));
    wal.write(&commit(3, 7));
    let minimal = wal.write(&parameters(0));
    wal.write(&parameters(1));
    wal.write(&commit(4, 8));
    wal.fill();
    let summary = summarize(&wal.bytes, START);
    assert_eq!(
        summary.stop,
        Some(WalStop {
            lsn: Lsn(minimal),
            why: StopReason::Minimal
        })
    );
    assert_eq!(
        (summary.commits.count, summary.end),
        (1, Some(Lsn(minimal)))
    );
}

#[test]
fn no_recovery_gets_past_a_segments_end_where_wal_becomes_minimal() {
    let mut wal = writer();
    // A commit takes 40 bytes, and this record more than 50.
    while START + SEGMENT - wal.position().next_multiple_of(8) > 48 {
        wal.write(&commit(3, 7));
    }
    let minimal = wal.write(&parameters(0));
    assert!(wal.position() > START + SEGMENT, "it crosses");
    wal.write(&commit(4, 8));
    wal.fill();
    let [earlier, later] = summaries(&wal.bytes).try_into().expect("two segments");
    let boundary = join(&earlier, earlier.tail.as_ref(), &later);
    assert_eq!(
        boundary,
        Err(WalStop {
            lsn: Lsn(minimal),
            why: StopReason::Minimal
        })
    );
}

#[test]
fn zeros_behind_the_last_record_are_where_wal_ends() {
    let mut wal = writer();
    wal.write(&insert(3, 100));
    let last = wal.write(&commit(3, 7));
    let end = wal.position().next_multiple_of(8);
    wal.fill();
    let (seen, stop, tail) = decode(&wal.bytes, 8192);
    assert_eq!(
        seen.iter().map(|seen| seen.0).collect::<Vec<u64>>(),
        [START + 40, last]
    );
    assert_eq!(
        (stop, tail),
        (
            Some(WalStop {
                lsn: Lsn(end),
                why: StopReason::ZeroLength
            }),
            None
        )
    );
}

#[test]
fn a_recycled_page_is_no_wal() {
    let mut wal = writer();
    let mut recycled = Writer::new(0xD110, SEGMENT, START - SEGMENT);
    for xid in 0..200 {
        wal.write(&insert(xid, 200));
        recycled.write(&insert(xid, 200));
    }
    let page = 2 * PAGE as usize;
    wal.bytes.truncate(page);
    wal.bytes.extend_from_slice(&recycled.bytes[page..]);
    let (_, stop, _) = decode(&wal.bytes, 8192);
    let stop = stop.unwrap();
    assert_eq!(
        stop.why,
        StopReason::Address(Lsn(START - SEGMENT + 2 * PAGE))
    );
    assert!(stop.lsn < Lsn(START + 2 * PAGE), "{stop}");
}

#[test]
fn a_switch_skips_the_rest_of_its_segment() {
    let mut wal = writer();
    let switch = wal.write(&Draft {
        info: 0x40,
        ..Draft::default()
    });
    wal.fill();
    let after = wal.write(&commit(4, 0));
    let (seen, stop, _) = decode(&wal.bytes[..SEGMENT as usize + 64], 100_000);
    assert_eq!(seen[0], (switch, 0, 24, START + SEGMENT));
    assert_eq!(
        stop.map(|stop| stop.why),
        Some(StopReason::PageCut { bytes: 64 }),
        "{after}"
    );
    let summary = summarize(&wal.bytes[..SEGMENT as usize], START);
    assert!(summary.switched && summary.stop.is_none());
}

#[test]
fn a_record_lost_in_a_crash_is_void() {
    let mut wal = writer();
    wal.write(&insert(3, 100));
    let lost = wal.lose(&insert(4, 40_000), 20_000);
    wal.write(&commit(5, 1));
    wal.fill();
    let (seen, _, _) = decode(&wal.bytes, 8192);
    assert_eq!(
        seen.iter().map(|seen| seen.1).collect::<Vec<u32>>(),
        [3, 0, 5]
    );
    let summary = summarize(&wal.bytes, START);
    assert_eq!(
        summary.events[0].what,
        EventDetail::Overwritten { lost: Lsn(lost) }
    );
}

#[test]
fn a_record_may_be_lost_at_the_end_of_a_segment() {
    let mut wal = writer();
    while wal.position() < START + SEGMENT - 3000 {
        wal.write(&insert(3, 900));
    }
    let lost = wal.lose(&insert(4, 40_000), 20_000);
    wal.write(&commit(5, 1));
    wal.fill();
    let [earlier, later] = &summaries(&wal.bytes)[..] else {
        panic!("two segments")
    };
    assert_eq!(earlier.tail.as_ref().unwrap().lsn, Lsn(lost));
    assert_eq!(
        join(earlier, earlier.tail.as_ref(), later),
        Ok(Boundary::Clean)
    );
}

#[test]
fn a_record_longer_than_is_kept_is_checked_and_cut() {
    let mut wal = writer();
    let subxids: Vec<u8> = (0..1_500_000u32)
        .flat_map(|xid| (xid + 100).to_le_bytes())
        .collect();
    let count = 1_500_000u32.to_le_bytes();
    let main = [
        &9i64.to_le_bytes()[..],
        &2u32.to_le_bytes(),
        &count,
        &subxids,
    ]
    .concat();
    wal.write(&Draft {
        xid: 99,
        rmgr: rmgr::TRANSACTION,
        info: 0x80,
        main,
        block: None,
    });
    wal.fill();
    let summary = summarize(&wal.bytes, START);
    assert_eq!(
        (summary.commits.count, summary.commits.max_time),
        (1, Some(Timestamp(9)))
    );
    let middle = wal.bytes.len() / 2 + 1000;
    wal.bytes[middle] ^= 1;
    let damaged = summarize(&wal.bytes, START);
    assert!(
        matches!(
            damaged.stop,
            Some(WalStop {
                why: StopReason::Checksum { .. },
                ..
            })
        ),
        "{:?}",
        damaged.stop
    );
    wal.bytes[middle] ^= 1;
    assert_joins(&wal.bytes);
}

#[test]
fn counts_are_cut_aloud() {
    let mut wal = writer();
    for xid in 10..40_010 {
        let draft = Draft {
            xid,
            rmgr: HEAP,
            info: 0x10,
            main: vec![0; 8],
            block: Some((xid, vec![])),
        };
        for _ in 0..if xid == 20 { 5 } else { 1 } {
            wal.write(&draft);
        }
    }
    wal.write(&commit(20, 1));
    wal.fill();
    let rows = summarize(&wal.bytes, START).rows;
    assert_eq!(
        (rows.largest[0].xid, rows.largest[0].counts.deleted),
        (20, 5)
    );
    assert_eq!(rows.largest[0].commit.unwrap().1, Timestamp(1));
    assert_eq!(
        (
            rows.largest_left_out,
            rows.largest.len() as u64 + rows.left_out
        ),
        (1, 40_000)
    );
}

/// Joined segment by segment, the summaries tell what decoding it all at once tells.
fn assert_joins(bytes: &[u8]) {
    let whole = summarize(bytes, START);
    let segments = summaries(bytes);
    let mut records: u64 = segments.iter().map(|summary| summary.records).sum();
    let mut commits: u64 = segments.iter().map(|summary| summary.commits.count).sum();
    let mut inserted: u64 = segments.iter().map(inserted).sum();
    let mut tail = segments[0].tail.clone();
    for pair in segments.windows(2) {
        match join(&pair[0], tail.as_ref(), &pair[1]).unwrap_or_else(|stop| panic!("{stop}")) {
            Boundary::GoesOn(longer) => tail = Some(longer),
            Boundary::Clean => tail = pair[1].tail.clone(),
            Boundary::Crossed(crossed) => {
                records += crossed.records;
                commits += crossed.commits.count;
                inserted += self::inserted(&crossed);
                tail = pair[1].tail.clone();
            }
        }
    }
    assert_eq!(
        (records, commits, inserted),
        (whole.records, whole.commits.count, self::inserted(&whole))
    );
    let json = serde_json::to_string(&segments).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Summary>>(&json).unwrap(),
        segments
    );
}

/// Rows inserted; what does not fit is one row each here.
fn inserted(summary: &Summary) -> u64 {
    summary
        .rows
        .largest
        .iter()
        .map(|rows| rows.counts.inserted)
        .sum::<u64>()
        + summary.rows.left_out
}

/// Records of all sizes: within a page, across pages, across segments.
fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let length = prop_oneof![8 => 0usize..300, 3 => 300usize..9000, 1 => 9000usize..60_000];
    let draft = (1u32..50, length, any::<bool>()).prop_map(|(xid, length, ends)| match ends {
        true if length < 150 => commit(xid, length as i64),
        _ => insert(xid, length),
    });
    prop::collection::vec(draft, 1..150)
}

fn write(drafts: &[Draft], magic: u16) -> (Vec<u8>, Vec<u64>) {
    let mut wal = Writer::new(magic, SEGMENT, START);
    let lsns = drafts.iter().map(|draft| wal.write(draft)).collect();
    wal.fill();
    (wal.bytes, lsns)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_found_in_pieces_of_any_size(
        drafts in drafts(), major in 0usize..6, piece in prop_oneof![1usize..100, 8000usize..9000, Just(1 << 18)],
    ) {
        let (bytes, lsns) = write(&drafts, MAGICS[major]);
        let (seen, stop, _) = decode(&bytes, piece);
        prop_assert_eq!(seen.iter().map(|seen| seen.0).collect::<Vec<u64>>(), lsns);
        prop_assert!(seen.iter().zip(&drafts).all(|(seen, draft)| seen.1 == draft.xid));
        let ended = stop.is_some_and(|stop| matches!(stop.why, StopReason::ZeroPage | StopReason::ZeroLength | StopReason::PageCut { .. }));
        prop_assert!(ended);
    }

    #[test]
    fn summaries_of_segments_join_to_that_of_all(lengths in prop::collection::vec(prop_oneof![20usize..3000, 3000usize..60_000], 60..200)) {
        let drafts: Vec<Draft> = lengths
            .iter()
            .enumerate()
            .flat_map(|(index, length)| [insert(index as u32 % 20 + 3, *length), commit(index as u32 % 20 + 3, 1)])
            .collect();
        assert_joins(&write(&drafts, 0xD116).0);
    }

    #[test]
    fn a_flipped_bit_is_found_at_the_record_that_has_it(drafts in drafts(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut bytes, lsns) = write(&drafts, 0xD113);
        let (before, _, _) = decode(&bytes, 1 << 18);
        let used = (before.last().unwrap().3 - START) as usize;
        let at = at.index(used);
        bytes[at] ^= 1 << bit;
        let (seen, stop, tail) = decode(&bytes, 1 << 18);
        prop_assert_eq!(&seen[..], &before[..seen.len()], "only records that were there");
        let position = START + at as u64;
        let within = lsns.iter().rposition(|lsn| *lsn <= position);
        let in_page_header = position % PAGE < if position % SEGMENT < PAGE { 40 } else { 24 };
        if let Some(index) = within && !in_page_header {
            let padding = lsns[index] + u64::from(before[index].2) <= position && before[index].3 - position < 8;
            if !padding {
                prop_assert!(seen.len() <= index);
                let found = stop.map(|stop| stop.lsn).or(tail.map(|tail| tail.lsn));
                prop_assert_eq!(found, Some(Lsn(lsns[index])));
            }
        }
    }

    #[test]
    fn wal_cut_off_anywhere_gives_what_lies_before(drafts in drafts(), at in any::<prop::sample::Index>()) {
        let (bytes, _) = write(&drafts, 0xD118);
        let (before, _, _) = decode(&bytes, 1 << 18);
        let length = at.index(bytes.len());
        let (seen, _, tail) = decode(&bytes[..length], 9999);
        let whole_pages = START + (length as u64 / PAGE) * PAGE;
        let expected = before.iter().take_while(|seen| seen.3 <= whole_pages).count();
        prop_assert!(seen.len() >= expected && seen[..] == before[..seen.len()], "{} of {}", seen.len(), expected);
        prop_assert!(tail.is_none_or(|tail| before.iter().any(|seen| seen.0 == tail.lsn.0)));
    }

    #[test]
    fn no_content_of_a_record_makes_anything_panic(
        xid in any::<u32>(), rmgr in 0u8..12, info in any::<u8>(), main in prop::collection::vec(any::<u8>(), 0..400),
        length in prop_oneof![Just(0usize), 1usize..20_000], major in 0usize..6,
    ) {
        let mut wal = Writer::new(MAGICS[major], SEGMENT, START);
        let draft = Draft { xid, rmgr, info, main, block: Some((1, vec![1; length])) };
        for _ in 0..3 {
            wal.write(&draft);
        }
        wal.fill();
        let summary = summarize(&wal.bytes, START);
        let is_minimal = summary.stop.is_some_and(|stop| stop.why == StopReason::Minimal);
        prop_assert!(summary.records == 3 || summary.switched || is_minimal);
    }

    #[test]
    fn no_parts_of_a_record_make_anything_panic(
        rmgr in 0u8..12, info in any::<u8>(), body in prop::collection::vec(prop_oneof![0u8..3, any::<u8>()], 0..80), major in 0usize..6,
    ) {
        let mut wal = Writer::new(MAGICS[major], SEGMENT, START);
        let lsn = wal.write_body(&Draft { rmgr, info, ..Draft::default() }, &body);
        wal.fill();
        let (seen, stop, _) = decode(&wal.bytes, 8192);
        let refused = stop.is_some_and(|stop| stop.lsn == Lsn(lsn) && matches!(stop.why, StopReason::Parts | StopReason::Minimal));
        prop_assert!(refused != (seen.len() == 1));
    }

    #[test]
    fn no_bytes_make_anything_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..20_000), whole in any::<bool>()) {
        if whole && bytes.len() > 40 {
            let mut wal = writer();
            wal.write(&Draft::default());
            bytes[..40].copy_from_slice(&wal.bytes[..40]);
        }
        let (seen, _, _) = decode(&bytes, 5000);
        prop_assert!(seen.is_empty());
    }
}
