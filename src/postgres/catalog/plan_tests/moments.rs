//! Where replay stops: times that go back, ties, rollbacks, the end of the archive, broken WAL, events.

use super::super::testing::SEGMENT;
use super::super::*;
use super::world::{Rec, Says, World, name, second};
use super::{forked, latest, says, simple};
use crate::postgres::layout::BackupId;
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::Timestamp;

pub fn at(number: u64, offset: u64) -> Lsn {
    Lsn(number * SEGMENT + offset)
}

pub fn stop(world: &World, target: Target, inclusive: bool) -> StopAt {
    world
        .plan(&RestoreRequest {
            inclusive,
            ..RestoreRequest::new(target)
        })
        .unwrap()
        .stop
}

pub fn before(number: u64, offset: u64) -> StopAt {
    StopAt::Before {
        lsn: at(number, offset),
    }
}

#[test]
fn a_transaction_at_the_very_time_is_included_or_not() {
    let mut world = simple();
    assert_eq!(
        stop(&world, Target::Time(second(76)), true),
        before(8, 0x200)
    );
    assert_eq!(
        stop(&world, Target::Time(second(76)), false),
        before(7, 0x200)
    );
    // Several at the same instant are all in, or all out.
    says(
        &mut world,
        7,
        0x300,
        Says::Ended {
            xid: 800,
            time: 76,
            committed: true,
        },
    );
    assert_eq!(
        stop(&world, Target::Time(second(76)), true),
        before(8, 0x200)
    );
    assert_eq!(
        stop(&world, Target::Time(second(76)), false),
        before(7, 0x200)
    );
}

#[test]
fn the_first_later_end_in_the_order_of_the_wal_ends_it_though_earlier_times_follow() {
    let mut world = simple();
    says(
        &mut world,
        6,
        0x200,
        Says::Ended {
            xid: 706,
            time: 90,
            committed: true,
        },
    );
    assert_eq!(
        stop(&world, Target::Time(second(80)), true),
        before(6, 0x200)
    );
    let plan = world
        .plan(&RestoreRequest::new(Target::Time(second(80))))
        .unwrap();
    let transactions = plan.transactions.unwrap();
    assert_eq!(transactions.first_excluded.unwrap().xid, 706);
    assert_eq!(transactions.last_included.unwrap().xid, 705);
}

#[test]
fn a_rollback_ends_a_time_as_a_commit_does_and_is_no_transaction_that_is_missed() {
    let mut world = simple();
    says(
        &mut world,
        7,
        0x200,
        Says::Ended {
            xid: 707,
            time: 76,
            committed: false,
        },
    );
    let plan = world
        .plan(&RestoreRequest::new(Target::Time(second(70))))
        .unwrap();
    assert_eq!(plan.stop, before(7, 0x200));
    let transactions = plan.transactions.unwrap();
    assert_eq!(
        (
            transactions.last_included.unwrap().xid,
            transactions.first_excluded.unwrap().xid
        ),
        (706, 708)
    );
    let rolled_back = world.plan(&RestoreRequest::new(Target::Xid(707))).unwrap();
    assert_eq!(
        rolled_back.stop,
        StopAt::After {
            lsn: at(7, 0x200),
            end: at(7, 0x300)
        }
    );
    assert!(
        rolled_back.notes[0].contains("rolled back"),
        "{:?}",
        rolled_back.notes
    );
}

#[test]
fn after_the_last_transaction_everything_is_restored_where_the_server_proved_that_none_followed() {
    let mut world = simple();
    // Its commit is not archived; the one before is.
    world.idle = vec![(1, 10 * SEGMENT, 105)];
    for inclusive in [true, false] {
        let request = RestoreRequest {
            inclusive,
            ..RestoreRequest::new(Target::Time(second(105)))
        };
        let plan = world.plan(&request).unwrap();
        assert_eq!(
            (plan.stop, plan.kind, plan.has_target()),
            (StopAt::End, Reachability::Present, false)
        );
        assert_eq!(
            plan.wal_end,
            Some(name(1, 10)),
            "what is archived later could lie behind the target"
        );
        let transactions = plan.transactions.unwrap();
        assert_eq!(
            (
                transactions.last_included.unwrap().xid,
                transactions.first_excluded
            ),
            (709, None)
        );
        assert!(
            plan.warnings.is_empty() && plan.notes[0].contains("until 2026-01-01 00:01:45"),
            "{:?}",
            plan.notes
        );
    }
    let everything = world.plan(&latest()).unwrap();
    assert_eq!(
        (
            everything.stop,
            everything.wal_end,
            everything.warnings.len()
        ),
        (StopAt::End, None, 0)
    );
}

