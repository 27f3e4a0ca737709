//! The plan against a model that tries everything, and its answers to the situations that people meet.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::testing::{SEGMENT, backup};
use super::*;
use crate::postgres::layout::BackupId;
use crate::postgres::types::{HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId};

fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT as u32).unwrap()
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(TimelineId(timeline), number, size())
}

/// Second `n` of the tests' clock.
fn second(n: u64) -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(n as i64)
}

/// What a generated repository holds, as plain sets.
#[derive(Debug, Clone)]
struct World {
    /// For each timeline from 2 on: parent and switch LSN, if its history file is there.
    forks: Vec<(u32, u64, bool)>,
    segments: BTreeMap<(u32, u64), u64>,
    backups: Vec<BackupDescription>,
}

impl World {
    fn history(&self, timeline: u32) -> TimelineHistory {
        if timeline == 1 {
            return TimelineHistory::root(TimelineId(1));
        }
        let (parent, switch, _) = self.forks[timeline as usize - 2];
        let mut ancestors = self.history(parent).ancestors;
        ancestors.push(HistoryEntry { timeline: TimelineId(parent), switch_lsn: Lsn(switch), reason: String::new() });
        TimelineHistory { timeline: TimelineId(timeline), ancestors }
    }

    fn facts(&self) -> Facts {
        let mut ranges = WalRanges::new(size());
        for ((timeline, number), stored) in &self.segments {
            ranges.add(name(*timeline, *number), 1000, second(*stored));
        }
        let known = self.forks.iter().enumerate().filter(|(_, fork)| fork.2).map(|(at, _)| at as u32 + 2);
        Facts {
            cluster: "main".parse().unwrap(),
            backups: self.backups.clone(),
            damaged_backups: BTreeMap::new(),
            unfinished_backups: Vec::new(),
            ranges,
            histories: known.map(|timeline| (TimelineId(timeline), self.history(timeline))).collect(),
            damaged_histories: BTreeMap::new(),
        }
    }

    /// The model: every question is answered by trying all segments one by one.
    fn expected(&self, request: &Request) -> Option<(BackupId, Vec<SegmentName>)> {
        let timeline = self.timeline(request)?;
        let history = self.history(timeline);
        let line: Vec<(u32, u64)> =
            history.path().map(|each| (each.0, history.begin_of(each).unwrap().0 / SEGMENT)).collect();
        let read = |number: u64| line.iter().rev().find(|(_, first)| *first <= number).unwrap().0;
        let kept = |number: u64| self.segments.contains_key(&(read(number), number));
        let first_missing = |from: u64| (from..).find(|number| !kept(*number)).unwrap();
        let numbers = |b: &BackupDescription| (b.start_lsn.0 / SEGMENT, (b.stop_lsn.0 - 1) / SEGMENT);
        let on_line = |b: &BackupDescription| {
            let ends = history.end_of(b.timeline).map(|end| end.unwrap_or(Lsn(u64::MAX)));
            history.begin_of(b.timeline).is_some_and(|begin| begin <= b.start_lsn)
                && ends.is_some_and(|e| b.stop_lsn <= e)
        };
        let usable = |b: &&BackupDescription| {
            let (start, stop) = numbers(b);
            on_line(b) && (start..=stop).all(kept) && (b.checksum_failures.is_empty() || request.backup.is_some())
        };
        let in_time = |b: &BackupDescription| match &request.target {
            Target::Time(time) => b.stopped_at < *time || b.stopped_at == *time && request.inclusive,
            Target::Lsn(lsn) => b.stop_lsn <= *lsn,
            _ => true,
        };
        let mut fitting: Vec<&BackupDescription> = self.backups.iter().filter(usable).filter(|b| in_time(b)).collect();
        fitting.retain(|b| request.backup.as_ref().is_none_or(|id| *id == b.id));
        fitting.sort_by_key(|b| (b.stop_lsn, b.stopped_at));
        let newest = *fitting.last()?;
        let chosen = match request.target {
            Target::Xid(_) | Target::Name(_) => {
                let reach = |b: &BackupDescription| first_missing(numbers(b).0);
                fitting.iter().copied().find(|b| reach(b) == reach(newest))?
            }
            _ => newest,
        };
        let (start, stop) = numbers(chosen);
        let missing = first_missing(start);
        let all = (start..missing).map(|number| name(read(number), number)).collect::<Vec<_>>();
        let before = |end: u64| all.iter().copied().filter(|name| name.number(size()) <= end).collect::<Vec<_>>();
        let segments = match &request.target {
            Target::Immediate => before(stop),
            Target::Xid(_) | Target::Name(_) => all,
            Target::Latest if (missing..60).any(kept) => return None,
            Target::Latest => all,
            Target::Lsn(lsn) if lsn.0 / SEGMENT < missing => before(lsn.0 / SEGMENT),
            Target::Lsn(lsn) if lsn.0 == missing * SEGMENT && !request.inclusive => all,
            Target::Lsn(_) => return None,
            Target::Time(time) => {
                // The end of the run that the last segment belongs to.
                let timeline = read(missing - 1);
                let last = (missing - 1..).take_while(|n| self.segments.contains_key(&(timeline, *n))).last()?;
                let stored = second(self.segments[&(timeline, last)]);
                if *time > stored + TimeDelta::seconds(2) {
                    return None;
                }
                all
            }
        };
        Some((chosen.id.clone(), segments))
    }

