//! A cluster that lives for years: backups and dumps come and fail, timelines branch, clocks go wrong, readers read.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::{
    BackupWal, Condition, Holdings, Item, ItemId, ItemKind, Lease, LeasedWal, Needs, Pin, WalFacts,
    WalPlace,
};
use crate::postgres::catalog::WalRanges;
use crate::postgres::types::{
    HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId,
};

const SEGMENT: u64 = 1 << 20;
/// So many steps clocks are right between two errors: one that comes back at once lasts longer than three days, which is not
/// noticed (docs/operations/retention.md).
const STEPS_BETWEEN: u32 = 6;

pub fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT as u32).unwrap()
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// An archived segment, and when it was really written.
#[derive(Clone, Copy)]
pub struct Written {
    pub name: SegmentName,
    pub at: DateTime<Utc>,
}

pub struct World {
    pub random: Random,
    /// Of deletions alone: what happens does not depend on them.
    pub order: Random,
    pub steady: bool,
    wrong_clocks: bool,
    /// By how much all clocks are wrong, and for how many steps more.
    wrong: (TimeDelta, u32),
    /// Steps since they were.
    right_for: u32,
    /// The true time.
    pub now: DateTime<Utc>,
    timeline: TimelineId,
    lsn: u64,
    /// All that ever was.
    pub items: Vec<Item>,
    /// When each was really made.
    pub made: BTreeMap<ItemId, DateTime<Utc>>,
    pub written: Vec<Written>,
    /// What is there.
    pub left: Holdings,
    /// WAL that was there when somebody began to read it.
    pub leased: Vec<SegmentName>,
    /// What went, and why, for whoever reads a failure.
    pub told: Vec<String>,
}

impl World {
    pub fn new(random: Random, wrong_clocks: bool) -> Self {
        let now = "2021-01-01T00:00:00Z".parse().unwrap();
        let left = Holdings {
            items: Vec::new(),
            wal: WalFacts {
                ranges: WalRanges::new(size()),
                histories: BTreeMap::new(),
                unread_histories: BTreeMap::new(),
            },
            pins: Vec::new(),
            leases: Vec::new(),
            now,
        };
        Self {
            order: Random(random.0 ^ 1),
            random,
            steady: false,
            wrong_clocks,
            wrong: (TimeDelta::zero(), 0),
            right_for: STEPS_BETWEEN,
            now,
            timeline: TimelineId(1),
            lsn: 5 * SEGMENT,
            items: Vec::new(),
            made: BTreeMap::new(),
            written: Vec::new(),
            left,
            told: Vec::new(),
            leased: Vec::new(),
        }
    }

    /// One without readers and pins, and without long breaks.
    pub fn steady(random: Random) -> Self {
        Self {
            steady: true,
            ..Self::new(random, false)
        }
    }

    /// What the clocks show.
    fn shown(&self) -> DateTime<Utc> {
        self.now + self.wrong.0
    }

    /// Some days at once.
    pub fn go_on(&mut self) {
        let hours = match self.random.below(12) {
            _ if self.steady => 20 + self.random.below(8),
            0 => 24 * (10 + self.random.below(60)),
            1..4 => 1 + self.random.below(12),
            _ => 20 + self.random.below(100),
        };
        self.wait(hours);
        self.write(1);
        if self.random.below(14) == 0 {
            self.promote();
        }
        self.clocks();
        for _ in 0..1 + self.random.below(2) {
            self.back_up();
        }
        for database in ["shop", "mail"] {
            for kind in [ItemKind::Dump, ItemKind::Schema] {
                (u64::from(!self.steady)..2 + self.random.below(2))
                    .for_each(|_| self.dump(kind, database));
            }
        }
        self.left.now = self.shown();
        if !self.steady {
            self.readers();
            self.become_known();
        }
    }

    fn wait(&mut self, hours: u64) {
        let minutes = hours * 60 + self.random.below(60);
        self.now += TimeDelta::minutes(minutes as i64);
    }

