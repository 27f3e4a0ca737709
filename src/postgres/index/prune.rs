//! Which transactions are of interest. A busy segment ends thousands of them, and names the oldest hundred; but only
//! those that began in an earlier segment tell something that the segment does not tell by itself. Which those are, the
//! segments before show: what they mention is not new.
//!
//! A segment is pruned once all of the [`WINDOW`] before it are there, whenever that is, so that the same segments make
//! the same index in whatever order they come.

use rusqlite::{Connection, Result, params};

use super::WINDOW;
use super::column::{int, uint};
use super::segment::{PG_CLASS, SegmentKey, newer, widen_fresh};
use crate::postgres::catalog::{FIRST_NORMAL, LEAST_ROWS};
use crate::postgres::wal::Xid;

/// The newest transaction that the segments of the window mention; `None` unless all of them are there.
pub(super) fn window(db: &Connection, segment: SegmentKey) -> Result<Option<Xid>> {
    let Some(from) = segment.number.checked_sub(WINDOW) else { return Ok(None) };
    let sql = "SELECT newest FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3 AND state = 1";
    let mut select = db.prepare_cached(sql)?;
    let (timeline, before) = segment.columns();
    let rows = select.query_map(params![timeline, int(from), before], |row| row.get::<_, Option<Xid>>(0))?;
    let mentioned: Vec<Option<Xid>> = rows.collect::<Result<_>>()?;
    if (mentioned.len() as u64) < WINDOW {
        return Ok(None);
    }
    Ok(mentioned.into_iter().flatten().reduce(newer))
}

/// Prunes the segments behind one whose window it made whole.
pub(super) fn those_after(db: &Connection, segment: SegmentKey) -> Result<()> {
    let sql = "SELECT number FROM segment \
               WHERE timeline = ?1 AND number > ?2 AND number <= ?3 AND state = 1 AND pruned = 0";
    let (timeline, at) = segment.columns();
    let last = int(segment.number + WINDOW);
    let mut select = db.prepare_cached(sql)?;
    let later: Vec<u64> = select.query_map(params![timeline, at, last], |row| uint(row, 0))?.collect::<Result<_>>()?;
    for number in later {
        let later = SegmentKey { number, ..segment };
        if let Some(window) = window(db, later)? {
            prune(db, later, window)?;
        }
    }
    Ok(())
}

/// Whether the transaction in the column `xid` is newer than `?3`.
const BEGAN_HERE: &str = "((xid - ?3) & 0xFFFFFFFF) BETWEEN 1 AND 0x7FFFFFFF";

/// Removes what [`add_facts`](super::segment::add_facts) passes over when it knows the window.
fn prune(db: &Connection, segment: SegmentKey, window: Xid) -> Result<()> {
    let (timeline, number) = segment.columns();
    let rows = format!(
        "DELETE FROM rows WHERE timeline = ?1 AND number = ?2 AND commit_lsn IS NOT NULL AND updated + deleted < ?4 \
         AND file <> {PG_CLASS} AND {BEGAN_HERE} AND (file < {FIRST_NORMAL} \
             OR (SELECT rows_left_out FROM segment WHERE timeline = ?1 AND number = ?2) > 0)"
    );
    db.prepare_cached(&rows)?.execute(params![timeline, number, window, int(LEAST_ROWS)])?;
    let ended =
        format!("DELETE FROM ended WHERE timeline = ?1 AND number = ?2 AND kept = 0 AND {BEGAN_HERE} RETURNING xid");
    let mut delete = db.prepare_cached(&ended)?;
    let gone = delete.query_map(params![timeline, number, window], |row| row.get::<_, Xid>(0))?;
    // The oldest is that closest to the window.
    let oldest = gone.collect::<Result<Vec<Xid>>>()?.into_iter().min_by_key(|xid| xid.wrapping_sub(window));
    db.prepare_cached("UPDATE segment SET pruned = 1 WHERE timeline = ?1 AND number = ?2")?
        .execute(segment.columns())?;
    widen_fresh(db, segment, oldest.map(|oldest| (oldest, oldest)))
}
