//! A server at which everything is right: the one of `archive::testing`'s cluster.

use super::server::{ArchivingSettings, Role, ServerFacts};
use crate::postgres::types::{MajorVersion, SegmentSize, SystemIdentifier};

pub fn server() -> ServerFacts {
    ServerFacts {
        place: "socket \"/run\"".into(),
        version: "15.20 (Debian 15.20-0+deb12u1)".into(),
        major: MajorVersion::new(15).unwrap(),
        standby: false,
        here: true,
        system_identifier: SystemIdentifier(7),
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        data_directory: Some("/data".into()),
        settings: ArchivingSettings {
            wal_level: "replica".into(),
            archive_mode: "on".into(),
            archive_command: "/usr/local/bin/archive-command %p".into(),
            archive_library: String::new(),
            restore_command: String::new(),
            archive_timeout: 60,
            full_page_writes: true,
        },
        role: Role {
            name: "walden".into(),
            replication: true,
            create_restore_point: true,
            switch_wal: true,
            read_all_settings: true,
            unread_files: 0,
        },
        max_wal_senders: 10,
        wal_senders: 1,
    }
}
