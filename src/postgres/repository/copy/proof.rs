//! What shows that a copy is whole: the destination's catalog against what the source had when the copy began. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::postgres::backup::wal::NeededWal;
use crate::postgres::catalog::{BackupDescription, Gap, TimelinePath};
use crate::postgres::layout::{BackupId, Layout};
use crate::postgres::load::LoadedWal;
use crate::postgres::object_problem::ObjectProblem;
use crate::postgres::types::{Lsn, SegmentName, TimelineHistory, TimelineId, WalFileName};

/// What a repository holds of the cluster at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Complete ones, oldest first.
    pub backups: Vec<BackupDescription>,
    /// Those that are there and cannot be used, or not be read.
    pub unusable: Vec<(BackupId, ObjectProblem)>,
    pub unfinished: Vec<BackupId>,
    pub wal: LoadedWal,
    /// Those that can be read.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
}

impl Snapshot {
    /// One backup with the WAL that it cannot be restored without and the histories of its timeline's path; `None`
    /// when there is no such backup, or it is damaged.
    pub fn only(&self, id: &BackupId) -> Option<Self> {
        let backup = self.backups.iter().find(|backup| backup.id == *id)?;
        let size = self.wal.ranges.segment_size();
        let mut wal = LoadedWal::new(size);
        for name in needed(backup).files(size) {
            if let WalFileName::Segment(segment) = name
                && let Some(range) = self.wal.ranges.holding(segment)
            {
                wal.ranges.add(
                    segment,
                    range.stored_bytes / range.segments,
                    range.last_stored,
                );
            }
        }
        let history = self.histories.get(&backup.timeline);
        let path: Vec<TimelineId> =
            history.map_or(vec![backup.timeline], |history| history.path().collect());
        wal.histories = self
            .wal
            .histories
            .iter()
            .copied()
            .filter(|timeline| path.contains(timeline))
            .collect();
        let histories = self
            .histories
            .iter()
            .filter(|(timeline, _)| path.contains(timeline));
        let histories = histories
            .map(|(timeline, history)| (*timeline, history.clone()))
            .collect();
        Some(Self {
            backups: vec![backup.clone()],
            unusable: Vec::new(),
            unfinished: Vec::new(),
            wal,
            histories,
        })
    }

    /// All segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        let size = self.wal.ranges.segment_size();
        self.wal.ranges.iter().flat_map(move |range| {
            std::iter::successors(Some(range.first), move |name| {
                (*name < range.last).then(|| name.next(size))
            })
        })
    }

    /// Bytes of the objects of segments and packs.
    pub fn stored_bytes(&self) -> u64 {
        let packs: u64 = self.backups.iter().map(|backup| backup.stored_bytes).sum();
        packs
            + self
                .wal
                .ranges
                .iter()
                .map(|range| range.stored_bytes)
                .sum::<u64>()
    }

    /// Whether it has a WAL file.
    pub fn has(&self, name: &WalFileName) -> bool {
        match name {
            WalFileName::Segment(segment) => self.wal.ranges.contains(*segment),
            WalFileName::Partial(segment) => self.wal.partials.contains(segment),
            WalFileName::Backup { segment, offset } => {
                self.wal.backup_files.contains(&(*segment, *offset))
            }
            WalFileName::History(timeline) => self.wal.histories.contains(timeline),
            WalFileName::Aside { .. } => self.wal.aside.contains(name),
        }
    }

    /// All WAL files but segments.
    fn other_files(&self) -> impl Iterator<Item = WalFileName> + '_ {
        let histories = self
            .wal
            .histories
            .iter()
            .map(|timeline| WalFileName::History(*timeline));
        let partials = self
            .wal
            .partials
            .iter()
            .map(|segment| WalFileName::Partial(*segment));
        let of_backups = self.wal.backup_files.iter();
        let of_backups = of_backups.map(|(segment, offset)| WalFileName::Backup {
            segment: *segment,
            offset: *offset,
        });
        histories
            .chain(partials)
            .chain(of_backups)
            .chain(self.wal.aside.iter().copied())
    }

    /// All paths of timelines that it tells of.
    pub fn paths(&self) -> Vec<TimelinePath> {
        TimelinePath::all(
            self.histories.values().cloned(),
            &self.backups,
            &self.wal.ranges,
        )
    }
}

/// The WAL that a backup cannot be restored without.
pub fn needed(backup: &BackupDescription) -> NeededWal {
    NeededWal {
        timeline: backup.timeline,
        start: backup.start_lsn,
        stop: backup.stop_lsn,
    }
}

/// What the destination's catalog shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Continuity {
    /// For each backup and each timeline that it leads to.
    pub proofs: Vec<RecoverabilityProof>,
    /// Backups that cannot be restored from either repository: the source lacks WAL of theirs, too.
    pub not_restorable: Vec<BackupId>,
    /// Segments that the source had and the destination has not.
    pub missing_segments: Vec<Gap>,
    /// Keys of other objects that the source had and the destination has not.
    pub missing: Vec<String>,
}

