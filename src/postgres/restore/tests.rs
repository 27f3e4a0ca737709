//! The steps without a server: a small backup made by hand, restored, and looked at.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::destination::Destination;
use super::files::RestoreProgress;
use super::recovery::{Choices, FetchCommand, settings};
use super::target_action::TargetAction;
use super::{Restored, conf, names, restore};
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
use crate::postgres::types::{SegmentName, TablespaceMap, TimelineId};
use crate::repo::Repository;
use crate::storage::faulty::{CrashPoint, FaultyStorage, GarblingStorage};
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

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn every_file_is_restored_with_its_content_and_nothing_that_must_not_be() {
    let stored = stored().await;
    let done = stored.restore().await.unwrap();
    for path in [
        "PG_VERSION",
        "backup_label",
        "base/1/large",
        "base/1/empty",
        "global/pg_control",
    ] {
        let (_, _, expected) = content()
            .into_iter()
            .find(|(each, ..)| *each == path)
            .unwrap();
        assert!(stored.read(path) == expected, "{path}");
    }
    assert_eq!(
        fs::read(stored.scratch.path().join("space/PG_15_202209061/1/2")).unwrap(),
        b"in a tablespace"
    );
    for path in ["standby.signal", names::MARKER, "global/pg_control.walden"] {
        assert!(!stored.data().join(path).exists(), "{path}");
    }
    for folder in ["pg_wal/archive_status", "pg_replslot", "pg_tblspc"] {
        assert!(stored.data().join(folder).is_dir(), "{folder}");
    }
    assert_eq!(mode(&stored.data().join("base/1/large")), 0o640);
    assert_eq!(
        (mode(&stored.data()), mode(&stored.data().join("base/1"))),
        (0o700, 0o750)
    );
    assert_eq!(
        done.bytes,
        content()
            .iter()
            .map(|(path, _, c)| if path.ends_with("_map") {
                0
            } else {
                c.len() as u64
            })
            .sum::<u64>()
    );
}

#[tokio::test]
async fn tablespaces_lead_to_their_new_places_only() {
    let stored = stored().await;
    stored.restore().await.unwrap();
    let space = stored.scratch.path().join("space");
    assert_eq!(
        fs::read_link(stored.data().join("pg_tblspc/16384")).unwrap(),
        space
    );
    let map =
        TablespaceMap::parse(&String::from_utf8(stored.read("tablespace_map")).unwrap()).unwrap();
    assert_eq!(map.0, [(16384, space.to_str().unwrap().to_string())]);
}

/// What the server takes: the last line counts.
fn last_value(text: &str, name: &str) -> Option<String> {
    text.lines()
        .rev()
        .find(|line| conf::setting_of(line).as_deref() == Some(name))
        .and_then(conf::value_of)
}

#[tokio::test]
async fn the_configuration_has_one_target_and_nothing_of_the_source_that_leads_astray() {
    let stored = stored().await;
    stored.restore().await.unwrap();
    let auto = stored.read("postgresql.auto.conf");
    assert!(
        auto.starts_with(b"# \xE4 is no UTF-8\nwork_mem = '7MB'\n"),
        "what was there stays, byte for byte"
    );
    let text = String::from_utf8_lossy(&auto).into_owned()
        + &String::from_utf8_lossy(&stored.read("postgresql.conf"));
    let targets: Vec<String> = text
        .lines()
        .filter_map(conf::setting_of)
        .filter(|name| name.starts_with("recovery_target"))
        .collect();
    let expected = [
        "recovery_target",
        "recovery_target_timeline",
        "recovery_target_action",
    ];
    assert_eq!(targets, expected);
    let value = |name: &str| last_value(&text, name);
    assert_eq!(value("primary_conninfo").as_deref(), Some(""));
    assert_eq!(value("data_directory"), None);
    assert_eq!(value("archive_mode").as_deref(), Some("off"));
    assert_eq!(
        last_value(&String::from_utf8_lossy(&auto), "max_connections").as_deref(),
        Some("300"),
        "the higher one"
    );
    let command = value("restore_command").unwrap();
    let expected = "'/opt/it'\\''s 100%%/restore-command' --socket /run/walden/hook.sock --walden '/opt/it'\\''s 100%%/walden' \
                    --config walden-restore.toml %f %p";
    assert_eq!(command, expected);
    assert_eq!(stored.read("walden-restore.toml"), b"x = 1\n");
    assert_eq!(mode(&stored.data().join("walden-restore.toml")), 0o600);
    assert!(
        stored.data().join("recovery.signal").exists()
            && stored.data().join("pg_hba.conf").exists()
    );
}

