//! What is asked of fetching, and what comes of it.

use std::path::PathBuf;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lines;
use crate::error::{find, hints, one_line};
use crate::postgres::archive::{GapError, HistoryLost, Untold};
use crate::postgres::types::{SegmentName, WalFileName};
use crate::repo::ObjectError;

/// One file to be put somewhere.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    pub name: WalFileName,
    pub destination: PathBuf,
    /// Segments from this one on are absent without looking.
    pub end: Option<SegmentName>,
}

/// What came of a request. That there is neither is a [`FetchFailure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchReply {
    /// The file lies here, whole, for the asker to rename to its destination.
    Ready(PathBuf),
    /// The repository proves that there is no such file.
    Absent,
}

/// Why there is neither a file nor the proof that there is none.
#[derive(Debug, Clone)]
pub struct FetchFailure {
    pub kind: FetchFailureKind,
    /// On one line.
    pub what: String,
    pub hints: Vec<String>,
}

/// What to make of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFailureKind {
    /// The file was lost: WAL goes on after it.
    Lost,
    /// The object is there and cannot be used.
    Damaged,
    /// Asked of the wrong service, or of one that is stopping, or the repository does not answer, or what tells of a file
    /// that is not there cannot be read.
    Other,
}

impl FetchFailure {
    pub(super) fn of(error: &anyhow::Error) -> Self {
        let kind = if find::<GapError>(error).is_some() || find::<HistoryLost>(error).is_some() {
            FetchFailureKind::Lost
        } else if find::<Untold>(error).is_some() {
            // Another file is damaged, not the one that was asked for.
            FetchFailureKind::Other
        } else if matches!(
            find::<ObjectError>(error),
            Some(ObjectError::Damaged { .. })
        ) {
            FetchFailureKind::Damaged
        } else {
            FetchFailureKind::Other
        };
        Self {
            kind,
            what: one_line(error),
            hints: hints(error).into_iter().map(str::to_string).collect(),
        }
    }

    /// The lines that a hook program prints.
    pub fn text(&self) -> String {
        lines(&self.what, self.hints.iter().map(String::as_str))
    }
}

/// A request that waits for its answer.
pub struct PendingFetch {
    pub request: FetchRequest,
    /// The destination as it was named: a link to pg_wal lies in the data directory, its folder does not.
    pub named: PathBuf,
    pub at: Instant,
    pub reply: oneshot::Sender<Result<FetchReply, FetchFailure>>,
}
