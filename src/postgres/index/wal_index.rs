//! What planning asks.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::column::{int, nullable, uint};
use super::{BLOCK, Index, tablespace};
use crate::postgres::catalog::{KnownPrefix, Point, Unknown, WalIndex, XID_REUSE};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::{Commit, TablespaceMade, Timestamp, Xid};

type IndexAnswer<T> = Result<T, Unknown>;

/// Why there is no answer.
enum Unanswered {
    Unknown(Unknown),
    Failed(rusqlite::Error),
}

impl From<Unknown> for Unanswered {
    fn from(unknown: Unknown) -> Self {
        Self::Unknown(unknown)
    }
}

impl From<rusqlite::Error> for Unanswered {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl WalIndex for Index {
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> IndexAnswer<Option<u64>> {
        let least = if or_at {
            time.0
        } else {
            time.0.saturating_add(1)
        };
        self.ask(|db| {
            let found = first_later(db, timeline, from, until, least)?;
            match self.limit(db, timeline, from..found.map_or(until, |hit| hit + 1))? {
                Some(Limit { behind, why }) if found.is_none_or(|hit| hit >= behind) => {
                    Err(why.into())
                }
                _ => Ok(found),
            }
        })
    }

    fn ending(
        &self,
        xid: Xid,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> IndexAnswer<KnownPrefix<u64>> {
        self.ask(|db| {
            let sql = "SELECT number FROM ended WHERE xid = ?1 AND number >= ?3 AND number < ?4 AND timeline = ?2";
            let mut select = db.prepare_cached(sql)?;
            let bounds = params![xid, timeline.0, int(from), int(until.min(LAST))];
            let named = select.query_map(bounds, |row| uint(row, 0))?.collect::<Result<Vec<u64>, _>>()?;
            let maybe = maybe_ending(db, timeline, from, until, xid)?;
            let mut found: Vec<(u64, bool)> = maybe.into_iter().map(|number| (number, false)).collect();
            found.extend(named.into_iter().map(|number| (number, true)));
            found.sort_unstable();
            let KnownPrefix { found, more } = self.told(db, timeline, from..until, found, |(number, _)| *number)?;
            let named: Vec<u64> = found.iter().filter(|(_, is_named)| *is_named).map(|(number, _)| *number).collect();
            // One of the same number does not end near to where one is known to have ended.
            let reuse = XID_REUSE / self.size.bytes();
            let counts = |(number, is_named): &(u64, bool)| {
                *is_named || named.iter().all(|named| named.abs_diff(*number) >= reuse)
            };
            let mut found: Vec<u64> = found.into_iter().filter(counts).map(|(number, _)| number).collect();
            found.dedup();
            Ok(KnownPrefix { found, more })
        })
    }

    fn restore_points(
        &self,
        name: &str,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> IndexAnswer<KnownPrefix<Point>> {
        self.ask(|db| {
            let mut select = db.prepare_cached(NAMED_POINTS)?;
            let bounds = params![timeline.0, int(from), int(until.min(LAST)), name];
            let named = select.query_map(bounds, |row| {
                let (segment, lsn) = (uint(row, 0)?, Lsn(uint(row, 1)?));
                Ok(Point::Named { segment, lsn, time: Timestamp(row.get(2)?) })
            })?;
            let mut points = named.collect::<Result<Vec<_>, _>>()?;
            let mut select = db.prepare_cached(
                "SELECT number FROM segment INDEXED BY segment_short WHERE timeline = ?1 AND number >= ?2 AND number < ?3 \
                 AND points_left_out + events_left_out > 0 AND points_left_out > 0",
            )?;
            let bounds = params![timeline.0, int(from), int(until.min(LAST))];
            for unnamed in select.query_map(bounds, |row| uint(row, 0))? {
                points.push(Point::Unnamed { segment: unnamed? });
            }
            points.sort_by_key(Point::segment);
            Ok(self.told(db, timeline, from..until, points, Point::segment)?)
        })
    }

    fn first_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> IndexAnswer<Option<Commit>> {
        self.ask(|db| {
            let found = commit(db, FIRST_COMMIT, timeline, from..until)?;
            match self.limit(
                db,
                timeline,
                from..found.map_or(until, |hit| hit.number + 1),
            )? {
                Some(Limit { behind, why }) if found.is_none_or(|hit| hit.number >= behind) => {
                    Err(why.into())
                }
                _ => Ok(found.map(|hit| hit.commit)),
            }
        })
    }

    fn last_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> IndexAnswer<Option<Commit>> {
        self.ask(|db| {
            let mut found = commit(db, LAST_COMMIT, timeline, from..until)?;
            if let Some(hit) = found
                && let Some(lsn) = hit.boundary_stop.filter(|_| hit.number > from)
            {
                if hit.number + 1 < until {
                    return Err(Unknown::Broken {
                        segment: self.name(timeline, hit.number),
                        lsn,
                    }
                    .into());
                }
                // Replay ends before the last segment.
                found = commit(db, LAST_COMMIT, timeline, from..hit.number)?;
            }
            match self.limit(db, timeline, found.map_or(from, |hit| hit.number)..until)? {
                Some(Limit {
                    why: Unknown::Broken { segment, .. },
                    ..
                }) if segment.number(self.size) + 1 == until => Ok(found.map(|hit| hit.commit)),
                Some(Limit { why, .. }) => Err(why.into()),
                None => Ok(found.map(|hit| hit.commit)),
            }
        })
    }

    fn tablespaces(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> IndexAnswer<KnownPrefix<TablespaceMade>> {
        self.ask(|db| {
            let made = tablespace::within(db, timeline, from..until.min(LAST))?;
            let KnownPrefix { found, more } =
                self.told(db, timeline, from..until, made, |(number, _)| *number)?;
            Ok(KnownPrefix {
                found: found.into_iter().map(|(_, made)| made).collect(),
                more,
            })
        })
    }

    fn check_boundary(&self, timeline: TimelineId, number: u64) -> IndexAnswer<()> {
        self.ask(|db| {
            let sql = "SELECT boundary_stop FROM segment WHERE timeline = ?1 AND number = ?2";
            let bounds = params![timeline.0, int(number)];
            let stop = db
                .prepare_cached(sql)?
                .query_row(bounds, |row| nullable(row, 0))
                .optional()?;
            match stop.flatten() {
                Some(lsn) => Err(Unknown::Broken {
                    segment: self.name(timeline, number),
                    lsn: Lsn(lsn),
                }
                .into()),
                None => Ok(()),
            }
        })
    }
}

/// No segment has a number beyond this, and SQLite sorts it rightly.
const LAST: u64 = i64::MAX as u64;

// Each of these has bounds: timeline, first number, number behind the last.
pub(super) const FIRST_COMMIT: &str = "SELECT number, first_commit_lsn, first_commit_xid, first_commit_time, boundary_stop FROM segment \
     WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND commits > 0 ORDER BY number LIMIT 1";
pub(super) const LAST_COMMIT: &str = "SELECT number, last_commit_lsn, last_commit_xid, last_commit_time, boundary_stop FROM segment \
     WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND commits > 0 ORDER BY number DESC LIMIT 1";
/// And the name. Left to itself SQLite would go through all events of the timeline.
pub(super) const NAMED_POINTS: &str = "SELECT number, lsn, time FROM event INDEXED BY event_label \
     WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND label = ?4 ORDER BY number, lsn";
pub(super) const BROKEN: &str = "SELECT number, state, boundary_stop, stop, joined FROM segment INDEXED BY segment_broken \
     WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND (ok = 0 OR joined = 0) ORDER BY number";
pub(super) const LISTED: &str =
    "SELECT number FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3";
pub(super) const FULL_BLOCKS: &str = "SELECT block FROM block WHERE timeline = ?1 AND block >= ?2 AND block < ?3 AND segments = 1024";
/// And the transaction. Numbers go round; a segment's range whose end is older than its begin is empty.
pub(super) const BLOCKS_MAYBE_ENDING: &str = "SELECT block FROM block WHERE timeline = ?1 AND block >= ?2 AND block < ?3 \
     AND ((?4 - fresh_from) & 4294967295) <= ((fresh_to - fresh_from) & 4294967295) ORDER BY block";
pub(super) const MAYBE_ENDING: &str = "SELECT number FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3 \
     AND ((?4 - fresh_from) & 4294967295) <= ((fresh_to - fresh_from) & 4294967295) \
     AND ((fresh_to - fresh_from) & 4294967295) < 2147483648 ORDER BY number";

/// How far answers stand.
struct Limit {
    /// The first segment of which nothing counts.
    behind: u64,
    why: Unknown,
}

impl Index {
    /// Answers from one state of the index, whatever others do to it meanwhile.
    fn ask<T>(
        &self,
        answer: impl FnOnce(&Transaction<'_>) -> Result<T, Unanswered>,
    ) -> IndexAnswer<T> {
        let asked = || answer(&self.connection().unchecked_transaction()?);
        asked().map_err(|why| match why {
            Unanswered::Unknown(unknown) => unknown,
            Unanswered::Failed(error) => {
                self.mend(&error);
                Unknown::Failed(format!("{}: {error}", self.place()))
            }
        })
    }

    /// Up to where all that is asked for is known, and replay gets; `None`: to the end. What lies before the first segment
    /// does not matter, but for what crosses into it.
    fn limit(
        &self,
        db: &Connection,
        timeline: TimelineId,
        asked: Range<u64>,
    ) -> rusqlite::Result<Option<Limit>> {
        let absent = first_absent(db, timeline, asked.clone())?;
        let mut select = db.prepare_cached(BROKEN)?;
        let end = absent.unwrap_or(asked.end).min(LAST);
        let mut found = select.query(params![timeline.0, int(asked.start), int(end)])?;
        let unknown = |number| Limit {
            behind: number,
            why: Unknown::Segment(self.name(timeline, number)),
        };
        while let Some(row) = found.next()? {
            let number = uint(row, 0)?;
            if row.get::<_, i64>(1)? != 1 {
                return Ok(Some(unknown(number)));
            }
            let (segment, is_first) = (self.name(timeline, number), number == asked.start);
            if let Some(lsn) = nullable(row, 2)?.map(Lsn).filter(|_| !is_first) {
                return Ok(Some(Limit {
                    behind: number,
                    why: Unknown::Broken { segment, lsn },
                }));
            }
            // What the one before hands on was not known: to be read again, or never to be known.
            let joined: bool = row.get(4)?;
            if !joined && !is_first {
                return Ok(Some(unknown(number)));
            }
            if let Some(lsn) = nullable(row, 3)?.map(Lsn) {
                return Ok(Some(Limit {
                    behind: number + 1,
                    why: Unknown::Broken { segment, lsn },
                }));
            }
        }
        Ok(absent.map(unknown))
    }

    /// Of what was found, what stands.
    fn told<T>(
        &self,
        db: &Connection,
        timeline: TimelineId,
        asked: Range<u64>,
        mut found: Vec<T>,
        number: impl Fn(&T) -> u64,
    ) -> rusqlite::Result<KnownPrefix<T>> {
        let limit = self.limit(db, timeline, asked)?;
        found.retain(|one| {
            limit
                .as_ref()
                .is_none_or(|limit| number(one) < limit.behind)
        });
        Ok(KnownPrefix {
            found,
            more: limit.map(|limit| limit.why),
        })
    }
}

/// The first of these segments that was not listed. Blocks that have all of theirs are passed over.
pub(super) fn first_absent(
    db: &Connection,
    timeline: TimelineId,
    asked: Range<u64>,
) -> rusqlite::Result<Option<u64>> {
    let hole = |sql: &str, wanted: Range<u64>| -> rusqlite::Result<Option<u64>> {
        let bounds = params![timeline.0, int(wanted.start), int(wanted.end)];
        // SQLite counts ten times as fast as it tells.
        let mut count = db.prepare_cached(&format!("SELECT count(*) FROM ({sql})"))?;
        if count.query_row(bounds, |row| uint(row, 0))? == wanted.end.saturating_sub(wanted.start) {
            return Ok(None);
        }
        let mut select = db.prepare_cached(&format!("{sql} ORDER BY 1"))?;
        let mut rows = select.query(bounds)?;
        let mut expected = wanted.start;
        while expected < wanted.end {
            match rows.next()? {
                Some(row) if uint(row, 0)? == expected => expected += 1,
                _ => return Ok(Some(expected)),
            }
        }
        Ok(None)
    };
    let end = asked.end.min(LAST);
    let mut at = asked.start;
    while at < end {
        let Some(block) = hole(FULL_BLOCKS, at / BLOCK..end.div_ceil(BLOCK))? else {
            return Ok(None);
        };
        let behind = end.min((block + 1) * BLOCK);
        if let Some(absent) = hole(LISTED, at.max(block * BLOCK)..behind)? {
            return Ok(Some(absent));
        }
        at = behind;
    }
    Ok(None)
}

/// A commit, its segment, and where the WAL is broken before that.
#[derive(Clone, Copy)]
struct Hit {
    number: u64,
    commit: Commit,
    boundary_stop: Option<Lsn>,
}

fn commit(
    db: &Connection,
    sql: &str,
    timeline: TimelineId,
    within: Range<u64>,
) -> rusqlite::Result<Option<Hit>> {
    let read = |row: &Row<'_>| {
        let commit = Commit {
            lsn: Lsn(uint(row, 1)?),
            xid: row.get(2)?,
            time: Timestamp(row.get(3)?),
        };
        Ok(Hit {
            number: uint(row, 0)?,
            commit,
            boundary_stop: nullable(row, 4)?.map(Lsn),
        })
    };
    let bounds = params![timeline.0, int(within.start), int(within.end.min(LAST))];
    db.prepare_cached(sql)?.query_row(bounds, read).optional()
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
        db.prepare_cached(sql)?
            .query_row(bounds, |row| uint(row, 0))
            .optional()
    };
    let mut block = from / BLOCK;
    loop {
        let sql = "SELECT block FROM block WHERE timeline = ?1 AND block >= ?2 AND max_time >= ?3 ORDER BY block LIMIT 1";
        let next = db
            .prepare_cached(sql)?
            .query_row(params![timeline.0, int(block), least], |row| uint(row, 0));
        let Some(next) = next.optional()?.filter(|next| next * BLOCK < until) else {
            return Ok(None);
        };
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
    let (mut blocks, mut segments) = (
        db.prepare_cached(BLOCKS_MAYBE_ENDING)?,
        db.prepare_cached(MAYBE_ENDING)?,
    );
    let (mut found, until) = (Vec::new(), until.min(LAST));
    let mut rows = blocks.query(params![
        timeline.0,
        int(from / BLOCK),
        int(until.div_ceil(BLOCK)),
        xid
    ])?;
    while let Some(row) = rows.next()? {
        let begin = uint(row, 0)? * BLOCK;
        let bounds = params![
            timeline.0,
            int(begin.max(from)),
            int(until.min(begin + BLOCK)),
            xid
        ];
        let within = segments.query_map(bounds, |row| uint(row, 0))?;
        found.extend(within.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(found)
}
