//! A local index of one cluster's WAL: what the segments' summaries say, joined, and the names that relations had. A
//! cache in SQLite: all of it comes from the repository, and it can be deleted at any time.
//!
//! All calls block: they belong on a blocking thread.

mod block;
mod carried;
mod column;
#[cfg(test)]
mod crossing_tests;
mod derive;
mod event;
mod event_row;
#[cfg(test)]
mod event_tests;
mod exact;
#[cfg(test)]
mod exact_tests;
mod facts;
mod failure;
mod listing;
#[cfg(test)]
mod listing_tests;
#[cfg(test)]
mod made_up;
mod name;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod order_tests;
pub mod partial;
mod ranges;
pub mod recordings;
#[cfg(test)]
mod removed_tests;
#[cfg(test)]
mod replaced_tests;
mod rows;
#[cfg(test)]
mod search_tests;
mod segment;
mod state;
mod tablespace;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust_tests;
pub mod update;
mod wal_index;
mod xid;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::Hint;
use crate::owner;
use crate::postgres::catalog::XID_REUSE;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::ClusterName;
use crate::postgres::types::{SegmentName, SegmentSize, TimelineId};
use crate::postgres::wal::Summary;
use crate::storage::{FolderStamp, Watched};

pub use event::FoundEvents;
pub use failure::{IndexFailed, on_index};
pub use name::{RecordedName, Recording};
pub use segment::Archived;
pub use state::{IndexState, Position, UnreadableSegment};

/// The form of the tables; an index of another form is made anew.
const VERSION: i64 = 8;
const SCHEMA: &str = include_str!("schema.sql");
/// Memory for pages, of one connection.
const CACHE_KIB: i64 = 4096;
/// Prepared statements kept.
const STATEMENTS: usize = 96;
/// How long to wait while another process writes.
const BUSY: Duration = Duration::from_secs(30);

/// Segments in a block.
const BLOCK: u64 = 1024;
/// Segments before one that are looked through for what belongs to its events.
const WINDOW: u64 = 16;

/// How often an index was changed, as one process counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexVersion {
    own: u64,
    others: i64,
}

/// The index of one cluster. Several processes may have the same one open.
pub struct Index {
    connection: Mutex<Connection>,
    /// Who lists the repository for the first time.
    listing: tokio::sync::Mutex<()>,
    /// What lies directly in the WAL folder, as this process knows it.
    top: tokio::sync::Mutex<Watched>,
    /// Of the folders of WAL and that of names, when this process listed them.
    stamps: Mutex<HashMap<String, FolderStamp>>,
    /// How often this process changed what is told.
    changes: AtomicU64,
    /// When this process listed the repository last.
    listed_at: Mutex<Option<Instant>>,
    /// Summaries of the segments stored last.
    recent: Mutex<VecDeque<(Archived, Summary)>>,
    cluster: ClusterName,
    size: SegmentSize,
    /// What it belongs to.
    identity: String,
    /// `None`: gone when it is closed.
    path: Option<PathBuf>,
}

impl Index {
    /// Opens the cluster's index in a folder, or makes it: also in place of one that has another form or is damaged.
    /// Errors: the file cannot be made or used.
    pub fn open(folder: &Path, cluster: &Cluster) -> anyhow::Result<Self> {
        let path = &file(folder, cluster);
        let opened = prepare(path, cluster)
            .with_context(|| format!("cannot use the index \"{}\"", path.display()));
        let connection =
            opened.hint("let the user who runs Walden write to the folder of `catalog.cache`")?;
        Ok(Self::of(connection, cluster, Some(path.to_path_buf())))
    }

    /// An index that is gone when it is closed. It lies in a temporary file as far as it does not fit into the page
    /// cache.
    pub fn temporary(cluster: &Cluster) -> anyhow::Result<Self> {
        let connection = Connection::open("").context("cannot make a temporary index")?;
        set_up(&connection, cluster)?;
        Ok(Self::of(connection, cluster, None))
    }

