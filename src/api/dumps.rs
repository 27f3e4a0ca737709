use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::postgres::dump::manifest::{DumpManifest, StoredObject};
use crate::postgres::layout::{DumpFormat, DumpId, DumpKind};
use crate::postgres::types::Lsn;

/// A complete dump.
#[derive(Debug, Clone, Serialize)]
pub struct Dump {
    pub id: DumpId,
    pub database: String,
    pub kind: DumpKind,
    pub format: DumpFormat,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// Everything that the dump shows was written to WAL before.
    pub lsn: Lsn,
    /// By the server's clock.
    pub snapshot_time: DateTime<Utc>,
    pub server_version: String,
    pub pg_dump_version: String,
    /// Tables with rows in it.
    pub tables: u64,
    /// Bytes of the dump itself.
    pub size: u64,
    pub objects: Vec<StoredObject>,
}

impl From<&DumpManifest> for Dump {
    fn from(manifest: &DumpManifest) -> Self {
        Self {
            id: manifest.id.clone(),
            database: manifest.id.database().to_string(),
            kind: manifest.kind,
            format: manifest.format,
            started_at: manifest.started_at,
            finished_at: manifest.finished_at,
            lsn: manifest.snapshot.lsn,
            snapshot_time: manifest.snapshot.time,
            server_version: manifest.server_version.clone(),
            pg_dump_version: manifest.pg_dump_version.clone(),
            tables: manifest.tables,
            size: manifest.size(),
            objects: manifest.objects.clone(),
        }
    }
}
