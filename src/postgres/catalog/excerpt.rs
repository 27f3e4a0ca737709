//! Which parts of a segment may answer a question, so that not all of it must be read, and whether they do. Whatever is
//! in doubt is left to reading all of it, which gives the same answer.

use std::ops::Range;

use super::look::{Look, Probe, Question, Seen};
use crate::postgres::types::{LongPageHeader, Lsn, SegmentSize, SystemIdentifier};
use crate::postgres::wal::{Commit, Event, PartEnds, Summary, What};

/// What headers tell of the segment that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    pub summary: &'a Summary,
    /// The record that begins in an earlier segment and ends in this one.
    pub crossed: Option<&'a Summary>,
    pub system_identifier: SystemIdentifier,
    pub size: SegmentSize,
}

/// What must be read to answer a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Nothing: no record is the one, and this is the answer.
    Nothing(Seen),
    /// These parts may be enough.
    Parts(Excerpt),
    /// All of the segment.
    Whole,
}

/// Bytes before a part that mostly are enough: records are shorter, and a commit is among them. A multiple of all sizes
/// of a WAL page.
const LEAD: usize = 128 << 10;

/// Parts of a segment, one behind the other: the one in which the first record that is looked for ends, or begins, and
/// those beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub parts: Range<usize>,
    /// Bytes of each.
    pub part: usize,
    /// Bytes of the first of them that are passed over.
    pub skip: usize,
    /// What begins before the wanted part is not looked for.
    begins_within: bool,
    /// What is behind them.
    begin: Lsn,
    /// Where the part begins that has the record.
    wanted: Lsn,
    segment: LongPageHeader,
    /// The commit that crosses into the segment.
    crossed: Option<Commit>,
}

/// What must be read of a segment that is stored in so many parts of equal length.
pub fn reading(question: &Question, headers: &Headers<'_>, parts: usize) -> Reading {
    let Headers { summary, crossed, size, system_identifier } = *headers;
    let (Some(major), Some(timeline)) = (summary.major, summary.first_timeline) else { return Reading::Whole };
    let address = question.begin;
    let part = size.bytes().checked_div(parts as u64).unwrap_or_default();
    let is_told = summary.stop.is_none() && summary.parts.len() == parts && part * parts as u64 == size.bytes();
    if !is_told || crossed.is_some_and(|crossed| question.may_be(crossed)) {
        return Reading::Whole;
    }
    let crossed = crossed.and_then(|crossed| crossed.commits.last);
    let Ok(wanted) = question.part(summary, |lsn| (lsn.0.saturating_sub(address.0) / part) as usize) else {
        return Reading::Whole;
    };
    let Some(wanted) = wanted else {
        return Reading::Nothing(Seen { before: summary.commits.last.or(crossed), ..Seen::default() });
    };
    let first = wanted.saturating_sub(1);
    let begin = |number: usize| Lsn(address.0 + number as u64 * part);
    Reading::Parts(Excerpt {
        parts: first..(wanted + 2).min(parts),
        part: part as usize,
        skip: 0,
        begins_within: matches!(question.look, Look::Record | Look::RestorePoint(_)),
        begin: begin(first),
        wanted: begin(wanted),
        segment: LongPageHeader { major, timeline, address, system_identifier, segment_size: size },
        crossed,
    })
}

/// The summary does not tell.
struct NotTold;

impl Question {
    /// Whether a record that begins in an earlier segment may be looked for.
    fn may_be(&self, crossed: &Summary) -> bool {
        let of_kind = || match &self.look {
            Look::Later { .. } => crossed.ends.max_time.is_some_and(|time| self.look.is_later(time)),
            Look::End(xid) => match &crossed.oldest_ended[..] {
                [] => crossed.ends.count > 0,
                [only] => only.xid == *xid || crossed.ended_left_out > 0 || crossed.ends.cut,
                // What is told of a long record has the first subtransactions only.
                _ => true,
            },
            Look::RestorePoint(_) => !crossed.events.is_empty(),
            Look::Record | Look::Change(_) | Look::InPlace { .. } => true,
        };
        crossed.last.is_none_or(|lsn| lsn >= self.from) && of_kind()
    }

