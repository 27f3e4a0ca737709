//! Reads what a record says. Layouts: the headers of PostgreSQL named at each part.

use super::bytes::Reader;
use super::fact::{Fact, Parameters, UnknownRecord};
use super::heap;
use super::record::{BlockRef, Record, RelFileLocator, rmgr};
use super::timestamp::Timestamp;
use super::transactions;
use crate::postgres::types::{Lsn, TimelineId};

/// What the record says; `None` for what concerns nobody but replay.
///
/// # Errors
/// If the record is of a kind that says something, but not readable.
#[inline]
pub fn read_fact<'a>(record: &Record<'a>) -> Result<Option<Fact<'a>>, UnknownRecord> {
    let unreadable = || UnknownRecord {
        lsn: record.lsn,
        rmgr: record.header.rmgr,
        info: record.header.info,
    };
    let read = match record.header.rmgr {
        rmgr::HEAP | rmgr::HEAP2 => heap::read(record),
        rmgr::TRANSACTION => transactions::read(record),
        rmgr::XLOG => xlog(record),
        rmgr::STORAGE => storage(record),
        rmgr::DATABASE => database(record),
        rmgr::TABLESPACE => tablespace(record),
        _ => return Ok(None),
    };
    read.ok_or_else(unreadable)
}

/// pg_control.h (the checkpoint begins with its redo LSN, the end of recovery with its time), xlog_internal.h.
fn xlog<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    let mut fields = Reader(record.main);
    let fact = match record.operation() {
        operation @ (0x00 | 0x10 | 0x90) => {
            fields.u64()?;
            let (timeline, previous) = (TimelineId(fields.u32()?), TimelineId(fields.u32()?));
            match operation {
                0x90 => Fact::EndOfRecovery { timeline, previous },
                _ => Fact::Checkpoint { timeline, previous },
            }
        }
        0x60 => Fact::ParameterChange(Parameters {
            max_connections: fields.u32()?,
            max_worker_processes: fields.u32()?,
            max_wal_senders: fields.u32()?,
            max_prepared_transactions: fields.u32()?,
            max_locks_per_transaction: fields.u32()?,
            wal_level: fields.u32()?,
        }),
        0x70 => {
            let (time, name) = (Timestamp(fields.i64()?), fields.take(64)?);
            let length = name
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len());
            Fact::RestorePoint {
                time,
                name: &name[..length],
            }
        }
        0x80 => Fact::FullPageWrites(fields.u8()? != 0),
        0xB0 => match record.block? {
            BlockRef {
                file,
                fork: 0,
                block,
                ..
            } => Fact::PageWritten { file, block },
            _ => return Some(None),
        },
        0xD0 => Fact::Overwritten {
            lsn: overwritten(record)?,
        },
        _ => return Some(None),
    };
    Some(Some(fact))
}

/// storage_xlog.h.
fn storage<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    let mut fields = Reader(record.main);
    let fact = match record.operation() {
        0x10 => Fact::FileCreated {
            file: RelFileLocator::read(&mut fields)?,
            fork: fields.u32()?,
        },
        0x20 => {
            let (blocks, file) = (fields.u32()?, RelFileLocator::read(&mut fields)?);
            Fact::FileTruncated { file, blocks }
        }
        _ => return Some(None),
    };
    Some(Some(fact))
}

/// dbcommands_xlog.h. In 15 the operations got other numbers.
fn database<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    let mut fields = Reader(record.main);
    let fact = match (record.operation(), record.major.number()) {
        (0x00, _) => {
            let (database, tablespace) = (fields.u32()?, fields.u32()?);
            Fact::DatabaseCreated {
                database,
                tablespace,
                source: Some(fields.u32()?),
            }
        }
        (0x10, 15..) => Fact::DatabaseCreated {
            database: fields.u32()?,
            tablespace: fields.u32()?,
            source: None,
        },
        (0x10, _) | (0x20, 15..) => Fact::DatabaseDropped {
            database: fields.u32()?,
        },
        _ => return Some(None),
    };
    Some(Some(fact))
}

/// tablespace.h, xl_tblspc_create_rec. Of a very long record that crossed into the next segment the path may be cut.
fn tablespace<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    let mut fields = Reader(record.main);
    Some(match record.operation() {
        0x00 => {
            let (oid, path) = (fields.u32()?, fields.0);
            let length = path
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(path.len());
            Some(Fact::TablespaceMade {
                oid,
                location: &path[..length],
            })
        }
        _ => None,
    })
}

const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// The record that this one declares lost.
pub(super) fn overwritten(record: &Record<'_>) -> Option<Lsn> {
    let is_it = (record.header.rmgr, record.operation()) == (rmgr::XLOG, OVERWRITE_CONTRECORD);
    Reader(record.main).u64().filter(|_| is_it).map(Lsn)
}
