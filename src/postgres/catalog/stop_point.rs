//! From a target to the place in the WAL where replay stops. What a target means is what PostgreSQL understands by it
//! (xlogrecovery.c, recoveryStopsBefore and -After), among the records behind a backup's end.

use chrono::{DateTime, Utc};

use super::event_target::EventTarget;
use super::facts::PlanInput;
use super::path::{Coverage, TimelinePath};
use super::probe::{FoundEnd, ProbeQuery, ProbeResult, ProbeTarget};
use super::refuse::{NoPlan, Refusal, Searched};
use super::stop_at::StopAt;
use super::unreachable::UnreachableReason;
use super::wal_index::{KnownPrefix, Point, Unknown};
use crate::plain::counted;
use crate::postgres::types::{Lsn, SegmentSize, TimelineId};
use crate::postgres::wal::{Timestamp, Xid};

/// Bytes of WAL within which a transaction number is not used again: 2^32 of them take more.
pub const XID_REUSE: u64 = 256 << 30;
/// Segments that are probed for another transaction of the same number.
const REUSE_PROBES: usize = 4;

/// Where replay stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StopPoint {
    pub stop: StopAt,
    /// Number of the first segment that replay does not need.
    pub until: u64,
    /// What was found in the segment before `until`.
    pub result: ProbeResult,
    /// Sentences about it.
    pub notes: Vec<String>,
}

impl StopPoint {
    /// Before the record that was found in the segment of that number.
    pub fn before(number: u64, result: ProbeResult) -> Option<Self> {
        let lsn = result.found?.lsn;
        Some(Self {
            stop: StopAt::Before { lsn },
            until: number + 1,
            result,
            notes: Vec::new(),
        })
    }

    fn after(number: u64, result: ProbeResult) -> Option<Self> {
        let found = result.found?;
        let stop = StopAt::After {
            lsn: found.lsn,
            end: found.end,
        };
        Some(Self {
            stop,
            until: number + 1,
            result,
            notes: Vec::new(),
        })
    }

    /// Where the record begins at which replay stops.
    pub fn lsn(&self) -> Option<Lsn> {
        match self.stop {
            StopAt::Before { lsn } | StopAt::After { lsn, .. } => Some(lsn),
            StopAt::Consistent | StopAt::End => None,
        }
    }
}

/// A search along the unbroken WAL of a path.
pub(super) struct Search<'a> {
    pub known: &'a PlanInput<'a>,
    pub path: &'a TimelinePath,
    pub coverage: &'a Coverage,
    /// Nothing that begins before counts: the end of a backup.
    pub from: Lsn,
}

impl<'a> Search<'a> {
    pub(super) fn size(&self) -> SegmentSize {
        self.known.facts.ranges.segment_size()
    }

    pub(super) fn number(&self, lsn: Lsn) -> u64 {
        lsn.0 / self.size().bytes()
    }

    /// Number of the first segment that is not there.
    pub(super) fn end(&self) -> u64 {
        self.coverage.first_missing.number(self.size())
    }

