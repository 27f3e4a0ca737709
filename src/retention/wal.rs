//! Which WAL stays: what the window of each timeline replays, and what kept base backups need by themselves.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::clock::Trust;
use super::item::{BackupWal, ItemId, LeasedWal};
use super::paths::{Paths, carries};
use super::plan::{WalDecision, WalReason, WalVerdict};
use super::series::Member;
use crate::postgres::catalog::{TimelinePath, WalRange, WalSpan};
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId};

/// Where the recovery window of a timeline begins.
pub(super) struct Begin<'a> {
    pub timeline: TimelineId,
    /// `None`: no base backup lies on its path.
    pub backup: Option<&'a Member<'a>>,
}

impl<'a> Paths<'a> {
    fn size(&self) -> SegmentSize {
        self.wal.ranges.segment_size()
    }

    /// Where windows begin at the latest: of the newest timeline, and of each that had WAL since `from`. The base backups
    /// are the good ones up to the reference.
    pub fn begins(&self, backups: &'a [Member<'a>], from: DateTime<Utc>) -> Vec<Begin<'a>> {
        let newest = self.known.keys().next_back();
        let is_recent = |timeline| {
            self.wal
                .ranges
                .of(timeline)
                .last()
                .is_some_and(|last| last.last_stored >= from)
        };
        let counting = self
            .known
            .iter()
            .filter(|(timeline, _)| Some(*timeline) == newest || is_recent(**timeline));
        let begin = |(timeline, path): (&TimelineId, &TimelinePath)| {
            let mut carried: Vec<_> = backups
                .iter()
                .filter(|backup| carries(path, backup.item.wal))
                .collect();
            carried.sort_by_key(|backup| backup.item.wal.map(|wal| wal.stop.lsn));
            let old = |backup: &&&Member<'_>| {
                backup.made.time <= from && backup.made.trust == Trust::Sure
            };
            let backup = carried.iter().rev().find(old).or(carried.first()).copied();
            Begin {
                timeline: *timeline,
                backup,
            }
        };
        counting.map(begin).collect()
    }

    /// The WAL of a window: from its begin on all along its path.
    pub fn of_window(&self, begin: &Begin<'_>) -> Vec<Needed> {
        match begin.backup.and_then(|backup| backup.item.wal) {
            Some(wal) => {
                let reason = WalReason::Window {
                    timeline: begin.timeline,
                };
                self.along(begin.timeline, self.number(wal.start.lsn), u64::MAX, reason)
            }
            None => vec![Needed {
                timeline: begin.timeline,
                from: 0,
                until: u64::MAX,
                reason: WalReason::NoBackup,
            }],
        }
    }

    /// The WAL that a base backup needs by itself.
    pub fn of_backup(&self, id: &ItemId, wal: BackupWal) -> Vec<Needed> {
        let until = self.number(Lsn(wal.stop.lsn.0.saturating_sub(1))) + 1;
        let reason = WalReason::Backup { item: id.clone() };
        self.along(wal.stop.timeline, self.number(wal.start.lsn), until, reason)
    }

    pub fn of_lease(&self, leased: &LeasedWal, id: &str, holder: &str) -> Vec<Needed> {
        let until = leased.until.map_or(u64::MAX, |until| {
            self.number(Lsn(until.0.saturating_sub(1))) + 1
        });
        let reason = WalReason::Lease {
            id: id.into(),
            holder: holder.into(),
        };
        self.along(leased.timeline, self.number(leased.from), until, reason)
    }

    /// All WAL of every timeline.
    pub fn all(&self, reason: WalReason) -> Vec<Needed> {
        let timelines: BTreeSet<TimelineId> =
            self.wal.ranges.iter().map(WalRange::timeline).collect();
        let all = |timeline| Needed {
            timeline,
            from: 0,
            until: u64::MAX,
            reason: reason.clone(),
        };
        timelines.into_iter().map(all).collect()
    }

    fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 / self.size().bytes()
    }

    /// What a recovery along the path to a timeline reads of segments `from..until`. Of a path that is not known, all
    /// stays anyway.
    fn along(&self, timeline: TimelineId, from: u64, until: u64, reason: WalReason) -> Vec<Needed> {
        let read = self
            .known
            .get(&timeline)
            .map(TimelinePath::segment_ranges)
            .unwrap_or_default();
        let needed = read.into_iter().map(|(timeline, first, end)| Needed {
            timeline,
            from: from.max(first),
            until: until.min(end),
            reason: reason.clone(),
        });
        needed.filter(|needed| needed.from < needed.until).collect()
    }

    /// Decides over all WAL there is.
    pub fn decide(&self, needed: &[Needed]) -> Vec<WalDecision> {
        let mut of: BTreeMap<TimelineId, Vec<&Needed>> = BTreeMap::new();
        for each in needed {
            of.entry(each.timeline).or_default().push(each);
        }
        let decide = |range: &WalRange| {
            self.decide_range(
                range,
                of.get(&range.timeline())
                    .map(Vec::as_slice)
                    .unwrap_or_default(),
            )
        };
        self.wal.ranges.iter().flat_map(decide).collect()
    }

    fn decide_range(&self, range: &WalRange, needed: &[&Needed]) -> Vec<WalDecision> {
        let size = self.size();
        let (first, end) = (range.first.number(size), range.last.number(size) + 1);
        let near: Vec<&Needed> = needed
            .iter()
            .filter(|each| each.from < end && first < each.until)
            .copied()
            .collect();
        let mut edges: Vec<u64> = near
            .iter()
            .flat_map(|each| [each.from.max(first), each.until.min(end)])
            .collect();
        edges.extend([first, end]);
        edges.sort_unstable();
        edges.dedup();
        let mut decided: Vec<(u64, u64, BTreeSet<WalReason>)> = Vec::new();
        for edge in edges.windows(2) {
            let covers = near
                .iter()
                .filter(|each| each.from <= edge[0] && edge[1] <= each.until);
            let reasons = shortened(covers.map(|each| each.reason.clone()).collect());
            match decided.last_mut() {
                Some((_, until, same)) if *same == reasons => *until = edge[1],
                _ => decided.push((edge[0], edge[1], reasons)),
            }
        }
        let decision = |(from, until, reasons)| decided_part(range, (from, until), reasons, size);
        decided.into_iter().map(decision).collect()
    }
}

/// Segments `from..until` of a range, and why they stay.
fn decided_part(
    range: &WalRange,
    (from, until): (u64, u64),
    reasons: BTreeSet<WalReason>,
    size: SegmentSize,
) -> WalDecision {
    let name = |number| SegmentName::from_number(range.timeline(), number, size);
    let share = u128::from(range.stored_bytes) * u128::from(until - from);
    WalDecision {
        span: WalSpan {
            first: name(from),
            last: name(until - 1),
        },
        segments: until - from,
        stored_bytes: (share / u128::from(range.segments)) as u64,
        verdict: match reasons.is_empty() {
            true => WalVerdict::Delete,
            false => WalVerdict::Keep(reasons.into_iter().collect()),
        },
    }
}

/// Segments `from..until` of a timeline that stay, and why.
pub(super) struct Needed {
    timeline: TimelineId,
    from: u64,
    until: u64,
    reason: WalReason,
}

/// What lies in a window belongs to it: base backups there are not told one by one.
fn shortened(mut reasons: BTreeSet<WalReason>) -> BTreeSet<WalReason> {
    let whole = |reason: &WalReason| !matches!(reason, WalReason::Backup { .. });
    if reasons.iter().any(whole) {
        reasons.retain(whole);
    }
    reasons
}
