//! Looking into one segment for the exact place that an index only points to. The planner asks; an activity reads
//! the segment and pushes its bytes through a [`Probe`].

use crate::postgres::types::{LongPageHeader, Lsn, SegmentName};
use crate::postgres::wal::{
    Commit, Decoder, Fact, Record, RelFileLocator, StopReason, Timestamp, Xid, read_fact, rmgr,
};

/// What is looked for: the first record of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeTarget {
    /// A commit or abort later than this; `or_at`: not earlier.
    Later { time: Timestamp, or_at: bool },
    /// The commit or abort of this transaction; of a subtransaction the end of the one that it belongs to.
    End(Xid),
    /// A restore point of this name; what is not UTF-8 in it as the index tells it.
    RestorePoint(String),
    /// A change of a table, also of a catalogue, by this transaction.
    Change(Xid),
    /// The last change of this row in place, which no transaction can undo, that begins before a position: behind it
    /// the row may be another one.
    InPlace { row: Tuple, before: Lsn },
    /// Any record.
    Record,
}

/// A row's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub file: RelFileLocator,
    pub block: u32,
    /// Its number in the block.
    pub offset: u16,
}

/// Of the records that a segment holds the last byte of: which is the first one that begins at or after `from` and is
/// looked for?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeQuery {
    pub segment: SegmentName,
    /// Where it begins: what ends before is an earlier segment's.
    pub begin: Lsn,
    pub from: Lsn,
    pub target: ProbeTarget,
}

/// The answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeResult {
    pub found: Option<FoundRecord>,
    /// The last commit before what was found; without it the last one that was read.
    pub before: Option<Commit>,
    /// The first commit after what was found.
    pub after: Option<Commit>,
    /// Where the segment stops being valid WAL.
    pub broken: Option<Lsn>,
    /// Whether it goes on there, but at `wal_level = minimal`.
    pub is_minimal: bool,
}

/// The record that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundRecord {
    pub lsn: Lsn,
    /// Where the record after it begins, or the page that it begins on.
    pub end: Lsn,
    /// What it says, if it is the end of a transaction.
    pub outcome: Option<FoundEnd>,
    /// The row that it deletes or changes in place, if that was looked for.
    pub tuple: Option<Tuple>,
    /// When it was made, if it is a restore point.
    pub made: Option<Timestamp>,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEnd {
    pub xid: Xid,
    pub time: Timestamp,
    pub committed: bool,
}

impl FoundRecord {
    /// The found record as a commit; `None` for others.
    pub fn commit(&self) -> Option<Commit> {
        let outcome = self.outcome.filter(|outcome| outcome.committed)?;
        Some(Commit {
            lsn: self.lsn,
            xid: outcome.xid,
            time: outcome.time,
        })
    }
}

/// Finds the answer to a query in the bytes of one segment after another.
#[derive(Debug)]
pub struct Probe {
    decoder: Decoder,
    query: ProbeQuery,
    result: ProbeResult,
    /// The last commit so far.
    latest: Option<Commit>,
}

impl Probe {
    /// Reads from `start` on, where the segment begins or one before it.
    pub fn new(query: ProbeQuery, start: Lsn) -> Self {
        Self {
            decoder: Decoder::new(start),
            query,
            result: ProbeResult::default(),
            latest: None,
        }
    }

    /// Reads from a page within a segment on.
    pub(super) fn within(query: ProbeQuery, segment: LongPageHeader, start: Lsn) -> Self {
        Self {
            decoder: Decoder::within(segment, start),
            ..Self::new(query, start)
        }
    }

    /// Reads on; pieces may have any size.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self {
            decoder,
            query,
            result,
            latest,
        } = self;
        decoder.push(bytes, |record| {
            if record.end > query.begin {
                result.add(record, query, latest);
            }
        });
    }

    /// Whether more bytes cannot change the answer.
    pub fn is_answered(&self) -> bool {
        !matches!(self.query.target, ProbeTarget::InPlace { .. })
            && self.result.found.is_some()
            && self.result.after.is_some()
    }

    /// Where the record after the last whole one begins, or the page that it begins on.
    pub(super) fn behind(&self) -> Option<Lsn> {
        self.decoder.last().map(|(_, behind)| behind)
    }

    /// What was found until now; `None` if that was no valid WAL.
    pub fn so_far(&self) -> Option<ProbeResult> {
        self.decoder.stopped().is_none().then_some(self.result)
    }

    /// The answer.
    pub fn finish(mut self) -> ProbeResult {
        self.decoder.finish();
        let stopped = self.decoder.stopped();
        let is_minimal = stopped.is_some_and(|stop| stop.why == StopReason::Minimal);
        ProbeResult {
            broken: stopped.map(|stop| stop.lsn),
            is_minimal,
            ..self.result
        }
    }
}

