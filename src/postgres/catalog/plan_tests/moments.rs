//! Where replay stops: times that go back, ties, rollbacks, the end of the archive, broken WAL, events.

use super::super::testing::SEGMENT;
use super::super::*;
use super::situations::*;
use super::world::{Says, World, name, second};
use crate::postgres::layout::BackupId;
use crate::postgres::types::TimelineId;

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
