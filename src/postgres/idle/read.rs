//! Asks the server whether a transaction is under way, and where its WAL is.

use anyhow::Result;
use chrono::{DateTime, Utc};

use crate::postgres::cluster::Cluster;
use crate::postgres::names::{ask, check_identity, read_timeline};
use crate::postgres::replication::ResolveConnInfo;
use crate::postgres::replication::{Connection, Mode};
use crate::postgres::types::{LongPageHeader, Lsn, SegmentSize, TimelineId};

/// Seconds are rounded down, so that what is later than the clock is later than this.
const CLOCK: &str = "SELECT pg_is_in_recovery() AS standby, \
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
    floor(extract(epoch FROM clock_timestamp()))::bigint AS time";
const LOCKS: &str = "SELECT count(*) AS count FROM pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock'";
const SNAPSHOT: &str = "SELECT pg_snapshot_xmin(now) AS xmin, pg_snapshot_xmax(now) AS xmax FROM pg_current_snapshot() now";
const BACKENDS: &str =
    "SELECT count(*) AS count FROM pg_stat_activity WHERE backend_xid IS NOT NULL";
const PLACE: &str = "SELECT pg_current_wal_insert_lsn() AS lsn, pg_current_wal_flush_lsn() AS flushed, \
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline";

/// A primary on which no transaction that has an id was under way.
///
/// Every commit or abort record that begins at `lsn` or later on `timeline` has a time later than `time`: a transaction
/// holds the lock of its id from before its records until after its last one, also when it is prepared, and its
/// subtransactions' are within that. The clock was read first, then no such lock was found, then `lsn` was read. So
/// whatever ends behind `lsn` took its lock, and after it the time of its end, later than the clock was read (unless the
/// clock is set back).
///
/// With an earlier reading of the same `timeline` and `xmax` that is `flushed`, this holds from that reading's `lsn` on. A
/// transaction that ended behind it without having taken its lock after this reading's look at the locks had left the
/// list of running ones (ProcArray) before that look. It did not do so between the two snapshots: `xmax` is 1 more than
/// the newest id that has left the list, so one at or above it would have moved it, and none below it was running at the
/// earlier snapshot: there xmin was xmax, and what snapshots leave out (VACUUM) was looked for among the backends before
/// `lsn` was read. So it left the list before, and its record lies before that `lsn`. Ids do not go back after a crash,
/// because all of them that `xmax` counts had records before `lsn`, which were flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// By the server's clock, a whole second.
    pub time: DateTime<Utc>,
    pub timeline: TimelineId,
    pub lsn: Lsn,
    /// The lowest id of which no transaction at or above has ended.
    pub xmax: u64,
    /// All WAL before `lsn` is on disk.
    pub flushed: bool,
}

/// Asks the server. `None`: it is a standby, or a transaction is under way. Errors: it cannot be asked, or is another
/// cluster's.
pub async fn read(cluster: &Cluster, resolve: ResolveConnInfo<'_>) -> Result<Option<Reading>> {
    let mut sql = Connection::connect(&resolve()?, Mode::Sql).await?;
    let clock = ask(&mut sql, CLOCK).await?;
    check_identity(cluster, &clock, sql.server())?;
    if clock.text(0, "standby")? == Some("t") {
        return Ok(None);
    }
    // One statement for each: within one there is no order.
    let locks: u64 = ask(&mut sql, LOCKS).await?.parse(0, "count")?;
    let snapshot = ask(&mut sql, SNAPSHOT).await?;
    let backends: u64 = ask(&mut sql, BACKENDS).await?.parse(0, "count")?;
    let place = ask(&mut sql, PLACE).await?;
    sql.close().await?;
    let (xmin, xmax): (u64, u64) = (snapshot.parse(0, "xmin")?, snapshot.parse(0, "xmax")?);
    if locks > 0 || backends > 0 || xmin != xmax {
        return Ok(None);
    }
    let time = DateTime::from_timestamp(clock.parse(0, "time")?, 0).unwrap_or_default();
    let lsn = before_header(place.parse(0, "lsn")?, cluster.description.segment_size);
    let flushed = place.parse::<Lsn>(0, "flushed")? >= lsn;
    Ok(Some(Reading {
        time,
        timeline: read_timeline(&place, 16)?,
        lsn,
        xmax,
        flushed,
    }))
}

/// Where a segment begins of which there is no more than its header yet: no record begins within.
fn before_header(lsn: Lsn, size: SegmentSize) -> Lsn {
    let in_segment = lsn.0 % size.bytes();
    if in_segment <= LongPageHeader::LEN as u64 {
        Lsn(lsn.0 - in_segment)
    } else {
        lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_header_that_nothing_follows_does_not_count() {
        let size = SegmentSize::new(1 << 20).unwrap();
        for (lsn, expected) in [
            (0x500000, 0x500000),
            (0x500028, 0x500000),
            (0x500030, 0x500030),
            (0x502018, 0x502018),
        ] {
            assert_eq!(before_header(Lsn(lsn), size), Lsn(expected), "{lsn:X}");
        }
    }
}
