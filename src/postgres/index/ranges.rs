//! The archived segments as ranges. Blocks that are whole are taken as they are, so that a million segments cost a
//! thousand rows.

use rusqlite::{Connection, Result, params};

use super::column::{int, stored_at, uint};
use super::{BLOCK, Index};
use crate::postgres::catalog::{WalRange, WalRanges};
use crate::postgres::types::TimelineId;

/// Segments of a timeline that a block counts.
struct Block {
    timeline: TimelineId,
    /// The number of the first that it may have.
    begin: u64,
    segments: u64,
    bytes: u64,
}

impl Index {
    /// Which segments are archived; `None` unless all were listed since the index was made. Errors: it cannot be read.
    pub fn ranges(&self) -> anyhow::Result<Option<WalRanges>> {
        let mut db = self.connection();
        // What another connection changes meanwhile is in it wholly or not at all.
        let db = db.transaction()?;
        if !db.query_row("SELECT whole FROM listing", [], |row| row.get::<_, bool>(0))? {
            return Ok(None);
        }
        let mut ranges = WalRanges::new(self.size);
        let mut select = db.prepare_cached(
            "SELECT timeline, block, segments, bytes FROM block ORDER BY timeline, block",
        )?;
        let blocks = select.query_map([], |row| {
            let (timeline, begin) = (TimelineId(row.get(0)?), uint(row, 1)? * BLOCK);
            Ok(Block {
                timeline,
                begin,
                segments: uint(row, 2)?,
                bytes: uint(row, 3)?,
            })
        })?;
        for block in blocks {
            let block = block?;
            match block.segments {
                BLOCK => ranges.append(self.whole(&db, &block)?),
                _ => self.add_each(&db, &block, &mut ranges)?,
            }
        }
        Ok(Some(ranges))
    }

    /// The range that a block is in which nothing is missing.
    fn whole(&self, db: &Connection, block: &Block) -> Result<WalRange> {
        let mut select =
            db.prepare_cached("SELECT stored_at FROM segment WHERE timeline = ?1 AND number = ?2")?;
        let mut stored = |number| {
            select.query_row(params![block.timeline.0, int(number)], |row| {
                stored_at(row, 0)
            })
        };
        let last = block.begin + BLOCK - 1;
        let (first_stored, last_stored) = (stored(block.begin)?, stored(last)?);
        let (first, last) = (
            self.name(block.timeline, block.begin),
            self.name(block.timeline, last),
        );
        Ok(WalRange {
            first,
            last,
            segments: BLOCK,
            stored_bytes: block.bytes,
            first_stored,
            last_stored,
        })
    }

    fn add_each(&self, db: &Connection, block: &Block, ranges: &mut WalRanges) -> Result<()> {
        let mut select = db.prepare_cached(
            "SELECT number, bytes, stored_at FROM segment WHERE timeline = ?1 AND number >= ?2 AND number < ?3 \
             ORDER BY number",
        )?;
        let bounds = params![block.timeline.0, int(block.begin), int(block.begin + BLOCK)];
        let segments = select.query_map(bounds, |row| {
            Ok((uint(row, 0)?, uint(row, 1)?, stored_at(row, 2)?))
        })?;
        for segment in segments {
            let (number, bytes, stored) = segment?;
            ranges.add(self.name(block.timeline, number), bytes, stored);
        }
        Ok(())
    }
}
