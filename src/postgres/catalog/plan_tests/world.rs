//! A made-up archive: a tree of timelines with records, segments of which some are lost, and backups. It answers what an
//! index and a probe of a segment would, and says by trying everything what a restore must give.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::testing::{SEGMENT, facts_in};
use super::super::*;
use crate::postgres::layout::{BackupId, IdleMarker};
use crate::postgres::types::{
    HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId,
};
use crate::postgres::wal::{Commit, TablespaceMade, Timestamp};

pub fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT as u32).unwrap()
}

pub fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(TimelineId(timeline), number, size())
}

/// Second `n` of the tests' clock.
pub fn second(n: u64) -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(n as i64)
}

fn idle_marker(timeline: u32, lsn: u64, time: u64) -> IdleMarker {
    IdleMarker {
        timeline: TimelineId(timeline),
        lsn: Lsn(lsn),
        time: second(time),
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    Ended {
        xid: u32,
        time: u64,
        committed: bool,
    },
    Point(String),
    /// A change of a table by this transaction.
    Change(u32),
    Tablespace(u32),
    Nothing,
}

/// A record of the made-up WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rec {
    pub lsn: u64,
    pub end: u64,
    /// Which timeline wrote it.
    pub by: u32,
    pub says: Says,
}

impl Rec {
    fn last_segment(&self) -> u64 {
        (self.end - 1) / SEGMENT
    }

    fn segments(&self) -> std::ops::RangeInclusive<u64> {
        self.lsn / SEGMENT..=self.last_segment()
    }

    pub fn commit(&self) -> Option<Commit> {
        match self.says {
            Says::Ended {
                xid,
                time,
                committed: true,
            } => Some(Commit {
                lsn: Lsn(self.lsn),
                xid,
                time: second(time).into(),
            }),
            _ => None,
        }
    }

    fn found(&self) -> FoundRecord {
        let outcome = match self.says {
            Says::Ended {
                xid,
                time,
                committed,
            } => Some(FoundEnd {
                xid,
                time: second(time).into(),
                committed,
            }),
            _ => None,
        };
        let made = matches!(self.says, Says::Point(_)).then_some(Timestamp(0));
        FoundRecord {
            lsn: Lsn(self.lsn),
            end: Lsn(self.end),
            outcome,
            tuple: None,
            made,
        }
    }

    fn is_later(&self, time: Timestamp, or_at: bool) -> bool {
        let Says::Ended { time: this, .. } = self.says else {
            return false;
        };
        let this = Timestamp::from(second(this));
        this > time || or_at && this == time
    }

    fn is_wanted(&self, target: &ProbeTarget) -> bool {
        match (target, &self.says) {
            (ProbeTarget::Record, _) => true,
            (ProbeTarget::Later { time, or_at }, _) => self.is_later(*time, *or_at),
            (ProbeTarget::End(wanted), Says::Ended { xid, .. }) => wanted == xid,
            (ProbeTarget::RestorePoint(wanted), Says::Point(name)) => wanted == name,
            (ProbeTarget::Change(wanted), Says::Change(xid)) => wanted == xid,
            _ => false,
        }
    }
}

/// What a generated repository holds, as plain sets.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// For each timeline from 2 on: parent and switch LSN, if its history file is there.
    pub forks: Vec<(u32, u64, bool)>,
    /// Each segment's name, and when it was stored.
    pub segments: BTreeMap<(u32, u64), u64>,
    pub backups: Vec<BackupDescription>,
    /// The records that each timeline wrote itself.
    pub written: BTreeMap<u32, Vec<Rec>>,
    /// Segments that the index does not have, or knows nothing of.
    pub unknown: Vec<(u32, u64)>,
    /// Segments whose restore points the index does not name.
    pub unnamed: Vec<(u32, u64)>,
    /// Where WAL is broken: timeline, segment, LSN.
    pub broken: Option<(u32, u64, u64)>,
    /// A segment, of a timeline, that does not follow on the one before.
    pub unjoined: Option<(u32, u64)>,
    /// A timeline whose first segment does not follow on its parent's.
    pub torn: Option<u32>,
    /// Idle markers: timeline, LSN, second. All of them true.
    pub idle: Vec<(u32, u64, u64)>,
}

