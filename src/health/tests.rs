use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::Health as Limits;
use crate::config::testing::health_limits;
use crate::postgres::catalog::{
    Facts, UnknownTimeline, WalRanges, Window, WindowEdge, Windows, missing_wal, testing,
};
use crate::postgres::types::{Lsn, SegmentName, TimelineHistory, TimelineId};

fn at(second: i64) -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(second)
}

/// A backup that ended at second 1 in segment 2; these segments, stored at second 60.
fn facts(segments: &[(u32, u64)]) -> Facts {
    let size = testing::cluster_description().segment_size;
    let mut ranges = WalRanges::new(size);
    for (timeline, number) in segments {
        ranges.add(
            SegmentName::from_number(TimelineId(*timeline), *number, size),
            10,
            at(60),
        );
    }
    testing::facts_in(ranges)
}

/// From the backup to the end of a segment; the last commit at second 50.
fn window(facts: &Facts, timeline: u32, to: u64) -> Window {
    let edge = |lsn, second| WindowEdge {
        lsn: Lsn(lsn),
        time: Some(at(second)),
    };
    let (from, to) = (
        edge(2 * testing::SEGMENT + 0x100, 1),
        edge((to + 1) * testing::SEGMENT, 50),
    );
    Window {
        timeline: TimelineId(timeline),
        from,
        to,
        idle_until: None,
        backup: facts.backups[0].id.clone(),
    }
}

fn judge(facts: &Facts, windows: Vec<Window>, second: i64) -> Health {
    let windows = Windows {
        windows,
        ..Windows::default()
    };
    Health::of(
        facts,
        &windows,
        &missing_wal(facts),
        &health_limits(),
        at(second),
    )
}

fn levels(health: &Health) -> [Level; 3] {
    [Subject::Rpo, Subject::Backup, Subject::Recovery].map(|about| health.level_of(about))
}

use Level::{Critical, Good, Unknown, Warning};

#[test]
fn what_can_be_restored_to_its_end_is_good_as_long_as_that_is_near() {
    let facts = facts(&[(1, 2), (1, 3)]);
    let now = judge(&facts, vec![window(&facts, 1, 3)], 100);
    assert_eq!(
        (levels(&now), now.loss),
        ([Good; 3], Loss::AtMost(TimeDelta::seconds(50)))
    );
    let protected = Protected {
        timeline: TimelineId(1),
        until: at(50),
        evidence: Evidence::Commit,
    };
    assert_eq!(
        (now.protected, now.beyond, now.backup),
        (Some(protected), 0, Some(at(1)))
    );
    assert_eq!(
        levels(&judge(&facts, vec![window(&facts, 1, 3)], 50 + 601)),
        [Warning, Good, Good]
    );
}

#[test]
fn an_idle_server_loses_nothing_as_long_as_that_is_proven() {
    let facts = facts(&[(1, 2)]);
    let idle = Window {
        idle_until: Some(at(5000)),
        ..window(&facts, 1, 2)
    };
    let proven = judge(&facts, vec![idle.clone()], 5030);
    assert_eq!(
        (levels(&proven), proven.loss),
        ([Good; 3], Loss::AtMost(TimeDelta::seconds(30)))
    );
    assert_eq!(proven.protected.unwrap().evidence, Evidence::Idle);
    assert_eq!(
        levels(&judge(&facts, vec![idle], 9000)),
        [Warning, Good, Good],
        "nobody asks the server any more"
    );
}

#[test]
fn a_hole_behind_the_last_backup_is_critical_and_names_what_is_missing() {
    let facts = facts(&[(1, 2), (1, 3), (1, 6), (1, 7)]);
    let now = judge(&facts, vec![window(&facts, 1, 3)], 100);
    assert_eq!((levels(&now), now.beyond), ([Critical, Good, Critical], 2));
    let reason = now.about(Subject::Recovery).next().unwrap();
    for part in [
        "since 2026-01-01 00:00:50 UTC",
        "000000010000000000000004 to 000000010000000000000005",
        "0007",
    ] {
        assert!(reason.what.contains(part), "{reason:?}");
    }
    assert!(reason.next.contains("walden backup take"));
    assert_eq!(
        now.protected.unwrap().until,
        at(50),
        "not when the last segment was stored"
    );
    let fresh = judge(&facts, vec![window(&facts, 1, 3)], 69);
    assert_eq!(
        (levels(&fresh), fresh.beyond),
        ([Good; 3], 2),
        "a later segment may be stored first"
    );
}

#[test]
fn wal_that_breaks_off_is_no_gap_and_as_bad() {
    let facts = facts(&[(1, 2), (1, 3), (1, 4)]);
    let mut broken = window(&facts, 1, 2);
    broken.to.lsn = Lsn(3 * testing::SEGMENT + 0x500);
    let now = judge(&facts, vec![broken], 100);
    assert_eq!((levels(&now), now.beyond), ([Critical, Good, Critical], 2));
    assert!(
        now.reasons[0]
            .what
            .contains("000000010000000000000003 break off at 0/3000500"),
        "{:?}",
        now.reasons
    );
}

