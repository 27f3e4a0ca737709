//! Deletes and updates of many rows, as events: summed over the segments of a transaction, told where it commits.

use std::collections::BTreeSet;

use rusqlite::{Connection, Result, params};

use super::segment::{Place, is_newer, number};
use super::{Index, LEAST_ROWS, int, uint};
use crate::postgres::catalog::EventKind;
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
    /// The first segment with such rows, and how many have any.
    from: u64,
    parts: u64,
}

/// Makes the events of transactions that end in a segment that is new, and of those that end later and went through it.
pub(super) fn derive_all(index: &Index, db: &Connection, place: Place) -> Result<()> {
    derive(index, db, place)?;
    for (timeline, number) in later(index, db, place)? {
        derive(index, db, Place { timeline, number })?;
    }
    Ok(())
}

/// The segments in which transactions end that went through a segment.
pub(super) fn later(index: &Index, db: &Connection, place: Place) -> Result<BTreeSet<(TimelineId, u64)>> {
    let (timeline, number) = place.key();
    let last = int(place.number + index.reach());
    let mut later = BTreeSet::new();
    let mut note = |sql: &str| -> Result<()> {
        let mut select = db.prepare_cached(sql)?;
        let mut found = select.query(params![timeline, number, last])?;
        while let Some(row) = found.next()? {
            later.insert((TimelineId(row.get(0)?), self::number(row, 1)?));
        }
        Ok(())
    };
    note(
        "SELECT DISTINCT e.timeline, e.number FROM rows AS r JOIN ended AS e ON e.xid = r.xid AND e.number > ?2 AND e.number <= ?3 \
         WHERE r.timeline = ?1 AND r.number = ?2 AND r.commit_lsn IS NULL",
    )?;
    // Whether their counts are exact depends on what lies between.
    note(
        "SELECT timeline, number FROM event WHERE timeline = ?1 AND number > ?2 AND number <= ?3 AND rows_from <= ?2 + 1",
    )?;
    Ok(later)
}

/// Makes the events of transactions that end in a segment.
pub(super) fn derive(index: &Index, db: &Connection, place: Place) -> Result<()> {
    let (timeline, number) = place.key();
    db.prepare_cached("DELETE FROM event WHERE timeline = ?1 AND number = ?2 AND rows IS NOT NULL")?
        .execute(place.key())?;
    for sum in sums(index, db, place)? {
        let exact = is_exact(db, place, &sum)?;
        for (kind, rows) in [(EventKind::Delete, sum.deleted), (EventKind::Update, sum.updated)] {
            if rows < LEAST_ROWS {
                continue;
            }
            let mut put = db.prepare_cached(
                "INSERT OR REPLACE INTO event \
                 (timeline, number, lsn, commit_lsn, kind, tablespace, database, file, time, xid, rows, rows_from, exact) \
                 VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?;
            let RelFileLocator { tablespace, database, number: file } = sum.file;
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
                exact
            ])?;
        }
    }
    Ok(())
}

/// Sums the rows of transactions that commit in a segment: those of the segment itself, and those that were left open
/// in the segments before, which where a timeline begins are another's. The order of the joins is fixed: there are few
/// transactions in a segment and many segments in a timeline, which SQLite does not know.
fn sums(index: &Index, db: &Connection, place: Place) -> Result<Vec<Sum>> {
    let mut select = db.prepare_cached(
        "SELECT e.top, e.lsn, e.time, r.tablespace, r.database, r.file, sum(r.updated), sum(r.deleted), \
             min(r.number), count(DISTINCT r.number) \
         FROM segment AS s CROSS JOIN ended AS e ON e.timeline = s.timeline AND e.number = s.number \
         CROSS JOIN rows AS r INDEXED BY rows_xid ON r.xid = e.xid AND r.number BETWEEN ?3 AND e.number \
             AND (r.timeline = e.timeline AND (r.commit_lsn = e.lsn OR r.commit_lsn IS NULL) \
                  OR r.timeline = s.previous AND r.commit_lsn IS NULL AND r.number < e.number) \
         WHERE s.timeline = ?1 AND s.number = ?2 AND e.timeline = ?1 AND e.number = ?2 AND e.committed \
         GROUP BY e.top, e.lsn, r.tablespace, r.database, r.file",
    )?;
    let (timeline, at) = place.key();
    let first = int(place.number.saturating_sub(index.reach()));
    let sums = select.query_map(params![timeline, at, first], |row| {
        Ok(Sum {
            xid: row.get(0)?,
            lsn: row.get(1)?,
            time: row.get(2)?,
            file: RelFileLocator { tablespace: row.get(3)?, database: row.get(4)?, number: row.get(5)? },
            updated: uint(row.get(6)?),
            deleted: uint(row.get(7)?),
            from: number(row, 8)?,
            parts: uint(row.get(9)?),
        })
    })?;
    sums.collect()
}

/// Whether no segment of the transaction is missing, or passed over some of its rows.
fn is_exact(db: &Connection, place: Place, sum: &Sum) -> Result<bool> {
    let (timeline, at) = place.key();
    let from = int(sum.from);
    if sum.from < place.number {
        let sql = "SELECT count(*), coalesce(sum(rows_left_out > 0), 0) FROM segment \
                   WHERE timeline = ?1 AND number BETWEEN ?2 AND ?3 AND state = 1";
        let (there, short): (i64, i64) =
            db.prepare_cached(sql)?.query_row(params![timeline, from, at], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if uint(there) <= place.number - sum.from || uint(short) > sum.parts {
            return Ok(false);
        }
    }
    // Did it begin in the segment before its first rows that are known?
    let sql = "SELECT newest, rows_left_out FROM segment WHERE timeline = ?1 AND number = ?2 - 1 AND state = 1";
    let mut select = db.prepare_cached(sql)?;
    let mut before = select.query(params![timeline, from])?;
    let Some(row) = before.next()? else { return Ok(true) };
    let (newest, left_out): (Option<Xid>, i64) = (row.get(0)?, row.get(1)?);
    Ok(left_out == 0 || newest.is_none_or(|newest| is_newer(sum.xid, newest)))
}
