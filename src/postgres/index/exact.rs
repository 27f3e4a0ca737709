//! How sure an event is: what summaries left out, and what is not archived or not indexed, may belong to it.

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::column::{int, uint};
use super::event_row::EventRow;
use super::wal_index::maybe_ending;
use super::xid::is_newer;
use super::{Index, WINDOW};
use crate::postgres::catalog::{EventKind, Filter};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::{RelFileLocator, Xid};

/// The segments that a transaction may have written to, from its commit backwards.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// None of them is missing.
    pub known: bool,
    /// Those whose summaries left out rows.
    short: Vec<(TimelineId, u64)>,
    /// One left out files that were made.
    created_left_out: bool,
}

impl Trace {
    /// Whether all files that the transaction made are known.
    pub fn has_all_files(&self) -> bool {
        self.known && !self.created_left_out
    }
}

/// Goes back from a commit to where its transaction began, at `least` or earlier: to a segment that mentions other
/// transactions and none as new. An idle one may be open for long; segments up to [`WINDOW`] before count too.
pub(super) fn trace(
    index: &Index,
    db: &Connection,
    stored: &EventRow,
    least: u64,
) -> Result<Trace> {
    let sql = "SELECT newest, previous, rows_left_out > 0, created_left_out > 0 FROM segment \
               WHERE timeline = ?1 AND number = ?2 AND state = 1";
    let mut select = db.prepare_cached(sql)?;
    let mut trace = Trace {
        known: true,
        short: Vec::new(),
        created_left_out: false,
    };
    let (mut timeline, mut quiet, mut began) = (stored.timeline, 0, false);
    let first = stored.number.saturating_sub(index.reach());
    for number in (first..=stored.number).rev() {
        let read = |row: &Row<'_>| {
            Ok((
                row.get::<_, Option<Xid>>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
            ))
        };
        let found: Option<(Option<Xid>, u32, bool, bool)> = select
            .query_row(params![timeline.0, int(number)], read)
            .optional()?;
        let Some((newest, previous, rows_left_out, created_left_out)) = found else {
            // No WAL has a segment 0.
            trace.known = began || number == 0;
            break;
        };
        if newest.is_some_and(|newest| !is_newer(stored.xid, newest)) {
            quiet = 0;
            trace.created_left_out |= created_left_out;
            trace
                .short
                .extend(rows_left_out.then_some((timeline, number)));
        } else {
            quiet += 1;
            began |= newest.is_some() && number < least;
        }
        if quiet >= WINDOW {
            break;
        }
        timeline = TimelineId(previous);
    }
    Ok(trace)
}

/// Whether the rows of a delete or update are all counted.
pub(super) fn has_all_rows(index: &Index, db: &Connection, stored: &EventRow) -> Result<bool> {
    let trace = trace(index, db, stored, stored.rows_from.unwrap_or(stored.number))?;
    let RelFileLocator {
        tablespace,
        database,
        number,
    } = stored.file;
    lists_rows(db, stored, &trace, (Some(tablespace), database, number))
}

