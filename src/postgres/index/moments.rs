//! What planning asks.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};

use super::segment::{is_newer, number};
use super::{BLOCK, Index, int, seam, uint};
use crate::postgres::catalog::{Around, Moments, Point, Unknown};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::{Commit, Timestamp, Xid};

impl From<rusqlite::Error> for Unknown {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

type Answer<T> = Result<T, Unknown>;

impl Moments for Index {
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> Answer<Option<u64>> {
        let least = if or_at { time.0 } else { time.0.saturating_add(1) };
        let db = self.connection();
        let found = first_later(&db, timeline, from, until, least)?;
        self.is_known(&db, timeline, from..until, found)?;
        Ok(found)
    }

    fn ending(&self, xid: Xid, timeline: TimelineId, from: u64, until: u64) -> Answer<Vec<u64>> {
        let db = self.connection();
        let sql = "SELECT number FROM ended WHERE xid = ?1 AND number >= ?3 AND number < ?4 AND timeline = ?2";
        let mut select = db.prepare_cached(sql)?;
        let bounds = params![xid, timeline.0, int(from), int(until.min(LAST))];
        let named = select.query_map(bounds, |row| number(row, 0))?.collect::<Result<Vec<u64>, _>>()?;
        let mut found = maybe_ending(&db, timeline, from, until, xid)?;
        found.extend(&named);
        found.sort_unstable();
        found.dedup();
        self.is_known(&db, timeline, from..until, named.into_iter().min())?;
        Ok(found)
    }

    fn restore_points(&self, name: &str, timeline: TimelineId, from: u64, until: u64) -> Answer<Vec<Point>> {
        let db = self.connection();
        let mut select = db.prepare_cached(
            "SELECT number, lsn, time FROM event \
             WHERE label = ?1 AND timeline = ?2 AND number >= ?3 AND number < ?4 ORDER BY number, lsn",
        )?;
        let bounds = params![name, timeline.0, int(from), int(until.min(LAST))];
        let named = select.query_map(bounds, |row| {
            let (segment, lsn) = (number(row, 0)?, Lsn(uint(row.get(1)?)));
            Ok(Point::Named { segment, lsn, time: Timestamp(row.get(2)?) })
        })?;
        let mut points = named.collect::<Result<Vec<_>, _>>()?;
        let first = points.first().map(Point::segment);
        let mut select = db.prepare_cached(
            "SELECT number FROM segment INDEXED BY segment_short WHERE timeline = ?1 AND number >= ?2 AND number < ?3 \
             AND points_left_out + events_left_out > 0 AND points_left_out > 0",
        )?;
        let bounds = params![timeline.0, int(from), int(until.min(LAST))];
        for unnamed in select.query_map(bounds, |row| number(row, 0))? {
            points.push(Point::Unnamed { segment: unnamed? });
        }
        points.sort_by_key(Point::segment);
        match self.is_known(&db, timeline, from..until, first) {
            // What may be before the break is looked into.
            Err(Unknown::Broken { segment, .. })
                if points.first().is_some_and(|point| point.segment() <= segment.number(self.size)) =>
            {
                points.retain(|point| point.segment() <= segment.number(self.size));
                Ok(points)
            }
            known => known.map(|()| points),
        }
    }

