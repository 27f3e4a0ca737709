//! Real WAL for some of the made up segments, two in a row each, so that a record crosses into the second as nearly
//! everywhere in real archives. Lookups lead into the second.

use walden::postgres::types::Lsn;
use walden::postgres::wal::{Commit, Timestamp, rmgr};

use crate::made_up::{
    LAST, LATE, PAGE, Place, Random, SIZE, XIDS, dropped_file, restore_point, time, xid,
};
use crate::testing::{Draft, Writer};

/// Page header of 16.
const MAGIC: u16 = 0xD113;
const BTREE: u8 = 11;
const UPDATE: u8 = 0x20;
const NOOP: u8 = 0x20;
const RESTORE_POINT: u8 = 0x70;
/// xact.h: the commit says more than its time; relation files, dropped statistics.
const HAS_INFO: u8 = 0x80;
const HAS_RELFILES: u32 = 1 << 2;
const HAS_DROPPED_STATS: u32 = 1 << 8;
/// Rows of a transaction, each with an entry of an index.
const ROWS: u64 = 12;
/// Bytes left in a segment at which no more transactions begin.
const ROOM: u64 = 4 * PAGE;

/// Two segments of WAL, and what is in the second.
pub struct Pair {
    pub bytes: Vec<u8>,
    pub told: Told,
}

/// What a segment holds, as a lookup must find it.
#[derive(Debug, Clone)]
pub struct Told {
    pub place: Place,
    /// Those that begin in it, in the order of the WAL.
    pub commits: Vec<Commit>,
    /// Where the commit begins that drops a table.
    pub drop: Lsn,
    /// The restore point's record.
    pub restore_point: Lsn,
}

/// The segment at `place` with the one before it.
pub fn pair(place: Place, random: &mut Random) -> Pair {
    let (timeline, number) = place;
    let start = (number - 1) * SIZE;
    let mut writer = Writer::new(MAGIC, SIZE, start);
    (writer.timeline, writer.prev) = (timeline as u32, start - SIZE + LAST);
    let mut commits = Vec::new();
    let (mut drop, mut point) = (Lsn(0), Lsn(0));
    let (mut segment, mut part) = (number - 1, 0);
    loop {
        let now = writer.position() / SIZE;
        if now > segment {
            (segment, part) = (now, 0);
        }
        if writer.position() > start + 2 * SIZE - ROOM {
            break;
        }
        if part % LATE == LATE - 1 {
            // It ends in the next segment.
            part += 1;
            continue;
        }
        // Among many at a time, commits are not in the order of their times.
        let time = time(segment, part + if part % 7 == 6 { 0 } else { 2 });
        let xid = match part {
            part if part < XIDS / LATE => xid(segment - 1, part * LATE + LATE - 1),
            part => xid(segment, part),
        };
        let dropped = (segment == number && part == 2500).then(|| dropped_file(number));
        transaction(&mut writer, xid, random);
        let lsn = Lsn(writer.write(&commit(xid, time, dropped)));
        commits.push(Commit { lsn, xid, time });
        if dropped.is_some() {
            drop = lsn;
        }
        if segment == number && part == 3000 {
            point = Lsn(writer.write(&restore_point_record(&restore_point(place), time)));
        }
        part += 1;
    }
    end(&mut writer);
    commits.retain(|commit| commit.lsn.0 >= number * SIZE);
    assert!(
        drop.0 > 0 && point.0 > 0 && (commits.len() as u64) < XIDS,
        "{} commits",
        commits.len()
    );
    Pair {
        bytes: writer.bytes,
        told: Told {
            place,
            commits,
            drop,
            restore_point: point,
        },
    }
}

/// Rows and index entries of a transaction.
fn transaction(writer: &mut Writer, xid: u32, random: &mut Random) {
    let content = |length: usize, unique: usize, random: &mut Random| {
        let mut content = vec![0; length];
        content[..unique].fill_with(|| random.next() as u8);
        content
    };
    for row in 0..ROWS {
        let (relation, info) = (
            20_000 + (u64::from(xid) % 8) as u32,
            if row == 0 { UPDATE } else { 0 },
        );
        let (main, block) = (content(140, 40, random), Some((relation, Vec::new())));
        writer.write(&Draft {
            xid,
            rmgr: rmgr::HEAP,
            info,
            main,
            block,
        });
        let (main, block) = (content(40, 12, random), Some((relation + 100, Vec::new())));
        writer.write(&Draft {
            xid,
            rmgr: BTREE,
            info: 0,
            main,
            block,
        });
    }
}

fn commit(xid: u32, time: Timestamp, dropped: Option<u32>) -> Draft {
    let mut main = time.0.to_le_bytes().to_vec();
    if let Some(table) = dropped {
        // The file's tablespace, database and number; of the statistics the kind, database and table.
        let more = [
            HAS_RELFILES | HAS_DROPPED_STATS,
            1,
            1663,
            5,
            table,
            1,
            2,
            5,
            table,
        ];
        main.extend(more.iter().flat_map(|field| field.to_le_bytes()));
    }
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: if dropped.is_some() { HAS_INFO } else { 0 },
        main,
        block: None,
    }
}

fn restore_point_record(name: &str, time: Timestamp) -> Draft {
    let mut main = time.0.to_le_bytes().to_vec();
    main.extend_from_slice(name.as_bytes());
    main.resize(8 + 64, 0);
    Draft {
        rmgr: rmgr::XLOG,
        info: RESTORE_POINT,
        main,
        ..Draft::default()
    }
}

/// Ends the segment as the made up ones end: with a record on its last page that fills it.
fn end(writer: &mut Writer) {
    let last_page = writer.position().next_multiple_of(SIZE) - PAGE;
    fill(writer, last_page);
    fill(writer, last_page + PAGE);
    assert_eq!(writer.prev % SIZE, LAST);
}

/// Writes a record that ends exactly at the end of a page.
fn fill(writer: &mut Writer, until: u64) {
    const PAGE_HEADER: u64 = 24;
    /// Of the record, and of data of more than 255 bytes.
    const HEADERS: u64 = 24 + 5;
    let from = writer.position().next_multiple_of(8);
    let begins = from.next_multiple_of(PAGE);
    let headers = (until - begins) / PAGE * PAGE_HEADER;
    let main = vec![0; (until - from - headers - HEADERS) as usize];
    writer.write(&Draft {
        rmgr: rmgr::XLOG,
        info: NOOP,
        main,
        ..Draft::default()
    });
    assert_eq!(writer.position(), until);
}
