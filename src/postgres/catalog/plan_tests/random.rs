//! The plan against the model, on made-up archives of all shapes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::testing::{SEGMENT, backup};
use super::super::*;
use super::expected::Stops;
use super::world::{Rec, Says, World, name, second, size};
use crate::postgres::types::{Lsn, SegmentName, TimelineId};

/// A place in WAL: often on a boundary or near one.
fn place() -> impl Strategy<Value = u64> {
    (
        2u64..14,
        prop_oneof![Just(0u64), Just(0x28), Just(SEGMENT / 2), Just(SEGMENT - 8)],
    )
        .prop_map(|(n, o)| n * SEGMENT + o)
}

/// Records from `begin` on, up to the end of all segments, as the noise has it. Clocks are neither steady nor precise.
fn written(by: u32, begin: u64, noise: &[u32]) -> Vec<Rec> {
    let (mut records, mut lsn) = (Vec::new(), begin);
    for noise in noise.iter().cycle() {
        let to_boundary = SEGMENT - lsn % SEGMENT;
        let length = [
            0x40,
            0x1000,
            SEGMENT / 8,
            SEGMENT / 4,
            SEGMENT / 2,
            SEGMENT + 8,
            to_boundary,
            0x40,
        ];
        let end = lsn + length[(noise % 8) as usize];
        let time = 10 * lsn / SEGMENT + u64::from(noise / 8 % 8 * 4);
        let says = match noise / 64 % 8 {
            kind @ 0..5 => Says::Ended {
                xid: 700 + noise / 512 % 60,
                time,
                committed: kind > 0,
            },
            5 => Says::Point(["x", "y"][(noise / 512 % 2) as usize].into()),
            _ => Says::Nothing,
        };
        records.push(Rec { lsn, end, by, says });
        lsn = end;
        if lsn > 17 * SEGMENT {
            break;
        }
    }
    records
}

/// The first place where a record of the path ends, at or after a place.
fn boundary(world: &World, timeline: u32, place: u64) -> u64 {
    let records = world.records(timeline);
    records
        .iter()
        .map(|record| record.end)
        .find(|end| *end >= place)
        .unwrap_or(place)
}

/// When a record ended a transaction.
fn ended(record: &Rec) -> Option<u64> {
    if let Says::Ended { time, .. } = record.says {
        Some(time)
    } else {
        None
    }
}

/// A mark as a server makes it: between two records of its timeline, before whatever ended behind it, or `early`ier.
fn idle(world: &World, timeline: u32, at: usize, early: u64) -> (u32, u64, u64) {
    let records = &world.written[&timeline];
    let behind = &records[at % records.len()..];
    let first = behind.iter().filter_map(ended).min().unwrap_or(190);
    (timeline, behind[0].lsn, first.saturating_sub(1 + early))
}

