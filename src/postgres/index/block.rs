//! What lookups skip by: segments in blocks of [`BLOCK`].

use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::BLOCK;
use super::column::{SegmentKey, int};
use super::xid::{XidRange, is_newer, of_both};
use crate::postgres::types::TimelineId;

/// Widens what the block of a segment holds.
pub(super) fn widen(
    db: &Connection,
    segment: SegmentKey,
    time: Option<i64>,
    fresh: Option<XidRange>,
) -> Result<()> {
    if time.is_none() && fresh.is_none() {
        return Ok(());
    }
    let (timeline, block) = (segment.timeline.0, int(segment.number / BLOCK));
    let sql = "SELECT max_time, fresh_from, fresh_to FROM block WHERE timeline = ?1 AND block = ?2";
    let kept = db
        .prepare_cached(sql)?
        .query_row((timeline, block), held)
        .optional()?;
    let (kept_time, kept_fresh) = kept.unwrap_or_default();
    let fresh = match (kept_fresh, fresh.filter(|(from, to)| !is_newer(*from, *to))) {
        (Some(a), Some(b)) => Some(of_both(a, b)),
        (a, b) => a.or(b),
    };
    let sql = "UPDATE block SET max_time = ?3, fresh_from = ?4, fresh_to = ?5 WHERE timeline = ?1 AND block = ?2";
    let (from, to) = fresh.unzip();
    db.prepare_cached(sql)?
        .execute(params![timeline, block, kept_time.max(time), from, to])?;
    Ok(())
}

/// A time and a range, from a row of both.
fn held(row: &Row<'_>) -> Result<(Option<i64>, Option<XidRange>)> {
    let (from, to): (Option<u32>, Option<u32>) = (row.get(1)?, row.get(2)?);
    Ok((row.get(0)?, from.zip(to)))
}

/// Makes what a block holds anew.
pub(super) fn sum_up(db: &Connection, timeline: TimelineId, block: u64) -> Result<()> {
    let sql = "UPDATE block SET max_time = NULL, fresh_from = NULL, fresh_to = NULL WHERE timeline = ?1 AND block = ?2";
    db.prepare_cached(sql)?
        .execute(params![timeline.0, int(block)])?;
    let first = SegmentKey {
        timeline,
        number: block * BLOCK,
    };
    let mut select = db.prepare_cached(
        "SELECT max_time, fresh_from, fresh_to FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3",
    )?;
    for segment in select.query_map(
        params![timeline.0, int(first.number), int(first.number + BLOCK)],
        held,
    )? {
        let (time, fresh) = segment?;
        widen(db, first, time, fresh)?;
    }
    Ok(())
}
