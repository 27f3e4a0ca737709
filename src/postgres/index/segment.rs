//! Segments as they come: listed, read, stored just now.

use std::sync::PoisonError;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::column::{SegmentKey, int, stored_at, uint};
use super::{BLOCK, Index, derive};
use crate::postgres::types::{SegmentName, TimelineId};
use crate::postgres::wal::Summary;

/// Segments stored just now whose summaries are at hand: more than are stored at a time.
const RECENT: usize = 16;

/// A segment as the store lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    pub name: SegmentName,
    /// Of the object.
    pub bytes: u64,
    pub stored_at: DateTime<Utc>,
}

impl Index {
    /// Notes segments that the store lists. Those whose objects are others than before are forgotten, to be read again.
    pub fn list(&self, segments: &[Archived]) -> anyhow::Result<()> {
        self.change(|db| Ok(self.note(db, segments, true)?))
    }

    /// Notes segments: as the store lists them, or as who stored one tells.
    fn note(&self, db: &Connection, segments: &[Archived], listed: bool) -> Result<()> {
        let mut known = db.prepare_cached(
            "SELECT bytes, bytes = ?3 AND (stored_at = ?4 OR listed = 0), stored_at = ?4 AND listed FROM segment \
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
        for Archived {
            name,
            bytes,
            stored_at,
        } in segments
        {
            let segment = self.key(*name);
            let ((timeline, number), block) = (segment.columns(), int(segment.number / BLOCK));
            let row = params![
                timeline,
                number,
                int(*bytes),
                stored_at.timestamp_micros(),
                listed
            ];
            let key = params![timeline, number, int(*bytes), stored_at.timestamp_micros()];
            let found = known.query_row(key, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            let Some(found) = found.optional()? else {
                insert.execute(row)?;
                count.execute(params![timeline, block, 1, int(*bytes)])?;
                continue;
            };
            let (before, same, up_to_date): (i64, bool, bool) = found;
            if listed && !(same && up_to_date) {
                update.execute(row)?;
                count.execute(params![timeline, block, 0, int(*bytes) - before])?;
                // What follows may rest on it also while it is to be read again.
                if !same {
                    replaced.push(segment);
                }
            }
        }
        derive::forget(self, db, &replaced)
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

    /// A segment that was stored just now. Those that were stored before the one ahead of them are worked in again at
    /// once: several are stored at a time, and none has to be read for that.
    pub fn observe(&self, segment: Archived, summary: &Summary) -> anyhow::Result<()> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(other, _)| other.name != segment.name);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back((segment, summary.clone()));
        let mut in_order: Vec<_> = recent.iter().collect();
        in_order.sort_by_key(|(other, _)| other.name);
        self.change(|db| {
            self.note(db, &[segment], false)?;
            self.add(db, self.key(segment.name), summary)?;
            for (other, summary) in in_order {
                if self.is_still(db, other)? {
                    self.add(db, self.key(other.name), summary)?;
                }
            }
            Ok(())
        })
    }

    /// Notes that what a segment holds cannot be read, unless it was replaced since.
    pub fn give_up(&self, read: &Archived, why: &str) -> anyhow::Result<()> {
        let (timeline, number) = self.key(read.name).columns();
        self.change(|db| {
            if self.is_still(db, read)? {
                let sql = "UPDATE segment SET state = 2, why = ?3 WHERE timeline = ?1 AND number = ?2 AND state <> 1";
                if db.prepare_cached(sql)?.execute(params![timeline, number, why])? > 0 {
                    derive::hand_on(self, db, self.key(read.name), None)?;
                }
            }
            Ok(())
        })
    }

    /// Whether a segment's object is the one that was read: another may have been listed meanwhile.
    fn is_still(&self, db: &Connection, read: &Archived) -> Result<bool> {
        let (timeline, number) = self.key(read.name).columns();
        let sql = "SELECT 1 FROM segment WHERE timeline = ?1 AND number = ?2 AND bytes = ?3 AND stored_at = ?4";
        let key = params![
            timeline,
            number,
            int(read.bytes),
            read.stored_at.timestamp_micros()
        ];
        db.prepare_cached(sql)?.exists(key)
    }

    /// A segment from a row of its timeline, number, bytes and time.
    pub(super) fn archived(&self, row: &rusqlite::Row<'_>) -> Result<Archived> {
        let name = self.name(TimelineId(row.get(0)?), uint(row, 1)?);
        Ok(Archived {
            name,
            bytes: uint(row, 2)?,
            stored_at: stored_at(row, 3)?,
        })
    }

    pub(super) fn key(&self, name: SegmentName) -> SegmentKey {
        SegmentKey {
            timeline: name.timeline,
            number: name.number(self.size),
        }
    }

    fn add(&self, db: &Connection, segment: SegmentKey, summary: &Summary) -> Result<()> {
        let sql = "SELECT 1 FROM segment WHERE timeline = ?1 AND number = ?2 AND state <> 1";
        match db.prepare_cached(sql)?.exists(segment.columns())? {
            true => derive::derive(self, db, segment, summary),
            false => Ok(()),
        }
    }
}
