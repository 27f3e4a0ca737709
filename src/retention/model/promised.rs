//! What is promised, told from the whole record by brute force, and looked for in what is left.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;

use super::super::{Condition, Item, ItemId, ItemKind, Keep, Needs, Policy, Tier};
use super::world::{World, Written, size};
use crate::postgres::catalog::{
    BackupDescription, Facts, FoundRecord, NoIndex, PlanInput, ProbeQuery, ProbeResult,
    RestoreRequest, Target, TimelineChoice, WalRanges, Window, plan, testing, windows,
};
use crate::postgres::types::{Lsn, TimelineId};

/// Looks for every promise in what is left.
pub fn check(world: &World, policy: &Policy, at: &str) {
    let at = format!("{at} at {}", world.now);
    let ids: BTreeSet<&ItemId> = world.left.items.iter().map(|item| &item.id).collect();
    for id in promised_items(world, policy) {
        assert!(
            ids.contains(&id),
            "{at}: {id} was promised\n{policy:?}\n{}",
            world.history_of(&id)
        );
    }
    for item in &world.left.items {
        if let Needs::Known(needs) = &item.needs {
            let lost = needs.iter().find(|id| !ids.contains(id));
            assert!(lost.is_none(), "{at}: {} needs {lost:?}", item.id);
        }
    }
    let left = facts(world, &world.left.items, world.left.wal.ranges.clone());
    restorable(&left, &at);
    windows_hold(world, policy, &left, &at);
    leased_wal_is_there(world, &at);
}

/// Good ones whose times are right; in a world of wrong clocks those that were made under a right one.
fn good(world: &World) -> impl Iterator<Item = (&Item, DateTime<Utc>)> {
    let made = |item: &Item| world.made[&item.id];
    let rightly = move |item: &&Item| (made(item) - item.time).num_hours() == 0;
    let good = world
        .items
        .iter()
        .filter(|item| item.is_good())
        .filter(rightly);
    good.map(move |item| (item, made(item)))
}

fn promised_items(world: &World, policy: &Policy) -> BTreeSet<ItemId> {
    let mut promised = BTreeSet::new();
    type Made<'a> = Vec<(&'a Item, DateTime<Utc>)>;
    let mut series: BTreeMap<(ItemKind, &str), Made<'_>> = BTreeMap::new();
    for (item, made) in good(world) {
        series
            .entry((item.id.kind, &item.series))
            .or_default()
            .push((item, made));
    }
    for ((kind, _), mut items) in series {
        items.sort_by_key(|(item, _)| (item.time, &item.id));
        let kind_policy = policy.of(kind);
        let reference = items.last().unwrap().0.time;
        for (tier, keep) in kind_policy.tiers.iter() {
            let label = |time| label(tier, time, policy.zone);
            let mut firsts: Vec<&Item> = Vec::new();
            for (item, _) in &items {
                if firsts
                    .last()
                    .is_none_or(|last| label(last.time) != label(item.time))
                {
                    firsts.push(item);
                }
            }
            let kept: Vec<&Item> = match keep {
                Keep::Count(count) => firsts.into_iter().rev().take(count as usize).collect(),
                Keep::For(span) => {
                    let from = reference - span;
                    firsts
                        .into_iter()
                        .filter(|item| item.time >= from || label(item.time) == label(from))
                        .collect()
                }
            };
            promised.extend(kept.into_iter().map(|item| item.id.clone()));
        }
        if !policy.limits(kind) {
            promised.extend(items.iter().map(|(item, _)| item.id.clone()));
        }
        let minimum = items.iter().rev().take(kind_policy.minimum.max(1) as usize);
        promised.extend(minimum.map(|(item, _)| item.id.clone()));
    }
    let there: BTreeSet<&ItemId> = world
        .left
        .pins
        .iter()
        .filter(|pin| pin.expires.is_none())
        .map(|pin| &pin.item)
        .collect();
    let leased = world.left.leases.iter().flat_map(|lease| &lease.items);
    promised.extend(there.into_iter().chain(leased).cloned());
    let unknown = world
        .items
        .iter()
        .filter(|item| matches!(item.condition, Condition::Unknown(_)));
    promised.extend(unknown.map(|item| item.id.clone()));
    promised
}

/// The period of a moment, as people write it.
fn label(tier: Tier, time: DateTime<Utc>, zone: Tz) -> String {
    let local = time.with_timezone(&zone);
    match tier {
        Tier::Hourly => time.format("%Y-%m-%d %H").to_string(),
        Tier::Daily => local.format("%Y-%m-%d").to_string(),
        Tier::Weekly => local.format("%G-W%V").to_string(),
        Tier::Monthly => local.format("%Y-%m").to_string(),
        Tier::Quarterly => format!("{}-Q{}", local.year(), local.month0() / 3),
        Tier::Yearly => local.format("%Y").to_string(),
    }
}

/// The catalog of some items and WAL.
fn facts(world: &World, items: &[Item], ranges: WalRanges) -> Facts {
    let base = items
        .iter()
        .filter(|item| item.id.kind == ItemKind::Base && item.is_good());
    let mut backups: Vec<BackupDescription> = base.map(description).collect();
    backups.sort_by(|a, b| a.id.cmp(&b.id));
    Facts {
        backups: backups.into(),
        histories: world.left.wal.histories.clone(),
        ..testing::facts_in(ranges)
    }
}

