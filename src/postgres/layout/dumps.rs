//! Names and keys of logical dumps: what operators expect to see in a folder.

use std::fmt::{self, Write};
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};

use super::{Layout, ObjectKind};
use crate::postgres::types::{ParseError, serde_as_text};
use crate::storage::Key;

/// The folder of a cluster that holds its logical dumps.
pub const DUMPS_FOLDER: &str = "dumps";
/// How names of dumps carry the time, UTC.
const TIME: &str = "%Y%m%d_%H%M%S";
/// Bytes of a time in a name.
const TIME_LENGTH: usize = 15;
/// A file's name may have 255 bytes; the longest ending of an object is [`MANIFEST`].
const LONGEST_NAME: usize = 255 - MANIFEST.len();
/// PostgreSQL cuts identifiers off here.
const LONGEST_DATABASE: usize = 63;
/// `pg_dump` names files of a directory by numbers: 4294967295.dat.zst, blobs_4294967295.toc.
const LONGEST_MEMBER: usize = 64;

const MANIFEST: &str = ".manifest.zst";
const STARTED: &str = ".started.json";
const PROOF: &str = ".proof.json";
const GLOBALS: &str = ".globals.sql";
const SHA256: &str = ".sha256";
const MD5: &str = ".md5";
const LATEST: &str = "_latest";

/// What of a database a dump holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DumpKind {
    Full,
    /// Definitions without rows.
    Schema,
    /// Rows without definitions.
    Data,
}

impl DumpKind {
    pub const ALL: [Self; 3] = [Self::Full, Self::Schema, Self::Data];

    /// As in names and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Schema => "schema",
            Self::Data => "data",
        }
    }

    /// What names of such dumps end with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Full => "",
            Self::Schema => "_schema",
            Self::Data => "_data",
        }
    }
}

/// `pg_dump`'s output format.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DumpFormat {
    Custom,
    Directory,
    Plain,
}

impl DumpFormat {
    pub const ALL: [Self; 3] = [Self::Custom, Self::Directory, Self::Plain];

    /// As `pg_dump --format` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Directory => "directory",
            Self::Plain => "plain",
        }
    }

    /// What the file or folder ends with.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Custom => ".dump",
            Self::Directory => ".dir",
            Self::Plain => ".sql.zst",
        }
    }
}

/// Behind the time in the names of dumps of some tables.
const PARTIAL: &str = "_partial";

/// What all objects of a dump begin with: `shop_20260131_140500`, perhaps with `_schema` or `_data`. It holds the time, UTC, at
/// which the dump began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DumpName(String);

impl DumpName {
    /// By a template with `{time}` and perhaps `{database}` before it. Errors: the template, or a name that is too long.
    pub fn new(
        template: &str,
        database: &str,
        time: DateTime<Utc>,
        kind: DumpKind,
    ) -> Result<Self, ParseError> {
        let name = template
            .replace("{time}", &time.format(TIME).to_string())
            .replace("{database}", &encode(database));
        format!("{name}{}", kind.suffix()).parse()
    }

    /// The same for a dump of some tables. Errors: it is too long then.
    pub fn of_some_tables(&self) -> Result<Self, ParseError> {
        let suffix = self.kind().suffix();
        let name = self.0.strip_suffix(suffix).unwrap_or(&self.0);
        format!("{name}{PARTIAL}{suffix}").parse()
    }

    /// Whether it holds some tables only, so that it can stand for no other dump.
    pub fn is_partial(&self) -> bool {
        let name = self.0.strip_suffix(self.kind().suffix());
        name.is_some_and(|name| name.ends_with(PARTIAL))
    }

    /// When the dump began.
    pub fn time(&self) -> DateTime<Utc> {
        time_in(&self.0).expect("a name holds a time").1
    }

    /// What it holds of the database.
    pub fn kind(&self) -> DumpKind {
        let is = |kind: &DumpKind| self.0.ends_with(kind.suffix());
        *[DumpKind::Schema, DumpKind::Data]
            .iter()
            .find(|kind| is(kind))
            .unwrap_or(&DumpKind::Full)
    }

    /// The file or folder with the content.
    pub fn file(&self, format: DumpFormat) -> String {
        format!("{self}{}", format.extension())
    }
}

/// Whether an object below the folder of dumps holds content of a dump.
pub(super) fn is_bulk(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_content = [".dump", ".sql.zst"].iter().any(|end| name.ends_with(end));
    is_content || path.contains(".dir/")
}

