//! May "there is no such segment" be said? PostgreSQL takes that for the end of the archive and opens the cluster, so
//! it may be said only where nothing shows that the segment must once have been. Pure.

use std::time::Duration;

use crate::postgres::types::{SegmentName, SegmentSize, TimelineHistory, WalFileName};

/// A WAL file that the repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub name: WalFileName,
    /// How long ago it was stored.
    pub age: Duration,
}

/// What the repository has besides the missing segment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Files of the segment's own timeline, at least those from its place on.
    pub kept: Vec<Kept>,
    /// Newer timelines, and how long ago their history files were stored.
    pub histories: Vec<(TimelineHistory, Duration)>,
}

/// Why the archive goes on beyond a missing segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The file that shows it.
    pub shown_by: WalFileName,
    /// How long ago that was stored.
    pub age: Duration,
}

/// What the absence of a segment means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// WAL of this timeline ends before the segment, as far as the archive knows.
    End,
    /// WAL goes on after it: it was lost, or its copy is still on its way.
    Gap(Proof),
}

/// What it means that `missing` is not there. Of several proofs the oldest is given: it cannot be a matter of order in
/// storing.
pub fn judge(missing: SegmentName, size: SegmentSize, facts: &Facts) -> Verdict {
    let later_file = |kept: &Kept| {
        let segment = match kept.name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment,
            WalFileName::Backup { segment, .. } => segment,
            WalFileName::History(_) => return None,
        };
        let later = segment.timeline == missing.timeline && segment.number(size) > missing.number(size);
        later.then_some(Proof { shown_by: kept.name, age: kept.age })
    };
    let later_child = |(history, age): &(TimelineHistory, Duration)| {
        // The segment of the switch itself is only needed from the child.
        let left = history.end_of(missing.timeline)??;
        (left >= missing.end(size)).then_some(Proof { shown_by: WalFileName::History(history.timeline), age: *age })
    };
    let proofs = facts.kept.iter().filter_map(later_file).chain(facts.histories.iter().filter_map(later_child));
    proofs.max_by_key(|proof| proof.age).map_or(Verdict::End, Verdict::Gap)
}

/// Whether recovery was told to end before this segment: `end` and what comes after it count as absent, on whatever
/// timeline.
pub fn is_beyond(end: Option<SegmentName>, asked: SegmentName, size: SegmentSize) -> bool {
    end.is_some_and(|end| asked.number(size) >= end.number(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::{cluster_description, name};
    use crate::postgres::types::TimelineId;

    fn size() -> SegmentSize {
        cluster_description().segment_size
    }

    fn facts(files: &[&str], histories: &[(u32, &str)]) -> Facts {
        let age = Duration::from_secs(9);
        Facts {
            kept: files.iter().map(|file| Kept { name: file.parse().unwrap(), age }).collect(),
            histories: histories
                .iter()
                .map(|(timeline, content)| (TimelineHistory::parse(TimelineId(*timeline), content).unwrap(), age))
                .collect(),
        }
    }

    fn verdict(files: &[&str], histories: &[(u32, &str)]) -> Option<String> {
        match judge(name("000000010000000000000005"), size(), &facts(files, histories)) {
            Verdict::End => None,
            Verdict::Gap(proof) => Some(proof.shown_by.to_string()),
        }
    }

    fn gap(files: &[&str], histories: &[(u32, &str)]) -> String {
        verdict(files, histories).expect("a gap")
    }

    #[test]
    fn nothing_after_the_segment_means_the_end() {
        assert_eq!(verdict(&[], &[]), None);
        assert_eq!(verdict(&["000000010000000000000003", "000000010000000000000004"], &[]), None);
        assert_eq!(verdict(&["000000010000000000000005.partial"], &[]), None);
        assert_eq!(verdict(&["000000010000000000000005.00000028.backup"], &[]), None);
    }

    #[test]
    fn any_later_file_of_the_timeline_shows_a_gap() {
        for file in [
            "000000010000000000000006",
            "000000010000000100000000",
            "000000010000000000000006.partial",
            "000000010000000000000007.00000028.backup",
        ] {
            assert_eq!(gap(&[file], &[]), file);
        }
    }

    #[test]
    fn other_timelines_files_show_nothing() {
        assert_eq!(verdict(&["000000020000000000000006", "00000002.history"], &[]), None);
    }

    #[test]
    fn a_child_that_left_later_shows_a_gap() {
        assert_eq!(gap(&[], &[(2, "1\t0/600100\tx\n")]), "00000002.history");
        // On the boundary behind the segment: all of the segment was there when the child left.
        assert_eq!(gap(&[], &[(2, "1\t0/600000\tx\n")]), "00000002.history");
        // A grandchild too.
        assert_eq!(gap(&[], &[(3, "1\t0/700000\tx\n2\t0/800000\tx\n")]), "00000003.history");
    }

    #[test]
    fn a_child_that_left_within_or_before_the_segment_shows_nothing() {
        assert_eq!(verdict(&[], &[(2, "1\t0/500100\tx\n")]), None);
        assert_eq!(verdict(&[], &[(2, "1\t0/5FFFFF\tx\n")]), None);
        assert_eq!(verdict(&[], &[(2, "1\t0/300000\tx\n")]), None);
        assert_eq!(verdict(&[], &[(4, "3\t0/900000\tx\n")]), None, "not a descendant");
    }

    #[test]
    fn the_oldest_proof_counts() {
        let mut facts = facts(&["000000010000000000000006", "000000010000000000000007"], &[]);
        facts.kept[0].age = Duration::from_secs(1);
        let Verdict::Gap(proof) = judge(name("000000010000000000000005"), size(), &facts) else { panic!("no gap") };
        assert_eq!(proof.age, Duration::from_secs(9));
    }

    #[test]
    fn a_known_end_counts_on_every_timeline() {
        let end = Some(name("000000010000000000000005"));
        assert!(is_beyond(end, name("000000010000000000000005"), size()));
        assert!(is_beyond(end, name("000000020000000000000006"), size()));
        assert!(!is_beyond(end, name("000000020000000000000004"), size()));
        assert!(!is_beyond(None, name("000000020000000000000004"), size()));
    }
}