fn idle_until(refused: &Unreachable) -> Option<u64> {
    assert_eq!(refused.kind, Reachability::Future);
    assert_eq!(
        refused.nearest_before.as_ref().unwrap().request.target,
        Target::Latest
    );
    let UnreachableReason::BeyondArchive { idle_until, .. } = refused.reason else {
        panic!("{:?}", refused.reason)
    };
    assert_eq!(
        idle_until.is_some(),
        refused.to_string().contains("it is proven until"),
        "{refused}"
    );
    idle_until.map(|until| (until - second(0)).num_seconds() as u64)
}

#[test]
fn a_time_by_which_a_transaction_may_have_ended_that_is_not_archived_is_refused() {
    let mut world = simple();
    let refused = |world: &World, time: u64| {
        idle_until(&world.refused(&RestoreRequest::new(Target::Time(second(time)))))
    };
    // Also the very time of the last commit: others may have ended at that time or earlier, and follow in the WAL.
    assert_eq!([refused(&world, 96), refused(&world, 120)], [None, None]);
    for (mark, expected) in [
        ((1, 10 * SEGMENT, 105), Some(105)),
        // Of before what is archived, also by a clock that was set back since; behind it; another timeline's.
        ((1, 9 * SEGMENT, 95), None),
        ((1, 9 * SEGMENT, 130), None),
        ((1, 10 * SEGMENT + 8, 105), None),
        ((2, 9 * SEGMENT, 105), None),
    ] {
        world.idle = vec![mark];
        assert_eq!(refused(&world, 106), expected, "{mark:?}");
        let window =
            |moments: &dyn WalIndex| windows(&world.facts(), moments).windows.pop().unwrap();
        assert_eq!(window(&world).idle_until, expected.map(second), "{mark:?}");
        assert_eq!(
            window(&NoIndex).idle_until,
            None,
            "what ended last is not known"
        );
    }
}

#[test]
fn a_mark_of_the_server_that_was_left_proves_nothing_of_the_one_that_follows() {
    let mut world = simple();
    world.forks.push((1, 10 * SEGMENT, true));
    world.idle = vec![(1, 10 * SEGMENT, 105)];
    assert_eq!(
        idle_until(&world.refused(&RestoreRequest::new(Target::Time(second(100))))),
        None
    );
    let old = RestoreRequest {
        timeline: TimelineChoice::Number(TimelineId(1)),
        ..RestoreRequest::new(Target::Time(second(100)))
    };
    assert_eq!(world.plan(&old).unwrap().kind, Reachability::Present);
}

#[test]
fn an_lsn_is_where_records_begin() {
    let world = simple();
    let after = |number: u64, from: u64, to: u64| StopAt::After {
        lsn: at(number, from),
        end: at(number, to),
    };
    assert_eq!(
        stop(&world, Target::Lsn(at(7, 0x200)), true),
        after(7, 0x200, 0x300)
    );
    assert_eq!(
        stop(&world, Target::Lsn(at(7, 0x1FF)), true),
        after(7, 0x200, 0x300)
    );
    assert_eq!(
        stop(&world, Target::Lsn(at(7, 0x201)), true),
        after(7, 0x300, SEGMENT)
    );
    assert_eq!(
        stop(&world, Target::Lsn(at(7, 0x200)), false),
        before(7, 0x200)
    );
    assert_eq!(stop(&world, Target::Lsn(at(7, 0x301)), false), before(8, 0));
    // Behind the last record nothing begins; all before it is there.
    assert_eq!(stop(&world, Target::Lsn(at(9, 0x301)), false), StopAt::End);
    let beyond = world.refused(&RestoreRequest::new(Target::Lsn(at(9, 0x301))));
    assert!(matches!(
        beyond.reason,
        UnreachableReason::BeyondArchive { .. }
    ));
}