    /// The ranges of segments from a number on: timeline, first number, number behind the last.
    pub fn segment_ranges(
        &self,
        from: u64,
    ) -> impl DoubleEndedIterator<Item = (TimelineId, u64, u64)> + use<'a> {
        let size = self.size();
        let range = move |piece: &super::path::WalPiece| {
            (
                piece.first.timeline,
                piece.first.number(size).max(from),
                piece.last.number(size) + 1,
            )
        };
        self.coverage
            .pieces
            .iter()
            .map(range)
            .filter(|(_, first, until)| first < until)
    }

    /// Looks into a segment for what begins at `from` or later.
    pub(super) fn probe(
        &self,
        number: u64,
        from: Lsn,
        target: ProbeTarget,
    ) -> Searched<ProbeResult> {
        let segment = self.path.segment(number);
        let query = ProbeQuery {
            segment,
            begin: self.path.start(segment),
            from,
            target,
        };
        (self.known.probe)(&query).map_err(NoPlan::Unread)
    }

    /// An answer of the index; `None` when the WAL ends before there is one.
    fn answer<T>(&self, answer: Result<T, Unknown>) -> Searched<Option<T>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Unknown::Broken { segment, lsn }) => self.broken(segment, lsn).map(|()| None),
            Err(unknown) => Err(NoPlan::Unknown(unknown)),
        }
    }

    /// Everything before the first commit or abort later than `time`; with `or_at`, not earlier. `None` when there is
    /// none.
    pub fn time(&self, time: DateTime<Utc>, or_at: bool) -> Searched<Option<StopPoint>> {
        let time = Timestamp::from(time);
        for (timeline, first, until) in self.segment_ranges(self.number(self.from)) {
            let mut number = first;
            while let Some(Some(hit)) = self.answer(
                self.known
                    .index
                    .first_later(timeline, number, until, time, or_at),
            )? {
                let result = self.probe(hit, self.from, ProbeTarget::Later { time, or_at })?;
                if let Some(place) = StopPoint::before(hit, result) {
                    return Ok(Some(place));
                }
                number = hit + 1;
            }
        }
        Ok(None)
    }

    /// Until when it is proven that everything that ended is archived and can be replayed; `None` when nothing later than
    /// what is archived is proven.
    pub fn idle_until(&self) -> Searched<Option<DateTime<Utc>>> {
        self.check_forks(self.from, self.end())?;
        let archived = self.path.start(self.coverage.first_missing);
        let last = self.segment_ranges(self.number(self.from)).next_back();
        let whole = last.map(|(timeline, first, until)| {
            self.known
                .index
                .first_later(timeline, first, until, Timestamp(i64::MAX), false)
        });
        let end = match whole.transpose() {
            Ok(_) => archived,
            Err(Unknown::Broken { lsn, .. }) => lsn,
            Err(unknown) => return Err(NoPlan::Unknown(unknown)),
        };
        let Some(until) = self.marked_until(end).map_err(NoPlan::Unknown)? else {
            return Ok(None);
        };
        Ok(self.time(until, false)?.is_none().then_some(until))
    }

    /// What marks say of the WAL behind `end`. What another timeline's server proved says nothing about this one's.
    pub fn marked_until(&self, end: Lsn) -> Result<Option<DateTime<Utc>>, Unknown> {
        // A commit that is not known may prove a mark wrong; one that replay does not get to, none.
        let last = match self.commit_before(self.end()) {
            Err(Unknown::Broken { .. }) => None,
            answer => answer?,
        };
        Ok(self
            .known
            .facts
            .idle
            .until(self.path.timeline(), last.map(|commit| commit.lsn), end))
    }

    /// The first record that begins at `from` or later, and the number of its segment.
    fn record(&self, from: Lsn) -> Searched<Option<(u64, ProbeResult)>> {
        for number in self.number(from)..self.end() {
            let result = self.probe(number, from, ProbeTarget::Record)?;
            if result.found.is_some() {
                return Ok(Some((number, result)));
            }
            if let Some(lsn) = result.broken {
                let segment = self.path.segment(number);
                self.broken(segment, lsn)?;
                if lsn < from {
                    return Err(self.refuse_broken(segment, lsn, result));
                }
            }
        }
        Ok(None)
    }

    /// The place of an LSN. `None` when no record begins there or later.
    pub fn lsn(&self, lsn: Lsn, inclusive: bool) -> Searched<Option<StopPoint>> {
        let Some((number, result)) = self.record(lsn)? else {
            return Ok(None);
        };
        Ok(if inclusive {
            StopPoint::after(number, result)
        } else {
            StopPoint::before(number, result)
        })
    }

    /// The first end of a transaction.
    pub fn xid(&self, xid: Xid, inclusive: bool) -> Searched<Option<StopPoint>> {
        for (timeline, first, until) in self.segment_ranges(self.number(self.from)) {
            let KnownPrefix { found, more } = self
                .known
                .index
                .ending(xid, timeline, first, until)
                .map_err(NoPlan::Unknown)?;
            for number in found {
                let result = self.probe(number, self.from, ProbeTarget::End(xid))?;
                let Some(found) = result.found else { continue };
                let place = if inclusive {
                    StopPoint::after(number, result)
                } else {
                    StopPoint::before(number, result)
                };
                let Some(mut place) = place else { continue };
                place.notes.extend(
                    found
                        .outcome
                        .and_then(|outcome| outcome_note(xid, &outcome)),
                );
                place.notes.extend(self.reuse_note(xid, number)?);
                return Ok(Some(place));
            }
            self.answer(more.map_or(Ok(()), Err))?;
        }
        Ok(None)
    }

    /// Another transaction of the same number, which ended so far behind a segment that numbers may have gone round.
    fn reuse_note(&self, xid: Xid, number: u64) -> Searched<Option<String>> {
        let mut candidates = Vec::new();
        for (timeline, first, until) in
            self.segment_ranges(number + XID_REUSE / self.size().bytes())
        {
            // It is only a note: what is not known there does not keep the first one from being restored.
            let told = self.known.index.ending(xid, timeline, first, until);
            candidates.extend(told.map(|told| told.found).unwrap_or_default());
        }
        for candidate in candidates.into_iter().take(REUSE_PROBES) {
            if let Some(found) = self
                .probe(candidate, self.from, ProbeTarget::End(xid))?
                .found
            {
                let time = found
                    .outcome
                    .map(|outcome| format!(" at {}", outcome.time))
                    .unwrap_or_default();
                return Ok(Some(format!(
                    "this is the first transaction {xid}: numbers go round, and another one ended{time}; name it by --lsn {}",
                    found.lsn
                )));
            }
        }
        Ok(None)
    }

    /// The first restore point of a name.
    pub fn restore_point(&self, name: &str) -> Searched<Option<StopPoint>> {
        let (mut points, mut more) = (Vec::new(), None);
        for (timeline, first, until) in self.segment_ranges(self.number(self.from)) {
            let told = self
                .known
                .index
                .restore_points(name, timeline, first, until)
                .map_err(NoPlan::Unknown)?;
            let is_before =
                |point: &Point| matches!(point, Point::Named { lsn, .. } if *lsn < self.from);
            points.extend(told.found.into_iter().filter(|point| !is_before(point)));
            more = told.more;
            if more.is_some() {
                break;
            }
        }
        let mut segments: Vec<u64> = points.iter().map(Point::segment).collect();
        segments.dedup();
        for number in segments {
            let result = self.probe(
                number,
                self.from,
                ProbeTarget::RestorePoint(name.to_string()),
            )?;
            if let (Some(found), Some(mut place)) = (result.found, StopPoint::after(number, result))
            {
                let time = found.made.map(|time| time.to_string()).unwrap_or_default();
                place
                    .notes
                    .push(format!("restore point \"{name}\" was made at {time}"));
                place
                    .notes
                    .extend(later_points(&points, number, found.lsn, more.is_some()));
                return Ok(Some(place));
            }
        }
        self.answer(more.map_or(Ok(()), Err)).map(|_| None)
    }

    /// Just before or after an event.
    pub fn event(&self, event: &EventTarget, after: bool) -> Searched<StopPoint> {
        let lsn = if after { event.after } else { event.before };
        let gone = || {
            Refusal::from(UnreachableReason::EventNotFound {
                id: event.id.clone(),
                lsn,
            })
        };
        let Some((number, result)) = self
            .record(lsn)?
            .filter(|(_, result)| result.found.is_some_and(|it| it.lsn == lsn))
        else {
            return Err(gone().into());
        };
        match (event.commits, event.drops_database) {
            (Some(xid), _) if after => return self.commit_of(event, xid),
            (_, Some(xid)) if !after => {
                return self.begin_of_drop(event.id.clone(), number, lsn, xid, result);
            }
            _ => (),
        }
        let place = if after {
            StopPoint::after(number, result)
        } else {
            StopPoint::before(number, result)
        };
        place.ok_or_else(|| gone().into())
    }

    /// After the commit that an event counts from, which lies behind its record.
    fn commit_of(&self, event: &EventTarget, xid: Xid) -> Searched<StopPoint> {
        let reason = |why: String| UnreachableReason::EventNotCommitted {
            id: event.id.clone(),
            xid,
            why,
        };
        let Some(place) = Search {
            from: event.after,
            ..*self
        }
        .xid(xid, true)?
        else {
            return Err(Refusal::end(
                self.path,
                self.coverage,
                reason("its end is not archived".into()),
            )
            .into());
        };
        match place.result.found.and_then(|found| found.outcome) {
            Some(FoundEnd {
                committed: false,
                time,
                ..
            }) => Err(reason(format!("it was rolled back at {time}")).into()),
            _ => Ok(place),
        }
    }

    /// The end of a backup.
    pub fn consistent(&self, until: u64) -> Searched<StopPoint> {
        let result = self.probe(until - 1, self.from, ProbeTarget::Record)?;
        if let Some(lsn) = result.broken.filter(|lsn| *lsn < self.from) {
            self.broken(self.path.segment(until - 1), lsn)?;
        }
        Ok(StopPoint {
            stop: StopAt::Consistent,
            until,
            result,
            notes: Vec::new(),
        })
    }

    /// Everything archived, without a target for PostgreSQL.
    pub fn wal_end(&self) -> StopPoint {
        StopPoint {
            stop: StopAt::End,
            until: self.end(),
            result: ProbeResult::default(),
            notes: Vec::new(),
        }
    }
}

