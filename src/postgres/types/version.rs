use std::fmt;
use std::str::FromStr;

use super::{ParseError, serde_as_text};

/// A PostgreSQL major version that Walden knows: 13 to 18.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct MajorVersion(u32);

impl MajorVersion {
    /// The majors that are supported.
    pub const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

    /// Refuses majors whose formats are not known.
    pub fn new(major: u32) -> Result<Self, ParseError> {
        match Self::SUPPORTED.contains(&major) {
            true => Ok(Self(major)),
            false => Err(ParseError::new(
                "PostgreSQL major version",
                major,
                "13 to 18 are supported",
            )),
        }
    }

    /// From `server_version_num`, such as 150018.
    pub fn from_version_num(number: u32) -> Result<Self, ParseError> {
        Self::new(number / 10_000)
    }

    /// From the magic of a WAL page (xlog_internal.h, XLOG_PAGE_MAGIC).
    pub fn from_wal_magic(magic: u16) -> Option<Self> {
        let major = match magic {
            0xD106 => 13,
            0xD10D => 14,
            0xD110 => 15,
            0xD113 => 16,
            0xD116 => 17,
            0xD118 => 18,
            _ => return None,
        };
        Some(Self(major))
    }

    /// From pg_control's catalog version (catversion.h of each release).
    pub fn from_catalog_version(catalog: u32) -> Option<Self> {
        let major = match catalog {
            202007201 => 13,
            202107181 => 14,
            202209061 => 15,
            202307071 => 16,
            202406281 => 17,
            202506291 => 18,
            _ => return None,
        };
        Some(Self(major))
    }

    /// The number, such as 15.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for MajorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl TryFrom<u32> for MajorVersion {
    type Error = ParseError;
    fn try_from(major: u32) -> Result<Self, ParseError> {
        Self::new(major)
    }
}

impl From<MajorVersion> for u32 {
    fn from(major: MajorVersion) -> u32 {
        major.0
    }
}

/// The number that initdb gives a cluster and that all its WAL and control files carry. Text in JSON: it exceeds 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemIdentifier {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse()
            .map(Self)
            .map_err(|_| ParseError::new("system identifier", text, "expected a decimal number"))
    }
}

serde_as_text!(SystemIdentifier);
