//! What can be restored at all: ranges of each timeline, and what lies between them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::continuity::Continuity;
use super::other_timelines::{OtherTimeline, other_timelines};
use super::path::TimelinePath;
use super::plan::{Facts, PlanInput};
use super::probe::{ProbeQuery, ProbeResult};
use super::stop_at::Transaction;
use super::stop_point::Search;
use super::unreachable::UnreachableReason;
use super::{BackupDescription, Gap, WalIndex};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, TimelineId};

/// Where a window begins or ends, and when that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WindowEdge {
    pub lsn: Lsn,
    /// Of a backup's end, or of the last commit in the segments before, by the server's clock; absent when not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<DateTime<Utc>>,
}

/// A range of a timeline of which every moment can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    pub timeline: TimelineId,
    pub from: WindowEdge,
    /// Where the archived WAL ends or breaks, or a gap begins.
    pub to: WindowEdge,
    /// Where the window ends with the archive: until when it is proven that nothing followed.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// A range between two windows of a timeline, of which no moment can be restored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unrestorable {
    pub timeline: TimelineId,
    pub from: WindowEdge,
    pub to: WindowEdge,
    /// How long it lasted, in seconds; absent when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What can be restored.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnknownTimeline {
    pub timeline: TimelineId,
    pub why: String,
}

impl Windows {
    /// The newest timeline of which it is known what can be restored, and that no newer one is there.
    pub fn newest(&self) -> Option<&Window> {
        let newest = self.windows.last();
        newest.filter(|newest| self.unknown.iter().all(|unknown| unknown.timeline < newest.timeline))
    }
}

/// Finds what can be restored. Of a timeline that another one was left for, what it has itself.
pub fn windows(facts: &Facts, index: &dyn WalIndex) -> Windows {
    let mut found = Windows { unknown: unknown(facts), ..Windows::default() };
    let paths = paths(facts);
    if let Some(newest) = paths.last() {
        found.other_timelines = other_timelines(&PlanInput { facts, index, probe: &unread }, newest);
    }
    for path in &paths {
        let on_path = of_path(facts, index, path);
        for pair in on_path.windows(2) {
            let (from, to) = (pair[0].to, pair[1].from);
            let seconds = from.time.zip(to.time).map(|(from, to)| (to - from).num_milliseconds() as f64 / 1000.0);
            found.gaps.push(Unrestorable { timeline: path.timeline(), from, to, seconds });
        }
        found.windows.extend(on_path);
    }
    found
}

/// All ranges of WAL that are missing, whether or not a backup would reach them.
pub fn missing_wal(facts: &Facts) -> Vec<Gap> {
    TimelinePath::all_gaps(&paths(facts), &facts.ranges)
}

/// A complete backup that nothing is restored with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedBackup {
    pub cause: Unused,
    pub why: String,
}

/// What keeps it from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// The server left out a part of the cluster, as it will again.
    LeftOut,
    /// The cluster itself has them, as far as is known.
    DamagedPages,
    /// WAL or a history file that it needs is missing.
    NoWal,
}

/// The newest backup that something is restored with, and those that are newer.
#[derive(Debug, Default)]
pub struct Usable<'a> {
    pub newest: Option<&'a BackupDescription>,
    pub newer: Vec<UnusedBackup>,
}

/// Finds the newest backup that can be used. Those with a manifest that cannot be read are told by the facts themselves.
pub fn newest_usable(facts: &Facts) -> Usable<'_> {
    let (paths, mut usable) = (paths(facts), Usable::default());
    for backup in facts.backups.iter().rev() {
        match unused(facts, &paths, backup) {
            Some(unused) => usable.newer.push(unused),
            None => return Usable { newest: Some(backup), ..usable },
        }
    }
    usable
}

/// Backups that nothing is restored with unless they are repaired or named, and why.
pub fn unused_backups(facts: &Facts) -> Vec<String> {
    let paths = paths(facts);
    let damaged = facts.damaged_backups.iter().map(|(id, why)| format!("backup {id} cannot be used: {why}"));
    let unused = facts.backups.iter().filter_map(|backup| unused(facts, &paths, backup));
    damaged.chain(unused.map(|unused| unused.why)).collect()
}

