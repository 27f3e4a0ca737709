//! Connections to PostgreSQL: the replication protocol, and SQL by the simple query protocol.
//!
//! `messages` is pure; `wire` moves bytes; `startup` makes a session of an address; `connection`, `commands` and
//! `base_backup` are what callers use; `client` has sessions of tokio-postgres, which know parameters and COPY;
//! `session` sets what such a session depends on (pure).

mod base_backup;
mod client;
mod commands;
mod connection;
pub mod conninfo;
mod error;
pub mod messages;
mod notice;
pub mod session;
mod startup;
mod tls;
mod tls_failure;
mod wire;

pub use base_backup::{
    BackupEvent, BackupOptions, BackupPosition, BaseBackup, Checkpoint, ChecksumFailures,
    Tablespace,
};
pub use client::{SqlClient, sql_client};
pub use commands::SystemIdentity;
pub use connection::Connection;
pub use conninfo::{ConnInfo, ResolveConnInfo};
pub use error::{Attempt, ConnectError, ConnectErrorKind};
pub use messages::{ResultSet, ServerError};
pub use startup::Mode;
pub use tls_failure::TlsFailure;