fn world() -> impl Strategy<Value = World> {
    let forks = prop::collection::vec((1u32..4, place(), prop::bool::weighted(0.9)), 0..3);
    let noise = prop::collection::vec(prop::collection::vec(any::<u32>(), 20..60), 3);
    let holes = prop::collection::vec((1u32..4, 1u64..16), 0..6);
    let spans = prop::collection::vec((1u64..8, 6u64..16), 3);
    let backups = prop::collection::vec(
        (
            1u32..4,
            place(),
            1u64..3 * SEGMENT,
            0u64..16,
            prop::bool::weighted(0.1),
        ),
        0..5,
    );
    let marks = prop::collection::vec((1u32..4, any::<usize>(), 0u64..8), 0..6);
    let unnamed = prop::collection::vec((1u32..4, 2u64..16), 0..6);
    let all = (forks, noise, holes, spans, backups, marks, unnamed);
    all.prop_map(|(forks, noise, holes, spans, backups, marks, unnamed)| {
        let mut world = World {
            unnamed,
            ..World::default()
        };
        world.written.insert(1, written(1, SEGMENT, &noise[0]));
        for (at, (parent, switch, known)) in forks.into_iter().enumerate() {
            let parent = parent.min(world.forks.len() as u32 + 1);
            // Also before the parent began: a recovery that follows it may end there.
            let switch = boundary(&world, parent, switch);
            world.forks.push((parent, switch, known));
            let timeline = at as u32 + 2;
            world
                .written
                .insert(timeline, written(timeline, switch, &noise[(at + 1) % 3]));
        }
        let timelines = world.forks.len() as u32 + 1;
        for (timeline, (first, last)) in (1..=timelines).zip(&spans) {
            world
                .segments
                .extend((*first..=*last).map(|number| ((timeline, number), 10 * number)));
        }
        for hole in holes {
            world.segments.remove(&hole);
        }
        for (at, (timeline, start, length, late, broken)) in backups.into_iter().enumerate() {
            let mut made = backup(&format!("202601{:02}-000000Z", at + 1));
            made.timeline = TimelineId(timeline.min(timelines));
            made.stop_timeline = made.timeline;
            let start = boundary(&world, made.timeline.0, start);
            let stop = boundary(&world, made.timeline.0, start + length);
            (made.start_lsn, made.stop_lsn) = (Lsn(start), Lsn(stop.max(start + 8)));
            made.stopped_at = second(10 * made.stop_lsn.0 / SEGMENT + late);
            made.checksum_failures = broken.then(|| "a page".to_string()).into_iter().collect();
            world.backups.push(made);
        }
        for (timeline, at, early) in marks {
            world
                .idle
                .push(idle(&world, timeline.min(timelines), at, early));
        }
        world
    })
}

/// A target; of an event the timeline, and which of its records.
fn target() -> impl Strategy<Value = (Target, Option<(u32, usize)>)> {
    prop_oneof![
        3 => (0u64..200).prop_map(|n| (Target::Time(second(n)), None)),
        2 => place().prop_map(|lsn| (Target::Lsn(Lsn(lsn)), None)),
        2 => (700u32..765).prop_map(|xid| (Target::Xid(xid), None)),
        2 => prop_oneof!["x", "y", "z"].prop_map(|name| (Target::Name(name), None)),
        2 => (1u32..4, any::<usize>()).prop_map(|chosen| (Target::Latest, Some(chosen))),
        1 => Just((Target::Immediate, None)),
        1 => Just((Target::Latest, None)),
    ]
}

fn request() -> impl Strategy<Value = (RestoreRequest, Option<(u32, usize)>)> {
    let timeline = prop_oneof![
        Just(TimelineChoice::Latest),
        (1u32..5).prop_map(|number| TimelineChoice::Number(TimelineId(number)))
    ];
    let backup = prop::option::weighted(
        0.2,
        (1u32..6).prop_map(|n| format!("202601{n:02}-000000Z").parse().unwrap()),
    );
    (target(), any::<bool>(), timeline, backup).prop_map(
        |((target, event), inclusive, timeline, backup)| {
            (
                RestoreRequest {
                    target,
                    inclusive,
                    timeline,
                    backup,
                },
                event,
            )
        },
    )
}

/// The request in an archive: an event is one of its records.
fn in_world(
    world: &World,
    (mut request, event): (RestoreRequest, Option<(u32, usize)>),
) -> RestoreRequest {
    if let Some((timeline, at)) = event {
        let timeline = timeline.min(world.forks.len() as u32 + 1);
        let records = world.records(timeline);
        let lsn = Lsn(records[at % records.len()].lsn);
        let (id, words) = ("1-0-0-d1".to_string(), "something".to_string());
        let timeline = TimelineId(timeline);
        request.target = Target::Event(EventTarget {
            id,
            words,
            timeline,
            before: lsn,
            after: lsn,
            commits: None,
            drops_database: None,
        });
    }
    request
}