fn unused(facts: &Facts, paths: &[TimelinePath], backup: &BackupDescription) -> Option<UnusedBackup> {
    let (id, timeline) = (&backup.id, backup.stop_timeline);
    if let Some(part) = backup.left_out.first() {
        let why = format!("backup {id} cannot be used: it lacks \"{part}\"");
        return Some(UnusedBackup { cause: Unused::LeftOut, why });
    }
    if !backup.checksum_failures.is_empty() {
        let why = format!("backup {id} has damaged pages: it is restored only when it is named");
        return Some(UnusedBackup { cause: Unused::DamagedPages, why });
    }
    let carriers = || paths.iter().filter(|path| path.carries(backup));
    if carriers().any(|path| path.moments(&facts.ranges, backup).is_some()) {
        return None;
    }
    let why = match carriers().next() {
        None => format!("backup {id} cannot be used: where its timeline {timeline} comes from is not known"),
        Some(_) => format!("backup {id} cannot be used: WAL between its start and its end is missing"),
    };
    Some(UnusedBackup { cause: Unused::NoWal, why })
}

fn unknown(facts: &Facts) -> Vec<UnknownTimeline> {
    let of_wal = facts.ranges.iter().map(|range| range.timeline());
    let of_backups = facts.backups.iter().flat_map(|backup| [backup.timeline, backup.stop_timeline]);
    let all: BTreeSet<TimelineId> = of_wal.chain(of_backups).chain(facts.damaged_histories.keys().copied()).collect();
    let without = all.into_iter().filter(|timeline| !has_path(facts, *timeline));
    let told = |timeline| {
        let reason = match facts.damaged_histories.get(&timeline) {
            Some(why) => UnreachableReason::HistoryDamaged { timeline, why: why.why.clone(), newer_walden: why.newer },
            None => UnreachableReason::HistoryMissing { timeline },
        };
        UnknownTimeline { timeline, why: reason.to_string() }
    };
    without.map(told).collect()
}

/// The first timeline has no history file.
fn has_path(facts: &Facts, timeline: TimelineId) -> bool {
    timeline == TimelineId(1) || facts.histories.contains_key(&timeline)
}

