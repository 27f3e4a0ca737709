//! What can be restored at all: ranges of each timeline, and what lies between them.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{DateTime, Utc};

use super::continuity::ReplayContinuity;
use super::facts::{Facts, PlanInput};
use super::follow::{has_path, paths};
use super::other_timelines::{OtherTimeline, WindowEdge, other_timelines};
use super::path::TimelinePath;
use super::probe::{ProbeQuery, ProbeResult};
use super::stop_at::Transaction;
use super::stop_point::Search;
use super::unreachable::UnreachableReason;
use super::{BackupDescription, WalIndex};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, TimelineId};

/// A range of a timeline of which every moment can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub timeline: TimelineId,
    pub from: WindowEdge,
    /// Where the archived WAL ends or breaks, or a gap begins.
    pub to: WindowEdge,
    /// Where the window ends with the archive: until when it is proven that nothing followed.
    pub idle_until: Option<DateTime<Utc>>,
    /// The oldest backup that reaches into it.
    pub backup: BackupId,
}

impl Window {
    /// Until when its moments can be restored: up to its last commit, or as long as it is proven that there was no later
    /// one; `None` if that is not known.
    pub fn until(&self) -> Option<DateTime<Utc>> {
        self.idle_until.max(self.to.time).max(self.from.time)
    }
}

/// A range between two windows of a timeline, of which no moment can be restored although nobody let it go.
#[derive(Debug, Clone, PartialEq)]
pub struct Unrestorable {
    pub timeline: TimelineId,
    pub from: WindowEdge,
    pub to: WindowEdge,
    /// How long it lasted, in seconds; absent when it is not known.
    pub seconds: Option<f64>,
}

/// What can be restored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Windows {
    /// By timeline and place.
    pub windows: Vec<Window>,
    pub gaps: Vec<Unrestorable>,
    /// Timelines of which it is not known, by number.
    pub unknown: Vec<UnknownTimeline>,
    /// Those that go on beside the newest timeline, which is followed where none is named.
    pub other_timelines: Vec<OtherTimeline>,
}

/// A timeline that has WAL, backups or a history file, and nobody can tell where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTimeline {
    pub timeline: TimelineId,
    pub why: String,
}

impl Windows {
    /// The newest timeline of which it is known what can be restored, and that no newer one is there.
    pub fn newest(&self) -> Option<&Window> {
        let newest = self.windows.last();
        newest.filter(|newest| {
            self.unknown
                .iter()
                .all(|unknown| unknown.timeline < newest.timeline)
        })
    }
}

/// Finds what can be restored. Of a timeline that another one was left for, what it has itself.
pub fn windows(facts: &Facts, index: &dyn WalIndex) -> Windows {
    let mut found = Windows {
        unknown: unknown(facts),
        ..Windows::default()
    };
    let paths = paths(facts);
    if let Some(newest) = paths.last() {
        found.other_timelines = other_timelines(
            &PlanInput {
                facts,
                index,
                probe: &unread,
            },
            newest,
        );
    }
    for path in &paths {
        let on_path = of_path(facts, index, path);
        for pair in on_path.windows(2) {
            let (from, to) = (pair[0].to, pair[1].from);
            let next = path.segment(from.lsn.0 / facts.ranges.segment_size().bytes());
            if facts.ranges.expired().contains(next) && !facts.ranges.contains(next) {
                continue;
            }
            let seconds = from
                .time
                .zip(to.time)
                .map(|(from, to)| (to - from).num_milliseconds() as f64 / 1000.0);
            found.gaps.push(Unrestorable {
                timeline: path.timeline(),
                from,
                to,
                seconds,
            });
        }
        found.windows.extend(on_path);
    }
    found
}

fn unknown(facts: &Facts) -> Vec<UnknownTimeline> {
    let of_wal = facts.ranges.iter().map(|range| range.timeline());
    let of_backups = facts
        .backups
        .iter()
        .flat_map(|backup| [backup.timeline, backup.stop_timeline]);
    let all: BTreeSet<TimelineId> = of_wal
        .chain(of_backups)
        .chain(facts.damaged_histories.keys().copied())
        .collect();
    let without = all
        .into_iter()
        .filter(|timeline| !has_path(facts, *timeline));
    let told = |timeline| {
        let reason = match facts.damaged_histories.get(&timeline) {
            Some(why) => UnreachableReason::HistoryDamaged {
                timeline,
                why: why.why.clone(),
                newer_walden: why.newer,
            },
            None => UnreachableReason::HistoryMissing { timeline },
        };
        UnknownTimeline {
            timeline,
            why: reason.to_string(),
        }
    };
    without.map(told).collect()
}

