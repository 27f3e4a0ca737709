//! What records say, as far as recovery and finding need it.

use std::fmt;

use super::bytes::Reader;
use super::record::{RelFileLocator, Xid};
use super::timestamp::Timestamp;
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

/// The end of a transaction, or of a subtransaction that was rolled back: nothing in WAL tells these apart.
#[derive(Debug, Clone, Copy)]
pub struct TransactionEnd<'a> {
    pub committed: bool,
    pub xid: Xid,
    /// By the server's clock when the transaction ended; not in LSN order.
    pub time: Timestamp,
    /// Subtransactions that ended with it.
    pub subxids: List<'a, Xid>,
    /// There may be more of them, with larger numbers: PostgreSQL keeps them sorted.
    pub subxids_cut: bool,
    /// Relations whose files go away with this end.
    pub dropped: List<'a, RelFileLocator>,
    /// Objects whose statistics go away (15 and later).
    pub dropped_statistics: List<'a, DroppedStatistics>,
    /// False when the record was too long to keep, so that lists are cut or missing.
    pub whole: bool,
}

/// An object that loses its statistics: mostly because it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedStatistics {
    /// pgstat_kind.h: 1 database, 2 relation, 3 function, 4 replication slot, 5 subscription.
    pub kind: u32,
    pub object: u64,
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
