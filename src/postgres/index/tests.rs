//! What the index answers of moments, and the file that it is kept in.

use std::os::unix::fs::PermissionsExt;

use super::testing::{
    FIRST, MadeUp, Random, SIZE, TIMELINE, archived, cluster, indexed, seed, segment, summaries,
    summarize,
};
use super::*;
use crate::postgres::catalog::{KnownPrefix, Point, Unknown, WalIndex};
use crate::postgres::wal::{Commit, Timestamp};

#[tokio::test]
async fn moments_are_as_a_look_at_all_records_tells() {
    let seed = seed("moments");
    let made = MadeUp::new(seed, 40);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let (last, mut random) = (FIRST + 40, Random(seed));
    for _ in 0..2000 {
        let from = FIRST + random.below(40);
        let until = from + random.below(last - from + 1);
        let within = |number: u64| number >= from && number < until;
        let end = made.ends[random.below(made.ends.len() as u64) as usize];
        let (time, or_at) = (end.time + random.below(3) as i64 - 1, random.below(2) == 0);
        // What crosses into the first segment is not lost: it was asked for from there.
        let later = made
            .ends
            .iter()
            .filter(|one| within(one.segment) && (one.time > time || or_at && one.time == time));
        let expected = later.map(|one| one.segment).min();
        assert_eq!(
            index
                .first_later(TIMELINE, from, until, Timestamp(time), or_at)
                .unwrap(),
            expected
        );
        let KnownPrefix {
            found: candidates,
            more,
        } = index.ending(end.xid, TIMELINE, from, until).unwrap();
        assert_eq!(more, None);
        assert!(
            !within(end.segment) || candidates.contains(&end.segment),
            "{end:?} {candidates:?}"
        );
        assert!(candidates.iter().all(|number| within(*number)));
        assert!(candidates.len() <= 4, "{end:?} {candidates:?}");
        let (name, ..) = &made.points[random.below(made.points.len() as u64) as usize];
        let named = |point| match point {
            Point::Named { segment, lsn, .. } => Some((segment, lsn.0)),
            Point::Unnamed { .. } => None,
        };
        let found = index
            .restore_points(name, TIMELINE, from, until)
            .unwrap()
            .found
            .into_iter()
            .filter_map(named);
        let points = made
            .points
            .iter()
            .filter(|(one, _, segment)| one == name && within(*segment));
        let expected: Vec<(u64, u64)> = points.map(|(_, lsn, segment)| (*segment, *lsn)).collect();
        assert_eq!(found.collect::<Vec<_>>(), expected);
        let mut commits = made
            .ends
            .iter()
            .filter(|one| one.committed && within(one.segment))
            .map(|one| one.lsn);
        let found = |commit: Option<Commit>| commit.map(|commit| commit.lsn.0);
        assert_eq!(
            found(index.first_commit(TIMELINE, from, until).unwrap()),
            commits.clone().next()
        );
        assert_eq!(
            found(index.last_commit(TIMELINE, from, until).unwrap()),
            commits.next_back()
        );
    }
}

#[tokio::test]
async fn what_is_not_indexed_is_unknown_and_what_is_broken_ends_replay() {
    let made = MadeUp::new(seed("unknown"), 10).segments();
    let (cluster, _) = cluster().await;
    let mut segments = summaries(&made);
    let (name, bytes, _) = &made[4];
    let mut broken = bytes.clone();
    broken[SIZE as usize / 2..]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x55);
    segments[4].1 = summarize(&broken, FIRST + 4);
    assert!(segments[4].1.stop.is_some());
    let (hidden, _) = segments.remove(7);
    let index = indexed(&cluster, &segments, 3);
    index.list(&[archived(hidden)]).unwrap();
    let never = Timestamp(i64::MAX - 1);
    let ask = |from: u64, until: u64| {
        index.first_later(TIMELINE, FIRST + from, FIRST + until, never, true)
    };
    assert_eq!(ask(0, 4), Ok(None));
    let stop = segments[4].1.stop.clone().unwrap().lsn;
    assert_eq!(
        ask(0, 5),
        Err(Unknown::Broken {
            segment: *name,
            lsn: stop
        })
    );
    assert!(matches!(ask(5, 10), Err(Unknown::Segment(segment)) if segment == hidden));
    let first = Timestamp(i64::MIN);
    let found = index
        .first_later(TIMELINE, FIRST, FIRST + 10, first, true)
        .unwrap();
    assert!(
        found.is_some_and(|number| number <= FIRST + 4),
        "what lies before the answer counts: {found:?}"
    );
    let state = index.state().unwrap();
    assert_eq!((state.segments, state.not_indexed), (10, 1));
}

#[tokio::test]
async fn a_file_of_another_form_or_none_at_all_is_made_anew() {
    let (cluster, _) = cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cache");
    let index = Index::open(&folder, &cluster).unwrap();
    let path = index.path().unwrap().to_path_buf();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    index.list(&[archived(segment(1, 7))]).unwrap();
    // Two have it open at once.
    let second = Index::open(&folder, &cluster).unwrap();
    assert_eq!(second.state().unwrap().segments, 1);
    drop((index, second));
    assert_eq!(
        Index::open(&folder, &cluster)
            .unwrap()
            .state()
            .unwrap()
            .segments,
        1,
        "it is kept"
    );
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", VERSION + 1)
        .unwrap();
    let index = Index::open(&folder, &cluster).unwrap();
    assert_eq!(index.state().unwrap().segments, 0);
    index.list(&[archived(segment(1, 7))]).unwrap();
    drop(index);
    std::fs::write(
        &path,
        "this is no database, but it is long enough to be looked at as one".repeat(100),
    )
    .unwrap();
    assert_eq!(
        Index::open(&folder, &cluster)
            .unwrap()
            .state()
            .unwrap()
            .segments,
        0
    );
    std::fs::write(&path, "").unwrap();
    assert_eq!(
        Index::open(&folder, &cluster)
            .unwrap()
            .state()
            .unwrap()
            .segments,
        0
    );
}
