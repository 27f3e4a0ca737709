//! The plan against a model that tries everything, and its answers to the situations that people meet.

mod broken;
mod events;
mod expected;
mod index;
mod moments;
mod promotion;
mod random;
mod situations;
mod world;
mod xid_and_name;

use chrono::TimeDelta;

use super::testing::SEGMENT;
use super::*;
use crate::postgres::types::{Lsn, TimelineId};
use situations::*;
use world::{World, name, second};

#[test]
fn the_newest_backup_that_ends_before_the_target_is_taken() {
    let world = simple();
    for (target, expected) in [
        (Target::Time(second(50)), "20260101-000020Z"),
        // Nothing ended between that moment and the end of the later backup.
        (Target::Time(second(60)), "20260101-000060Z"),
        (Target::Time(second(65)), "20260101-000060Z"),
        (Target::Lsn(Lsn(6 * SEGMENT + 0xFF)), "20260101-000060Z"),
        (Target::Lsn(Lsn(6 * SEGMENT)), "20260101-000020Z"),
        (Target::Lsn(Lsn(6 * SEGMENT + 0x100)), "20260101-000060Z"),
        (Target::Immediate, "20260101-000060Z"),
        (Target::Latest, "20260101-000060Z"),
        (Target::Xid(705), "20260101-000020Z"),
        (Target::Xid(706), "20260101-000060Z"),
    ] {
        assert_eq!(
            chosen(&world, RestoreRequest::new(target.clone())),
            expected,
            "{target:?}"
        );
    }
}

#[test]
fn a_backup_with_checksum_failures_is_taken_only_by_name() {
    let mut world = simple();
    world.backups[1].checksum_failures.push("page 3".into());
    let made = world.plan(&latest()).unwrap();
    assert_eq!(made.backup.id.to_string(), "20260101-000020Z");
    assert!(made.warnings[0].contains("checksum"), "{:?}", made.warnings);
    let named = RestoreRequest {
        backup: Some("20260101-000060Z".parse().unwrap()),
        ..latest()
    };
    assert_eq!(chosen(&world, named), "20260101-000060Z");
}

#[test]
fn a_backup_that_lacks_a_part_is_not_taken_even_by_name() {
    let mut world = simple();
    world.backups[1].left_out.push("pg_xact".into());
    let made = world.plan(&latest()).unwrap();
    assert_eq!(made.backup.id.to_string(), "20260101-000020Z");
    assert!(
        made.warnings[0].contains("lacks \"pg_xact\""),
        "{:?}",
        made.warnings
    );
    let named = RestoreRequest {
        backup: Some("20260101-000060Z".parse().unwrap()),
        ..latest()
    };
    assert!(matches!(
        world.refused(&named).reason,
        UnreachableReason::BackupUnusable { .. }
    ));
}

#[test]
fn targets_out_of_reach_are_refused_with_the_nearest_moment() {
    let world = simple();
    let refused = |target| world.refused(&RestoreRequest::new(target));
    let early = refused(Target::Time(second(3)));
    assert!(
        matches!(early.reason, UnreachableReason::BeforeOldestBackup { .. })
            && early.kind == Reachability::Past
    );
    assert_eq!(
        early.nearest_after.unwrap().request.arguments(),
        "--immediate --timeline 1 --backup 20260101-000020Z"
    );
    let late = refused(Target::Time(second(1000)));
    assert!(
        matches!(
            late.reason,
            UnreachableReason::BeyondArchive {
                end: Lsn(0xA000000),
                ..
            }
        ),
        "{:?}",
        late.reason
    );
    assert_eq!(
        (
            late.kind,
            late.nearest_before.unwrap().request.arguments().as_str()
        ),
        (Reachability::Future, "--latest --timeline 1")
    );
    let beyond = refused(Target::Lsn(Lsn(10 * SEGMENT)));
    assert!(matches!(
        beyond.reason,
        UnreachableReason::BeyondArchive { .. }
    ));
    for (target, words) in [
        (Target::Xid(4711), "transaction 4711"),
        (Target::Name("x".into()), "point \"x\""),
    ] {
        let told = refused(target);
        assert!(
            matches!(told.reason, UnreachableReason::NotFound { .. })
                && told.reason.to_string().contains(words)
        );
    }
}

#[test]
fn a_gap_is_named_with_where_wal_resumes_and_never_taken_for_the_end() {
    let mut world = simple();
    world.segments.remove(&(1, 8));
    for target in [
        Target::Latest,
        Target::Lsn(Lsn(9 * SEGMENT)),
        Target::Time(second(80)),
        Target::Time(second(100)),
    ] {
        let refused = world.refused(&RestoreRequest::new(target.clone()));
        let expected = UnreachableReason::Gap {
            first_missing: name(1, 8),
            resumes: name(1, 9),
        };
        assert_eq!(refused.reason, expected, "{target:?}");
        let before = refused.nearest_before.unwrap();
        assert_eq!(
            before.request.arguments(),
            "--lsn 0/8000000 --exclusive --timeline 1"
        );
        let made = world.plan(&before.request).unwrap();
        assert_eq!((made.wal_end, made.segments), (Some(name(1, 8)), 2));
        let settings: Vec<String> = made
            .settings
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        assert_eq!(
            settings,
            ["recovery_target_timeline = 1", "recovery_prefetch = off"]
        );
        assert!(!made.has_target());
    }
    let within = world
        .plan(&RestoreRequest::new(Target::Time(second(70))))
        .unwrap();
    assert_eq!(
        within.stop,
        StopAt::Before {
            lsn: Lsn(7 * SEGMENT + 0x200)
        }
    );
}