    /// Clocks jump and come back before they are believed.
    fn clocks(&mut self) {
        let (offset, steps) = self.wrong;
        self.right_for = if steps == 0 { self.right_for + 1 } else { 0 };
        self.wrong = match steps {
            0 | 1
                if self.wrong_clocks
                    && steps == 0
                    && self.items.len() > 200
                    && self.random.below(8) == 0
                    && self.right_for >= STEPS_BETWEEN =>
            {
                let days = [1000, 2000, 5000, 30_000][self.random.below(4) as usize];
                let days = if self.random.below(2) == 0 {
                    -(days / 20).min(400)
                } else {
                    days
                };
                let offset = TimeDelta::days(days);
                if self.fits(offset) {
                    (TimeDelta::zero(), 0)
                } else {
                    (offset, 1)
                }
            }
            0 | 1 => (TimeDelta::zero(), 0),
            more => (offset, more - 1),
        };
    }

    /// Whether nothing shows such an error, which is documented (docs/operations/retention.md): what is made now still seems
    /// later than all on its path, or an error before it helps it to three days.
    fn fits(&self, offset: TimeDelta) -> bool {
        if offset > TimeDelta::zero() {
            return self.left.items.iter().any(|item| item.time > self.now);
        }
        let history = self.history();
        let on_path = |item: &&Item| {
            let place = item.place();
            place.is_some_and(|place| history.timeline_at(place.lsn) == place.timeline)
        };
        let rightly = |item: &&Item| item.time == self.made[&item.id];
        let newest = self.items.iter().filter(rightly).filter(on_path);
        let newest = newest.map(|item| item.time).max();
        let until = self.now + offset + TimeDelta::days(5);
        newest.is_none_or(|newest| newest < until)
    }

    /// Ends the segment, and writes more.
    fn write(&mut self, more: u64) {
        let until = self.lsn / SEGMENT + 1 + more;
        for number in self.lsn / SEGMENT..until {
            let name = SegmentName::from_number(self.timeline, number, size());
            self.archive(name);
        }
        self.lsn = until * SEGMENT;
    }

    fn archive(&mut self, name: SegmentName) {
        if self.written.iter().all(|written| written.name != name) {
            self.written.push(Written { name, at: self.now });
            self.left.wal.ranges.add(name, 10, self.now);
        }
    }

    /// A promotion here, or a recovery to some place before.
    fn promote(&mut self) {
        let history = self.history();
        match self.restorable() {
            Some(place) if !self.steady && self.random.below(2) == 0 => {
                self.lsn = place.lsn.0 + 0x100
            }
            _ => self.lsn += self.random.below(SEGMENT - 1),
        }
        let newest = self
            .left
            .wal
            .histories
            .keys()
            .next_back()
            .map_or(1, |timeline| timeline.0);
        let mut ancestors = history.ancestors;
        ancestors.push(HistoryEntry {
            timeline: self.timeline,
            switch_lsn: Lsn(self.lsn),
            reason: String::new(),
        });
        self.timeline = TimelineId(newest + 1);
        let history = TimelineHistory {
            timeline: self.timeline,
            ancestors,
        };
        self.left.wal.histories.insert(self.timeline, history);
        self.write(0);
        if self.random.below(2) == 0 {
            self.left_behind();
        }
    }

    /// Where a base backup of this timeline ends: there a recovery can end, too.
    fn restorable(&mut self) -> Option<WalPlace> {
        let good = self
            .left
            .items
            .iter()
            .filter(|item| item.is_good())
            .filter_map(|item| item.wal);
        let here: Vec<WalPlace> = good
            .map(|wal| wal.stop)
            .filter(|stop| stop.timeline == self.timeline)
            .collect();
        let chosen = self.random.below(here.len().max(1) as u64) as usize;
        here.get(chosen).copied()
    }

    /// The server that was left behind goes on for a while.
    fn left_behind(&mut self) {
        let parent = self.history().ancestors.last().unwrap().timeline;
        let last = self
            .written
            .iter()
            .filter(|written| written.name.timeline == parent)
            .map(|written| written.name);
        let last = last.max().map(|name| name.number(size()));
        let next = last.map_or(self.lsn / SEGMENT, |last| last + 1);
        (next..next + 3)
            .for_each(|number| self.archive(SegmentName::from_number(parent, number, size())));
    }

    fn history(&self) -> TimelineHistory {
        let root = || TimelineHistory::root(self.timeline);
        self.left
            .wal
            .histories
            .get(&self.timeline)
            .cloned()
            .unwrap_or_else(root)
    }

    fn condition(&mut self) -> Condition {
        match self.random.below(16) {
            0 if !self.steady => Condition::Unknown("it cannot be read".into()),
            1 => Condition::Bad("it is damaged".into()),
            _ => Condition::Good,
        }
    }

