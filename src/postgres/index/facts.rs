//! EventDetail a summary says, as rows of its segment. Which transactions are of interest: a busy segment ends thousands, and
//! names the oldest hundred; but only those that began before it tell something that it does not tell by itself. EventDetail the
//! segments before mention is not new.

use std::collections::BTreeSet;

use rusqlite::{Connection, Result, params};

use super::column::{SegmentKey, int, json};
use super::event_row::{PG_CLASS, RemovedFiles};
use super::xid::{XidRange, is_newer, newer};
use super::{rows, tablespace};
use crate::postgres::catalog::EventKind;
use crate::postgres::wal::{Created, Ended, EventDetail, RowsOf, Summary, Tail, Timestamp, Xid};

/// Transactions that a server begins at most while two segments mention none of them.
const UNSEEN: Xid = 1 << 22;
/// Transactions that a server begins at most while a prepared one waits: few enough to compare numbers that go round.
const PREPARED: Xid = 1 << 29;

/// Puts in what a summary says that events are made of, without transactions that began after those `before` and are of
/// no interest. Gives the numbers of those; `seen` is the newest transaction that was mentioned by the segment's end.
pub(super) fn add(
    db: &Connection,
    segment: SegmentKey,
    summary: &Summary,
    before: Option<Xid>,
    seen: Option<Xid>,
) -> Result<Option<XidRange>> {
    for created in &summary.created {
        add_created(db, segment, created)?;
    }
    tablespace::add(db, segment, &summary.tablespaces)?;
    let began_here = |xid: Xid| before.is_some_and(|before| is_newer(xid, before));
    let wanted = add_wanted(db, segment, summary, &began_here)?;
    let mut passed_over = None;
    for ended in &summary.oldest_ended {
        match !wanted.contains(&ended.xid) && began_here(ended.xid) {
            // They ascend.
            true => passed_over = passed_over.or(Some(ended.xid)),
            false => add_ended(db, segment, ended)?,
        }
    }
    add_events(db, segment, summary)?;
    Ok(maybe_ended(summary, passed_over, seen))
}

/// Puts in rows that changed, and the transactions that are of interest, which it gives.
fn add_wanted(
    db: &Connection,
    segment: SegmentKey,
    summary: &Summary,
    began_here: &dyn Fn(Xid) -> bool,
) -> Result<BTreeSet<Xid>> {
    let mut wanted = BTreeSet::new();
    for of in &summary.rows.largest {
        let least = rows::least_rows(summary.rows.left_out, of.file);
        let interesting = of.counts.changed() >= least || of.file.number == PG_CLASS;
        if of.counts.changed() == 0 || of.commit.is_some() && !interesting && began_here(of.xid) {
            continue;
        }
        add_rows(db, segment, of)?;
        if let (Some((lsn, time)), true) = (of.commit, interesting) {
            let ended = Ended {
                xid: of.xid,
                top: of.xid,
                lsn,
                time,
                committed: true,
            };
            add_ended(db, segment, &ended)?;
            wanted.insert(of.xid);
        }
    }
    for event in &summary.events {
        wanted.insert(event.xid);
        if let EventDetail::FilesRemoved { time, subxids, .. } = &event.what {
            for xid in std::iter::once(&event.xid).chain(subxids) {
                let ended = Ended {
                    xid: *xid,
                    top: event.xid,
                    lsn: event.lsn,
                    time: *time,
                    committed: true,
                };
                add_ended(db, segment, &ended)?;
            }
        }
    }
    Ok(wanted)
}

