//! The steps without a server: a small backup made by hand, restored, and looked at.

mod broken;
mod restored;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::destination::Destination;
use super::files::RestoreProgress;
use super::recovery::{Choices, FetchCommand};
use super::target_action::TargetAction;
use super::{Restored, restore};
use crate::codec::{Digest, FrameCompressor};
use crate::postgres::backup::manifest::{
    self, Extent, FRAME_SIZE, FileEntry, FolderEntry, ManifestEntry, write_entry,
};
use crate::postgres::catalog::testing::{SEGMENT, backup, cluster_description, facts_in};
use crate::postgres::catalog::{
    BackupDescription, Facts, NoIndex, PlanInput, ProbeResult, RecoveryPlan, RestoreRequest,
    TablespaceDescription, Target, WalRanges, plan,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::cluster::testing::registered;
use crate::postgres::layout::PackName;
use crate::postgres::types::{SegmentName, TimelineId};
use crate::storage::{MemoryStorage, PutMode, Storage};

/// A repository with one backup: small files that share a frame, an empty one, a large one, and one in a tablespace.
struct Stored {
    cluster: Cluster,
    storage: Arc<MemoryStorage>,
    plan: RecoveryPlan,
    scratch: tempfile::TempDir,
}

fn control_file() -> Vec<u8> {
    let mut bytes = vec![0u8; 8192];
    bytes[0..8].copy_from_slice(&7u64.to_le_bytes());
    bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&202209061u32.to_le_bytes());
    bytes[228..232].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
    BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-01 00:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n";
const AUTO_CONF: &[u8] =
    b"# \xE4 is no UTF-8\nwork_mem = '7MB'\nprimary_conninfo = 'host=source'\nRecovery_Target_Name = 'old'\n";

fn large() -> Vec<u8> {
    (0..FRAME_SIZE as u32 * 2 / 3)
        .flat_map(|n| (n / 5).to_le_bytes())
        .collect()
}

/// The files of the backup; which of them are bundled into one frame.
fn content() -> Vec<(&'static str, Option<u32>, Vec<u8>)> {
    vec![
        ("PG_VERSION", None, b"15\n".to_vec()),
        ("backup_label", None, LABEL.into()),
        ("global/pg_control", None, control_file()),
        (
            "postgresql.conf",
            None,
            b"port = 1\nrecovery_target_xid = 9\ndata_directory = '/source'\nmax_connections = 300\n".to_vec(),
        ),
        ("postgresql.auto.conf", None, AUTO_CONF.to_vec()),
        ("standby.signal", None, Vec::new()),
        ("tablespace_map", None, b"16384 /source/space\n".to_vec()),
        ("base/1/empty", None, Vec::new()),
        ("base/1/large", None, large()),
        ("PG_15_202209061/1/2", Some(16384), b"in a tablespace".to_vec()),
    ]
}

async fn stored() -> Stored {
    stored_with(|_| ()).await
}

async fn stored_with(
    change: impl FnOnce(&mut Vec<(&'static str, Option<u32>, Vec<u8>)>),
) -> Stored {
    let storage = Arc::new(MemoryStorage::default());
    let cluster = registered(storage.clone(), cluster_description()).await;
    let scratch = tempfile::tempdir().unwrap();
    let tablespaces = vec![TablespaceDescription {
        oid: 16384,
        location: "/source/space".into(),
    }];
    let description = BackupDescription {
        tablespaces,
        ..backup("20260101-000020Z")
    };
    let mut files = content();
    change(&mut files);
    write_backup(&cluster, &storage, &description, &files).await;
    let plan = plan_of(description);
    Stored {
        cluster,
        storage,
        plan,
        scratch,
    }
}

async fn write_backup(
    cluster: &Cluster,
    storage: &MemoryStorage,
    description: &BackupDescription,
    files: &[(&'static str, Option<u32>, Vec<u8>)],
) {
    let pack = PackName {
        backup: description.id.clone(),
        number: 1,
    };
    let (mut bytes, mut compressor) = (Vec::new(), FrameCompressor::new(1).unwrap());
    let mut frame = |plain: &[u8]| {
        let (offset, stored) = (bytes.len() as u64, compressor.compress(plain).unwrap());
        bytes.extend_from_slice(&stored);
        (offset, stored.len() as u32)
    };
    let small = |content: &[u8]| !content.is_empty() && content.len() <= FRAME_SIZE;
    let bundle: Vec<u8> = files
        .iter()
        .filter(|(_, _, content)| small(content))
        .flat_map(|(.., c)| c.clone())
        .collect();
    let bundled = frame(&bundle);
    let mut skip = 0u32;
    let mut lines = Vec::new();
    for (path, mode) in [
        ("pg_tblspc/16384", 0o700),
        ("pg_wal", 0o700),
        ("base", 0o750),
        ("base/1", 0o777),
    ] {
        let folder = FolderEntry {
            path: path.into(),
            tablespace: None,
            mode,
        };
        write_entry(&mut lines, &ManifestEntry::Folder(folder)).unwrap();
    }
    for (path, tablespace, content) in files {
        let extents = match content.len() {
            0 => Vec::new(),
            length if length <= FRAME_SIZE => {
                let extent = Extent {
                    pack: pack.clone(),
                    offset: bundled.0,
                    frames: vec![bundled.1],
                    skip,
                };
                skip += length as u32;
                vec![extent]
            }
            _ => {
                let frames: Vec<(u64, u32)> = content.chunks(FRAME_SIZE).map(&mut frame).collect();
                let lengths = frames.iter().map(|(_, length)| *length).collect();
                vec![Extent {
                    pack: pack.clone(),
                    offset: frames[0].0,
                    frames: lengths,
                    skip: 0,
                }]
            }
        };
        let (size, digest) = (content.len() as u64, Digest::of(content));
        let (path, tablespace) = (path.to_string(), *tablespace);
        let file = FileEntry {
            path,
            tablespace,
            mode: 0o666,
            mtime: 1_700_000_000,
            size,
            digest,
            extents,
        };
        write_entry(&mut lines, &ManifestEntry::File(file)).unwrap();
    }
    let _ = storage
        .put(
            &cluster.layout.pack(&pack),
            bytes.into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
    let sealed = crate::codec::seal(
        manifest::KIND,
        description,
        &mut &lines[..],
        lines.len() as u64,
        1,
    )
    .unwrap();
    let _ = cluster
        .repository
        .put_sealed(&cluster.layout.manifest(&description.id), &sealed)
        .await
        .unwrap();
}

fn plan_of(description: BackupDescription) -> RecoveryPlan {
    let mut ranges = WalRanges::new(description.segment_size);
    for number in 2..6 {
        let name = SegmentName::from_number(TimelineId(1), number, description.segment_size);
        ranges.add(
            name,
            10,
            description.stopped_at + chrono::TimeDelta::days(1),
        );
    }
    let facts = Facts {
        backups: vec![description.clone()].into(),
        ..facts_in(ranges)
    };
    let known = PlanInput {
        facts: &facts,
        index: &NoIndex,
        probe: &|_| Ok(ProbeResult::default()),
    };
    plan(&known, &RestoreRequest::new(Target::Immediate)).unwrap()
}

fn choices() -> Choices {
    Choices {
        action: TargetAction::Promote,
        keep_archiving: false,
        check_space: true,
        thaw: false,
        fetch: FetchCommand {
            walden: "/opt/it's 100%/walden".into(),
            restore_command: Some("/opt/it's 100%/restore-command".into()),
            config: "walden-restore.toml".into(),
            socket: "/run/walden/hook.sock".into(),
        },
        configuration: Some("x = 1\n".into()),
    }
}

impl Stored {
    fn data(&self) -> PathBuf {
        self.scratch.path().join("restored")
    }

    async fn restore(&self) -> anyhow::Result<Restored> {
        let space = self.scratch.path().join("space");
        let tablespaces = BTreeMap::from([(16384, space)]);
        let destination = Destination {
            data_directory: self.data(),
            tablespaces,
            made: Default::default(),
        };
        restore(
            &self.cluster,
            &self.plan,
            &destination,
            &choices(),
            2,
            Arc::new(RestoreProgress::default()),
        )
        .await
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.data().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}
