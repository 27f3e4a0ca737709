//! The plan's other answer: why a target cannot be reached exactly, and the nearest moments that can.

use std::fmt;

use chrono::{DateTime, Utc};

use super::other_timelines::OtherTimeline;
use super::stop_at::Reachability;
use super::target::{RestoreRequest, postgresql_time};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, SegmentName, TimelineId};
use crate::postgres::wal::Xid;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreachableReason {
    #[error("there is no complete base backup")]
    NoBackup,
    #[error("backup \"{id}\" {why}")]
    BackupUnusable { id: BackupId, why: String },
    #[error(
        "timeline {timeline} is not known: neither its history file nor WAL nor a backup of it is archived"
    )]
    TimelineUnknown { timeline: TimelineId },
    #[error(
        "the history file of timeline {timeline} is not archived, so where it comes from is not known"
    )]
    HistoryMissing { timeline: TimelineId },
    #[error("the history file of timeline {timeline} cannot be read: {why}")]
    HistoryDamaged {
        timeline: TimelineId,
        why: String,
        /// A newer Walden wrote it: nothing is wrong with it.
        newer_walden: bool,
    },
    #[error(
        "a server that ends recovery on timeline {timeline} asks for the history file of timeline {newer}, which {}",
        unusable_text(.why)
    )]
    NewerHistoryUnknown {
        timeline: TimelineId,
        newer: TimelineId,
        /// Why it cannot be read; absent when it is not archived.
        why: Option<String>,
        /// A newer Walden wrote it: nothing is wrong with it.
        newer_walden: bool,
    },
    #[error("no usable base backup leads to timeline {timeline}")]
    NoBackupOnPath { timeline: TimelineId },
    #[error("the target is before the end of the oldest usable base backup, \"{id}\", which ended at {} ({stop_lsn})", postgresql_time(*.stopped_at))]
    BeforeOldestBackup {
        id: BackupId,
        stopped_at: DateTime<Utc>,
        stop_lsn: Lsn,
    },
    #[error("the target is after the end of the archived WAL, {end} on timeline {timeline}{}{}", stored_text(.last_stored), idle_text(.idle_until))]
    BeyondArchive {
        end: Lsn,
        timeline: TimelineId,
        last_stored: Option<DateTime<Utc>>,
        /// Proven: no transaction that is not archived ended by then.
        idle_until: Option<DateTime<Utc>>,
    },
    #[error("WAL segment {first_missing} is missing, archived WAL goes on with {resumes}")]
    Gap {
        first_missing: SegmentName,
        resumes: SegmentName,
    },
    #[error(
        "the WAL after {end} was deleted by retention, from segment {first_missing} on: the target is no longer kept"
    )]
    Expired {
        first_missing: SegmentName,
        end: Lsn,
    },
    #[error("WAL segment {segment} cannot be replayed beyond {lsn}")]
    Broken { segment: SegmentName, lsn: Lsn },
    #[error("{what} in the archived WAL of timeline {timeline} that follows a backup, {}", searched_text(.searched))]
    NotFound {
        what: String,
        timeline: TimelineId,
        searched: Vec<(Lsn, Lsn)>,
    },
    #[error(
        "event {id} is on timeline {event_timeline}, which timeline {timeline} had left before"
    )]
    EventElsewhere {
        id: String,
        timeline: TimelineId,
        event_timeline: TimelineId,
    },
    #[error("the archived WAL has no record at {lsn}, where event {id} should be")]
    EventNotFound { id: String, lsn: Lsn },
    #[error("event {id} counts from the commit of transaction {xid} on, and {why}")]
    EventNotCommitted { id: String, xid: Xid, why: String },
}

impl UnreachableReason {
    /// How the moment lies to what is archived.
    pub fn kind(&self) -> Reachability {
        match self {
            Self::BeyondArchive { .. } => Reachability::Future,
            Self::BeforeOldestBackup { .. } => Reachability::Past,
            _ => Reachability::NoData,
        }
    }

    /// Whether only a newer Walden can tell: nothing is wrong with what is there.
    pub fn is_of_newer_walden(&self) -> bool {
        matches!(
            self,
            Self::HistoryDamaged {
                newer_walden: true,
                ..
            } | Self::NewerHistoryUnknown {
                newer_walden: true,
                ..
            }
        )
    }
}

fn unusable_text(why: &Option<String>) -> String {
    why.as_ref().map_or(
        "is not archived, although the timeline exists".into(),
        |why| format!("cannot be read: {why}"),
    )
}

