//! What follows from a segment's summary and from what the one before hands on, so in the order of their places. When a
//! segment hands on something else than the last time, the one that follows is read again.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::carried::{self, Carried};
use super::column::{SegmentKey, int, uint};
use super::xid::{XidRange, newer, span};
use super::{BLOCK, Index, block, facts, rows};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::{Boundary, Commit, Summary};

/// How a segment follows the one before.
struct Following {
    previous: TimelineId,
    /// Whether what the one before hands on is known.
    joined: bool,
    boundary_stop: Option<Lsn>,
    /// The record that ends in the segment and began before.
    crossing: Option<Box<Summary>>,
}

/// Puts in what a segment holds, and what crosses into it.
pub(super) fn derive(
    index: &Index,
    db: &Connection,
    segment: SegmentKey,
    summary: &Summary,
) -> Result<()> {
    let previous = summary.first_timeline.unwrap_or(segment.timeline);
    let before = match segment.number.checked_sub(1) {
        Some(number) => carried::of(
            db,
            SegmentKey {
                timeline: previous,
                number,
            },
        )?,
        None => None,
    };
    let mut following = Following {
        previous,
        joined: before.is_some(),
        boundary_stop: None,
        crossing: None,
    };
    let mut tail = summary.tail.clone();
    match before.as_ref().map(|before| before.join(summary)) {
        Some(Ok(Boundary::Crossed(crossing))) => following.crossing = Some(crossing),
        Some(Ok(Boundary::GoesOn(through))) => tail = Some(through),
        Some(Err(stop)) => following.boundary_stop = Some(stop.lsn),
        Some(Ok(Boundary::Clean)) | None => {}
    }
    let before = before.and_then(|before| before.newest);
    let newest = [before, facts::newest(summary)]
        .into_iter()
        .flatten()
        .reduce(newer);
    let mut fresh = facts::add(db, segment, summary, before, newest)?;
    if let Some(crossing) = &following.crossing {
        let seen = [newest, facts::newest(crossing)]
            .into_iter()
            .flatten()
            .reduce(newer);
        let crossed = facts::add(db, segment, crossing, None, seen)?;
        fresh = [fresh, crossed].into_iter().flatten().reduce(span);
    }
    put(db, segment, summary, &following, fresh)?;
    rows::derive_all(index, db, segment)?;
    // What the middle of a record ends with is known only by its beginning.
    let is_known = following.joined || !is_middle(summary);
    hand_on(
        index,
        db,
        segment,
        is_known.then(|| Carried::of(summary, tail, newest)),
    )
}

/// Notes what a segment hands on, `None`: nothing that is known. What was worked in with something else is reset.
pub(super) fn hand_on(
    index: &Index,
    db: &Connection,
    segment: SegmentKey,
    carried: Option<Carried>,
) -> Result<()> {
    let changed = carried::put(db, segment, carried.as_ref())?;
    let mut stale = BTreeSet::new();
    for follower in followers(db, segment)? {
        if changed || carried.is_some() && !follower.joined {
            add(db, follower.segment, follower.is_middle, &mut stale)?;
        }
    }
    reset(index, db, &stale)
}

/// All of the segment is the middle of a record.
fn is_middle(summary: &Summary) -> bool {
    summary.head.as_ref().is_some_and(|head| head.end.is_none())
}

/// The row of a segment.
fn put(
    db: &Connection,
    segment: SegmentKey,
    own: &Summary,
    following: &Following,
    fresh: Option<XidRange>,
) -> Result<()> {
    let Following {
        previous,
        joined,
        boundary_stop,
        crossing,
    } = following;
    let (timeline, number) = segment.columns();
    let nothing = Summary::default();
    let crossing = crossing.as_deref().unwrap_or(&nothing);
    let latest = own
        .ends
        .max_time
        .max(crossing.ends.max_time)
        .map(|time| time.0);
    let earliest = [own, crossing]
        .iter()
        .filter_map(|part| part.ends.min_time)
        .min();
    let sql = "UPDATE segment SET state = 1, why = NULL, ok = ?3, previous = ?4, joined = ?5, boundary_stop = ?6, stop = ?7, \
               middle = ?8, commits = ?9, min_time = ?10, max_time = ?11, newest = ?12, fresh_from = ?13, fresh_to = ?14, \
               rows_left_out = ?15, created_left_out = ?16, points_left_out = ?17, events_left_out = ?18 \
               WHERE timeline = ?1 AND number = ?2";
    db.prepare_cached(sql)?.execute(params![
        timeline,
        number,
        own.stop.is_none() && boundary_stop.is_none(),
        previous.0,
        joined,
        boundary_stop.map(|lsn| int(lsn.0)),
        own.stop.as_ref().map(|stop| int(stop.lsn.0)),
        is_middle(own),
        int(own.commits.count + crossing.commits.count),
        earliest.map(|time| time.0),
        latest,
        facts::newest(own),
        fresh.map(|(from, _)| from),
        fresh.map(|(_, to)| to),
        int(own.rows.left_out),
        int(own.created_left_out),
        int(own.events_left_out.restore_points),
        int(facts::events_left_out(own) + facts::events_left_out(crossing)),
    ])?;
    put_commit(
        db,
        segment,
        "first_commit",
        crossing.commits.first.or(own.commits.first),
    )?;
    put_commit(
        db,
        segment,
        "last_commit",
        own.commits.last.or(crossing.commits.last),
    )?;
    block::widen(db, segment, latest, fresh)
}