    fn of(connection: Connection, cluster: &Cluster, path: Option<PathBuf>) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let description = &cluster.description;
        Self {
            recent: Mutex::default(),
            connection: Mutex::new(connection),
            listing: tokio::sync::Mutex::default(),
            top: tokio::sync::Mutex::new(Watched::new(cluster.layout.wal_folder())),
            stamps: Mutex::default(),
            changes: AtomicU64::default(),
            listed_at: Mutex::default(),
            cluster: description.name.clone(),
            size: description.segment_size,
            identity: identity(cluster),
            path,
        }
    }

    /// Whether the cluster has an index in a folder.
    pub fn is_in(folder: &Path, cluster: &Cluster) -> bool {
        file(folder, cluster).exists()
    }

    /// Where it is kept; `None` for a temporary one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Nothing is answered until this is dropped.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized {
        self.connection()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the index as a whole or not at all.
    fn change<T>(&self, work: impl FnOnce(&Connection) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut connection = self.connection();
        let before = connection.total_changes();
        let done = transact(&mut connection, work)?;
        self.changes.fetch_add(
            u64::from(connection.total_changes() != before),
            Ordering::Relaxed,
        );
        Ok(done)
    }

    /// Changes what nobody is told: how the repository was listed.
    fn change_untold<T>(
        &self,
        work: impl FnOnce(&Connection) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        transact(&mut self.connection(), work)
    }

    /// Another one than before if what is told may have changed, by this process or another. Errors: it cannot be read.
    pub fn version(&self) -> anyhow::Result<IndexVersion> {
        let others = self
            .connection()
            .pragma_query_value(None, "data_version", |row| row.get(0))?;
        Ok(IndexVersion {
            own: self.changes.load(Ordering::Relaxed),
            others,
        })
    }

    fn name(&self, timeline: TimelineId, number: u64) -> SegmentName {
        SegmentName::from_number(timeline, number, self.size)
    }

    /// Segments within which a transaction number stands for one transaction.
    fn reach(&self) -> u64 {
        XID_REUSE / self.size.bytes()
    }
}

fn transact<T>(
    db: &mut Connection,
    work: impl FnOnce(&Connection) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// The file of a cluster's index.
fn file(folder: &Path, cluster: &Cluster) -> PathBuf {
    let id = cluster.repository.marker().id.get(..8).unwrap_or_default();
    folder.join(format!("{}-{id}.index", cluster.description.name))
}

/// Opens or makes the file.
fn prepare(path: &Path, cluster: &Cluster) -> anyhow::Result<Connection> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    for attempt in 0.. {
        // SQLite would make it readable for others; what it puts beside it gets the same mode.
        // SQLite gives what it puts beside it to the same user.
        match owner::create(path, |made| owner::inherit(made, Path::new("/"))) {
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => (),
            Err(error) => return Err(error.into()),
        }
        let connection = Connection::open(path)?;
        match set_up(&connection, cluster) {
            Ok(true) => return Ok(connection),
            Ok(false) => tracing::info!("the index \"{}\" is made anew", path.display()),
            Err(error) if attempt == 0 && is_damage(&error) => {
                tracing::info!("the index \"{}\" is made anew: {error}", path.display());
            }
            Err(error) => return Err(error.into()),
        }
        drop(connection);
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_os_string();
            name.push(suffix);
            match fs::remove_file(&name) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => (),
            }
        }
    }
    unreachable!("the loop above ends by returning")
}

fn is_damage(error: &rusqlite::Error) -> bool {
    let damage = [
        rusqlite::ErrorCode::NotADatabase,
        rusqlite::ErrorCode::DatabaseCorrupt,
    ];
    error
        .sqlite_error_code()
        .is_some_and(|code| damage.contains(&code))
}

/// Makes the tables of a new index; false for one that is not this cluster's or has another form.
fn set_up(connection: &Connection, cluster: &Cluster) -> Result<bool, rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // What a crash of the machine takes away is read from the repository again.
    connection.pragma_update(None, "synchronous", "normal")?;
    let identity = identity(cluster);
    let transaction =
        rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        let same = version == VERSION
            && connection.query_row("SELECT text FROM identity", [], |row| {
                row.get::<_, String>(0)
            })? == identity;
        return Ok(same);
    }
    create(connection, &identity)?;
    transaction.commit()?;
    Ok(true)
}

/// Makes the tables.
fn create(connection: &Connection, identity: &str) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)?;
    connection.execute("INSERT INTO identity VALUES (?1)", [identity])?;
    connection.pragma_update(None, "user_version", VERSION)
}

/// What an index belongs to.
fn identity(cluster: &Cluster) -> String {
    let description = &cluster.description;
    let marker = cluster.repository.marker();
    let size = description.segment_size.bytes();
    format!(
        "{} {} {} {size}",
        marker.id, description.name, description.system_identifier
    )
}
