//! How a moment is restored, or why it cannot be.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{AsOf, Backup, OtherTimeline};
use crate::postgres::catalog::{
    Nearest, Neighbours, PathStep, Reachability, RecoveryPlan, StopAt, Transaction, Unreachable, WalPiece,
};

/// Where the target of a recovery lies, and how to get there.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryTarget {
    pub as_of: AsOf,
    pub kind: TargetKind,
    /// The target in words.
    pub target: String,
    /// How it is restored; with `kind` `present` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub plan: Option<Plan>,
    /// Why it cannot be restored; with every other `kind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unreachable: Option<NotReachable>,
}

/// How a target lies to what can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
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
    /// Where replay stops.
    stop: Stop,
    /// The last transaction, in the order of the WAL, that the restored cluster holds. Absent when there is none since the
    /// backup began, or it is not known; then a warning tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_included: Option<CommittedTransaction>,
    /// The first one that it does not hold. Absent when none is archived, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    first_excluded: Option<CommittedTransaction>,
    /// From this segment on recovery must get none: `restore-command --end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "00000001000000000000000B")]
    wal_end: Option<String>,
    /// Timelines that go on beside the path, and could be meant as well: `timeline` asks for one.
    other_timelines: Vec<OtherTimeline>,
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

/// Where replay stops. PostgreSQL compares a target LSN with where records begin.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stop {
    kind: StopKind,
    /// Where the record begins before or after which replay stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "0/3000100")]
    lsn: Option<String>,
}

/// How replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StopKind {
    /// Before the record at `lsn`.
    Before,
    /// After the record at `lsn`.
    After,
    /// As soon as the cluster is consistent.
    Consistent,
    /// Where the WAL ends that fetching delivers.
    End,
}

/// A commit, with its place and time.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommittedTransaction {
    /// Without its epoch.
    xid: u32,
    /// Where its commit record begins.
    lsn: String,
    /// By the server's clock; not in the order of LSNs.
    time: DateTime<Utc>,
}

impl From<StopAt> for Stop {
    fn from(stop: StopAt) -> Self {
        let (kind, lsn) = match stop {
            StopAt::Before { lsn } => (StopKind::Before, Some(lsn)),
            StopAt::After { lsn, .. } => (StopKind::After, Some(lsn)),
            StopAt::Consistent => (StopKind::Consistent, None),
            StopAt::End => (StopKind::End, None),
        };
        Self { kind, lsn: lsn.map(|lsn| lsn.to_string()) }
    }
}

impl From<Transaction> for CommittedTransaction {
    fn from(Transaction { xid, lsn, time }: Transaction) -> Self {
        Self { xid, lsn: lsn.to_string(), time }
    }
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
        let Neighbours { last_included, first_excluded } = plan.transactions.unwrap_or_default();
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
            stop: plan.stop.into(),
            last_included: last_included.map(Into::into),
            first_excluded: first_excluded.map(Into::into),
            wal_end: plan.wal_end.map(|segment| segment.to_string()),
            other_timelines: plan.other_timelines.iter().map(Into::into).collect(),
            notes: plan.notes.clone(),
            warnings: plan.warnings.clone(),
            command: plan.request.command(),
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
    /// Timelines that go on beside the one that was asked for, and could be meant as well.
    other_timelines: Vec<OtherTimeline>,
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
        Self { words: nearest.words.clone(), command: nearest.request.command() }
    }
}

impl From<&Unreachable> for NotReachable {
    fn from(refused: &Unreachable) -> Self {
        Self {
            reason: refused.reason.to_string(),
            hint: refused.hint(),
            nearest_before: refused.nearest_before.as_ref().map(Into::into),
            nearest_after: refused.nearest_after.as_ref().map(Into::into),
            other_timelines: refused.other_timelines.iter().map(Into::into).collect(),
            notes: refused.notes.clone(),
        }
    }
}

impl From<Reachability> for TargetKind {
    fn from(kind: Reachability) -> Self {
        match kind {
            Reachability::Present => Self::Present,
            Reachability::Future => Self::Future,
            Reachability::Past => Self::Past,
            Reachability::NoData => Self::NoData,
        }
    }
}
