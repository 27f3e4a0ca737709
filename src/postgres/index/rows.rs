//! Deletes and updates of many rows, as events: summed over the segments of a transaction, told where it commits.

use std::collections::BTreeSet;

use rusqlite::{Connection, Result, params};

use super::Index;
use super::column::{SegmentKey, file, int, uint};
use crate::postgres::catalog::{EventKind, FIRST_NORMAL, LEAST_ROWS};
use crate::postgres::types::TimelineId;
use crate::postgres::wal::{RelFileLocator, Xid};

/// What one transaction changed in one relation, all its segments together.
struct Sum {
    xid: Xid,
    lsn: i64,
    time: i64,
    file: RelFileLocator,
    updated: u64,
    deleted: u64,
    /// The first segment with such rows.
    from: u64,
}

/// Rows that a change in a segment must have to become an event. Small ones count where the summary lists them all: a
/// busy segment has thousands, and lists some. In the system's catalogues nobody looks for them.
pub(super) fn least_rows(left_out: u64, file: RelFileLocator) -> u64 {
    if left_out == 0 && file.number >= FIRST_NORMAL {
        1
    } else {
        LEAST_ROWS
    }
}

/// Makes the events of transactions that end in a segment that is new, and of those that end later and went through it.
pub(super) fn derive_all(index: &Index, db: &Connection, segment: SegmentKey) -> Result<()> {
    derive(index, db, segment)?;
    later(index, db, segment)?
        .into_iter()
        .try_for_each(|later| derive(index, db, later))
}

/// The segments in which transactions end that went through a segment.
pub(super) fn later(
    index: &Index,
    db: &Connection,
    segment: SegmentKey,
) -> Result<BTreeSet<SegmentKey>> {
    let (timeline, number) = segment.columns();
    let last = int(segment.number + index.reach());
    let mut select = db.prepare_cached(
        "SELECT DISTINCT e.timeline, e.number FROM rows AS r JOIN ended AS e ON e.xid = r.xid AND e.number > ?2 AND e.number <= ?3 \
         WHERE r.timeline = ?1 AND r.number = ?2 AND r.commit_lsn IS NULL",
    )?;
    let later = select.query_map(params![timeline, number, last], |row| {
        Ok(SegmentKey {
            timeline: TimelineId(row.get(0)?),
            number: uint(row, 1)?,
        })
    })?;
    later.collect()
}

/// Makes the events of transactions that end in a segment.
pub(super) fn derive(index: &Index, db: &Connection, segment: SegmentKey) -> Result<()> {
    let (timeline, number) = segment.columns();
    db.prepare_cached(
        "DELETE FROM event WHERE timeline = ?1 AND number = ?2 AND rows IS NOT NULL",
    )?
    .execute(segment.columns())?;
    let least = "SELECT rows_left_out FROM segment WHERE timeline = ?1 AND number = ?2";
    let left_out = db
        .prepare_cached(least)?
        .query_row(segment.columns(), |row| uint(row, 0))?;
    for sum in sums(index, db, segment)? {
        let least = least_rows(left_out, sum.file);
        for (kind, rows) in [
            (EventKind::Delete, sum.deleted),
            (EventKind::Update, sum.updated),
        ] {
            if rows == 0 || rows < least {
                continue;
            }
            let mut put = db.prepare_cached(
                "INSERT OR REPLACE INTO event \
                 (timeline, number, lsn, commit_lsn, kind, tablespace, database, file, time, xid, rows, rows_from) \
                 VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            let RelFileLocator {
                tablespace,
                database,
                number: file,
            } = sum.file;
            put.execute(params![
                timeline,
                number,
                sum.lsn,
                kind as i64,
                tablespace,
                database,
                file,
                sum.time,
                sum.xid,
                int(rows),
                int(sum.from),
            ])?;
        }
    }
    Ok(())
}

/// Sums the rows of transactions that commit in a segment: those of the segment itself, and those that were left open
/// in the segments before, which where a timeline begins are another's. The order of the joins is fixed: there are few
/// transactions in a segment and many segments in a timeline, which SQLite does not know.
fn sums(index: &Index, db: &Connection, segment: SegmentKey) -> Result<Vec<Sum>> {
    let mut select = db.prepare_cached(
        "SELECT e.top, e.lsn, e.time, r.tablespace, r.database, r.file, sum(r.updated), sum(r.deleted), \
             min(r.number) \
         FROM segment AS s CROSS JOIN ended AS e ON e.timeline = s.timeline AND e.number = s.number \
         CROSS JOIN rows AS r INDEXED BY rows_xid ON r.xid = e.xid AND r.number BETWEEN ?3 AND e.number \
             AND (r.timeline = e.timeline AND (r.commit_lsn = e.lsn OR r.commit_lsn IS NULL) \
                  OR r.timeline = s.previous AND r.commit_lsn IS NULL AND r.number < e.number) \
         WHERE s.timeline = ?1 AND s.number = ?2 AND e.timeline = ?1 AND e.number = ?2 AND e.committed \
         GROUP BY e.top, e.lsn, r.tablespace, r.database, r.file",
    )?;
    let (timeline, at) = segment.columns();
    let first = int(segment.number.saturating_sub(index.reach()));
    let sums = select.query_map(params![timeline, at, first], |row| {
        Ok(Sum {
            xid: row.get(0)?,
            lsn: row.get(1)?,
            time: row.get(2)?,
            file: file(row, 3)?,
            updated: uint(row, 6)?,
            deleted: uint(row, 7)?,
            from: uint(row, 8)?,
        })
    })?;
    sums.collect()
}
