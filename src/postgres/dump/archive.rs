//! `pg_dump`'s archive format, read as it comes: what is in a dump, and whether all of it is there. `pg_restore --list` reads
//! the table of contents alone, which stands first and whole also in a dump that was cut off.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use super::contained::Contained;

/// How archives begin.
const MAGIC: &[u8] = b"PGDMP";
/// Versions of the format (pg_backup_archiver.h): 1.14 of 13, 1.16 of 17 and 18.
const VERSIONS: std::ops::RangeInclusive<(u8, u8)> = (1, 14)..=(1, 16);
/// A dump in one file; a folder of files calls itself tar.
const CUSTOM: u8 = 1;
const DIRECTORY: u8 = 3;
/// pg_backup_custom.c
const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;
/// Words such as `TABLE DATA` and numbers are far shorter.
const LONGEST_WORD: u64 = 256;
/// The OID of pg_class, as an archive writes it.
const PG_CLASS: &str = "1259";

/// Why something is no whole archive.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    #[error("it is no dump of pg_dump's custom or directory format")]
    Foreign,
    /// Nothing is known of it.
    #[error("its format {0}.{1} is not known")]
    Unknown(u8, u8),
    #[error("it breaks off")]
    BrokenOff,
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for NotWhole {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::BrokenOff,
            _ => Self::Io(error),
        }
    }
}

/// Reads an archive to its end: a table of contents, and in custom format all data that it names. Memory grows with the
/// number of tables alone.
pub fn check(source: impl BufRead) -> Result<Contained, NotWhole> {
    let mut archive = Archive::open(source)?;
    let (contained, mut awaited) = archive.contents()?;
    if archive.format == CUSTOM {
        while let Some(block) = archive.block()? {
            if !awaited.remove(&block) {
                return Err(NotWhole::Damaged(format!(
                    "its table of contents names no data {block}"
                )));
            }
        }
        if !awaited.is_empty() {
            let count = awaited.len();
            return Err(NotWhole::Damaged(format!(
                "{count} of the parts that it names are missing"
            )));
        }
    }
    match archive.source.fill_buf()? {
        [] => Ok(contained),
        _ => Err(NotWhole::Damaged("something stands behind its end".into())),
    }
}

struct Archive<R> {
    source: R,
    version: (u8, u8),
    int: usize,
    offset: usize,
    format: u8,
}

impl<R: BufRead> Archive<R> {
    fn open(mut source: R) -> Result<Self, NotWhole> {
        let mut head = [0; 11];
        source.read_exact(&mut head)?;
        let [magic @ .., major, minor, _revision, int, offset, format] = &head;
        let version = (*major, *minor);
        if magic != MAGIC || ![CUSTOM, DIRECTORY].contains(format) || !(1..=8).contains(int) {
            return Err(NotWhole::Foreign);
        }
        if !VERSIONS.contains(&version) {
            return Err(NotWhole::Unknown(version.0, version.1));
        }
        let (int, offset) = ((*int).into(), (*offset).into());
        Ok(Self {
            source,
            version,
            int,
            offset,
            format: *format,
        })
    }

    /// The table of contents, and the numbers of the entries whose data follow.
    fn contents(&mut self) -> Result<(Contained, BTreeSet<i64>), NotWhole> {
        match self.version {
            (1, 15..) => drop(self.byte()?),
            _ => drop(self.int()?),
        }
        for _ in 0..7 {
            self.int()?;
        }
        for _ in 0..3 {
            self.skip_text()?;
        }
        let (mut contained, mut awaited) = (Contained::default(), BTreeSet::new());
        for _ in 0..self.int()? {
            let (id, has_data) = self.entry(&mut contained)?;
            if has_data && !awaited.insert(id) {
                return Err(NotWhole::Damaged(format!(
                    "its table of contents names {id} twice"
                )));
            }
        }
        Ok((contained, awaited))
    }

    /// One entry (pg_backup_archiver.c, WriteToc).
    fn entry(&mut self, contained: &mut Contained) -> Result<(i64, bool), NotWhole> {
        let (id, has_data) = (self.int()?, self.int()? != 0);
        let (catalogue, oid) = (self.word()?, self.word()?);
        self.skip_text()?;
        let what = self.word()?;
        self.int()?;
        // Definition, drop, copy, schema, tablespace, table access method.
        for _ in 0..6 {
            self.skip_text()?;
        }
        if self.version >= (1, 16) {
            self.int()?;
        }
        // Owner, with OIDs.
        for _ in 0..2 {
            self.skip_text()?;
        }
        // What it depends on, up to an absent text.
        while self.skip_text()? {}
        match self.format {
            CUSTOM => self.skip(1 + self.offset as u64)?,
            _ => drop(self.skip_text()?),
        }
        let oid = oid.parse().unwrap_or(0);
        match what.as_str() {
            "TABLE DATA" => contained.add_rows_of(oid),
            _ if catalogue == PG_CLASS => contained.add(oid),
            _ => (),
        }
        Ok((id, has_data))
    }

    /// One block of data, passed over; `None` at the end.
    fn block(&mut self) -> Result<Option<i64>, NotWhole> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (kind, id) = (self.byte()?, self.int()?);
        match kind {
            BLOCK_DATA => self.chunks()?,
            BLOCK_BLOBS => {
                while self.int()? != 0 {
                    self.chunks()?;
                }
            }
            _ => return Err(NotWhole::Damaged(format!("a block of the kind {kind}"))),
        }
        Ok(Some(id))
    }

    fn chunks(&mut self) -> Result<(), NotWhole> {
        loop {
            match self.int()? {
                0 => return Ok(()),
                length => self.skip(
                    length
                        .try_into()
                        .map_err(|_| NotWhole::Damaged("a negative length".into()))?,
                )?,
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// A sign, then the number, its lowest byte first.
    fn int(&mut self) -> io::Result<i64> {
        let mut bytes = [0; 9];
        self.source.read_exact(&mut bytes[..=self.int])?;
        let number = bytes[1..=self.int]
            .iter()
            .rev()
            .fold(0i64, |number, byte| number << 8 | i64::from(*byte));
        Ok(if bytes[0] != 0 {
            number.wrapping_neg()
        } else {
            number
        })
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let there = self.source.fill_buf()?.len() as u64;
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let passed = there.min(left);
            self.source.consume(passed as usize);
            left -= passed;
        }
        Ok(())
    }

    /// Passes over a text, and says whether there was one: its length is -1 where it is absent.
    fn skip_text(&mut self) -> io::Result<bool> {
        let length = self.int()?;
        self.skip(length.try_into().unwrap_or(0))?;
        Ok(length >= 0)
    }

    fn word(&mut self) -> Result<String, NotWhole> {
        let length = self.int()?.try_into().unwrap_or(0);
        if length > LONGEST_WORD {
            return Err(NotWhole::Damaged(format!(
                "a word of {length} bytes in its table of contents"
            )));
        }
        let mut word = vec![0; length as usize];
        self.source.read_exact(&mut word)?;
        Ok(String::from_utf8_lossy(&word).into_owned())
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