fn description(item: &Item) -> BackupDescription {
    let wal = item.wal.expect("of a good one its WAL is known");
    BackupDescription {
        segment_size: size(),
        start_lsn: wal.start.lsn,
        timeline: wal.start.timeline,
        stop_lsn: wal.stop.lsn,
        stop_timeline: wal.stop.timeline,
        started_at: item.began,
        stopped_at: item.time,
        ..testing::backup(&item.id.name)
    }
}

fn planned(facts: &Facts, request: &RestoreRequest) -> Result<(), String> {
    // A record begins wherever one is looked for.
    let probe = |query: &ProbeQuery| {
        anyhow::ensure!(
            facts.ranges.contains(query.segment),
            "{} is not there",
            query.segment
        );
        let lsn = query.from.max(query.begin);
        let found = FoundRecord {
            lsn,
            end: Lsn(lsn.0 + 8),
            outcome: None,
            tuple: None,
            made: None,
        };
        Ok(ProbeResult {
            found: Some(found),
            ..ProbeResult::default()
        })
    };
    let known = PlanInput {
        facts,
        index: &NoIndex,
        probe: &probe,
    };
    plan(&known, request)
        .map(|_| ())
        .map_err(|why| format!("{why:?}"))
}

/// Every good base backup that is left can be restored.
fn restorable(left: &Facts, at: &str) {
    for backup in left.backups.iter() {
        let request = RestoreRequest {
            backup: Some(backup.id.clone()),
            timeline: TimelineChoice::Number(backup.stop_timeline),
            ..RestoreRequest::new(Target::Immediate)
        };
        let planned = planned(left, &request);
        assert_eq!(planned, Ok(()), "{at}: backup {}", backup.id);
    }
}

/// All that could be restored of the time that is promised still can.
fn windows_hold(world: &World, policy: &Policy, left: &Facts, at: &str) {
    let newest = good(world)
        .filter(|(item, _)| item.id.kind == ItemKind::Base)
        .map(|(_, made)| made)
        .max();
    let Some(newest) = newest else {
        assert_eq!(
            left.ranges.iter().map(|range| range.segments).sum::<u64>(),
            world.written.len() as u64
        );
        return;
    };
    let Some(window) = policy.window else {
        assert_eq!(
            left.ranges.iter().map(|range| range.segments).sum::<u64>(),
            world.written.len() as u64
        );
        return;
    };
    let from = newest - window;
    let mut written = world.written.clone();
    written.sort_by_key(|written| written.name);
    let mut ranges = WalRanges::new(size());
    written
        .iter()
        .for_each(|written| ranges.add(written.name, 10, written.at));
    let full = facts(world, &world.items, ranges);
    let newest_timeline = world
        .left
        .wal
        .histories
        .keys()
        .next_back()
        .copied()
        .unwrap_or(TimelineId(1));
    let there = windows(left, &NoIndex).windows;
    for window in windows(&full, &NoIndex).windows {
        let own = || {
            written
                .iter()
                .filter(|written| written.name.timeline == window.timeline)
        };
        if window.timeline != newest_timeline && own().all(|written| written.at < from) {
            continue;
        }
        // All that comes later was written later.
        let before = path_until(world, &window, &written, from);
        let begin = window.from.lsn.max(before);
        if begin >= window.to.lsn {
            continue;
        }
        let holds = |left: &Window| {
            left.timeline == window.timeline
                && left.from.lsn <= begin
                && window.to.lsn <= left.to.lsn
        };
        assert!(
            there.iter().any(holds),
            "{at}: {begin} of {window:?}\nis not in {there:?}\n{policy:?}\n{:?}",
            world
                .left
                .items
                .iter()
                .filter(|item| item.id.kind == ItemKind::Base)
                .map(|item| (
                    &item.id.name,
                    item.time - world.made[&item.id],
                    item.is_good()
                ))
                .collect::<Vec<_>>()
        );
        let middle = Lsn((begin.0 + window.to.lsn.0) / 2);
        for lsn in [begin, middle, Lsn(window.to.lsn.0 - 8)] {
            let request = RestoreRequest {
                timeline: TimelineChoice::Number(window.timeline),
                ..RestoreRequest::new(Target::Lsn(lsn))
            };
            let (was, is) = (planned(&full, &request), planned(left, &request));
            assert!(
                was.is_err() || is.is_ok(),
                "{at}: {lsn} on {}: {is:?}\n{policy:?}",
                window.timeline
            );
        }
    }
    let latest = RestoreRequest::new(Target::Latest);
    if planned(&full, &latest).is_ok() {
        assert_eq!(planned(left, &latest), Ok(()), "{at}: the latest moment");
    }
}

/// The end of the last segment of the window's path that was written at or before a time.
fn path_until(world: &World, window: &Window, written: &[Written], time: DateTime<Utc>) -> Lsn {
    let histories = &world.left.wal.histories;
    let on_path = |timeline: TimelineId, lsn: Lsn| match histories.get(&window.timeline) {
        Some(history) => history.timeline_at(lsn) == timeline,
        None => timeline == window.timeline,
    };
    let until = written.iter().filter(|written| {
        written.at <= time && on_path(written.name.timeline, Lsn(written.name.end(size()).0 - 1))
    });
    until
        .map(|written| written.name.end(size()))
        .max()
        .unwrap_or_default()
}

fn leased_wal_is_there(world: &World, at: &str) {
    for name in &world.leased {
        assert!(
            world.left.wal.ranges.contains(*name),
            "{at}: {name} is leased"
        );
    }
}
