//! Events as targets, and what can be restored at all.

use super::super::testing::SEGMENT;
use super::super::*;
use super::situations::*;
use super::world::{Says, World, second};
use crate::postgres::types::{Lsn, TimelineId};

fn event(timeline: u32, lsn: Lsn) -> EventTarget {
    let (id, words) = (format!("{timeline}-0-0-d1"), "DROP of orders".to_string());
    EventTarget {
        id,
        words,
        timeline: TimelineId(timeline),
        before: lsn,
        after: lsn,
        commits: None,
        drops_database: None,
    }
}

#[test]
fn after_a_database_was_made_is_after_its_commit_wherever_that_is() {
    let mut world = simple();
    let made = |xid| EventTarget {
        commits: Some(xid),
        ..event(1, at(7, 0x100))
    };
    let request = |xid| RestoreRequest::new(Target::Event(made(xid)));
    assert_eq!(
        world.plan(&request(707)).unwrap().stop,
        StopAt::After {
            lsn: at(7, 0x200),
            end: at(7, 0x300)
        }
    );
    assert_eq!(
        world.plan(&request(709)).unwrap().stop,
        StopAt::After {
            lsn: at(9, 0x200),
            end: at(9, 0x300)
        }
    );
    let before = RestoreRequest {
        inclusive: false,
        ..request(709)
    };
    assert_eq!(
        world.plan(&before).unwrap().stop,
        StopAt::Before { lsn: at(7, 0x100) }
    );
    let refused = world.refused(&request(710));
    assert!(
        matches!(&refused.reason, UnreachableReason::EventNotCommitted { why, .. } if why.contains("not archived"))
    );
    // An earlier transaction of that number is another one.
    assert!(matches!(
        world.refused(&request(706)).reason,
        UnreachableReason::EventNotCommitted { .. }
    ));
    says(
        &mut world,
        8,
        0x200,
        Says::Ended {
            xid: 708,
            time: 86,
            committed: false,
        },
    );
    let refused = world.refused(&request(708));
    assert!(
        matches!(&refused.reason, UnreachableReason::EventNotCommitted { why, .. } if why.contains("rolled back"))
    );
}

#[test]
fn an_event_is_restored_on_the_path_that_has_it() {
    let world = forked();
    // Before the switch both paths have it, behind it only the timeline that went on.
    let shared = RestoreRequest {
        inclusive: false,
        ..RestoreRequest::new(Target::Event(event(1, at(4, 0x200))))
    };
    let plan = world.plan(&shared).unwrap();
    assert_eq!(
        (plan.timeline, plan.stop),
        (TimelineId(2), before(4, 0x200))
    );
    let left_behind = RestoreRequest::new(Target::Event(event(1, at(7, 0x200))));
    let plan = world.plan(&left_behind).unwrap();
    assert_eq!(
        (plan.timeline, plan.backup.id.to_string().as_str()),
        (TimelineId(1), "20260101-000060Z")
    );
    let elsewhere = RestoreRequest {
        timeline: TimelineChoice::Number(TimelineId(2)),
        ..left_behind
    };
    assert!(matches!(
        world.refused(&elsewhere).reason,
        UnreachableReason::EventElsewhere { .. }
    ));
    let gone = RestoreRequest::new(Target::Event(event(1, at(7, 0x201))));
    assert!(matches!(
        world.refused(&gone).reason,
        UnreachableReason::EventNotFound { .. }
    ));
}

#[test]
fn before_a_dropped_database_is_before_it_was_made_invalid() {
    let mut world = simple();
    // Its transaction's first changes, then a checkpoint that takes a while, then the record that it is gone.
    says(&mut world, 6, 0x300, Says::Change(800));
    says(&mut world, 7, 0x100, Says::Change(800));
    let dropped = EventTarget {
        drops_database: Some(800),
        ..event(1, at(9, 0x100))
    };
    let request = RestoreRequest {
        inclusive: false,
        ..RestoreRequest::new(Target::Event(dropped))
    };
    assert_eq!(world.plan(&request).unwrap().stop, before(6, 0x300));
    let mut unseen = simple();
    says(&mut unseen, 9, 0x300, Says::Change(800));
    let plan = unseen.plan(&request).unwrap();
    assert_eq!(plan.stop, before(9, 0x100));
    assert!(plan.notes[0].contains("was not found"), "{:?}", plan.notes);
}

