//! The table of contents of an archive that `pg_dump` made: custom, directory and tar (pg_backup_archiver.c, ReadHead and
//! ReadToc). Read as bytes, since the list that `pg_restore` prints does not tell where a name with blanks ends.

use std::borrow::Cow;
use std::io::{Read, Write};

use anyhow::{Context, bail, ensure};

const MAGIC: &[u8] = b"PGDMP";
/// Versions of the archive: 1.12 by pg_dump 9.x, 1.14 by 12 to 15, 1.15 by 16, 1.16 by 17 and 18.
const OLDEST: u8 = 12;
const NEWEST: u8 = 16;
/// Bytes of one text at most: a function's body, the list of a table's columns.
const LONGEST: u64 = 64 << 20;
/// Most entries.
const MOST: i64 = 50_000_000;

/// How an archive lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// One file: the table of contents, then the data.
    Custom,
    /// A folder or a tar file: each table's data has a file of its own.
    Files,
}

/// A text as it stands in the archive, in the dump's encoding.
pub type Text = Option<Vec<u8>>;

/// The table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The bytes before the number of entries, as they were.
    head: Vec<u8>,
    integers: Integers,
    pub form: ArchiveForm,
    /// The minor number of the archive's version: the major is 1.
    pub version: u8,
    /// The database that was dumped.
    pub database: String,
    /// The server's version as it told it, such as `15.20 (Debian …)`.
    pub server_version: String,
    /// The version of pg_dump.
    pub program_version: String,
    pub entries: Vec<TocEntry>,
}

/// How many bytes numbers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Integers {
    int: u8,
    offset: u8,
}

/// One thing in an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TocEntry {
    pub id: i64,
    had_dumper: i64,
    table_oid: Text,
    oid: Text,
    tag: Text,
    desc: Text,
    section: i64,
    definition: Text,
    drop_statement: Text,
    copy_statement: Text,
    namespace: Text,
    tablespace: Text,
    table_am: Text,
    relkind: i64,
    owner: Text,
    with_oids: Text,
    dependencies: Vec<Vec<u8>>,
    place: DataPlace,
}

/// Where an entry's data lie.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DataPlace {
    /// A byte that says whether the offset is known, and the offset.
    Offset(u8, u64),
    File(Text),
}

impl Default for DataPlace {
    fn default() -> Self {
        Self::File(None)
    }
}

fn shown(text: &Text) -> Cow<'_, str> {
    String::from_utf8_lossy(text.as_deref().unwrap_or_default())
}

impl TocEntry {
    /// What it is, such as `TABLE DATA`.
    pub fn kind(&self) -> Cow<'_, str> {
        shown(&self.desc)
    }

    /// Its name.
    pub fn tag(&self) -> Cow<'_, str> {
        shown(&self.tag)
    }

    /// Its schema; empty for what has none.
    pub fn schema(&self) -> Cow<'_, str> {
        shown(&self.namespace)
    }

    /// Its owner; empty for what has none.
    pub fn owner(&self) -> Cow<'_, str> {
        shown(&self.owner)
    }

    /// Its tablespace; empty for the database's own.
    pub fn tablespace(&self) -> Cow<'_, str> {
        shown(&self.tablespace)
    }

    /// The SQL that makes it.
    pub fn definition(&self) -> Cow<'_, str> {
        shown(&self.definition)
    }

    /// Identifiers of the entries that it needs.
    pub fn dependencies(&self) -> impl Iterator<Item = i64> {
        self.dependencies
            .iter()
            .filter_map(|id| std::str::from_utf8(id).ok()?.parse().ok())
    }

    /// Whether it brings data, which lie behind the table of contents.
    pub fn has_data(&self) -> bool {
        self.had_dumper != 0
    }

    /// Whether it says something of the database itself: without `--create`, `pg_restore` leaves such out.
    pub fn is_of_database(&self) -> bool {
        let about = || self.tag().starts_with("DATABASE ");
        match self.kind().as_ref() {
            "DATABASE" | "DATABASE PROPERTIES" => true,
            "ACL" | "COMMENT" | "SECURITY LABEL" => about(),
            _ => false,
        }
    }

    /// Gives it to another owner.
    pub fn set_owner(&mut self, owner: &str) {
        self.owner = Some(owner.as_bytes().to_vec());
    }

    /// Makes it by other SQL.
    pub fn set_definition(&mut self, definition: String) {
        self.definition = Some(definition.into_bytes());
    }

    /// Shifts where its data lie in a custom archive.
    pub fn shift(&mut self, by: i64) {
        if let DataPlace::Offset(_, offset) = &mut self.place {
            *offset = offset.saturating_add_signed(by);
        }
    }

    #[cfg(test)]
    pub fn of(id: i64, kind: &str, schema: &str, tag: &str, needs: &[i64]) -> Self {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        Self {
            id,
            tag: text(tag),
            desc: text(kind),
            namespace: text(schema),
            dependencies: needs.iter().map(|id| id.to_string().into_bytes()).collect(),
            ..Self::default()
        }
    }
}