#[test]
fn without_a_usable_backup_nothing_is_good() {
    let mut facts = facts(&[(1, 2)]);
    Arc::make_mut(&mut facts.backups)[0]
        .checksum_failures
        .push("base/1/2 block 3".into());
    let damaged = judge(&facts, vec![], 100);
    assert_eq!(
        (levels(&damaged), damaged.loss),
        ([Critical, Critical, Good], Loss::Everything)
    );
    Arc::make_mut(&mut facts.backups).clear();
    assert_eq!(
        levels(&judge(&facts, vec![], 100)),
        [Warning, Warning, Good],
        "on the first day"
    );
    assert_eq!(
        levels(&judge(&facts, vec![], 100_000)),
        [Critical, Critical, Good]
    );
    facts.damaged_backups.insert(
        "20260101-000000Z".parse().unwrap(),
        "permission denied".into(),
    );
    assert_eq!(
        levels(&judge(&facts, vec![], 100)),
        [Critical, Critical, Good]
    );
}

#[test]
fn a_cluster_that_archived_nothing_yet_has_lost_everything() {
    let mut facts = facts(&[]);
    Arc::make_mut(&mut facts.backups).clear();
    let now = judge(&facts, vec![], 100);
    assert_eq!(
        (levels(&now), now.loss, now.protected),
        ([Warning, Warning, Good], Loss::Everything, None)
    );
    assert_eq!(
        now.about(Subject::Rpo).next().unwrap().what,
        "no WAL is archived"
    );
}

#[test]
fn a_newer_backup_that_cannot_be_used_is_told_beside_the_one_that_can() {
    let mut facts = facts(&[(1, 2), (1, 3)]);
    let mut later = testing::backup("20260102-000000Z");
    (later.start_lsn, later.stop_lsn) =
        (Lsn(5 * testing::SEGMENT), Lsn(5 * testing::SEGMENT + 0x100));
    Arc::make_mut(&mut facts.backups).push(later);
    let without_wal = judge(&facts, vec![window(&facts, 1, 3)], 100);
    assert_eq!(
        (levels(&without_wal), without_wal.backup),
        ([Good, Warning, Good], Some(at(1)))
    );
    assert!(
        without_wal.reasons[0]
            .what
            .contains("20260102-000000Z cannot be used: WAL between")
    );
    Arc::make_mut(&mut facts.backups)[1]
        .checksum_failures
        .push("base/1/2 block 3".into());
    assert_eq!(
        levels(&judge(&facts, vec![window(&facts, 1, 3)], 100))[1],
        Critical,
        "the server's files are damaged"
    );
}

#[test]
fn a_backup_ages_and_one_from_the_future_comes_from_another_clock() {
    let facts = facts(&[(1, 2)]);
    let idle = |second| {
        vec![Window {
            idle_until: Some(at(second)),
            ..window(&facts, 1, 2)
        }]
    };
    let days = 8 * 86_400;
    assert_eq!(levels(&judge(&facts, idle(days), days)), [Good; 3]);
    assert_eq!(
        levels(&judge(&facts, idle(days), days + 60)),
        [Good, Warning, Good]
    );
    assert_eq!(
        levels(&judge(&facts, idle(0), -3600)),
        [Unknown, Warning, Good]
    );
}

#[test]
fn the_newest_timeline_counts_and_not_an_old_primary_that_goes_on() {
    let mut facts = facts(&[(1, 2), (1, 3), (1, 4), (2, 3)]);
    let history = TimelineHistory::parse(TimelineId(2), "1\t0/3000100\tpromoted\n").unwrap();
    let told = |facts: &Facts, windows: Windows| {
        Health::of(
            facts,
            &windows,
            &missing_wal(facts),
            &health_limits(),
            at(100),
        )
    };
    let old = Window {
        idle_until: Some(at(99)),
        ..window(&facts, 1, 4)
    };
    let unknown = UnknownTimeline {
        timeline: TimelineId(2),
        why: "its history file is not archived".into(),
    };
    let lost = told(
        &facts,
        Windows {
            windows: vec![old.clone()],
            unknown: vec![unknown],
            ..Windows::default()
        },
    );
    assert_eq!(
        (levels(&lost), lost.loss, lost.protected),
        ([Critical, Good, Critical], Loss::Unknown, None)
    );
    facts.histories.insert(TimelineId(2), history.clone());
    let led = told(
        &facts,
        Windows {
            windows: vec![old.clone(), window(&facts, 2, 3)],
            ..Windows::default()
        },
    );
    assert_eq!(
        (levels(&led), led.protected.unwrap().until),
        ([Good; 3], at(50))
    );
    let stranded = judge(&facts, vec![old.clone()], 100);
    assert_eq!(
        (levels(&stranded), stranded.beyond),
        ([Critical, Good, Critical], 1)
    );
    facts.histories.insert(
        TimelineId(3),
        TimelineHistory {
            timeline: TimelineId(3),
            ..history
        },
    );
    let begun = told(
        &facts,
        Windows {
            windows: vec![old, window(&facts, 2, 3)],
            ..Windows::default()
        },
    );
    assert_eq!(
        levels(&begun),
        [Good, Good, Warning],
        "of timeline 3 nothing is archived"
    );
}