/// The paths of timelines by number. Where one without its history file comes from is not known: nothing leads there
/// for sure.
fn paths(facts: &Facts) -> Vec<TimelinePath> {
    let mut paths = TimelinePath::all(facts.histories.values().cloned(), &facts.backups, &facts.ranges);
    paths.retain(|path| has_path(facts, path.timeline()));
    paths.sort_by_key(TimelinePath::timeline);
    paths
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

fn of_path(facts: &Facts, index: &dyn WalIndex, path: &TimelinePath) -> Vec<Window> {
    let known = PlanInput { facts, index, probe: &unread };
    let (begin, size) = (path.begin(), facts.ranges.segment_size());
    let number = |lsn: Lsn| lsn.0 / size.bytes();
    let mut backups: Vec<&BackupDescription> = facts.backups.iter().collect();
    backups.sort_by_key(|backup| backup.stop_lsn);
    // Where replay is known to break off: also of all backups that begin before that.
    let (mut windows, mut reached, mut broken) = (Vec::new(), Lsn(0), 0..0);
    for backup in backups {
        // The one that ends first opens the window: there may be thousands in it.
        let start = number(backup.start_lsn);
        if backup.stop_lsn <= reached || broken.contains(&start) || !path.carries(backup) || !backup.is_sound() {
            continue;
        }
        let Some((stop, archived)) = path.moments(&facts.ranges, backup) else { continue };
        let coverage = path.coverage(&facts.ranges, start, u64::MAX);
        let search = Search { known: &known, path, coverage: &coverage, from: backup.start_lsn };
        let torn = torn(&search);
        broken = torn.map_or(0..0, |(_, until)| start..until.saturating_sub(1).max(start + 1));
        let (end, until) = torn.unwrap_or((archived, number(archived)));
        reached = reached.max(end);
        if end < stop || end <= begin {
            continue;
        }
        let from = match stop >= begin {
            true => WindowEdge { lsn: stop, time: Some(backup.stopped_at) },
            false => WindowEdge { lsn: begin, time: commit_before(&search, number(begin)).flatten() },
        };
        // Without a commit since the backup its end is the last moment.
        let to = WindowEdge { lsn: end, time: commit_before(&search, until).and_then(|last| from.time.max(last)) };
        let last = facts.ranges.of(path.timeline()).last().map(|last| facts.ranges.end(last));
        let archive_ends = last == Some(archived) && until == number(archived);
        let idle_until = archive_ends.then(|| search.marked_until(end).ok().flatten()).flatten();
        windows.push(Window { timeline: path.timeline(), from, to, idle_until, backup: backup.id.clone() });
    }
    windows
}

/// Where replay is known to end before the WAL does, and the number of the first segment that it does not get to.
fn torn(search: &Search<'_>) -> Option<(Lsn, u64)> {
    let size = search.known.facts.ranges.segment_size();
    for (at, (timeline, first, until)) in search.segment_ranges(search.from.0 / size.bytes()).enumerate() {
        if at > 0
            && let Some((_, lsn)) = search.torn_fork(timeline, first)
        {
            return Some((lsn, first));
        }
        if let Ok(Continuity { broken: Some((segment, lsn)), .. }) = search.wholeness(timeline, first, until) {
            return Some((lsn, segment.number(size) + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::{KnownPrefix, NoIndex, Point, Unknown, Unusable, WalRanges, testing};
    use super::*;
    use crate::postgres::types::TimelineHistory;
    use crate::postgres::wal::{Commit, TablespaceMade, Timestamp, Xid};

    /// A backup in segment 2 of timeline 1, and these segments.
    fn facts(segments: &[&str]) -> Facts {
        let mut ranges = WalRanges::new(testing::cluster_description().segment_size);
        for segment in segments {
            ranges.add(segment.parse().unwrap(), 10, DateTime::UNIX_EPOCH);
        }
        Facts {
            cluster: "main".parse().unwrap(),
            idle: Default::default(),
            backups: vec![testing::backup("20260101-000000Z")].into(),
            damaged_backups: BTreeMap::new(),
            unfinished_backups: Vec::new(),
            ranges,
            histories: BTreeMap::new(),
            damaged_histories: BTreeMap::new(),
        }
    }

    #[test]
    fn wal_that_is_missing_makes_a_stretch_only_between_two_windows() {
        let mut facts = facts(&["000000010000000000000002", "000000010000000000000003", "000000010000000000000005"]);
        let one = windows(&facts, &NoIndex);
        let shown = |told: &Windows| -> Vec<(String, String)> {
            told.windows.iter().map(|window| (window.from.lsn.to_string(), window.to.lsn.to_string())).collect()
        };
        assert_eq!(shown(&one), [("0/2000100".to_string(), "0/4000000".to_string())]);
        assert_eq!((one.gaps.len(), missing_wal(&facts).len()), (0, 1));
        assert_eq!((one.windows[0].from.time.is_some(), one.windows[0].to.time), (true, None), "not known, not wrong");
        let mut later = facts.backups[0].clone();
        (later.start_lsn, later.stop_lsn) = ("0/5000028".parse().unwrap(), "0/5000100".parse().unwrap());
        Arc::make_mut(&mut facts.backups).push(later.clone());
        let two = windows(&facts, &NoIndex);
        assert_eq!(shown(&two)[1], ("0/5000100".to_string(), "0/6000000".to_string()));
        assert_eq!((two.gaps.len(), two.gaps[0].seconds), (1, None));
        later.checksum_failures.push("base/1/2 block 3".into());
        Arc::make_mut(&mut facts.backups)[1] = later;
        assert_eq!(windows(&facts, &NoIndex), one, "a damaged one is used only when it is named");
    }

    #[test]
    fn a_timeline_without_its_history_has_no_window() {
        let mut facts = facts(&["000000020000000000000002"]);
        let backup = &mut Arc::make_mut(&mut facts.backups)[0];
        (backup.timeline, backup.stop_timeline) = (TimelineId(2), TimelineId(2));
        let told = windows(&facts, &NoIndex);
        assert!(told.windows.is_empty() && told.newest().is_none(), "{told:?}");
        let [unknown] = &told.unknown[..] else { panic!("{told:?}") };
        assert_eq!(unknown.timeline, TimelineId(2));
        assert!(unknown.why.contains("is not archived"), "{unknown:?}");
    }

    #[test]
    fn what_a_timeline_with_a_damaged_history_has_is_not_known_and_not_nothing() {
        let mut facts = facts(&["000000010000000000000002", "000000020000000000000003"]);
        let damaged = |why: &str| Unusable { why: why.into(), whole: false, newer: false };
        facts.damaged_histories.insert(TimelineId(2), damaged("it is empty"));
        facts.damaged_histories.insert(TimelineId(3), damaged("it is empty, too"));
        let told = windows(&facts, &NoIndex);
        assert_eq!((told.windows.len(), told.newest()), (1, None), "the newest timeline's last moment is not known");
        let unknown: Vec<_> =
            told.unknown.iter().map(|one| (one.timeline.0, one.why.ends_with("it is empty"))).collect();
        assert_eq!(unknown, [(2, true), (3, false)]);
        let history = |timeline| TimelineHistory::parse(timeline, "1\t0/2800000\tpromoted\n").unwrap();
        facts.damaged_histories.clear();
        facts.histories = [2, 3].map(|timeline| (TimelineId(timeline), history(TimelineId(timeline)))).into();
        let known = windows(&facts, &NoIndex);
        assert_eq!((known.unknown.len(), known.newest().is_some()), (0, true));
    }

    #[test]
    fn a_timeline_that_goes_on_beside_the_newest_is_told() {
        let left = |file: &str, segments: &[&str]| {
            let mut facts = facts(segments);
            let history = TimelineHistory::parse(TimelineId(2), file).unwrap();
            facts.histories.insert(TimelineId(2), history);
            let others = windows(&facts, &NoIndex).other_timelines;
            others.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let segments = ["000000010000000000000002", "000000010000000000000003", "000000020000000000000003"];
        let told = "timeline 1 goes on beside it from 0/3800000 to 0/4000000: ask for it with --timeline 1";
        assert_eq!(left("1\t0/3800000\tpromoted\n", &segments), [told]);
        assert_eq!(left("1\t0/4000000\tpromoted\n", &segments), [""; 0], "it ended where it was left");
        assert_eq!(left("1\t0/3800000\tpromoted\n", &segments[2..]), [""; 0]);
        assert_eq!(left("1\t0/3800000\tpromoted\n", &segments[..1]), [""; 0], "its end was not archived");
    }

    /// An index of WAL that breaks off in segment 3, and how often it was asked.
    struct Broken(Cell<usize>);

    impl WalIndex for Broken {
        fn first_later(&self, _: TimelineId, from: u64, _: u64, _: Timestamp, _: bool) -> Result<Option<u64>, Unknown> {
            self.0.set(self.0.get() + 1);
            let (segment, lsn) = ("000000010000000000000003".parse().unwrap(), Lsn(0x300_0200));
            if from <= 3 { Err(Unknown::Broken { segment, lsn }) } else { Ok(None) }
        }

        fn ending(&self, xid: Xid, timeline: TimelineId, from: u64, until: u64) -> Result<KnownPrefix<u64>, Unknown> {
            NoIndex.ending(xid, timeline, from, until)
        }

        fn restore_points(
            &self,
            name: &str,
            timeline: TimelineId,
            from: u64,
            to: u64,
        ) -> Result<KnownPrefix<Point>, Unknown> {
            NoIndex.restore_points(name, timeline, from, to)
        }

        fn first_commit(&self, timeline: TimelineId, from: u64, until: u64) -> Result<Option<Commit>, Unknown> {
            NoIndex.first_commit(timeline, from, until)
        }

        fn last_commit(&self, timeline: TimelineId, from: u64, until: u64) -> Result<Option<Commit>, Unknown> {
            NoIndex.last_commit(timeline, from, until)
        }

        fn tablespaces(
            &self,
            timeline: TimelineId,
            from: u64,
            until: u64,
        ) -> Result<KnownPrefix<TablespaceMade>, Unknown> {
            NoIndex.tablespaces(timeline, from, until)
        }

        fn check_boundary(&self, timeline: TimelineId, number: u64) -> Result<(), Unknown> {
            NoIndex.check_boundary(timeline, number)
        }
    }

    #[test]
    fn the_index_is_asked_as_often_however_many_backups_there_are() {
        let mut facts = facts(&[]);
        for number in 2..=6 {
            facts.ranges.add(format!("0000000100000000000000{number:02}").parse().unwrap(), 10, DateTime::UNIX_EPOCH);
        }
        let one = facts.backups[0].clone();
        // In the first window, over the place where replay breaks off, and in the window behind it.
        let backup = |start: u64, stop: u64| BackupDescription {
            start_lsn: Lsn((start << 24) + 0x28),
            stop_lsn: Lsn((stop << 24) + 0x100),
            ..one.clone()
        };
        let asked = [1, 300].map(|count| {
            let each = [(2, 2), (2, 4), (5, 5)].into_iter().flat_map(|(from, to)| vec![backup(from, to); count]);
            facts.backups = Arc::new(each.collect());
            let index = Broken(Cell::default());
            let ends = windows(&facts, &index).windows.into_iter().map(|window| window.to.lsn.0).collect::<Vec<_>>();
            assert_eq!(ends, [0x300_0200, 0x700_0000]);
            index.0.get()
        });
        assert_eq!(asked[0], asked[1]);
    }

    #[test]
    fn backups_that_are_not_used_tell_why() {
        let mut facts = facts(&[]);
        Arc::make_mut(&mut facts.backups)[0].checksum_failures.push("base/1/2 block 3".into());
        facts.damaged_backups.insert("20260102-000000Z".parse().unwrap(), "it is cut off".into());
        let told = unused_backups(&facts);
        assert!(
            told[0].ends_with("cannot be used: it is cut off") && told[1].contains("only when it is named"),
            "{told:?}"
        );
    }
}