/// The numbers of transactions that may have ended without a row of their own, the first of which was `passed_over`.
fn maybe_ended(summary: &Summary, passed_over: Option<Xid>, seen: Option<Xid>) -> Option<XidRange> {
    let (listed, left_out) = (&summary.oldest_ended, summary.ended_left_out > 0);
    // A prepared one says its number at the end of a record that was not read to there.
    let has_no_number =
        left_out && (listed.is_empty() || listed.iter().any(|ended| ended.top == 0));
    if !summary.ends.cut && !has_no_number {
        let not_listed = listed
            .last()
            .filter(|_| left_out)
            .map(|last| last.xid.wrapping_add(1));
        return passed_over.or(not_listed).zip(summary.ends.newest);
    }
    let seen = seen?;
    let from = match (has_no_number, listed.first(), listed.last()) {
        (true, first, _) => first.map_or(seen, |first| first.xid).wrapping_sub(PREPARED),
        (false, _, Some(last)) => passed_over.unwrap_or(last.xid.wrapping_add(1)),
        (false, _, None) => seen,
    };
    Some((from, seen.wrapping_add(UNSEEN)))
}

fn add_created(db: &Connection, segment: SegmentKey, created: &Created) -> Result<()> {
    let (timeline, number) = segment.columns();
    let Created {
        xid,
        file,
        filled,
        pages,
    } = *created;
    let mut put = db
        .prepare_cached("INSERT OR REPLACE INTO created VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    put.execute(params![
        timeline,
        number,
        xid,
        file.tablespace,
        file.database,
        file.number,
        filled,
        pages
    ])?;
    Ok(())
}

fn add_rows(db: &Connection, segment: SegmentKey, of: &RowsOf) -> Result<()> {
    let (timeline, number) = segment.columns();
    // EventDetail crosses into the segment comes after what is in it.
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

fn add_ended(db: &Connection, segment: SegmentKey, ended: &Ended) -> Result<()> {
    let (timeline, number) = segment.columns();
    let mut put =
        db.prepare_cached("INSERT OR IGNORE INTO ended VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let Ended {
        xid,
        top,
        lsn,
        time,
        committed,
    } = *ended;
    put.execute(params![
        timeline,
        number,
        xid,
        top,
        int(lsn.0),
        time.0,
        committed
    ])?;
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
    for event in &summary.events {
        let commit = summary
            .oldest_ended
            .iter()
            .find(|ended| ended.xid == event.xid && event.xid != 0);
        let (mut commit_lsn, mut time) = (None, commit.map_or(about, |ended| ended.time));
        let (mut database, mut file, mut label, mut detail) = (0, 0, None, None);
        let kind = match &event.what {
            EventDetail::RestorePoint { name, time: made } => {
                (time, label) = (*made, Some(name));
                EventKind::RestorePoint
            }
            EventDetail::FilesRemoved {
                time: ended,
                files,
                relations,
                cut,
                ..
            } => {
                (time, commit_lsn) = (*ended, Some(event.lsn));
                let (files, relations) = (files.clone(), relations.clone());
                let removed = RemovedFiles {
                    files,
                    relations,
                    cut: *cut,
                    major: summary.major,
                };
                detail = Some(json(&removed)?);
                EventKind::Drop
            }
            EventDetail::DatabaseDropped { database: oid } => {
                database = *oid;
                EventKind::DatabaseDrop
            }
            EventDetail::DatabaseCreated { database: oid, .. } => {
                database = *oid;
                EventKind::DatabaseCreate
            }
            EventDetail::TimelineBegan { timeline, .. } => {
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
pub(super) fn newest(summary: &Summary) -> Option<Xid> {
    let rows = summary.rows.largest.iter().map(|rows| rows.xid);
    let created = summary.created.iter().map(|created| created.xid);
    let events = summary
        .events
        .iter()
        .map(|event| event.xid)
        .chain(summary.rows.newest_open);
    let crossing = summary.tail.as_ref().and_then(Tail::xid);
    let all = rows
        .chain(created)
        .chain(events)
        .chain(summary.ends.newest)
        .chain(crossing);
    all.filter(|xid| *xid != 0).reduce(newer)
}

/// Events other than restore points that a summary does not tell, at least: a commit whose lists are cut has more.
pub(super) fn events_left_out(summary: &Summary) -> u64 {
    let cut = summary
        .events
        .iter()
        .filter(|event| matches!(event.what, EventDetail::FilesRemoved { cut: true, .. }));
    summary.events_left_out.removals + summary.events_left_out.cluster + cut.count() as u64
}
