//! Which parts of a segment answer a query, so that not all of it must be read. Whatever is in doubt is left to reading
//! all of it, which gives the same answer.

use super::probe::{FoundRecord, Probe, ProbeQuery, ProbeResult, ProbeTarget};
use crate::postgres::types::{LongPageHeader, Lsn, SegmentSize, SystemIdentifier};
use crate::postgres::wal::{Commit, Commits, EventDetail, PartEnds, Summary, WalEvent};

/// What headers tell of the segment that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    pub summary: &'a Summary,
    /// The record that begins in an earlier segment and ends in this one.
    pub crossed: Option<&'a Summary>,
    pub system_identifier: SystemIdentifier,
    pub size: SegmentSize,
}

/// What must be read to answer a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadPlan<'a> {
    /// Nothing: no record is the one, and this is the answer.
    Nothing(ProbeResult),
    /// Some parts may be enough.
    Parts(Box<PartialRead<'a>>),
    /// All of the segment.
    Whole,
}

/// Parts of a segment that are read one behind the other, from the one on in which the first record that is looked for
/// begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialRead<'a> {
    /// Number of that part.
    pub wanted: usize,
    /// Bytes of each.
    pub part: u64,
    query: &'a ProbeQuery,
    summary: &'a Summary,
    segment: LongPageHeader,
    /// The commit that crosses into the segment.
    crossed: Option<Commit>,
}

/// Where the last commit before a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It is this one; `None`: the segment has none.
    Is(Option<Commit>),
    /// It begins in the part of this number.
    BeginsIn(usize),
}

/// What must be read of a segment that is stored in so many parts of equal length.
pub fn reading<'a>(query: &'a ProbeQuery, headers: &Headers<'a>, parts: usize) -> ReadPlan<'a> {
    let Headers {
        summary,
        crossed,
        size,
        system_identifier,
    } = *headers;
    let (Some(major), Some(timeline)) = (summary.major, summary.first_timeline) else {
        return ReadPlan::Whole;
    };
    let address = query.begin;
    let part = size.bytes().checked_div(parts as u64).unwrap_or_default();
    let is_told = summary.stop.is_none()
        && summary.part_ends.len() == parts
        && part * parts as u64 == size.bytes();
    if !is_told || crossed.is_some_and(|crossed| query.may_be(crossed)) {
        return ReadPlan::Whole;
    }
    let crossed = crossed.and_then(|crossed| crossed.commits.last);
    let Ok(wanted) = query.part(summary, |lsn| {
        (lsn.0.saturating_sub(address.0) / part) as usize
    }) else {
        return ReadPlan::Whole;
    };
    let Some(wanted) = wanted else {
        return ReadPlan::Nothing(ProbeResult {
            before: summary.commits.last.or(crossed),
            ..ProbeResult::default()
        });
    };
    let segment = LongPageHeader {
        major,
        timeline,
        address,
        system_identifier,
        segment_size: size,
    };
    ReadPlan::Parts(Box::new(PartialRead {
        wanted,
        part,
        query,
        summary,
        segment,
        crossed,
    }))
}

/// The summary does not tell.
struct NotTold;

impl ProbeQuery {
    /// Whether a record that begins in an earlier segment may be looked for.
    fn may_be(&self, crossed: &Summary) -> bool {
        let of_kind = || match &self.target {
            ProbeTarget::Later { .. } => crossed
                .ends
                .max_time
                .is_some_and(|time| self.target.is_later(time)),
            ProbeTarget::End(xid) => match &crossed.oldest_ended[..] {
                [] => crossed.ends.count > 0,
                [only] => only.xid == *xid || crossed.ended_left_out > 0 || crossed.ends.cut,
                // What is told of a long record has the first subtransactions only.
                _ => true,
            },
            ProbeTarget::RestorePoint(_) => !crossed.events.is_empty(),
            ProbeTarget::Record | ProbeTarget::Change(_) | ProbeTarget::InPlace { .. } => true,
        };
        crossed.last.is_none_or(|lsn| lsn >= self.from) && of_kind()
    }

    /// The number of the part in which the first record that is looked for begins, or one before; `None`: there is none.
    fn part(
        &self,
        summary: &Summary,
        number: impl Fn(Lsn) -> usize,
    ) -> Result<Option<usize>, NotTold> {
        let may_hold = |ends: &PartEnds| match self.target {
            ProbeTarget::End(xid) => ends.may_hold(xid),
            _ => self.target.is_later(ends.latest()),
        };
        match &self.target {
            ProbeTarget::Later { .. } | ProbeTarget::End(_) => {
                let mut behind = summary.part_ends.iter().enumerate().skip(number(self.from));
                Ok(behind
                    .find(|(_, ends)| ends.as_ref().is_some_and(may_hold))
                    .map(|(number, _)| number))
            }
            ProbeTarget::RestorePoint(name) if summary.events_left_out.restore_points == 0 => {
                let is_it = |event: &&WalEvent| match &event.what {
                    EventDetail::RestorePoint { name: found, .. } => {
                        event.lsn >= self.from && found == name
                    }
                    _ => false,
                };
                match summary
                    .events
                    .iter()
                    .find(is_it)
                    .map(|event| number(event.lsn))
                {
                    Some(number) if number >= summary.part_ends.len() => Err(NotTold),
                    found => Ok(found),
                }
            }
            ProbeTarget::Record if number(self.from) < summary.part_ends.len() => {
                Ok(Some(number(self.from)))
            }
            ProbeTarget::Record
            | ProbeTarget::RestorePoint(_)
            | ProbeTarget::Change(_)
            | ProbeTarget::InPlace { .. } => Err(NotTold),
        }
    }
}

