//! Events as the index keeps them.

use rusqlite::{Result, Row};
use serde::{Deserialize, Serialize};

use super::column::{file, nullable, uint};
use crate::postgres::catalog::EventKind;
use crate::postgres::types::{Lsn, MajorVersion, TimelineId};
use crate::postgres::wal::{RelFileLocator, Timestamp, Xid};

/// `pg_class` of every database, until it is rewritten: how many rows were deleted there tells a DROP.
pub(super) const PG_CLASS: u32 = 1259;

pub(super) const SELECT: &str = "SELECT timeline, number, lsn, end_lsn, commit_lsn, kind, time, xid, tablespace, database, file, \
                      rows, rows_from, label, detail FROM event";

/// A row of the table.
pub(super) struct EventRow {
    pub timeline: TimelineId,
    pub number: u64,
    pub lsn: Lsn,
    pub end_lsn: Option<Lsn>,
    pub commit_lsn: Option<Lsn>,
    pub kind: EventKind,
    pub time: Timestamp,
    pub xid: Xid,
    pub file: RelFileLocator,
    pub rows: Option<u64>,
    pub rows_from: Option<u64>,
    pub label: Option<String>,
    pub detail: Option<String>,
}

/// What a commit says of the files that it removed, as the index keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct RemovedFiles {
    pub files: Vec<RelFileLocator>,
    pub relations: Vec<u32>,
    pub cut: bool,
    pub major: Option<MajorVersion>,
}

impl EventRow {
    pub fn read(row: &Row<'_>) -> Result<Self> {
        let kind: i64 = row.get(5)?;
        let known = EventKind::ALL
            .iter()
            .copied()
            .find(|known| *known as i64 == kind);
        Ok(Self {
            timeline: TimelineId(row.get(0)?),
            number: uint(row, 1)?,
            lsn: Lsn(uint(row, 2)?),
            end_lsn: nullable(row, 3)?.map(Lsn),
            commit_lsn: nullable(row, 4)?.map(Lsn),
            kind: known.ok_or(rusqlite::Error::IntegralValueOutOfRange(5, kind))?,
            time: Timestamp(row.get(6)?),
            xid: row.get(7)?,
            file: file(row, 8)?,
            rows: nullable(row, 11)?,
            rows_from: nullable(row, 12)?,
            label: row.get(13)?,
            detail: row.get(14)?,
        })
    }
}