    /// The number of the part in which the first record that is looked for ends, or begins; `None`: there is none.
    fn part(&self, summary: &Summary, number: impl Fn(Lsn) -> usize) -> Result<Option<usize>, NotTold> {
        let may_hold = |ends: &PartEnds| match self.look {
            Look::End(xid) => ends.may_hold(xid),
            _ => self.look.is_later(ends.latest()),
        };
        match &self.look {
            Look::Later { .. } | Look::End(_) => {
                let parts = summary.parts.iter().enumerate();
                // What ends before `from` begins before it, too.
                let mut behind = parts.skip(number(self.from));
                Ok(behind.find(|(_, ends)| ends.as_ref().is_some_and(may_hold)).map(|(number, _)| number))
            }
            Look::RestorePoint(name) if summary.events_left_out.restore_points == 0 => {
                let is_it = |event: &&Event| match &event.what {
                    What::RestorePoint { name: found, .. } => event.lsn >= self.from && found == name,
                    _ => false,
                };
                match summary.events.iter().find(is_it).map(|event| number(event.lsn)) {
                    Some(number) if number >= summary.parts.len() => Err(NotTold),
                    found => Ok(found),
                }
            }
            Look::Record if number(self.from) < summary.parts.len() => Ok(Some(number(self.from))),
            Look::Record | Look::RestorePoint(_) | Look::Change(_) | Look::InPlace { .. } => Err(NotTold),
        }
    }
}

impl Excerpt {
    /// The same with no more than mostly is enough: nothing behind the wanted part, and before it the end of one.
    pub fn narrow(&self) -> Self {
        let wanted = self.parts.start + usize::from(self.begin < self.wanted);
        if self.begins_within || self.begin == self.wanted {
            return Self { parts: wanted..wanted + 1, begin: self.wanted, ..self.clone() };
        }
        let skip = self.part.saturating_sub(LEAD);
        Self { parts: self.parts.start..wanted + 1, skip, begin: Lsn(self.begin.0 + skip as u64), ..self.clone() }
    }

    /// Finds the answer in the bytes of the parts.
    pub fn probe(&self, question: Question) -> Probe {
        Probe::within(question, self.segment, self.begin)
    }

