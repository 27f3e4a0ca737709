use chrono::TimeDelta;

use super::super::{BackupWal, Keep, KindPolicy, Tier, Tiers, WalFacts, WalPlace, WalVerdict};
use super::*;
use crate::postgres::catalog::WalRanges;
use crate::postgres::types::{
    HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId,
};

const SEGMENT: u64 = 16 << 20;

fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT as u32).unwrap()
}

fn day(day: i64) -> DateTime<Utc> {
    "2026-06-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(day)
}

/// A base backup of a day, whose WAL begins and ends in these segments of timeline 1.
fn base(at: i64, first: u64, last: u64) -> Item {
    let place = |number: u64, offset| WalPlace {
        timeline: TimelineId(1),
        lsn: Lsn(number * SEGMENT + offset),
    };
    Item {
        id: ItemId::new(ItemKind::Base, format!("day-{at:02}")),
        series: String::new(),
        began: day(at),
        time: day(at) + TimeDelta::minutes(5),
        size: 1,
        condition: Condition::Good,
        wal: Some(BackupWal {
            start: place(first, 0x28),
            stop: place(last, 0x100),
        }),
        snapshot: None,
        needs: Needs::Known(Vec::new()),
    }
}

/// These base backups, and segments 0 to 99 of timeline 1.
fn holdings(items: Vec<Item>) -> Holdings {
    let mut ranges = WalRanges::new(size());
    for number in 0..100 {
        ranges.add(
            SegmentName::from_number(TimelineId(1), number, size()),
            1,
            day(0),
        );
    }
    let (histories, unread_histories) = (BTreeMap::new(), BTreeMap::new());
    let wal = WalFacts {
        ranges,
        histories,
        unread_histories,
    };
    Holdings {
        items,
        wal,
        pins: Vec::new(),
        leases: Vec::new(),
        now: day(60),
    }
}

fn daily(count: u32, window: Option<TimeDelta>) -> Policy {
    let mut tiers = Tiers::default();
    tiers.0[Tier::Daily as usize] = Some(Keep::Count(count));
    let base = KindPolicy { tiers, minimum: 1 };
    let all = KindPolicy::default();
    Policy {
        zone: chrono_tz::UTC,
        window,
        base,
        dump: all,
        schema: all,
    }
}

fn kept(plan: &Plan) -> Vec<&str> {
    plan.items
        .iter()
        .filter(|item| item.is_kept())
        .map(|item| item.id.name.as_str())
        .collect()
}

fn keeps(plan: &Plan, number: u64) -> bool {
    let name = SegmentName::from_number(TimelineId(1), number, size());
    plan.wal
        .iter()
        .any(|wal| wal.span.contains(name) && wal.verdict != WalVerdict::Delete)
}

/// Recovered to day 2: the newest backups lie on the timeline that was left.
#[test]
fn the_newest_timeline_keeps_a_base_backup_also_without_a_window() {
    let mut holdings = holdings(
        (0..7)
            .map(|at| base(at, 10 * at as u64, 10 * at as u64 + 1))
            .collect(),
    );
    let switch_lsn = Lsn(25 * SEGMENT);
    let ancestors = vec![HistoryEntry {
        timeline: TimelineId(1),
        switch_lsn,
        reason: String::new(),
    }];
    holdings.wal.histories.insert(
        TimelineId(2),
        TimelineHistory {
            timeline: TimelineId(2),
            ancestors,
        },
    );
    let plan = decide(&holdings, &daily(2, None));
    assert_eq!(kept(&plan), ["day-02", "day-05", "day-06"]);
}

/// Another one began later and ended before. Its time may be that of a wrong clock, so WAL before it stays, too.
#[test]
fn all_wal_stays_that_an_unreadable_base_backup_may_need() {
    let unread = Item {
        condition: Condition::Unknown("it cannot be read".into()),
        wal: None,
        ..base(1, 10, 40)
    };
    let items = vec![base(0, 5, 6), unread, base(2, 20, 21), base(9, 90, 91)];
    let plan = decide(&holdings(items), &daily(1, Some(TimeDelta::zero())));
    assert_eq!(kept(&plan), ["day-01", "day-09"]);
    assert!((0..100).all(|number| keeps(&plan, number)));
}

#[test]
fn a_base_backup_beyond_the_window_keeps_just_its_own_wal() {
    let items = (0..10)
        .map(|at| base(at, 10 * at as u64, 10 * at as u64 + 1))
        .collect();
    let plan = decide(&holdings(items), &daily(4, Some(TimeDelta::days(1))));
    assert_eq!(kept(&plan), ["day-06", "day-07", "day-08", "day-09"]);
    let own = [60, 61, 70, 71];
    assert!((0..80).all(|number| keeps(&plan, number) == own.contains(&number)));
    assert!((80..100).all(|number| keeps(&plan, number)));
}
