//! The facts as the repository writes them (docs/repository-format.md).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::types::{
    Lsn, MajorVersion, RecoverySettings, SegmentSize, SystemIdentifier, TimelineId, WalFileName,
};
use crate::postgres::wal::Summary;

/// `cluster.json`: which cluster a name stands for. Everything archived under the name must carry this identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDescription {
    pub name: ClusterName,
    pub system_identifier: SystemIdentifier,
    /// Bytes in a WAL segment.
    pub segment_size: SegmentSize,
    /// Major versions in the order in which they were seen.
    pub versions: Vec<MajorSince>,
}

/// A major version and when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MajorSince {
    pub major: MajorVersion,
    pub since: DateTime<Utc>,
}

/// Kind of the objects of WAL files.
pub const WAL_KIND: &str = "wal";
/// Kind of the manifests of base backups.
pub const BACKUP_KIND: &str = "backup";

/// What the envelope of a WAL object tells (`about` of kind `wal`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalDescription {
    pub name: WalFileName,
    pub system_identifier: SystemIdentifier,
    pub timeline: TimelineId,
    /// Absent for history files, which do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<MajorVersion>,
    pub archived_at: DateTime<Utc>,
    /// Of a segment: stored bytes of the frames of its body, each of the same length before. Absent where it was not
    /// noted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<u64>,
    /// Of a segment. Absent where none was made, or one that this Walden does not read: the content says the same.
    #[serde(
        default,
        deserialize_with = "readable",
        skip_serializing_if = "Option::is_none"
    )]
    pub summary: Option<Box<Summary>>,
}

/// A summary in a form that is not known must not keep the segment from being restored.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Summary>>, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(text.get()).ok())
}

/// What the envelope of a manifest tells (`about` of kind `backup`): all that planning a restore needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDescription {
    pub id: BackupId,
    pub label: String,
    pub system_identifier: SystemIdentifier,
    pub major: MajorVersion,
    /// As the server prints it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    pub segment_size: SegmentSize,
    pub data_checksums: bool,
    pub from_standby: bool,
    /// The backup begins here: replay starts at this LSN on this timeline.
    pub start_lsn: Lsn,
    pub timeline: TimelineId,
    /// Replay is consistent from here on.
    pub stop_lsn: Lsn,
    pub stop_timeline: TimelineId,
    pub started_at: DateTime<Utc>,
    /// By the server's clock, read after the backup ended: every later commit is after `stop_lsn`.
    pub stopped_at: DateTime<Utc>,
    /// Settings that recovery needs at least as high, from pg_control.
    pub recovery_settings: RecoverySettings,
    pub tablespaces: Vec<TablespaceDescription>,
    pub configuration_files: Vec<ConfigurationFile>,
    /// The settings `data_directory`, `config_file`, `hba_file` and `ident_file` of the source; empty where they were not
    /// known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configuration_places: BTreeMap<String, String>,
    /// Page checksum failures that the server reported; a backup with any is only restored when asked for by name.
    pub checksum_failures: Vec<String>,
    /// Whether the server verified page checksums. Absent in older ones: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums_verified: Option<bool>,
    /// What the server warned of while it sent the backup. Not known of older ones.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Parts of the cluster that did not come; a backup with any cannot be used. Not known of older ones.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Earlier backups whose packs it names. Absent in older ones: only the manifest's lines tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_backups: Option<Vec<BackupId>>,
    /// Plain bytes in a frame of a file, except its last.
    pub frame_size: u32,
    pub file_count: u64,
    /// Bytes of all files before compression.
    pub plain_bytes: u64,
    /// Bytes of this backup's own packs.
    pub stored_bytes: u64,
    /// Number of this backup's own packs, named 1 to this.
    pub pack_count: u32,
    /// The version of Walden that took it.
    pub walden_version: String,
}

impl BackupDescription {
    /// Whether it can be restored without being asked for by name.
    pub fn is_sound(&self) -> bool {
        self.checksum_failures.is_empty() && self.left_out.is_empty()
    }
}

/// A tablespace other than the two in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceDescription {
    pub oid: u32,
    /// Where it lay in the source.
    pub location: String,
}

/// A configuration file that lay outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationFile {
    /// Where it lay in the source.
    pub original: String,
    /// Its path in the backup, below `walden-configuration/`.
    pub path: String,
}