    /// The timeline that a request means; `None` when where it comes from is not known.
    fn timeline(&self, request: &Request) -> Option<u32> {
        let has_history = |timeline: u32| timeline == 1 || self.forks[timeline as usize - 2].2;
        let number = match request.timeline {
            TimelineChoice::Number(number) => number.0,
            TimelineChoice::Latest => {
                let histories = (2..self.forks.len() as u32 + 2).filter(|timeline| has_history(*timeline));
                let of_wal = self.segments.keys().map(|(timeline, _)| *timeline);
                let of_backups = self.backups.iter().map(|b| b.timeline.0);
                histories.chain(of_wal).chain(of_backups).max().unwrap_or(1)
            }
            TimelineChoice::Current => unreachable!("the model is not asked for it"),
        };
        (number <= self.forks.len() as u32 + 1 && has_history(number)).then_some(number)
    }
}

/// A place in WAL: often on a boundary or near one.
fn place() -> impl Strategy<Value = u64> {
    (2u64..14, prop_oneof![Just(0u64), Just(0x28), Just(SEGMENT / 2), Just(SEGMENT - 8)])
        .prop_map(|(n, o)| n * SEGMENT + o)
}

fn world() -> impl Strategy<Value = World> {
    let forks = prop::collection::vec((1u32..4, place(), prop::bool::weighted(0.9)), 0..3);
    let holes = prop::collection::vec((1u32..4, 1u64..16), 0..6);
    let spans = prop::collection::vec((1u64..8, 6u64..16), 3);
    let backups =
        prop::collection::vec((1u32..4, place(), 1u64..3 * SEGMENT, 0u64..16, prop::bool::weighted(0.1)), 0..5);
    (forks, holes, spans, backups).prop_map(|(forks, holes, spans, backups)| {
        let mut world = World { forks: Vec::new(), segments: BTreeMap::new(), backups: Vec::new() };
        for (parent, switch, known) in forks {
            let parent = parent.min(world.forks.len() as u32 + 1);
            let begin = world.history(parent).ancestors.last().map_or(0, |last| last.switch_lsn.0);
            world.forks.push((parent, switch.max(begin), known));
        }
        let timelines = world.forks.len() as u32 + 1;
        for (timeline, (first, last)) in (1..=timelines).zip(&spans) {
            world.segments.extend((*first..=*last).map(|number| ((timeline, number), 10 * number)));
        }
        for hole in holes {
            world.segments.remove(&hole);
        }
        for (at, (timeline, start, stop, late, broken)) in backups.into_iter().enumerate() {
            let mut made = backup(&format!("202601{:02}-000000Z", at + 1));
            made.timeline = TimelineId(timeline.min(timelines));
            made.stop_timeline = made.timeline;
            (made.start_lsn, made.stop_lsn) = (Lsn(start.min(stop)), Lsn(stop.max(start) + u64::from(start == stop)));
            made.stopped_at = second(10 * made.stop_lsn.0 / SEGMENT + late);
            made.checksum_failures = broken.then(|| "a page".to_string()).into_iter().collect();
            world.backups.push(made);
        }
        world
    })
}

