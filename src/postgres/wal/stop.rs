//! Where decoding ends before the bytes do, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::postgres::types::{Lsn, TimelineId};

/// The first position that is no valid WAL, or that no recovery gets past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalStop {
    /// The record that cannot be read, or the page if no record was being read.
    pub lsn: Lsn,
    pub why: StopReason,
}

/// What is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// A page of zeros: nothing was written here yet, or it was lost.
    ZeroPage,
    /// A record's length is zero: nothing was written here yet, or it was lost.
    ZeroLength,
    /// The page belongs elsewhere: a recycled file, not overwritten yet.
    Address(Lsn),
    /// The bytes end within a page.
    PageCut { bytes: u32 },
    /// Not the magic of the major that the WAL began with, or of any.
    Magic(u16),
    /// Flags that no page has, or not at this place.
    Flags(u16),
    /// The long header says something else than the first one, or nothing valid.
    LongHeader,
    /// A page's timeline is older than that of the page before.
    Timeline {
        found: TimelineId,
        before: TimelineId,
    },
    /// The page does not go on with the record as far as it is missing (bytes).
    Continuation { missing: u64, found: u32 },
    /// The page says that it replaces a record cut off by a crash, but its first record is not about that one.
    Overwrite,
    /// A record's length that cannot be.
    Length(u32),
    /// A resource manager that does not exist.
    ResourceManager(u8),
    /// The record does not follow the one before.
    Previous { expected: Option<Lsn>, found: Lsn },
    /// CRC-32C does not match.
    Checksum { stored: u32, computed: u32 },
    /// The checksum is right, but the record's parts do not add up to its length.
    Parts,
    /// `wal_level` becomes minimal: changes behind it may be missing in the WAL, and recovery goes no further (xlog.c,
    /// CheckRequiredParameterValues; before 14 it only warned).
    Minimal,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroPage => write!(f, "the page is all zeros"),
            Self::ZeroLength => write!(f, "no record begins here, its length is zero"),
            Self::Address(lsn) => write!(f, "the page says that it belongs at {lsn}"),
            Self::PageCut { bytes } => write!(f, "the page is cut off after {bytes} bytes"),
            Self::Magic(magic) => write!(f, "the page has magic {magic:04X}, not its major's"),
            Self::Flags(flags) => write!(
                f,
                "the page has flags {flags:04X}, which do not belong here"
            ),
            Self::LongHeader => {
                write!(f, "the segment's header is not valid, or another cluster's")
            }
            Self::Timeline { found, before } => {
                write!(
                    f,
                    "the page is of timeline {found}, after a page of timeline {before}"
                )
            }
            Self::Continuation { missing, found } => {
                write!(
                    f,
                    "{missing} bytes of the record are missing, but the page goes on with {found}"
                )
            }
            Self::Overwrite => write!(f, "the page replaces a record, but does not say which"),
            Self::Length(length) => write!(f, "a record cannot be {length} bytes long"),
            Self::ResourceManager(id) => write!(f, "there is no resource manager {id}"),
            Self::Previous {
                expected: Some(expected),
                found,
            } => {
                write!(
                    f,
                    "the record says that it follows {found}, but the one before begins at {expected}"
                )
            }
            Self::Previous {
                expected: None,
                found,
            } => write!(f, "the record says that it follows {found}"),
            Self::Checksum { stored, computed } => {
                write!(
                    f,
                    "the record's CRC is {computed:08X}, but {stored:08X} is stored"
                )
            }
            Self::Parts => write!(f, "the record's parts do not add up to its length"),
            Self::Minimal => write!(
                f,
                "WAL is written at wal_level = minimal from here on, which cannot be replayed"
            ),
        }
    }
}

impl fmt::Display for WalStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.why, self.lsn)
    }
}
