//! Forgetting segments whose objects were replaced or are gone, with all that was concluded from them; what is there is
//! read again.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::column::{int, uint};
use super::segment::{SegmentKey, add_to_block};
use super::{BLOCK, Index, WINDOW, rows};
use crate::postgres::types::TimelineId;
use crate::postgres::wal::{Timestamp, Xid};

/// Forgets what segments hold, and what others got from them.
pub(super) fn forget(index: &Index, db: &Connection, replaced: &[SegmentKey]) -> Result<()> {
    let (mut concerned, mut later, mut blocks) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    if replaced.is_empty() {
        return Ok(());
    }
    let timelines = timelines(db)?;
    for segment in replaced {
        add_followers(db, &timelines, *segment, &mut concerned)?;
        add_pruned(db, *segment, &mut concerned)?;
    }
    for segment in &concerned {
        later.extend(rows::later(index, db, *segment)?);
        blocks.insert((segment.timeline, segment.number / BLOCK));
    }
    for segment in &concerned {
        for table in ["event", "rows", "ended", "created", "tablespace", "edge"] {
            let sql = format!("DELETE FROM {table} WHERE timeline = ?1 AND number = ?2");
            db.prepare_cached(&sql)?.execute(segment.columns())?;
        }
        // All other columns get their defaults.
        let sql = "INSERT OR REPLACE INTO segment (timeline, number, bytes, stored_at, listed) \
                   SELECT timeline, number, bytes, stored_at, listed FROM segment WHERE timeline = ?1 AND number = ?2";
        db.prepare_cached(sql)?.execute(segment.columns())?;
    }
    for (timeline, block) in blocks {
        sum_up(db, timeline, block)?;
    }
    later.difference(&concerned).try_for_each(|segment| rows::derive(index, db, *segment))
}

/// Forgets segments altogether.
pub(super) fn remove(index: &Index, db: &Connection, gone: &[SegmentKey]) -> Result<()> {
    forget(index, db, gone)?;
    for segment in gone {
        let (timeline, number) = segment.columns();
        let sql = "DELETE FROM segment WHERE timeline = ?1 AND number = ?2 RETURNING bytes";
        let mut delete = db.prepare_cached(sql)?;
        let Some(bytes) = delete.query_row([i64::from(timeline), number], |row| row.get::<_, i64>(0)).optional()?
        else {
            continue;
        };
        let block = params![timeline, int(segment.number / BLOCK), bytes];
        let sql = "UPDATE block SET segments = segments - 1, bytes = bytes - ?3 WHERE timeline = ?1 AND block = ?2";
        db.prepare_cached(sql)?.execute(block)?;
    }
    db.prepare_cached("DELETE FROM block WHERE segments = 0")?.execute([])?;
    Ok(())
}

fn timelines(db: &Connection) -> Result<Vec<u32>> {
    let mut select = db.prepare_cached("SELECT DISTINCT timeline FROM block")?;
    select.query_map([], |row| row.get(0))?.collect()
}

/// Adds a segment and those that have a record which began in it or before.
fn add_followers(
    db: &Connection,
    timelines: &[u32],
    segment: SegmentKey,
    concerned: &mut BTreeSet<SegmentKey>,
) -> Result<()> {
    let sql = "SELECT middle FROM segment WHERE timeline = ?1 AND number = ?2 AND previous = ?3 AND joined = 1";
    let mut select = db.prepare_cached(sql)?;
    let mut left = vec![segment];
    concerned.insert(segment);
    while let Some(segment) = left.pop() {
        for timeline in timelines {
            let next = SegmentKey { timeline: TimelineId(*timeline), ..segment.next() };
            let mut found = select.query(params![timeline, int(next.number), segment.timeline.0])?;
            let Some(row) = found.next()? else { continue };
            concerned.insert(next);
            if row.get(0)? {
                left.push(next);
            }
        }
    }
    Ok(())
}

/// Adds the segments that were pruned by what a segment mentions.
fn add_pruned(db: &Connection, segment: SegmentKey, concerned: &mut BTreeSet<SegmentKey>) -> Result<()> {
    let sql = "SELECT number FROM segment WHERE timeline = ?1 AND number > ?2 AND number <= ?3 AND pruned = 1";
    let mut select = db.prepare_cached(sql)?;
    let (timeline, at) = segment.columns();
    let pruned = select.query_map(params![timeline, at, int(segment.number + WINDOW)], |row| uint(row, 0))?;
    for number in pruned {
        concerned.insert(SegmentKey { number: number?, ..segment });
    }
    Ok(())
}

/// Makes what a block holds anew.
fn sum_up(db: &Connection, timeline: TimelineId, block: u64) -> Result<()> {
    let sql = "UPDATE block SET max_time = NULL, fresh_from = NULL, fresh_to = NULL WHERE timeline = ?1 AND block = ?2";
    db.prepare_cached(sql)?.execute(params![timeline.0, int(block)])?;
    let mut select = db.prepare_cached(
        "SELECT max_time, fresh_from, ended_newest FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3",
    )?;
    let first = SegmentKey { timeline, number: block * BLOCK };
    let mut segments = select.query(params![timeline.0, int(first.number), int(first.number + BLOCK)])?;
    while let Some(row) = segments.next()? {
        let time = row.get::<_, Option<i64>>(0)?.map(Timestamp);
        let fresh: (Option<Xid>, Option<Xid>) = (row.get(1)?, row.get(2)?);
        add_to_block(db, first, time, fresh.0.zip(fresh.1))?;
    }
    Ok(())
}