/// The last time in a name, and where it begins.
fn time_in(name: &str) -> Option<(usize, DateTime<Utc>)> {
    let at = |at: usize| {
        let text = name.get(at..at + TIME_LENGTH)?;
        let shape = |(at, b): (usize, u8)| match at {
            8 => b == b'_',
            _ => b.is_ascii_digit(),
        };
        let time = NaiveDateTime::parse_from_str(text, TIME).ok()?.and_utc();
        (text.bytes().enumerate().all(shape) && time.format(TIME).to_string() == text)
            .then_some((at, time))
    };
    (0..=name.len().checked_sub(TIME_LENGTH)?)
        .rev()
        .find_map(at)
}

impl FromStr for DumpName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let ends_plainly =
            time_in(text).is_some_and(|(at, _)| text[at + TIME_LENGTH..].bytes().all(plain));
        match ends_plainly && text.len() <= LONGEST_NAME && Key::new(text).is_ok() {
            true if !text.contains('/') => Ok(Self(text.to_string())),
            _ => Err(ParseError {
                what: "name of a dump",
                value: text.to_string(),
                why: format!(
                    "expected at most {LONGEST_NAME} letters, digits, '_', '-', '.' and '%' with a time \
                     (YYYYMMDD_HHMMSS) and no '.' behind it"
                ),
            }),
        }
    }
}

