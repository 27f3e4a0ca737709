//! One record: header, block references, main data (xlogrecord.h).

use super::bytes::Reader;
use super::stop::StopReason;
use crate::postgres::types::{Lsn, MajorVersion};

/// A transaction's number; 0 is none.
pub type Xid = u32;

/// Bytes of a record's header.
pub(super) const HEADER: usize = 24;
/// The longest record (xlogrecord.h, XLogRecordMaxSize).
pub(super) const LONGEST: u32 = 1020 << 20;

/// What is kept of a record that crosses pages. Only messages of logical decoding and commits of a million
/// subtransactions are longer; their checksums are checked, but their content ends here.
pub const KEPT: usize = 4 << 20;

/// Ids of resource managers (rmgrlist.h), the same in all majors.
pub mod rmgr {
    pub const XLOG: u8 = 0;
    pub const TRANSACTION: u8 = 1;
    pub const STORAGE: u8 = 2;
    pub const DATABASE: u8 = 4;
    pub const TABLESPACE: u8 = 5;
    pub const HEAP2: u8 = 9;
    pub const HEAP: u8 = 10;
    /// Extensions have this and higher ones.
    pub(in crate::postgres::wal) const FIRST_CUSTOM: u8 = 128;
    const NAMES: [&str; 22] = [
        "XLOG",
        "Transaction",
        "Storage",
        "CLOG",
        "Database",
        "Tablespace",
        "MultiXact",
        "RelMap",
        "Standby",
        "Heap2",
        "Heap",
        "Btree",
        "Hash",
        "Gin",
        "Gist",
        "Sequence",
        "SPGist",
        "BRIN",
        "CommitTs",
        "ReplicationOrigin",
        "Generic",
        "LogicalMessage",
    ];

    /// The name that PostgreSQL's programs print; `None` for an extension's, or one that does not exist.
    pub fn name(id: u8) -> Option<&'static str> {
        NAMES.get(usize::from(id)).copied()
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record.
    pub total_length: u32,
    pub xid: Xid,
    /// The record before.
    pub prev: Lsn,
    pub info: u8,
    pub rmgr: u8,
    pub crc: u32,
}

impl RecordHeader {
    /// Reads a record's first 24 bytes; `None` when there are fewer.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Reader(bytes);
        let (total_length, xid, prev) = (fields.u32()?, fields.u32()?, Lsn(fields.u64()?));
        let (info, rmgr) = (fields.u8()?, fields.u8()?);
        fields.u16()?;
        Some(Self {
            total_length,
            xid,
            prev,
            info,
            rmgr,
            crc: fields.u32()?,
        })
    }
}

/// What nothing before it proves: the link of the first record read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FirstRecord {
    pub lsn: Lsn,
    pub prev: Lsn,
}

/// What PostgreSQL calls RelFileLocator (RelFileNode before 16): the place of a relation's files, which is not its OID.
/// In JSON a list of the three numbers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "(u32, u32, u32)", from = "(u32, u32, u32)")]
pub struct RelFileLocator {
    pub tablespace: u32,
    /// 0 for relations that all databases share.
    pub database: u32,
    pub number: u32,
}

impl RelFileLocator {
    pub(super) fn read(fields: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            tablespace: fields.u32()?,
            database: fields.u32()?,
            number: fields.u32()?,
        })
    }
}

impl From<RelFileLocator> for (u32, u32, u32) {
    fn from(file: RelFileLocator) -> Self {
        (file.tablespace, file.database, file.number)
    }
}

impl From<(u32, u32, u32)> for RelFileLocator {
    fn from((tablespace, database, number): (u32, u32, u32)) -> Self {
        Self {
            tablespace,
            database,
            number,
        }
    }
}

impl std::fmt::Display for RelFileLocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

/// A block that a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    pub id: u8,
    pub file: RelFileLocator,
    /// 0 main, 1 free space map, 2 visibility map, 3 init.
    pub fork: u8,
    pub block: u32,
    /// Bytes of the page's image in the record, 0 without one.
    pub image_length: u16,
    pub data_length: u16,
}

