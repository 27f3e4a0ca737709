//! The manifest of a logical dump: a sealed object. Its header's `about` is the [`DumpManifest`], its body one JSON object a
//! line for each table (docs/repository-format.md).

use std::io::{BufRead, Write};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::digest::{Md5, Sha256};
use crate::codec::{Sealed, SealedWriter};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BackupId, DumpFormat, DumpId, DumpKind, DumpObject};
use crate::postgres::types::{Lsn, SystemIdentifier, TimelineId};
use crate::repo::ObjectError;

/// Kind of the manifest's object.
pub const KIND: &str = "dump";
/// Bytes of all lines of tables at most: some two million tables.
pub const LONGEST: u64 = 512 << 20;
/// zstd level of manifests.
const LEVEL: i32 = 3;

/// What is known of a complete dump, without its tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpManifest {
    pub id: DumpId,
    pub system_identifier: SystemIdentifier,
    pub kind: DumpKind,
    pub format: DumpFormat,
    /// By Walden's clock.
    pub started_at: DateTime<Utc>,
    /// By Walden's clock: when everything but the manifest was stored.
    pub finished_at: DateTime<Utc>,
    pub snapshot: Snapshot,
    /// It was taken from a server that a drill restored; `None`: from the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrilledServer>,
    /// As the server says it: `15.20 (Debian 15.20-1)`.
    pub server_version: String,
    /// `server_version_num`, such as 150020.
    pub server_version_num: u32,
    /// As `pg_dump --version` says it: `15.20`.
    pub pg_dump_version: String,
    pub database: DatabaseFacts,
    /// Roles that own objects of the database or are granted something, sorted.
    pub roles: Vec<String>,
    /// Tablespaces that relations of the database lie in, or the database itself, sorted; the two default ones are left out.
    pub tablespaces: Vec<String>,
    pub extensions: Vec<Extension>,
    pub options: DumpOptions,
    /// The content: one, or in directory format one a file with the table of contents last.
    pub objects: Vec<StoredObject>,
    /// Roles and tablespaces of the whole cluster, as SQL for `psql`; `None` when they were not asked for.
    pub globals: Option<Globals>,
    /// Tables with rows in the dump.
    pub tables: u64,
}

/// What a dump shows: everything that was committed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Everything that the dump shows was written to WAL before this position.
    pub lsn: Lsn,
    /// By the server's clock, just after the snapshot was taken.
    pub time: DateTime<Utc>,
    /// The server's own name of it, such as `00000003-0000001B-1`.
    pub name: String,
    /// It was taken on a standby.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_standby: bool,
}

/// A server that a drill restored: its snapshot tells until where, and how the cluster was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledServer {
    pub backup: BackupId,
    /// That replay followed to its end.
    pub timeline: TimelineId,
    /// The time of the last transaction that was replayed, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transaction: Option<DateTime<Utc>>,
}

/// The row of pg_database, and what belongs to the database without being in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    pub oid: u32,
    pub owner: String,
    /// `UTF8`
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub provider: String,
    /// The locale of ICU or of the built-in provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    pub tablespace: String,
    /// -1: no limit.
    pub connection_limit: i32,
    /// Bytes on disk.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Privileges as PostgreSQL writes them (`aclitem`); `None`: the default ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<String>>,
    /// What ALTER DATABASE … SET and ALTER ROLE … IN DATABASE … SET set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<DatabaseSetting>,
}

/// A setting that holds in one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    /// Only for this role; `None`: for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub version: String,
    pub schema: String,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpOptions {
    /// Patterns of tables, as `pg_dump --table` takes them; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Connections that `pg_dump` copied tables with.
    pub jobs: u32,
}

impl DumpOptions {
    /// Whether tables were chosen or left out.
    pub fn is_partial(&self) -> bool {
        !self.tables.is_empty() || !self.exclude_tables.is_empty()
    }
}

/// An object of the dump, with the digests of all its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Beside the manifest: `shop_20260131_140500.dump`, `shop_20260131_140500.dir/toc.dat`.
    pub path: String,
    pub size: u64,
    pub sha256: Sha256,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5>,
}

impl StoredObject {
    /// Which object of the dump it is; `None` for one of another dump, or none that Walden stores.
    pub fn object(&self, id: &DumpId) -> Option<DumpObject> {
        let (name, object) = DumpObject::parse(&self.path)?;
        (name == *id.name()).then_some(object)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Globals {
    #[serde(flatten)]
    pub object: StoredObject,
    /// The roles' passwords (as digests) are in it.
    pub passwords: bool,
}

/// A table, partitioned table or materialized view of the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `pg_class.relkind`: r, p, m or f.
    pub relkind: char,
    /// `pg_class.reltuples`; `None`: the server has no estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<f64>,
    /// Bytes on disk with TOAST, without indexes; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its rows are in the dump.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_rows: bool,
}

impl DumpManifest {
    /// Bytes of the dump itself.
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// The object to store.
    pub fn seal<'a>(
        &self,
        tables: impl IntoIterator<Item = &'a TableEntry>,
    ) -> anyhow::Result<Sealed> {
        let mut body = SealedWriter::new(LEVEL)?;
        for table in tables {
            serde_json::to_writer(&mut body, table)?;
            body.write_all(b"\n")?;
        }
        Ok(body.finish(KIND, self)?)
    }
}

/// Reads a manifest without its tables by one small read; `None` when there is none. Errors: it is damaged, of a newer
/// Walden, or the store did not answer.
pub async fn read(cluster: &Cluster, id: &DumpId) -> Result<Option<DumpManifest>, ObjectError> {
    let (repository, key) = (
        &cluster.repository,
        cluster.layout.dump(id, &DumpObject::Manifest),
    );
    let Some(header) = repository.header(&key, KIND).await? else {
        return Ok(None);
    };
    let damaged = |why: String| repository.damaged(&key, crate::codec::Damaged(why));
    let manifest: DumpManifest = header
        .about
        .read()
        .map_err(|error| damaged(format!("what its header says is not understood: {error}")))?;
    match manifest.id == *id && manifest.system_identifier == cluster.description.system_identifier
    {
        true => Ok(Some(manifest)),
        false => Err(damaged(format!(
            "it is the manifest of \"{}\"",
            manifest.id
        ))),
    }
}

/// Reads the tables of a dump; `None` when there is no manifest.
pub async fn read_tables(
    cluster: &Cluster,
    id: &DumpId,
) -> anyhow::Result<Option<Vec<TableEntry>>> {
    let key = cluster.layout.dump(id, &DumpObject::Manifest);
    let Some((_, content)) = cluster.repository.read_small(&key, KIND, LONGEST).await? else {
        return Ok(None);
    };
    let line = |line: std::io::Result<String>| Ok(serde_json::from_str(&line?)?);
    let tables: anyhow::Result<_> = content.lines().map(line).collect();
    tables
        .with_context(|| format!("cannot read the tables in \"{key}\""))
        .map(Some)
}
