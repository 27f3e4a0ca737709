//! A made-up archive: a tree of timelines with records, segments of which some are lost, and backups. It answers what an
//! index and a probe of a segment would, and says by trying everything what a restore must give.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::testing::{SEGMENT, facts_in};
use super::super::*;
use crate::postgres::layout::IdleMarker;
use crate::postgres::types::{
    HistoryEntry, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId,
};
use crate::postgres::wal::{Commit, Timestamp};

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
    pub fn last_segment(&self) -> u64 {
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

    pub fn is_later(&self, time: Timestamp, or_at: bool) -> bool {
        let Says::Ended { time: this, .. } = self.says else {
            return false;
        };
        let this = Timestamp::from(second(this));
        this > time || or_at && this == time
    }

    pub fn is_wanted(&self, target: &ProbeTarget) -> bool {
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
    pub fn ending_in(&self, timeline: u32, number: u64) -> Vec<Rec> {
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
}