impl Continuity {
    /// Whether everything that the source had can be had from the destination. What could not be restored from the
    /// source cannot be from there.
    pub fn is_whole(&self) -> bool {
        let worse = |proof: &RecoverabilityProof| proof.verdict == ProofVerdict::NotProven;
        self.missing_segments.is_empty()
            && self.missing.is_empty()
            && !self.proofs.iter().any(worse)
    }
}

/// What a proof shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofVerdict {
    /// The destination leads at least as far as the source did.
    Proven,
    /// It does not.
    NotProven,
    /// Neither leads anywhere, so nothing is proven: the source lacks WAL of the backup itself.
    NotRestorable,
}

/// How far a backup can be recovered along a timeline, from either repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoverabilityProof {
    pub backup: BackupId,
    pub timeline: TimelineId,
    /// From here on.
    pub from: Lsn,
    /// The first LSN that cannot be had from the source; absent when not even the backup's own WAL is all there.
    pub source_end: Option<Lsn>,
    /// The same of the destination.
    pub destination_end: Option<Lsn>,
    pub verdict: ProofVerdict,
}

fn verdict(source_end: Option<Lsn>, destination_end: Option<Lsn>) -> ProofVerdict {
    match (source_end, destination_end) {
        (None, None) => ProofVerdict::NotRestorable,
        (source, destination) if destination >= source => ProofVerdict::Proven,
        _ => ProofVerdict::NotProven,
    }
}

/// How far each backup leads on each path.
fn proofs(before: &Snapshot, after: &Snapshot) -> Vec<RecoverabilityProof> {
    let mut proofs = Vec::new();
    let (here, there) = (before.paths(), after.paths());
    for backup in &before.backups {
        let copied = after.backups.iter().any(|copy| copy == backup);
        for path in here.iter().filter(|path| path.carries(backup)) {
            let same = there.iter().find(|same| *same == path).filter(|_| copied);
            let source_end = path.moments(&before.wal.ranges, backup).map(|(_, end)| end);
            let destination_end = same
                .and_then(|same| same.moments(&after.wal.ranges, backup))
                .map(|(_, end)| end);
            proofs.push(RecoverabilityProof {
                backup: backup.id.clone(),
                timeline: path.timeline(),
                from: backup.stop_lsn,
                source_end,
                destination_end,
                verdict: verdict(source_end, destination_end),
            });
        }
    }
    proofs
}