/// Windows come from facts and index alone.
fn unread(query: &ProbeQuery) -> anyhow::Result<ProbeResult> {
    anyhow::bail!("segment {} was not to be probed", query.segment)
}

/// The time of the last commit before a segment: not known, none, or its time.
fn commit_before(search: &Search<'_>, number: u64) -> Option<Option<DateTime<Utc>>> {
    let commit = search.commit_before(number).ok();
    commit.map(|commit| commit.map(|commit| Transaction::from(commit).time))
}

/// The windows of a path, from backup to backup.
struct OnPath<'a> {
    known: PlanInput<'a>,
    path: &'a TimelinePath,
    windows: Vec<Window>,
    /// How far the windows coverage.
    reached: Lsn,
    /// Where replay is known to break off: also of all backups that begin before that.
    broken: Range<u64>,
}

fn of_path(facts: &Facts, index: &dyn WalIndex, path: &TimelinePath) -> Vec<Window> {
    let known = PlanInput {
        facts,
        index,
        probe: &unread,
    };
    let mut on_path = OnPath {
        known,
        path,
        windows: Vec::new(),
        reached: Lsn(0),
        broken: 0..0,
    };
    let mut backups: Vec<&BackupDescription> = facts.backups.iter().collect();
    backups.sort_by_key(|backup| backup.stop_lsn);
    for backup in backups {
        let window = on_path.opened_by(backup);
        on_path.windows.extend(window);
    }
    on_path.windows
}

impl OnPath<'_> {
    /// The window that a backup opens: the one that ends first does, for there may be thousands in it.
    fn opened_by(&mut self, backup: &BackupDescription) -> Option<Window> {
        let (path, ranges) = (self.path, &self.known.facts.ranges);
        let number = |lsn: Lsn| lsn.0 / ranges.segment_size().bytes();
        let (begin, start) = (path.begin(), number(backup.start_lsn));
        let is_within = backup.stop_lsn <= self.reached || self.broken.contains(&start);
        if is_within || !path.carries(backup) || !backup.is_sound() {
            return None;
        }
        let (stop, archived) = path.moments(ranges, backup)?;
        let coverage = path.coverage(ranges, start, u64::MAX);
        let search = Search {
            known: &self.known,
            path,
            coverage: &coverage,
            from: backup.start_lsn,
        };
        let torn = torn(&search);
        self.broken = torn.map_or(0..0, |(_, until)| {
            start..until.saturating_sub(1).max(start + 1)
        });
        let (end, until) = torn.unwrap_or((archived, number(archived)));
        self.reached = self.reached.max(end);
        if end < stop || end <= begin {
            return None;
        }
        let from = match stop >= begin {
            true => WindowEdge {
                lsn: stop,
                time: Some(backup.stopped_at),
            },
            false => WindowEdge {
                lsn: begin,
                time: commit_before(&search, number(begin)).flatten(),
            },
        };
        // Without a commit since the backup its end is the last moment.
        let to = WindowEdge {
            lsn: end,
            time: commit_before(&search, until).and_then(|last| from.time.max(last)),
        };
        let archive_ends = until == number(archived) && ends_at(&search, archived);
        let idle_until = if archive_ends {
            search.marked_until(end).ok().flatten()
        } else {
            None
        };
        Some(Window {
            timeline: path.timeline(),
            from,
            to,
            idle_until,
            backup: backup.id.clone(),
        })
    }
}

/// Whether all archived WAL of the timeline ends there.
fn ends_at(search: &Search<'_>, end: Lsn) -> bool {
    let ranges = &search.known.facts.ranges;
    let last = ranges.of(search.path.timeline()).last();
    search.coverage.is_end() && last.is_some_and(|last| ranges.end(last) == end)
}

/// Where replay is known to end before the WAL does, and the number of the first segment that it does not get to.
fn torn(search: &Search<'_>) -> Option<(Lsn, u64)> {
    let size = search.known.facts.ranges.segment_size();
    for (at, (timeline, first, until)) in search
        .segment_ranges(search.from.0 / size.bytes())
        .enumerate()
    {
        if at > 0
            && let Some((_, lsn)) = search.torn_fork(timeline, first)
        {
            return Some((lsn, first));
        }
        if let Ok(ReplayContinuity {
            broken: Some((segment, lsn)),
            ..
        }) = search.wholeness(timeline, first, until)
        {
            return Some((lsn, segment.number(size) + 1));
        }
    }
    None
}

#[cfg(test)]
#[path = "windows_tests.rs"]
mod tests;
