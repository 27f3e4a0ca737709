//! Ends of transactions (xact.h, xl_xact_commit and its kin; twophase.c for PREPARE).

use super::bytes::Reader;
use super::fact::{DroppedStatistics, Fact, List, TransactionEnd};
use super::record::{Record, RelFileLocator, Xid};
use super::timestamp::Timestamp;

const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;

const HAS_INFO: u8 = 0x80;
const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBXACTS: u32 = 1 << 1;
const HAS_RELFILES: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_TWOPHASE: u32 = 1 << 4;
const HAS_DROPPED_STATS: u32 = 1 << 8;

const TWOPHASE_MAGIC: u32 = 0x57F9_4534;

#[inline]
pub(super) fn read<'a>(record: &Record<'a>) -> Option<Option<Fact<'a>>> {
    match record.header.info & 0x70 {
        COMMIT | COMMIT_PREPARED => end(record, true).map(Some),
        ABORT | ABORT_PREPARED => end(record, false).map(Some),
        PREPARE => prepare(record).map(Some),
        _ => Some(None),
    }
}

fn end<'a>(record: &Record<'a>, committed: bool) -> Option<Fact<'a>> {
    let mut fields = Reader(record.main);
    let mut end = TransactionEnd {
        committed,
        xid: record.header.xid,
        time: Timestamp(fields.i64()?),
        subxids: List::empty(read_xid),
        subxids_cut: false,
        dropped: List::empty(RelFileLocator::read),
        dropped_statistics: List::empty(read_statistics),
        whole: record.whole,
    };
    // Of a record that was cut, or is not of the known form, what could be read counts.
    end.whole &= extra(record, &mut fields, &mut end).is_some();
    Some(Fact::End(end))
}

/// What follows the time.
fn extra<'a>(
    record: &Record<'a>,
    fields: &mut Reader<'a>,
    end: &mut TransactionEnd<'a>,
) -> Option<()> {
    let info = if record.header.info & HAS_INFO != 0 {
        fields.u32()?
    } else {
        0
    };
    let has = |bit| info & bit != 0;
    if has(HAS_DATABASE) {
        // And its tablespace.
        fields.u64()?;
    }
    if has(HAS_SUBXACTS) {
        end.subxids = list(fields, 4, read_xid, record.whole)?;
        end.subxids_cut = !record.whole && fields.0.is_empty();
    }
    if has(HAS_RELFILES) {
        end.dropped = list(fields, 12, RelFileLocator::read, record.whole)?;
    }
    if has(HAS_DROPPED_STATS) {
        end.dropped_statistics = match record.major.number() {
            18.. => list(fields, 16, read_statistics, record.whole)?,
            _ => list(fields, 12, read_short_statistics, record.whole)?,
        };
    }
    if end.committed && has(HAS_INVALIDATIONS) {
        list(fields, 16, read_xid, record.whole)?;
    }
    if has(HAS_TWOPHASE) {
        end.xid = fields.u32()?;
    }
    Some(())
}

/// A count, then so many items of `size` bytes; fewer when the record was cut.
fn list<'a, T>(
    fields: &mut Reader<'a>,
    size: usize,
    read: fn(&mut Reader<'_>) -> Option<T>,
    whole: bool,
) -> Option<List<'a, T>> {
    let wanted = (fields.u32()? as usize).checked_mul(size)?;
    let there = if whole {
        wanted
    } else {
        wanted.min(fields.0.len())
    };
    Some(List::new(fields.take(there)?, read))
}

pub(super) fn read_xid(fields: &mut Reader<'_>) -> Option<Xid> {
    fields.u32()
}

fn read_short_statistics(fields: &mut Reader<'_>) -> Option<DroppedStatistics> {
    let (kind, _database) = (fields.u32()?, fields.u32()?);
    Some(DroppedStatistics {
        kind,
        object: u64::from(fields.u32()?),
    })
}

fn read_statistics(fields: &mut Reader<'_>) -> Option<DroppedStatistics> {
    let (kind, _database) = (fields.u32()?, fields.u32()?);
    Some(DroppedStatistics {
        kind,
        object: fields.u64()?,
    })
}

/// xl_xact_prepare: fixed fields, then the GID with its terminating zero.
fn prepare<'a>(record: &Record<'a>) -> Option<Fact<'a>> {
    let main = record.main;
    let u32_at = |at: usize| Reader(main.get(at..)?).u32();
    if u32_at(0)? != TWOPHASE_MAGIC {
        return None;
    }
    // 15 added the dropped statistics' counts.
    let (length_at, gid_at) = if record.major.number() >= 15 {
        (54, 72)
    } else {
        (46, 64)
    };
    let length = usize::from(Reader(main.get(length_at..)?).u16()?);
    let gid = main.get(gid_at..)?.get(..length.saturating_sub(1))?;
    let time = Timestamp(Reader(main.get(16..)?).i64()?);
    Some(Fact::Prepare {
        xid: u32_at(8)?,
        time,
        gid,
    })
}
