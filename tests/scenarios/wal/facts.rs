//! What records say, against what the workload did and what the server remembers.

use std::collections::BTreeMap;

use walden::postgres::types::{Lsn, SegmentSize};
use walden::postgres::wal::{
    Boundary, Created, ENDED, Ended, EventDetail, Fact, RowChange, Summarizer, Summary, Timestamp,
    join,
};

use super::peers::every_record_is_read_as_the_server_reads_it;
use super::segments::{Segment, decode};
use super::workload::{self, Worked};
use crate::harness::{Major, each_major};

/// Rows inserted, updated and deleted by (transaction, file).
type Counts = BTreeMap<(u32, u32), [u64; 3]>;

/// Counts by the transaction that committed them.
fn counts(worked: &Worked) -> Counts {
    let mut open = Counts::new();
    let mut committed = Counts::new();
    decode(&worked.segments, 1 << 20, |record, fact| match fact {
        Some(Fact::Rows { file, change, rows }) => {
            let counts = open.entry((record.header.xid, file.number)).or_default();
            match change {
                RowChange::Inserted => counts[0] += u64::from(rows),
                RowChange::TakenBack => counts[0] -= 1,
                RowChange::Updated => counts[1] += 1,
                RowChange::Deleted | RowChange::Moved => counts[2] += 1,
            }
        }
        Some(Fact::End(end)) => {
            for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
                let mine: Vec<_> = open
                    .range((xid, 0)..=(xid, u32::MAX))
                    .map(|(key, counts)| (*key, *counts))
                    .collect();
                for (key, counts) in mine {
                    open.remove(&key);
                    let sum = committed.entry((end.xid, key.1)).or_default();
                    (0..3)
                        .filter(|_| end.committed)
                        .for_each(|kind| sum[kind] += counts[kind]);
                }
            }
        }
        _ => {}
    });
    assert!(open.is_empty(), "transactions without an end: {open:?}");
    committed
}

fn rows_and_ends_are_what_the_workload_did(worked: &Worked) {
    let counts = counts(worked);
    for expected in &worked.rows {
        let found = counts
            .get(&(expected.xid, expected.file))
            .copied()
            .unwrap_or_default();
        assert_eq!(found, expected.rows, "{}", expected.what);
    }
    let mut commits = BTreeMap::new();
    let mut dropped = BTreeMap::new();
    decode(&worked.segments, 1 << 20, |_, fact| {
        if let Some(Fact::End(end)) = fact
            && end.committed
        {
            for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
                commits.insert(xid, end.time);
            }
            dropped.insert(
                end.xid,
                end.dropped
                    .iter()
                    .map(|file| file.number)
                    .collect::<Vec<u32>>(),
            );
        }
    });
    for (xid, time) in &worked.commits {
        let ours = commits
            .get(xid)
            .and_then(|time: &Timestamp| time.to_utc())
            .map(|time| time.timestamp_micros());
        assert_eq!(ours, Some(*time), "commit time of transaction {xid}");
    }
    assert!(
        worked.commits.len() > 100,
        "only {} commits",
        worked.commits.len()
    );
    for (xid, file) in &worked.drops {
        assert!(
            dropped[xid].contains(file),
            "transaction {xid} dropped {file}: {:?}",
            dropped[xid]
        );
    }
}

fn named_facts_are_there(worked: &Worked) {
    let mut points: Vec<(String, Lsn)> = Vec::new();
    let mut gids = Vec::new();
    let (mut created, mut gone, mut checkpoints) = (Vec::new(), Vec::new(), 0);
    decode(&worked.segments, 1 << 20, |record, fact| match fact {
        Some(Fact::RestorePoint { name, .. }) => {
            points.push((String::from_utf8_lossy(name).into(), record.end))
        }
        Some(Fact::Prepare { gid, .. }) => gids.push(String::from_utf8_lossy(gid).into_owned()),
        Some(Fact::DatabaseCreated {
            database, source, ..
        }) => created.push((database, source.is_some())),
        Some(Fact::DatabaseDropped { database }) => gone.push(database),
        Some(Fact::Checkpoint { timeline, previous }) => {
            checkpoints += u32::from(timeline == previous)
        }
        _ => {}
    });
    let expected: Vec<(String, Lsn)> = worked
        .restore_points
        .iter()
        .map(|(name, lsn)| (name.to_string(), *lsn))
        .collect();
    assert_eq!(points, expected);
    assert_eq!(gids, ["the gid", "other"]);
    let major = worked.cluster.major.number;
    assert!(
        created.contains(&(worked.database, major < 15)),
        "{created:?}"
    );
    assert!(
        major < 15
            || created
                .iter()
                .any(|(database, copied)| *copied && *database != worked.database)
    );
    assert_eq!(gone, [worked.database]);
    assert!(checkpoints >= 3, "{checkpoints} checkpoints");
}