#[tokio::test]
async fn a_replacement_keeps_its_archiving() {
    let stored = stored().await;
    let all = settings(
        &stored.plan,
        &Choices {
            keep_archiving: true,
            ..choices()
        },
    )
    .unwrap();
    assert!(
        !all.iter()
            .any(|(name, _)| name == "archive_mode" || name == "synchronous_standby_names")
    );
    let without_hook = FetchCommand {
        restore_command: None,
        ..choices().fetch
    };
    let end = "000000010000000000000009".parse().unwrap();
    let command = without_hook.render(Some(end)).unwrap();
    assert!(
        command.ends_with("wal fetch --end 000000010000000000000009 -- %f %p"),
        "{command}"
    );
}

#[tokio::test]
async fn a_label_or_control_file_of_another_backup_is_refused() {
    type Change = fn(&mut Vec<(&'static str, Option<u32>, Vec<u8>)>);
    let changes: [(Change, &str); 5] = [
        (|files| files[0].2 = b"14\n".to_vec(), "PG_VERSION"),
        (
            |files| files[1].2 = LABEL.replace("0/2000028", "0/3000028").into(),
            "backup_label",
        ),
        (
            |files| files[1].2 = (LABEL.to_string() + "INCREMENTAL FROM LSN: 0/1\n").into(),
            "incremental",
        ),
        (|files| files[2].2[0] = 8, "pg_control"),
        (|files| drop(files.remove(2)), "pg_control"),
    ];
    for (change, expected) in changes {
        let stored = stored_with(change).await;
        let error = format!("{:#}", stored.restore().await.unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(!stored.data().join("global/pg_control").exists());
    }
}

#[tokio::test]
async fn a_damaged_cut_or_missing_pack_is_named_and_leaves_nothing_that_starts() {
    for damage in ["flipped", "cut", "missing"] {
        let stored = stored().await;
        let key = stored.cluster.layout.pack(&PackName {
            backup: stored.plan.backup.id.clone(),
            number: 1,
        });
        let mut pack = crate::storage::get_all(&*stored.storage, &key, u64::MAX)
            .await
            .unwrap()
            .unwrap()
            .to_vec();
        let middle = pack.len() / 2;
        match damage {
            "flipped" => pack[middle..middle + 4]
                .iter_mut()
                .for_each(|byte| *byte ^= 0x55),
            "cut" => pack.truncate(middle),
            _ => stored.storage.delete(&key).await.unwrap(),
        }
        if damage != "missing" {
            let _ = stored
                .storage
                .put(&key, pack.into(), PutMode::Overwrite)
                .await
                .unwrap();
        }
        let error = stored.restore().await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("pack-000001"), "{damage}: {text}");
        assert!(!stored.data().join("global/pg_control").exists());
        let again = format!("{:#}", stored.restore().await.unwrap_err());
        assert!(again.contains("interrupted"), "{again}");
    }
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_once_more() {
    for at in 0.. {
        let stored = stored().await;
        let garbling = Arc::new(GarblingStorage::new(stored.storage.clone(), at));
        let repository = Repository::open(garbling.clone()).await.unwrap();
        let cluster = Cluster::open(repository, "main".parse().unwrap())
            .await
            .unwrap();
        let done = Stored { cluster, ..stored };
        done.restore()
            .await
            .unwrap_or_else(|error| panic!("get {at}: {error:#}"));
        assert!(done.read("base/1/large") == large(), "get {at}");
        if !garbling.garbled() {
            assert!(
                at > 5,
                "two to open, two for the manifest, two or more for the pack"
            );
            return;
        }
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_told_before_anything_is_made_of_it() {
    let stored = stored().await;
    let key = stored.cluster.layout.manifest(&stored.plan.backup.id);
    let mut manifest = crate::storage::get_all(&*stored.storage, &key, u64::MAX)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    let last = manifest.len() - 1;
    manifest[last] ^= 1;
    let _ = stored
        .storage
        .put(&key, manifest.into(), PutMode::Overwrite)
        .await
        .unwrap();
    let error = format!("{:#}", stored.restore().await.unwrap_err());
    assert!(
        error.contains("manifest.zst") && error.contains("damaged"),
        "{error}"
    );
    assert!(!stored.data().join("PG_VERSION").exists() && !stored.data().join("base").exists());
}

#[tokio::test]
async fn stopped_at_any_call_of_the_store_it_leaves_nothing_that_starts() {
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let stored = stored().await;
            // Opening reads the marker, what it needs and cluster.json first.
            let faulty = Arc::new(FaultyStorage::new(
                stored.storage.clone(),
                stop_at + 3,
                point,
            ));
            let repository = Repository::open(faulty.clone()).await.unwrap();
            let cluster = Cluster::open(repository, "main".parse().unwrap())
                .await
                .unwrap();
            let done = Stored { cluster, ..stored };
            let result = done.restore().await;
            if !faulty.stopped() {
                result.unwrap();
                assert!(stop_at > 3, "the manifest and the pack are read");
                break;
            }
            assert!(result.is_err(), "call {stop_at}");
            assert!(
                !done.data().join("global/pg_control").exists(),
                "call {stop_at}"
            );
        }
    }
}
