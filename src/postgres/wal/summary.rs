//! EventDetail the index knows of one segment.

use serde::{Deserialize, Serialize};

use super::created::{Created, Creations};
use super::decoder::{Decoder, FirstRecord, is_switch};
use super::ends::{EndCounter, Ended, Ends};
use super::event_overflow::{EventGroup, EventOverflow, EventRoom};
use super::facts::{Fact, Parameters, RowChange};
use super::heap;
use super::join::{Head, JoinedRecord, Tail};
use super::parts::{PartCounter, PartEnds};
use super::record::{Record, RelFileLocator, Xid};
use super::rows::{RowChanges, RowCounter};
use super::stop::WalStop;
use super::tablespaces::Tablespaces;
use super::timestamp::Timestamp;
use super::transactions::TransactionEnd;
use crate::postgres::types::{Lsn, MajorVersion, SegmentSize, TimelineId};

/// Events of a group that a summary holds at most: of those that nobody looks for, a quarter.
pub const EVENTS: usize = 512;
/// Files, tables or databases that one event names at most.
pub const NAMED: usize = 256;

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

/// Something worth finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEvent {
    pub lsn: Lsn,
    /// Where the record after it begins.
    pub end: Lsn,
    /// 0 without a transaction.
    pub xid: Xid,
    #[serde(flatten)]
    pub what: EventDetail,
}

/// EventDetail happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum EventDetail {
    RestorePoint {
        name: String,
        time: Timestamp,
    },
    /// A commit that removed files: of dropped relations, or the old ones of truncated and rewritten relations.
    #[serde(rename = "dropped")]
    FilesRemoved {
        time: Timestamp,
        /// Its subtransactions, under which it may have made files.
        subxids: Vec<Xid>,
        files: Vec<RelFileLocator>,
        /// OIDs of relations that lost their statistics (15 and later): the dropped ones among them.
        relations: Vec<u32>,
        /// Some of these lists are longer than what is kept.
        cut: bool,
    },
    /// A relation's file lost blocks: by VACUUM, or TRUNCATE in the transaction that made the relation.
    FileTruncated {
        file: RelFileLocator,
        blocks: u32,
    },
    /// TRUNCATE, at `wal_level = logical`: OIDs of tables.
    TablesTruncated {
        database: u32,
        tables: Vec<u32>,
        cut: bool,
    },
    DatabaseCreated {
        database: u32,
        tablespace: u32,
    },
    /// ALTER DATABASE SET TABLESPACE made its files anew.
    DatabaseMoved {
        database: u32,
        tablespace: u32,
    },
    /// Before the transaction's commit, but final. Without a transaction what a move left behind is removed.
    DatabaseDropped {
        database: u32,
    },
    Prepared {
        gid: String,
        time: Timestamp,
    },
    TimelineBegan {
        timeline: TimelineId,
        previous: TimelineId,
    },
    ParametersChanged(Parameters),
    FullPageWrites {
        on: bool,
    },
    /// The record at `lost` was cut off by a crash and is void.
    Overwritten {
        lost: Lsn,
    },
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
        let counters = Counters { parts: PartCounter::new(start, size), ..Counters::default() };
        Self { decoder: Decoder::new(start), summary: Summary::default(), counters }
    }

    /// Reads on; pieces may have any size.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self { decoder, summary, counters } = self;
        decoder.push(bytes, |record| summary.add(record, counters));
    }

    /// The summary of all bytes pushed.
    pub fn finish(mut self) -> Summary {
        let mut summary = self.summary;
        summary.tail = self.decoder.finish();
        (summary.major, summary.first_timeline) =
            self.decoder.origin().map(|origin| (origin.major, origin.timeline)).unzip();
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
            Some(Some((file, change, rows))) => counters.rows(record.header.xid, file, change, rows),
            _ => self.read(record, counters),
        }
    }

    /// By itself, so that the short way stays short.
    #[inline(never)]
    fn read(&mut self, record: &Record<'_>, counters: &mut Counters) {
        match &Fact::read(record) {
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
            self.commits.add(Commit { lsn: record.lsn, xid: end.xid, time: end.time });
        }
    }

    fn fact(&mut self, record: &Record<'_>, fact: &Fact<'_>, counters: &mut Counters) {
        let mut xid = record.header.xid;
        match *fact {
            Fact::Rows { file, change, rows } => counters.rows(xid, file, change, rows),
            Fact::TablespaceMade { oid, location } => self.tablespaces.add(record.lsn, oid, location),
            Fact::FileCreated { file, fork: 0 } => counters.created.add(xid, file),
            Fact::PageWritten { file, block } => counters.created.page(xid, file, block),
            Fact::End(ref end) => {
                self.end(record, end, counters);
                xid = end.xid;
            }
            Fact::Prepare { xid: prepared, .. } => xid = prepared,
            _ => {}
        }
        let Some(what) = EventDetail::of(fact) else { return };
        let group = EventGroup::of(&what);
        match counters.events.take(group) {
            true => self.events.push(WalEvent { lsn: record.lsn, end: record.end, xid, what }),
            false => self.events_left_out.add(group, 1),
        }
    }

    /// The summary of a record that was joined, as if it were a segment of its own.
    pub(super) fn of(joined: &JoinedRecord) -> Result<Self, WalStop> {
        let record = joined.record()?;
        let (mut summary, mut counters) = (Self::default(), Counters::default());
        summary.add(&record, &mut counters);
        counters.finish(&mut summary);
        (summary.major, summary.last, summary.end) = (Some(record.major), Some(record.lsn), Some(record.end));
        summary.first = Some(FirstRecord { lsn: record.lsn, prev: record.header.prev });
        summary.switched = is_switch(&record);
        Ok(summary)
    }

    /// The record that the first one declares lost in a crash.
    pub(super) fn overwrites(&self) -> Option<Lsn> {
        match (self.events.first()?, self.first?) {
            (WalEvent { lsn, what: EventDetail::Overwritten { lost }, .. }, first) if *lsn == first.lsn => Some(*lost),
            _ => None,
        }
    }
}