/// The other restore points of a name, behind the one that begins at `lsn` in the segment of that number; with `more`
/// not all WAL behind it is known.
fn later_points(points: &[Point], number: u64, lsn: Lsn, more: bool) -> Vec<String> {
    let later = points.iter().filter_map(|point| match point {
        Point::Named {
            lsn: other, time, ..
        } if *other > lsn => Some((*other, *time)),
        _ => None,
    });
    let mut notes = Vec::new();
    if let Some((last, time)) = later.clone().next_back() {
        let (count, at_least) = (later.count(), if more { "at least " } else { "" });
        notes.push(format!(
            "{at_least}{count} later restore points have the same name, the last one made at {time}: name it by --lsn {last}"
        ));
    }
    let unnamed = points
        .iter()
        .filter(|point| matches!(point, Point::Unnamed { segment } if *segment >= number));
    if let count @ 1.. = unnamed.count() {
        notes.push(format!(
            "from there on {} had more restore points than are indexed: there may be others of this name",
            counted(count as u64, "WAL segment")
        ));
    }
    notes
}

/// What a reader of the plan would not expect of a transaction's end.
fn outcome_note(xid: Xid, outcome: &FoundEnd) -> Option<String> {
    let how = if outcome.committed {
        "committed"
    } else {
        "was rolled back"
    };
    let time = outcome.time;
    match (outcome.xid == xid, outcome.committed) {
        (false, _) => Some(format!(
            "transaction {xid} is a subtransaction of {}, which {how} at {time}",
            outcome.xid
        )),
        (true, false) => Some(format!("transaction {xid} was rolled back at {time}")),
        (true, true) => None,
    }
}