/// Compares what the source had with what the destination has.
pub fn prove(before: &Snapshot, after: &Snapshot, layout: &Layout) -> Continuity {
    let proofs = proofs(before, after);
    let leads = |proof: &RecoverabilityProof| proof.verdict != ProofVerdict::NotRestorable;
    let restorable: BTreeSet<&BackupId> = proofs
        .iter()
        .filter(|proof| leads(proof))
        .map(|proof| &proof.backup)
        .collect();
    let not_restorable = before
        .backups
        .iter()
        .map(|backup| &backup.id)
        .filter(|id| !restorable.contains(id));
    let not_restorable = not_restorable.cloned().collect();
    let copies: BTreeSet<&BackupId> = after.backups.iter().map(|backup| &backup.id).collect();
    let files = before
        .other_files()
        .filter(|name| !after.has(name))
        .map(|name| layout.wal(&name));
    let backups = before
        .backups
        .iter()
        .filter(|backup| !copies.contains(&backup.id));
    let missing = files.chain(backups.map(|backup| layout.manifest(&backup.id)));
    Continuity {
        proofs,
        not_restorable,
        missing_segments: before.wal.ranges.missing_in(&after.wal.ranges),
        missing: missing.map(|key| key.to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::postgres::catalog::testing::{self, SEGMENT};
    use crate::postgres::types::{HistoryEntry, SegmentSize};

    /// Two timelines, the second begins in segment 5; a backup on each.
    fn snapshot(first: std::ops::Range<u64>, second: std::ops::Range<u64>) -> Snapshot {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        let mut wal = LoadedWal::new(size);
        for (timeline, segments) in [(1, first), (2, second)] {
            for number in segments {
                let name = SegmentName::from_number(TimelineId(timeline), number, size);
                wal.ranges.add(name, 10, DateTime::UNIX_EPOCH);
            }
        }
        wal.histories.push(TimelineId(2));
        let switch_lsn = Lsn(5 * SEGMENT + 100);
        let ancestors = vec![HistoryEntry {
            timeline: TimelineId(1),
            switch_lsn,
            reason: String::new(),
        }];
        let history = TimelineHistory {
            timeline: TimelineId(2),
            ancestors,
        };
        let late = BackupDescription {
            timeline: TimelineId(2),
            stop_timeline: TimelineId(2),
            start_lsn: Lsn(6 * SEGMENT),
            stop_lsn: Lsn(7 * SEGMENT + 1),
            ..testing::backup("20260102-000000Z")
        };
        let backups = vec![testing::backup("20260101-000000Z"), late];
        let histories = BTreeMap::from([(TimelineId(2), history)]);
        Snapshot {
            backups,
            unusable: Vec::new(),
            unfinished: Vec::new(),
            wal,
            histories,
        }
    }

    fn layout() -> Layout {
        Layout::new("main".parse().unwrap())
    }

    /// `backup's day/timeline: source's end>destination's end`, in segments.
    fn shown(continuity: &Continuity) -> Vec<String> {
        let end = |end: Option<Lsn>| end.map_or("-".into(), |end| (end.0 / SEGMENT).to_string());
        let line = |p: &RecoverabilityProof| {
            format!(
                "{}/{}: {}>{}",
                &p.backup.to_string()[7..8],
                p.timeline,
                end(p.source_end),
                end(p.destination_end)
            )
        };
        continuity.proofs.iter().map(line).collect()
    }

    #[test]
    fn a_copy_leads_as_far_as_its_source_along_every_timeline() {
        let source = snapshot(2..8, 5..9);
        let proof = prove(&source, &source, &layout());
        assert!(proof.is_whole());
        assert_eq!(shown(&proof), ["1/2: 9>9", "1/1: 8>8", "2/2: 9>9"]);
        // What arrived meanwhile does no harm.
        assert!(prove(&source, &snapshot(1..9, 5..12), &layout()).is_whole());
    }

    #[test]
    fn a_missing_segment_history_or_backup_is_no_proof() {
        let source = snapshot(2..8, 5..9);
        let cut = prove(&source, &snapshot(2..8, 5..7), &layout());
        assert_eq!(shown(&cut), ["1/2: 9>7", "1/1: 8>8", "2/2: 9>-"]);
        assert_eq!(
            (cut.missing_segments.len(), cut.missing_segments[0].segments),
            (1, 2)
        );
        let mut lost = source.clone();
        lost.histories.clear();
        lost.wal.histories.clear();
        let proof = prove(&source, &lost, &layout());
        assert!(!proof.is_whole());
        assert_eq!(proof.missing, ["main/wal/00000002.history.zst"]);
        let mut lost = source.clone();
        lost.backups.remove(0);
        let proof = prove(&source, &lost, &layout());
        assert_eq!(proof.missing, ["main/base/20260101-000000Z/manifest.zst"]);
        assert_eq!(shown(&proof), ["1/2: 9>-", "1/1: 8>-", "2/2: 9>9"]);
    }

    #[test]
    fn a_gap_of_the_source_is_no_fault_of_the_copy() {
        let mut source = snapshot(2..4, 5..9);
        source.wal.ranges.add(
            "000000010000000000000006".parse().unwrap(),
            1,
            DateTime::UNIX_EPOCH,
        );
        let proof = prove(&source, &source, &layout());
        assert!(proof.is_whole());
        assert_eq!(shown(&proof), ["1/2: 4>4", "1/1: 4>4", "2/2: 9>9"]);
    }

    #[test]
    fn a_backup_that_the_source_cannot_restore_is_named_and_nothing_is_proven_of_it() {
        let source = snapshot(3..8, 5..9);
        let proof = prove(&source, &source, &layout());
        assert_eq!(shown(&proof), ["1/2: ->-", "1/1: ->-", "2/2: 9>9"]);
        let verdicts: Vec<ProofVerdict> = proof.proofs.iter().map(|proof| proof.verdict).collect();
        assert_eq!(
            verdicts,
            [
                ProofVerdict::NotRestorable,
                ProofVerdict::NotRestorable,
                ProofVerdict::Proven
            ]
        );
        assert_eq!(proof.not_restorable, ["20260101-000000Z".parse().unwrap()]);
        assert!(proof.is_whole(), "it is no fault of the copy");
        // An earlier copy has what the source lost since.
        let kept = prove(&source, &snapshot(2..8, 5..9), &layout());
        assert!(
            kept.not_restorable.is_empty()
                && kept
                    .proofs
                    .iter()
                    .all(|proof| proof.verdict == ProofVerdict::Proven)
        );
        // No timeline's path carries a backup whose stop lies behind an unknown switch.
        let mut source = snapshot(2..8, 5..9);
        source.backups[0].stop_timeline = TimelineId(9);
        let proof = prove(&source, &source, &layout());
        assert_eq!(proof.not_restorable, ["20260101-000000Z".parse().unwrap()]);
    }

    #[test]
    fn one_backup_takes_its_own_wal_and_its_line_of_timelines_with_it() {
        let source = snapshot(2..8, 5..9);
        let names = |id: &str| {
            let only = source.only(&id.parse().unwrap()).unwrap();
            let segments: Vec<String> = only
                .segments()
                .map(|name| name.to_string()[15..].to_string())
                .collect();
            (segments, only.wal.histories)
        };
        assert_eq!(
            names("20260101-000000Z"),
            (vec!["000000002".to_string()], vec![])
        );
        let late = (
            vec!["000000006".to_string(), "000000007".to_string()],
            vec![TimelineId(2)],
        );
        assert_eq!(names("20260102-000000Z"), late);
        assert!(source.only(&"20260103-000000Z".parse().unwrap()).is_none());
    }
}