#[test]
fn a_gap_before_a_segment_that_was_stored_just_now_may_close() {
    let mut world = simple();
    world.segments.remove(&(1, 8));
    let facts = world.facts();
    let refused = world.refused(&latest());
    let ten = TimeDelta::seconds(10);
    assert!(
        facts.may_close(&refused, second(95), ten) && !facts.may_close(&refused, second(101), ten)
    );
    let beyond = world.refused(&RestoreRequest::new(Target::Time(second(1))));
    assert!(!facts.may_close(&beyond, second(1), ten));
}

#[test]
fn a_backup_taken_after_the_switch_on_the_old_timeline_is_not_used_for_the_new_one() {
    let world = forked();
    // The second backup lies behind the switch: servers 13 and 14 would take it and mix two histories.
    assert_eq!(chosen(&world, latest()), "20260101-000020Z");
    let made = world.plan(&latest()).unwrap();
    let pieces: Vec<String> = made
        .wal
        .iter()
        .map(|piece| format!("{}..{}", piece.first, piece.last))
        .collect();
    let expected = [
        "000000010000000000000002..000000010000000000000004",
        "000000020000000000000005..000000020000000000000007",
    ];
    assert_eq!(pieces, expected);
    assert_eq!(
        made.wal_end,
        Some(name(2, 8)),
        "timeline 1 has a segment 8 that must not be replayed"
    );
    let old = RestoreRequest {
        timeline: TimelineChoice::Number(TimelineId(1)),
        ..latest()
    };
    assert_eq!(chosen(&world, old.clone()), "20260101-000060Z");
    let current = RestoreRequest {
        timeline: TimelineChoice::Current,
        ..old
    };
    assert_eq!(world.plan(&current).unwrap().timeline, TimelineId(1));
    let named = RestoreRequest {
        backup: Some("20260101-000060Z".parse().unwrap()),
        ..latest()
    };
    let refused = world.refused(&named);
    assert!(
        refused
            .reason
            .to_string()
            .contains("does not lead to timeline 2"),
        "{}",
        refused.reason
    );
    assert_eq!(
        refused.nearest_after.unwrap().request.arguments(),
        "--immediate --timeline 1 --backup 20260101-000060Z"
    );
}

#[test]
fn fetching_ends_at_a_fork_whose_segment_is_not_archived_yet_on_either_timeline() {
    let mut world = simple();
    world.forks.push((1, 10 * SEGMENT + 0x200, true));
    let made = world.plan(&latest()).unwrap();
    assert_eq!(
        (made.timeline, made.wal_end),
        (TimelineId(2), Some(name(2, 10)))
    );
    world.segments.insert((2, 10), 300);
    assert_eq!(world.plan(&latest()).unwrap().wal_end, None);
}

#[test]
fn a_lost_or_damaged_history_file_is_told_not_guessed() {
    let mut world = simple();
    world.forks.push((1, 5 * SEGMENT, false));
    world.segments.insert((2, 5), 300);
    let mut facts = world.facts();
    let reason = |facts: &Facts, request: &RestoreRequest| match world.plan_with(facts, request) {
        Err(NoPlan::Refused(refused)) => refused.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        reason(&facts, &latest()),
        UnreachableReason::HistoryMissing {
            timeline: TimelineId(2)
        }
    );
    let mut unusable = Unusable {
        why: "cut".into(),
        whole: false,
        newer: false,
    };
    facts
        .damaged_histories
        .insert(TimelineId(2), unusable.clone());
    assert!(matches!(
        reason(&facts, &latest()),
        UnreachableReason::HistoryDamaged {
            newer_walden: false,
            ..
        }
    ));
    let first = RestoreRequest {
        timeline: TimelineChoice::Number(TimelineId(1)),
        ..latest()
    };
    assert!(matches!(
        reason(&facts, &first),
        UnreachableReason::NewerHistoryUnknown { .. }
    ));
    facts.damaged_histories.insert(
        TimelineId(2),
        Unusable {
            newer: true,
            ..unusable.clone()
        },
    );
    for request in [&first, &latest()] {
        let Err(NoPlan::Refused(refused)) = world.plan_with(&facts, request) else {
            panic!("{request:?}")
        };
        assert!(
            refused.hint().starts_with("upgrade Walden"),
            "{}",
            refused.hint()
        );
    }
    unusable.whole = true;
    facts.damaged_histories.insert(TimelineId(2), unusable);
    assert!(
        world.plan_with(&facts, &first).is_ok(),
        "a server only looks whether it exists"
    );
    let unknown = RestoreRequest {
        timeline: TimelineChoice::Number(TimelineId(9)),
        ..latest()
    };
    assert_eq!(
        reason(&facts, &unknown),
        UnreachableReason::TimelineUnknown {
            timeline: TimelineId(9)
        }
    );
}

#[test]
fn without_a_usable_backup_the_reason_says_which_and_why() {
    let world = World {
        backups: Vec::new(),
        ..simple()
    };
    let mut facts = world.facts();
    facts
        .damaged_backups
        .insert("20260101-000020Z".parse().unwrap(), "cut".into());
    let refused = |request: &RestoreRequest| match world.plan_with(&facts, request) {
        Err(NoPlan::Refused(refused)) => *refused,
        other => panic!("{other:?}"),
    };
    let told = refused(&latest());
    assert_eq!(told.reason, UnreachableReason::NoBackup);
    assert_eq!(
        told.notes,
        ["backup \"20260101-000020Z\" cannot be used: cut"]
    );
    let named = RestoreRequest {
        backup: Some("20260101-000020Z".parse().unwrap()),
        ..latest()
    };
    assert!(refused(&named).reason.to_string().contains("cut"));
}
