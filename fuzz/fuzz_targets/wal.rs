//! No bytes make the WAL decoder panic or hold more than its bounds: raw pages, and records with any content.
#![no_main]
#![allow(dead_code, unused_imports)] // Parts of the library, not all of it.

#[path = "../../src/postgres"]
mod postgres {
    pub mod types;
    pub mod wal;
}
#[path = "../../src/postgres/wal/testing.rs"]
mod testing;

use libfuzzer_sys::fuzz_target;
use postgres::types::{Lsn, SegmentSize};
use postgres::wal::{Summarizer, join};
use testing::{Draft, PAGE, Writer};

const SEGMENT: u64 = 1 << 20;
const MAGICS: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];

fuzz_target!(|input: &[u8]| {
    let [how, major, piece, input @ ..] = input else { return };
    let magic = MAGICS[usize::from(*major) % MAGICS.len()];
    let bytes = if how % 2 == 0 { records(magic, input) } else { pages(magic, input) };
    let mut summaries = bytes.chunks(SEGMENT as usize).enumerate().map(|(index, segment)| {
        let mut summarizer = Summarizer::new(Lsn(SEGMENT * (1 + index as u64)), SegmentSize::new(SEGMENT as u32).unwrap());
        segment.chunks(usize::from(*piece) * 97 + 1).for_each(|piece| summarizer.push(piece));
        let summary = summarizer.finish();
        summary.clone().truncate_to(16 << 10);
        summary
    });
    let Some(mut earlier) = summaries.next() else { return };
    for later in summaries {
        let _ = join(&earlier, earlier.tail.as_ref(), &later);
        earlier = later;
    }
});

/// Records whose CRC is right: each with a header from the input, a body of what follows, repeated up to a length.
fn records(magic: u16, mut input: &[u8]) -> Vec<u8> {
    let mut wal = Writer::new(magic, SEGMENT, SEGMENT);
    while let [rmgr, info, xid, length, times, rest @ ..] = input {
        let (body, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        let draft = Draft { xid: u32::from(*xid), rmgr: rmgr % 22, info: *info, ..Draft::default() };
        wal.write_body(&draft, &body.repeat(1 + usize::from(*times) * usize::from(times % 8 == 7) * 8));
        input = rest;
        if wal.bytes.len() as u64 > 2 * SEGMENT {
            break;
        }
    }
    let mut bytes = wal.bytes;
    bytes.resize(bytes.len().next_multiple_of(PAGE as usize), 0);
    bytes
}

/// The input as pages, their headers mended as far as the first fields go.
fn pages(magic: u16, input: &[u8]) -> Vec<u8> {
    let mut wal = Writer::new(magic, SEGMENT, SEGMENT);
    wal.write(&Draft::default());
    let mut bytes = wal.bytes;
    bytes.extend_from_slice(input);
    for page in (PAGE as usize..bytes.len().saturating_sub(24)).step_by(PAGE as usize) {
        bytes[page..page + 2].copy_from_slice(&magic.to_le_bytes());
        bytes[page + 8..page + 16].copy_from_slice(&(SEGMENT + page as u64).to_le_bytes());
    }
    bytes
}
