//! How a moment is restored, or why it cannot be.

use serde::Serialize;
use utoipa::ToSchema;

use super::{AsOf, Backup};
use crate::postgres::catalog::{Nearest, PathStep, Reason, RecoveryPlan, Unreachable, WalPiece};

/// Where the target of a recovery lies, and how to get there.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryTarget {
    pub as_of: AsOf,
    pub place: Place,
    /// The target in words.
    pub target: String,
    /// How it is restored; with `place` `present` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<Plan>,
    /// Why it cannot be restored; with every other `place`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unreachable: Option<NotReachable>,
}

/// Where a target lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// It can be restored.
    Present,
    /// Behind the end of what is archived.
    Future,
    /// Before the end of the oldest usable base backup.
    Past,
    /// What would be needed is missing.
    NoData,
}

/// How a target is restored.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plan {
    backup: Backup,
    /// Why this backup.
    reason: String,
    /// The timeline that recovery follows to.
    timeline: u32,
    path: Vec<Step>,
    /// The WAL that replay may read, in order.
    wal: Vec<Piece>,
    segments: u64,
    /// Bytes of the stored WAL, estimated.
    wal_bytes: u64,
    /// The first LSN that is not archived on the path.
    #[schema(example = "0/B000000")]
    wal_reaches: String,
    /// What PostgreSQL is told.
    settings: Vec<Setting>,
    /// About the target.
    notes: Vec<String>,
    warnings: Vec<String>,
    /// What restores it; DIR stands for the new data directory.
    #[schema(example = "walden restore --to-dir DIR --lsn 0/3000100")]
    command: String,
}

/// One timeline of the path, and the LSNs that are its own.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    timeline: u32,
    from: String,
    /// Absent for the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    to: Option<String>,
}

/// Segments that recovery reads one after the other.
#[derive(Debug, Serialize, ToSchema)]
pub struct Piece {
    first: String,
    last: String,
    segments: u64,
    stored_bytes: u64,
}

/// A setting of `postgresql.conf`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Setting {
    name: String,
    value: String,
}

impl From<&RecoveryPlan> for Plan {
    fn from(plan: &RecoveryPlan) -> Self {
        let step = |step: &PathStep| Step {
            timeline: step.timeline.0,
            from: step.from.to_string(),
            to: step.to.map(|lsn| lsn.to_string()),
        };
        let piece = |piece: &WalPiece| Piece {
            first: piece.first.to_string(),
            last: piece.last.to_string(),
            segments: piece.segments,
            stored_bytes: piece.stored_bytes,
        };
        let setting = |(name, value): &(String, String)| Setting { name: name.clone(), value: value.clone() };
        Self {
            backup: (&plan.backup).into(),
            reason: plan.reason.clone(),
            timeline: plan.timeline.0,
            path: plan.path.iter().map(step).collect(),
            wal: plan.wal.iter().map(piece).collect(),
            segments: plan.segments,
            wal_bytes: plan.wal_bytes,
            wal_reaches: plan.wal_reaches.to_string(),
            settings: plan.settings.iter().map(setting).collect(),
            notes: plan.notes.clone(),
            warnings: plan.warnings.clone(),
            command: command(&plan.request.arguments()),
        }
    }
}

/// Why a target cannot be restored, and what can.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotReachable {
    reason: String,
    hint: String,
    /// The nearest earlier moment that can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    nearest_before: Option<Moment>,
    /// The nearest later moment that can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    nearest_after: Option<Moment>,
    /// Backups that were passed over, and why.
    notes: Vec<String>,
}

/// A moment that can be restored.
#[derive(Debug, Serialize, ToSchema)]
pub struct Moment {
    words: String,
    command: String,
}

impl From<&Nearest> for Moment {
    fn from(nearest: &Nearest) -> Self {
        Self { words: nearest.words.clone(), command: command(&nearest.arguments) }
    }
}

impl From<&Unreachable> for NotReachable {
    fn from(refused: &Unreachable) -> Self {
        Self {
            reason: refused.reason.to_string(),
            hint: refused.hint(),
            nearest_before: refused.nearest_before.as_ref().map(Into::into),
            nearest_after: refused.nearest_after.as_ref().map(Into::into),
            notes: refused.notes.clone(),
        }
    }
}

impl From<&Reason> for Place {
    fn from(reason: &Reason) -> Self {
        match reason {
            Reason::BeforeOldestBackup { .. } => Self::Past,
            Reason::BeyondArchive { .. } => Self::Future,
            _ => Self::NoData,
        }
    }
}

fn command(arguments: &str) -> String {
    format!("walden restore --to-dir DIR {arguments}")
}
