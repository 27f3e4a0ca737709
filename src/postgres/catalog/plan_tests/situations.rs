//! Repositories that situations begin with, and what their plans say.

use super::super::testing::{SEGMENT, backup};
use super::super::*;
use super::world::{Rec, Says, World, second};
use crate::postgres::types::Lsn;

/// What a timeline writes from `begin` on, up to a segment: in each segment `n` a transaction 700 + n that commits at
/// 0x200, at second 10 n + 6.
pub fn written(by: u32, begin: u64, until: u64) -> Vec<Rec> {
    let in_segment = |number: u64| {
        let at = move |offset: u64| number * SEGMENT + offset;
        let says = Says::Ended {
            xid: 700 + number as u32,
            time: 10 * number + 6,
            committed: true,
        };
        let parts = [
            (0, 0x100, Says::Nothing),
            (0x100, 0x200, Says::Nothing),
            (0x200, 0x300, says),
        ];
        let parts = parts.into_iter().chain([(0x300, SEGMENT, Says::Nothing)]);
        parts.map(move |(from, to, says)| Rec {
            lsn: at(from),
            end: at(to),
            by,
            says,
        })
    };
    (begin / SEGMENT..until)
        .flat_map(in_segment)
        .filter(|record| record.lsn >= begin)
        .collect()
}

/// Segments 2 to 9 of timeline 1, each stored ten seconds after the one before; backups that begin in 2 and in 6.
pub fn simple() -> World {
    let segments = (2..10).map(|number| ((1, number), 10 * number)).collect();
    let at = |id: &str, number: u64| {
        let (start_lsn, stop_lsn) = (Lsn(number * SEGMENT + 0x28), Lsn(number * SEGMENT + 0x100));
        BackupDescription {
            start_lsn,
            stop_lsn,
            stopped_at: second(10 * number + 5),
            ..backup(id)
        }
    };
    let backups = vec![at("20260101-000020Z", 2), at("20260101-000060Z", 6)];
    World {
        segments,
        backups,
        written: [(1, written(1, SEGMENT, 12))].into(),
        ..World::default()
    }
}

/// The record that begins at an offset in a segment of timeline 1 says something else.
pub fn says(world: &mut World, number: u64, offset: u64, says: Says) {
    let records = world.written.get_mut(&1).unwrap();
    records
        .iter_mut()
        .find(|record| record.lsn == number * SEGMENT + offset)
        .unwrap()
        .says = says;
}

pub fn chosen(world: &World, request: RestoreRequest) -> String {
    match world.plan(&request) {
        Ok(plan) => plan.backup.id.to_string(),
        Err(NoPlan::Refused(refused)) => refused.reason.to_string(),
        Err(stuck) => panic!("{stuck:?}"),
    }
}

pub fn latest() -> RestoreRequest {
    RestoreRequest::new(Target::Latest)
}

/// Timeline 2 leaves timeline 1 in segment 5, behind its commit.
pub fn forked() -> World {
    let mut world = simple();
    let switch = 5 * SEGMENT + 0x300;
    world.forks.push((1, switch, true));
    world
        .segments
        .extend((5..8).map(|number| ((2, number), 200 + 10 * number)));
    world.written.insert(2, written(2, switch, 12));
    world
}

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

pub fn idle_until(refused: &Unreachable) -> Option<u64> {
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
