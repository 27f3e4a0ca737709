//! Rows: heapam_xlog.h.

use super::bytes::Reader;
use super::fact::{Fact, List, RowChange};
use super::record::{Record, RelFileLocator, rmgr};
use super::transactions::read_xid;

const OPERATION: u8 = 0x70;

const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const TRUNCATE: u8 = 0x30;
const HOT_UPDATE: u8 = 0x40;
const MULTI_INSERT: u8 = 0x50;

/// XLH_DELETE_IS_SUPER: takes a speculative insertion back.
const IS_SUPER: u8 = 0x08;
/// XLH_DELETE_IS_PARTITION_MOVE.
const IS_PARTITION_MOVE: u8 = 0x10;

/// Rows that changed in the relation of a record's first block, and how many.
pub(super) type ChangedRows = (RelFileLocator, RowChange, u32);

/// What a record says of rows.
#[inline]
pub(super) fn rows(record: &Record<'_>) -> Option<Option<ChangedRows>> {
    let (change, rows) = match (record.header.rmgr, record.header.info & OPERATION) {
        (rmgr::HEAP, INSERT) => (RowChange::Inserted, 1),
        (rmgr::HEAP, UPDATE | HOT_UPDATE) => (RowChange::Updated, 1),
        (rmgr::HEAP, DELETE) => match *record.main.get(7)? {
            flags if flags & IS_SUPER != 0 => (RowChange::TakenBack, 1),
            flags if flags & IS_PARTITION_MOVE != 0 => (RowChange::Moved, 1),
            _ => (RowChange::Deleted, 1),
        },
        (rmgr::HEAP2, MULTI_INSERT) => {
            let count = Reader(record.main.get(2..)?).u16()?;
            (RowChange::Inserted, u32::from(count))
        }
        _ => return Some(None),
    };
    Some(Some((record.block?.file, change, rows)))
}

#[inline]
pub(super) fn read<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    if (record.header.rmgr, record.header.info & OPERATION) != (rmgr::HEAP, TRUNCATE) {
        let rows = rows(record)?;
        return Some(rows.map(|(file, change, rows)| Fact::Rows { file, change, rows }));
    }
    let mut fields = Reader(record.main);
    let (database, count) = (fields.u32()?, fields.u32()?);
    let tables = record
        .main
        .get(12..)?
        .get(..(count as usize).checked_mul(4)?)?;
    Some(Some(Fact::TablesTruncated {
        database,
        tables: List::new(tables, read_xid),
    }))
}
