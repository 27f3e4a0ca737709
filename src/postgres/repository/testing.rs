//! A cluster with two timelines and two backups, small and whole, in memory.

use std::sync::Arc;

use chrono::DateTime;

use crate::codec::{Digest, FrameCompressor, seal};
use crate::postgres::archive::testing::{SEGMENT, cluster_in, segment};
use crate::postgres::backup::manifest::{
    self, Extent, FileEntry, FolderEntry, ManifestEntry, write_entry,
};
use crate::postgres::catalog::{BackupDescription, WAL_KIND, WalDescription, testing};
use crate::postgres::cluster::Cluster;
use crate::postgres::idle;
use crate::postgres::layout::{BackupId, IdleMarker, PackName};
use crate::postgres::types::{Lsn, SegmentSize, SystemIdentifier, TimelineId, WalFileName};
use crate::repo::PutSealed;
use crate::storage::{Key, MemoryStorage, PutMode, PutOutcome, Storage, Walk, get_all};

pub const FIRST: &str = "20260101-000000Z";
pub const SECOND: &str = "20260102-000000Z";
/// An idle marker at the end of timeline 2.
const MARK: &str = "0000000200000000/0000000000700000-20260102T000000Z";
const FILES: [&str; 8] = [
    "backup_label",
    "global/pg_control",
    "base/1/1",
    "PG_VERSION",
    "global/pg_filenode.map",
    "pg_xact/0000",
    "pg_multixact/offsets/0000",
    "pg_multixact/members/0000",
];
const FOLDERS: [&str; 6] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_tblspc",
    "pg_twophase",
];

/// Timeline 1 from segment 2 to 5, timeline 2 from 4 to 6; a backup in segment 2 and one in segment 5 of timeline 2,
/// which holds a file in a pack of the first.
pub async fn example() -> (Cluster, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::default());
    let cluster = cluster_in(storage.clone()).await;
    for (timeline, numbers) in [(1, 2..=5), (2, 4..=6)] {
        for number in numbers {
            let name = format!("{timeline:08X}00000000{number:08X}");
            wal(&cluster, &name, &segment(&name, number)).await;
        }
    }
    wal(
        &cluster,
        "00000002.history",
        b"1\t0/400100\tno recovery target specified\n",
    )
    .await;
    wal(
        &cluster,
        "000000010000000000000004.partial",
        &segment("000000010000000000000004.partial", 7),
    )
    .await;
    let mark: IdleMarker = MARK.parse().unwrap();
    let IdleMarker {
        timeline,
        lsn,
        time: since,
    } = mark;
    let first = idle::IdleMemory {
        timeline,
        lsn,
        xmax: 700,
        since,
        marked: None,
    };
    idle::store(&cluster, &mark, &first).await.unwrap();
    let packs = [pack(FIRST, 1), pack(FIRST, 2)];
    backup(&cluster, FIRST, (1, 2), &packs, &packs[1].0).await;
    let own = [pack(SECOND, 1)];
    backup(&cluster, SECOND, (2, 5), &own, &packs[1].0).await;
    (cluster, storage)
}

pub async fn wal(cluster: &Cluster, name: &str, content: &[u8]) {
    let name: WalFileName = name.parse().unwrap();
    let about = WalDescription {
        name,
        system_identifier: SystemIdentifier(7),
        timeline: name.timeline(),
        major: None,
        archived_at: DateTime::UNIX_EPOCH,
        frames: Vec::new(),
        summary: None,
    };
    let sealed = seal(WAL_KIND, &about, &mut &content[..], content.len() as u64, 1).unwrap();
    let put = cluster
        .repository
        .put_sealed(&cluster.layout.wal(&name), &sealed)
        .await
        .unwrap();
    assert!(matches!(put, PutSealed::Stored | PutSealed::SameContent));
}

/// A pack of one frame, and the frame's content.
fn pack(id: &str, number: u32) -> (PackName, Vec<u8>) {
    let seed = u64::from(number) + id.as_bytes()[7] as u64;
    (
        format!("{id}/pack-{number:06}").parse().unwrap(),
        (0..9000)
            .flat_map(|n: u64| (n * seed).to_le_bytes())
            .collect(),
    )
}

/// Its own packs hold all files but the last, which lies in `shared`.
async fn backup(
    cluster: &Cluster,
    id: &str,
    at: (u32, u64),
    packs: &[(PackName, Vec<u8>)],
    shared: &PackName,
) {
    let storage = cluster.repository.storage();
    let mut body = Vec::new();
    for (name, plain) in packs {
        let frame = FrameCompressor::new(1).unwrap().compress(plain).unwrap();
        let put = storage
            .put(
                &cluster.layout.pack(name),
                frame.into(),
                PutMode::CreateOnly,
            )
            .await
            .unwrap();
        assert_eq!(put, PutOutcome::Stored);
    }
    let mut size = 0;
    for path in FOLDERS {
        let folder = FolderEntry {
            path: path.into(),
            tablespace: None,
            mode: 0o700,
        };
        write_entry(&mut body, &ManifestEntry::Folder(folder)).unwrap();
    }
    for path in FILES {
        let name = if path == FILES[2] {
            shared
        } else {
            &packs[0].0
        };
        let plain = pack(&name.backup.to_string(), name.number).1;
        let stored = storage
            .head(&cluster.layout.pack(name))
            .await
            .unwrap()
            .unwrap()
            .size;
        let extents = vec![Extent {
            pack: name.clone(),
            offset: 0,
            frames: vec![stored as u32],
            skip: 0,
        }];
        size += plain.len() as u64;
        let file = FileEntry {
            path: path.into(),
            tablespace: None,
            mode: 0o600,
            mtime: 0,
            size: plain.len() as u64,
            digest: Digest::of(&plain),
            extents,
        };
        write_entry(&mut body, &ManifestEntry::File(file)).unwrap();
    }
    let (timeline, start) = (TimelineId(at.0), at.1 * SEGMENT as u64);
    let description = BackupDescription {
        segment_size: SegmentSize::new(SEGMENT as u32).unwrap(),
        timeline,
        stop_timeline: timeline,
        start_lsn: Lsn(start + 0x28),
        stop_lsn: Lsn(start + 0x100),
        file_count: FILES.len() as u64,
        plain_bytes: size,
        pack_count: packs.len() as u32,
        ..testing::backup(id)
    };
    let sealed = seal(
        manifest::KIND,
        &description,
        &mut &body[..],
        body.len() as u64,
        1,
    )
    .unwrap();
    let id: BackupId = id.parse().unwrap();
    let _ = cluster
        .repository
        .put_sealed(&cluster.layout.manifest(&id), &sealed)
        .await
        .unwrap();
}

/// All objects of the cluster with their content.
pub async fn content(storage: &dyn Storage) -> Vec<(Key, bytes::Bytes)> {
    let mut walk = Walk::new("main/".into());
    let mut content = Vec::new();
    while let Some(meta) = walk.next(storage).await.unwrap() {
        let object = get_all(storage, &meta.key, u64::MAX)
            .await
            .unwrap()
            .unwrap();
        content.push((meta.key, object));
    }
    content
}

/// Flips bits in the middle of an object.
pub async fn damage(storage: &dyn Storage, key: &str) {
    let key = Key::new(key).unwrap();
    let mut object = get_all(storage, &key, u64::MAX)
        .await
        .unwrap()
        .unwrap()
        .to_vec();
    let middle = object.len() / 2;
    object[middle..middle + 8]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x5A);
    let _ = storage
        .put(&key, object.into(), PutMode::Overwrite)
        .await
        .unwrap();
}
