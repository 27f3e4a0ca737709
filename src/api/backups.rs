//! Base backups.

use chrono::{DateTime, Utc};

use crate::postgres::catalog::{BackupDescription, TablespaceDescription};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, TimelineId};

answer! {
    /// A complete base backup.
    pub struct Backup {
        id: BackupId,
        label: String,
        started_at: DateTime<Utc>,
        /// Every later commit is after `stop_lsn`.
        stopped_at: DateTime<Utc>,
        start_lsn: Lsn,
        timeline: TimelineId,
        /// It can be restored to here and later.
        stop_lsn: Lsn,
        stop_timeline: TimelineId,
        #[schema(example = "15.18")]
        server_version: String,
        from_standby: bool,
        data_checksums: bool,
        /// Wrong checksums of pages that the server reported; with any it is restored only when it is named.
        checksum_failures: Vec<String>,
        /// Parts of the cluster that the server did not send; with any the backup cannot be used.
        left_out: Vec<String>,
        /// What the server warned of.
        warnings: Vec<String>,
        tablespaces: Vec<Tablespace>,
        files: u64,
        plain_bytes: u64,
        stored_bytes: u64,
    }

    /// A tablespace outside the data directory.
    pub struct Tablespace {
        oid: u32,
        location: String,
    }
}

impl From<&BackupDescription> for Backup {
    fn from(backup: &BackupDescription) -> Self {
        let tablespace = |TablespaceDescription { oid, location }| Tablespace { oid, location };
        let backup = backup.clone();
        Self {
            id: backup.id,
            label: backup.label,
            started_at: backup.started_at,
            stopped_at: backup.stopped_at,
            start_lsn: backup.start_lsn,
            timeline: backup.timeline,
            stop_lsn: backup.stop_lsn,
            stop_timeline: backup.stop_timeline,
            server_version: backup.server_version,
            from_standby: backup.from_standby,
            data_checksums: backup.data_checksums,
            checksum_failures: backup.checksum_failures,
            left_out: backup.left_out,
            warnings: backup.warnings,
            tablespaces: backup.tablespaces.into_iter().map(tablespace).collect(),
            files: backup.file_count,
            plain_bytes: backup.plain_bytes,
            stored_bytes: backup.stored_bytes,
        }
    }
}

answer! {
    /// A base backup that cannot be used.
    pub struct UnusableBackup {
        pub id: BackupId,
        pub why: String,
    }
}