impl EventDetail {
    /// EventDetail a fact is as an event.
    fn of(fact: &Fact<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match *fact {
            Fact::End(ref end) if end.committed && !end.dropped.is_empty() => Self::dropped(end),
            Fact::RestorePoint { time, name } => Self::RestorePoint { name: text(name), time },
            Fact::FileTruncated { file, blocks } => Self::FileTruncated { file, blocks },
            Fact::TablesTruncated { database, tables } => {
                let (tables, cut) = named(tables.iter());
                Self::TablesTruncated { database, tables, cut }
            }
            Fact::DatabaseCreated { database, tablespace, source } if source == Some(database) => {
                Self::DatabaseMoved { database, tablespace }
            }
            Fact::DatabaseCreated { database, tablespace, .. } => Self::DatabaseCreated { database, tablespace },
            Fact::DatabaseDropped { database } => Self::DatabaseDropped { database },
            Fact::Prepare { gid, time, .. } => Self::Prepared { gid: text(gid), time },
            Fact::EndOfRecovery { timeline, previous } => Self::TimelineBegan { timeline, previous },
            Fact::Checkpoint { timeline, previous } if timeline != previous => {
                Self::TimelineBegan { timeline, previous }
            }
            Fact::ParameterChange(parameters) => Self::ParametersChanged(parameters),
            Fact::FullPageWrites(on) => Self::FullPageWrites { on },
            Fact::Overwritten { lsn } => Self::Overwritten { lost: lsn },
            Fact::End(_) | Fact::FileCreated { .. } | Fact::Checkpoint { .. } => return None,
            Fact::Rows { .. } | Fact::TablespaceMade { .. } | Fact::PageWritten { .. } => return None,
        })
    }

    /// EventDetail a commit says that removes files.
    fn dropped(end: &TransactionEnd<'_>) -> Self {
        let relations = end.dropped_statistics.iter().filter(|item| item.kind == STATISTICS_OF_RELATION);
        let (subxids, cut_subxids) = named(end.subxids.iter());
        let (files, cut_files) = named(end.dropped.iter());
        let (relations, cut_relations) = named(relations.map(|item| item.object as u32));
        let cut = cut_subxids || cut_files || cut_relations || !end.whole;
        Self::FilesRemoved { time: end.time, subxids, files, relations, cut }
    }
}

/// pgstat_kind.h, PGSTAT_KIND_RELATION.
const STATISTICS_OF_RELATION: u32 = 2;

/// The first [`NAMED`] items, and whether there are more.
fn named<T>(items: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut items = items;
    let kept = items.by_ref().take(NAMED).collect();
    (kept, items.next().is_some())
}

impl Commits {
    fn add(&mut self, commit: Commit) {
        self.count += 1;
        self.first = self.first.or(Some(commit));
        self.last = Some(commit);
        self.min_time = Some(self.min_time.map_or(commit.time, |time| time.min(commit.time)));
        self.max_time = self.max_time.max(Some(commit.time));
    }
}
