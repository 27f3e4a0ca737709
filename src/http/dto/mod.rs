//! What answers look like. Apart from the core's own types, so that a change there is no silent change of the API; the words
//! of `crate::health` are the answers' own.

mod events;
mod health;
mod plan;
mod windows;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

pub use events::{Event, Events, Indexed};
pub use health::{Rpo, Standing};
pub use plan::RecoveryTarget;
pub use windows::{OtherTimeline, UnknownTimeline, Unrestorable, Window};

use super::facts::RepositoryFacts;
use super::status::LastStatus;
use crate::postgres::catalog::{BackupDescription, ClusterDescription, Gap, WalRange};
use crate::postgres::types::{SegmentSize, TimelineHistory};
use crate::service::status::{waiting_files, waiting_since};

/// From when the answer is: what the repository got later is not in it yet.
#[derive(Debug, Serialize, ToSchema)]
pub struct AsOf {
    /// When the repository was read.
    pub read_at: DateTime<Utc>,
    /// Seconds since then.
    pub age_seconds: f64,
    /// Why it could not be read anew since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<String>,
}

impl AsOf {
    /// The age at `now` of what was read at `read_at`.
    pub fn at(now: DateTime<Utc>, read_at: DateTime<Utc>, known: &RepositoryFacts) -> Self {
        Self { read_at, age_seconds: (now - read_at).as_seconds_f64().max(0.0), failed: known.failed.clone() }
    }
}

/// All clusters of this service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Clusters {
    pub clusters: Vec<ClusterEntry>,
}

/// One cluster, as it was registered.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterEntry {
    #[schema(example = "main")]
    name: String,
    /// As `pg_controldata` prints it. A string, because it has more digits than JavaScript's numbers.
    #[schema(example = "7301234567890123456")]
    system_identifier: String,
    /// Bytes in a WAL segment.
    segment_bytes: u64,
    versions: Vec<Version>,
}

/// A major version of PostgreSQL, and when it was first seen.
#[derive(Debug, Serialize, ToSchema)]
pub struct Version {
    major: u32,
    since: DateTime<Utc>,
}

impl From<&ClusterDescription> for ClusterEntry {
    fn from(cluster: &ClusterDescription) -> Self {
        let version =
            |seen: &crate::postgres::catalog::MajorSince| Version { major: seen.major.number(), since: seen.since };
        Self {
            name: cluster.name.to_string(),
            system_identifier: cluster.system_identifier.to_string(),
            segment_bytes: cluster.segment_size.bytes(),
            versions: cluster.versions.iter().map(version).collect(),
        }
    }
}

/// A cluster: what can be restored, and how much would be lost now.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterState {
    #[serde(flatten)]
    pub cluster: ClusterEntry,
    pub as_of: AsOf,
    /// What can be restored, by the timeline that is followed.
    pub windows: Vec<Window>,
    /// What lies between the windows of a timeline.
    pub unrestorable: Vec<Unrestorable>,
    /// Timelines that are in neither: where they come from cannot be read.
    pub unknown: Vec<UnknownTimeline>,
    /// Timelines that go on beside the newest, which is followed where none is named.
    pub other_timelines: Vec<OtherTimeline>,
    /// Ranges of WAL that are missing; `wal` tells which.
    pub gaps: u64,
    /// The newest complete base backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last_backup: Option<Backup>,
    pub rpo: Rpo,
    pub health: Standing,
    /// Absent while the service starts or stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub archiving: Option<ArchivingState>,
}

/// What archiving is doing.
#[derive(Debug, Serialize, ToSchema)]
pub struct ArchivingState {
    /// When this was so.
    seen_at: DateTime<Utc>,
    /// Files stored since the service started.
    stored_files: u64,
    /// The name of the last stored file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_stored: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_stored_at: Option<DateTime<Utc>>,
    /// Attempts that failed since the service started.
    failed_files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_failed_at: Option<DateTime<Utc>>,
    /// Files that wait on all servers that archive here; absent when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    waiting_files: Option<u64>,
    /// Since when the oldest of them waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    waiting_since: Option<DateTime<Utc>>,
}

impl From<&LastStatus> for ArchivingState {
    fn from(seen: &LastStatus) -> Self {
        let archiving = &seen.status.archiving;
        Self {
            seen_at: seen.at,
            stored_files: archiving.stored.count,
            last_stored: archiving.stored.last.clone(),
            last_stored_at: archiving.stored.last_at,
            failed_files: archiving.failed.count.count,
            last_failed_at: archiving.failed.count.last_at,
            waiting_files: waiting_files(&archiving.backlogs),
            waiting_since: waiting_since(&archiving.backlogs),
        }
    }
}

/// Base backups, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backups {
    pub as_of: AsOf,
    pub backups: Vec<Backup>,
    /// Backups that cannot be used.
    pub damaged: Vec<DamagedBackup>,
    /// Being taken, or interrupted.
    pub unfinished: Vec<String>,
}