impl ProbeResult {
    fn add(&mut self, record: &Record<'_>, query: &ProbeQuery, latest: &mut Option<Commit>) {
        let says = [rmgr::TRANSACTION, rmgr::XLOG].contains(&record.header.rmgr);
        let fact = if says {
            read_fact(record).ok().flatten()
        } else {
            None
        };
        let outcome = match &fact {
            Some(Fact::End(end)) => Some(FoundEnd {
                xid: end.xid,
                time: end.time,
                committed: end.committed,
            }),
            _ => None,
        };
        let made = if let Some(Fact::RestorePoint { time, .. }) = &fact {
            Some(*time)
        } else {
            None
        };
        let target = &query.target;
        let tuple = matches!(target, ProbeTarget::Change(_) | ProbeTarget::InPlace { .. })
            .then(|| tuple(record))
            .flatten();
        let this = FoundRecord {
            lsn: record.lsn,
            end: record.end,
            outcome,
            tuple,
            made,
        };
        let open = self.found.is_none() || matches!(target, ProbeTarget::InPlace { .. });
        if open && record.lsn >= query.from && target.wants(record, fact.as_ref(), tuple) {
            (self.found, self.before, self.after) = (Some(this), *latest, None);
        } else if self.found.is_some() {
            self.after = self.after.or(this.commit());
        }
        *latest = this.commit().or(*latest);
        if self.found.is_none() {
            self.before = *latest;
        }
    }
}

const DELETE: u8 = 0x10;
const IN_PLACE: u8 = 0x70;

/// The row that a record deletes or changes in place (heapam_xlog.h, xl_heap_delete and xl_heap_inplace).
fn tuple(record: &Record<'_>) -> Option<Tuple> {
    let at = match (record.header.rmgr, record.header.info & 0x70) {
        (rmgr::HEAP, DELETE) => 4,
        (rmgr::HEAP, IN_PLACE) => 0,
        _ => return None,
    };
    let (block, offset) = (record.block?, record.main.get(at..at + 2)?);
    Some(Tuple {
        file: block.file,
        block: block.block,
        offset: u16::from_le_bytes([offset[0], offset[1]]),
    })
}

impl ProbeTarget {
    /// Whether an end at this time is looked for as a later one.
    pub(super) fn is_later(&self, found: Timestamp) -> bool {
        matches!(self, Self::Later { time, or_at } if found > *time || *or_at && found == *time)
    }

