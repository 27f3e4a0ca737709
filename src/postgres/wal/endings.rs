//! Records at which a recovery can stop by time, transaction or name, exactly.

use super::decoder::Decoder;
use super::facts::Fact;
use super::record::{Record, Xid};
use super::stop::Stop;
use super::timestamp::Timestamp;
use crate::postgres::types::Lsn;

/// A commit or rollback, also of a prepared transaction; a rollback may be a subtransaction's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub lsn: Lsn,
    /// Where the next record begins.
    pub end: Lsn,
    pub xid: Xid,
    pub time: Timestamp,
    pub committed: bool,
}

/// A restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    pub lsn: Lsn,
    /// Where the next record begins: recovery to the restore point stops here.
    pub end: Lsn,
    pub time: Timestamp,
    pub name: String,
}

/// What some WAL has of them, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endings {
    pub ends: Vec<Ending>,
    pub restore_points: Vec<RestorePoint>,
    /// The first position that is no valid WAL: nothing after it was looked at.
    pub stop: Option<Stop>,
}

/// Finds them in the bytes of one segment after another.
#[derive(Debug)]
pub struct EndingFinder {
    decoder: Decoder,
    /// Records that end up to here are passed over.
    behind: Lsn,
    /// So are those that begin before.
    from: Lsn,
    found: Endings,
}

impl EndingFinder {
    /// Reads from `start`, where a segment begins, and looks at records that end behind `behind` and begin at `from` or
    /// later.
    pub fn new(start: Lsn, behind: Lsn, from: Lsn) -> Self {
        Self { decoder: Decoder::new(start), behind, from, found: Endings::default() }
    }

    /// Reads on; pieces may have any size.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self { decoder, behind, from, found } = self;
        decoder.push(bytes, |record| {
            if record.end > *behind && record.lsn >= *from {
                found.add(record);
            }
        });
    }

    /// What was found.
    pub fn finish(mut self) -> Endings {
        self.decoder.finish();
        self.found.stop = self.decoder.stopped().cloned();
        self.found
    }
}

impl Endings {
    fn add(&mut self, record: &Record<'_>) {
        let Record { lsn, end, .. } = *record;
        match Fact::read(record) {
            Ok(Some(Fact::End(ended))) => {
                let (xid, time, committed) = (ended.xid, ended.time, ended.committed);
                self.ends.push(Ending { lsn, end, xid, time, committed });
            }
            Ok(Some(Fact::RestorePoint { time, name })) => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.restore_points.push(RestorePoint { lsn, end, time, name });
            }
            _ => {}
        }
    }
}