/// Reads numbers and texts as the archive has them, and keeps what it read while `kept` is on.
struct Reader<R> {
    from: R,
    integers: Integers,
    kept: Option<Vec<u8>>,
    bytes: u64,
}

impl<R: Read> Reader<R> {
    fn exact(&mut self, bytes: &mut [u8]) -> anyhow::Result<()> {
        self.from
            .read_exact(bytes)
            .context("the archive's table of contents is cut off")?;
        self.bytes += bytes.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn byte(&mut self) -> anyhow::Result<u8> {
        let mut byte = [0];
        self.exact(&mut byte)?;
        Ok(byte[0])
    }

    fn unsigned(&mut self, bytes: u8) -> anyhow::Result<u64> {
        let mut number = [0; 8];
        self.exact(&mut number[..bytes.into()])?;
        Ok(u64::from_le_bytes(number))
    }

    fn int(&mut self) -> anyhow::Result<i64> {
        let is_negative = self.byte()? != 0;
        let number = i64::try_from(self.unsigned(self.integers.int)?)
            .context("the archive's table of contents has a number that is too large")?;
        Ok(if is_negative { -number } else { number })
    }

    fn text(&mut self) -> anyhow::Result<Text> {
        let length = self.int()?;
        let Ok(length) = u64::try_from(length) else {
            return Ok(None);
        };
        ensure!(
            length <= LONGEST,
            "the archive's table of contents has a text of {length} bytes"
        );
        // Grows with what is there, whatever the length says.
        let mut text = Vec::new();
        (&mut self.from)
            .take(length)
            .read_to_end(&mut text)
            .context("cannot read the archive's table of contents")?;
        ensure!(
            text.len() as u64 == length,
            "the archive's table of contents is cut off"
        );
        self.bytes += length;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&text);
        }
        Ok(Some(text))
    }

    fn place(&mut self, form: ArchiveForm) -> anyhow::Result<DataPlace> {
        Ok(match form {
            ArchiveForm::Custom => {
                let flag = self.byte()?;
                DataPlace::Offset(flag, self.unsigned(self.integers.offset)?)
            }
            ArchiveForm::Files => DataPlace::File(self.text()?),
        })
    }

    fn entry(&mut self, form: ArchiveForm, version: u8) -> anyhow::Result<TocEntry> {
        let mut entry = TocEntry {
            id: self.int()?,
            had_dumper: self.int()?,
            table_oid: self.text()?,
            oid: self.text()?,
            tag: self.text()?,
            desc: self.text()?,
            section: self.int()?,
            definition: self.text()?,
            drop_statement: self.text()?,
            copy_statement: self.text()?,
            namespace: self.text()?,
            tablespace: self.text()?,
            table_am: if version >= 14 { self.text()? } else { None },
            relkind: if version >= 16 { self.int()? } else { 0 },
            owner: self.text()?,
            with_oids: self.text()?,
            ..TocEntry::default()
        };
        while let Some(dependency) = self.text()? {
            entry.dependencies.push(dependency);
        }
        entry.place = self.place(form)?;
        Ok(entry)
    }
}