/// PostgreSQL with the plan's backup and settings: the record that it would replay next if it had not stopped, and
/// whether it was the target that stopped it.
fn recover(world: &World, plan: &RecoveryPlan) -> (Option<Rec>, bool) {
    let timeline = plan.timeline.0;
    let start = plan.backup.start_lsn.0;
    let archived = world.first_missing(timeline, start / SEGMENT);
    let end = plan
        .wal_end
        .map_or(archived, |end| end.number(size()).min(archived));
    let end = world
        .torn_off(timeline, start / SEGMENT)
        .map_or(end, |torn| end.min(torn));
    let setting = |wanted: &str| {
        plan.settings
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    };
    let target: Option<u64> =
        setting("recovery_target_lsn").map(|lsn| lsn.parse::<Lsn>().unwrap().0);
    let mut stop_at_next = false;
    for record in world
        .records(timeline)
        .into_iter()
        .filter(|record| record.lsn >= start)
    {
        let ended = (record.end - 1) / SEGMENT >= end;
        if stop_at_next || ended {
            return (Some(record), stop_at_next);
        }
        let consistent = record.lsn >= plan.backup.stop_lsn.0;
        let reached = target.is_some_and(|target| record.lsn >= target);
        assert!(!reached || consistent, "before the backup is consistent");
        if setting("recovery_target") == Some("immediate") && consistent
            || reached && setting("recovery_target_inclusive") == Some("off")
        {
            return (Some(record), true);
        }
        stop_at_next = reached;
    }
    (None, stop_at_next)
}

fn segments(plan: &RecoveryPlan) -> Vec<SegmentName> {
    let names = |piece: &WalPiece| {
        let (timeline, numbers) = (
            piece.first.timeline,
            piece.first.number(size())..=piece.last.number(size()),
        );
        numbers.map(move |number| SegmentName::from_number(timeline, number, size()))
    };
    plan.wal.iter().flat_map(names).collect()
}

