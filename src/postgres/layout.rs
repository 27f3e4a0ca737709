//! Every repository key of a PostgreSQL cluster, both ways, in one file (docs/repository-format.md).

mod deletion;
mod dumps;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::postgres::types::{
    Lsn, ParseError, SegmentName, TimelineId, WalFileName, serde_as_text,
};
use crate::storage::Key;

pub use deletion::ExpiryRecord;
pub use dumps::{DUMPS_FOLDER, DumpFormat, DumpId, DumpKind, DumpMember, DumpName, DumpObject};

/// Suffix of compressed objects; tells the codec.
const ZST: &str = ".zst";
/// The folder of a cluster that holds its WAL.
pub const WAL_FOLDER: &str = "wal";
/// The folder of a cluster that holds its base backups.
pub const BASE_FOLDER: &str = "base";
/// The folder of a cluster that holds the names that its relations had.
const NAMES_FOLDER: &str = "names";
/// The folder of a cluster that holds its idle markers.
const QUIET_FOLDER: &str = "quiet";
/// The folder of a cluster that holds what is kept of its jobs.
const JOBS_FOLDER: &str = "jobs";
/// The folder of a cluster that holds records of what was done.
const EVIDENCE_FOLDER: &str = "evidence";
/// What fires, and who was told.
const ALERTS_FOLDER: &str = "alerts";
/// The folder of a cluster in which a round trip has its dump while it lasts.
const ROUND_TRIPS_FOLDER: &str = "round-trips";
/// Times in names of objects: UTC.
const SECOND: &str = "%Y%m%dT%H%M%SZ";

/// A cluster's name in the repository: 1 to 63 of `a-z 0-9 _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl FromStr for ClusterName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let valid =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        match text.as_bytes() {
            [first, ..]
                if text.len() <= 63 && first.is_ascii_alphanumeric() && text.bytes().all(valid) =>
            {
                Ok(Self(text.to_string()))
            }
            _ => Err(ParseError {
                what: "cluster name",
                value: text.to_string(),
                why: "expected 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"
                    .into(),
            }),
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A base backup's name: when it began, UTC, as `YYYYMMDD-HHMMSSZ`. Names sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

impl BackupId {
    /// The name of a backup that begins at `time`.
    pub fn at(time: chrono::DateTime<chrono::Utc>) -> Self {
        Self(time.format("%Y%m%d-%H%M%SZ").to_string())
    }
}

impl FromStr for BackupId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let shape = |(at, b): (usize, u8)| match at {
            8 => b == b'-',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        };
        match text.len() == 16 && text.bytes().enumerate().all(shape) {
            true => Ok(Self(text.to_string())),
            false => Err(ParseError {
                what: "backup id",
                value: text.to_string(),
                why: "expected YYYYMMDD-HHMMSSZ, as `walden backup list` shows".into(),
            }),
        }
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name of an object: when it was made, UTC, and a random part, as `YYYYMMDDTHHMMSSZ-<8 hex>`. Names sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimedId(String);

/// A recording of names.
pub type NamesId = TimedId;

impl TimedId {
    /// The name of what is made at `time`.
    pub fn new(time: chrono::DateTime<chrono::Utc>, random: u32) -> Self {
        Self(format!("{}-{random:08x}", time.format(SECOND)))
    }

    /// The name of another one of the same time.
    pub fn beside(&self, random: u32) -> Self {
        Self(format!("{}-{random:08x}", &self.0[..16]))
    }

    /// The day, `YYYYMMDD`.
    pub fn day(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for TimedId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let shape = |(at, b): (usize, u8)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            16 => b == b'-',
            17.. => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            _ => b.is_ascii_digit(),
        };
        match text.len() == 25 && text.bytes().enumerate().all(shape) {
            true => Ok(Self(text.to_string())),
            false => Err(ParseError {
                what: "name of an object",
                value: text.to_string(),
                why: "expected YYYYMMDDTHHMMSSZ-<8 hexadecimal digits>".into(),
            }),
        }
    }
}

