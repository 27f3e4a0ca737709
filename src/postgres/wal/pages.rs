//! Page headers (xlog_internal.h, XLogPageHeaderData). Little-endian machines, pages of 8 KiB.

use super::bytes::Reader;
use super::stop::StopReason;
use crate::postgres::types::{LongPageHeader, Lsn, MajorVersion, TimelineId};

/// Bytes of a page (XLOG_BLCKSZ).
pub const PAGE: usize = 8192;
const SHORT: usize = 24;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const ALL_FLAGS: u16 = 0x000F;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;

/// How a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// With a record.
    Record,
    /// With this many more bytes, here and on later pages, of a record that began before.
    Continuation(u32),
    /// With the record that declares the unfinished one before lost in a crash.
    Overwrite,
}

/// A page's header, checked against its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub timeline: TimelineId,
    pub first: First,
    /// The long header of a segment's first page.
    pub long: Option<LongPageHeader>,
}

impl PageHeader {
    /// Where the page's content begins.
    pub fn length(&self) -> usize {
        if self.long.is_some() {
            LongPageHeader::LEN
        } else {
            SHORT
        }
    }

    /// Reads the header of the page at `address`. `known` is what the first page said; without it the page must begin a
    /// segment.
    pub fn read(
        page: &[u8],
        address: Lsn,
        known: Option<&LongPageHeader>,
    ) -> Result<Self, StopReason> {
        let mut fields = Reader(page);
        let cut = StopReason::PageCut {
            bytes: page.len() as u32,
        };
        let (magic, flags, timeline, lsn, remaining) = (|| {
            Some((
                fields.u16()?,
                fields.u16()?,
                fields.u32()?,
                fields.u64()?,
                fields.u32()?,
            ))
        })()
        .ok_or(cut)?;
        if magic == 0 && page.iter().all(|byte| *byte == 0) {
            return Err(StopReason::ZeroPage);
        }
        let major = MajorVersion::from_wal_magic(magic).ok_or(StopReason::Magic(magic))?;
        if known.is_some_and(|known| known.major != major) {
            return Err(StopReason::Magic(magic));
        }
        if Lsn(lsn) != address {
            return Err(StopReason::Address(Lsn(lsn)));
        }
        let begins_segment =
            known.is_none_or(|known| address.0.is_multiple_of(known.segment_size.bytes()));
        if flags & !ALL_FLAGS != 0 || (flags & LONG_HEADER != 0) != begins_segment {
            return Err(StopReason::Flags(flags));
        }
        let long = if begins_segment {
            Some(long_header(page, known)?)
        } else {
            None
        };
        let first = match (
            flags & FIRST_IS_CONTRECORD != 0,
            flags & FIRST_IS_OVERWRITE_CONTRECORD != 0,
            remaining,
        ) {
            (true, false, 1..) => First::Continuation(remaining),
            (false, true, 0) => First::Overwrite,
            (false, false, 0) => First::Record,
            _ => return Err(StopReason::Flags(flags)),
        };
        Ok(Self {
            timeline: TimelineId(timeline),
            first,
            long,
        })
    }
}

fn long_header(page: &[u8], known: Option<&LongPageHeader>) -> Result<LongPageHeader, StopReason> {
    let header = LongPageHeader::parse(page).map_err(|_| StopReason::LongHeader)?;
    let same = known.is_none_or(|known| {
        (known.system_identifier, known.segment_size)
            == (header.system_identifier, header.segment_size)
    });
    let block_size = Reader(page.get(36..).unwrap_or_default()).u32();
    let aligned = header.address.0.is_multiple_of(header.segment_size.bytes());
    if same && aligned && block_size == Some(PAGE as u32) {
        Ok(header)
    } else {
        Err(StopReason::LongHeader)
    }
}
