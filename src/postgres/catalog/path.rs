//! The path of timelines that a recovery follows, and how far the kept WAL goes along it.

use std::collections::BTreeSet;

use super::{BackupDescription, Gap, WalRanges};
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId};

/// One timeline of the path, and the LSNs that are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStep {
    pub timeline: TimelineId,
    pub from: Lsn,
    /// The first LSN of the next timeline; absent for the last.
    pub to: Option<Lsn>,
}

/// Segments of one timeline that a recovery reads one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalPiece {
    pub first: SegmentName,
    pub last: SegmentName,
    pub segments: u64,
    /// Bytes of their objects; estimated from the mean of the range they belong to.
    pub stored_bytes: u64,
}

impl WalPiece {
    /// Whether a segment is one of them.
    pub fn contains(&self, segment: SegmentName) -> bool {
        (self.first..=self.last).contains(&segment)
    }
}

/// How far WAL goes without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    pub pieces: Vec<WalPiece>,
    /// The segment that a recovery asks for next, and that is not there.
    pub first_missing: SegmentName,
    /// The first segment kept after it: when there is one, the missing ones are a gap.
    pub resumes: Option<SegmentName>,
    /// Retention deleted it: whatever follows, WAL went on.
    pub expired: bool,
}

impl Coverage {
    /// Whether all archived WAL ends there, and nothing shows that there was more.
    pub fn is_end(&self) -> bool {
        self.resumes.is_none() && !self.expired
    }
}

/// A path of timelines, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath {
    history: TimelineHistory,
    size: SegmentSize,
}

impl TimelinePath {
    /// The path that a history tells, of a cluster with segments of this size.
    pub fn new(history: TimelineHistory, size: SegmentSize) -> Self {
        Self { history, size }
    }

    /// All paths there are: those that history files tell, and those of timelines without one, taken for the first of
    /// theirs.
    pub fn all(
        histories: impl IntoIterator<Item = TimelineHistory>,
        backups: &[BackupDescription],
        ranges: &WalRanges,
    ) -> Vec<Self> {
        let mut histories: Vec<TimelineHistory> = histories.into_iter().collect();
        let known: BTreeSet<TimelineId> =
            histories.iter().map(|history| history.timeline).collect();
        let seen = backups
            .iter()
            .map(|backup| backup.timeline)
            .chain(ranges.iter().map(|range| range.timeline()));
        let bare: BTreeSet<TimelineId> =
            seen.filter(|timeline| !known.contains(timeline)).collect();
        histories.extend(bare.into_iter().map(TimelineHistory::root));
        histories
            .into_iter()
            .map(|history| Self::new(history, ranges.segment_size()))
            .collect()
    }

    /// The history that tells it.
    pub fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The timeline that it leads to.
    pub fn timeline(&self) -> TimelineId {
        self.history.timeline
    }

    /// Where the path enters the timeline that it leads to.
    pub fn begin(&self) -> Lsn {
        self.history
            .begin_of(self.history.timeline)
            .unwrap_or_default()
    }