/// The summaries of single segments, joined, tell what all the WAL tells.
fn summaries_join_to_the_whole(worked: &Worked) {
    let mut commits = 0;
    let mut records = 0;
    decode(&worked.segments, 1 << 20, |_, fact| {
        records += 1;
        commits += u64::from(matches!(fact, Some(Fact::End(end)) if end.committed));
    });
    let summaries: Vec<Summary> = worked.segments.iter().map(summarize).collect();
    let mut sum = (summaries[0].records, summaries[0].commits.count);
    let mut tail = summaries[0].tail.clone();
    for pair in summaries.windows(2) {
        let boundary =
            join(&pair[0], tail.as_ref(), &pair[1]).unwrap_or_else(|stop| panic!("{stop}"));
        sum = (sum.0 + pair[1].records, sum.1 + pair[1].commits.count);
        tail = pair[1].tail.clone();
        match boundary {
            Boundary::Clean => {}
            Boundary::Crossed(crossed) => {
                sum = (sum.0 + crossed.records, sum.1 + crossed.commits.count)
            }
            Boundary::GoesOn(longer) => tail = Some(longer),
        }
    }
    assert_eq!(sum, (records, commits));
    let dropped = summaries.iter().flat_map(|summary| &summary.events);
    let dropped = dropped
        .filter(|event| matches!(event.what, EventDetail::FilesRemoved { .. }))
        .count();
    assert!(
        dropped >= worked.drops.len(),
        "{dropped} events of dropped files"
    );
}

/// The ends that lie wholly in each segment: transactions and subtransactions, with the one they are part of.
fn ends_are_in_the_summaries(worked: &Worked) {
    let size = worked.segments[0].bytes.len() as u64;
    let mut ended: BTreeMap<u64, Vec<Ended>> = BTreeMap::new();
    let mut ends: BTreeMap<u64, Vec<Timestamp>> = BTreeMap::new();
    let part = segment_size(&worked.segments[0]).part();
    let mut parts: BTreeMap<Lsn, Vec<Option<Timestamp>>> = worked
        .segments
        .iter()
        .map(|segment| (segment.start, vec![None; (size / part) as usize]))
        .collect();
    decode(&worked.segments, 1 << 20, |record, fact| {
        let Some(Fact::End(end)) = fact else { return };
        let (first, last) = (record.lsn.0 / size, (record.end.0 - 1) / size);
        if first == last {
            let each = std::iter::once(end.xid).chain(end.subxids.iter());
            let (top, lsn, time, committed) = (end.xid, record.lsn, end.time, end.committed);
            let each = each.map(|xid| Ended {
                xid,
                top,
                lsn,
                time,
                committed,
            });
            ended.entry(first).or_default().extend(each);
            ends.entry(first).or_default().push(end.time);
            let latest = parts.get_mut(&Lsn(first * size)).expect("a segment");
            let latest = &mut latest[(record.lsn.0 % size / part) as usize];
            *latest = (*latest).max(Some(end.time));
        }
    });
    let (mut named, mut left_out) = (0, 0);
    for segment in &worked.segments {
        let summary = summarize(segment);
        let times = ends.remove(&(segment.start.0 / size)).unwrap_or_default();
        let found = (
            summary.ends.count,
            summary.ends.min_time,
            summary.ends.max_time,
        );
        assert_eq!(
            found,
            (
                times.len() as u64,
                times.iter().min().copied(),
                times.iter().max().copied()
            )
        );
        let mut expected = ended.remove(&(segment.start.0 / size)).unwrap_or_default();
        expected.sort_unstable();
        assert_eq!(summary.ends.newest, expected.last().map(|end| end.xid));
        assert_eq!(
            summary.ended_left_out as usize,
            expected.len().saturating_sub(ENDED)
        );
        expected.truncate(ENDED);
        assert_eq!(
            summary.oldest_ended, expected,
            "in the segment at {}",
            segment.start
        );
        let latest: Vec<Option<Timestamp>> = summary
            .part_ends
            .iter()
            .map(|part| part.as_ref().map(|ends| ends.latest()))
            .collect();
        assert_eq!(
            latest, parts[&segment.start],
            "in the segment at {}",
            segment.start
        );
        (named, left_out) = (named + expected.len(), left_out + summary.ended_left_out);
    }
    assert!(
        named > 100 && left_out > 0,
        "{named} ends named, {left_out} left out"
    );
}

/// TRUNCATE makes an empty file; VACUUM FULL fills the one that it makes with pages.
fn made_files_are_in_the_summaries(worked: &Worked) {
    let created: Vec<Created> = worked
        .segments
        .iter()
        .flat_map(|segment| summarize(segment).created)
        .collect();
    for (what, file, filled) in &worked.made {
        let mine: Vec<&Created> = created
            .iter()
            .filter(|created| created.file.number == *file)
            .collect();
        assert!(!mine.is_empty(), "{what}: file {file} is not there");
        let seen = (
            mine.iter().any(|created| created.filled),
            mine.iter().any(|created| created.pages),
        );
        assert_eq!(seen, (*filled, *filled), "{what}: file {file}");
    }
}

fn segment_size(segment: &Segment) -> SegmentSize {
    SegmentSize::new(segment.bytes.len() as u32).expect("the size of a segment")
}

fn summarize(segment: &Segment) -> Summary {
    let mut summarizer = Summarizer::new(segment.start, segment_size(segment));
    summarizer.push(&segment.bytes);
    summarizer.finish()
}

fn small_segments(major: Major) {
    check(&workload::run(&major, 1, "replica"));
}
each_major!(small_segments_say_what_happened, small_segments);

fn logical(major: Major) {
    check(&workload::run(&major, 16, "logical"));
}
each_major!(logical_wal_says_what_happened, logical);

fn check(worked: &Worked) {
    every_record_is_read_as_the_server_reads_it(worked);
    rows_and_ends_are_what_the_workload_did(worked);
    named_facts_are_there(worked);
    summaries_join_to_the_whole(worked);
    ends_are_in_the_summaries(worked);
    made_files_are_in_the_summaries(worked);
}
