//! EventDetail the index knows of one segment.

use serde::{Deserialize, Serialize};

use super::checks::is_switch;
use super::created::{Created, Creations};
use super::decoder::Decoder;
use super::ends::{EndCounter, Ended, Ends};
use super::event::{EventDetail, WalEvent};
use super::event_overflow::{EventGroup, EventOverflow, EventRoom};
use super::fact::{Fact, RowChange, TransactionEnd};
use super::facts::read_fact;
use super::heap;
use super::join::{Head, JoinedRecord, Tail};
use super::parts::{PartCounter, PartEnds};
use super::record::{FirstRecord, Record, RelFileLocator, Xid};
use super::rows::{RowChanges, RowCounter};
use super::stop::WalStop;
use super::tablespaces::Tablespaces;
use super::timestamp::Timestamp;
use crate::postgres::types::{Lsn, MajorVersion, SegmentSize, TimelineId};

/// EventDetail one segment holds, made from its bytes alone; a record that crosses from one segment into the next belongs to
/// neither, but to what [`join`] makes of the two. Bounded: what did not fit is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub major: Option<MajorVersion>,
    /// Of the first page: the segment before is this timeline's, unless the timeline begins exactly here.
    pub first_timeline: Option<TimelineId>,
    /// Of the last page. Where a timeline begins, pages up to the one that holds the switch point have the one before.
    pub timeline: Option<TimelineId>,
    /// The first record that begins here, and the one that it says it follows.
    pub first: Option<FirstRecord>,
    /// The last record that begins and ends here.
    pub last: Option<Lsn>,
    /// Where the record after that one begins, or the page that it begins on.
    pub end: Option<Lsn>,
    pub records: u64,
    pub commits: Commits,
    /// Commits and rollbacks.
    pub ends: Ends,
    /// The ends of those transactions and subtransactions that have the smallest numbers, in their order, at most
    /// [`ENDED`](super::ENDED): who was open when the segment began is among them, unless those were more.
    pub oldest_ended: Vec<Ended>,
    /// Ends of transactions and subtransactions that are not listed there.
    pub ended_left_out: u64,
    /// The ends by the part of the segment in which they begin, all of equal length; empty in a summary that was made
    /// without.
    #[serde(default)]
    pub part_ends: Vec<Option<PartEnds>>,
    pub events: Vec<WalEvent>,
    pub events_left_out: EventOverflow,
    /// Relation files made by transactions, which tells a TRUNCATE or rewrite from a DROP.
    pub created: Vec<Created>,
    pub created_left_out: u64,
    pub tablespaces: Tablespaces,
    pub rows: RowChanges,
    /// The segment ends with a switch: it is complete although its rest is empty.
    pub switched: bool,
    /// The first position that is no valid WAL; nothing after it was looked at.
    pub stop: Option<WalStop>,
    /// Records whose content is not of a known form.
    pub unreadable: u64,
    /// The end of a record that began in an earlier segment.
    pub head: Option<Head>,
    /// The beginning of a record that goes on in the next one.
    pub tail: Option<Tail>,
}

/// A transaction that committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub lsn: Lsn,
    pub xid: Xid,
    /// By the server's clock; not in the order of LSNs.
    pub time: Timestamp,
}

/// The commits of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commits {
    pub count: u64,
    pub first: Option<Commit>,
    pub last: Option<Commit>,
    pub min_time: Option<Timestamp>,
    pub max_time: Option<Timestamp>,
}

/// Makes the summary of one segment from its bytes.
#[derive(Debug)]
pub struct Summarizer {
    decoder: Decoder,
    summary: Summary,
    counters: Counters,
}

/// EventDetail is counted while records pass.
#[derive(Debug, Default)]
struct Counters {
    rows: RowCounter,
    ends: EndCounter,
    parts: PartCounter,
    created: Creations,
    events: EventRoom,
}

impl Counters {
    #[inline]
    fn rows(&mut self, xid: Xid, file: RelFileLocator, change: RowChange, rows: u32) {
        self.rows.add(xid, file, change, rows);
        if change == RowChange::Inserted {
            self.created.row(file);
        }
    }

    fn finish(self, summary: &mut Summary) {
        summary.rows = self.rows.finish();
        (summary.ends, summary.oldest_ended, summary.ended_left_out) = self.ends.finish();
        summary.part_ends = self.parts.finish();
        (summary.created, summary.created_left_out) = self.created.finish();
    }
}

impl Summarizer {
    /// For the segment that begins at `start`.
    pub fn new(start: Lsn, size: SegmentSize) -> Self {
        let counters = Counters {
            parts: PartCounter::new(start, size),
            ..Counters::default()
        };
        Self {
            decoder: Decoder::new(start),
            summary: Summary::default(),
            counters,
        }
    }