/// A record whose place, chain and CRC are right.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub major: MajorVersion,
    /// Its first byte.
    pub lsn: Lsn,
    /// Where the next one begins, or the page that it begins on.
    pub end: Lsn,
    pub header: RecordHeader,
    /// The block reference that stands first.
    pub block: Option<BlockRef>,
    /// What the resource manager wrote besides blocks; a part of it when not [`whole`](Self::whole).
    pub main: &'a [u8],
    /// False when the record is longer than what is kept of one, so that `main` is cut.
    pub whole: bool,
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes a record apart. `bytes` may be its first part only, if the headers of its parts are in there.
    #[inline]
    pub(super) fn read(
        major: MajorVersion,
        lsn: Lsn,
        end: Lsn,
        header: RecordHeader,
        bytes: &'a [u8],
    ) -> Result<Self, StopReason> {
        let total = header.total_length as usize;
        let (mut block, mut main_length) = (None, 0);
        let mut walk = Fragments::new(bytes, total, major);
        while let Some(fragment) = walk.next()? {
            match fragment {
                Fragment::Block(found) => block = block.or(Some(found)),
                Fragment::Main(length) => main_length = length,
                Fragment::Other => {}
            }
        }
        let main = bytes
            .get(total - main_length.min(total)..)
            .unwrap_or_default();
        Ok(Self {
            major,
            lsn,
            end,
            header,
            block,
            main,
            whole: bytes.len() >= total,
            bytes,
        })
    }

    /// The operation: the four bits of the info byte that belong to the resource manager.
    pub fn operation(&self) -> u8 {
        self.header.info & 0xF0
    }

    /// Where the headers of its parts end, and where its main data begins.
    pub(super) fn content(&self) -> (usize, usize) {
        let total = self.header.total_length as usize;
        let mut walk = Fragments::new(self.bytes, total, self.major);
        let mut main = total;
        while let Ok(Some(fragment)) = walk.next() {
            if let Fragment::Main(length) = fragment {
                main = total.saturating_sub(length);
            }
        }
        (self.bytes.len().saturating_sub(walk.fields.0.len()), main)
    }

    /// All block references.
    pub fn blocks(&self) -> impl Iterator<Item = BlockRef> + 'a {
        let mut walk = Fragments::new(self.bytes, self.header.total_length as usize, self.major);
        std::iter::from_fn(move || {
            loop {
                match walk.next().ok()?? {
                    Fragment::Block(block) => return Some(block),
                    _ => continue,
                }
            }
        })
    }
}

enum Fragment {
    Block(BlockRef),
    Main(usize),
    /// Where the record was replicated from, or which transaction its own is part of.
    Other,
}

/// Walks the headers of a record's parts.
struct Fragments<'a> {
    fields: Reader<'a>,
    /// Bytes of the record that are not among `fields`, because it was cut.
    beyond: usize,
    /// Bytes of content that the headers so far announce.
    announced: usize,
    major: MajorVersion,
    file: Option<RelFileLocator>,
    last_id: i16,
}

impl<'a> Fragments<'a> {
    fn new(bytes: &'a [u8], total: usize, major: MajorVersion) -> Self {
        let fields = bytes
            .get(HEADER..bytes.len().min(total))
            .unwrap_or_default();
        let beyond = total.saturating_sub(HEADER) - fields.len();
        Self {
            fields: Reader(fields),
            beyond,
            announced: 0,
            major,
            file: None,
            last_id: -1,
        }
    }

    /// The next part's header; `None` after the last.
    #[inline]
    fn next(&mut self) -> Result<Option<Fragment>, StopReason> {
        if self.left() == Some(0) {
            return Ok(None);
        }
        let fragment = self.header().ok_or(StopReason::Parts)?;
        match (self.left().ok_or(StopReason::Parts)?, &fragment) {
            (1.., Fragment::Main(_)) => Err(StopReason::Parts),
            _ => Ok(Some(fragment)),
        }
    }

    /// Bytes that are neither headers read so far nor content that they announce.
    #[inline]
    fn left(&self) -> Option<usize> {
        (self.fields.0.len() + self.beyond).checked_sub(self.announced)
    }

    /// A header. Blocks and short main data are what nearly all records are made of.
    #[inline]
    fn header(&mut self) -> Option<Fragment> {
        let id = self.fields.u8()?;
        if i16::from(id) > self.last_id && id <= 32 {
            self.last_id = i16::from(id);
            let block = self.block(id)?;
            self.announced += usize::from(block.data_length) + usize::from(block.image_length);
            return Some(Fragment::Block(block));
        }
        let main = match id {
            255 => usize::from(self.fields.u8()?),
            254 => self.fields.u32()? as usize,
            253 => return self.fields.u16().map(|_| Fragment::Other),
            252 if self.major.number() >= 14 => return self.fields.u32().map(|_| Fragment::Other),
            _ => return None,
        };
        self.announced += main;
        Some(Fragment::Main(main))
    }

    #[inline]
    fn block(&mut self, id: u8) -> Option<BlockRef> {
        let fork_flags = self.fields.u8()?;
        let data_length = self.fields.u16()?;
        if (fork_flags & 0x20 != 0) != (data_length > 0) {
            return None;
        }
        let mut image_length = 0;
        if fork_flags & 0x10 != 0 {
            image_length = self.fields.u16()?;
            self.fields.u16()?;
            let info = self.fields.u8()?;
            // The bits changed their meaning in 15, with lz4 and zstd.
            let compressed = if self.major.number() >= 15 {
                0x1C
            } else {
                0x02
            };
            if info & compressed != 0 && info & 0x01 != 0 {
                self.fields.u16()?;
            }
        }
        if fork_flags & 0x80 == 0 {
            self.file = Some(RelFileLocator::read(&mut self.fields)?);
        }
        let (file, block) = (self.file?, self.fields.u32()?);
        Some(BlockRef {
            id,
            file,
            fork: fork_flags & 0x0F,
            block,
            image_length,
            data_length,
        })
    }
}