/// Whether no row is left out that the transaction changed in a file; `None`: of whatever tablespace.
pub(super) fn lists_rows(
    db: &Connection,
    stored: &EventRow,
    trace: &Trace,
    (tablespace, database, file): (Option<u32>, u32, u32),
) -> Result<bool> {
    if !trace.known || trace.short.is_empty() {
        return Ok(trace.known);
    }
    let sql = "SELECT count(*) FROM ended WHERE timeline = ?1 AND number = ?2 AND top = ?3";
    let ended = params![stored.timeline.0, int(stored.number), stored.xid];
    let alone = db
        .prepare_cached(sql)?
        .query_row(ended, |row| uint(row, 0))?
        <= 1;
    let sql = "SELECT 1 FROM rows WHERE timeline = ?1 AND number = ?2 AND xid = ?3 \
               AND tablespace = coalesce(?4, tablespace) AND database = ?5 AND file = ?6";
    let mut select = db.prepare_cached(sql)?;
    for (timeline, number) in &trace.short {
        // Elsewhere than where it ends, each of its subtransactions has rows of its own.
        let whole = alone || *number == stored.number;
        if !whole
            || !select.exists(params![
                timeline.0,
                int(*number),
                stored.xid,
                tablespace,
                database,
                file
            ])?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What became of the transaction that made or dropped a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfDatabase {
    /// It committed here.
    Committed(Lsn),
    /// It may have, or the files are gone before it did.
    Unsure,
    /// Nothing happened to a database that anybody could have used.
    Nothing,
}

/// A record that makes a database counts once its transaction commits; one that drops it is final. Both are also
/// written for less: by CREATE DATABASE that fails, for each tablespace, and by ALTER DATABASE SET TABLESPACE, which
/// removes the old files without a transaction number.
pub(super) fn of_database(index: &Index, db: &Connection, stored: &EventRow) -> Result<OfDatabase> {
    let drops = stored.kind == EventKind::DatabaseDrop;
    let end = end_of(index, db, stored)?;
    Ok(match end {
        _ if stored.xid == 0 || is_made_before(index, db, stored)? => OfDatabase::Nothing,
        Some((lsn, true)) => OfDatabase::Committed(lsn),
        // CREATE DATABASE that failed removes what it made, too.
        Some((_, false)) => OfDatabase::Nothing,
        None if drops || may_have_ended(index, db, stored)? => OfDatabase::Unsure,
        None => OfDatabase::Nothing,
    })
}

/// Whether the same transaction made the database before.
fn is_made_before(index: &Index, db: &Connection, stored: &EventRow) -> Result<bool> {
    let sql = "SELECT 1 FROM event WHERE timeline = ?1 AND number BETWEEN ?2 AND ?3 AND lsn < ?4 AND kind = ?5 \
               AND database = ?6 AND xid = ?7";
    let (first, kind) = (
        stored.number.saturating_sub(index.reach()),
        EventKind::DatabaseCreate as i64,
    );
    let (database, xid) = (stored.file.database, stored.xid);
    let bounds = params![
        stored.timeline.0,
        int(first),
        int(stored.number),
        int(stored.lsn.0),
        kind,
        database,
        xid
    ];
    db.prepare_cached(sql)?.exists(bounds)
}

/// Where the transaction of an event ended, and whether it committed.
fn end_of(index: &Index, db: &Connection, stored: &EventRow) -> Result<Option<(Lsn, bool)>> {
    let sql = "SELECT lsn, committed FROM ended WHERE xid = ?1 AND number BETWEEN ?2 AND ?3 AND timeline = ?4 \
               ORDER BY number, lsn LIMIT 1";
    let last = int(stored.number + index.reach());
    let bounds = params![stored.xid, int(stored.number), last, stored.timeline.0];
    let end = |row: &Row<'_>| Ok((Lsn(uint(row, 0)?), row.get(1)?));
    db.prepare_cached(sql)?.query_row(bounds, end).optional()
}

/// Whether the transaction of an event may have ended in a segment that does not say so, or is not indexed.
fn may_have_ended(index: &Index, db: &Connection, stored: &EventRow) -> Result<bool> {
    let (first, last) = (stored.number, stored.number + index.reach());
    if !maybe_ending(db, stored.timeline, first, last, stored.xid)?.is_empty() {
        return Ok(true);
    }
    let sql = "SELECT 1 FROM segment INDEXED BY segment_broken \
               WHERE timeline = ?1 AND number BETWEEN ?2 AND ?3 AND ok = 0 AND state <> 1";
    db.prepare_cached(sql)?
        .exists(params![stored.timeline.0, int(first), int(last)])
}

/// The segment of a timeline that may hold a record which begins in segment `at`, and is archived but not known. What
/// makes a record an event may also lie in the segments before.
pub(super) fn unknown_around(
    db: &Connection,
    timeline: TimelineId,
    at: u64,
) -> Result<Option<(TimelineId, u64)>> {
    let sql = "SELECT number, state = 1 AND (joined OR number = ?2), middle FROM segment \
               WHERE timeline = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(params![timeline.0, int(at), int(at + WINDOW)])?;
    let mut next = at;
    while let Some(row) = rows.next()? {
        let (number, is_known, is_middle): (u64, bool, bool) =
            (uint(row, 0)?, row.get(1)?, row.get(2)?);
        if number != next {
            break;
        }
        if !is_known {
            return Ok(Some((timeline, number)));
        }
        if number > at && !is_middle {
            break;
        }
        next += 1;
    }
    if next == at {
        return Ok(None);
    }
    let sql = "SELECT timeline, number FROM segment INDEXED BY segment_broken \
               WHERE timeline <= ?1 AND number BETWEEN ?2 AND ?3 AND ok = 0 AND state <> 1 ORDER BY number LIMIT 1";
    let bounds = params![
        timeline.0,
        int(at.saturating_sub(WINDOW)),
        int(at.saturating_sub(1))
    ];
    let read = |row: &Row<'_>| Ok((TimelineId(row.get(0)?), uint(row, 1)?));
    db.prepare_cached(sql)?.query_row(bounds, read).optional()
}

/// How many segments of the time that is asked for have more events than their summaries tell.
pub(super) fn overfull_segments(db: &Connection, filter: &Filter) -> Result<u64> {
    let sql = "SELECT count(*) FROM segment INDEXED BY segment_short WHERE points_left_out + events_left_out > 0 \
               AND coalesce(max_time >= ?1, TRUE) AND coalesce(min_time <= ?2, TRUE)";
    let since = filter.since.map_or(i64::MIN, |time| time.0);
    let until = filter.until.map_or(i64::MAX, |time| time.0);
    db.prepare_cached(sql)?
        .query_row(params![since, until], |row| uint(row, 0))
}