    fn wants(&self, record: &Record<'_>, fact: Option<&Fact<'_>>, tuple: Option<Tuple>) -> bool {
        match (self, fact) {
            (Self::Record, _) => true,
            (Self::Later { .. }, Some(Fact::End(end))) => self.is_later(end.time),
            (Self::End(xid), Some(Fact::End(end))) => {
                end.xid == *xid || end.subxids.iter().any(|sub| sub == *xid)
            }
            (Self::RestorePoint(name), Some(Fact::RestorePoint { name: found, .. })) => {
                String::from_utf8_lossy(found) == *name
            }
            (Self::Change(xid), _) => {
                record.header.xid == *xid && [rmgr::HEAP, rmgr::HEAP2].contains(&record.header.rmgr)
            }
            (Self::InPlace { row, before }, _) => {
                record.lsn < *before && record.header.info & 0x70 == IN_PLACE && tuple == Some(*row)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::SEGMENT;
    use super::*;
    use crate::postgres::types::{SegmentSize, TimelineId};
    use crate::postgres::wal::testing::{Draft, Writer};

    const COMMIT: u8 = 0x00;
    const ABORT: u8 = 0x20;
    const HAS_SUBXACTS: u32 = 1 << 1;

    /// A commit or abort: its time, then the subtransactions.
    fn end(info: u8, xid: u32, time: i64, subxids: &[u32]) -> Draft {
        let mut main = time.to_le_bytes().to_vec();
        let has = if subxids.is_empty() { 0 } else { 0x80 };
        if has != 0 {
            main.extend(
                [HAS_SUBXACTS, subxids.len() as u32]
                    .iter()
                    .flat_map(|part| part.to_le_bytes()),
            );
            main.extend(subxids.iter().flat_map(|xid| xid.to_le_bytes()));
        }
        Draft {
            xid,
            rmgr: rmgr::TRANSACTION,
            info: info | has,
            main,
            ..Draft::default()
        }
    }

    fn restore_point(name: &[u8]) -> Draft {
        let mut main = 50i64.to_le_bytes().to_vec();
        main.extend_from_slice(name);
        main.resize(8 + 64, 0);
        Draft {
            rmgr: rmgr::XLOG,
            info: 0x70,
            main,
            ..Draft::default()
        }
    }

    /// A change in place of a row of block 7.
    fn in_place(offset: u8) -> Draft {
        let (block, main) = (Some((1262, Vec::new())), vec![offset, 0]);
        Draft {
            rmgr: rmgr::HEAP,
            info: IN_PLACE,
            block,
            main,
            ..Draft::default()
        }
    }

    fn drafts() -> Vec<Draft> {
        vec![
            end(COMMIT, 700, 10, &[]),
            end(ABORT, 701, 40, &[]),
            restore_point(b"x"),
            Draft {
                xid: 702,
                rmgr: rmgr::HEAP,
                block: Some((16384, Vec::new())),
                main: vec![0; 8],
                ..Draft::default()
            },
            end(COMMIT, 702, 30, &[703, 704]),
            end(COMMIT, 705, 20, &[]),
            in_place(3),
            in_place(4),
            in_place(3),
            Draft {
                xid: 706,
                info: DELETE,
                main: vec![0, 0, 0, 0, 3, 0, 0, 0],
                ..in_place(3)
            },
            restore_point(b"caf\xe9"),
            // After vacuum another row has the place.
            in_place(3),
        ]
    }

    /// A segment with these records, and where each begins.
    struct Written {
        segment: SegmentName,
        start: Lsn,
        bytes: Vec<u8>,
        lsns: Vec<u64>,
    }

    impl Written {
        fn new() -> Self {
            let size = SegmentSize::new(SEGMENT as u32).unwrap();
            let segment = SegmentName::from_number(TimelineId(1), 2, size);
            let start = segment.start(size);
            let mut writer = Writer::new(0xD110, SEGMENT, start.0);
            let lsns = drafts().iter().map(|draft| writer.write(draft)).collect();
            writer.fill();
            Self {
                segment,
                start,
                bytes: writer.bytes,
                lsns,
            }
        }

        fn result(&self, target: ProbeTarget, from: Lsn) -> ProbeResult {
            let query = ProbeQuery {
                segment: self.segment,
                begin: self.start,
                from,
                target,
            };
            let mut probe = Probe::new(query, self.start);
            self.bytes.chunks(1000).for_each(|piece| probe.push(piece));
            probe.finish()
        }

        /// The number of the record that is found, and the commits around it.
        fn probe(
            &self,
            target: ProbeTarget,
            from: Lsn,
        ) -> (Option<usize>, Option<Xid>, Option<Xid>) {
            let result = self.result(target, from);
            let at = |lsn: Lsn| self.lsns.iter().position(|each| *each == lsn.0).unwrap();
            let commit = |commit: Option<Commit>| commit.map(|commit| commit.xid);
            (
                result.found.map(|found| at(found.lsn)),
                commit(result.before),
                commit(result.after),
            )
        }
    }

    #[test]
    fn the_first_record_that_is_wanted_is_found_with_the_commits_around_it() {
        let written = Written::new();
        let (lsns, start) = (&written.lsns, written.start);
        let probe = |target, from| written.probe(target, from);
        let later = |time, or_at| ProbeTarget::Later {
            time: Timestamp(time),
            or_at,
        };
        assert_eq!(probe(later(9, false), start), (Some(0), None, Some(702)));
        assert_eq!(
            probe(later(10, false), start),
            (Some(1), Some(700), Some(702)),
            "an abort counts"
        );
        assert_eq!(probe(later(10, true), start), (Some(0), None, Some(702)));
        assert_eq!(
            probe(later(10, true), Lsn(lsns[2])),
            (Some(4), Some(700), Some(705)),
            "what begins before does not"
        );
        assert_eq!(probe(later(40, false), start), (None, Some(705), None));
        assert_eq!(
            probe(ProbeTarget::End(704), start),
            (Some(4), Some(700), Some(705)),
            "a subtransaction ends with its own"
        );
        assert_eq!(
            probe(ProbeTarget::End(701), start),
            (Some(1), Some(700), Some(702))
        );
        assert_eq!(
            probe(ProbeTarget::RestorePoint("x".into()), start),
            (Some(2), Some(700), Some(702))
        );
        assert_eq!(probe(ProbeTarget::RestorePoint("y".into()), start).0, None);
        assert_eq!(probe(ProbeTarget::Change(702), start).0, Some(3));
        assert_eq!(probe(ProbeTarget::Record, Lsn(lsns[2] + 1)).0, Some(3));
        let name = "caf\u{FFFD}".to_string();
        assert_eq!(
            probe(ProbeTarget::RestorePoint(name), start).0,
            Some(10),
            "as the index tells a name in another encoding"
        );
    }

    #[test]
    fn a_row_that_is_deleted_is_found_with_its_last_change_in_place() {
        let written = Written::new();
        let (lsns, start) = (&written.lsns, written.start);
        assert_eq!(written.probe(ProbeTarget::Change(706), start).0, Some(9));
        let row = written
            .result(ProbeTarget::Change(706), start)
            .found
            .unwrap()
            .tuple
            .unwrap();
        assert_eq!((row.block, row.offset), (7, 3));
        let in_place = |before: u64| {
            written.probe(
                ProbeTarget::InPlace {
                    row,
                    before: Lsn(before),
                },
                start,
            )
        };
        assert_eq!(
            in_place(lsns[9]),
            (Some(8), Some(705), None),
            "the last one of that row"
        );
        assert_eq!(in_place(lsns[8]).0, Some(6));
        assert_eq!(in_place(lsns[6]).0, None);
    }
}
