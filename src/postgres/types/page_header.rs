use super::{Lsn, MajorVersion, ParseError, SegmentSize, SystemIdentifier, TimelineId};

/// The long header at the start of each WAL segment (xlog_internal.h, XLogLongPageHeaderData).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPageHeader {
    pub major: MajorVersion,
    /// Timeline of the page; in the first segment of a new timeline still the older one's.
    pub timeline: TimelineId,
    /// Address of the page, which is the segment's first LSN.
    pub address: Lsn,
    pub system_identifier: SystemIdentifier,
    pub segment_size: SegmentSize,
}

impl LongPageHeader {
    /// Bytes that [`parse`](Self::parse) needs.
    pub const LEN: usize = 40;

    /// Reads a segment's first bytes (little-endian machines).
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let wrong = |value: String, why: &str| ParseError::new("WAL page header", value, why);
        if bytes.len() < Self::LEN {
            return Err(wrong(
                format!("{} bytes", bytes.len()),
                "a segment begins with a header of 40 bytes",
            ));
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let magic = u16_at(0);
        let major = MajorVersion::from_wal_magic(magic).ok_or_else(|| {
            wrong(
                format!("magic {magic:04X}"),
                "not the magic of PostgreSQL 13 to 18",
            )
        })?;
        if u16_at(2) & 0x0002 == 0 {
            return Err(wrong(
                format!("flags {:04X}", u16_at(2)),
                "the first page of a segment has a long header",
            ));
        }
        Ok(Self {
            major,
            timeline: TimelineId(u32_at(4)),
            address: Lsn(u64_at(8)),
            system_identifier: SystemIdentifier(u64_at(24)),
            segment_size: SegmentSize::new(u32_at(32))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; 40] {
        let mut bytes = [0u8; 40];
        bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
        bytes[2] = 2;
        bytes[4] = 1;
        bytes[8..16].copy_from_slice(&0x1000000u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&7u64.to_le_bytes());
        bytes[32..36].copy_from_slice(&(16u32 << 20).to_le_bytes());
        bytes
    }

    #[test]
    fn the_long_header_gives_the_identity_of_a_segment() {
        let parsed = LongPageHeader::parse(&header()).unwrap();
        assert_eq!(
            (parsed.major.number(), parsed.timeline.0, parsed.address),
            (15, 1, Lsn(0x1000000))
        );
        assert_eq!(
            (parsed.system_identifier.0, parsed.segment_size.bytes()),
            (7, 16 << 20)
        );
    }

    #[test]
    fn a_short_zeroed_or_foreign_header_is_refused() {
        assert!(LongPageHeader::parse(&header()[..39]).is_err());
        assert!(LongPageHeader::parse(&[0; 40]).is_err());
        let mut short_header = header();
        short_header[2] = 0;
        assert!(LongPageHeader::parse(&short_header).is_err());
    }
}