#[test]
fn what_can_be_restored_is_told_by_timeline_with_the_time_between() {
    let mut world = forked();
    world.segments.remove(&(1, 5));
    let told = windows(&world.facts(), &world);
    let shown: Vec<(u32, Lsn, Lsn)> = told
        .windows
        .iter()
        .map(|window| (window.timeline.0, window.from.lsn, window.to.lsn))
        .collect();
    let switch = at(5, 0x300);
    assert_eq!(
        shown,
        [
            (1, at(2, 0x100), at(5, 0)),
            (1, at(6, 0x100), at(10, 0)),
            (2, switch, at(8, 0))
        ]
    );
    let [gap] = told.gaps.as_slice() else {
        panic!("{:?}", told.gaps)
    };
    assert_eq!((gap.from.lsn, gap.to.lsn), (at(5, 0), at(6, 0x100)));
    // From the last commit before it, in segment 4, to the end of the backup behind it.
    assert_eq!(
        (gap.from.time, gap.to.time, gap.seconds),
        (Some(second(46)), Some(second(65)), Some(19.0))
    );
    assert_eq!(windows(&world.facts(), &NoIndex).windows[0].to.time, None);
    world.idle = vec![(1, 5 * SEGMENT, 130)];
    assert_eq!(
        windows(&world.facts(), &world).windows[0].idle_until,
        None,
        "behind a gap there is WAL"
    );
}

/// Timeline, beginning and end of each window.
fn shown(world: &World) -> Vec<(u32, Lsn, Lsn)> {
    let told = windows(&world.facts(), world).windows.into_iter();
    told.map(|window| (window.timeline.0, window.from.lsn, window.to.lsn))
        .collect()
}

#[test]
fn what_replay_does_not_get_to_is_in_no_window() {
    let (mut world, switch) = (forked(), at(5, 0x300));
    let (whole, left) = ((1, at(2, 0x100), at(10, 0)), (2, switch, at(8, 0)));
    assert_eq!(shown(&world), [whole, left]);
    world.torn = Some(2);
    assert_eq!(
        shown(&world),
        [whole],
        "no backup of its own, and none before leads there"
    );
    // Neither does a transaction there follow on those before.
    let plan = world.plan(&RestoreRequest::new(Target::Xid(704))).unwrap();
    assert_eq!(plan.transactions.unwrap().first_excluded, None);
    let (start_lsn, stop_lsn, timeline) = (at(6, 0x28), at(6, 0x100), TimelineId(2));
    let own = BackupDescription {
        start_lsn,
        stop_lsn,
        timeline,
        stop_timeline: timeline,
        ..world.backups[0].clone()
    };
    world.backups.push(own);
    assert_eq!(shown(&world), [whole, (2, at(6, 0x100), at(8, 0))]);

    let mut world = simple();
    world.broken = Some((1, 4, 4 * SEGMENT + 0x300));
    assert_eq!(
        shown(&world),
        [
            (1, at(2, 0x100), at(4, 0x300)),
            (1, at(6, 0x100), at(10, 0))
        ]
    );
    let told = windows(&world.facts(), &world);
    assert_eq!(
        (told.windows[0].to.time, told.gaps[0].to.time),
        (Some(second(46)), Some(second(65)))
    );
    world.broken = Some((1, 9, 9 * SEGMENT + 0x300));
    world.idle = vec![(1, 9 * SEGMENT + 0x300, 105)];
    assert_eq!(
        shown(&world),
        [(1, at(2, 0x100), at(9, 0x300))],
        "it ends where the WAL is broken off"
    );
    assert_eq!(
        windows(&world.facts(), &world).windows[0].idle_until,
        Some(second(105))
    );
}
