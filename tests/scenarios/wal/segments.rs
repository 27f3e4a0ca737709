//! Decoding all WAL that a cluster has written.

use std::fs;
use std::path::Path;

use walden::postgres::types::{LongPageHeader, Lsn};
use walden::postgres::wal::{BlockRef, Decoder, Fact, Record, WalStop, read_fact};

/// A segment's bytes and where they begin.
pub struct Segment {
    pub start: Lsn,
    pub bytes: Vec<u8>,
}

/// All segments of pg_wal up to the one that holds `end`, in order.
pub fn read(data: &Path, end: Lsn) -> Vec<Segment> {
    let mut segments: Vec<Segment> = fs::read_dir(data.join("pg_wal"))
        .expect("list pg_wal")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 24))
        .filter_map(|path| {
            let bytes = fs::read(&path).expect("read a segment");
            // Recycled ones hold old addresses, new ones zeros.
            let start = LongPageHeader::parse(&bytes).ok()?.address;
            (start < end).then_some(Segment { start, bytes })
        })
        .collect();
    segments.sort_by_key(|segment| segment.start);
    segments.dedup_by_key(|segment| segment.start);
    segments
}

/// A record, as far as another program prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub lsn: Lsn,
    pub prev: Lsn,
    pub xid: u32,
    pub rmgr: String,
    pub length: u32,
    pub blocks: Vec<String>,
}

impl Seen {
    fn of(record: &Record<'_>) -> Self {
        let rmgr = walden::postgres::wal::rmgr::name(record.header.rmgr);
        Self {
            lsn: record.lsn,
            prev: record.header.prev,
            xid: record.header.xid,
            rmgr: rmgr.expect("a resource manager of PostgreSQL").to_string(),
            length: record.header.total_length,
            blocks: record.blocks().map(|block| block_text(&block)).collect(),
        }
    }
}

fn block_text(block: &BlockRef) -> String {
    let fork = ["", "fork fsm ", "fork vm ", "fork init "][usize::from(block.fork)];
    format!(
        "#{}: rel {} {fork}blk {}",
        block.id, block.file, block.block
    )
}

/// Decodes segments one after another, in pieces of `piece` bytes; hands over each record with what it says.
pub fn decode(
    segments: &[Segment],
    piece: usize,
    mut each: impl FnMut(&Record<'_>, Option<Fact<'_>>),
) -> Option<WalStop> {
    let mut decoder = Decoder::new(segments[0].start);
    for bytes in segments
        .iter()
        .flat_map(|segment| segment.bytes.chunks(piece))
    {
        decoder.push(bytes, |record| {
            let fact = read_fact(record).unwrap_or_else(|error| panic!("{error}"));
            each(record, fact);
        });
    }
    decoder.finish();
    decoder.stopped().cloned()
}

/// All records.
pub fn records(segments: &[Segment], piece: usize) -> (Vec<Seen>, Option<WalStop>) {
    let mut seen = Vec::new();
    let stop = decode(segments, piece, |record, _| seen.push(Seen::of(record)));
    (seen, stop)
}