fn request() -> impl Strategy<Value = Request> {
    let target = prop_oneof![
        (0u64..200).prop_map(|n| Target::Time(second(n))),
        place().prop_map(|lsn| Target::Lsn(Lsn(lsn))),
        Just(Target::Xid(745)),
        Just(Target::Name("x".into())),
        Just(Target::Immediate),
        Just(Target::Latest),
    ];
    let timeline = prop_oneof![
        Just(TimelineChoice::Latest),
        (1u32..5).prop_map(|number| TimelineChoice::Number(TimelineId(number)))
    ];
    let backup = prop::option::weighted(0.2, (1u32..6).prop_map(|n| format!("202601{n:02}-000000Z").parse().unwrap()));
    (target, any::<bool>(), timeline, backup).prop_map(|(target, inclusive, timeline, backup)| Request {
        target,
        inclusive,
        timeline,
        backup,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_plan_is_made_exactly_when_trying_everything_finds_one(world in world(), request in request()) {
        let facts = world.facts();
        let found = plan(&facts, &request);
        let expected = world.expected(&request);
        match (&found, &expected) {
            (Ok(plan), Some((backup, segments))) => {
                prop_assert_eq!(&plan.backup.id, backup);
                let listed: Vec<SegmentName> = plan.wal.iter().flat_map(|piece| {
                    let numbers = piece.first.number(size())..=piece.last.number(size());
                    numbers.map(|n| SegmentName::from_number(piece.first.timeline, n, size()))
                }).collect();
                prop_assert_eq!(&listed, segments);
                prop_assert_eq!(plan.segments, segments.len() as u64);
                prop_assert_eq!(plan.wal_bytes, 1000 * plan.segments);
            }
            (Err(_), None) => (),
            _ => prop_assert!(false, "the plan says {found:?}, the model {expected:?}"),
        }
    }

    #[test]
    fn what_a_refusal_suggests_can_be_had(world in world(), request in request()) {
        let facts = world.facts();
        if let Err(refused) = plan(&facts, &request) {
            for nearest in [&refused.nearest_before, &refused.nearest_after].into_iter().flatten() {
                prop_assert!(plan(&facts, &nearest.request).is_ok());
            }
            if let Reason::Gap { first_missing, resumes } = refused.reason {
                prop_assert!(first_missing.number(size()) < resumes.number(size()));
                let before = refused.nearest_before.expect("what lies before a gap can be had");
                prop_assert_eq!(plan(&facts, &before.request).unwrap().wal_end, Some(first_missing));
            }
        }
    }

    #[test]
    fn replay_cannot_run_into_wal_that_the_path_left_behind(world in world(), request in request()) {
        let facts = world.facts();
        let Ok(plan) = plan(&facts, &request) else { return Ok(()) };
        // At the end of the archive the server tries older timelines' segments of the same number.
        let number = plan.wal_reaches.0 / SEGMENT;
        let line: BTreeSet<u32> = plan.path.iter().map(|step| step.timeline.0).collect();
        let tempting = line.iter().filter(|t| **t < plan.timeline.0).any(|t| world.segments.contains_key(&(*t, number)));
        let later = (number..60).any(|n| world.segments.keys().any(|(t, m)| *t == plan.timeline.0 && *m == n));
        if tempting && !later && line.contains(&plan.timeline.0) && plan.path.last().unwrap().from.0 / SEGMENT <= number {
            prop_assert!(plan.wal_end.is_some());
        }
    }
}

/// Segments 2 to 9 of timeline 1, each stored ten seconds after the one before; backups that begin in 2 and in 6.
fn simple() -> World {
    let segments = (2..10).map(|number| ((1, number), 10 * number)).collect();
    let at = |id: &str, number: u64| {
        let (start_lsn, stop_lsn) = (Lsn(number * SEGMENT + 0x28), Lsn(number * SEGMENT + 0x100));
        BackupDescription { start_lsn, stop_lsn, stopped_at: second(10 * number + 5), ..backup(id) }
    };
    World { forks: Vec::new(), segments, backups: vec![at("20260101-000020Z", 2), at("20260101-000060Z", 6)] }
}

fn chosen(world: &World, request: Request) -> String {
    match plan(&world.facts(), &request) {
        Ok(plan) => plan.backup.id.to_string(),
        Err(refused) => refused.reason.to_string(),
    }
}

#[test]
fn the_newest_backup_that_ends_before_the_target_is_taken() {
    let world = simple();
    for (target, expected) in [
        (Target::Time(second(64)), "20260101-000020Z"),
        (Target::Time(second(65)), "20260101-000060Z"),
        (Target::Lsn(Lsn(6 * SEGMENT + 0xFF)), "20260101-000020Z"),
        (Target::Lsn(Lsn(6 * SEGMENT + 0x100)), "20260101-000060Z"),
        (Target::Immediate, "20260101-000060Z"),
        (Target::Latest, "20260101-000060Z"),
        (Target::Xid(800), "20260101-000020Z"),
        (Target::Name("x".into()), "20260101-000020Z"),
    ] {
        assert_eq!(chosen(&world, Request::new(target.clone())), expected, "{target:?}");
    }
    let exclusive = Request { inclusive: false, ..Request::new(Target::Time(second(65))) };
    assert_eq!(chosen(&world, exclusive), "20260101-000020Z");
}

#[test]
fn a_backup_with_checksum_failures_is_taken_only_by_name() {
    let mut world = simple();
    world.backups[1].checksum_failures.push("page 3".into());
    let latest = Request::new(Target::Latest);
    let made = plan(&world.facts(), &latest).unwrap();
    assert_eq!(made.backup.id.to_string(), "20260101-000020Z");
    assert!(made.warnings[0].contains("checksum"), "{:?}", made.warnings);
    let named = Request { backup: Some("20260101-000060Z".parse().unwrap()), ..latest };
    assert_eq!(chosen(&world, named), "20260101-000060Z");
}

#[test]
fn targets_out_of_reach_are_refused_with_the_nearest_moment() {
    let world = simple();
    let refused = |target| plan(&world.facts(), &Request::new(target)).unwrap_err();
    let early = refused(Target::Time(second(3)));
    assert!(matches!(early.reason, Reason::BeforeOldestBackup { .. }));
    assert_eq!(early.nearest_after.unwrap().arguments, "--immediate --timeline 1 --backup 20260101-000020Z");
    let late = refused(Target::Time(second(1000)));
    assert!(matches!(late.reason, Reason::BeyondArchive { end: Lsn(0xA000000), .. }), "{:?}", late.reason);
    assert_eq!(late.nearest_before.unwrap().arguments, "--latest --timeline 1");
    let beyond = refused(Target::Lsn(Lsn(10 * SEGMENT)));
    assert!(matches!(beyond.reason, Reason::BeyondArchive { .. }));
}

#[test]
fn a_gap_is_named_with_where_wal_resumes_and_never_taken_for_the_end() {
    let mut world = simple();
    world.segments.remove(&(1, 8));
    for target in [Target::Latest, Target::Lsn(Lsn(9 * SEGMENT)), Target::Time(second(100))] {
        let refused = plan(&world.facts(), &Request::new(target.clone())).unwrap_err();
        let expected = Reason::Gap { first_missing: name(1, 8), resumes: name(1, 9) };
        assert_eq!(refused.reason, expected, "{target:?}");
        let before = refused.nearest_before.unwrap();
        assert_eq!(before.arguments, "--lsn 0/8000000 --exclusive --timeline 1");
        let made = plan(&world.facts(), &before.request).unwrap();
        assert_eq!((made.wal_end, made.segments), (Some(name(1, 8)), 2));
        let settings: Vec<String> = made.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        assert_eq!(settings, ["recovery_target_timeline = 1", "recovery_prefetch = off"]);
        assert!(!made.has_target());
    }
    let within = plan(&world.facts(), &Request::new(Target::Time(second(70)))).unwrap();
    assert!(within.warnings[0].contains("000000010000000000000008"), "{:?}", within.warnings);
}

#[test]
fn a_gap_before_a_segment_that_was_stored_just_now_may_close() {
    let mut world = simple();
    world.segments.remove(&(1, 8));
    let facts = world.facts();
    let refused = plan(&facts, &Request::new(Target::Latest)).unwrap_err();
    let ten = TimeDelta::seconds(10);
    assert!(facts.may_close(&refused, second(95), ten) && !facts.may_close(&refused, second(101), ten));
    let beyond = plan(&facts, &Request::new(Target::Time(second(1)))).unwrap_err();
    assert!(!facts.may_close(&beyond, second(1), ten));
}

#[test]
fn a_backup_taken_after_the_switch_on_the_old_timeline_is_not_used_for_the_new_one() {
    let mut world = simple();
    world.forks.push((1, 5 * SEGMENT + 0x500, true));
    world.segments.extend((5..8).map(|number| ((2, number), 200 + 10 * number)));
    // The second backup lies behind the switch: servers 13 and 14 would take it and mix two histories.
    assert_eq!(chosen(&world, Request::new(Target::Latest)), "20260101-000020Z");
    let made = plan(&world.facts(), &Request::new(Target::Latest)).unwrap();
    let pieces: Vec<String> = made.wal.iter().map(|piece| format!("{}..{}", piece.first, piece.last)).collect();
    let expected =
        ["000000010000000000000002..000000010000000000000004", "000000020000000000000005..000000020000000000000007"];
    assert_eq!(pieces, expected);
    assert_eq!(made.wal_end, Some(name(2, 8)), "timeline 1 has a segment 8 that must not be replayed");
    let old = Request { timeline: TimelineChoice::Number(TimelineId(1)), ..Request::new(Target::Latest) };
    assert_eq!(chosen(&world, old.clone()), "20260101-000060Z");
    let current = Request { timeline: TimelineChoice::Current, ..old };
    assert_eq!(plan(&world.facts(), &current).unwrap().timeline, TimelineId(1));
    let named = Request { backup: Some("20260101-000060Z".parse().unwrap()), ..Request::new(Target::Latest) };
    let refused = plan(&world.facts(), &named).unwrap_err();
    assert!(refused.reason.to_string().contains("does not lead to timeline 2"), "{}", refused.reason);
    assert_eq!(refused.nearest_after.unwrap().arguments, "--immediate --timeline 1 --backup 20260101-000060Z");
}

#[test]
fn fetching_ends_at_a_fork_whose_segment_is_not_archived_yet_on_either_timeline() {
    let mut world = simple();
    world.forks.push((1, 10 * SEGMENT + 0x500, true));
    let made = plan(&world.facts(), &Request::new(Target::Latest)).unwrap();
    assert_eq!((made.timeline, made.wal_end), (TimelineId(2), Some(name(2, 10))));
    world.segments.insert((2, 10), 300);
    assert_eq!(plan(&world.facts(), &Request::new(Target::Latest)).unwrap().wal_end, None);
}

#[test]
fn a_lost_or_damaged_history_file_is_told_not_guessed() {
    let mut world = simple();
    world.forks.push((1, 5 * SEGMENT, false));
    world.segments.insert((2, 5), 300);
    let mut facts = world.facts();
    let latest = Request::new(Target::Latest);
    assert_eq!(plan(&facts, &latest).unwrap_err().reason, Reason::HistoryMissing { timeline: TimelineId(2) });
    facts.damaged_histories.insert(TimelineId(2), "cut".into());
    assert!(matches!(plan(&facts, &latest).unwrap_err().reason, Reason::HistoryDamaged { .. }));
    let unknown = Request { timeline: TimelineChoice::Number(TimelineId(9)), ..latest };
    assert_eq!(plan(&facts, &unknown).unwrap_err().reason, Reason::TimelineUnknown { timeline: TimelineId(9) });
}

#[test]
fn without_a_usable_backup_the_reason_says_which_and_why() {
    let mut facts = World { backups: Vec::new(), ..simple() }.facts();
    facts.damaged_backups.insert("20260101-000020Z".parse().unwrap(), "cut".into());
    let refused = plan(&facts, &Request::new(Target::Latest)).unwrap_err();
    assert_eq!(refused.reason, Reason::NoBackup);
    assert_eq!(refused.notes, ["backup \"20260101-000020Z\" cannot be used: cut"]);
    let named = Request { backup: Some("20260101-000020Z".parse().unwrap()), ..Request::new(Target::Latest) };
    assert!(plan(&facts, &named).unwrap_err().reason.to_string().contains("cut"));
}
