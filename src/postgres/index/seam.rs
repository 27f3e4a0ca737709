//! Where one segment follows another. A record that crosses belongs to the segment that it ends in. What joining needs
//! of a segment, its edge, is kept until both its neighbours are joined with it.

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::column::{from_json, int, json};
use super::segment::{SegmentKey, add_commits, add_facts, widen_fresh};
use super::{Archived, Index, rows};
use crate::postgres::types::TimelineId;
use crate::postgres::wal::{Event, Seam, Stop, Summary, Tail, What, join};

/// What a summary's neighbours need of it.
struct Edge {
    summary: Summary,
    /// The beginning of a record that came through the segments before.
    tail: Option<Tail>,
    /// With the segment before.
    joined: bool,
}

/// All of the segment is the middle of a record: what it ends with is known once it is joined with the one before.
pub(super) fn is_middle(summary: &Summary) -> bool {
    summary.head.as_ref().is_some_and(|head| head.end.is_none())
}

/// Joins a new segment with its neighbours, as far as they are there.
pub(super) fn add(index: &Index, db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
    put_edge(db, segment, summary)?;
    let previous = summary.first_timeline.unwrap_or(segment.timeline);
    join_with(index, db, previous, segment)?;
    join_those_after(index, db, segment)
}

/// Puts the edge of a segment back, joins what waits for it, and drops it again. The middle of a record has to be joined
/// with the one before again: what came through that one is gone.
pub(super) fn lend(index: &Index, db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
    put_edge(db, segment, summary)?;
    if is_middle(summary) {
        db.prepare_cached("UPDATE segment SET joined = 0 WHERE timeline = ?1 AND number = ?2")?
            .execute(segment.columns())?;
        return join_with(index, db, summary.first_timeline.unwrap_or(segment.timeline), segment);
    }
    join_those_after(index, db, segment)
}

fn join_those_after(index: &Index, db: &Connection, segment: SegmentKey) -> Result<()> {
    let sql = "SELECT timeline FROM edge JOIN segment USING (timeline, number) \
               WHERE number = ?2 AND previous = ?1 AND joined = 0";
    let mut select = db.prepare_cached(sql)?;
    let (timeline, next) = segment.next().columns();
    let later: Vec<u32> = select.query_map(params![timeline, next], |row| row.get(0))?.collect::<Result<_>>()?;
    for later in later {
        join_with(index, db, segment.timeline, SegmentKey { timeline: TimelineId(later), ..segment.next() })?;
    }
    drop_joined(db, segment)
}

/// Joins a segment with the one before it, which `previous` has, if both edges are there; then what that makes possible.
fn join_with(index: &Index, db: &Connection, previous: TimelineId, later: SegmentKey) -> Result<()> {
    let Some(before) = later.number.checked_sub(1) else { return Ok(()) };
    let before = SegmentKey { timeline: previous, number: before };
    let (Some(earlier), Some(edge)) = (edge(db, before)?, edge(db, later)?) else { return Ok(()) };
    if is_middle(&earlier.summary) && !earlier.joined {
        return Ok(());
    }
    let tail = earlier.tail.as_ref().or(earlier.summary.tail.as_ref());
    match join(&earlier.summary, tail, &edge.summary) {
        Ok(Seam::Clean) => note(db, later, None)?,
        Ok(Seam::Crossed(crossing)) => {
            note(db, later, None)?;
            let fresh = add_facts(db, later, &crossing, None, true)?;
            widen_fresh(db, later, fresh)?;
            add_commits(db, later, &crossing)?;
            rows::derive_all(index, db, later)?;
        }
        Ok(Seam::GoesOn(tail)) => {
            note(db, later, None)?;
            let (timeline, number) = later.columns();
            let sql = "UPDATE edge SET tail = ?3 WHERE timeline = ?1 AND number = ?2";
            db.prepare_cached(sql)?.execute(params![timeline, number, json(&tail)?])?;
            join_those_after(index, db, later)?;
        }
        Err(stop) => {
            note(db, later, Some(&stop))?;
            if is_middle(&edge.summary) {
                join_those_after(index, db, later)?;
            }
        }
    }
    drop_joined(db, before)?;
    drop_joined(db, later)
}

/// Notes that a segment is joined with the one before it, or that the WAL breaks there.
fn note(db: &Connection, segment: SegmentKey, stop: Option<&Stop>) -> Result<()> {
    let (timeline, number) = segment.columns();
    let sql =
        "UPDATE segment SET joined = 1, seam_stop = ?3, ok = ok AND ?3 IS NULL WHERE timeline = ?1 AND number = ?2";
    db.prepare_cached(sql)?.execute(params![timeline, number, stop.map(|stop| int(stop.lsn.0))])?;
    Ok(())
}

fn put_edge(db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
    let (timeline, number) = segment.columns();
    // All that `join` looks at.
    let edge = Summary {
        major: summary.major,
        first_timeline: summary.first_timeline,
        first: summary.first,
        last: summary.last,
        end: summary.end,
        events: summary.events.first().filter(|event| overwrites(event)).cloned().into_iter().collect(),
        stop: summary.stop.clone(),
        head: summary.head.clone(),
        tail: summary.tail.clone(),
        ..Summary::default()
    };
    let sql = "INSERT OR REPLACE INTO edge (timeline, number, summary) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?.execute(params![timeline, number, json(&edge)?])?;
    Ok(())
}

fn overwrites(event: &Event) -> bool {
    matches!(event.what, What::Overwritten { .. })
}

fn edge(db: &Connection, segment: SegmentKey) -> Result<Option<Edge>> {
    let sql = "SELECT summary, tail, joined FROM edge JOIN segment USING (timeline, number) \
               WHERE timeline = ?1 AND number = ?2";
    let row = db.prepare_cached(sql)?.query_row(segment.columns(), |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?))
    });
    let Some((summary, tail, joined)) = row.optional()? else { return Ok(None) };
    let tail = tail.map(|tail| from_json(&tail)).transpose()?;
    Ok(Some(Edge { summary: from_json(&summary)?, tail, joined }))
}

/// Drops the edge of a segment that is joined on both sides on its own timeline.
fn drop_joined(db: &Connection, segment: SegmentKey) -> Result<()> {
    let sql = "DELETE FROM edge WHERE timeline = ?1 AND number = ?2 AND 2 = (SELECT count(*) FROM segment \
               WHERE timeline = ?1 AND number IN (?2, ?2 + 1) AND joined = 1 AND (number = ?2 OR previous = ?1))";
    db.prepare_cached(sql)?.execute(segment.columns())?;
    Ok(())
}

impl Index {
    /// Segments that are known, but whose edge is needed once more: by one that follows on another timeline.
    pub(super) fn edges_wanted(&self) -> anyhow::Result<Vec<Archived>> {
        let db = self.connection();
        let mut select = db.prepare_cached(
            "SELECT before.timeline, before.number, before.bytes, before.stored_at \
             FROM edge CROSS JOIN segment AS later USING (timeline, number) \
             CROSS JOIN segment AS before ON before.timeline = later.previous AND before.number = later.number - 1 \
             WHERE later.joined = 0 AND before.state = 1 AND NOT EXISTS (SELECT 1 FROM edge AS own \
                 WHERE own.timeline = before.timeline AND own.number = before.number)",
        )?;
        Ok(select.query_map([], |row| self.archived(row))?.collect::<Result<_>>()?)
    }
}