impl fmt::Display for DumpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A logical dump: its database and its name there. In text `<database, encoded>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DumpId {
    database: String,
    name: DumpName,
}

impl DumpId {
    /// Errors: no database of PostgreSQL has that name.
    pub fn new(database: impl Into<String>, name: DumpName) -> Result<Self, ParseError> {
        let database = database.into();
        check_database(&database)?;
        Ok(Self { database, name })
    }

    /// The database's name, as PostgreSQL has it.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The name that all its objects begin with.
    pub fn name(&self) -> &DumpName {
        &self.name
    }

    /// When it began.
    pub fn time(&self) -> DateTime<Utc> {
        self.name.time()
    }

    /// What it holds of the database.
    pub fn kind(&self) -> DumpKind {
        self.name.kind()
    }
}

fn check_database(name: &str) -> Result<(), ParseError> {
    match (1..=LONGEST_DATABASE).contains(&name.len()) && !name.contains('\0') {
        true => Ok(()),
        false => Err(ParseError {
            what: "database name",
            value: name.to_string(),
            why: format!("expected 1 to {LONGEST_DATABASE} bytes"),
        }),
    }
}

impl FromStr for DumpId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (database, name) = text.split_once('/')?;
            Self::new(decode(database)?, name.parse().ok()?).ok()
        };
        parse().ok_or_else(|| ParseError {
            what: "dump",
            value: text.to_string(),
            why: "expected DATABASE/NAME, as `walden dump list` shows".into(),
        })
    }
}

impl fmt::Display for DumpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", encode(&self.database), self.name)
    }
}

serde_as_text!(DumpName);
serde_as_text!(DumpId);

/// A database's name as part of a key and a file's name: bytes that could not stand there as `%` and two hexadecimal digits.
pub fn encode(name: &str) -> String {
    let mut encoded = String::new();
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => encoded.push_str("%2E"),
            b'.' | b'_' | b'-' => encoded.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => encoded.push(byte.into()),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes it"),
        }
    }
    encoded
}

/// The name that [`encode`] made this of; `None` for what it never makes.
pub fn decode(encoded: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), encoded.as_bytes());
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match (first, behind) {
            (b'%', [high, low, ..]) => {
                rest = &behind[2..];
                u8::from_str_radix(std::str::from_utf8(&[*high, *low]).ok()?, 16).ok()?
            }
            _ => *first,
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|name| encode(name) == encoded)
}

/// An object of a dump.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DumpObject {
    /// The dump itself, in one object: custom or plain.
    Whole(DumpFormat),
    /// A file of a dump in directory format.
    Member(DumpMember),
    /// What `sha256sum -c` takes.
    Sha256(DumpFormat),
    /// What `md5sum -c` takes.
    Md5(DumpFormat),
    /// Roles and tablespaces.
    Globals,
    /// A dump exists if and only if this object exists.
    Manifest,
    /// The dump is being taken, or was interrupted.
    Started,
    /// When the dump was last proven by a restore.
    Proof,
}

/// The name of a file of a dump in directory format, such as `toc.dat`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DumpMember(String);

impl DumpMember {
    /// The table of contents, without which `pg_restore` opens nothing.
    pub const TOC: &str = "toc.dat";
}

impl FromStr for DumpMember {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let valid = text.len() <= LONGEST_MEMBER && !text.contains('/') && Key::new(text).is_ok();
        match valid {
            true => Ok(Self(text.to_string())),
            false => Err(ParseError {
                what: "file of a dump",
                value: text.to_string(),
                why: format!("expected at most {LONGEST_MEMBER} letters, digits, '.', '_' and '-'"),
            }),
        }
    }
}

impl fmt::Display for DumpMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl DumpObject {
    /// Whether it holds what was dumped.
    pub fn is_content(&self) -> bool {
        matches!(self, Self::Whole(_) | Self::Member(_))
    }

    /// The object's path beside the manifest.
    pub fn path(&self, name: &DumpName) -> String {
        match self {
            Self::Whole(format) => name.file(*format),
            Self::Member(member) => format!("{}/{member}", name.file(DumpFormat::Directory)),
            Self::Sha256(format) => format!("{}{SHA256}", name.file(*format)),
            Self::Md5(format) => format!("{}{MD5}", name.file(*format)),
            Self::Globals => format!("{name}{GLOBALS}"),
            Self::Manifest => format!("{name}{MANIFEST}"),
            Self::Started => format!("{name}{STARTED}"),
            Self::Proof => format!("{name}{PROOF}"),
        }
    }

    /// The dump's name and the object, of a path beside manifests.
    pub fn parse(path: &str) -> Option<(DumpName, Self)> {
        if let Some((folder, file)) = path.split_once('/') {
            let name = folder.strip_suffix(DumpFormat::Directory.extension())?;
            return Some((name.parse().ok()?, Self::Member(file.parse().ok()?)));
        }
        let fixed = [
            (MANIFEST, Self::Manifest),
            (STARTED, Self::Started),
            (PROOF, Self::Proof),
            (GLOBALS, Self::Globals),
        ];
        let of_formats = DumpFormat::ALL.into_iter().flat_map(|format| {
            [
                (
                    format!("{}{SHA256}", format.extension()),
                    Self::Sha256(format),
                ),
                (format!("{}{MD5}", format.extension()), Self::Md5(format)),
                (format.extension().to_string(), Self::Whole(format)),
            ]
        });
        fixed
            .into_iter()
            .map(|(ending, object)| (ending.to_string(), object))
            .chain(of_formats)
            .filter(|(_, object)| *object != Self::Whole(DumpFormat::Directory))
            .find_map(|(ending, object)| Some((path.strip_suffix(&ending)?.parse().ok()?, object)))
    }
}

impl Layout {
    /// The folder with all logical dumps.
    pub fn dumps_folder(&self) -> String {
        format!("{}/{}/", self.cluster, self.dumps)
    }

    /// The folder with the dumps of one database.
    pub fn database_dumps_folder(&self, database: &str) -> String {
        format!("{}{}/", self.dumps_folder(), encode(database))
    }

    /// An object of a dump.
    pub fn dump(&self, id: &DumpId, object: &DumpObject) -> Key {
        let database = encode(&id.database);
        self.key(&format!(
            "{}/{database}/{}",
            self.dumps,
            object.path(&id.name)
        ))
    }

    /// Names the newest complete dump of a kind.
    pub fn latest_dump(&self, database: &str, kind: DumpKind) -> Key {
        let database = encode(database);
        self.key(&format!(
            "{}/{database}/{database}{LATEST}{}",
            self.dumps,
            kind.suffix()
        ))
    }

    /// The database of a folder in a listing of [`dumps_folder`](Self::dumps_folder).
    pub fn parse_database_folder(&self, folder: &str) -> Option<String> {
        decode(
            folder
                .strip_prefix(&self.dumps_folder())?
                .strip_suffix('/')?,
        )
    }

    /// What an object below the folder of dumps is.
    pub(super) fn parse_dump(&self, path: &str) -> Option<ObjectKind> {
        let (folder, path) = path.split_once('/')?;
        let database = decode(folder).filter(|name| check_database(name).is_ok())?;
        let latest = path
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix(LATEST));
        // In a folder it can be a link to a folder.
        let latest = latest.map(|rest| rest.split('/').next().unwrap_or_default());
        let kind = DumpKind::ALL
            .into_iter()
            .find(|kind| latest == Some(kind.suffix()));
        if let Some(kind) = kind {
            return Some(ObjectKind::LatestDump(database, kind));
        }
        let (name, object) = DumpObject::parse(path)?;
        Some(ObjectKind::Dump(DumpId { database, name }, object))
    }
}

#[cfg(test)]
#[path = "dumps_tests.rs"]
mod tests;
