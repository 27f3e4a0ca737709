//! May "there is no such file" be said? PostgreSQL takes that for the end of the archive, or of the timelines in it, and
//! opens the cluster, so it may be said only where nothing shows that the file must once have been. Pure.

use std::fmt;
use std::time::Duration;

use crate::postgres::layout::BackupId;
use crate::postgres::types::{
    AsideKind, Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName,
};

/// A WAL file that the repository has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    pub name: WalFileName,
    /// How long ago it was stored.
    pub age: Duration,
}

/// A complete base backup: all WAL of the timeline up to here was archived before the backup was called complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    pub id: BackupId,
    pub timeline: TimelineId,
    pub up_to: Lsn,
}

/// What the repository has besides the missing file.
#[derive(Debug, Clone, Default)]
pub struct ArchiveEvidence {
    /// Files of the missing one's own timeline: of a segment's, at least those from its place on; of a history file's,
    /// at least one.
    pub kept: Vec<StoredFile>,
    /// Newer timelines, and how long ago their history files were stored.
    pub histories: Vec<(TimelineHistory, Duration)>,
    pub backups: Vec<BackedUp>,
}

/// What shows that a missing file must once have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    File(WalFileName),
    Backup(BackupId),
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => write!(f, "{name}"),
            Self::Backup(id) => write!(f, "base backup {id}"),
        }
    }
}

/// Why a missing file must once have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapEvidence {
    pub shown_by: Witness,
    /// How long ago that was stored.
    pub age: Duration,
}

/// What the absence of a file means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// WAL of this timeline ends before the segment, or there is no such timeline, as far as the archive knows.
    End,
    /// WAL goes on after it, or its timeline exists: it was lost, or its copy is still on its way.
    Gap(GapEvidence),
}

/// What it means that `missing` is not there. Of several proofs the oldest is given: it cannot be a matter of order in
/// storing.
pub fn judge(missing: SegmentName, size: SegmentSize, facts: &ArchiveEvidence) -> Absence {
    let later_file = |kept: &StoredFile| {
        let (segment, from) = match kept.name {
            // It is listed and was not found: it came meanwhile, or the store shows it late. Looking again tells.
            WalFileName::Segment(segment) if segment == missing => return Some(kept.just_now()),
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                (segment, missing.number(size) + 1)
            }
            // Named after the segment in which the backup began; a server archives it after that.
            WalFileName::Backup { segment, .. } => (segment, missing.number(size)),
            WalFileName::Aside {
                segment,
                kind: AsideKind::Partial,
                ..
            } => (segment, missing.number(size) + 1),
            WalFileName::Aside {
                segment,
                kind: AsideKind::Backup(_),
                ..
            } => (segment, missing.number(size)),
            // Nothing of it may be written.
            WalFileName::History(_)
            | WalFileName::Aside {
                kind: AsideKind::Segment,
                ..
            } => return None,
        };
        let later = segment.timeline == missing.timeline && segment.number(size) >= from;
        later.then_some(kept.proof())
    };
    let later_child = |(history, age): &(TimelineHistory, Duration)| {
        // The segment of the switch itself is only needed from the child.
        let left = history.end_of(missing.timeline)??;
        (left >= missing.end(size)).then(|| shown_by_history(history, *age))
    };
    let later_backup = |backup: &&BackedUp| {
        backup.timeline == missing.timeline && backup.up_to > missing.start(size)
    };
    let proofs = facts
        .kept
        .iter()
        .filter_map(later_file)
        .chain(facts.histories.iter().filter_map(later_child));
    oldest(
        proofs.chain(
            facts
                .backups
                .iter()
                .filter(later_backup)
                .map(BackedUp::proof),
        ),
    )
}

/// What it means that the history file of `timeline` is not there. A server archives it before any other file of the
/// timeline, so whatever else there is of that timeline shows that it was lost. Timeline 1 has none.
pub fn judge_history(timeline: TimelineId, facts: &ArchiveEvidence) -> Absence {
    if timeline.0 <= 1 {
        return Absence::End;
    }
    let own_file = |kept: &StoredFile| match kept.name {
        WalFileName::History(found) => (found == timeline).then(|| kept.just_now()),
        _ => (kept.name.timeline() == timeline).then(|| kept.proof()),
    };
    let child = |(history, _): &&(TimelineHistory, Duration)| {
        matches!(history.end_of(timeline), Some(Some(_)))
    };
    let files = facts.kept.iter().filter_map(own_file);
    let children = facts
        .histories
        .iter()
        .filter(child)
        .map(|(history, age)| shown_by_history(history, *age));
    let backups = facts
        .backups
        .iter()
        .filter(|backup| backup.timeline == timeline)
        .map(BackedUp::proof);
    oldest(files.chain(children).chain(backups))
}

impl StoredFile {
    fn proof(&self) -> GapEvidence {
        GapEvidence {
            shown_by: Witness::File(self.name),
            age: self.age,
        }
    }

