//! What the model finds by trying everything: which backup, and where replay stops.

use chrono::{DateTime, Utc};

use super::super::testing::SEGMENT;
use super::super::*;
use super::world::{Rec, Says, World, second};
use crate::postgres::layout::BackupId;
use crate::postgres::types::Lsn;

/// Where the model says that replay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stops {
    Before(u64),
    After(u64),
    End,
}

impl World {
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
