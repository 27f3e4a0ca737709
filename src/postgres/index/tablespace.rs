//! Tablespaces that replay makes outside the data directory, by segment.

use std::ops::Range;

use rusqlite::{Connection, Result, params};

use super::column::{SegmentKey, int, uint};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::{TablespaceMade, Tablespaces};

/// Its bounds: timeline, first number, number behind the last.
pub(super) const TABLESPACES: &str = "SELECT number, lsn, oid, location FROM tablespace \
     WHERE timeline = ?1 AND number >= ?2 AND number < ?3 ORDER BY number, lsn, oid";

/// Puts in what a summary tells.
pub(super) fn add(db: &Connection, segment: SegmentKey, tablespaces: &Tablespaces) -> Result<()> {
    let (timeline, number) = segment.columns();
    let mut put =
        db.prepare_cached("INSERT OR REPLACE INTO tablespace VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for TablespaceMade { lsn, oid, location } in &tablespaces.made {
        put.execute(params![timeline, number, int(lsn.0), oid, location])?;
    }
    if let (1.., Some(last)) = (tablespaces.left_out, tablespaces.made.last()) {
        put.execute(params![timeline, number, int(last.lsn.0 + 1), 0, ""])?;
    }
    Ok(())
}

/// Those that segments make, with the segment's number.
pub(super) fn within(
    db: &Connection,
    timeline: TimelineId,
    segments: Range<u64>,
) -> Result<Vec<(u64, TablespaceMade)>> {
    let mut select = db.prepare_cached(TABLESPACES)?;
    let bounds = params![timeline.0, int(segments.start), int(segments.end)];
    let made = select.query_map(bounds, |row| {
        let made = TablespaceMade {
            lsn: Lsn(uint(row, 1)?),
            oid: row.get(2)?,
            location: row.get(3)?,
        };
        Ok((uint(row, 0)?, made))
    })?;
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FIRST, MadeUp, TIMELINE, cluster, seed};
    use super::super::{Archived, Index};
    use super::*;
    use crate::postgres::catalog::WalIndex;

    #[tokio::test]
    async fn they_are_told_by_segment_and_forgotten_with_it() {
        let (cluster, _) = cluster().await;
        let index = Index::temporary(&cluster).unwrap();
        let archived = |name, bytes| Archived {
            name,
            bytes,
            stored_at: chrono::DateTime::UNIX_EPOCH,
        };
        let mut segments = MadeUp::new(seed("tablespaces"), 4).segments();
        let lsn = Lsn(7);
        let made = TablespaceMade {
            lsn,
            oid: 16390,
            location: "/srv/fast".into(),
        };
        segments[1].2.tablespaces = Tablespaces {
            made: vec![made.clone()],
            left_out: 1,
        };
        for (name, _, summary) in &segments {
            index.observe(archived(*name, 1), summary).unwrap();
        }
        let told = |from, until| index.tablespaces(TIMELINE, from, until).unwrap();
        let more = TablespaceMade {
            lsn: Lsn(8),
            oid: 0,
            location: String::new(),
        };
        assert_eq!(
            (told(FIRST, FIRST + 4).found, told(FIRST, FIRST + 4).more),
            (vec![made, more], None)
        );
        assert_eq!(told(FIRST + 2, FIRST + 4).found, []);
        // Another object is listed under that name: what it makes is not known.
        index.list(&[archived(segments[1].0, 2)]).unwrap();
        let told = told(FIRST, FIRST + 4);
        assert!(told.found.is_empty() && told.more.is_some(), "{told:?}");
    }
}