    /// Whatever its age: the missing file may well be there.
    fn just_now(&self) -> GapEvidence {
        GapEvidence {
            age: Duration::ZERO,
            ..self.proof()
        }
    }
}

impl BackedUp {
    /// However young: it was complete only after its WAL was there.
    fn proof(&self) -> GapEvidence {
        GapEvidence {
            shown_by: Witness::Backup(self.id.clone()),
            age: Duration::MAX,
        }
    }
}

fn shown_by_history(history: &TimelineHistory, age: Duration) -> GapEvidence {
    GapEvidence {
        shown_by: Witness::File(WalFileName::History(history.timeline)),
        age,
    }
}

fn oldest(proofs: impl Iterator<Item = GapEvidence>) -> Absence {
    proofs
        .max_by_key(|proof| proof.age)
        .map_or(Absence::End, Absence::Gap)
}

/// Backups that tell the same of a missing file until older ones are not asked.
pub const SETTLED_BY: usize = 16;

/// Whether older backups than these, the newest there are, need not be asked about a missing file: one shows that it was
/// lost, or so many of its own timeline or of older ones end before it. Backups are named by the time, in which WAL goes
/// on: one that is older than all of those and reaches further would be of another server on the same timeline.
pub fn settle(missing: &WalFileName, size: SegmentSize, newest: &[[BackedUp; 2]]) -> bool {
    let is_before = |backup: &BackedUp| match missing {
        WalFileName::Segment(segment) => {
            backup.timeline <= segment.timeline && backup.up_to <= segment.start(size)
        }
        other => backup.timeline < other.timeline(),
    };
    let shows = |backup: &BackedUp| match missing {
        WalFileName::Segment(segment) => {
            backup.timeline == segment.timeline && backup.up_to > segment.start(size)
        }
        other => backup.timeline == other.timeline(),
    };
    newest.iter().flatten().any(shows)
        || newest
            .iter()
            .filter(|ends| ends.iter().all(is_before))
            .count()
            >= SETTLED_BY
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

    fn size() -> SegmentSize {
        cluster_description().segment_size
    }

    fn facts(files: &[&str], histories: &[(u32, &str)]) -> ArchiveEvidence {
        let age = Duration::from_secs(9);
        ArchiveEvidence {
            kept: files
                .iter()
                .map(|file| StoredFile {
                    name: file.parse().unwrap(),
                    age,
                })
                .collect(),
            histories: histories
                .iter()
                .map(|(timeline, content)| {
                    (
                        TimelineHistory::parse(TimelineId(*timeline), content).unwrap(),
                        age,
                    )
                })
                .collect(),
            backups: Vec::new(),
        }
    }

    fn backup(timeline: u32, up_to: &str) -> BackedUp {
        let id = "20260101-000000Z".parse().unwrap();
        BackedUp {
            id,
            timeline: TimelineId(timeline),
            up_to: up_to.parse().unwrap(),
        }
    }

    fn verdict(files: &[&str], histories: &[(u32, &str)]) -> Option<String> {
        match judge(
            name("000000010000000000000005"),
            size(),
            &facts(files, histories),
        ) {
            Absence::End => None,
            Absence::Gap(proof) => Some(proof.shown_by.to_string()),
        }
    }

    fn gap(files: &[&str], histories: &[(u32, &str)]) -> String {
        verdict(files, histories).expect("a gap")
    }

    #[test]
    fn nothing_after_the_segment_means_the_end() {
        assert_eq!(verdict(&[], &[]), None);
        assert_eq!(
            verdict(
                &["000000010000000000000003", "000000010000000000000004"],
                &[]
            ),
            None
        );
        assert_eq!(verdict(&["000000010000000000000005.partial"], &[]), None);
        assert_eq!(
            verdict(&["000000010000000000000004.00000028.backup"], &[]),
            None
        );
    }

    #[test]
    fn any_later_file_of_the_timeline_shows_a_gap() {
        for file in [
            "000000010000000000000006",
            "000000010000000100000000",
            "000000010000000000000006.partial",
            "000000010000000000000005.00000028.backup",
            "000000010000000000000007.00000028.backup",
        ] {
            assert_eq!(gap(&[file], &[]), file);
        }
    }

    #[test]
    fn a_file_that_is_listed_and_was_not_found_is_not_absent() {
        let age = |verdict| match verdict {
            Absence::Gap(proof) => Some(proof.age),
            Absence::End => None,
        };
        let listed = facts(&["000000010000000000000005"], &[]);
        assert_eq!(
            age(judge(name("000000010000000000000005"), size(), &listed)),
            Some(Duration::ZERO)
        );
        let listed = facts(&["00000002.history"], &[]);
        assert_eq!(
            age(judge_history(TimelineId(2), &listed)),
            Some(Duration::ZERO)
        );
        assert_eq!(age(judge_history(TimelineId(3), &listed)), None);
    }

    #[test]
    fn other_timelines_files_show_nothing() {
        assert_eq!(
            verdict(&["000000020000000000000006", "00000002.history"], &[]),
            None
        );
    }

    #[test]
    fn a_child_that_left_later_shows_a_gap() {
        assert_eq!(gap(&[], &[(2, "1\t0/600100\tx\n")]), "00000002.history");
        // On the boundary behind the segment: all of the segment was there when the child left.
        assert_eq!(gap(&[], &[(2, "1\t0/600000\tx\n")]), "00000002.history");
        // A grandchild too.
        assert_eq!(
            gap(&[], &[(3, "1\t0/700000\tx\n2\t0/800000\tx\n")]),
            "00000003.history"
        );
    }

    #[test]
    fn a_child_that_left_within_or_before_the_segment_shows_nothing() {
        assert_eq!(verdict(&[], &[(2, "1\t0/500100\tx\n")]), None);
        assert_eq!(verdict(&[], &[(2, "1\t0/5FFFFF\tx\n")]), None);
        assert_eq!(verdict(&[], &[(2, "1\t0/300000\tx\n")]), None);
        assert_eq!(
            verdict(&[], &[(4, "3\t0/900000\tx\n")]),
            None,
            "not a descendant"
        );
    }

    #[test]
    fn a_backup_shows_the_wal_up_to_its_end() {
        let judged = |backup| {
            let facts = ArchiveEvidence {
                backups: vec![backup],
                ..ArchiveEvidence::default()
            };
            judge(name("000000010000000000000005"), size(), &facts) != Absence::End
        };
        assert!(judged(backup(1, "0/500100")) && judged(backup(1, "0/900100")));
        assert!(
            !judged(backup(1, "0/500000")),
            "it ends with the segment before"
        );
        assert!(!judged(backup(2, "0/900100")));
    }

    #[test]
    fn older_backups_are_asked_until_the_newest_ones_settle_it() {
        let settled = |missing: &str, newest: &[(u32, &str, usize)]| {
            let ends = |(timeline, up_to, count): &(u32, &str, usize)| {
                vec![[backup(*timeline, "0/100028"), backup(*timeline, up_to)]; *count]
            };
            settle(
                &missing.parse().unwrap(),
                size(),
                &newest.iter().flat_map(ends).collect::<Vec<_>>(),
            )
        };
        let on_second = "000000020000000000000005";
        assert!(!settled(on_second, &[]));
        assert!(settled(on_second, &[(2, "0/500100", 1)]), "it was lost");
        assert!(!settled(on_second, &[(2, "0/500000", SETTLED_BY - 1)]));
        assert!(settled(on_second, &[(2, "0/500000", SETTLED_BY)]));
        // Those of the timeline before end before it, too, unless it went on there.
        assert!(settled(on_second, &[(1, "0/400000", SETTLED_BY)]));
        assert!(!settled(on_second, &[(1, "0/500100", SETTLED_BY)]));
        // Another line of WAL, restored to before it, tells nothing.
        assert!(!settled(
            on_second,
            &[(3, "0/400000", 99), (1, "0/600000", 99)]
        ));
        assert!(settled(
            on_second,
            &[(3, "0/400000", 99), (1, "0/400000", SETTLED_BY)]
        ));
        assert!(settled("00000002.history", &[(1, "0/900000", SETTLED_BY)]));
        assert!(settled("00000002.history", &[(2, "0/900000", 1)]));
        assert!(!settled("00000002.history", &[(3, "0/900000", 99)]));
    }

    #[test]
    fn whatever_there_is_of_a_timeline_shows_that_it_had_a_history_file() {
        let lost = |facts: ArchiveEvidence| judge_history(TimelineId(2), &facts) != Absence::End;
        for file in [
            "000000020000000000000003",
            "000000020000000000000003.partial",
        ] {
            assert!(lost(facts(&[file], &[])), "{file}");
        }
        assert!(lost(facts(
            &["000000020000000000000003.00000028.backup"],
            &[]
        )));
        assert!(
            lost(facts(&[], &[(3, "1\t0/300000\tx\n2\t0/400000\tx\n")])),
            "an ancestor"
        );
        assert!(lost(ArchiveEvidence {
            backups: vec![backup(2, "0/500100")],
            ..ArchiveEvidence::default()
        }));
        assert!(!lost(facts(
            &["000000010000000000000003", "000000030000000000000003"],
            &[(3, "1\t0/300000\tx\n")]
        )));
        assert!(!lost(ArchiveEvidence {
            backups: vec![backup(1, "0/500100")],
            ..ArchiveEvidence::default()
        }));
        let facts = facts(&["000000010000000000000003"], &[(2, "1\t0/300000\tx\n")]);
        assert_eq!(
            judge_history(TimelineId(1), &facts),
            Absence::End,
            "timeline 1 has none"
        );
    }

    #[test]
    fn the_oldest_proof_counts() {
        let mut facts = facts(
            &["000000010000000000000006", "000000010000000000000007"],
            &[],
        );
        facts.kept[0].age = Duration::from_secs(1);
        let Absence::Gap(proof) = judge(name("000000010000000000000005"), size(), &facts) else {
            panic!("no gap")
        };
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
