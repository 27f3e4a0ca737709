use std::cell::Cell;
use std::sync::Arc;

use super::super::testing::facts;
use super::super::{KnownPrefix, NoIndex, Point, Unknown, Unusable, missing_wal};
use super::*;
use crate::postgres::types::TimelineHistory;
use crate::postgres::wal::{Commit, TablespaceMade, Timestamp, Xid};

#[test]
fn wal_that_is_missing_makes_a_stretch_only_between_two_windows() {
    let mut facts = facts(&[
        "000000010000000000000002",
        "000000010000000000000003",
        "000000010000000000000005",
    ]);
    let one = windows(&facts, &NoIndex);
    let shown = |told: &Windows| -> Vec<(String, String)> {
        told.windows
            .iter()
            .map(|window| (window.from.lsn.to_string(), window.to.lsn.to_string()))
            .collect()
    };
    assert_eq!(
        shown(&one),
        [("0/2000100".to_string(), "0/4000000".to_string())]
    );
    assert_eq!((one.gaps.len(), missing_wal(&facts).len()), (0, 1));
    assert_eq!(
        (one.windows[0].from.time.is_some(), one.windows[0].to.time),
        (true, None),
        "not known, not wrong"
    );
    let mut later = facts.backups[0].clone();
    (later.start_lsn, later.stop_lsn) =
        ("0/5000028".parse().unwrap(), "0/5000100".parse().unwrap());
    Arc::make_mut(&mut facts.backups).push(later.clone());
    let two = windows(&facts, &NoIndex);
    assert_eq!(
        shown(&two)[1],
        ("0/5000100".to_string(), "0/6000000".to_string())
    );
    assert_eq!((two.gaps.len(), two.gaps[0].seconds), (1, None));
    later.checksum_failures.push("base/1/2 block 3".into());
    Arc::make_mut(&mut facts.backups)[1] = later;
    assert_eq!(
        windows(&facts, &NoIndex),
        one,
        "a damaged one is used only when it is named"
    );
}

#[test]
fn a_timeline_without_its_history_has_no_window() {
    let mut facts = facts(&["000000020000000000000002"]);
    let backup = &mut Arc::make_mut(&mut facts.backups)[0];
    (backup.timeline, backup.stop_timeline) = (TimelineId(2), TimelineId(2));
    let told = windows(&facts, &NoIndex);
    assert!(
        told.windows.is_empty() && told.newest().is_none(),
        "{told:?}"
    );
    let [unknown] = &told.unknown[..] else {
        panic!("{told:?}")
    };
    assert_eq!(unknown.timeline, TimelineId(2));
    assert!(unknown.why.contains("is not archived"), "{unknown:?}");
}

#[test]
fn what_a_timeline_with_a_damaged_history_has_is_not_known_and_not_nothing() {
    let mut facts = facts(&["000000010000000000000002", "000000020000000000000003"]);
    let damaged = |why: &str| Unusable {
        why: why.into(),
        whole: false,
        newer: false,
    };
    facts
        .damaged_histories
        .insert(TimelineId(2), damaged("it is empty"));
    facts
        .damaged_histories
        .insert(TimelineId(3), damaged("it is empty, too"));
    let told = windows(&facts, &NoIndex);
    assert_eq!(
        (told.windows.len(), told.newest()),
        (1, None),
        "the newest timeline's last moment is not known"
    );
    let unknown: Vec<_> = told
        .unknown
        .iter()
        .map(|one| (one.timeline.0, one.why.ends_with("it is empty")))
        .collect();
    assert_eq!(unknown, [(2, true), (3, false)]);
    let history = |timeline| TimelineHistory::parse(timeline, "1\t0/2800000\tpromoted\n").unwrap();
    facts.damaged_histories.clear();
    facts.histories = [2, 3]
        .map(|timeline| (TimelineId(timeline), history(TimelineId(timeline))))
        .into();
    let known = windows(&facts, &NoIndex);
    assert_eq!((known.unknown.len(), known.newest().is_some()), (0, true));
}