impl Toc {
    /// Reads a table of contents, and tells its length. Errors: it is none, cut off, or of a version that is not known.
    pub fn read(from: impl Read) -> anyhow::Result<(Self, u64)> {
        let integers = Integers { int: 4, offset: 8 };
        let mut reader = Reader {
            from,
            integers,
            kept: Some(Vec::new()),
            bytes: 0,
        };
        let mut magic = [0; 5];
        reader.exact(&mut magic)?;
        ensure!(magic == MAGIC, "this is no archive of pg_dump");
        let (major, version, _revision) = (reader.byte()?, reader.byte()?, reader.byte()?);
        if major != 1 || !(OLDEST..=NEWEST).contains(&version) {
            bail!(
                "archives of version {major}.{version} are not known, only 1.{OLDEST} to 1.{NEWEST}"
            );
        }
        reader.integers = Integers {
            int: reader.byte()?,
            offset: reader.byte()?,
        };
        ensure!(
            (1..=8).contains(&reader.integers.int) && (1..=8).contains(&reader.integers.offset),
            "the archive's numbers have a length that is not known"
        );
        let form = match reader.byte()? {
            1 => ArchiveForm::Custom,
            3 => ArchiveForm::Files,
            other => bail!("the archive has a format that is not known ({other})"),
        };
        match version {
            15.. => drop(reader.byte()?),
            _ => drop(reader.int()?),
        }
        for _time in 0..7 {
            reader.int()?;
        }
        let mut text = || Ok::<_, anyhow::Error>(shown(&reader.text()?).into_owned());
        let (database, server_version, program_version) = (text()?, text()?, text()?);
        let head = reader.kept.take().unwrap_or_default();
        let count = reader.int()?;
        ensure!(
            (0..=MOST).contains(&count),
            "the archive says that it has {count} entries"
        );
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(reader.entry(form, version)?);
        }
        let toc = Self {
            head,
            integers: reader.integers,
            form,
            version,
            database,
            server_version,
            program_version,
            entries,
        };
        Ok((toc, reader.bytes))
    }

    #[cfg(test)]
    pub fn of(server: &str, program: &str, entries: Vec<TocEntry>) -> Self {
        Self {
            head: Vec::new(),
            integers: Integers { int: 4, offset: 8 },
            form: ArchiveForm::Custom,
            version: 14,
            database: "shop".into(),
            server_version: server.into(),
            program_version: program.into(),
            entries,
        }
    }

    /// Writes it as it was read, with what was changed in its entries.
    pub fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        to.write_all(&self.head)?;
        let mut writer = Writer {
            to,
            integers: self.integers,
        };
        writer.int(self.entries.len() as i64)?;
        self.entries
            .iter()
            .try_for_each(|entry| writer.entry(entry, self.version))
    }

    /// The major version of the server that was dumped.
    pub fn server_major(&self) -> Option<u32> {
        major(&self.server_version)
    }

    /// The major version of pg_dump.
    pub fn program_major(&self) -> Option<u32> {
        major(&self.program_version)
    }
}

/// The major version at the beginning of a text, such as `15.20 (Debian …)`.
pub fn major(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().ok()
}

struct Writer<'a, W> {
    to: &'a mut W,
    integers: Integers,
}

impl<W: Write> Writer<'_, W> {
    fn int(&mut self, number: i64) -> std::io::Result<()> {
        self.to.write_all(&[u8::from(number < 0)])?;
        let bytes = number.unsigned_abs().to_le_bytes();
        self.to.write_all(&bytes[..self.integers.int.into()])
    }

    fn text(&mut self, text: &Text) -> std::io::Result<()> {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(text.len() as i64)?;
                self.to.write_all(text)
            }
        }
    }

    fn entry(&mut self, entry: &TocEntry, version: u8) -> std::io::Result<()> {
        self.int(entry.id)?;
        self.int(entry.had_dumper)?;
        for text in [&entry.table_oid, &entry.oid, &entry.tag, &entry.desc] {
            self.text(text)?;
        }
        self.int(entry.section)?;
        for text in [
            &entry.definition,
            &entry.drop_statement,
            &entry.copy_statement,
            &entry.namespace,
            &entry.tablespace,
        ] {
            self.text(text)?;
        }
        if version >= 14 {
            self.text(&entry.table_am)?;
        }
        if version >= 16 {
            self.int(entry.relkind)?;
        }
        self.text(&entry.owner)?;
        self.text(&entry.with_oids)?;
        for dependency in &entry.dependencies {
            self.int(dependency.len() as i64)?;
            self.to.write_all(dependency)?;
        }
        self.text(&None)?;
        match &entry.place {
            DataPlace::Offset(flag, offset) => {
                self.to.write_all(&[*flag])?;
                let bytes = offset.to_le_bytes();
                self.to.write_all(&bytes[..self.integers.offset.into()])
            }
            DataPlace::File(name) => self.text(name),
        }
    }
}

#[cfg(test)]
#[path = "toc_tests.rs"]
mod tests;