impl fmt::Display for TimedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An idle marker: every commit or abort record of the timeline that begins at `lsn` or later has a time later than `time`,
/// by the server's clock. In text `<TIMELINE+LOG, 16 hex>/<LSN, 16 hex>-<YYYYMMDDTHHMMSSZ>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleMarker {
    pub timeline: TimelineId,
    pub lsn: Lsn,
    /// A whole second.
    pub time: DateTime<Utc>,
}

serde_as_text!(IdleMarker);

impl FromStr for IdleMarker {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (group, rest) = text.split_once('/')?;
            let (lsn, time) = rest.split_once('-')?;
            let timeline = TimelineId(u32::from_str_radix(group.get(..8)?, 16).ok()?);
            let lsn = Lsn(u64::from_str_radix(lsn, 16).ok()?);
            let time = NaiveDateTime::parse_from_str(time, SECOND).ok()?.and_utc();
            Some(Self {
                timeline,
                lsn,
                time,
            })
            .filter(|mark| mark.to_string() == text)
        };
        parse().ok_or_else(|| ParseError {
            what: "idle marker",
            value: text.to_string(),
            why: "expected <TIMELINE+LOG, 16 hex>/<LSN, 16 hex>-<YYYYMMDDTHHMMSSZ>".into(),
        })
    }
}

impl fmt::Display for IdleMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{:016X}-{}",
            idle_group(self.timeline, self.lsn),
            self.lsn.0,
            self.time.format(SECOND)
        )
    }
}

/// Marks lie in folders as segments do, so that those near a place are found without listing all.
fn idle_group(timeline: TimelineId, lsn: Lsn) -> String {
    format!("{:08X}{:08X}", timeline.0, lsn.0 >> 32)
}

crate::postgres::types::serde_as_text!(BackupId);
crate::postgres::types::serde_as_text!(TimedId);
crate::postgres::types::serde_as_text!(ClusterName);

/// Which part of a cluster an object is the bulk of, as the name of its folder; `None` for objects by which others are
/// found, such as manifests: those must always be read at once.
pub fn bulk_of(key: &str) -> Option<&'static str> {
    let mut parts = key.splitn(3, '/').skip(1);
    let (folder, rest) = (parts.next()?, parts.next()?);
    let name = rest.rsplit('/').next().unwrap_or(rest);
    match folder {
        WAL_FOLDER => Some(WAL_FOLDER),
        BASE_FOLDER if name.starts_with("pack-") => Some(BASE_FOLDER),
        dumps::DUMPS_FOLDER => dumps::is_bulk(rest).then_some(dumps::DUMPS_FOLDER),
        _ => None,
    }
}

/// What an object of a cluster is, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectKind {
    /// `cluster.json`.
    Description,
    Wal(WalFileName),
    Manifest(BackupId),
    Pack(PackName),
    /// Reserves a backup's name.
    Started(BackupId),
    /// Names that relations had.
    Names(NamesId),
    Idle(IdleMarker),
    Dump(DumpId, DumpObject),
    /// Names the newest complete dump of a database.
    LatestDump(String, DumpKind),
    Pin(TimedId),
    Lease(TimedId),
    /// What was deleted of the cluster, or is to be.
    Expiry(ExpiryRecord),
    /// What the runners of jobs tell each other, and records of runs.
    Job,
    /// A record of what was done.
    Evidence,
    /// The state of the alerts.
    Alert,
}

/// The keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    cluster: ClusterName,
    /// The folder of dumps.
    dumps: &'static str,
}

impl Layout {
    /// The keys below `<cluster>/`.
    pub fn new(cluster: ClusterName) -> Self {
        let dumps = DUMPS_FOLDER;
        Self { cluster, dumps }
    }

