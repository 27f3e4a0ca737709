//! A WAL file that was read and waits to be stored.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::aside::AsideReason;
use crate::codec::Sealed;
use crate::postgres::catalog::WalDescription;
use crate::postgres::types::{ParseError, WalFileName};
use crate::postgres::wal::{StopReason, WalStop};

/// Times of files go by the kernel's timer tick, which is at most this long: a change within it leaves no trace.
const TICK: Duration = Duration::from_millis(20);

/// A file that was checked, read and compressed, and waits to be stored.
pub struct EncodedFile {
    pub name: WalFileName,
    pub path: PathBuf,
    /// What the object's envelope says.
    pub description: WalDescription,
    pub(super) sealed: Sealed,
    pub(super) odd: Option<Odd>,
    /// What the file was when it was read; `None` when it may change without a trace.
    pub fingerprint: Option<Fingerprint>,
}

/// What is strange about a file that is archived nevertheless.
pub(super) enum Odd {
    /// It is not kept under its name.
    Aside(AsideReason),
    /// A history or backup history file has what cannot be read.
    Unreadable(ParseError),
}

impl EncodedFile {
    /// Bytes it holds in memory, which are those of the object.
    pub fn memory(&self) -> u64 {
        (self.sealed.envelope.len() + self.sealed.body.len()) as u64
    }

    /// Where the records of a segment break off. A segment that is handed over is complete: it ends with a record, or
    /// with a switch.
    pub fn broken(&self) -> Option<&WalStop> {
        match self.name {
            WalFileName::Segment(_) => self.description.summary.as_ref()?.stop.as_ref(),
            _ => None,
        }
    }

    /// What is strange about it, now that it is kept under its name.
    pub(super) fn tell(&self) {
        if let Some(stop) = self.broken() {
            let what_to_do = match stop.why {
                StopReason::Minimal => "take a base backup",
                _ => {
                    "check the disk that holds pg_wal, and take a base backup, which does not need this WAL"
                }
            };
            tracing::warn!(
                "WAL segment \"{}\" is archived as it is, but its records break off: {stop}. Recovery ends there; \
                 {what_to_do}",
                self.name
            );
        }
        match (&self.odd, self.name) {
            (Some(Odd::Unreadable(why)), WalFileName::History(timeline)) => tracing::warn!(
                "\"{}\" is archived as it is, but no server can read it: {why}. Nothing can be restored along timeline \
                 {timeline}",
                self.name
            ),
            (Some(Odd::Unreadable(why)), name) => {
                tracing::info!(
                    "\"{name}\" is archived as it is, but not as PostgreSQL writes it: {why}"
                );
            }
            _ => (),
        }
    }
}

/// What tells a file from any other, and from itself before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Of an open or named file.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether any change from now on would show: the last one is longer ago than the clock of files is coarse.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let changed = Duration::new(
            self.changed.0.max(0) as u64,
            self.changed.1.clamp(0, 999_999_999) as u32,
        );
        since_epoch
            .checked_sub(changed)
            .is_some_and(|age| age > TICK)
    }
}