/// Where the model says that replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stops {
    Before(u64),
    After(u64),
    End,
}

impl World {
    pub fn history(&self, timeline: u32) -> TimelineHistory {
        if timeline == 1 {
            return TimelineHistory::root(TimelineId(1));
        }
        let (parent, switch, _) = self.forks[timeline as usize - 2];
        let mut ancestors = self.history(parent).ancestors;
        ancestors.push(HistoryEntry {
            timeline: TimelineId(parent),
            switch_lsn: Lsn(switch),
            reason: String::new(),
        });
        TimelineHistory {
            timeline: TimelineId(timeline),
            ancestors,
        }
    }

    pub fn facts(&self) -> Facts {
        let mut ranges = WalRanges::new(size());
        for ((timeline, number), stored) in &self.segments {
            ranges.add(name(*timeline, *number), 1000, second(*stored));
        }
        let known = self
            .forks
            .iter()
            .enumerate()
            .filter(|(_, fork)| fork.2)
            .map(|(at, _)| at as u32 + 2);
        Facts {
            backups: self.backups.clone().into(),
            histories: known
                .map(|timeline| (TimelineId(timeline), self.history(timeline)))
                .collect(),
            idle: self
                .idle
                .iter()
                .map(|(timeline, lsn, time)| idle_marker(*timeline, *lsn, *time))
                .collect(),
            ..facts_in(ranges)
        }
    }

    /// The plan, with every query answered.
    pub fn plan(&self, request: &RestoreRequest) -> Result<RecoveryPlan, NoPlan> {
        self.plan_with(&self.facts(), request)
    }

    pub fn plan_with(
        &self,
        facts: &Facts,
        request: &RestoreRequest,
    ) -> Result<RecoveryPlan, NoPlan> {
        plan(
            &PlanInput {
                facts,
                index: self,
                probe: &|query| Ok(self.result(query)),
            },
            request,
        )
    }

