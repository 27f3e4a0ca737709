//! What records say, against what the workload did and what the server remembers.

use std::collections::BTreeMap;

use walden::postgres::types::Lsn;
use walden::postgres::wal::{Fact, RowChange, Timestamp};

use crate::harness::{Major, each_major};
use crate::segments::decode;
use crate::workload::{self, Worked};

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
                let mine: Vec<_> = open.range((xid, 0)..=(xid, u32::MAX)).map(|(key, counts)| (*key, *counts)).collect();
                for (key, counts) in mine {
                    open.remove(&key);
                    let sum = committed.entry((end.xid, key.1)).or_default();
                    (0..3).filter(|_| end.committed).for_each(|kind| sum[kind] += counts[kind]);
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
        let found = counts.get(&(expected.xid, expected.file)).copied().unwrap_or_default();
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
            dropped.insert(end.xid, end.dropped.iter().map(|file| file.number).collect::<Vec<u32>>());
        }
    });
    for (xid, time) in &worked.commits {
        let ours = commits.get(xid).and_then(|time: &Timestamp| time.to_utc()).map(|time| time.timestamp_micros());
        assert_eq!(ours, Some(*time), "commit time of transaction {xid}");
    }
    assert!(worked.commits.len() > 100, "only {} commits", worked.commits.len());
    for (xid, file) in &worked.drops {
        assert!(dropped[xid].contains(file), "transaction {xid} dropped {file}: {:?}", dropped[xid]);
    }
}

fn named_facts_are_there(worked: &Worked) {
    let mut points: Vec<(String, Lsn)> = Vec::new();
    let mut gids = Vec::new();
    let (mut created, mut gone, mut switches, mut checkpoints) = (Vec::new(), Vec::new(), 0, 0);
    decode(&worked.segments, 1 << 20, |record, fact| match fact {
        Some(Fact::RestorePoint { name, .. }) => points.push((String::from_utf8_lossy(name).into(), record.end)),
        Some(Fact::Prepare { gid, .. }) => gids.push(String::from_utf8_lossy(gid).into_owned()),
        Some(Fact::DatabaseCreated { database, source, .. }) => created.push((database, source.is_some())),
        Some(Fact::DatabaseDropped { database, tablespaces }) => gone.push((database, tablespaces.iter().collect())),
        Some(Fact::Switch) => switches += 1,
        Some(Fact::Checkpoint(checkpoint)) => checkpoints += u32::from(checkpoint.timeline == checkpoint.previous),
        _ => {}
    });
    let expected: Vec<(String, Lsn)> =
        worked.restore_points.iter().map(|(name, lsn)| (name.to_string(), *lsn)).collect();
    assert_eq!(points, expected);
    assert_eq!(gids, ["the gid", "other"]);
    let major = worked.cluster.major.number;
    assert!(created.contains(&(worked.database, major < 15)), "{created:?}");
    assert!(major < 15 || created.iter().any(|(database, copied)| *copied && *database != worked.database));
    let tablespaces: Vec<u32> = vec![1663];
    assert_eq!(gone, [(worked.database, tablespaces)]);
    assert!(switches >= 2 && checkpoints >= 3, "{switches} switches, {checkpoints} checkpoints");
}

fn records_say_what_the_workload_did(major: Major) {
    for (segment_mib, wal_level) in [(1, "replica"), (16, "logical")] {
        let worked = workload::run(&major, segment_mib, wal_level);
        rows_and_ends_are_what_the_workload_did(&worked);
        named_facts_are_there(&worked);
    }
}
each_major!(facts_of_records, records_say_what_the_workload_did);