/// A complete base backup.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backup {
    #[schema(example = "20260131-030000Z")]
    id: String,
    label: String,
    started_at: DateTime<Utc>,
    /// Every later commit is after `stop_lsn`.
    stopped_at: DateTime<Utc>,
    #[schema(example = "0/3000028")]
    start_lsn: String,
    timeline: u32,
    /// It can be restored to here and later.
    #[schema(example = "0/3000100")]
    stop_lsn: String,
    stop_timeline: u32,
    #[schema(example = "15.18")]
    server_version: String,
    from_standby: bool,
    data_checksums: bool,
    /// Pages whose checksums were wrong; with any it is restored only when it is named.
    checksum_failures: u64,
    /// Parts of the cluster that the server did not send; with any the backup cannot be used.
    left_out: Vec<String>,
    files: u64,
    plain_bytes: u64,
    stored_bytes: u64,
}

impl From<&BackupDescription> for Backup {
    fn from(backup: &BackupDescription) -> Self {
        Self {
            id: backup.id.to_string(),
            label: backup.label.clone(),
            started_at: backup.started_at,
            stopped_at: backup.stopped_at,
            start_lsn: backup.start_lsn.to_string(),
            timeline: backup.timeline.0,
            stop_lsn: backup.stop_lsn.to_string(),
            stop_timeline: backup.stop_timeline.0,
            server_version: backup.server_version.clone(),
            from_standby: backup.from_standby,
            data_checksums: backup.data_checksums,
            checksum_failures: backup.checksum_failures.len() as u64,
            left_out: backup.left_out.clone(),
            files: backup.file_count,
            plain_bytes: backup.plain_bytes,
            stored_bytes: backup.stored_bytes,
        }
    }
}

/// A base backup that cannot be used.
#[derive(Debug, Serialize, ToSchema)]
pub struct DamagedBackup {
    pub id: String,
    pub why: String,
}

/// Archived WAL.
#[derive(Debug, Serialize, ToSchema)]
pub struct Wal {
    pub as_of: AsOf,
    /// Size of a WAL segment in bytes.
    pub segment_bytes: u64,
    pub ranges: Vec<Range>,
    pub gaps: Vec<MissingWal>,
}

/// Segments of one timeline without a gap between them.
#[derive(Debug, Serialize, ToSchema)]
pub struct Range {
    timeline: u32,
    #[schema(example = "000000010000000000000001")]
    first: String,
    #[schema(example = "00000001000000000000000A")]
    last: String,
    #[schema(example = "0/1000000")]
    start_lsn: String,
    /// The first LSN after it.
    #[schema(example = "0/B000000")]
    end_lsn: String,
    segments: u64,
    stored_bytes: u64,
    first_stored: DateTime<Utc>,
    last_stored: DateTime<Utc>,
}

impl Range {
    /// A range of segments of this size.
    pub fn of(range: &WalRange, size: SegmentSize) -> Self {
        Self {
            timeline: range.timeline().0,
            first: range.first.to_string(),
            last: range.last.to_string(),
            start_lsn: range.first.start(size).to_string(),
            end_lsn: range.last.end(size).to_string(),
            segments: range.segments,
            stored_bytes: range.stored_bytes,
            first_stored: range.first_stored,
            last_stored: range.last_stored,
        }
    }
}

/// Segments that are missing although later ones are there.
#[derive(Debug, Serialize, ToSchema)]
pub struct MissingWal {
    timeline: u32,
    first_missing: String,
    last_missing: String,
    segments: u64,
}

impl From<&Gap> for MissingWal {
    fn from(gap: &Gap) -> Self {
        Self {
            timeline: gap.first_missing.timeline.0,
            first_missing: gap.first_missing.to_string(),
            last_missing: gap.last_missing.to_string(),
            segments: gap.segments,
        }
    }
}

/// The tree of timelines.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timelines {
    pub as_of: AsOf,
    pub timelines: Vec<Timeline>,
}

/// A timeline and where it left its parent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timeline {
    pub timeline: u32,
    /// Absent for the first one, and when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parent: Option<Parent>,
    pub history: History,
    /// Why the history file cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub damage: Option<String>,
}

/// The timeline that another one left.
#[derive(Debug, Serialize, ToSchema)]
pub struct Parent {
    timeline: u32,
    /// The first byte that is not the parent's.
    #[schema(example = "0/5000000")]
    switch_lsn: String,
    /// As the history file says.
    reason: String,
}

impl Parent {
    /// The parent that a history tells.
    pub fn of(history: &TimelineHistory) -> Option<Self> {
        let last = history.ancestors.last()?;
        Some(Self { timeline: last.timeline.0, switch_lsn: last.switch_lsn.to_string(), reason: last.reason.clone() })
    }
}

/// What is known of a timeline's history file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// The first timeline has none.
    None,
    Known,
    /// It is not archived, so where the timeline comes from is not known.
    Missing,
    Damaged,
}