impl<'a> PartialRead<'a> {
    fn begin(&self, part: usize) -> Lsn {
        Lsn(self.segment.address.0 + part as u64 * self.part)
    }

    /// Finds the answer in the bytes of parts, from the one that is wanted on.
    pub fn probe(&self) -> Probe {
        Probe::within(self.query.clone(), self.segment, self.begin(self.wanted))
    }

    /// The answer but for the commit before, if no more parts could change it.
    pub fn found(&self, probe: &Probe) -> Option<(FoundRecord, Option<Commit>)> {
        let result = probe.so_far()?;
        let found = result.found?;
        let Commits { first, last, .. } = self.summary.commits;
        let after = match (result.after, first, last) {
            (None, Some(first), _) if first.lsn > found.lsn => Some(first),
            (None, _, Some(last)) if last.lsn > found.lsn => return None,
            (after, ..) => after,
        };
        Some((found, after))
    }

    /// Where the last commit before the record is that the probe found.
    pub fn before(&self, probe: &Probe, found: FoundRecord) -> Option<Before> {
        let Commits { first, last, .. } = self.summary.commits;
        let before = probe.so_far()?.before;
        Some(match (first, last) {
            _ if before.is_some() => Before::Is(before),
            (Some(first), _) if first.lsn >= found.lsn => Before::Is(self.crossed),
            (_, Some(last)) if last.lsn < found.lsn => Before::Is(Some(last)),
            (Some(_), _) => Before::BeginsIn(
                self.summary.part_ends[..self.wanted]
                    .iter()
                    .rposition(Option::is_some)?,
            ),
            (None, _) => Before::Is(self.crossed),
        })
    }

    /// Whether all records were read that begin in a part.
    pub fn is_beyond(&self, probe: &Probe, part: usize) -> bool {
        probe
            .behind()
            .is_some_and(|behind| behind >= self.begin(part + 1))
    }

