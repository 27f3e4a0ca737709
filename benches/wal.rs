//! How fast WAL is read. `WALDEN_BENCH_WAL` names a segment of a real cluster; else one is made up: a row, its index
//! entry and a commit over and over, and now and then the image of a page.

#[path = "../src/postgres/wal/testing.rs"]
mod testing;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use testing::{Draft, Writer};
use walden::postgres::types::{LongPageHeader, Lsn};
use walden::postgres::wal::{Decoder, Summarizer, rmgr};

const SEGMENT: u64 = 16 << 20;
/// As in the service: what stays in the processor's cache.
const PIECE: usize = 256 << 10;

fn made_up() -> Vec<u8> {
    let mut wal = Writer::new(0xD113, SEGMENT, SEGMENT);
    let row = |xid| Draft {
        xid,
        rmgr: rmgr::HEAP,
        main: vec![0; 60],
        block: Some((xid % 8, vec![])),
        ..Draft::default()
    };
    let entry = |xid| Draft {
        xid,
        rmgr: 11,
        main: vec![0; 20],
        block: Some((xid % 8, vec![])),
        ..Draft::default()
    };
    let image = Draft {
        rmgr: rmgr::XLOG,
        info: 0xB0,
        block: Some((1, vec![1; 7000])),
        ..Draft::default()
    };
    let commit = |xid| Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        main: vec![5; 8],
        ..Draft::default()
    };
    for xid in 1.. {
        wal.write(&row(xid));
        wal.write(&entry(xid));
        wal.write(&commit(xid));
        if xid % 20 == 0 {
            wal.write(&image);
        }
        if wal.position() > 2 * SEGMENT - 20_000 {
            break;
        }
    }
    wal.fill();
    wal.bytes
}

fn read_wal(criterion: &mut Criterion) {
    let bytes = match std::env::var_os("WALDEN_BENCH_WAL") {
        Some(path) => std::fs::read(path).expect("read WALDEN_BENCH_WAL"),
        None => made_up(),
    };
    let LongPageHeader {
        address: start,
        segment_size,
        ..
    } = LongPageHeader::parse(&bytes).expect("a segment");
    let (records, length) = count(&bytes, start);
    println!("{records} records in {length} bytes");
    let mut group = criterion.benchmark_group("wal");
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function("records", |bencher| {
        bencher.iter(|| count(&bytes[..length], start))
    });
    group.bench_function("summary", |bencher| {
        bencher.iter(|| {
            let mut summarizer = Summarizer::new(start, segment_size);
            bytes[..length]
                .chunks(PIECE)
                .for_each(|piece| summarizer.push(piece));
            summarizer.finish()
        });
    });
    group.finish();
}

/// Records, and the bytes up to the end of the last one's page.
fn count(bytes: &[u8], start: Lsn) -> (u64, usize) {
    let mut decoder = Decoder::new(start);
    let mut records = 0;
    bytes
        .chunks(PIECE)
        .for_each(|piece| decoder.push(piece, |_| records += 1));
    let end = decoder.last().map_or(start, |(_, end)| end);
    (
        records,
        ((end.0 - start.0) as usize)
            .next_multiple_of(8192)
            .min(bytes.len()),
    )
}

criterion_group!(benches, read_wal);
criterion_main!(benches);
