use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::postgres::catalog::{BackupDescription, RecoveryPlan, WalPiece, WalSpan};
use crate::postgres::layout::{BackupId, DumpId};
use crate::postgres::types::SegmentName;

/// Parts of what is kept of a cluster: what a reader needs, or what is deleted. One with members that are not known says
/// nothing certain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Needs {
    pub everything: bool,
    pub backups: BTreeSet<BackupId>,
    /// As `walden dump list` names them.
    pub dumps: BTreeSet<String>,
    pub wal: Vec<WalSpan>,
    /// Segments, and all that follow each on its timeline.
    pub wal_from: Vec<SegmentName>,
}

impl Needs {
    /// All that there is.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// One dump.
    pub fn dump(id: &str) -> Self {
        Self {
            dumps: BTreeSet::from([id.to_string()]),
            ..Self::default()
        }
    }

    /// A backup with the WAL that replay may read, and what it names of earlier ones.
    pub fn of_plan(plan: &RecoveryPlan) -> Self {
        let Some(earlier) = &plan.backup.earlier_backups else {
            return Self::everything();
        };
        let own = std::iter::once(&plan.backup.id);
        Self {
            backups: own.chain(earlier).cloned().collect(),
            ..Self::wal_of_plan(plan)
        }
    }

    /// The WAL that replay may read: at its end the server may ask for more than the plan needs.
    pub fn wal_of_plan(plan: &RecoveryPlan) -> Self {
        let span = |piece: &WalPiece| WalSpan {
            first: piece.first,
            last: piece.last,
        };
        Self {
            wal: plan.wal.iter().map(span).collect(),
            wal_from: plan
                .wal
                .last()
                .map(|piece| piece.last)
                .into_iter()
                .collect(),
            ..Self::default()
        }
    }

    /// One backup, and the WAL from its start to its stop.
    pub fn of_backup(backup: &BackupDescription) -> Self {
        let wal = Self::own_wal(backup);
        match &backup.earlier_backups {
            None => Self::everything(),
            Some(earlier) => Self {
                backups: earlier.iter().chain([&backup.id]).cloned().collect(),
                wal,
                ..Self::default()
            },
        }
    }

    /// The segments without which a backup is none. Where the timeline changes in between, both have the segment of the
    /// change.
    pub fn own_wal(backup: &BackupDescription) -> Vec<WalSpan> {
        let timelines = BTreeSet::from([backup.timeline, backup.stop_timeline]);
        let span = |timeline| WalSpan {
            first: SegmentName::containing(timeline, backup.start_lsn, backup.segment_size),
            last: SegmentName::ending_at(timeline, backup.stop_lsn, backup.segment_size),
        };
        timelines.into_iter().map(span).collect()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a backup is in it.
    pub fn has_backup(&self, id: &BackupId) -> bool {
        self.everything || self.backups.contains(id)
    }

    /// Whether a dump is in it.
    pub fn has_dump(&self, id: &DumpId) -> bool {
        self.everything || self.dumps.contains(&id.to_string())
    }

    /// Whether a segment is in it.
    pub fn has_segment(&self, segment: SegmentName) -> bool {
        let from = |first: &SegmentName| first.timeline == segment.timeline && *first <= segment;
        self.everything
            || self.wal.iter().any(|span| span.contains(segment))
            || self.wal_from.iter().any(from)
    }

    /// Whether a segment of a span is in it.
    pub fn has_any_of(&self, span: &WalSpan) -> bool {
        let from =
            |first: &SegmentName| first.timeline == span.first.timeline && *first <= span.last;
        self.everything
            || self.wal.iter().any(|own| own.overlaps(span))
            || self.wal_from.iter().any(from)
    }

    /// Something of it, in words.
    fn any(&self) -> Option<String> {
        let backup = self.backups.first().map(|id| format!("backup {id}"));
        let dump = || self.dumps.first().map(|id| format!("dump {id}"));
        let first = || {
            self.wal
                .first()
                .map(|span| span.first)
                .or(self.wal_from.first().copied())
        };
        let wal = || first().map(|first| format!("WAL from {first} on"));
        let all = || self.everything.then(|| "everything".to_string());
        backup.or_else(dump).or_else(wal).or_else(all)
    }

    /// Something that is in both, in words.
    pub fn common(&self, other: &Self) -> Option<String> {
        match (self.everything, other.everything) {
            (true, _) => return other.any(),
            (_, true) => return self.any(),
            _ => (),
        }
        let backup = self.backups.intersection(&other.backups).next();
        let dump = self.dumps.intersection(&other.dumps).next();
        let has = |one: &Self, span: &&WalSpan| one.has_any_of(span);
        let wal = self.wal.iter().find(|span| has(other, span));
        let wal = wal.or(other.wal.iter().find(|span| has(self, span)));
        let from = |first: &&SegmentName| {
            let behind = |theirs: &SegmentName| theirs.timeline == first.timeline;
            other.wal_from.iter().any(behind)
        };
        let from = self.wal_from.iter().find(from);
        let backup = backup.map(|id| format!("backup {id}"));
        backup
            .or_else(|| dump.map(|id| format!("dump {id}")))
            .or_else(|| wal.map(|span| format!("WAL from {} on", span.first)))
            .or_else(|| from.map(|first| format!("WAL from {first} on")))
    }
}