    /// The same keys, but for those of dumps: they lie where round trips put theirs, which are nobody's dumps.
    pub fn of_round_trips(&self) -> Self {
        Self {
            dumps: ROUND_TRIPS_FOLDER,
            ..self.clone()
        }
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// What the repository knows of the cluster itself.
    pub fn cluster_json(&self) -> Key {
        self.key("cluster.json")
    }

    /// The object of a WAL file. Segments lie in a folder of up to 4 GiB of WAL, so that they are found without
    /// listing and listed in portions; the few other files lie beside the folders.
    pub fn wal(&self, name: &WalFileName) -> Key {
        match name {
            WalFileName::Segment(segment) => {
                self.key(&format!("wal/{}/{segment}{ZST}", segment.group()))
            }
            other => self.key(&format!("wal/{other}{ZST}")),
        }
    }

    /// The folder with everything of the cluster.
    pub fn folder(&self) -> String {
        format!("{}/", self.cluster)
    }

    /// `<cluster>/wal/`, which all WAL lies below.
    pub fn wal_folder(&self) -> String {
        format!("{}/{WAL_FOLDER}/", self.cluster)
    }

    /// The folder that holds a segment and its neighbours.
    pub fn wal_group_folder(&self, segment: &SegmentName) -> String {
        format!("{}/{WAL_FOLDER}/{}/", self.cluster, segment.group())
    }

    /// The timeline and the log of a folder in a listing of [`wal_folder`](Self::wal_folder); `None` for others.
    pub fn parse_wal_group(&self, folder: &str) -> Option<(TimelineId, u32)> {
        let name = folder.strip_prefix(&self.wal_folder())?.strip_suffix('/')?;
        let number = |digits: Option<&str>| u32::from_str_radix(digits?, 16).ok();
        let (timeline, log) = (number(name.get(..8))?, number(name.get(8..))?);
        (format!("{timeline:08X}{log:08X}") == name).then_some((TimelineId(timeline), log))
    }

    /// The folder with all base backups.
    pub fn base_folder(&self) -> String {
        format!("{}/{BASE_FOLDER}/", self.cluster)
    }

    /// The folder of one base backup.
    pub fn backup_folder(&self, id: &BackupId) -> String {
        format!("{}/{BASE_FOLDER}/{id}/", self.cluster)
    }

    /// The folder with all recordings of names.
    pub fn names_folder(&self) -> String {
        format!("{}/{NAMES_FOLDER}/", self.cluster)
    }

    /// A recording of names.
    pub fn names(&self, id: &NamesId) -> Key {
        self.key(&format!("{NAMES_FOLDER}/{id}{ZST}"))
    }

    /// The folder with all idle markers.
    pub fn idle_folder(&self) -> String {
        format!("{}/{QUIET_FOLDER}/", self.cluster)
    }

    /// The folder of the idle markers of a timeline in the 4 GiB around a place.
    pub fn idle_group_folder(&self, timeline: TimelineId, lsn: Lsn) -> String {
        format!("{}{}/", self.idle_folder(), idle_group(timeline, lsn))
    }

    /// The key says all that the marker proves.
    pub fn idle(&self, mark: &IdleMarker) -> Key {
        self.key(&format!("{QUIET_FOLDER}/{mark}{ZST}"))
    }

    /// The folder of all that is kept of jobs, whose keys below it the jobs know.
    pub fn jobs_folder(&self) -> String {
        format!("{}/{JOBS_FOLDER}/", self.cluster)
    }

    /// The folder of records of what was done, whose keys below it the evidence knows.
    pub fn evidence_folder(&self) -> String {
        format!("{}/{EVIDENCE_FOLDER}/", self.cluster)
    }

    /// The folder of the state of the alerts, whose keys below it the alerts know.
    pub fn alerts_folder(&self) -> String {
        format!("{}/{ALERTS_FOLDER}/", self.cluster)
    }

    /// The object that makes a base backup exist.
    pub fn manifest(&self, id: &BackupId) -> Key {
        self.key(&format!("base/{id}/manifest{ZST}"))
    }

    /// The object that reserves a backup's name while it is being taken.
    pub fn started(&self, id: &BackupId) -> Key {
        self.key(&format!("base/{id}/started.json"))
    }

    /// A pack by the name that manifests use: `<backup id>/pack-<number>`.
    pub fn pack(&self, name: &PackName) -> Key {
        self.key(&format!("base/{name}"))
    }

    /// The WAL file of an object below the WAL folder; `None` for keys that are none.
    pub fn parse_wal(&self, key: &Key) -> Option<WalFileName> {
        let name: WalFileName = key.file_name().strip_suffix(ZST)?.parse().ok()?;
        (self.wal(&name) == *key).then_some(name)
    }

    /// What an object is; `None` for a key that the layout does not know.
    pub fn parse(&self, key: &Key) -> Option<ObjectKind> {
        if *key == self.cluster_json() {
            return Some(ObjectKind::Description);
        }
        if let Some(name) = key.as_str().strip_prefix(&self.names_folder()) {
            return name.strip_suffix(ZST)?.parse().ok().map(ObjectKind::Names);
        }
        if let Some(mark) = key.as_str().strip_prefix(&self.idle_folder()) {
            return mark.strip_suffix(ZST)?.parse().ok().map(ObjectKind::Idle);
        }
        for (folder, kind) in [
            (self.jobs_folder(), ObjectKind::Job),
            (self.evidence_folder(), ObjectKind::Evidence),
            (self.alerts_folder(), ObjectKind::Alert),
        ] {
            if let Some(path) = key.as_str().strip_prefix(&folder) {
                let (_, name) = path.split_once('/')?;
                let is_one = name.ends_with(".json") && !name.contains('/');
                return is_one.then_some(kind);
            }
        }
        if let Some(path) = key.as_str().strip_prefix(&self.dumps_folder()) {
            return self.parse_dump(path);
        }
        let Some(path) = key.as_str().strip_prefix(&self.base_folder()) else {
            let wal = || self.parse_wal(key).map(ObjectKind::Wal);
            return self.parse_deletion(key).or_else(wal);
        };
        if let Ok(pack) = path.parse() {
            return Some(ObjectKind::Pack(pack));
        }
        let id: BackupId = path.split_once('/')?.0.parse().ok()?;
        let kinds = [
            (self.manifest(&id), ObjectKind::Manifest(id.clone())),
            (self.started(&id), ObjectKind::Started(id)),
        ];
        kinds
            .into_iter()
            .find(|(named, _)| named == key)
            .map(|(_, kind)| kind)
    }

    /// The backup of a folder in a listing of [`base_folder`](Self::base_folder).
    pub fn parse_backup_folder(&self, folder: &str) -> Option<BackupId> {
        folder
            .strip_prefix(&self.base_folder())?
            .strip_suffix('/')?
            .parse()
            .ok()
    }

    fn key(&self, rest: &str) -> Key {
        Key::new(format!("{}/{rest}", self.cluster))
            .expect("parts of keys are checked when they are made")
    }
}

/// A pack's name within the cluster: which backup wrote it, and its number from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    pub backup: BackupId,
    pub number: u32,
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/pack-{:06}", self.backup, self.number)
    }
}

impl FromStr for PackName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (backup, number) = text.split_once("/pack-")?;
            let digits = number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit());
            let name = PackName {
                backup: backup.parse().ok()?,
                number: number.parse().ok().filter(|_| digits)?,
            };
            (name.to_string() == text).then_some(name)
        };
        let why = "expected <backup id>/pack-<number of six digits>";
        parse().ok_or_else(|| ParseError {
            what: "pack name",
            value: text.to_string(),
            why: why.into(),
        })
    }
}

crate::postgres::types::serde_as_text!(PackName);

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
