//! What one segment's summary puts into the index.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::column::{int, json, stored_at, uint};
use super::event::RemovedFiles;
use super::{BLOCK, Index, forget, prune, rows, seam, tablespace};
use crate::postgres::catalog::EventKind;
use crate::postgres::types::{SegmentName, TimelineId};
use crate::postgres::wal::{Commit, Created, Ended, RowsOf, Summary, Tail, Timestamp, What, Xid};

/// A segment as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    pub name: SegmentName,
    /// Of the object.
    pub bytes: u64,
    pub stored_at: DateTime<Utc>,
}

/// Transactions that a server begins at most while two segments mention none of them.
const UNSEEN: Xid = 1 << 22;
/// Transactions that a server begins at most while a prepared one waits: few enough to compare numbers that go round.
const PREPARED: Xid = 1 << 29;
/// `pg_class` of every database, until it is rewritten: how many rows were deleted there tells a DROP.
pub(super) const PG_CLASS: u32 = 1259;

/// Which segment a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentKey {
    pub timeline: TimelineId,
    pub number: u64,
}

impl SegmentKey {
    /// Both as SQLite keeps them.
    pub fn columns(self) -> (u32, i64) {
        (self.timeline.0, int(self.number))
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

impl Index {
    /// Notes segments that the store lists. Those whose objects are others than before are forgotten, to be read again.
    pub fn list(&self, segments: &[Archived]) -> anyhow::Result<()> {
        self.change(|db| Ok(self.note(db, segments, true)?))
    }

    /// Notes segments: as the store lists them, or as who stored one tells.
    fn note(&self, db: &Connection, segments: &[Archived], listed: bool) -> Result<()> {
        let mut known = db.prepare_cached(
            "SELECT bytes, bytes = ?3 AND (stored_at = ?4 OR listed = 0), stored_at = ?4 AND listed, state FROM segment \
             WHERE timeline = ?1 AND number = ?2",
        )?;
        let mut update = db.prepare_cached(
            "UPDATE segment SET bytes = ?3, stored_at = ?4, listed = ?5 WHERE timeline = ?1 AND number = ?2",
        )?;
        let mut insert = db.prepare_cached(
            "INSERT INTO segment (timeline, number, bytes, stored_at, listed) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut count = db.prepare_cached(
            "INSERT INTO block (timeline, block, segments, bytes) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET segments = segments + excluded.segments, bytes = bytes + excluded.bytes",
        )?;
        let mut replaced = Vec::new();
        for Archived { name, bytes, stored_at } in segments {
            let segment = self.key(*name);
            let ((timeline, number), block) = (segment.columns(), int(segment.number / BLOCK));
            let row = params![timeline, number, int(*bytes), stored_at.timestamp_micros(), listed];
            let key = params![timeline, number, int(*bytes), stored_at.timestamp_micros()];
            let found = known.query_row(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
            let Some(found) = found.optional()? else {
                insert.execute(row)?;
                count.execute(params![timeline, block, 1, int(*bytes)])?;
                continue;
            };
            let (before, same, up_to_date, state): (i64, bool, bool, i64) = found;
            if listed && !(same && up_to_date) {
                update.execute(row)?;
                count.execute(params![timeline, block, 0, int(*bytes) - before])?;
                if !same && state != 0 {
                    replaced.push(segment);
                }
            }
        }
        forget::forget(self, db, &replaced)
    }

    /// Puts in what listed segments hold. Those that are in it already are passed over, and those that were replaced
    /// since they were listed as they are given.
    pub fn learn(&self, segments: &[(Archived, Box<Summary>)]) -> anyhow::Result<()> {
        self.change(|db| {
            for (read, summary) in segments {
                if self.is_still(db, read)? {
                    self.add(db, self.key(read.name), summary)?;
                }
            }
            Ok(())
        })
    }

    /// A segment that was stored just now.
    pub fn observe(&self, segment: Archived, summary: &Summary) -> anyhow::Result<()> {
        self.change(|db| {
            self.note(db, &[segment], false)?;
            Ok(self.add(db, self.key(segment.name), summary)?)
        })
    }

    /// Notes that what a segment holds cannot be read, unless it was replaced since.
    pub fn give_up(&self, read: &Archived, why: &str) -> anyhow::Result<()> {
        let (timeline, number) = self.key(read.name).columns();
        self.change(|db| {
            if self.is_still(db, read)? {
                let sql = "UPDATE segment SET state = 2, why = ?3 WHERE timeline = ?1 AND number = ?2 AND state <> 1";
                db.prepare_cached(sql)?.execute(params![timeline, number, why])?;
            }
            Ok(())
        })
    }

    /// Lends the edge of a segment that is joined already, for one that follows it on another timeline.
    pub(super) fn lend(&self, read: &Archived, summary: &Summary) -> anyhow::Result<()> {
        let segment = self.key(read.name);
        self.change(|db| {
            let sql = "SELECT 1 FROM segment WHERE timeline = ?1 AND number = ?2 AND state = 1";
            if self.is_still(db, read)? && db.prepare_cached(sql)?.exists(segment.columns())? {
                seam::lend(self, db, segment, summary)?;
            }
            Ok(())
        })
    }

    /// Whether a segment's object is the one that was read: another may have been listed meanwhile.
    fn is_still(&self, db: &Connection, read: &Archived) -> Result<bool> {
        let (timeline, number) = self.key(read.name).columns();
        let sql = "SELECT 1 FROM segment WHERE timeline = ?1 AND number = ?2 AND bytes = ?3 AND stored_at = ?4";
        let key = params![timeline, number, int(read.bytes), read.stored_at.timestamp_micros()];
        db.prepare_cached(sql)?.exists(key)
    }

    /// A segment from a row of its timeline, number, bytes and time.
    pub(super) fn archived(&self, row: &rusqlite::Row<'_>) -> Result<Archived> {
        let name = self.name(TimelineId(row.get(0)?), uint(row, 1)?);
        Ok(Archived { name, bytes: uint(row, 2)?, stored_at: stored_at(row, 3)? })
    }

    pub(super) fn key(&self, name: SegmentName) -> SegmentKey {
        SegmentKey { timeline: name.timeline, number: name.number(self.size) }
    }

    fn add(&self, db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
        let sql = "SELECT state FROM segment WHERE timeline = ?1 AND number = ?2";
        let state: Option<i64> = db.prepare_cached(sql)?.query_row(segment.columns(), |row| row.get(0)).optional()?;
        if state.is_none_or(|state| state == 1) {
            return Ok(());
        }
        let window = prune::window(db, segment)?;
        let fresh = add_facts(db, segment, summary, window, false)?;
        add_row(db, segment, summary, window.is_some(), fresh)?;
        add_commits(db, segment, summary)?;
        seam::add(self, db, segment, summary)?;
        prune::those_after(db, segment)?;
        rows::derive_all(self, db, segment)
    }
}

/// The row of a segment, but for what [`add_commits`] adds.
fn add_row(
    db: &Connection,
    segment: SegmentKey,
    summary: &Summary,
    pruned: bool,
    fresh: Option<(Xid, Xid)>,
) -> Result<()> {
    let (timeline, number) = segment.columns();
    let previous = summary.first_timeline.unwrap_or(segment.timeline);
    let mut update = db.prepare_cached(
        "UPDATE segment SET state = 1, why = NULL, ok = ?3, previous = ?4, stop = ?5, middle = ?6, \
         newest = ?7, fresh_from = ?8, ended_newest = ?9, pruned = ?10, rows_left_out = ?11, \
         created_left_out = ?12, points_left_out = ?13 \
         WHERE timeline = ?1 AND number = ?2",
    )?;
    update.execute(params![
        timeline,
        number,
        summary.stop.is_none(),
        previous.0,
        summary.stop.as_ref().map(|stop| int(stop.lsn.0)),
        seam::is_middle(summary),
        newest(summary),
        fresh.map(|(from, _)| from),
        fresh.map_or(summary.ends.newest, |(_, to)| Some(to)),
        pruned,
        int(summary.rows.left_out),
        int(summary.created_left_out),
        int(summary.events_left_out.restore_points),
    ])?;
    add_to_block(db, segment, None, fresh)
}

/// Events other than restore points that a summary does not tell, at least: a commit whose lists are cut has more.
fn events_left_out(summary: &Summary) -> u64 {
    let cut = summary.events.iter().filter(|event| matches!(event.what, What::FilesRemoved { cut: true, .. }));
    summary.events_left_out.removals + summary.events_left_out.cluster + cut.count() as u64
}

/// Adds commits, aborts and their times to a segment; first its own, then what crosses into it.
pub(super) fn add_commits(db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
    let (timeline, number) = segment.columns();
    let mut update = db.prepare_cached(
        "UPDATE segment SET commits = commits + ?3, max_time = max(coalesce(max_time, ?4), ?4), \
         min_time = min(coalesce(min_time, ?5), ?5) WHERE timeline = ?1 AND number = ?2",
    )?;
    let (earliest, latest) = (summary.ends.min_time.map(|time| time.0), summary.ends.max_time.map(|time| time.0));
    if summary.ends.count > 0 {
        update.execute(params![timeline, number, int(summary.commits.count), latest, earliest])?;
        add_to_block(db, segment, summary.ends.max_time, None)?;
    }
    let set = |column: &str, commit: Option<Commit>, when: &str| -> Result<()> {
        let Some(Commit { lsn, xid, time }) = commit else { return Ok(()) };
        let sql = format!(
            "UPDATE segment SET {column}_lsn = ?3, {column}_xid = ?4, {column}_time = ?5 \
             WHERE timeline = ?1 AND number = ?2 AND ({column}_lsn IS NULL OR ?3 {when} {column}_lsn)"
        );
        db.prepare_cached(&sql)?.execute(params![timeline, number, int(lsn.0), xid, time.0])?;
        Ok(())
    };
    set("first_commit", summary.commits.first, "<")?;
    set("last_commit", summary.commits.last, ">")
}

/// Widens the range of transactions that may have ended in a segment without being named there.
pub(super) fn widen_fresh(db: &Connection, segment: SegmentKey, fresh: Option<(Xid, Xid)>) -> Result<()> {
    let Some((from, to)) = fresh else { return Ok(()) };
    let (timeline, number) = segment.columns();
    let sql = "SELECT fresh_from, ended_newest FROM segment WHERE timeline = ?1 AND number = ?2";
    let kept: (Option<Xid>, Option<Xid>) =
        db.prepare_cached(sql)?.query_row(segment.columns(), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let fresh = (kept.0.map_or(from, |kept| older(kept, from)), kept.1.map_or(to, |kept| newer(kept, to)));
    let sql = "UPDATE segment SET fresh_from = ?3, ended_newest = ?4 WHERE timeline = ?1 AND number = ?2";
    db.prepare_cached(sql)?.execute(params![timeline, number, fresh.0, fresh.1])?;
    add_to_block(db, segment, None, Some(fresh))
}

/// Widens what the block of a segment holds.
pub(super) fn add_to_block(
    db: &Connection,
    segment: SegmentKey,
    time: Option<Timestamp>,
    fresh: Option<(Xid, Xid)>,
) -> Result<()> {
    if time.is_none() && fresh.is_none() {
        return Ok(());
    }
    let block = int(segment.number / BLOCK);
    let key = (segment.timeline.0, block);
    let sql = "SELECT max_time, fresh_from, fresh_to FROM block WHERE timeline = ?1 AND block = ?2";
    let read = |row: &rusqlite::Row<'_>| {
        let fresh: (Option<Xid>, Option<Xid>) = (row.get(1)?, row.get(2)?);
        Ok((row.get::<_, Option<i64>>(0)?, fresh.0.zip(fresh.1)))
    };
    let (kept_time, kept_fresh) = db.prepare_cached(sql)?.query_row(key, read).optional()?.unwrap_or_default();
    let latest = kept_time.max(time.map(|time| time.0));
    let wide = match (kept_fresh, fresh.filter(|(from, to)| !is_newer(*from, *to))) {
        (Some(a), Some(b)) => Some(of_both(a, b)),
        (a, b) => a.or(b),
    };
    let mut put = db.prepare_cached(
        "UPDATE block SET max_time = ?3, fresh_from = ?4, fresh_to = ?5 WHERE timeline = ?1 AND block = ?2",
    )?;
    put.execute(params![key.0, key.1, latest, wide.map(|wide| wide.0), wide.map(|wide| wide.1)])?;
    Ok(())
}

/// Numbers of transactions of which both ranges are parts: all, where they are too far apart to tell which is older.
pub(super) fn of_both(a: (Xid, Xid), b: (Xid, Xid)) -> (Xid, Xid) {
    let (from, to) = (older(a.0, b.0), newer(a.1, b.1));
    let span = to.wrapping_sub(from);
    let is_within = |xid: Xid| xid.wrapping_sub(from) <= span;
    match span < 1 << 30 && [a.0, a.1, b.0, b.1].into_iter().all(is_within) {
        true => (from, to),
        false => (0, Xid::MAX),
    }
}

/// Puts in the facts of a summary that events are made of. With a `window`, the newest transaction that the segments
/// before mention, without what began after it and is of no interest. Gives the numbers of those transactions.
pub(super) fn add_facts(
    db: &Connection,
    segment: SegmentKey,
    summary: &Summary,
    window: Option<Xid>,
    crossing: bool,
) -> Result<Option<(Xid, Xid)>> {
    let began_here = |xid: Xid| window.is_some_and(|window| is_newer(xid, window));
    let mut wanted = BTreeSet::new();
    for created in &summary.created {
        add_created(db, segment, created)?;
    }
    tablespace::add(db, segment, &summary.tablespaces)?;
    for of in &summary.rows.largest {
        let least = rows::least_rows(summary.rows.left_out, of.file);
        let interesting = of.counts.changed() >= least || of.file.number == PG_CLASS;
        if of.counts.changed() == 0 || of.commit.is_some() && !interesting && began_here(of.xid) {
            continue;
        }
        add_rows(db, segment, of)?;
        if let (Some((lsn, time)), true) = (of.commit, interesting) {
            let ended = Ended { xid: of.xid, top: of.xid, lsn, time, committed: true };
            add_ended(db, segment, &ended, true)?;
            wanted.insert(of.xid);
        }
    }
    for event in &summary.events {
        wanted.insert(event.xid);
        if let What::FilesRemoved { time, subxids, .. } = &event.what {
            for xid in std::iter::once(&event.xid).chain(subxids) {
                let ended = Ended { xid: *xid, top: event.xid, lsn: event.lsn, time: *time, committed: true };
                add_ended(db, segment, &ended, true)?;
            }
        }
    }
    let mut passed_over = None;
    for ended in &summary.oldest_ended {
        match !crossing && !wanted.contains(&ended.xid) && began_here(ended.xid) {
            // They ascend.
            true => passed_over = passed_over.or(Some(ended.xid)),
            false => add_ended(db, segment, ended, crossing || wanted.contains(&ended.xid))?,
        }
    }
    add_events(db, segment, summary)?;
    maybe_ended(db, segment, summary, passed_over)
}

/// The numbers of transactions that may have ended without a row of their own, the first of which was `passed_over`.
fn maybe_ended(
    db: &Connection,
    segment: SegmentKey,
    summary: &Summary,
    passed_over: Option<Xid>,
) -> Result<Option<(Xid, Xid)>> {
    let (listed, left_out) = (&summary.oldest_ended, summary.ended_left_out > 0);
    // A prepared one says its number at the end of a record that was not read to there.
    let has_no_number = left_out && (listed.is_empty() || listed.iter().any(|ended| ended.top == 0));
    if !summary.ends.cut && !has_no_number {
        let not_listed = listed.last().filter(|_| left_out).map(|last| last.xid.wrapping_add(1));
        return Ok(passed_over.or(not_listed).zip(summary.ends.newest));
    }
    let sql = "SELECT newest FROM segment WHERE timeline = ?1 AND number IN (?2 - 1, ?2) AND newest IS NOT NULL";
    let mut select = db.prepare_cached(sql)?;
    let around = select.query_map(segment.columns(), |row| row.get(0))?.collect::<Result<Vec<Xid>>>()?;
    let Some(seen) = around.into_iter().chain(newest(summary)).reduce(newer) else { return Ok(None) };
    let from = match (has_no_number, listed.first(), listed.last()) {
        (true, first, _) => first.map_or(seen, |first| first.xid).wrapping_sub(PREPARED),
        (false, _, Some(last)) => passed_over.unwrap_or(last.xid.wrapping_add(1)),
        (false, _, None) => seen,
    };
    Ok(Some((from, seen.wrapping_add(UNSEEN))))
}

fn add_created(db: &Connection, segment: SegmentKey, created: &Created) -> Result<()> {
    let (timeline, number) = segment.columns();
    let Created { xid, file, filled, pages } = *created;
    let mut put = db.prepare_cached("INSERT OR REPLACE INTO created VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    put.execute(params![timeline, number, xid, file.tablespace, file.database, file.number, filled, pages])?;
    Ok(())
}

fn add_rows(db: &Connection, segment: SegmentKey, of: &RowsOf) -> Result<()> {
    let (timeline, number) = segment.columns();
    // What crosses into the segment comes after what is in it.
    let mut put = db.prepare_cached(
        "INSERT INTO rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO UPDATE SET \
         updated = updated + excluded.updated, deleted = deleted + excluded.deleted",
    )?;
    put.execute(params![
        timeline,
        number,
        of.xid,
        of.file.tablespace,
        of.file.database,
        of.file.number,
        int(of.counts.updated + of.counts.moved),
        int(of.counts.deleted),
        of.commit.map(|(lsn, _)| int(lsn.0)),
    ])?;
    Ok(())
}

fn add_ended(db: &Connection, segment: SegmentKey, ended: &Ended, kept: bool) -> Result<()> {
    let (timeline, number) = segment.columns();
    let mut put = db.prepare_cached(
        "INSERT INTO ended VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT DO UPDATE SET kept = max(kept, excluded.kept)",
    )?;
    let Ended { xid, top, lsn, time, committed } = *ended;
    put.execute(params![timeline, number, xid, top, int(lsn.0), time.0, committed, kept])?;
    Ok(())
}

/// The events that records are by themselves.
fn add_events(db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
    let (timeline, number) = segment.columns();
    // Of records without a time.
    let about = summary.ends.max_time.unwrap_or(Timestamp(0));
    let mut put = db.prepare_cached(
        "INSERT OR REPLACE INTO event \
         (timeline, number, lsn, end_lsn, kind, database, file, time, xid, commit_lsn, label, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    if let count @ 1.. = events_left_out(summary) {
        let sql = "UPDATE segment SET events_left_out = events_left_out + ?3 WHERE timeline = ?1 AND number = ?2";
        db.prepare_cached(sql)?.execute(params![timeline, number, int(count)])?;
    }
    for event in &summary.events {
        let commit = summary.oldest_ended.iter().find(|ended| ended.xid == event.xid && event.xid != 0);
        let (mut commit_lsn, mut time) = (None, commit.map_or(about, |ended| ended.time));
        let (mut database, mut file, mut label, mut detail) = (0, 0, None, None);
        let kind = match &event.what {
            What::RestorePoint { name, time: made } => {
                (time, label) = (*made, Some(name));
                EventKind::RestorePoint
            }
            What::FilesRemoved { time: ended, files, relations, cut, .. } => {
                (time, commit_lsn) = (*ended, Some(event.lsn));
                let (files, relations) = (files.clone(), relations.clone());
                let removed = RemovedFiles { files, relations, cut: *cut, major: summary.major };
                detail = Some(json(&removed)?);
                EventKind::Drop
            }
            What::DatabaseDropped { database: oid } => {
                database = *oid;
                EventKind::DatabaseDrop
            }
            What::DatabaseCreated { database: oid, .. } => {
                database = *oid;
                EventKind::DatabaseCreate
            }
            What::TimelineBegan { timeline, .. } => {
                file = timeline.0;
                EventKind::Timeline
            }
            _ => continue,
        };
        put.execute(params![
            timeline,
            number,
            int(event.lsn.0),
            int(event.end.0),
            kind as i64,
            database,
            file,
            time.0,
            event.xid,
            commit_lsn.map(|lsn| int(lsn.0)),
            label,
            detail,
        ])?;
    }
    Ok(())
}

/// The newest transaction that a summary mentions.
fn newest(summary: &Summary) -> Option<Xid> {
    let rows = summary.rows.largest.iter().map(|rows| rows.xid);
    let created = summary.created.iter().map(|created| created.xid);
    let events = summary.events.iter().map(|event| event.xid).chain(summary.rows.newest_open);
    let crossing = summary.tail.as_ref().and_then(Tail::xid);
    let all = rows.chain(created).chain(events).chain(summary.ends.newest).chain(crossing);
    all.filter(|xid| *xid != 0).reduce(newer)
}

/// Whether a transaction began after another one: numbers go round, and those in use are less than 2^31 apart.
pub(super) fn is_newer(xid: Xid, than: Xid) -> bool {
    (xid.wrapping_sub(than) as i32) > 0
}

pub(super) fn newer(a: Xid, b: Xid) -> Xid {
    if is_newer(a, b) { a } else { b }
}

fn older(a: Xid, b: Xid) -> Xid {
    if is_newer(a, b) { b } else { a }
}