#[test]
fn of_restore_points_with_one_name_the_first_behind_the_backup_counts_and_the_rest_is_told() {
    let mut world = simple();
    for number in [3, 7, 8] {
        says(&mut world, number, 0x100, Says::Point("x".into()));
    }
    let plan = world
        .plan(&RestoreRequest::new(Target::Name("x".into())))
        .unwrap();
    assert_eq!(
        plan.stop,
        StopAt::After {
            lsn: at(3, 0x100),
            end: at(3, 0x200)
        }
    );
    assert!(
        plan.notes[1].contains("2 later") && plan.notes[1].contains("0/8000100"),
        "{:?}",
        plan.notes
    );
    let named = RestoreRequest {
        backup: Some("20260101-000060Z".parse().unwrap()),
        ..RestoreRequest::new(Target::Name("x".into()))
    };
    assert_eq!(
        world.plan(&named).unwrap().stop,
        StopAt::After {
            lsn: at(7, 0x100),
            end: at(7, 0x200)
        }
    );
}

#[test]
fn tablespaces_that_replay_makes_are_told_with_the_first_backup_that_has_them() {
    let mut world = simple();
    says(&mut world, 4, 0x100, Says::Tablespace(17));
    says(&mut world, 8, 0x100, Says::Tablespace(18));
    let space = |oid| TablespaceDescription {
        oid,
        location: "/space".into(),
    };
    world.backups.last_mut().unwrap().tablespaces = vec![space(17)];
    let last = world.backups.last().unwrap().id.clone();
    assert!(world.backups.last().unwrap().start_lsn > at(4, 0x100));
    let first = world.backups[0].id.clone();
    let request = |target, backup: Option<&BackupId>| RestoreRequest {
        backup: backup.cloned(),
        ..RestoreRequest::new(target)
    };
    let made = |request: &RestoreRequest| {
        let made = world.plan(request).unwrap().made;
        assert_eq!(made.unknown, None);
        made.made
            .into_iter()
            .map(|one| (one.made.oid, one.in_backup))
            .collect::<Vec<_>>()
    };
    assert_eq!(made(&request(Target::Latest, None)), [(18, None)]);
    let from_first = request(Target::Latest, Some(&first));
    assert_eq!(made(&from_first), [(17, Some(last.clone())), (18, None)]);
    let exclusive = |lsn| RestoreRequest {
        inclusive: false,
        ..request(Target::Lsn(lsn), Some(&first))
    };
    assert_eq!(made(&exclusive(at(4, 0x100))), [], "replay ends before");
    assert_eq!(
        made(&request(Target::Lsn(at(4, 0x100)), Some(&first))),
        [(17, Some(last))]
    );
    assert_eq!(made(&request(Target::Immediate, Some(&first))), []);
    let warnings = world.plan(&from_first).unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("tablespace 18") && text.contains("/space/18")),
        "{warnings:?}"
    );
    world.unknown = vec![(1, 8)];
    let made = world.plan(&from_first).unwrap().made;
    assert_eq!((made.made.len(), made.unknown), (1, Some(name(1, 8))));
}

#[test]
fn a_transaction_before_a_gap_is_found_behind_the_backup_there() {
    let mut world = simple();
    world.segments.remove(&(1, 5));
    let plan = world.plan(&RestoreRequest::new(Target::Xid(704))).unwrap();
    assert_eq!(
        (plan.stop, plan.backup.id.to_string().as_str()),
        (
            StopAt::After {
                lsn: at(4, 0x200),
                end: at(4, 0x300)
            },
            "20260101-000020Z"
        )
    );
    let refused = world.refused(&RestoreRequest::new(Target::Xid(705)));
    let expected = vec![(at(2, 0x100), at(5, 0)), (at(6, 0x100), at(10, 0))];
    assert!(
        matches!(refused.reason, UnreachableReason::NotFound { searched, .. } if searched == expected)
    );
}

#[test]
fn a_transaction_behind_broken_wal_is_found_behind_a_later_backup() {
    let mut world = simple();
    world.broken = Some((1, 4, 4 * SEGMENT + 0x300));
    for (xid, behind) in [(703, false), (709, true)] {
        let plan = world.plan(&RestoreRequest::new(Target::Xid(xid))).unwrap();
        assert_eq!(
            plan.backup.id.to_string() == "20260101-000060Z",
            behind,
            "{xid}"
        );
    }
    let refused = world.refused(&RestoreRequest::new(Target::Xid(999)));
    assert!(
        matches!(refused.reason, UnreachableReason::Broken { .. }),
        "it may be where nothing can be searched: {refused}"
    );
}

