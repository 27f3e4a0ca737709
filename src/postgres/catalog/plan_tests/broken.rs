//! Broken WAL between where replay starts and where it is to stop.

use super::super::testing::SEGMENT;
use super::super::*;
use super::situations::*;
use super::world::{Says, World, name, second};
use crate::postgres::types::TimelineId;

fn plan(world: &World, target: Target, inclusive: bool) -> Result<RecoveryPlan, UnreachableReason> {
    match world.plan(&RestoreRequest {
        inclusive,
        ..RestoreRequest::new(target)
    }) {
        Ok(plan) => Ok(plan),
        Err(NoPlan::Refused(refused)) => Err(refused.reason),
        Err(stuck) => panic!("{stuck:?}"),
    }
}

#[test]
fn what_lies_behind_where_the_newest_wal_breaks_off_is_no_end() {
    let mut world = simple();
    world.broken = Some((1, 9, 9 * SEGMENT + 0x250));
    let broken = UnreachableReason::Broken {
        segment: name(1, 9),
        lsn: at(9, 0x250),
    };
    for (lsn, inclusive) in [
        (0x251, true),
        (0x251, false),
        (0x300, false),
        (SEGMENT - 8, true),
    ] {
        assert_eq!(
            plan(&world, Target::Lsn(at(9, lsn)), inclusive),
            Err(broken.clone()),
            "{lsn:x}"
        );
    }
    for target in [Target::Lsn(at(9, 0x250)), Target::Latest] {
        let plan = plan(&world, target, false).unwrap();
        assert_eq!(plan.stop, StopAt::End);
        assert!(
            plan.notes[0].contains("WAL breaks off at 0/9000250"),
            "{:?}",
            plan.notes
        );
    }
    assert!(
        plan(&world, Target::Xid(708), true)
            .unwrap()
            .notes
            .is_empty(),
        "replay stops before"
    );
}

#[test]
fn a_segment_that_does_not_follow_on_the_one_before_is_no_end_of_wal() {
    let mut world = simple();
    world.unjoined = Some((1, 9));
    let broken = UnreachableReason::Broken {
        segment: name(1, 9),
        lsn: at(9, 0x28),
    };
    world.idle = vec![(1, 9 * SEGMENT, 105)];
    for target in [
        Target::Latest,
        Target::Time(second(100)),
        Target::Lsn(at(9, 0x300)),
        Target::Xid(709),
    ] {
        assert_eq!(
            plan(&world, target.clone(), true),
            Err(broken.clone()),
            "{target:?}"
        );
    }
    assert_eq!(
        plan(&world, Target::Lsn(at(9, 0)), false),
        Err(broken),
        "the server would have to get to it"
    );
    assert!(plan(&world, Target::Xid(708), true).is_ok());
    // A backup that begins there needs nothing of the one before.
    let (start_lsn, stop_lsn) = (at(9, 0x28), at(9, 0x100));
    world.backups.push(BackupDescription {
        start_lsn,
        stop_lsn,
        stopped_at: second(93),
        ..testing::backup("20260101-000130Z")
    });
    for target in [Target::Latest, Target::Lsn(at(9, 0x300)), Target::Xid(709)] {
        assert_eq!(
            plan(&world, target, true).unwrap().backup.id.to_string(),
            "20260101-000130Z"
        );
    }
}

#[test]
fn a_backup_whose_own_wal_is_broken_cannot_be_consistent() {
    let mut world = simple();
    world.backups.truncate(1);
    world.segments.retain(|(_, number), _| *number == 2);
    world.broken = Some((1, 2, 2 * SEGMENT + 0x80));
    for target in [Target::Immediate, Target::Latest, Target::Lsn(at(2, 0x200))] {
        let refused = plan(&world, target.clone(), true);
        assert_eq!(
            refused,
            Err(UnreachableReason::Broken {
                segment: name(1, 2),
                lsn: at(2, 0x80)
            }),
            "{target:?}"
        );
    }
    world.broken = Some((1, 2, 2 * SEGMENT + 0x100));
    assert!(
        plan(&world, Target::Latest, true).is_ok(),
        "it breaks off where the backup ends"
    );
}

#[test]
fn broken_wal_is_found_behind_what_is_not_known() {
    let mut world = simple();
    world.broken = Some((1, 8, 8 * SEGMENT + 0x300));
    world.unknown = vec![(1, 7)];
    let broken = UnreachableReason::Broken {
        segment: name(1, 8),
        lsn: at(8, 0x300),
    };
    assert_eq!(plan(&world, Target::Latest, true), Err(broken));
    world.broken = None;
    let plan = plan(&world, Target::Latest, true).unwrap();
    assert!(
        plan.notes[0].contains("000000010000000000000007 holds is not known"),
        "{:?}",
        plan.notes
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
