//! Facts for tests.

use chrono::{DateTime, Utc};

use super::{BackupDescription, ClusterDescription, Facts, MajorSince, WalRanges};
use crate::postgres::types::{
    Lsn, MajorVersion, RecoverySettings, SegmentSize, SystemIdentifier, TimelineId,
};

/// Bytes in a segment of the cluster that all these facts are about.
pub const SEGMENT: u64 = 16 << 20;

/// The cluster `main`.
pub fn cluster_description() -> ClusterDescription {
    ClusterDescription {
        name: "main".parse().unwrap(),
        system_identifier: SystemIdentifier(7),
        segment_size: SegmentSize::new(SEGMENT as u32).unwrap(),
        versions: vec![MajorSince {
            major: major(),
            since: DateTime::UNIX_EPOCH,
        }],
    }
}

fn major() -> MajorVersion {
    MajorVersion::new(15).unwrap()
}

/// A backup of it in segment 2 of timeline 1, and these segments.
pub fn facts(segments: &[&str]) -> Facts {
    let mut ranges = WalRanges::new(cluster_description().segment_size);
    for segment in segments {
        ranges.add(segment.parse().unwrap(), 10, DateTime::UNIX_EPOCH);
    }
    facts_in(ranges)
}

/// That backup, and this WAL.
pub fn facts_in(ranges: WalRanges) -> Facts {
    Facts {
        cluster: "main".parse().unwrap(),
        backups: vec![backup("20260101-000000Z")].into(),
        damaged_backups: Default::default(),
        unfinished_backups: Vec::new(),
        ranges,
        histories: Default::default(),
        damaged_histories: Default::default(),
        idle: Default::default(),
    }
}

/// A backup of it on timeline 1, from 0/2000028 to 0/2000100, that took one second.
pub fn backup(id: &str) -> BackupDescription {
    let started_at: DateTime<Utc> = chrono::NaiveDateTime::parse_from_str(id, "%Y%m%d-%H%M%SZ")
        .unwrap()
        .and_utc();
    BackupDescription {
        id: id.parse().unwrap(),
        label: "test".into(),
        system_identifier: SystemIdentifier(7),
        major: major(),
        server_version: "15.0".into(),
        segment_size: SegmentSize::new(SEGMENT as u32).unwrap(),
        data_checksums: false,
        from_standby: false,
        start_lsn: Lsn(2 * SEGMENT + 0x28),
        timeline: TimelineId(1),
        stop_lsn: Lsn(2 * SEGMENT + 0x100),
        stop_timeline: TimelineId(1),
        started_at,
        stopped_at: started_at + chrono::TimeDelta::seconds(1),
        recovery_settings: RecoverySettings {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
        },
        tablespaces: Vec::new(),
        configuration_files: Vec::new(),
        configuration_places: Default::default(),
        checksum_failures: Vec::new(),
        checksums_verified: Some(true),
        warnings: Vec::new(),
        left_out: Vec::new(),
        earlier_backups: None,
        frame_size: 256 << 10,
        file_count: 0,
        plain_bytes: 0,
        stored_bytes: 0,
        pack_count: 0,
        walden_version: "0.1.0".into(),
    }
}