#[test]
fn broken_wal_is_the_end_only_where_all_wal_ends() {
    let mut world = simple();
    world.broken = Some((1, 7, 7 * SEGMENT + 0x300));
    let expected = UnreachableReason::Broken {
        segment: name(1, 7),
        lsn: at(7, 0x300),
    };
    for target in [
        Target::Latest,
        Target::Time(second(90)),
        Target::Lsn(at(8, 0)),
        Target::Xid(709),
    ] {
        let refused = world.refused(&RestoreRequest::new(target.clone()));
        assert_eq!(refused.reason, expected, "{target:?}");
        let nearest = refused.nearest_before.unwrap();
        assert_eq!(nearest.request.arguments(), "--lsn 0/7000200 --timeline 1");
        assert_eq!(
            world.plan(&nearest.request).unwrap().stop,
            StopAt::After {
                lsn: at(7, 0x200),
                end: at(7, 0x300)
            }
        );
    }
    assert_eq!(
        stop(&world, Target::Time(second(70)), true),
        before(7, 0x200),
        "what lies before is reached"
    );
    world.broken = Some((1, 9, 9 * SEGMENT + 0x300));
    world.idle = vec![(1, 10 * SEGMENT, 105)];
    assert_eq!(
        idle_until(&world.refused(&RestoreRequest::new(Target::Time(second(100))))),
        None,
        "an end may be lost"
    );
    world.idle = vec![(1, 9 * SEGMENT + 0x300, 105)];
    assert_eq!(stop(&world, Target::Time(second(100)), true), StopAt::End);
    assert_eq!(stop(&world, Target::Latest, true), StopAt::End);
}

#[test]
fn a_timeline_that_does_not_follow_on_its_parent_is_not_replayed() {
    let mut world = forked();
    world.torn = Some(2);
    world.idle = vec![(2, 8 * SEGMENT, 105)];
    let expected = UnreachableReason::Broken {
        segment: name(2, 5),
        lsn: at(5, 0),
    };
    let targets = [
        Target::Latest,
        Target::Time(second(70)),
        Target::Time(second(100)),
        Target::Lsn(at(5, 0x300)),
    ];
    for target in targets.into_iter().chain([Target::Xid(706)]) {
        let refused = world.refused(&RestoreRequest::new(target.clone()));
        assert_eq!(refused.reason, expected, "{target:?}");
        let nearest = refused.nearest_before.unwrap();
        assert_eq!(nearest.request.arguments(), "--lsn 0/4000200 --timeline 1");
        assert_eq!(
            world.plan(&nearest.request).unwrap().stop,
            StopAt::After {
                lsn: at(4, 0x200),
                end: at(4, 0x300)
            }
        );
    }
    assert_eq!(
        stop(&world, Target::Xid(704), true),
        StopAt::After {
            lsn: at(4, 0x200),
            end: at(4, 0x300)
        }
    );
    // Behind a backup of its own nothing of the parent is needed.
    let (start_lsn, stop_lsn) = (at(5, 0x328), at(5, 0x400));
    let timeline = TimelineId(2);
    let own = BackupDescription {
        start_lsn,
        stop_lsn,
        timeline,
        stop_timeline: timeline,
        ..world.backups[0].clone()
    };
    world.backups = vec![BackupDescription {
        stopped_at: second(58),
        ..own
    }];
    assert_eq!(stop(&world, Target::Latest, true), StopAt::End);
}

#[test]
fn a_segment_that_names_not_all_its_restore_points_is_looked_into() {
    let mut world = simple();
    for number in [5, 7, 8] {
        says(&mut world, number, 0x100, Says::Point("x".into()));
    }
    world.unnamed = vec![(1, 3), (1, 5), (1, 8)];
    let request = RestoreRequest::new(Target::Name("x".into()));
    let plan = world.plan(&request).unwrap();
    assert_eq!(
        plan.stop,
        StopAt::After {
            lsn: at(5, 0x100),
            end: at(5, 0x200)
        },
        "none is in segment 3"
    );
    assert!(
        plan.notes[1].contains("1 later") && plan.notes[1].contains("0/7000100"),
        "{:?}",
        plan.notes
    );
    assert!(plan.notes[2].contains("2 WAL segments"), "{:?}", plan.notes);
    says(&mut world, 5, 0x100, Says::Nothing);
    assert_eq!(
        world.plan(&request).unwrap().stop,
        StopAt::After {
            lsn: at(7, 0x100),
            end: at(7, 0x200)
        }
    );
}