    fn around(&self, timeline: TimelineId, lsn: Lsn) -> Answer<Around> {
        let at = lsn.0 / self.size.bytes();
        let db = self.connection();
        let before = "SELECT number, state, ok, commits, last_commit_lsn, last_commit_xid, last_commit_time FROM segment \
                      WHERE timeline = ?1 AND number < ?2 ORDER BY number DESC";
        let after = "SELECT number, state, ok, commits, first_commit_lsn, first_commit_xid, first_commit_time FROM segment \
                     WHERE timeline = ?1 AND number > ?2 ORDER BY number";
        let neighbour = |step: i64, sql: &str| nearest(&db, sql, timeline, at, step);
        Ok(Around { before: neighbour(-1, before)?, after: neighbour(1, after)? })
    }
}

/// No segment has a number beyond this, and SQLite sorts it rightly.
const LAST: u64 = i64::MAX as u64;

impl Index {
    /// Whether an answer stands that was found in the segment `hit`, or that there is none: all that is archived before
    /// it is known, and replay gets there.
    fn is_known(&self, db: &Connection, timeline: TimelineId, asked: Range<u64>, hit: Option<u64>) -> Answer<()> {
        let mut select = db.prepare_cached(
            "SELECT number, state, seam_stop, stop FROM segment INDEXED BY segment_trouble \
             WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND ok = 0 ORDER BY number",
        )?;
        let end = hit.map_or(asked.end, |hit| hit + 1).min(LAST);
        let mut found = select.query(params![timeline.0, int(asked.start), int(end)])?;
        while let Some(row) = found.next()? {
            let number = number(row, 0)?;
            let segment = self.name(timeline, number);
            if row.get::<_, i64>(1)? != 1 {
                return Err(Unknown::Segment(segment));
            }
            // What lies before the first one asked for does not matter.
            if let Some(lsn) = seam::lsn(row, 2)?.filter(|_| number > asked.start) {
                return Err(Unknown::Broken { segment, lsn });
            }
            if let Some(lsn) = seam::lsn(row, 3)?.filter(|_| hit.is_none_or(|hit| number < hit)) {
                return Err(Unknown::Broken { segment, lsn });
            }
        }
        Ok(())
    }
}

/// The first segment with an end at `least` or later. Whole blocks are passed over by their latest time.
fn first_later(
    db: &Connection,
    timeline: TimelineId,
    from: u64,
    until: u64,
    least: i64,
) -> rusqlite::Result<Option<u64>> {
    let within = |from: u64, until: u64| -> rusqlite::Result<Option<u64>> {
        let sql = "SELECT number FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND max_time >= ?4 \
                   ORDER BY number LIMIT 1";
        let bounds = params![timeline.0, int(from.min(LAST)), int(until.min(LAST)), least];
        db.prepare_cached(sql)?.query_row(bounds, |row| number(row, 0)).optional()
    };
    let mut block = from / BLOCK;
    loop {
        let sql =
            "SELECT block FROM block WHERE timeline = ?1 AND block >= ?2 AND max_time >= ?3 ORDER BY block LIMIT 1";
        let next = db.prepare_cached(sql)?.query_row(params![timeline.0, int(block), least], |row| number(row, 0));
        let Some(next) = next.optional()?.filter(|next| next * BLOCK < until) else { return Ok(None) };
        if let Some(found) = within(from.max(next * BLOCK), until.min((next + 1) * BLOCK))? {
            return Ok(Some(found));
        }
        block = next + 1;
    }
}

/// Segments in which a transaction may have ended without being named.
pub(super) fn maybe_ending(
    db: &Connection,
    timeline: TimelineId,
    from: u64,
    until: u64,
    xid: Xid,
) -> rusqlite::Result<Vec<u64>> {
    let mut blocks = db.prepare_cached(
        "SELECT block, fresh_from, fresh_to FROM block \
         WHERE timeline = ?1 AND block BETWEEN ?2 AND ?3 AND fresh_from IS NOT NULL ORDER BY block",
    )?;
    let mut segments = db.prepare_cached(
        "SELECT number, fresh_from, ended_newest FROM segment \
         WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND fresh_from IS NOT NULL ORDER BY number",
    )?;
    let holds = |row: &rusqlite::Row<'_>| -> rusqlite::Result<bool> {
        let (from, to): (Xid, Xid) = (row.get(1)?, row.get(2)?);
        Ok(!is_newer(from, xid) && !is_newer(xid, to))
    };
    let mut found = Vec::new();
    let last = until.min(LAST).saturating_sub(1) / BLOCK;
    let mut rows = blocks.query(params![timeline.0, int(from / BLOCK), int(last)])?;
    while let Some(row) = rows.next()? {
        if !holds(row)? {
            continue;
        }
        let begin = number(row, 0)? * BLOCK;
        let bounds = params![timeline.0, int(begin.max(from)), int(until.min(begin + BLOCK))];
        let mut within = segments.query(bounds)?;
        while let Some(row) = within.next()? {
            if holds(row)? {
                found.push(number(row, 0)?);
            }
        }
    }
    Ok(found)
}

/// The commit nearest to a segment, in the direction of `step`, without anything missing on the way.
fn nearest(db: &Connection, sql: &str, timeline: TimelineId, at: u64, step: i64) -> rusqlite::Result<Option<Commit>> {
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(params![timeline.0, int(at)])?;
    let mut expected = int(at) + step;
    while let Some(row) = rows.next()? {
        let (number, state, ok, commits): (i64, i64, bool, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        if number != expected || state != 1 || !ok {
            break;
        }
        if commits > 0 {
            let lsn = Lsn(uint(row.get(4)?));
            return Ok(Some(Commit { lsn, xid: row.get(5)?, time: Timestamp(row.get(6)?) }));
        }
        expected += step;
    }
    Ok(None)
}