    fn back_up(&mut self) {
        let hours = self.random.below(20);
        self.wait(hours);
        let began = self.shown();
        let start = WalPlace {
            timeline: self.timeline,
            lsn: Lsn(self.lsn + 0x28),
        };
        let segments = self.random.below(3);
        self.write(segments);
        let stop = WalPlace {
            timeline: self.timeline,
            lsn: Lsn(self.lsn + 0x100),
        };
        self.write(0);
        self.wait(0);
        let condition = self.condition();
        let mut goods = self
            .left
            .items
            .iter()
            .filter(|item| item.id.kind == ItemKind::Base && item.is_good());
        let needs = match (self.random.below(5), goods.next_back()) {
            (0, Some(last)) if !self.steady => Needs::Known(vec![last.id.clone()]),
            _ => Needs::Known(Vec::new()),
        };
        let time = self.shown();
        self.add(ItemKind::Base, String::new(), |id| Item {
            id,
            series: String::new(),
            began,
            time,
            size: 100,
            condition,
            wal: Some(BackupWal { start, stop }),
            snapshot: None,
            needs,
        });
    }

    fn dump(&mut self, kind: ItemKind, database: &str) {
        let hours = self.random.below(4);
        self.wait(hours);
        let (time, condition) = (self.shown(), self.condition());
        let snapshot = Some(WalPlace {
            timeline: self.timeline,
            lsn: Lsn(self.lsn),
        });
        self.lsn += 8;
        self.add(kind, format!("{database}/"), |id| Item {
            id,
            series: database.into(),
            began: time,
            time,
            size: 10,
            condition,
            wal: None,
            snapshot,
            needs: Needs::Known(Vec::new()),
        });
    }

    fn add(&mut self, kind: ItemKind, folder: String, make: impl FnOnce(ItemId) -> Item) {
        // Base backups are named by their second, which is unique here as it is there.
        let mut named = self.shown();
        let name = |time: DateTime<Utc>| {
            ItemId::new(kind, format!("{folder}{}", time.format("%Y%m%d-%H%M%SZ")))
        };
        while self.made.contains_key(&name(named)) {
            named += TimeDelta::seconds(1);
        }
        let item = make(name(named));
        self.made.insert(item.id.clone(), self.now);
        self.items.push(item.clone());
        // What is not known of a base backup includes its WAL.
        let known = !matches!(item.condition, Condition::Unknown(_));
        self.left.items.push(Item {
            wal: item.wal.filter(|_| known),
            ..item
        });
    }

    /// What could not be read can be read again.
    fn become_known(&mut self) {
        for item in &mut self.items {
            if matches!(item.condition, Condition::Unknown(_)) && self.random.below(6) == 0 {
                item.condition = Condition::Good;
                let left = self.left.items.iter_mut().find(|left| left.id == item.id);
                *left.expect("what is not known is kept") = item.clone();
            }
        }
    }

    fn readers(&mut self) {
        let chosen = self.random.below(self.left.items.len().max(1) as u64) as usize;
        let Some(item) = self.left.items.get(chosen).cloned() else {
            return;
        };
        let id = self.random.next().to_string();
        match self.random.below(6) {
            0 => {
                self.left.leases.clear();
                self.leased.clear();
            }
            1 => {
                let wal = item.wal.filter(|_| item.is_good());
                let leased = wal.map(|wal| LeasedWal {
                    timeline: wal.stop.timeline,
                    from: wal.start.lsn,
                    until: None,
                });
                let there = |leased: &LeasedWal, name: SegmentName| {
                    name.timeline == leased.timeline
                        && name.end(size()) > leased.from
                        && self.left.wal.ranges.contains(name)
                };
                let names = self.written.iter().map(|written| written.name);
                let names = names.filter(|name| leased.iter().any(|leased| there(leased, *name)));
                self.leased.extend(names);
                let wal = leased.into_iter().collect();
                self.left.leases.push(Lease {
                    id,
                    holder: "a restore".into(),
                    items: vec![item.id],
                    wal,
                });
            }
            2 => {
                let expires = (self.random.below(2) == 0).then(|| self.now + TimeDelta::days(100));
                self.left.pins.push(Pin {
                    id,
                    item: item.id,
                    reason: "an audit".into(),
                    expires,
                });
            }
            3 => {
                self.left.pins.pop();
            }
            _ => (),
        }
    }
}
