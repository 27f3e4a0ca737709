//! Transactions and restore points as targets.

use super::super::testing::SEGMENT;
use super::super::*;
use super::situations::*;
use super::world::{Rec, Says, World, name, second};
use crate::postgres::types::Lsn;
use crate::postgres::wal::Timestamp;

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
