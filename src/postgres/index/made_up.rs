//! An archive of WAL made up at random, and what truly happened in it.

use std::collections::BTreeMap;

use crate::postgres::archive::testing::SEGMENT;
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Summarizer, Summary, rmgr};

/// PostgreSQL 15.
const MAGIC: u16 = 0xD110;
/// The number of the first segment.
pub const FIRST: u64 = 5;
pub const SIZE: u64 = SEGMENT as u64;
/// Transaction numbers begin here, so that they go round.
const FIRST_XID: u32 = u32::MAX - 3000;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index as u64 + 1) as usize);
        }
    }
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub xid: u32,
    pub lsn: u64,
    /// The segment with its last byte.
    pub segment: u64,
    pub time: i64,
    pub committed: bool,
}

/// WAL of timeline 1, and the truth about it.
pub struct MadeUp {
    pub random: Random,
    pub wal: Writer,
    pub ends: Vec<End>,
    /// Name, LSN, segment.
    pub points: Vec<(String, u64, u64)>,
    /// Commit and file: rows deleted.
    pub deletes: BTreeMap<(u64, u32), u64>,
    /// Commits that dropped a file.
    pub drops: Vec<(u64, u32)>,
    open: Vec<(u32, BTreeMap<u32, u64>)>,
    xid: u32,
    time: i64,
}

impl MadeUp {
    /// So many segments and a bit.
    pub fn new(seed: u64, segments: u64) -> Self {
        let wal = Writer::new(MAGIC, SIZE, FIRST * SIZE);
        let mut made = Self {
            random: Random(seed),
            wal,
            ends: Vec::new(),
            points: Vec::new(),
            deletes: BTreeMap::new(),
            drops: Vec::new(),
            open: Vec::new(),
            xid: FIRST_XID,
            time: 1_000_000,
        };
        made.grow(segments);
        made
    }

    /// Until there are so many segments and a bit.
    pub fn grow(&mut self, segments: u64) {
        while self.wal.position() < (FIRST + segments) * SIZE {
            self.step();
        }
    }

    /// A record of so many bytes.
    pub fn write_long(&mut self, bytes: usize) {
        self.wal.write(&Draft {
            rmgr: rmgr::XLOG,
            info: 0xB0,
            main: vec![7; bytes],
            ..Draft::default()
        });
    }

    fn new_xid(&mut self) -> u32 {
        self.xid = if self.xid == u32::MAX {
            3
        } else {
            self.xid + 1
        };
        self.xid
    }

    fn segment(&self) -> u64 {
        (self.wal.position() - 1) / SIZE
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 => {
                for _ in 0..self.random.below(400) {
                    let xid = self.new_xid();
                    self.change(xid, 0x00, 16384, 0);
                    self.end(xid, true, &[]);
                }
            }
            1 | 2 if self.open.len() < 6 => {
                let xid = self.new_xid();
                self.open.push((xid, BTreeMap::new()));
            }
            3..=7 if !self.open.is_empty() => {
                let which = self.random.below(self.open.len() as u64) as usize;
                let (file, count) = (
                    20000 + self.random.below(3) as u32,
                    1 + self.random.below(60),
                );
                let xid = self.open[which].0;
                for _ in 0..count {
                    let image = self.random.below(8) * 1000;
                    self.change(xid, 0x10, file, image as usize);
                }
                *self.open[which].1.entry(file).or_default() += count;
            }
            8 if !self.open.is_empty() => {
                let which = self.random.below(self.open.len() as u64) as usize;
                let (xid, deleted) = self.open.swap_remove(which);
                let committed = self.random.below(5) > 0;
                let lsn = self.end(xid, committed, &[]);
                if committed {
                    self.deletes
                        .extend(deleted.into_iter().map(|(file, rows)| ((lsn, file), rows)));
                }
            }
            9 => {
                let xid = self.new_xid();
                let file = 30000 + self.random.below(1000) as u32;
                let lsn = self.end(xid, true, &[file]);
                self.drops.push((lsn, file));
            }
            10 => {
                let name = format!("point {}", self.random.below(20));
                let mut main = self.time.to_le_bytes().to_vec();
                main.extend_from_slice(name.as_bytes());
                main.resize(72, 0);
                let lsn = self.wal.write(&Draft {
                    rmgr: rmgr::XLOG,
                    info: 0x70,
                    main,
                    ..Draft::default()
                });
                self.points.push((name, lsn, self.segment()));
            }
            _ => {
                for _ in 0..self.random.below(40) {
                    let block = Some((1, vec![1; 7000]));
                    self.wal.write(&Draft {
                        rmgr: rmgr::XLOG,
                        info: 0xB0,
                        block,
                        ..Draft::default()
                    });
                }
            }
        }
    }

    fn change(&mut self, xid: u32, info: u8, file: u32, image: usize) {
        let block = Some((file, vec![7; image]));
        self.wal.write(&Draft {
            xid,
            rmgr: rmgr::HEAP,
            info,
            main: vec![0; 8],
            block,
        });
    }

    /// Ends a transaction, by a commit that drops files or not.
    fn end(&mut self, xid: u32, committed: bool, dropped: &[u32]) -> u64 {
        // Times go up and down.
        self.time += self.random.below(1000) as i64 - 300;
        let mut main = self.time.to_le_bytes().to_vec();
        let mut info = if committed { 0x00 } else { 0x20 };
        if !dropped.is_empty() {
            info |= 0x80;
            main.extend_from_slice(&(1u32 << 2).to_le_bytes());
            main.extend_from_slice(&(dropped.len() as u32).to_le_bytes());
            for file in dropped {
                [1663, 5, *file]
                    .iter()
                    .for_each(|part: &u32| main.extend_from_slice(&part.to_le_bytes()));
            }
        }
        let lsn = self.wal.write(&Draft {
            xid,
            rmgr: rmgr::TRANSACTION,
            info,
            main,
            ..Draft::default()
        });
        self.ends.push(End {
            xid,
            lsn,
            segment: self.segment(),
            time: self.time,
            committed,
        });
        lsn
    }

    /// Names, contents and summaries of the whole segments.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>, Summary)> {
        let whole = self.wal.bytes.chunks_exact(SEGMENT).enumerate();
        whole
            .map(|(index, bytes)| {
                let number = FIRST + index as u64;
                (segment(1, number), bytes.to_vec(), summarize(bytes, number))
            })
            .collect()
    }
}

pub fn segment(timeline: u32, number: u64) -> SegmentName {
    let size = crate::postgres::archive::testing::cluster_description().segment_size;
    SegmentName::from_number(TimelineId(timeline), number, size)
}

pub fn summarize(bytes: &[u8], number: u64) -> Summary {
    let size = SegmentSize::new(SEGMENT as u32).unwrap();
    let mut summarizer = Summarizer::new(Lsn(number * SIZE), size);
    summarizer.push(bytes);
    summarizer.finish()
}
