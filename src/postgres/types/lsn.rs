use std::fmt;
use std::str::FromStr;

use super::{ParseError, serde_as_text};

/// A position in the write-ahead log: the byte's number since the cluster began (PostgreSQL's `pg_lsn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl FromStr for Lsn {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError::new(
                "LSN",
                text,
                "expected two hexadecimal numbers, such as 16/B374D848",
            )
        };
        let (high, low) = text.split_once('/').ok_or_else(wrong)?;
        let part = |digits: &str| match digits.len() {
            1..=8 if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).ok()
            }
            _ => None,
        };
        Ok(Lsn(
            part(high).ok_or_else(wrong)? << 32 | part(low).ok_or_else(wrong)?
        ))
    }
}

serde_as_text!(Lsn);

/// A timeline's number, from 1. Files write it as eight hexadecimal digits, people and settings in decimal.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Parts that a segment has at most.
const MOST_PARTS: u64 = 64;
/// Bytes of a part at least. Against segments in one piece, zstd levels 1 and 3 make 1.1 to 1.8 % more of real WAL in
/// parts of 512 KiB, 0.6 % of 1 MiB and 4 % of 256 KiB, and take a tenth to a fifth less time.
const LEAST_PART: u64 = 512 << 10;

/// Bytes in a WAL segment: a power of two from 1 MiB to 1 GiB, fixed by initdb (`--wal-segsize`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// Refuses what initdb would refuse.
    pub fn new(bytes: u32) -> Result<Self, ParseError> {
        match bytes {
            0x10_0000..=0x4000_0000 if bytes.is_power_of_two() => Ok(Self(bytes)),
            _ => Err(ParseError::new(
                "WAL segment size",
                bytes,
                "expected a power of two from 1 MiB to 1 GiB",
            )),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Bytes of a part of a segment. Parts are stored, and told of, each by itself, so that one can be read alone: the
    /// smaller they are, the less is read for a place, and the less well they compress.
    pub fn part(self) -> u64 {
        (self.bytes() / MOST_PARTS).max(LEAST_PART)
    }

    /// How many segments share one 32-bit "log" number in file names (xlog_internal.h, XLogSegmentsPerXLogId).
    pub fn per_log(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = ParseError;
    fn try_from(bytes: u32) -> Result<Self, ParseError> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> u32 {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_and_prints_as_in_postgresql() {
        for text in ["0/0", "0/1000028", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("1/00000010".parse::<Lsn>().unwrap(), Lsn(0x1_0000_0010));
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "1/G",
            "1/123456789",
            "+1/1",
            "1/1/1",
            " 1/1",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_segment_size_is_a_power_of_two_within_bounds() {
        assert!(SegmentSize::new(1 << 20).is_ok() && SegmentSize::new(1 << 30).is_ok());
        assert!(SegmentSize::new(1 << 19).is_err() && SegmentSize::new(3 << 20).is_err());
        assert_eq!(SegmentSize::new(16 << 20).unwrap().per_log(), 256);
    }

    #[test]
    fn a_segment_has_few_parts_and_none_is_small() {
        let parts = |mib: u32| (mib << 20) as u64 / SegmentSize::new(mib << 20).unwrap().part();
        assert_eq!([1, 16, 32, 1024].map(parts), [2, 32, 64, 64]);
    }
}
