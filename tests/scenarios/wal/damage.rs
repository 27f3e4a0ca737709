//! Damaged WAL: what is read is right, and the break is found where it is.

use walden::postgres::types::Lsn;
use walden::postgres::wal::WalStop;

use super::segments::{Seen, Segment, records};
use super::workload;
use crate::harness::{Major, Random};

/// The segments with one bit flipped.
fn flipped(segments: &[Segment], at: usize, bit: u32) -> Vec<Segment> {
    let mut copies: Vec<Segment> = segments
        .iter()
        .map(|segment| Segment {
            start: segment.start,
            bytes: segment.bytes.clone(),
        })
        .collect();
    let size = copies[0].bytes.len();
    copies[at / size].bytes[at % size] ^= 1 << bit;
    copies
}

/// The record that has the byte at `position` among its own: not in a page's header, nor in the gap behind it.
fn owner(whole: &[Seen], position: u64, segment: u64) -> Option<usize> {
    let index = whole.iter().rposition(|seen| seen.lsn.0 <= position)?;
    let header = if position % segment < 8192 { 40 } else { 24 };
    let end = whole.get(index + 1)?.lsn.0;
    (position % 8192 >= header && position + 8 < end).then_some(index)
}

fn assert_found(segments: &[Segment], whole: &[Seen], random: &mut Random) {
    let size = segments[0].bytes.len();
    let at = random.below(segments.len() * size);
    let (seen, stop) = records(&flipped(segments, at, random.below(8) as u32), 1 << 18);
    let position = Lsn(segments[0].start.0 + at as u64);
    assert_eq!(seen, whole[..seen.len()], "a bit flipped at {position}");
    if let Some(index) = owner(whole, position.0, size as u64) {
        let expected = whole[index].lsn;
        assert!(
            seen.len() <= index,
            "the record at {expected} was read with a bit flipped at {position}"
        );
        let WalStop { lsn, why } = stop.expect("a break");
        assert!(
            lsn == expected,
            "{why} at {lsn}, not {expected}, for a bit flipped at {position}"
        );
    }
}

#[test]
fn a_bit_flipped_in_real_wal_is_found_at_its_record() {
    let worked = workload::run(&Major::newest(), 1, "replica");
    let segments = &worked.segments[2..5];
    let (whole, _) = records(segments, 1 << 18);
    assert!(whole.len() > 1000, "only {} records", whole.len());
    let mut random = Random::seeded("damaged WAL");
    for _ in 0..100 {
        assert_found(segments, &whole, &mut random);
    }
}