proptest! {
    // One step of making a case simpler takes long: a world has many parts.
    #![proptest_config(ProptestConfig { cases: 4000, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_made_exactly_when_trying_everything_finds_one_and_stops_there(
        world in world(),
        torn in prop::option::weighted(0.3, 2u32..4),
        wanted in request(),
    ) {
        let world = World { torn, ..world };
        let request = in_world(&world, wanted);
        let (plan, backup, stops) = match (world.plan(&request), world.expected(&request)) {
            (Ok(plan), Some((backup, stops))) => (plan, backup, stops),
            (Err(NoPlan::Refused(_)), None) => return Ok(()),
            (found, expected) => {
                prop_assert!(false, "the plan says {found:?}, the model {expected:?}");
                return Ok(());
            }
        };
        prop_assert_eq!(&plan.backup.id, &backup);
        let timeline = plan.timeline.0;
        let records = world.records(timeline);
        let missing = world.first_missing(timeline, plan.backup.start_lsn.0 / SEGMENT);
        let at = |lsn: u64| records.iter().position(|record| record.lsn == lsn).unwrap();
        let torn_off = world.torn_off(timeline, plan.backup.start_lsn.0 / SEGMENT);
        let replayable = torn_off.map_or(missing, |torn| torn.min(missing)) * SEGMENT;
        let replayable = records.partition_point(|record| record.end <= replayable);
        let next = match stops {
            Stops::Before(lsn) => at(lsn),
            Stops::After(lsn) => at(lsn) + 1,
            Stops::End => replayable,
        };
        // What is not archived ended later than a time that everything archived is restored for.
        if let (Target::Time(time), Stops::End) = (&request.target, stops) {
            let late = |record: &Rec| ended(record).is_none_or(|ended| second(ended) > *time);
            prop_assert!(records[replayable..].iter().all(late), "{:?}", plan);
        }
        // PostgreSQL stops where the model does, and a target that it is given is one that it meets.
        let (stopped_before, met) = recover(&world, &plan);
        prop_assert_eq!(stopped_before.as_ref(), records.get(next), "{:?}", plan);
        let told = matches!(plan.stop, StopAt::Before { .. } | StopAt::After { .. });
        prop_assert!(met || !told, "PostgreSQL does not meet the target of {plan:?}");
        // The transactions on both sides.
        let transactions = plan.transactions.unwrap();
        let start = plan.backup.start_lsn.0 / SEGMENT * SEGMENT;
        let last = records[..next].iter().filter_map(Rec::commit).next_back().map(Transaction::from);
        match transactions.last_included {
            None => prop_assert!(last.is_none_or(|last| last.lsn.0 < plan.backup.stop_lsn.0.min(start) + SEGMENT), "{plan:?}"),
            included => prop_assert_eq!(included, last),
        }
        let first = records[next..replayable.max(next)].iter().find_map(Rec::commit).map(Transaction::from);
        prop_assert_eq!(transactions.first_excluded, first);
        // The WAL that it needs, up to the record that it stops at.
        let needed = match stops {
            _ if request.target == Target::Immediate => (plan.backup.stop_lsn.0 - 1) / SEGMENT + 1,
            Stops::Before(lsn) | Stops::After(lsn) => (records[at(lsn)].end - 1) / SEGMENT + 1,
            Stops::End => missing,
        };
        let expected: Vec<SegmentName> = (plan.backup.start_lsn.0 / SEGMENT..needed)
            .map(|number| name(world.read(timeline, number), number)).collect();
        prop_assert_eq!(segments(&plan), expected);
        prop_assert_eq!(plan.wal_bytes, 1000 * plan.segments);
    }

    #[test]
    fn what_a_refusal_suggests_can_be_had(world in world(), wanted in request()) {
        let request = in_world(&world, wanted);
        if let Err(NoPlan::Refused(refused)) = world.plan(&request) {
            for nearest in [&refused.nearest_before, &refused.nearest_after].into_iter().flatten() {
                prop_assert!(world.plan(&nearest.request).is_ok(), "{nearest:?}");
            }
            if let UnreachableReason::Gap { first_missing, resumes } = refused.reason {
                prop_assert!(first_missing.number(size()) < resumes.number(size()));
                let before = refused.nearest_before.expect("what lies before a gap can be had");
                prop_assert_eq!(world.plan(&before.request).unwrap().wal_end, Some(first_missing));
            }
        }
    }

    #[test]
    fn replay_cannot_run_into_wal_that_the_path_left_behind(world in world(), wanted in request()) {
        let request = in_world(&world, wanted);
        let Ok(plan) = world.plan(&request) else { return Ok(()) };
        // At the end of the archive the server tries older timelines' segments of the same number.
        let number = plan.wal_reaches.0 / SEGMENT;
        let path: BTreeSet<u32> = plan.path.iter().map(|step| step.timeline.0).collect();
        let tempting = path.iter().filter(|t| **t < plan.timeline.0).any(|t| world.segments.contains_key(&(*t, number)));
        let later = (number..60).any(|n| world.segments.keys().any(|(t, m)| *t == plan.timeline.0 && *m == n));
        if tempting && !later && path.contains(&plan.timeline.0) && plan.path.last().unwrap().from.0 / SEGMENT <= number {
            prop_assert!(plan.wal_end.is_some());
        }
    }

    #[test]
    fn what_the_index_does_not_know_is_never_guessed(
        world in world(),
        wanted in request(),
        unknown in prop::collection::vec((1u32..4, 1u64..16), 1..4),
    ) {
        let request = in_world(&world, wanted);
        let ignorant = World { unknown, ..world.clone() };
        match (ignorant.plan(&request), world.plan(&request)) {
            (Err(NoPlan::Unknown(_)), Ok(known))
                if known.stop != StopAt::End && known.wal.last().is_some_and(|piece| {
                    ignorant.unknown.iter().all(|(_, number)| *number > piece.last.number(size()))
                }) => prop_assert!(false, "what lies behind {known:?} hides it"),
            (Ok(plan), Ok(known)) => {
                prop_assert_eq!((plan.stop, &plan.backup.id, &plan.wal), (known.stop, &known.backup.id, &known.wal));
                prop_assert!(plan.transactions.is_none() || plan.transactions == known.transactions);
            }
            (Err(NoPlan::Unknown(Unknown::Segment(name))), _) => {
                prop_assert!(ignorant.unknown.contains(&(name.timeline.0, name.number(size()))));
            }
            (Err(NoPlan::Refused(told)), Err(NoPlan::Refused(known))) => prop_assert_eq!(told.reason, known.reason),
            (told, known) => prop_assert!(false, "{told:?} although {known:?}"),
        }
    }
}
