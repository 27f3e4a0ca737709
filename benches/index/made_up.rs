//! A busy server's WAL, made up: which segments there are, and what their summaries say.

use chrono::{DateTime, Utc};
use walden::postgres::types::{Lsn, MajorVersion, SegmentName, SegmentSize, TimelineId};
use walden::postgres::wal::{
    Commit, Commits, Ended, Ends, EventDetail, FirstRecord, RelFileLocator, RowChanges, RowCounts,
    RowsOf, Summary, Timestamp, WalEvent,
};

pub const TIMELINES: u64 = 5;
pub const SIZE: u64 = 16 << 20;
pub const PAGE: u64 = 8192;
/// Of the server's clock, between two segments, in microseconds.
pub const STEP: i64 = 10_000_000;
/// Transactions that end in a segment.
pub const XIDS: u64 = 5000;
/// Every so many transactions one ends in the segment after its own.
pub const LATE: u64 = 500;
/// Where a segment's first record begins, behind the header of its first page.
pub const FIRST: u64 = 40;
/// Where its last one begins, which ends with it: behind the header of its last page.
pub const LAST: u64 = SIZE - PAGE + 24;
const DATABASE: u32 = 5;
/// Times of `Timestamp` count from 2000 on, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

pub fn segment_size() -> SegmentSize {
    SegmentSize::new(SIZE as u32).expect("a size")
}

pub fn major() -> MajorVersion {
    MajorVersion::new(16).expect("a major")
}

/// A segment: timeline and number.
pub type Place = (u64, u64);

/// Which segments there are: as many on each timeline, which begins where the one before is three quarters through.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Segments of a timeline.
    pub each: u64,
}

impl Shape {
    /// The number of a timeline's first segment.
    pub fn first(self, timeline: u64) -> u64 {
        1 + (timeline - 1) * self.each * 3 / 4
    }

    /// The number behind its last.
    pub fn end(self, timeline: u64) -> u64 {
        self.first(timeline) + self.each
    }

    /// Where a timeline leaves the one before, within its first segment.
    pub fn switch(self, timeline: u64) -> Lsn {
        lsn(self.first(timeline), XIDS / 2)
    }

    /// The newest timeline whose line a segment is part of.
    pub fn line(self, (timeline, number): Place) -> u64 {
        if timeline < TIMELINES && number >= self.first(timeline + 1) {
            timeline
        } else {
            TIMELINES
        }
    }
}

pub fn name((timeline, number): Place) -> SegmentName {
    SegmentName::from_number(TimelineId(timeline as u32), number, segment_size())
}

/// The number of the transaction that is the `part`th to begin in a segment.
pub fn xid(number: u64, part: u64) -> u32 {
    (number * XIDS + part) as u32
}

/// Where the `part`th transaction of a segment ends, about.
fn lsn(number: u64, part: u64) -> Lsn {
    Lsn(number * SIZE + PAGE + part * (SIZE - 4 * PAGE) / XIDS / 8 * 8)
}

/// When it ends.
pub fn time(number: u64, part: u64) -> Timestamp {
    Timestamp(number as i64 * STEP + 1000 + part as i64 * 200)
}

/// When a segment's first transactions end.
pub fn begin(number: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(EPOCH + number as i64 * STEP).expect("a time")
}

pub fn restore_point((timeline, number): Place) -> String {
    format!("point-{number}-on-{timeline}")
}

pub fn file(number: u32) -> RelFileLocator {
    RelFileLocator {
        tablespace: 1663,
        database: DATABASE,
        number,
    }
}

/// The file of a table that is dropped in a segment.
pub fn dropped_file(number: u64) -> u32 {
    30_000 + number as u32
}

fn commit(number: u64, part: u64) -> Commit {
    Commit {
        lsn: lsn(number, part),
        xid: xid(number, part),
        time: time(number, part),
    }
}

/// A segment of a busy server: thousands of small transactions, some that began before it, now and then a mass delete, a
/// dropped table, a restore point.
pub fn summary(shape: Shape, (timeline, number): Place) -> Summary {
    let start = number * SIZE;
    let began = if number == shape.first(timeline) {
        (timeline - 1).max(1)
    } else {
        timeline
    };
    let late = XIDS / LATE;
    let oldest_ended = (0..late).map(|part| (xid(number - 1, part * LATE + LATE - 1), part));
    let oldest_ended = oldest_ended.chain((late..128).map(|part| (xid(number, part), part)));
    let ended = |(xid, part)| Ended {
        xid,
        top: xid,
        lsn: lsn(number, part),
        time: time(number, part),
        committed: true,
    };
    let rest = XIDS - 2;
    Summary {
        major: Some(major()),
        first_timeline: Some(TimelineId(began as u32)),
        timeline: Some(TimelineId(timeline as u32)),
        first: Some(FirstRecord {
            lsn: Lsn(start + FIRST),
            prev: Lsn(start - SIZE + LAST),
        }),
        last: Some(Lsn(start + LAST)),
        end: Some(Lsn(start + SIZE)),
        records: 100_000,
        commits: Commits {
            count: XIDS,
            first: Some(Commit {
                xid: xid(number - 1, LATE - 1),
                ..commit(number, 0)
            }),
            last: Some(commit(number, rest)),
            min_time: Some(time(number, 0)),
            max_time: Some(time(number, rest)),
        },
        ends: Ends {
            count: XIDS,
            min_time: Some(time(number, 0)),
            max_time: Some(time(number, rest)),
            newest: Some(xid(number, rest)),
            cut: false,
        },
        oldest_ended: oldest_ended.map(ended).collect(),
        ended_left_out: XIDS - 128,
        rows: RowChanges {
            largest: (0..64).map(|part| rows(number, part)).collect(),
            left_out: 1000,
            largest_left_out: 1,
            newest_open: None,
        },
        events: events((timeline, number)),
        ..Summary::default()
    }
}

fn rows(number: u64, part: u64) -> RowsOf {
    let deleted = if part == 0 && number.is_multiple_of(10) {
        5000
    } else {
        1
    };
    let commit = (part < 54).then(|| (lsn(number, part + 20), time(number, part + 20)));
    let counts = RowCounts {
        deleted,
        ..RowCounts::default()
    };
    RowsOf {
        xid: xid(number, part + 20),
        file: file(20_000 + part as u32),
        counts,
        commit,
    }
}

fn events((timeline, number): Place) -> Vec<WalEvent> {
    let mut events = Vec::new();
    let mut event = |part, what| {
        events.push(WalEvent {
            lsn: lsn(number, part),
            end: lsn(number, part + 1),
            xid: xid(number, part),
            what,
        });
    };
    if number.is_multiple_of(50) {
        let (time, file) = (time(number, 2500), file(dropped_file(number)));
        let (files, relations) = (vec![file], vec![file.number]);
        event(
            2500,
            EventDetail::FilesRemoved {
                time,
                subxids: vec![],
                relations,
                files,
                cut: false,
            },
        );
    }
    if number.is_multiple_of(100) {
        event(
            3000,
            EventDetail::RestorePoint {
                name: restore_point((timeline, number)),
                time: time(number, 3000),
            },
        );
    }
    events
}

/// Random numbers that are the same again for the same seed.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