    /// The refusal.
    pub fn refused(&self, request: &RestoreRequest) -> Unreachable {
        match self.plan(request) {
            Err(NoPlan::Refused(refused)) => *refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// All records on the path of a timeline, in order.
    pub fn records(&self, timeline: u32) -> Vec<Rec> {
        let mut records = Vec::new();
        if timeline > 1 {
            let (parent, switch, _) = self.forks[timeline as usize - 2];
            records = self.records(parent);
            records.retain(|record| record.end <= switch);
        }
        records.extend(self.written.get(&timeline).cloned().unwrap_or_default());
        records
    }

    /// The timeline whose segment is read for a number.
    pub fn read(&self, timeline: u32, number: u64) -> u32 {
        let history = self.history(timeline);
        let begins = |each: &TimelineId| history.begin_of(*each).unwrap().0 / SEGMENT <= number;
        history.path().filter(begins).last().unwrap().0
    }

    pub fn kept(&self, timeline: u32, number: u64) -> bool {
        self.segments
            .contains_key(&(self.read(timeline, number), number))
    }

    /// The first segment of the timeline that is torn off, if a recovery along the path that begins in the segment `from`
    /// would have to get into it from the one before.
    pub fn torn_off(&self, timeline: u32, from: u64) -> Option<u64> {
        let torn = self.torn?;
        let first = self.history(timeline).begin_of(TimelineId(torn))?.0 / SEGMENT;
        (first > from && self.read(timeline, first) == torn).then_some(first)
    }

    pub fn first_missing(&self, timeline: u32, from: u64) -> u64 {
        (from..)
            .find(|number| !self.kept(timeline, *number))
            .unwrap()
    }

    /// The records that a segment holds the last byte of, if all of them is there.
    fn ending_in(&self, timeline: u32, number: u64) -> Vec<Rec> {
        let mut records = self.records(timeline);
        records.retain(|record| {
            record.last_segment() == number
                && record.segments().all(|each| self.kept(timeline, each))
        });
        records
    }

    pub fn result(&self, query: &ProbeQuery) -> ProbeResult {
        let mut result = ProbeResult::default();
        let number = query.segment.number(size());
        let timeline = query.segment.timeline.0;
        let broken = self
            .broken
            .filter(|broken| (broken.0, broken.1) == (query.segment.timeline.0, number));
        for record in self.ending_in(timeline, number) {
            if broken.is_some_and(|(_, _, lsn)| record.lsn >= lsn) {
                break;
            } else if result.found.is_some() {
                result.after = result.after.or(record.commit());
            } else if record.lsn >= query.from.0 && record.is_wanted(&query.target) {
                result.found = Some(record.found());
            } else {
                result.before = record.commit().or(result.before);
            }
        }
        result.broken = broken.map(|(_, _, lsn)| Lsn(lsn));
        result
    }

    /// Segments that are known for sure, and why no more of them are: one that is not in the index, or broken WAL, of
    /// which what lies before the break still counts.
    fn known(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> (Vec<(u64, Vec<Rec>)>, Option<Unknown>) {
        let mut known = Vec::new();
        for number in from..until {
            if number > from && self.unjoined == Some((timeline.0, number)) {
                return (known, Some(super::unjoined(timeline.0, number)));
            }
            match self.indexed(timeline.0, number) {
                Ok(records) => known.push((number, records)),
                Err(unknown) => return (known, Some(unknown)),
            }
            if let Err(broken) = self.check_broken(timeline.0, number) {
                return (known, Some(broken));
            }
        }
        (known, None)
    }

    /// What the index knows of a segment.
    fn indexed(&self, timeline: u32, number: u64) -> Result<Vec<Rec>, Unknown> {
        if self.unknown.contains(&(timeline, number))
            || !self.segments.contains_key(&(timeline, number))
        {
            return Err(Unknown::Segment(name(timeline, number)));
        }
        let mut records = self.ending_in(timeline, number);
        let broken = self
            .broken
            .filter(|(t, n, _)| (*t, *n) == (timeline, number));
        records.retain(|record| broken.is_none_or(|(_, _, lsn)| record.lsn < lsn));
        Ok(records)
    }

    fn check_broken(&self, timeline: u32, number: u64) -> Result<(), Unknown> {
        match self.broken {
            Some((t, n, lsn)) if (t, n) == (timeline, number) => Err(Unknown::Broken {
                segment: name(t, n),
                lsn: Lsn(lsn),
            }),
            _ => Ok(()),
        }
    }

    /// The timeline that a request means; `None` when where it comes from is not known, or it has not the event, or a
    /// recovery along it cannot end.
    pub fn timeline(&self, request: &RestoreRequest) -> Option<u32> {
        self.meant(request)
            .filter(|timeline| self.can_promote(*timeline))
    }

    fn meant(&self, request: &RestoreRequest) -> Option<u32> {
        let has_history = |timeline: u32| self.has_history(timeline);
        let number = match request.timeline {
            TimelineChoice::Number(number) => number.0,
            TimelineChoice::Latest => {
                let histories =
                    (2..self.forks.len() as u32 + 2).filter(|timeline| has_history(*timeline));
                let of_wal = self.segments.keys().map(|(timeline, _)| *timeline);
                let of_backups = self.backups.iter().map(|b| b.timeline.0);
                histories.chain(of_wal).chain(of_backups).max().unwrap_or(1)
            }
            TimelineChoice::Current => unreachable!("the model is not asked for it"),
        };
        let known =
            (number <= self.forks.len() as u32 + 1 && has_history(number)).then_some(number);
        let Target::Event(event) = &request.target else {
            return known;
        };
        if !has_history(event.timeline.0) {
            return None;
        }
        let record = |timeline: u32| {
            self.records(timeline)
                .into_iter()
                .find(|record| record.lsn == event.before.0)
        };
        let wanted = record(event.timeline.0);
        match known.filter(|timeline| record(*timeline) == wanted) {
            None if request.timeline == TimelineChoice::Latest => Some(event.timeline.0),
            found => found,
        }
    }

    /// The backups that can be used on a path, by their ends.
    pub fn usable(&self, timeline: u32, named: Option<&BackupId>) -> Vec<&BackupDescription> {
        let history = self.history(timeline);
        let on_path = |b: &BackupDescription| {
            let ends = history
                .end_of(b.timeline)
                .map(|end| end.unwrap_or(Lsn(u64::MAX)));
            history
                .begin_of(b.timeline)
                .is_some_and(|begin| begin <= b.start_lsn)
                && ends.is_some_and(|e| b.stop_lsn <= e)
        };
        let whole = |b: &BackupDescription| {
            (b.start_lsn.0 / SEGMENT..=(b.stop_lsn.0 - 1) / SEGMENT)
                .all(|number| self.kept(timeline, number))
        };
        let wanted = |b: &BackupDescription| match named {
            Some(id) => b.id == *id,
            None => b.checksum_failures.is_empty(),
        };
        let mut usable: Vec<_> = self
            .backups
            .iter()
            .filter(|b| on_path(b) && whole(b) && wanted(b))
            .collect();
        usable.sort_by_key(|b| (b.stop_lsn, b.stopped_at));
        usable
    }

    /// The first stop among the records behind `from` that can be replayed, as PostgreSQL stops.
    fn first_stop(
        &self,
        timeline: u32,
        from: u64,
        missing: u64,
        request: &RestoreRequest,
    ) -> Option<Stops> {
        let mut replayable = self.records(timeline);
        replayable.retain(|record| record.lsn >= from && record.last_segment() < missing);
        let stop = |record: &Rec| {
            if request.inclusive {
                Stops::After(record.lsn)
            } else {
                Stops::Before(record.lsn)
            }
        };
        replayable
            .iter()
            .find_map(|record| match (&request.target, &record.says) {
                (Target::Time(time), _) => record
                    .is_later((*time).into(), !request.inclusive)
                    .then_some(Stops::Before(record.lsn)),
                (Target::Lsn(lsn), _) => (record.lsn >= lsn.0).then(|| stop(record)),
                (Target::Event(event), _) => (record.lsn == event.before.0).then(|| stop(record)),
                (Target::Xid(xid), Says::Ended { xid: ended, .. }) => {
                    (ended == xid).then(|| stop(record))
                }
                (Target::Name(name), Says::Point(made)) => {
                    (made == name).then_some(Stops::After(record.lsn))
                }
                (Target::Immediate, _) => Some(Stops::Before(record.lsn)),
                _ => None,
            })
    }

    /// Whether a mark proves that nothing behind the archived WAL ended by a time.
    fn is_idle(&self, timeline: u32, end: u64, time: DateTime<Utc>) -> bool {
        let records = self.records(timeline);
        // Replay gets from it to the end.
        let is_last = |lsn: u64| {
            let last = records.iter().rev().find(|record| {
                let is_commit = matches!(
                    record.says,
                    Says::Ended {
                        committed: true,
                        ..
                    }
                );
                is_commit && record.end <= end
            });
            last.is_none_or(|last| {
                let gap =
                    (last.lsn / SEGMENT..end / SEGMENT).any(|number| !self.kept(timeline, number));
                gap || last.lsn < lsn
            })
        };
        let counts =
            |mark: &&(u32, u64, u64)| mark.0 == timeline && mark.1 <= end && is_last(mark.1);
        self.idle
            .iter()
            .filter(counts)
            .any(|(_, _, until)| time <= second(*until))
    }

    /// Which backup, and where replay stops, if the target can be reached exactly.
    pub fn expected(&self, request: &RestoreRequest) -> Option<(BackupId, Stops)> {
        let timeline = self.timeline(request)?;
        let usable = self.usable(timeline, request.backup.as_ref());
        let missing = |b: &BackupDescription| self.first_missing(timeline, b.start_lsn.0 / SEGMENT);
        let in_time = |b: &BackupDescription| match &request.target {
            Target::Time(time) => {
                b.stopped_at < *time || b.stopped_at == *time && request.inclusive
            }
            Target::Lsn(lsn) => b.stop_lsn <= *lsn,
            Target::Event(event) => b.stop_lsn <= event.before,
            _ => true,
        };
        let newest = || usable.iter().rev().copied().find(|b| in_time(b));
        let anchor = match request.target {
            Target::Xid(_) | Target::Name(_) => *usable.iter().find(|b| {
                self.first_stop(timeline, b.stop_lsn.0, missing(b), request)
                    .is_some()
            })?,
            _ => newest()?,
        };
        let end = missing(anchor);
        let resumes = (end..60).any(|number| self.kept(timeline, number));
        let torn_off = |from: Lsn, until: u64| {
            self.torn_off(timeline, from.0 / SEGMENT)
                .is_some_and(|torn| torn < until)
        };
        let stops = match (
            self.first_stop(timeline, anchor.stop_lsn.0, end, request),
            &request.target,
        ) {
            (Some(stops), _) => stops,
            (None, Target::Immediate) => Stops::End,
            (None, Target::Latest) if !resumes => Stops::End,
            (None, Target::Time(_)) if resumes || torn_off(anchor.stop_lsn, end) => return None,
            (None, Target::Time(time)) if self.is_idle(timeline, end * SEGMENT, *time) => {
                Stops::End
            }
            (None, Target::Lsn(lsn)) if !request.inclusive && lsn.0 <= end * SEGMENT => Stops::End,
            _ => return None,
        };
        let last_segment = |lsn: u64| {
            self.records(timeline)
                .iter()
                .find(|record| record.lsn == lsn)
                .unwrap()
                .last_segment()
        };
        let fits = |b: &&&BackupDescription| match stops {
            Stops::Before(lsn) | Stops::After(lsn) => b.stop_lsn.0 <= lsn && missing(b) == end,
            Stops::End => missing(b) == end,
        };
        let (backup, until) = match stops {
            _ if request.target == Target::Immediate => {
                (anchor, (anchor.stop_lsn.0 - 1) / SEGMENT + 1)
            }
            Stops::Before(lsn) | Stops::After(lsn) => {
                (*usable.iter().rev().find(fits)?, last_segment(lsn) + 1)
            }
            Stops::End => (*usable.iter().rev().find(fits)?, end),
        };
        (!torn_off(backup.start_lsn, until)).then(|| (backup.id.clone(), stops))
    }
}

impl WalIndex for World {
    fn first_later(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
        time: Timestamp,
        or_at: bool,
    ) -> Result<Option<u64>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        let hit = known
            .iter()
            .find(|(_, records)| records.iter().any(|record| record.is_later(time, or_at)));
        match (hit, more) {
            (Some((number, _)), _) => Ok(Some(*number)),
            (None, Some(unknown)) => Err(unknown),
            (None, None) => Ok(None),
        }
    }

    fn ending(
        &self,
        xid: u32,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<u64>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        let ends = |records: &[Rec]| {
            records
                .iter()
                .any(|record| record.is_wanted(&ProbeTarget::End(xid)))
        };
        // An index may name more segments than have it.
        let candidate = |(number, records): &(u64, Vec<Rec>)| {
            (ends(records) || (number + u64::from(xid)).is_multiple_of(3)).then_some(*number)
        };
        Ok(KnownPrefix {
            found: known.iter().filter_map(candidate).collect(),
            more,
        })
    }

    fn restore_points(
        &self,
        name: &str,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<Point>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        let mut found = Vec::new();
        for (segment, records) in known {
            let made = records
                .iter()
                .filter(|record| record.says == Says::Point(name.to_string()));
            match self.unnamed.contains(&(timeline.0, segment)) {
                true => found.push(Point::Unnamed { segment }),
                false => found.extend(made.map(|record| Point::Named {
                    segment,
                    lsn: Lsn(record.lsn),
                    time: Timestamp(0),
                })),
            }
        }
        Ok(KnownPrefix { found, more })
    }

    fn first_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        match (
            known
                .iter()
                .find_map(|(_, records)| records.iter().find_map(Rec::commit)),
            more,
        ) {
            (None, Some(unknown)) => Err(unknown),
            (found, _) => Ok(found),
        }
    }

    fn last_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown> {
        for number in (from..until).rev() {
            let records = self.indexed(timeline.0, number)?;
            if number + 1 < until {
                self.check_broken(timeline.0, number)?;
            }
            if let Some(commit) = records.iter().filter_map(Rec::commit).next_back() {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    fn tablespaces(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<TablespaceMade>, Unknown> {
        let (known, more) = self.known(timeline, from, until);
        Ok(KnownPrefix {
            found: known
                .iter()
                .flat_map(|(_, records)| records.iter().filter_map(super::made))
                .collect(),
            more,
        })
    }

    fn check_boundary(&self, timeline: TimelineId, number: u64) -> Result<(), Unknown> {
        match self.torn_off(timeline.0, 0) == Some(number)
            || self.unjoined == Some((timeline.0, number))
        {
            true => Err(super::unjoined(timeline.0, number)),
            false => Ok(()),
        }
    }
}