#[test]
fn a_timeline_that_goes_on_beside_the_newest_is_told() {
    let left = |file: &str, segments: &[&str]| {
        let mut facts = facts(segments);
        let history = TimelineHistory::parse(TimelineId(2), file).unwrap();
        facts.histories.insert(TimelineId(2), history);
        let others = windows(&facts, &NoIndex).other_timelines;
        others.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let segments = [
        "000000010000000000000002",
        "000000010000000000000003",
        "000000020000000000000003",
    ];
    let told =
        "timeline 1 goes on beside it from 0/3800000 to 0/4000000: ask for it with --timeline 1";
    assert_eq!(left("1\t0/3800000\tpromoted\n", &segments), [told]);
    assert_eq!(
        left("1\t0/4000000\tpromoted\n", &segments),
        [""; 0],
        "it ended where it was left"
    );
    assert_eq!(left("1\t0/3800000\tpromoted\n", &segments[2..]), [""; 0]);
    assert_eq!(
        left("1\t0/3800000\tpromoted\n", &segments[..1]),
        [""; 0],
        "its end was not archived"
    );
}

/// An index of WAL that breaks off in segment 3, and how often it was asked.
struct Broken(Cell<usize>);

impl WalIndex for Broken {
    fn first_later(
        &self,
        _: TimelineId,
        from: u64,
        _: u64,
        _: Timestamp,
        _: bool,
    ) -> Result<Option<u64>, Unknown> {
        self.0.set(self.0.get() + 1);
        let (segment, lsn) = ("000000010000000000000003".parse().unwrap(), Lsn(0x300_0200));
        if from <= 3 {
            Err(Unknown::Broken { segment, lsn })
        } else {
            Ok(None)
        }
    }

    fn ending(
        &self,
        xid: Xid,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<u64>, Unknown> {
        NoIndex.ending(xid, timeline, from, until)
    }

    fn restore_points(
        &self,
        name: &str,
        timeline: TimelineId,
        from: u64,
        to: u64,
    ) -> Result<KnownPrefix<Point>, Unknown> {
        NoIndex.restore_points(name, timeline, from, to)
    }

    fn first_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown> {
        NoIndex.first_commit(timeline, from, until)
    }

    fn last_commit(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<Option<Commit>, Unknown> {
        NoIndex.last_commit(timeline, from, until)
    }

    fn tablespaces(
        &self,
        timeline: TimelineId,
        from: u64,
        until: u64,
    ) -> Result<KnownPrefix<TablespaceMade>, Unknown> {
        NoIndex.tablespaces(timeline, from, until)
    }

    fn check_boundary(&self, timeline: TimelineId, number: u64) -> Result<(), Unknown> {
        NoIndex.check_boundary(timeline, number)
    }
}

#[test]
fn the_index_is_asked_as_often_however_many_backups_there_are() {
    let mut facts = facts(&[]);
    for number in 2..=6 {
        facts.ranges.add(
            format!("0000000100000000000000{number:02}")
                .parse()
                .unwrap(),
            10,
            DateTime::UNIX_EPOCH,
        );
    }
    let one = facts.backups[0].clone();
    // In the first window, over the place where replay breaks off, and in the window behind it.
    let backup = |start: u64, stop: u64| BackupDescription {
        start_lsn: Lsn((start << 24) + 0x28),
        stop_lsn: Lsn((stop << 24) + 0x100),
        ..one.clone()
    };
    let asked = [1, 300].map(|count| {
        let each = [(2, 2), (2, 4), (5, 5)]
            .into_iter()
            .flat_map(|(from, to)| vec![backup(from, to); count]);
        facts.backups = Arc::new(each.collect());
        let index = Broken(Cell::default());
        let ends = windows(&facts, &index)
            .windows
            .into_iter()
            .map(|window| window.to.lsn.0)
            .collect::<Vec<_>>();
        assert_eq!(ends, [0x300_0200, 0x700_0000]);
        index.0.get()
    });
    assert_eq!(asked[0], asked[1]);
}