    /// Finds the last commit before a record in the bytes of parts, from that one on.
    pub fn probe_before(&self, part: usize, found: FoundRecord) -> Probe {
        let query = ProbeQuery {
            from: found.lsn,
            target: ProbeTarget::Record,
            ..self.query.clone()
        };
        Probe::within(query, self.segment, self.begin(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::types::{MajorVersion, SegmentName, TimelineId};
    use crate::postgres::wal::{EventOverflow, StopReason, Timestamp, WalStop};

    const SIZE: u64 = 16 << 20;
    const PART: u64 = 512 << 10;
    const START: u64 = 3 * SIZE;

    /// A segment of 32 parts: times and numbers of what ended in some of them, a restore point in part 20.
    fn summary() -> Summary {
        let mut parts = vec![serde_json::Value::Null; 32];
        parts[2] = serde_json::json!([500, 90, 110]);
        parts[5] = serde_json::json!([900, 105, 130]);
        parts[6] = serde_json::json!([800, u32::MAX - 5, 3]);
        parts[31] = serde_json::json!([1000, 0, 0]);
        let commit = |part: u64, time| Commit {
            lsn: Lsn(START + part * PART + 100),
            xid: 100,
            time: Timestamp(time),
        };
        let mut summary = Summary {
            major: Some(MajorVersion::new(15).unwrap()),
            first_timeline: Some(TimelineId(1)),
            part_ends: serde_json::from_value(parts.into()).unwrap(),
            ..Summary::default()
        };
        (summary.commits.first, summary.commits.last) =
            (Some(commit(2, 500)), Some(commit(31, 1000)));
        let lsn = Lsn(START + 20 * PART + 50);
        let what = EventDetail::RestorePoint {
            name: "x".into(),
            time: Timestamp(700),
        };
        summary.events.push(WalEvent {
            lsn,
            end: Lsn(lsn.0 + 100),
            xid: 0,
            what,
        });
        summary
    }

    fn query(target: ProbeTarget, from: u64) -> ProbeQuery {
        let size = SegmentSize::new(SIZE as u32).unwrap();
        let segment = SegmentName::from_number(TimelineId(1), START / SIZE, size);
        ProbeQuery {
            segment,
            begin: Lsn(START),
            from: Lsn(from),
            target,
        }
    }

    fn asked<'a>(
        query: &'a ProbeQuery,
        summary: &'a Summary,
        crossed: Option<&'a Summary>,
    ) -> ReadPlan<'a> {
        let size = SegmentSize::new(SIZE as u32).unwrap();
        reading(
            query,
            &Headers {
                summary,
                crossed,
                system_identifier: SystemIdentifier(7),
                size,
            },
            32,
        )
    }

    /// All parts are read.
    const ALL: Option<usize> = Some(usize::MAX);

    /// The part from which on is read, or all of them.
    fn part(target: ProbeTarget, from: u64) -> Option<usize> {
        match asked(&query(target, from), &summary(), None) {
            ReadPlan::Parts(partial) => Some(partial.wanted),
            ReadPlan::Whole => ALL,
            ReadPlan::Nothing(result) => {
                assert_eq!(
                    result,
                    ProbeResult {
                        before: summary().commits.last,
                        ..ProbeResult::default()
                    }
                );
                None
            }
        }
    }

    fn later(time: i64, or_at: bool) -> ProbeTarget {
        ProbeTarget::Later {
            time: Timestamp(time),
            or_at,
        }
    }

    #[test]
    fn what_is_read_begins_with_the_first_part_that_may_hold_the_record() {
        assert_eq!(part(later(400, false), 0), Some(2));
        assert_eq!(part(later(500, false), 0), Some(5));
        assert_eq!(part(later(500, true), 0), Some(2));
        assert_eq!(
            part(later(400, false), START + 6 * PART),
            Some(6),
            "what is before does not count"
        );
        assert_eq!(part(later(900, false), 0), Some(31));
        assert_eq!(part(later(1000, false), 0), None);
        assert_eq!(part(ProbeTarget::End(107), 0), Some(2), "here or in part 5");
        assert_eq!(part(ProbeTarget::End(120), 0), Some(5));
        assert_eq!(part(ProbeTarget::End(2), 0), Some(6), "numbers go round");
        assert_eq!(part(ProbeTarget::End(4), 0), None);
        assert_eq!(part(ProbeTarget::RestorePoint("x".into()), 0), Some(20));
        assert_eq!(
            part(ProbeTarget::RestorePoint("x".into()), START + 21 * PART),
            None
        );
        assert_eq!(part(ProbeTarget::RestorePoint("y".into()), 0), None);
        assert_eq!(part(ProbeTarget::Record, 0), Some(0));
        assert_eq!(part(ProbeTarget::Record, START + 9 * PART + 1), Some(9));
    }

    #[test]
    fn what_headers_do_not_tell_is_read_whole() {
        assert_eq!(part(ProbeTarget::Change(107), 0), ALL);
        assert_eq!(
            part(ProbeTarget::Record, START + SIZE),
            ALL,
            "what is behind the segment"
        );
        let whole = |target: ProbeTarget, change: &dyn Fn(&mut Summary)| {
            let mut summary = summary();
            change(&mut summary);
            asked(&query(target, 0), &summary, None) == ReadPlan::Whole
        };
        let left_out = EventOverflow {
            restore_points: 1,
            ..EventOverflow::default()
        };
        assert!(whole(ProbeTarget::RestorePoint("x".into()), &|summary| {
            summary.events_left_out = left_out
        }));
        assert!(
            whole(later(400, false), &|summary| summary.part_ends.clear()),
            "made before parts were told"
        );
        assert!(
            whole(later(400, false), &|summary| summary.part_ends.truncate(16)),
            "as many parts as frames"
        );
        let stop = WalStop {
            lsn: Lsn(START),
            why: StopReason::ZeroPage,
        };
        assert!(whole(later(400, false), &|summary| summary.stop =
            Some(stop.clone())));
        assert!(!whole(later(400, false), &|_| ()));
    }

    #[test]
    fn a_record_that_crosses_into_the_segment_is_no_answer_of_its_parts() {
        let lsn = START - 60;
        let commit = Commit {
            lsn: Lsn(lsn),
            xid: 40,
            time: Timestamp(600),
        };
        let mut crossed = Summary {
            last: Some(commit.lsn),
            ..Summary::default()
        };
        (crossed.ends.count, crossed.ends.max_time) = (1, Some(commit.time));
        crossed.oldest_ended =
            serde_json::from_value(serde_json::json!([[40, 40, commit.lsn, 600, true]])).unwrap();
        crossed.commits.last = Some(commit);
        let whole = |target: ProbeTarget, from: u64| {
            asked(&query(target, from), &summary(), Some(&crossed)) == ReadPlan::Whole
        };
        assert!(
            whole(later(599, false), 0)
                && whole(later(600, true), lsn)
                && whole(ProbeTarget::End(40), 0)
        );
        assert!(whole(ProbeTarget::Record, lsn));
        assert!(
            !whole(later(600, false), 0) && !whole(ProbeTarget::End(107), 0),
            "it is none of these"
        );
        assert!(!whole(ProbeTarget::RestorePoint("x".into()), 0));
        assert!(
            !whole(later(400, false), lsn + 1) && !whole(ProbeTarget::Record, lsn + 1),
            "it begins before"
        );
        let none = Summary {
            commits: Default::default(),
            part_ends: vec![None; 32],
            ..summary()
        };
        let result = ProbeResult {
            before: Some(commit),
            ..ProbeResult::default()
        };
        assert_eq!(
            asked(&query(later(700, false), 0), &none, Some(&crossed)),
            ReadPlan::Nothing(result)
        );
    }
}