#[test]
fn what_the_index_does_not_know_is_unknown_and_waiting_wal_is_critical() {
    let facts = facts(&[(1, 2)]);
    let mut unindexed = window(&facts, 1, 2);
    unindexed.to.time = None;
    let now = judge(&facts, vec![unindexed], 100);
    assert_eq!(
        (levels(&now), now.loss, now.protected),
        ([Unknown, Good, Good], Loss::Unknown, None)
    );
    let windows = Windows {
        windows: vec![window(&facts, 1, 2)],
        ..Windows::default()
    };
    let waiting = |since| {
        let now = Now {
            waiting_since: Some(at(since)),
            ..at(700).into()
        };
        Health::of(&facts, &windows, &[], &health_limits(), now).level_of(Subject::Rpo)
    };
    assert_eq!([waiting(99), waiting(101)], [Critical, Warning]);
}

#[test]
fn the_settings_say_from_where_on_something_is_not_good() {
    let facts = facts(&[(1, 2)]);
    let windows = Windows {
        windows: vec![window(&facts, 1, 2)],
        ..Windows::default()
    };
    let now = Now {
        waiting: Some(3),
        waiting_since: Some(at(60)),
        ..at(100).into()
    };
    let broken = |limits: Limits| {
        let health = Health::of(&facts, &windows, &[], &limits, now);
        health
            .reasons
            .iter()
            .map(|reason| reason.rule)
            .collect::<Vec<_>>()
    };
    let (limits, seconds) = (health_limits(), Duration::from_secs);
    assert_eq!(broken(limits.clone()), []);
    for (rule, holds, fails) in [
        (
            Rule::RpoExceeded,
            Limits {
                rpo: seconds(50),
                ..limits.clone()
            },
            Limits {
                rpo: seconds(49),
                ..limits.clone()
            },
        ),
        (
            Rule::WalWaits,
            Limits {
                wal_wait: seconds(40),
                ..limits.clone()
            },
            Limits {
                wal_wait: seconds(39),
                ..limits.clone()
            },
        ),
        (
            Rule::Backlog,
            Limits {
                backlog: 3,
                ..limits.clone()
            },
            Limits {
                backlog: 2,
                ..limits.clone()
            },
        ),
        (
            Rule::BackupOld,
            Limits {
                backup_age: seconds(99),
                ..limits.clone()
            },
            Limits {
                backup_age: seconds(98),
                ..limits.clone()
            },
        ),
    ] {
        assert_eq!((broken(holds), broken(fails)), (vec![], vec![rule]));
    }
    let none = Facts {
        backups: Vec::new().into(),
        ..facts.clone()
    };
    let first = |limit| {
        let limits = Limits {
            first_backup: seconds(limit),
            ..limits.clone()
        };
        Health::of(&none, &Windows::default(), &[], &limits, now).level()
    };
    assert_eq!([first(40), first(39)], [Warning, Critical]);
    let ahead = |limit| {
        let limits = Limits {
            clock_skew: seconds(limit),
            ..limits.clone()
        };
        Health::of(&facts, &windows, &[], &limits, at(-3))
            .reasons
            .len()
    };
    assert_eq!(
        [ahead(53), ahead(52), ahead(3)],
        [0, 1, 2],
        "the commit, then the backup"
    );
}

#[test]
fn spans_are_told_in_their_largest_unit() {
    let told = |seconds| words(TimeDelta::seconds(seconds));
    assert_eq!(
        [told(-1), told(119), told(120), told(7200), told(172_800)],
        ["0 s", "119 s", "2 min", "2 h", "2 days"]
    );
}

#[test]
fn what_could_not_be_stored_is_told_until_it_is_and_a_refusal_for_a_while() {
    let facts = facts(&[(1, 2)]);
    let windows = Windows {
        windows: vec![window(&facts, 1, 2)],
        ..Windows::default()
    };
    let broken = |now: Now| {
        let health = Health::of(&facts, &windows, &[], &health_limits(), now);
        let rules = health.reasons.iter().map(|reason| reason.rule);
        rules.collect::<Vec<_>>()
    };
    let now = Now::from(at(700));
    let fails = Now {
        fails_since: Some(at(1)),
        ..now
    };
    let refused = |second| Now {
        refused_at: Some(at(second)),
        ..now
    };
    let (storing, identity) = (Rule::StoringFails, Rule::IdentityConflict);
    let is_told = |now, rule| broken(now).contains(&rule);
    assert!(is_told(fails, storing) && !is_told(now, storing));
    assert_eq!(storing.level(), Critical);
    assert!(is_told(refused(100), identity) && !is_told(refused(99), identity));
    assert!(!is_told(refused(100), storing));
}
