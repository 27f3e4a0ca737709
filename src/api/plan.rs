//! How a moment is restored, or why it cannot be.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::Backup;
use super::windows::OtherTimeline;
use crate::postgres::catalog::{
    Nearest, Neighbours, PathStep, Reachability, RecoveryPlan, ReplayedTablespace, StopAt,
    Transaction, Unreachable, WalPiece,
};
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::types::{Lsn, SegmentName, TimelineId};
use crate::postgres::wal::Xid;

answer! {
    /// Where the target of a recovery lies, and how to get there.
    pub struct RecoveryTarget {
        kind: TargetKind,
        /// The target in words.
        target: String,
        /// How it is restored; with `kind` `present` alone.
        plan?: Plan,
        /// Why it cannot be restored; with every other `kind`.
        unreachable?: NotReachable,
    }
}

impl From<&RecoveryPlan> for RecoveryTarget {
    fn from(plan: &RecoveryPlan) -> Self {
        let target = plan.target.clone();
        Self {
            kind: TargetKind::Present,
            target,
            plan: Some(plan.into()),
            unreachable: None,
        }
    }
}

impl From<&Unreachable> for RecoveryTarget {
    fn from(refused: &Unreachable) -> Self {
        let (kind, target) = (refused.kind.into(), refused.target.clone());
        Self {
            kind,
            target,
            plan: None,
            unreachable: Some(refused.into()),
        }
    }
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

answer! {
    /// How a target is restored.
    pub struct Plan {
        cluster: ClusterName,
        backup: Backup,
        /// Why this backup.
        reason: String,
        /// The timeline that recovery follows to.
        timeline: TimelineId,
        path: Vec<Step>,
        /// The WAL that replay may read, in order.
        wal: Vec<Piece>,
        segments: u64,
        /// Bytes of the stored WAL, estimated.
        wal_bytes: u64,
        /// The first LSN that is not archived on the path.
        wal_reaches: Lsn,
        /// Where replay stops.
        stop: Stop,
        /// The last transaction, in the order of the WAL, that the restored cluster holds. Absent when there is none since the
        /// backup began, or it is not known; then a warning tells.
        last_included?: CommittedTransaction,
        /// The first one that it does not hold. Absent when none is archived, or it is not known.
        first_excluded?: CommittedTransaction,
        /// From this segment on recovery must get none: `restore-command --end`.
        wal_end?: SegmentName,
        /// Timelines that go on beside the path, and could be meant as well: `timeline` asks for one.
        other_timelines: Vec<OtherTimeline>,
        /// Tablespaces outside the data directory that replay makes; where more may be made, a warning tells.
        tablespaces_made: Vec<TablespaceMade>,
        /// What PostgreSQL is told.
        settings: Vec<Setting>,
        /// How long the restore takes, judging by past ones.
        expected_seconds?: f64,
        /// About the target.
        notes: Vec<String>,
        warnings: Vec<String>,
        /// What restores it; DIR stands for the new data directory.
        #[schema(example = "walden restore --to-dir DIR --lsn 0/3000100")]
        command: String,
    }

    /// One timeline of the path, and the LSNs that are its own.
    pub struct Step {
        timeline: TimelineId,
        from: Lsn,
        /// Absent for the last.
        to?: Lsn,
    }

    /// Segments that recovery reads one after the other.
    pub struct Piece {
        first: SegmentName,
        last: SegmentName,
        segments: u64,
        stored_bytes: u64,
    }

    /// A tablespace that replay makes where the source had it.
    pub struct TablespaceMade {
        lsn: Lsn,
        oid: u32,
        location: String,
        /// The first backup that has it: restored from there, it can be put elsewhere.
        in_backup?: BackupId,
    }

    /// Where replay stops. PostgreSQL compares a target LSN with where records begin.
    pub struct Stop {
        kind: StopKind,
        /// Where the record begins before or after which replay stops.
        lsn?: Lsn,
        /// Where the record ends after which replay stops.
        end?: Lsn,
    }
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

answer! {
    /// A commit, with its place and time.
    pub struct CommittedTransaction {
        /// Without its epoch.
        xid: Xid,
        /// Where its commit record begins.
        lsn: Lsn,
        /// By the server's clock; not in the order of LSNs.
        time: DateTime<Utc>,
    }
}

impl From<StopAt> for Stop {
    fn from(stop: StopAt) -> Self {
        let (kind, lsn, end) = match stop {
            StopAt::Before { lsn } => (StopKind::Before, Some(lsn), None),
            StopAt::After { lsn, end } => (StopKind::After, Some(lsn), Some(end)),
            StopAt::Consistent => (StopKind::Consistent, None, None),
            StopAt::End => (StopKind::End, None, None),
        };
        Self { kind, lsn, end }
    }
}

impl From<Transaction> for CommittedTransaction {
    fn from(Transaction { xid, lsn, time }: Transaction) -> Self {
        Self { xid, lsn, time }
    }
}

answer! {
    /// A setting of `postgresql.conf`.
    pub struct Setting {
        name: String,
        value: String,
    }
}

impl From<&(String, String)> for Setting {
    fn from((name, value): &(String, String)) -> Self {
        Self {
            name: name.clone(),
            value: value.clone(),
        }
    }
}

impl From<&RecoveryPlan> for Plan {
    fn from(plan: &RecoveryPlan) -> Self {
        let step = |step: &PathStep| Step {
            timeline: step.timeline,
            from: step.from,
            to: step.to,
        };
        let piece = |piece: &WalPiece| Piece {
            first: piece.first,
            last: piece.last,
            segments: piece.segments,
            stored_bytes: piece.stored_bytes,
        };
        let made = |ReplayedTablespace { made, in_backup }: &ReplayedTablespace| TablespaceMade {
            lsn: made.lsn,
            oid: made.oid,
            location: made.location.clone(),
            in_backup: in_backup.clone(),
        };
        let Neighbours {
            last_included,
            first_excluded,
        } = plan.transactions.unwrap_or_default();
        Self {
            cluster: plan.cluster.clone(),
            backup: (&plan.backup).into(),
            reason: plan.reason.clone(),
            timeline: plan.timeline,
            path: plan.path.iter().map(step).collect(),
            wal: plan.wal.iter().map(piece).collect(),
            segments: plan.segments,
            wal_bytes: plan.wal_bytes,
            wal_reaches: plan.wal_reaches,
            settings: plan.settings.iter().map(Into::into).collect(),
            stop: plan.stop.into(),
            last_included: last_included.map(Into::into),
            first_excluded: first_excluded.map(Into::into),
            wal_end: plan.wal_end,
            other_timelines: plan.other_timelines.iter().map(Into::into).collect(),
            tablespaces_made: plan.made.made.iter().map(made).collect(),
            expected_seconds: plan.expected_seconds,
            notes: plan.notes.clone(),
            warnings: plan.warnings.clone(),
            command: plan.request.command(),
        }
    }
}

answer! {
    /// Why a target cannot be restored, and what can.
    pub struct NotReachable {
        reason: String,
        hint: String,
        /// The nearest earlier moment that can be restored.
        nearest_before?: Moment,
        /// The nearest later moment that can be restored.
        nearest_after?: Moment,
        /// Timelines that go on beside the one that was asked for, and could be meant as well.
        other_timelines: Vec<OtherTimeline>,
        /// Backups that were passed over, and why.
        notes: Vec<String>,
    }

    /// A moment that can be restored.
    pub struct Moment {
        words: String,
        command: String,
    }
}

impl From<&Nearest> for Moment {
    fn from(nearest: &Nearest) -> Self {
        Self {
            words: nearest.words.clone(),
            command: nearest.request.command(),
        }
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
