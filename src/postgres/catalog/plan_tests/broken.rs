//! Broken WAL between where replay starts and where it is to stop.

use super::super::testing::SEGMENT;
use super::super::*;
use super::simple;
use super::world::{World, name, second};
use crate::postgres::types::Lsn;

fn at(number: u64, offset: u64) -> Lsn {
    Lsn(number * SEGMENT + offset)
}

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
