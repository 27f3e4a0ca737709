//! A record that crosses from one segment into the next, joined from what their summaries hold.
//!
//! What a record says stands in the headers at its front and in the main data at its back; between them lie blocks.
//! So a few bytes of each end and the CRC of the whole are enough.

use serde::{Deserialize, Serialize};

use super::checks::{recoverable, verify};
use super::checksum;
use super::record::{FirstRecord, HEADER, KEPT, Record, RecordHeader, Xid};
use super::stop::{StopReason, WalStop};
use crate::postgres::types::{Lsn, MajorVersion};

/// Bytes kept of each end of a piece.
const EDGE: usize = 512;

/// Part of a record: its length, its CRC-32C, and the bytes at its ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordPart {
    pub length: u64,
    pub crc: u32,
    /// The first bytes, as hexadecimal digits in JSON.
    #[serde(with = "hex")]
    first: Vec<u8>,
    /// The last ones, of what `first` does not have.
    #[serde(with = "hex")]
    last: Vec<u8>,
}

impl RecordPart {
    /// Of a record's first `length` bytes, when `kept` has the first ones and `crc` is that of all but the header if
    /// some are not kept.
    pub(super) fn of(kept: &[u8], length: u64, crc: Option<u32>) -> Self {
        let mut piece = Self::default();
        piece.add(kept);
        if let (Some(crc), Some(header)) = (crc, kept.get(..HEADER)) {
            let after_header = (length as usize).saturating_sub(HEADER);
            piece.crc = crc32c::crc32c_combine(crc32c::crc32c(header), crc, after_header);
            piece.length = length;
            piece.last.clear();
        }
        piece
    }

    /// Adds bytes at the end.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.keep(bytes);
    }

    /// Adds another piece at the end.
    fn append(&mut self, next: &Self) {
        self.crc = crc32c::crc32c_combine(self.crc, next.crc, next.length as usize);
        let length = self.length.saturating_add(next.length);
        self.keep(&next.first);
        if next.hole() > 0 {
            self.last.clear();
            self.length = length.saturating_sub(next.last.len() as u64);
        }
        self.keep(&next.last);
        self.length = length;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = if self.length == self.first.len() as u64 {
            EDGE.saturating_sub(self.first.len())
        } else {
            0
        };
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.first.extend_from_slice(first);
        self.last
            .extend_from_slice(&rest[rest.len().saturating_sub(EDGE)..]);
        self.last.drain(..self.last.len().saturating_sub(EDGE));
        self.length += bytes.len() as u64;
    }

    /// Bytes in the middle that are not kept.
    fn hole(&self) -> u64 {
        self.length
            .saturating_sub((self.first.len() + self.last.len()) as u64)
    }

    /// The bytes, zeros where they are not kept; only the first ones of a piece that is too long.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.first.clone();
        if self.length <= KEPT as u64 {
            bytes.resize(bytes.len() + self.hole() as usize, 0);
            bytes.extend_from_slice(&self.last);
        }
        bytes
    }
}

/// What a segment begins with of a record that began before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Bytes of the record that were missing where the segment begins.
    pub remaining: u32,
    /// What the segment has of them: all, unless the record goes on beyond it, too.
    pub piece: RecordPart,
    /// Where the record after it begins, if it ends here.
    pub end: Option<Lsn>,
}

impl Head {
    pub(super) fn missing(&self) -> u64 {
        u64::from(self.remaining).saturating_sub(self.piece.length)
    }
}

/// What a segment ends with of a record that goes on in the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Where the record begins.
    pub lsn: Lsn,
    /// Bytes of the whole record.
    pub total_length: u32,
    pub piece: RecordPart,
}

/// How far a record got by the next segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It is whole, and its CRC is right.
    Whole(JoinedRecord),
    /// It goes on in the segment after that.
    GoesOn(Tail),
}

/// A record that crossed a segment's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedRecord {
    major: MajorVersion,
    lsn: Lsn,
    end: Lsn,
    header: RecordHeader,
    bytes: Vec<u8>,
}

impl JoinedRecord {
    /// The record. Its blocks' content is not there, and its main data only if it lies within what was kept.
    pub fn record(&self) -> Result<Record<'_>, WalStop> {
        let read = Record::read(self.major, self.lsn, self.end, self.header, &self.bytes);
        read.and_then(|record| recoverable(&record).map(|()| record))
            .map_err(|why| WalStop { lsn: self.lsn, why })
    }
}

impl Tail {
    /// The record and its link, if its header is there.
    pub(super) fn first(&self) -> Option<FirstRecord> {
        Some(FirstRecord {
            lsn: self.lsn,
            prev: RecordHeader::read(&self.piece.first)?.prev,
        })
    }

    /// The transaction that wrote the record; 0 without one. A record's first eight bytes are never torn.
    pub fn xid(&self) -> Option<Xid> {
        Some(Xid::from_le_bytes(
            self.piece.first.get(4..8)?.try_into().ok()?,
        ))
    }

    /// Joins it with the head of the next segment.
    ///
    /// # Errors
    /// If the next segment does not go on with this record, or the record's CRC is wrong.
    pub fn join(&self, next: Option<&Head>, major: MajorVersion) -> Result<Joined, WalStop> {
        let wrong = |why| WalStop { lsn: self.lsn, why };
        let missing = u64::from(self.total_length).saturating_sub(self.piece.length);
        let next = match next {
            Some(head) if u64::from(head.remaining) == missing => head,
            head => {
                let found = head.map_or(0, |head| head.remaining);
                return Err(wrong(StopReason::Continuation { missing, found }));
            }
        };
        let mut tail = self.clone();
        tail.piece.append(&next.piece);
        let Some(end) = next.end else {
            return Ok(Joined::GoesOn(tail));
        };
        let header =
            RecordHeader::read(&tail.piece.first).ok_or_else(|| wrong(StopReason::Parts))?;
        let of_header = crc32c::crc32c(&tail.piece.first[..HEADER]);
        let after = (tail.piece.length as usize).saturating_sub(HEADER);
        // crc(header, body) is that of the header, shifted by the body's length, xor that of the body.
        let of_body = tail.piece.crc ^ crc32c::crc32c_combine(of_header, 0, after);
        verify(&header, checksum::after_body(of_body, &tail.piece.first)).map_err(wrong)?;
        let mut joined = JoinedRecord {
            major,
            lsn: self.lsn,
            end,
            header,
            bytes: tail.piece.bytes(),
        };
        let (hole, first) = (tail.piece.hole(), tail.piece.first.len());
        let (content, main) = joined.record()?.content();
        if hole > 0 && (content > first || main < first + hole as usize) {
            joined.bytes.truncate(first);
            joined.record()?;
        }
        Ok(Joined::Whole(joined))
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let digits = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let pair = |pair: &[u8]| match pair {
            [high, low] => {
                Some(((*high as char).to_digit(16)? << 4 | (*low as char).to_digit(16)?) as u8)
            }
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(pair).collect();
        bytes.ok_or_else(|| D::Error::custom("expected an even number of hexadecimal digits"))
    }
}