    /// Reads on; pieces may have any size.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self {
            decoder,
            summary,
            counters,
        } = self;
        decoder.push(bytes, |record| summary.add(record, counters));
    }

    /// The summary of all bytes pushed.
    pub fn finish(mut self) -> Summary {
        let mut summary = self.summary;
        summary.tail = self.decoder.finish();
        (summary.major, summary.first_timeline) = self
            .decoder
            .origin()
            .map(|origin| (origin.major, origin.timeline))
            .unzip();
        summary.timeline = self.decoder.timeline();
        summary.first = self.decoder.first();
        (summary.last, summary.end) = self.decoder.last().unzip();
        summary.switched = self.decoder.switched();
        summary.stop = self.decoder.stopped().cloned();
        summary.head = self.decoder.head().cloned();
        // EventDetail a record that is still unfinished begins with may be the first that the segment has.
        let unfinished = summary.tail.as_ref().and_then(Tail::first);
        summary.first = summary.first.or(unfinished);
        self.counters.finish(&mut summary);
        summary
    }
}

impl Summary {
    /// Adds what a record says; also one that was joined.
    #[inline]
    fn add(&mut self, record: &Record<'_>, counters: &mut Counters) {
        self.records += 1;
        // EventDetail most records say takes this short way: a fact is large, and would be moved about for each of them.
        match heap::rows(record) {
            Some(Some((file, change, rows))) => {
                counters.rows(record.header.xid, file, change, rows)
            }
            _ => self.read(record, counters),
        }
    }

    /// By itself, so that the short way stays short.
    #[inline(never)]
    fn read(&mut self, record: &Record<'_>, counters: &mut Counters) {
        match &read_fact(record) {
            Ok(Some(fact)) => self.fact(record, fact, counters),
            Ok(None) => {}
            Err(_) => self.unreadable += 1,
        }
    }

    fn end(&mut self, record: &Record<'_>, end: &TransactionEnd<'_>, counters: &mut Counters) {
        counters.rows.end(end, record.lsn);
        counters.ends.add(end, record.lsn);
        counters.parts.add(end, record.lsn);
        counters.created.end(end);
        if end.committed {
            self.commits.add(Commit {
                lsn: record.lsn,
                xid: end.xid,
                time: end.time,
            });
        }
    }

    fn fact(&mut self, record: &Record<'_>, fact: &Fact<'_>, counters: &mut Counters) {
        let mut xid = record.header.xid;
        match *fact {
            Fact::Rows { file, change, rows } => counters.rows(xid, file, change, rows),
            Fact::TablespaceMade { oid, location } => {
                self.tablespaces.add(record.lsn, oid, location)
            }
            Fact::FileCreated { file, fork: 0 } => counters.created.add(xid, file),
            Fact::PageWritten { file, block } => counters.created.page(xid, file, block),
            Fact::End(ref end) => {
                self.end(record, end, counters);
                xid = end.xid;
            }
            Fact::Prepare { xid: prepared, .. } => xid = prepared,
            _ => {}
        }
        let Some(what) = EventDetail::of(fact) else {
            return;
        };
        let group = EventGroup::of(&what);
        match counters.events.take(group) {
            true => self.events.push(WalEvent {
                lsn: record.lsn,
                end: record.end,
                xid,
                what,
            }),
            false => self.events_left_out.add(group, 1),
        }
    }

    /// The summary of a record that was joined, as if it were a segment of its own.
    pub(super) fn of(joined: &JoinedRecord) -> Result<Self, WalStop> {
        let record = joined.record()?;
        let (mut summary, mut counters) = (Self::default(), Counters::default());
        summary.add(&record, &mut counters);
        counters.finish(&mut summary);
        (summary.major, summary.last, summary.end) =
            (Some(record.major), Some(record.lsn), Some(record.end));
        summary.first = Some(FirstRecord {
            lsn: record.lsn,
            prev: record.header.prev,
        });
        summary.switched = is_switch(&record);
        Ok(summary)
    }

    /// The record that the first one declares lost in a crash.
    pub(super) fn overwrites(&self) -> Option<Lsn> {
        match (self.events.first()?, self.first?) {
            (
                WalEvent {
                    lsn,
                    what: EventDetail::Overwritten { lost },
                    ..
                },
                first,
            ) if *lsn == first.lsn => Some(*lost),
            _ => None,
        }
    }
}

impl Commits {
    fn add(&mut self, commit: Commit) {
        self.count += 1;
        self.first = self.first.or(Some(commit));
        self.last = Some(commit);
        self.min_time = Some(
            self.min_time
                .map_or(commit.time, |time| time.min(commit.time)),
        );
        self.max_time = self.max_time.max(Some(commit.time));
    }
}