fn put_commit(
    db: &Connection,
    segment: SegmentKey,
    column: &str,
    commit: Option<Commit>,
) -> Result<()> {
    let Some(Commit { lsn, xid, time }) = commit else {
        return Ok(());
    };
    let (timeline, number) = segment.columns();
    let sql = format!(
        "UPDATE segment SET {column}_lsn = ?3, {column}_xid = ?4, {column}_time = ?5 WHERE timeline = ?1 AND number = ?2"
    );
    db.prepare_cached(&sql)?
        .execute(params![timeline, number, int(lsn.0), xid, time.0])?;
    Ok(())
}

/// An indexed segment that follows another, on whatever timeline.
struct Follower {
    segment: SegmentKey,
    joined: bool,
    is_middle: bool,
}

fn followers(db: &Connection, segment: SegmentKey) -> Result<Vec<Follower>> {
    let mut select = db.prepare_cached(
        "SELECT timeline, number, joined, middle FROM segment WHERE timeline = ?1 AND number = ?2 AND previous = ?1 \
         UNION ALL SELECT timeline, number, joined, middle FROM segment INDEXED BY segment_fork \
         WHERE number = ?2 AND previous = ?1 AND previous <> timeline",
    )?;
    let found = select.query_map(
        params![segment.timeline.0, int(segment.number + 1)],
        |row| {
            let segment = SegmentKey {
                timeline: TimelineId(row.get(0)?),
                number: uint(row, 1)?,
            };
            Ok(Follower {
                segment,
                joined: row.get(2)?,
                is_middle: row.get(3)?,
            })
        },
    )?;
    found.collect()
}

/// Adds a segment, and if it hands on another record's beginning than it did, or none, those into which that led.
fn add(
    db: &Connection,
    segment: SegmentKey,
    hands_on: bool,
    concerned: &mut BTreeSet<SegmentKey>,
) -> Result<()> {
    concerned.insert(segment);
    if hands_on {
        for Follower {
            segment, is_middle, ..
        } in followers(db, segment)?.into_iter().filter(|one| one.joined)
        {
            add(db, segment, is_middle, concerned)?;
        }
    }
    Ok(())
}

/// Forgets what segments hold whose objects were replaced or are gone, and what crosses from them into others.
pub(super) fn forget(index: &Index, db: &Connection, replaced: &[SegmentKey]) -> Result<()> {
    let mut concerned = BTreeSet::new();
    replaced
        .iter()
        .try_for_each(|segment| add(db, *segment, true, &mut concerned))?;
    reset(index, db, &concerned)
}

/// Takes segments out, to be read again; what they handed on stays, to be compared.
fn reset(index: &Index, db: &Connection, concerned: &BTreeSet<SegmentKey>) -> Result<()> {
    let (mut later, mut blocks) = (BTreeSet::new(), BTreeSet::new());
    for segment in concerned {
        later.extend(rows::later(index, db, *segment)?);
        blocks.insert((segment.timeline, segment.number / BLOCK));
    }
    for segment in concerned {
        for table in ["event", "rows", "ended", "created", "tablespace"] {
            let sql = format!("DELETE FROM {table} WHERE timeline = ?1 AND number = ?2");
            db.prepare_cached(&sql)?.execute(segment.columns())?;
        }
        // All other columns get their defaults.
        let sql = "INSERT OR REPLACE INTO segment (timeline, number, bytes, stored_at, listed) \
                   SELECT timeline, number, bytes, stored_at, listed FROM segment WHERE timeline = ?1 AND number = ?2";
        db.prepare_cached(sql)?.execute(segment.columns())?;
    }
    blocks
        .into_iter()
        .try_for_each(|(timeline, block)| block::sum_up(db, timeline, block))?;
    later
        .difference(concerned)
        .try_for_each(|segment| rows::derive(index, db, *segment))
}

/// Forgets segments altogether.
pub(super) fn remove(index: &Index, db: &Connection, gone: &[SegmentKey]) -> Result<()> {
    forget(index, db, gone)?;
    for segment in gone {
        let (timeline, number) = segment.columns();
        carried::put(db, *segment, None)?;
        let sql = "DELETE FROM segment WHERE timeline = ?1 AND number = ?2 RETURNING bytes";
        let mut delete = db.prepare_cached(sql)?;
        let bytes = delete
            .query_row((timeline, number), |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(bytes) = bytes else { continue };
        let block = params![timeline, int(segment.number / BLOCK), bytes];
        let sql = "UPDATE block SET segments = segments - 1, bytes = bytes - ?3 WHERE timeline = ?1 AND block = ?2";
        db.prepare_cached(sql)?.execute(block)?;
    }
    db.prepare_cached("DELETE FROM block WHERE segments = 0")?
        .execute([])?;
    Ok(())
}
