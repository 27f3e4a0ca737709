//! What the tests of archiving are told in: a cluster with segments of 1 MiB, and files of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;

use super::{Fetched, Fetcher, Pusher};
use crate::postgres::catalog::{BackupDescription, ClusterDescription};
use crate::postgres::cluster::testing::registered;
use crate::postgres::cluster::{Cluster, describe_server};
use crate::postgres::types::{MajorVersion, SegmentName, SegmentSize, SystemIdentifier};
use crate::storage::{PutMode, Storage};

pub const SEGMENT: usize = 1 << 20;
/// Quick to give up.
pub const LIMIT: Duration = Duration::from_millis(700);

pub fn cluster_description() -> ClusterDescription {
    describe_server(
        "main".parse().unwrap(),
        SystemIdentifier(7),
        SegmentSize::new(SEGMENT as u32).unwrap(),
        MajorVersion::new(15).unwrap(),
        DateTime::UNIX_EPOCH,
    )
}

pub fn name(text: &str) -> SegmentName {
    text.parse().unwrap()
}

/// The content of a segment: a true page header, then bytes that depend on `seed`.
pub fn segment(text: &str, seed: u64) -> Vec<u8> {
    let name = name(text.split('.').next().unwrap());
    let mut bytes: Vec<u8> = (0..SEGMENT as u64 / 8)
        .flat_map(|n| (n / 9 * seed).to_le_bytes())
        .collect();
    bytes[..40].fill(0);
    bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
    bytes[2] = 2;
    bytes[4..8].copy_from_slice(&name.timeline.0.to_le_bytes());
    let start = name.start(cluster_description().segment_size);
    bytes[8..16].copy_from_slice(&start.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&7u64.to_le_bytes());
    bytes[32..36].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

pub fn with_bytes(mut content: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    content[at..at + bytes.len()].copy_from_slice(bytes);
    content
}

/// The cluster, registered in `storage`.
pub async fn cluster_in(storage: Arc<dyn Storage>) -> Cluster {
    registered(storage, cluster_description()).await
}

pub fn pusher(cluster: &Cluster) -> Pusher {
    Pusher::new(cluster.clone(), 1, LIMIT)
}

pub fn fetcher(cluster: &Cluster) -> Fetcher {
    Fetcher::new(cluster.clone(), LIMIT, 1)
}

/// A data directory's `pg_wal`, with `archive_status`.
pub struct PgWal(pub tempfile::TempDir);

impl PgWal {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        Self(folder)
    }

    /// Says whose data directory it is.
    pub fn belongs_to(&self, system_identifier: u64) {
        std::fs::create_dir_all(self.0.path().join("global")).unwrap();
        std::fs::write(
            self.0.path().join("global/pg_control"),
            control_file(system_identifier),
        )
        .unwrap();
    }

    pub fn folder(&self) -> PathBuf {
        self.0.path().join("pg_wal")
    }

    /// Puts a file there, ready to be archived.
    pub fn ready(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::write(
            self.folder().join(format!("archive_status/{name}.ready")),
            "",
        )
        .unwrap();
        path
    }

    /// Puts a segment there.
    pub fn segment(&self, name: &str, seed: u64) -> PathBuf {
        self.ready(name, &segment(name, seed))
    }
}

/// A pg_control of PostgreSQL 15 that says only whose it is.
fn control_file(system_identifier: u64) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[0..8].copy_from_slice(&system_identifier.to_le_bytes());
    bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&202209061u32.to_le_bytes());
    bytes[228..232].copy_from_slice(&(16u32 << 20).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The file's content, `None` when there is no such file.
pub fn content(path: &Path) -> Option<Vec<u8>> {
    path.exists().then(|| std::fs::read(path).unwrap())
}

/// Stores what makes a backup exist that ends in segment 2 of timeline 1.
pub async fn back_up(storage: &dyn Storage, cluster: &Cluster) {
    back_up_as(storage, cluster, "20260102-000000Z").await;
}

/// The same, of this name.
pub async fn back_up_as(storage: &dyn Storage, cluster: &Cluster, id: &str) {
    let backup = BackupDescription {
        segment_size: cluster.description.segment_size,
        start_lsn: "0/100028".parse().unwrap(),
        stop_lsn: "0/200100".parse().unwrap(),
        ..crate::postgres::catalog::testing::backup(id)
    };
    let kind = crate::postgres::backup::manifest::KIND;
    let sealed = crate::codec::seal(kind, &backup, &mut &b""[..], 0, 1).unwrap();
    let object = [sealed.envelope, sealed.body].concat();
    let _ = storage
        .put(
            &cluster.layout.manifest(&backup.id),
            object.into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
}

pub fn number(number: u32) -> String {
    format!("0000000100000000{number:08X}")
}

/// An archive that has these segments of timeline 1.
pub async fn archive(storage: Arc<dyn Storage>, wal: &PgWal, numbers: &[u32]) -> Cluster {
    let cluster = cluster_in(storage).await;
    for each in numbers {
        pusher(&cluster)
            .push(&wal.segment(&number(*each), 1))
            .await
            .unwrap();
    }
    cluster
}

pub async fn fetch(cluster: &Cluster, name: &str, to: &Path) -> anyhow::Result<Fetched> {
    fetcher(cluster)
        .fetch(&name.parse().unwrap(), to, None)
        .await
}
