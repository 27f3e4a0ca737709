//! Rows: heapam_xlog.h.

use super::bytes::Reader;
use super::facts::{Fact, List, RowChange};
use super::record::Record;
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

/// The heap's first resource manager.
#[inline]
pub(super) fn read<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    match record.header.info & OPERATION {
        INSERT => rows(record, RowChange::Inserted, 1),
        UPDATE | HOT_UPDATE => rows(record, RowChange::Updated, 1),
        DELETE => match *record.main.get(7)? {
            flags if flags & IS_SUPER != 0 => rows(record, RowChange::TakenBack, 1),
            flags if flags & IS_PARTITION_MOVE != 0 => rows(record, RowChange::Moved, 1),
            _ => rows(record, RowChange::Deleted, 1),
        },
        TRUNCATE => {
            let mut fields = Reader(record.main);
            let (database, count) = (fields.u32()?, fields.u32()?);
            let tables = record.main.get(12..)?.get(..(count as usize).checked_mul(4)?)?;
            Some(Some(Fact::TablesTruncated { database, tables: List::new(tables, 4, read_xid) }))
        }
        _ => Some(None),
    }
}

/// Its second one.
pub(super) fn read2<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    match record.header.info & OPERATION {
        MULTI_INSERT => {
            let count = Reader(record.main.get(2..)?).u16()?;
            rows(record, RowChange::Inserted, u32::from(count))
        }
        _ => Some(None),
    }
}

/// The first block reference is the row's page.
fn rows<'a>(record: &Record<'a>, change: RowChange, rows: u32) -> Option<Option<Fact<'a>>> {
    Some(Some(Fact::Rows { file: record.block?.file, change, rows }))
}