#[test]
fn a_number_that_is_used_again_is_told() {
    let mut world = simple();
    let again = 7 + XID_REUSE / SEGMENT;
    world
        .segments
        .extend((10..again + 4).map(|number| ((1, number), 10 * number)));
    let plan = world.plan(&RestoreRequest::new(Target::Xid(707))).unwrap();
    assert_eq!(
        (plan.stop, plan.notes.len()),
        (
            StopAt::After {
                lsn: at(7, 0x200),
                end: at(7, 0x300)
            },
            0
        )
    );
    let says = Says::Ended {
        xid: 707,
        time: 140,
        committed: true,
    };
    let lsn = (again + 3) * SEGMENT + 0x200;
    world.written.get_mut(&1).unwrap().push(Rec {
        lsn,
        end: lsn + 0x100,
        by: 1,
        says,
    });
    let plan = world.plan(&RestoreRequest::new(Target::Xid(707))).unwrap();
    assert_eq!(
        plan.stop,
        StopAt::After {
            lsn: at(7, 0x200),
            end: at(7, 0x300)
        },
        "the first one"
    );
    let told = format!(
        "{} ended at {}; name it by --lsn {}",
        "another one",
        Timestamp::from(second(140)),
        Lsn(lsn)
    );
    assert!(plan.notes[0].ends_with(&told), "{:?}", plan.notes);
}

#[test]
fn what_lies_behind_a_transaction_or_restore_point_does_not_hide_it() {
    let mut world = simple();
    says(&mut world, 4, 0x100, Says::Point("x".into()));
    says(&mut world, 9, 0x100, Says::Point("x".into()));
    let xid = || RestoreRequest::new(Target::Xid(705));
    let point = || RestoreRequest::new(Target::Name("x".into()));
    let expected = (
        StopAt::After {
            lsn: at(5, 0x200),
            end: at(5, 0x300),
        },
        at(4, 0x100),
    );
    let told = |world: &World| {
        assert_eq!(world.plan(&xid()).unwrap().stop, expected.0);
        let plan = world.plan(&point()).unwrap();
        assert_eq!(
            plan.stop,
            StopAt::After {
                lsn: expected.1,
                end: at(4, 0x200)
            }
        );
        plan.notes.get(1).cloned().unwrap_or_default()
    };
    assert!(told(&world).starts_with("1 later"));
    world.broken = Some((1, 9, 9 * SEGMENT + 0x280));
    assert!(
        told(&world).starts_with("at least 1 later"),
        "the archive's end is broken"
    );
    world.unknown = vec![(1, 8)];
    assert_eq!(told(&world), "", "one that is not known lies between");
    // What is not found before is not known, not absent.
    let unknown = Unknown::Segment(name(1, 8));
    for target in [Target::Xid(4711), Target::Name("y".into())] {
        assert!(
            matches!(world.plan(&RestoreRequest::new(target)), Err(NoPlan::Unknown(why)) if why == unknown)
        );
    }
    world.unknown.clear();
    let refused = world.refused(&RestoreRequest::new(Target::Xid(4711)));
    assert!(
        matches!(refused.reason, UnreachableReason::NotFound { .. }),
        "replay ends there: {}",
        refused.reason
    );
}

#[test]
fn the_last_commit_is_not_guessed_over_what_is_not_known() {
    let mut world = forked();
    says(&mut world, 4, 0x200, Says::Nothing);
    for (timeline, number) in [(2, 5), (2, 6)] {
        let records = world.written.get_mut(&timeline).unwrap();
        records
            .iter_mut()
            .filter(|record| record.lsn / SEGMENT == number)
            .for_each(|record| record.says = Says::Nothing);
    }
    says(&mut world, 5, 0x200, Says::Nothing);
    let request = RestoreRequest::new(Target::Lsn(at(7, 0x100)));
    let last = |world: &World| {
        world
            .plan(&request)
            .unwrap()
            .transactions
            .map(|told| told.last_included.unwrap().xid)
    };
    assert_eq!(last(&world), Some(703));
    world.unknown = vec![(2, 6)];
    assert_eq!(last(&world), None);
    let plan = world.plan(&request).unwrap();
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains("000000020000000000000006")),
        "{:?}",
        plan.warnings
    );
    world.segments.remove(&(2, 7));
    let told = windows(&world.facts(), &world);
    assert_eq!(told.windows.last().unwrap().to.time, None);
}
