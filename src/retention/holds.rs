//! What still holds data from before a moment, and when it will be gone.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::decide::decide;
use super::item::{Holdings, Item, ItemId, ItemKind};
use super::plan::{KeepReason, Plan, WalDecision, WalReason, WalVerdict};
use super::policy::Policy;
use super::simulate::{Simulation, habits};
use crate::postgres::catalog::WalSpan;
use crate::postgres::types::{SegmentName, TimelineId};

/// How far ahead is looked.
const HORIZON: TimeDelta = TimeDelta::days(20 * 366);
/// So long each day is looked at, later each week.
const DAILY: TimeDelta = TimeDelta::days(60);

/// When something will be gone if things go on as they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    By(DateTime<Utc>),
    /// Nothing that is known will ever let it go.
    Never,
}

/// Something that holds data from before the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Item {
        id: ItemId,
        series: String,
        began: DateTime<Utc>,
        size: u64,
    },
    Wal {
        span: WalSpan,
        stored_bytes: u64,
    },
}

/// It, why it stays now, and when it will be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub held: Held,
    pub because: String,
    pub gone: Gone,
}

/// Everything that may hold data from before a moment: items that began before it, and WAL up to the first base backup
/// that began later. Readers of now are taken to be done soon.
pub fn holds(holdings: &Holdings, policy: &Policy, before: DateTime<Utc>) -> Vec<Hold> {
    let now = decide(holdings, policy);
    let mut holds = found(holdings, &now, before);
    let mut every = habits(holdings);
    for item in &holdings.items {
        let days = if item.id.kind == ItemKind::Base { 7 } else { 1 };
        every
            .entry((item.id.kind, item.series.clone()))
            .or_insert(TimeDelta::days(days));
    }
    every.retain(|(kind, _), _| policy.limits(*kind));
    let without_readers = Holdings {
        leases: Vec::new(),
        ..holdings.clone()
    };
    let mut simulation = Simulation::new(without_readers, policy, every);
    let (mut plan, mut time) = (simulation.apply(), holdings.now);
    while time < holdings.now + HORIZON {
        note(&mut holds, &simulation.holdings, time);
        if holds
            .iter()
            .filter(|hold| hold.gone == Gone::Never)
            .all(|hold| is_endless(hold, &plan))
        {
            break;
        }
        time += TimeDelta::days(if time < holdings.now + DAILY { 1 } else { 7 });
        simulation.pass_until(time);
        plan = simulation.apply();
    }
    holds
}

/// What holds such data now.
fn found(holdings: &Holdings, plan: &Plan, before: DateTime<Utc>) -> Vec<Hold> {
    let items: BTreeMap<&ItemId, &Item> =
        holdings.items.iter().map(|item| (&item.id, item)).collect();
    let of_items = plan.items.iter().filter_map(|decision| {
        let item = items.get(&decision.id).filter(|item| item.began < before)?;
        let (id, series) = (item.id.clone(), item.series.clone());
        let held = Held::Item {
            id,
            series,
            began: item.began,
            size: item.size,
        };
        Some(Hold {
            held,
            because: decision.verdict.because(),
            gone: Gone::Never,
        })
    });
    let of_wal = plan.wal.iter().filter_map(|wal| {
        let span = until(holdings, wal, before)?;
        let size = holdings.wal.ranges.segment_size();
        let share = u128::from(wal.stored_bytes) * u128::from(span.segments(size))
            / u128::from(wal.segments);
        let held = Held::Wal {
            span,
            stored_bytes: share as u64,
        };
        Some(Hold {
            held,
            because: wal.verdict.because(),
            gone: Gone::Never,
        })
    });
    of_items.chain(of_wal).collect()
}

/// The part of some WAL that may have been written before a moment: up to the segment in which a base backup of its
/// timeline begins that began later.
fn until(holdings: &Holdings, wal: &WalDecision, before: DateTime<Utc>) -> Option<WalSpan> {
    let size = holdings.wal.ranges.segment_size();
    let timeline: TimelineId = wal.span.timeline();
    let later = holdings
        .items
        .iter()
        .filter(|item| item.is_good() && item.began >= before);
    let starts = later
        .filter_map(|item| Some(item.wal?.start))
        .filter(|start| start.timeline == timeline);
    let until = starts
        .map(|start| SegmentName::containing(timeline, start.lsn, size))
        .min();
    let last = until.map_or(wal.span.last, |until| until.min(wal.span.last));
    (wal.span.first <= last).then_some(WalSpan {
        first: wal.span.first,
        last,
    })
}

/// Notes what is gone by now.
fn note(holds: &mut [Hold], left: &Holdings, time: DateTime<Utc>) {
    let ids: BTreeSet<&ItemId> = left.items.iter().map(|item| &item.id).collect();
    for hold in holds.iter_mut().filter(|hold| hold.gone == Gone::Never) {
        let is_there = match &hold.held {
            Held::Item { id, .. } => ids.contains(id),
            Held::Wal { span, .. } => left.wal.ranges.iter().any(|range| {
                span.overlaps(&WalSpan {
                    first: range.first,
                    last: range.last,
                })
            }),
        };
        if !is_there {
            hold.gone = Gone::By(time);
        }
    }
}

/// Whether time alone changes nothing about it.
fn is_endless(hold: &Hold, plan: &Plan) -> bool {
    match &hold.held {
        Held::Item { id, .. } => plan
            .item(id)
            .is_some_and(|item| item.reasons().iter().any(is_endless_reason)),
        Held::Wal { span, .. } => {
            plan.wal
                .iter()
                .filter(|wal| wal.span.overlaps(span))
                .any(|wal| match &wal.verdict {
                    WalVerdict::Keep(reasons) => reasons.iter().any(|reason| match reason {
                        WalReason::NoPolicy
                        | WalReason::PathUnknown { .. }
                        | WalReason::ClockWrong => true,
                        WalReason::Backup { item } | WalReason::MayBeNeededBy { item } => plan
                            .item(item)
                            .is_some_and(|item| item.reasons().iter().any(is_endless_reason)),
                        _ => false,
                    }),
                    WalVerdict::Delete => false,
                })
        }
    }
}

fn is_endless_reason(reason: &KeepReason) -> bool {
    matches!(
        reason,
        KeepReason::Pin { expires: None, .. }
            | KeepReason::Unknown { .. }
            | KeepReason::PathUnknown { .. }
            | KeepReason::NoPolicy
    )
}
