//! What a record says, as far as recovery and finding need it. Layouts: the headers of PostgreSQL named at each part.

use std::fmt;

use super::bytes::Reader;
use super::decoder::overwritten;
use super::heap;
use super::record::{BlockRef, Record, RelFileLocator, Xid, rmgr};
use super::timestamp::Timestamp;
use super::transactions::{self, TransactionEnd};
use crate::postgres::types::{Lsn, TimelineId};

/// What one record says.
#[derive(Debug, Clone, Copy)]
pub enum Fact<'a> {
    /// A transaction ended.
    End(TransactionEnd<'a>),
    /// PREPARE TRANSACTION.
    Prepare {
        xid: Xid,
        time: Timestamp,
        gid: &'a [u8],
    },
    /// Rows of a table, TOAST table or catalogue.
    Rows {
        file: RelFileLocator,
        change: RowChange,
        rows: u32,
    },
    /// TRUNCATE, at `wal_level = logical` only. OIDs of tables, not their files.
    TablesTruncated {
        database: u32,
        tables: List<'a, u32>,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        time: Timestamp,
        name: &'a [u8],
    },
    /// Where `previous` is another one, a timeline begins.
    Checkpoint {
        timeline: TimelineId,
        previous: TimelineId,
    },
    /// Recovery ended and a timeline began.
    EndOfRecovery {
        timeline: TimelineId,
        previous: TimelineId,
    },
    ParameterChange(Parameters),
    FullPageWrites(bool),
    /// The record at `lsn` was cut off by a crash and is void.
    Overwritten {
        lsn: Lsn,
    },
    /// A relation got a file: fork 0 is its main one.
    FileCreated {
        file: RelFileLocator,
        fork: u32,
    },
    /// A whole page was written by itself: of a file being made, mostly. Main files only.
    PageWritten {
        file: RelFileLocator,
        block: u32,
    },
    /// A relation was cut to so many blocks.
    FileTruncated {
        file: RelFileLocator,
        blocks: u32,
    },
    /// `source` is the database whose files were copied; 15 and later mostly write the content instead.
    DatabaseCreated {
        database: u32,
        tablespace: u32,
        source: Option<u32>,
    },
    DatabaseDropped {
        database: u32,
    },
    /// Where `location` is empty, in the data directory itself.
    TablespaceMade {
        oid: u32,
        location: &'a [u8],
    },
}

/// What happened to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowChange {
    Inserted,
    /// A speculative insertion was taken back: INSERT ... ON CONFLICT lost a race.
    TakenBack,
    Updated,
    Deleted,
    /// UPDATE moved the row to another partition, where it is inserted.
    Moved,
}

/// xlog_internal.h, xl_parameter_change: what a standby must be able to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parameters {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
    /// 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
}

/// The record's checksum is right, but its content is not as expected: damage before it was written, or a minor
/// release that writes otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record at {lsn} (resource manager {rmgr}, info {info:02X}) is not of the known form")]
pub struct UnknownRecord {
    pub lsn: Lsn,
    pub rmgr: u8,
    pub info: u8,
}

/// Items of equal size in a record.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    bytes: &'a [u8],
    read: fn(&mut Reader<'_>) -> Option<T>,
}

impl<'a, T> List<'a, T> {
    pub(super) fn new(bytes: &'a [u8], read: fn(&mut Reader<'_>) -> Option<T>) -> Self {
        Self { bytes, read }
    }

    pub(super) fn empty(read: fn(&mut Reader<'_>) -> Option<T>) -> Self {
        Self::new(&[], read)
    }

    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        let (mut fields, read) = (Reader(self.bytes), self.read);
        std::iter::from_fn(move || read(&mut fields))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<T: fmt::Debug> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Fact<'a> {
    /// What the record says; `None` for what concerns nobody but replay.
    ///
    /// # Errors
    /// If the record is of a kind that says something, but not readable.
    #[inline]
    pub fn read(record: &Record<'a>) -> Result<Option<Self>, UnknownRecord> {
        let unreadable = || UnknownRecord { lsn: record.lsn, rmgr: record.header.rmgr, info: record.header.info };
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
            let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            Fact::RestorePoint { time, name: &name[..length] }
        }
        0x80 => Fact::FullPageWrites(fields.u8()? != 0),
        0xB0 => match record.block? {
            BlockRef { file, fork: 0, block, .. } => Fact::PageWritten { file, block },
            _ => return Some(None),
        },
        0xD0 => Fact::Overwritten { lsn: overwritten(record)? },
        _ => return Some(None),
    };
    Some(Some(fact))
}

/// storage_xlog.h.
fn storage<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    let mut fields = Reader(record.main);
    let fact = match record.operation() {
        0x10 => Fact::FileCreated { file: RelFileLocator::read(&mut fields)?, fork: fields.u32()? },
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
            Fact::DatabaseCreated { database, tablespace, source: Some(fields.u32()?) }
        }
        (0x10, 15..) => Fact::DatabaseCreated { database: fields.u32()?, tablespace: fields.u32()?, source: None },
        (0x10, _) | (0x20, 15..) => Fact::DatabaseDropped { database: fields.u32()? },
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
            let length = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            Some(Fact::TablespaceMade { oid, location: &path[..length] })
        }
        _ => None,
    })
}