    /// The answer, if all of the segment would give the same.
    pub fn answer(&self, probe: &Probe, summary: &Summary) -> Option<Seen> {
        let seen = probe.so_far()?;
        let found = seen.found?;
        // Else one that began before the excerpt could be the first.
        let is_first = self.begins_within
            || self.begin == self.segment.address
            || probe.first().is_some_and(|record| record.lsn < self.wanted);
        let commits = summary.commits.first.zip(summary.commits.last);
        let before = match (seen.before, commits) {
            (None, Some((first, last))) if first.lsn < found.lsn => {
                Some(Some(last).filter(|last| last.lsn < found.lsn)?)
            }
            (before, _) => before.or(self.crossed),
        };
        let after = match (seen.after, commits) {
            (None, Some((first, last))) if last.lsn > found.lsn => {
                Some(Some(first).filter(|first| first.lsn > found.lsn)?)
            }
            (after, _) => after,
        };
        is_first.then_some(Seen { before, after, ..seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::types::{MajorVersion, SegmentName, TimelineId};
    use crate::postgres::wal::{LeftOut, Stop, Timestamp, Why};

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
        let commit = |part: u64, time| Commit { lsn: Lsn(START + part * PART + 100), xid: 100, time: Timestamp(time) };
        let mut summary = Summary {
            major: Some(MajorVersion::new(15).unwrap()),
            first_timeline: Some(TimelineId(1)),
            parts: serde_json::from_value(parts.into()).unwrap(),
            ..Summary::default()
        };
        (summary.commits.first, summary.commits.last) = (Some(commit(2, 500)), Some(commit(31, 1000)));
        let lsn = Lsn(START + 20 * PART + 50);
        let what = What::RestorePoint { name: "x".into(), time: Timestamp(700) };
        summary.events.push(Event { lsn, end: Lsn(lsn.0 + 100), xid: 0, what });
        summary
    }

    fn asked(look: Look, from: u64, summary: &Summary, crossed: Option<&Summary>) -> Reading {
        let size = SegmentSize::new(SIZE as u32).unwrap();
        let segment = SegmentName::from_number(TimelineId(1), START / SIZE, size);
        let question = Question { segment, begin: Lsn(START), from: Lsn(from), look };
        let headers = Headers { summary, crossed, system_identifier: SystemIdentifier(7), size };
        reading(&question, &headers, 32)
    }

    /// The parts that are read; an empty range for all of them.
    fn parts(look: Look, from: u64) -> Option<Range<usize>> {
        match asked(look, from, &summary(), None) {
            Reading::Parts(excerpt) => Some(excerpt.parts),
            Reading::Whole => Some(0..0),
            Reading::Nothing(seen) => {
                assert_eq!(seen, Seen { before: summary().commits.last, ..Seen::default() });
                None
            }
        }
    }

    fn later(time: i64, or_at: bool) -> Look {
        Look::Later { time: Timestamp(time), or_at }
    }

    #[test]
    fn the_first_part_that_may_hold_the_record_is_read_and_those_beside_it() {
        assert_eq!(parts(later(400, false), 0), Some(1..4));
        assert_eq!(parts(later(500, false), 0), Some(4..7));
        assert_eq!(parts(later(500, true), 0), Some(1..4));
        assert_eq!(parts(later(400, false), START + 6 * PART), Some(5..8), "what is before does not count");
        assert_eq!(parts(later(900, false), 0), Some(30..32));
        assert_eq!(parts(later(1000, false), 0), None);
        assert_eq!(parts(Look::End(107), 0), Some(1..4), "in the second of these parts, or the one behind");
        assert_eq!(parts(Look::End(120), 0), Some(4..7));
        assert_eq!(parts(Look::End(2), 0), Some(5..8), "numbers go round");
        assert_eq!(parts(Look::End(4), 0), None);
        assert_eq!(parts(Look::RestorePoint("x".into()), 0), Some(19..22));
        assert_eq!(parts(Look::RestorePoint("x".into()), START + 21 * PART), None);
        assert_eq!(parts(Look::RestorePoint("y".into()), 0), None);
        assert_eq!(parts(Look::Record, 0), Some(0..2));
        assert_eq!(parts(Look::Record, START + 9 * PART + 1), Some(8..11));
    }

    #[test]
    fn what_headers_do_not_tell_is_read_whole() {
        assert_eq!(parts(Look::Change(107), 0), Some(0..0));
        assert_eq!(parts(Look::Record, START + SIZE), Some(0..0), "what is behind the segment");
        let whole = |look: Look, change: &dyn Fn(&mut Summary)| {
            let mut summary = summary();
            change(&mut summary);
            asked(look, 0, &summary, None) == Reading::Whole
        };
        let left_out = LeftOut { restore_points: 1, ..LeftOut::default() };
        assert!(whole(Look::RestorePoint("x".into()), &|summary| summary.events_left_out = left_out));
        assert!(whole(later(400, false), &|summary| summary.parts.clear()), "made before parts were told");
        assert!(whole(later(400, false), &|summary| summary.parts.truncate(16)), "as many parts as frames");
        let stop = Stop { lsn: Lsn(START), why: Why::ZeroPage };
        assert!(whole(later(400, false), &|summary| summary.stop = Some(stop.clone())));
        assert!(!whole(later(400, false), &|_| ()));
    }

    #[test]
    fn a_record_that_crosses_into_the_segment_is_no_answer_of_its_parts() {
        let lsn = START - 60;
        let commit = Commit { lsn: Lsn(lsn), xid: 40, time: Timestamp(600) };
        let mut crossed = Summary { last: Some(commit.lsn), ..Summary::default() };
        (crossed.ends.count, crossed.ends.max_time) = (1, Some(commit.time));
        crossed.oldest_ended = serde_json::from_value(serde_json::json!([[40, 40, commit.lsn, 600, true]])).unwrap();
        crossed.commits.last = Some(commit);
        let whole = |look: Look, from: u64| asked(look, from, &summary(), Some(&crossed)) == Reading::Whole;
        assert!(whole(later(599, false), 0) && whole(later(600, true), lsn) && whole(Look::End(40), 0));
        assert!(whole(Look::Record, lsn));
        assert!(!whole(later(600, false), 0) && !whole(Look::End(107), 0), "it is none of these");
        assert!(!whole(Look::RestorePoint("x".into()), 0));
        assert!(!whole(later(400, false), lsn + 1) && !whole(Look::Record, lsn + 1), "it begins before");
        let none = Summary { commits: Default::default(), parts: vec![None; 32], ..summary() };
        let seen = Seen { before: Some(commit), ..Seen::default() };
        assert_eq!(asked(later(700, false), 0, &none, Some(&crossed)), Reading::Nothing(seen));
    }
}
