//! What will be there if things go on: new items come as often as before, and the policy is applied.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::decide::decide;
use super::item::{BackupWal, Condition, Holdings, Item, ItemId, ItemKind, Needs, WalPlace};
use super::plan::Plan;
use super::policy::Policy;
use crate::postgres::catalog::{WalRange, WalRanges};
use crate::postgres::types::{Lsn, SegmentName, TimelineId};

/// Of one kind and series.
pub type SeriesKey = (ItemKind, String);

/// A policy, and what is there at a moment.
pub struct Simulation<'a> {
    pub holdings: Holdings,
    policy: &'a Policy,
    /// How often items come, and when the next one does.
    coming: BTreeMap<SeriesKey, (TimeDelta, DateTime<Utc>)>,
    timeline: TimelineId,
    /// Of the segment that is written.
    number: u64,
}

impl<'a> Simulation<'a> {
    /// Goes on from what is there. `every`: how often items of each series come, the next one that long after the newest.
    pub fn new(
        holdings: Holdings,
        policy: &'a Policy,
        every: BTreeMap<SeriesKey, TimeDelta>,
    ) -> Self {
        let ranges = &holdings.wal.ranges;
        let last = ranges.iter().last();
        let of_histories = holdings.wal.histories.keys().next_back().copied();
        let timeline = last
            .map(WalRange::timeline)
            .max(of_histories)
            .unwrap_or(TimelineId(1));
        let size = ranges.segment_size();
        let number = ranges
            .iter()
            .map(|range| range.last.number(size) + 1)
            .max()
            .unwrap_or(1);
        let coming = every.into_iter().map(|(series, every)| {
            let of_series = |item: &&Item| item.id.kind == series.0 && item.series == series.1;
            let newest = holdings
                .items
                .iter()
                .filter(of_series)
                .map(|item| item.time)
                .max();
            let next = newest.map_or(holdings.now, |newest| (newest + every).max(holdings.now));
            (series, (every, next))
        });
        Self {
            coming: coming.collect(),
            policy,
            timeline,
            number,
            holdings,
        }
    }

    /// Lets time pass: all items come that are due, in their order.
    pub fn pass_until(&mut self, until: DateTime<Utc>) {
        loop {
            let due = self.coming.iter().filter(|(_, (_, next))| *next <= until);
            let Some((series, time)) = due
                .map(|(series, (_, next))| (series.clone(), *next))
                .min_by_key(|due| due.1)
            else {
                break;
            };
            if let Some((every, next)) = self.coming.get_mut(&series) {
                *next += *every;
            }
            self.make(series, time);
        }
        self.holdings.now = until;
    }

    /// Applies the policy, and tells what it decided.
    pub fn apply(&mut self) -> Plan {
        let plan = decide(&self.holdings, self.policy);
        let gone = plan.deletions();
        self.holdings
            .items
            .retain(|item| gone.items.binary_search(&item.id).is_err());
        if !gone.wal.is_empty() {
            let size = self.holdings.wal.ranges.segment_size();
            let mut left = WalRanges::new(size);
            for kept in plan.wal.iter().filter(|wal| !gone.wal.contains(&wal.span)) {
                let stored = self.holdings.wal.ranges.holding(kept.span.first);
                let (first_stored, last_stored) = stored
                    .map_or((self.holdings.now, self.holdings.now), |range| {
                        (range.first_stored, range.last_stored)
                    });
                left.append(WalRange {
                    first: kept.span.first,
                    last: kept.span.last,
                    segments: kept.segments,
                    stored_bytes: kept.stored_bytes,
                    first_stored,
                    last_stored,
                });
            }
            self.holdings.wal.ranges = left;
        }
        plan
    }

    fn make(&mut self, (kind, series): SeriesKey, time: DateTime<Utc>) {
        let wal = (kind == ItemKind::Base).then(|| self.write(time));
        let name = format!(
            "{series}{}{}",
            if series.is_empty() { "" } else { "_" },
            time.format("%Y%m%d-%H%M%SZ")
        );
        self.holdings.items.push(Item {
            id: ItemId::new(kind, name),
            series,
            began: time,
            time,
            size: 0,
            condition: Condition::Good,
            wal,
            snapshot: None,
            needs: Needs::Known(Vec::new()),
        });
    }

    /// WAL until a base backup's begin, and that of the base backup.
    fn write(&mut self, time: DateTime<Utc>) -> BackupWal {
        let size = self.holdings.wal.ranges.segment_size();
        let (start, stop) = (self.number + 1, self.number + 2);
        for number in self.number..=stop {
            self.holdings.wal.ranges.add(
                SegmentName::from_number(self.timeline, number, size),
                0,
                time,
            );
        }
        self.number = stop + 1;
        let place = |number: u64| WalPlace {
            timeline: self.timeline,
            lsn: Lsn(number * size.bytes() + 0x28),
        };
        BackupWal {
            start: place(start),
            stop: place(stop),
        }
    }
}

/// How often items of each series came lately; series of a single item are left out.
pub fn habits(holdings: &Holdings) -> BTreeMap<SeriesKey, TimeDelta> {
    const NEWEST: usize = 8;
    let mut times: BTreeMap<SeriesKey, Vec<DateTime<Utc>>> = BTreeMap::new();
    for item in holdings.items.iter().filter(|item| item.is_good()) {
        times
            .entry((item.id.kind, item.series.clone()))
            .or_default()
            .push(item.time);
    }
    let habit = |(series, mut times): (SeriesKey, Vec<DateTime<Utc>>)| {
        times.sort_unstable();
        let mut gaps: Vec<TimeDelta> = times
            .windows(2)
            .rev()
            .take(NEWEST)
            .map(|pair| pair[1] - pair[0])
            .collect();
        gaps.sort_unstable();
        let usual = gaps.get(gaps.len() / 2)?;
        Some((series, (*usual).max(TimeDelta::minutes(10))))
    };
    times.into_iter().filter_map(habit).collect()
}

#[cfg(test)]
#[path = "years.rs"]
mod years;
