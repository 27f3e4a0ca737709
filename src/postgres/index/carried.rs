//! What a segment needs of all that lies before it: the segment before hands it on.

use rusqlite::{Connection, OptionalExtension, Result, params};
use serde::{Deserialize, Serialize};

use super::column::{SegmentKey, from_json, json};
use crate::postgres::types::Lsn;
use crate::postgres::wal::{Boundary, Summary, Tail, WalStop, Xid, join};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Carried {
    /// The last record, and where the one after it begins.
    last: Option<Lsn>,
    end: Option<Lsn>,
    /// Where the WAL is broken.
    stop: Option<WalStop>,
    /// The beginning of a record that goes on.
    pub tail: Option<Tail>,
    /// The newest transaction that was mentioned since the archive begins or a segment is missing.
    pub newest: Option<Xid>,
}

impl Carried {
    /// Behind a segment; `tail` is that of its last record, `newest` the newest transaction up to there.
    pub fn of(summary: &Summary, tail: Option<Tail>, newest: Option<Xid>) -> Self {
        Self {
            last: summary.last,
            end: summary.end,
            stop: summary.stop.clone(),
            tail,
            newest,
        }
    }

    /// What lies between all this and the next segment. Errors: where the WAL breaks.
    pub fn join(&self, later: &Summary) -> std::result::Result<Boundary, WalStop> {
        let earlier = Summary {
            last: self.last,
            end: self.end,
            stop: self.stop.clone(),
            ..Summary::default()
        };
        join(&earlier, self.tail.as_ref(), later)
    }
}

/// What a segment hands on; `None` while it is not indexed, or when that is not known.
pub(super) fn of(db: &Connection, segment: SegmentKey) -> Result<Option<Carried>> {
    let sql = "SELECT held FROM carried JOIN segment USING (timeline, number) \
               WHERE timeline = ?1 AND number = ?2 AND state = 1";
    let held = db
        .prepare_cached(sql)?
        .query_row(segment.columns(), |row| row.get::<_, String>(0))
        .optional()?;
    held.map(|held| from_json(&held)).transpose()
}

/// Notes what a segment hands on; whether that is something else than the last time.
pub(super) fn put(db: &Connection, segment: SegmentKey, carried: Option<&Carried>) -> Result<bool> {
    let (timeline, number) = segment.columns();
    let Some(carried) = carried else {
        let sql = "DELETE FROM carried WHERE timeline = ?1 AND number = ?2";
        return Ok(db.prepare_cached(sql)?.execute(segment.columns())? > 0);
    };
    let sql = "INSERT INTO carried VALUES (?1, ?2, ?3) \
               ON CONFLICT DO UPDATE SET held = excluded.held WHERE held <> excluded.held";
    Ok(db
        .prepare_cached(sql)?
        .execute(params![timeline, number, json(carried)?])?
        > 0)
}
