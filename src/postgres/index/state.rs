//! How far the index is.

use rusqlite::{Connection, OptionalExtension, Result, params};
use serde::{Deserialize, Serialize};

use super::column::{int, uint};
use super::listing::is_whole;
use super::{Archived, Index};
use crate::postgres::types::{SegmentName, TimelineId};

/// How far the index is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexState {
    /// All that the repository has was listed since the index was made.
    #[serde(default)]
    pub whole: bool,
    /// Archived segments that are known.
    pub segments: u64,
    /// Of these, what they hold is not in the index yet.
    pub not_indexed: u64,
    /// Of these, what they hold cannot be read.
    pub unreadable: u64,
    /// The first of those.
    pub first_unreadable: Option<UnreadableSegment>,
    /// By timeline.
    pub positions: Vec<Position>,
}

/// All tables but `folder`.
#[cfg(test)]
const TABLES: [&str; 10] = [
    "segment",
    "block",
    "carried",
    "event",
    "rows",
    "ended",
    "created",
    "name",
    "recording",
    "history",
];

impl IndexState {
    /// Whether what all archived WAL holds is in the index.
    pub fn is_complete(&self) -> bool {
        self.whole && self.not_indexed == 0
    }
}

/// A segment that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableSegment {
    pub segment: SegmentName,
    pub why: String,
}

/// Up to where a timeline is indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub timeline: TimelineId,
    /// The last segment that is archived.
    pub archived: SegmentName,
    /// The last one that is indexed.
    pub indexed: Option<SegmentName>,
}

impl Index {
    /// How far the index is. Errors: it cannot be read.
    pub fn state(&self) -> anyhow::Result<IndexState> {
        let db = self.connection();
        Ok(self.state_in(&*db.unchecked_transaction()?)?)
    }

    /// The same within a transaction.
    pub(super) fn state_in(&self, db: &Connection) -> Result<IndexState> {
        let mut state = IndexState {
            whole: is_whole(db)?,
            ..IndexState::default()
        };
        let mut select =
            db.prepare_cached("SELECT timeline, sum(segments) FROM block GROUP BY timeline")?;
        let timelines = select.query_map([], |row| Ok((TimelineId(row.get(0)?), uint(row, 1)?)))?;
        for timeline in timelines {
            let (timeline, segments) = timeline?;
            state.segments += segments;
            let last = |least| {
                last(db, timeline, least).map(|last| last.map(|number| self.name(timeline, number)))
            };
            if let Some(archived) = last(0)? {
                state.positions.push(Position {
                    timeline,
                    archived,
                    indexed: last(1)?,
                });
            }
        }
        let sql =
            "SELECT count(*), coalesce(sum(state = 2), 0) FROM segment WHERE ok = 0 AND state <> 1";
        (state.not_indexed, state.unreadable) = db
            .prepare_cached(sql)?
            .query_row([], |row| Ok((uint(row, 0)?, uint(row, 1)?)))?;
        let sql = "SELECT timeline, number, why FROM segment WHERE ok = 0 AND state = 2 ORDER BY timeline, number LIMIT 1";
        let first = db.prepare_cached(sql)?.query_row([], |row| {
            let segment = self.name(TimelineId(row.get(0)?), uint(row, 1)?);
            Ok(UnreadableSegment {
                segment,
                why: row.get(2)?,
            })
        });
        state.first_unreadable = first.optional()?;
        Ok(state)
    }

    /// Segments that are listed and not indexed, ascending, at most so many, after one.
    pub(super) fn not_indexed(
        &self,
        after: Option<SegmentName>,
        most: usize,
    ) -> anyhow::Result<Vec<Archived>> {
        let db = self.connection();
        let mut select = db.prepare_cached(
            "SELECT timeline, number, bytes, stored_at FROM segment WHERE state = 0 AND (timeline, number) > (?1, ?2) \
             ORDER BY timeline, number LIMIT ?3",
        )?;
        let after = after.map_or((0, -1), |name| {
            (name.timeline.0, int(name.number(self.size)))
        });
        let found = select.query_map(params![after.0, after.1, most as i64], |row| {
            self.archived(row)
        })?;
        Ok(found.collect::<Result<_>>()?)
    }

    /// How many segments are listed and not indexed.
    pub(super) fn count_not_indexed(&self) -> anyhow::Result<u64> {
        let sql = "SELECT count(*) FROM segment WHERE state = 0";
        Ok(self
            .connection()
            .prepare_cached(sql)?
            .query_row([], |row| uint(row, 0))?)
    }

    /// Forgets everything.
    #[cfg(test)]
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        self.change(|db| {
            for table in TABLES.iter().chain(&["folder"]) {
                db.execute(&format!("DELETE FROM {table}"), [])?;
            }
            db.execute("UPDATE listing SET cleared = cleared + 1, whole = 0", [])?;
            Ok(())
        })
    }

    /// If a segment could not be read, the next poll tries again. Errors: the index cannot be
    /// written.
    pub fn try_again(&self, segment: SegmentName) -> anyhow::Result<()> {
        let sql = "UPDATE segment SET state = 0, why = NULL WHERE timeline = ?1 AND number = ?2 AND state = 2";
        let key = (segment.timeline.0, int(segment.number(self.size)));
        self.change(|db| Ok(db.prepare_cached(sql)?.execute(key).map(drop)?))
    }

    /// What failed is tried again.
    pub(super) fn retry_unreadable(&self) -> anyhow::Result<()> {
        self.change(|db| {
            Ok(db
                .execute(
                    "UPDATE segment SET state = 0, why = NULL WHERE state = 2",
                    [],
                )
                .map(drop)?)
        })
    }

    /// All rows of all tables but `folder`, as text: two indexes of the same archive are the same.
    #[cfg(test)]
    pub(crate) fn dump(&self) -> Vec<String> {
        let db = self.connection();
        let mut lines = Vec::new();
        for table in TABLES {
            let mut select = db
                .prepare(&format!(
                    "SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5, 6, 7"
                ))
                .or_else(|_| db.prepare(&format!("SELECT * FROM {table} ORDER BY 1")))
                .unwrap();
            let columns = select.column_count();
            let mut rows = select.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<String> = (0..columns)
                    .map(|column| format!("{:?}", row.get_ref(column).unwrap()))
                    .collect();
                lines.push(format!("{table} {}", values.join(" ")));
            }
        }
        lines
    }
}

/// The last segment of a timeline; with `indexed` 1 the last one that is indexed.
fn last(db: &Connection, timeline: TimelineId, indexed: i64) -> Result<Option<u64>> {
    let sql = "SELECT number FROM segment WHERE timeline = ?1 AND (?2 = 0 OR state = 1) ORDER BY number DESC LIMIT 1";
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(params![timeline.0, indexed])?;
    rows.next()?.map(|row| uint(row, 0)).transpose()
}