    /// The timeline that the byte at `lsn` belongs to on the path.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.history.timeline_at(lsn)
    }

    /// Where a segment begins.
    pub fn start(&self, segment: SegmentName) -> Lsn {
        segment.start(self.size)
    }

    /// The path as a list, from the timeline given on.
    pub fn steps(&self, from: TimelineId) -> Vec<PathStep> {
        let path: Vec<TimelineId> = self.history.path().collect();
        let step = |timeline: TimelineId| PathStep {
            timeline,
            from: self.history.begin_of(timeline).unwrap_or_default(),
            to: self.history.end_of(timeline).flatten(),
        };
        let steps = path
            .into_iter()
            .filter(|timeline| *timeline >= from)
            .map(step);
        steps
            .filter(|step| step.to.is_none_or(|to| step.from < to))
            .collect()
    }

    /// Whether a backup lies on the path wholly: its start, and its stop before the path leaves its timeline. Servers
    /// before 15 do not check that.
    pub fn carries(&self, backup: &BackupDescription) -> bool {
        self.holds(backup.timeline, backup.start_lsn)
            && self.holds(backup.stop_timeline, backup.stop_lsn)
    }

    /// Whether a place lies on the path; the place where the path leaves a timeline still does.
    pub fn holds(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        let begins = self
            .history
            .begin_of(timeline)
            .is_some_and(|begin| begin <= lsn);
        let ends = self
            .history
            .end_of(timeline)
            .is_some_and(|end| end.is_none_or(|end| lsn <= end));
        begins && ends
    }

    /// The number of the first segment that is read of a timeline on the path: the one in which it begins. Recovery
    /// takes a segment from the newest timeline that begins in or before it (XLogFileReadAnyTLI).
    pub fn first_number(&self, timeline: TimelineId) -> u64 {
        self.history.begin_of(timeline).unwrap_or_default().0 / self.size.bytes()
    }

    /// The ranges of segment numbers that are read of each timeline: from the first to before the second number.
    pub fn segment_ranges(&self) -> Vec<(TimelineId, u64, u64)> {
        let path: Vec<TimelineId> = self.history.path().collect();
        let end = |at: usize| {
            path.get(at + 1)
                .map_or(u64::MAX, |next| self.first_number(*next))
        };
        let segment_ranges = path
            .iter()
            .enumerate()
            .map(|(at, each)| (*each, self.first_number(*each), end(at)));
        segment_ranges.filter(|(_, from, to)| from < to).collect()
    }

    /// The segment that a recovery along the path reads for this number.
    pub fn segment(&self, number: u64) -> SegmentName {
        let segment_ranges = self.segment_ranges();
        let timeline = segment_ranges
            .iter()
            .find(|(_, _, to)| number < *to)
            .map_or(self.timeline(), |range| range.0);
        SegmentName::from_number(timeline, number, self.size)
    }

    /// Older timelines' segments of this number, which a server tries when the path's own is missing although they
    /// hold what the path left behind.
    pub fn stale_segments(&self, wanted: SegmentName) -> Vec<SegmentName> {
        let number = wanted.number(self.size);
        let older = self
            .history
            .path()
            .filter(|timeline| *timeline < wanted.timeline);
        older
            .map(|timeline| SegmentName::from_number(timeline, number, self.size))
            .collect()
    }

    /// Whether a segment is the first that is read of its timeline, and older timelines have one of that number.
    pub fn is_first_of_fork(&self, segment: SegmentName) -> bool {
        let begins = self
            .history
            .begin_of(segment.timeline)
            .is_some_and(|begin| begin > Lsn(0));
        begins && segment.number(self.size) == self.first_number(segment.timeline)
    }

    /// How far WAL goes from a segment number on; never further than the segment before `until`.
    pub fn coverage(&self, ranges: &WalRanges, from: u64, until: u64) -> Coverage {
        let mut pieces: Vec<WalPiece> = Vec::new();
        let mut number = from;
        for (timeline, first, end) in self.segment_ranges() {
            while number >= first && number < end.min(until) {
                let name = SegmentName::from_number(timeline, number, self.size);
                let Some(range) = ranges.holding(name) else {
                    break;
                };
                let last = range.last.number(self.size).min(end.min(until) - 1);
                let segments = last - number + 1;
                let stored_bytes = (u128::from(range.stored_bytes) * u128::from(segments)
                    / u128::from(range.segments)) as u64;
                let last = SegmentName::from_number(timeline, last, self.size);
                pieces.push(WalPiece {
                    first: name,
                    last,
                    segments,
                    stored_bytes,
                });
                number += segments;
            }
        }
        let first_missing = self.segment(number);
        Coverage {
            pieces,
            first_missing,
            resumes: self.resumes(ranges, number),
            expired: ranges.expired().contains(first_missing),
        }
    }

    /// From where to where a backup on the path can be recovered along it; `None` when its own WAL is not all kept.
    pub fn moments(&self, ranges: &WalRanges, backup: &BackupDescription) -> Option<(Lsn, Lsn)> {
        let first =
            SegmentName::containing(backup.timeline, backup.start_lsn, self.size).number(self.size);
        let end = self
            .coverage(ranges, first, u64::MAX)
            .first_missing
            .start(self.size);
        (backup.stop_lsn <= end).then_some((backup.stop_lsn, end))
    }

    /// What is missing within each timeline and along each path, also where a path leaves one timeline for the next.
    pub fn all_gaps(paths: &[Self], ranges: &WalRanges) -> Vec<Gap> {
        let along = ranges.lost(paths.iter().flat_map(|path| path.gaps(ranges)));
        Gap::distinct(ranges.gaps().into_iter().chain(along).collect())
    }

    /// What is missing along the path behind the first segment kept, by timeline.
    fn gaps(&self, ranges: &WalRanges) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut next = self.resumes(ranges, 0);
        while let Some(kept) = next {
            let coverage = self.coverage(ranges, kept.number(self.size), u64::MAX);
            next = coverage.resumes;
            let Some(resumes) = next else { break };
            let missing = (
                coverage.first_missing.number(self.size),
                resumes.number(self.size),
            );
            for (timeline, from, to) in self.segment_ranges() {
                let (from, to) = (from.max(missing.0), to.min(missing.1));
                if from < to {
                    let name = |number| SegmentName::from_number(timeline, number, self.size);
                    gaps.push(Gap {
                        first_missing: name(from),
                        last_missing: name(to - 1),
                        segments: to - from,
                    });
                }
            }
        }
        gaps
    }

    /// The first segment of the path that is kept, at or after a number.
    fn resumes(&self, ranges: &WalRanges, number: u64) -> Option<SegmentName> {
        self.segment_ranges()
            .into_iter()
            .filter(|(_, _, end)| number < *end)
            .find_map(|(timeline, first, end)| {
                ranges
                    .first_from(timeline, number.max(first))
                    .filter(|name| name.number(self.size) < end)
            })
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::testing::SEGMENT;
    use super::*;
    use crate::postgres::types::HistoryEntry;
    use crate::postgres::types::history_model::{
        histories, timelines_asked, tli_of_point_in_history,
    };

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]

        /// Places below 400 in segments of three places.
        #[test]
        fn each_segment_is_read_of_the_timeline_that_postgresql_tries_first(history in histories()) {
            let size = SegmentSize::new(SEGMENT as u32).unwrap();
            let mut scaled = history.clone();
            for entry in &mut scaled.ancestors {
                entry.switch_lsn = Lsn(entry.switch_lsn.0 * SEGMENT / 3);
            }
            let path = TimelinePath::new(scaled.clone(), size);
            for number in 0..150 {
                let segment = path.segment(number);
                let asked = timelines_asked(&scaled, number, SEGMENT, 0);
                proptest::prop_assert_eq!(segment.timeline.0, asked[0], "segment {}", number);
                let stale = path.stale_segments(segment);
                let is_stale = |timeline: &u32| stale.iter().any(|name| name.timeline.0 == *timeline);
                proptest::prop_assert!(asked[1..].iter().all(is_stale), "{:?} of {:?}", stale, asked);
            }
            // A backup is on the path where PostgreSQL finds its checkpoint and its end there.
            for (timeline, lsn) in (1..20).flat_map(|timeline| (1..450_u64).step_by(7).map(move |lsn| (timeline, lsn))) {
                let place = |lsn: u64| Lsn(lsn * SEGMENT / 3);
                let mut backup = super::super::testing::backup("20260101-000000Z");
                (backup.timeline, backup.stop_timeline) = (TimelineId(timeline), TimelineId(timeline));
                (backup.start_lsn, backup.stop_lsn) = (place(lsn), place(lsn + 1));
                let on_path = tli_of_point_in_history(&history, lsn) == timeline;
                proptest::prop_assert_eq!(path.carries(&backup), on_path, "timeline {} at {}", timeline, lsn);
            }
        }
    }

    /// Timeline 2 branches off timeline 1 in segment 7, timeline 3 off timeline 2 in segment 9.
    fn gaps(kept: [&[u64]; 3]) -> Vec<String> {
        let size = SegmentSize::new(SEGMENT as u32).unwrap();
        let mut ranges = WalRanges::new(size);
        for (timeline, numbers) in (1..).zip(kept) {
            for number in numbers {
                let name = SegmentName::from_number(TimelineId(timeline), *number, size);
                ranges.add(name, 1, DateTime::UNIX_EPOCH);
            }
        }
        let entry = |timeline, segment: u64| HistoryEntry {
            timeline: TimelineId(timeline),
            switch_lsn: Lsn(segment * SEGMENT + 100),
            reason: String::new(),
        };
        let second = TimelineHistory {
            timeline: TimelineId(2),
            ancestors: vec![entry(1, 7)],
        };
        let third = TimelineHistory {
            timeline: TimelineId(3),
            ancestors: vec![entry(1, 7), entry(2, 9)],
        };
        let paths = TimelinePath::all([second, third], &[], &ranges);
        let number = |name: SegmentName| name.number(size);
        let gaps = TimelinePath::all_gaps(&paths, &ranges).into_iter();
        gaps.map(|gap| {
            assert_eq!(
                gap.segments,
                number(gap.last_missing) - number(gap.first_missing) + 1
            );
            assert_eq!(gap.first_missing.timeline, gap.last_missing.timeline);
            format!(
                "{}:{}-{}",
                gap.first_missing.timeline,
                number(gap.first_missing),
                number(gap.last_missing)
            )
        })
        .collect()
    }

    #[test]
    fn a_hole_where_a_path_leaves_a_timeline_is_a_gap() {
        assert_eq!(gaps([&[1, 2, 3, 4], &[7, 8, 9], &[]]), ["1:5-6"]);
        assert_eq!(gaps([&[1, 2, 3, 4, 5, 6], &[8, 9], &[]]), ["2:7-7"]);
        assert_eq!(
            gaps([&[1, 2, 3, 4, 5, 6, 7], &[8], &[]]),
            ["2:7-7"],
            "the older one's segment is not enough"
        );
        assert_eq!(
            gaps([&[1, 2, 3, 4], &[8], &[10]]),
            ["1:5-6", "2:7-7", "3:9-9"]
        );
        assert_eq!(gaps([&[1, 2, 3, 4], &[], &[9]]), ["1:5-6", "2:7-8"]);
    }

    #[test]
    fn a_gap_on_several_paths_is_told_once() {
        assert_eq!(gaps([&[1, 2, 4, 5, 6], &[7, 8], &[9]]), ["1:3-3"]);
        assert_eq!(gaps([&[1, 2, 3, 4, 8], &[7, 8], &[9]]), ["1:5-7"]);
    }

    #[test]
    fn what_no_path_reads_is_no_gap() {
        assert_eq!(gaps([&[1, 2, 3, 4, 5, 6], &[7, 8, 9], &[9, 10]]), [""; 0]);
        assert_eq!(
            gaps([&[], &[8, 9], &[]]),
            [""; 0],
            "what lies before was let go"
        );
        assert_eq!(
            gaps([&[8, 9], &[7, 8], &[]]),
            [""; 0],
            "the old timeline went on by itself"
        );
        assert_eq!(gaps([&[1, 2, 3, 4], &[], &[]]), [""; 0]);
    }
}
