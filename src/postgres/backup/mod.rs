//! Base backups, one file a step: [`start`] checks the server, [`stream`] transfers, [`wal`] waits for the WAL,
//! [`finish`] writes the manifest; and what is done with backups later.
//!
//! A backup exists when its manifest does, after all its WAL. Memory does not depend on the size of the database. A
//! backup that lacks a file of the cluster is refused or marked ([`warnings`], [`inventory`]).

pub mod ask;
pub mod cleanup;
pub mod cutter;
pub mod delete;
mod finish;
pub mod inventory;
pub mod manifest;
pub mod outside;
pub mod packer;
pub mod pipeline;
mod refused;
pub mod start;
pub mod started;
pub mod stream;
pub mod take;
pub mod tar;
pub mod wal;
pub mod warnings;

use crate::postgres::types::WalFileName;

/// What happens while a backup is taken, for whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStep {
    /// The server makes the checkpoint that the backup begins with.
    Checkpoint,
    /// Bytes transferred so far, and the server's estimate of all.
    Streaming { done: u64, total: Option<u64> },
    /// Everything is stored; this WAL file is not yet in the repository.
    WaitingForWal { missing: WalFileName },
}

/// Told of every [`BackupStep`]; called often, must be quick.
pub type BackupObserver<'a> = &'a (dyn Fn(BackupStep) + Sync);