fn searched_text(searched: &[(Lsn, Lsn)]) -> String {
    let ranges: Vec<String> = searched
        .iter()
        .map(|(from, to)| format!("from {from} to {to}"))
        .collect();
    ranges.join(" and ")
}

fn stored_text(stored: &Option<DateTime<Utc>>) -> String {
    stored
        .map(|time| {
            format!(
                "; its last segment was archived at {}",
                postgresql_time(time)
            )
        })
        .unwrap_or_default()
}

fn idle_text(until: &Option<DateTime<Utc>>) -> String {
    let text = |time| {
        format!(
            "; it is proven until {} that no other transaction ended",
            postgresql_time(time)
        )
    };
    until.map(text).unwrap_or_default()
}

/// A moment that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    pub words: String,
    /// The arguments of `walden restore` for it.
    pub arguments: String,
    pub request: RestoreRequest,
}

impl Nearest {
    /// The moment that a request restores to.
    pub fn new(words: String, request: RestoreRequest) -> Self {
        Self {
            words,
            arguments: request.arguments(),
            request,
        }
    }
}

/// The target cannot be reached exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub target: String,
    pub kind: Reachability,
    pub reason: UnreachableReason,
    pub nearest_before: Option<Nearest>,
    pub nearest_after: Option<Nearest>,
    /// Timelines that go on beside the one that was asked for, and could be meant as well.
    pub other_timelines: Vec<OtherTimeline>,
    /// What else was found on the way, such as backups that could not be used.
    pub notes: Vec<String>,
}

impl Unreachable {
    /// The next step.
    pub fn hint(&self) -> String {
        let others = self.other_timelines.iter().filter(|other| other.reaches);
        match &self.reason {
            UnreachableReason::NoBackup => "take one with `walden backup take`".into(),
            UnreachableReason::BackupUnusable { .. } => "`walden backup list` shows all; leave out --backup to have one chosen".into(),
            UnreachableReason::TimelineUnknown { .. } | UnreachableReason::NoBackupOnPath { .. } => {
                "name a timeline with --timeline; `walden wal list` and `walden backup list` show which there are".into()
            }
            UnreachableReason::HistoryMissing { timeline } => format!(
                "copy {:08X}.history from the server's pg_wal and archive it with `walden wal push`",
                timeline.0
            ),
            UnreachableReason::HistoryDamaged { newer_walden: true, .. } | UnreachableReason::NewerHistoryUnknown { newer_walden: true, .. } => {
                "upgrade Walden on this host: nothing is wrong with the object".into()
            }
            UnreachableReason::HistoryDamaged { .. } => "restore the object from a copy of the repository".into(),
            UnreachableReason::NewerHistoryUnknown { newer, why: None, .. } => format!(
                "copy {:08X}.history from the pg_wal of a server of timeline {newer} and archive it with `walden wal push`",
                newer.0
            ),
            UnreachableReason::NewerHistoryUnknown { .. } => "restore the object from a copy of the repository".into(),
            UnreachableReason::BeforeOldestBackup { .. } => "older moments are out of reach".into(),
            UnreachableReason::BeyondArchive { .. } | UnreachableReason::NotFound { .. } if others.clone().next().is_some() => {
                let numbers: Vec<String> = others.map(|other| other.timeline.to_string()).collect();
                format!("ask for the timeline that goes on with --timeline {}", numbers.join(" or "))
            }
            UnreachableReason::BeyondArchive { .. } => {
                "if the server still runs, `SELECT pg_switch_wal()` has it archive the rest; else choose the moment before".into()
            }
            UnreachableReason::Broken { segment, .. } => format!(
                "look with `walden wal show {segment}`, and take a new backup; does the server still have \
                 the segment whole?"
            ),
            UnreachableReason::NotFound { .. } => {
                "`walden find --kind restore-point` lists restore points; for another timeline add --timeline, or name the \
                 moment by --time or --lsn"
                    .into()
            }
            UnreachableReason::EventElsewhere { event_timeline, .. } => {
                format!("leave out --timeline, or use --timeline {event_timeline}")
            }
            UnreachableReason::EventNotFound { .. } => "`walden find` lists the events there are".into(),
            UnreachableReason::EventNotCommitted { id, .. } => format!(
                "if the server still runs, `SELECT pg_switch_wal()` has it archive the rest; `--before {id}` needs no commit"
            ),
            UnreachableReason::Expired { .. } => "restore to a moment that is still kept: `walden target` shows them".into(),
            UnreachableReason::Gap { .. } => "look for the missing segment (the server's pg_wal, another archive) and push it with `walden wal push`".into(),
        }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot restore {}: {}", self.target, self.reason)
    }
}

impl std::error::Error for Unreachable {}
