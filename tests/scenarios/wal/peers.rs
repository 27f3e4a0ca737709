//! Record for record what PostgreSQL's own readers print.

use std::collections::BTreeMap;

use walden::postgres::types::Lsn;
use walden::postgres::wal::{Fact, StopReason, Timestamp};

use super::segments::{Seen, decode, records};
use super::workload::Worked;
use crate::harness::{command, say_skipped};

/// What another program prints of a record, and its description.
type Printed = (Seen, String);

/// By pg_waldump, or pg_walinspect where there is only that; `None`, said aloud, where there is neither.
fn printed(worked: &Worked) -> Option<Vec<Printed>> {
    if let Some(text) = &worked.inspected {
        return Some(text.lines().map(inspected).collect());
    }
    let major = &worked.cluster.major;
    if !major.has("pg_waldump") {
        say_skipped(&format!(
            "PostgreSQL {}: records not compared (neither pg_waldump nor pg_walinspect)",
            major.number
        ));
        return None;
    }
    let mut waldump = command(major.program("pg_waldump"));
    waldump
        .arg("-p")
        .arg(worked.cluster.data.join("pg_wal"))
        .arg("-s")
        .arg(worked.segments[0].start.to_string());
    let output = waldump.output().expect("run pg_waldump");
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(dumped)
            .collect(),
    )
}

/// `rmgr: Heap len (rec/tot): 54/ 54, tx: 488, lsn: 0/015000A0, prev 0/01500028, desc: INSERT off 3, blkref #0: rel …`
fn dumped(line: &str) -> Printed {
    let after = |word: &str| {
        line.split_once(word)
            .map(|(_, rest)| rest.trim_start())
            .unwrap_or_else(|| panic!("{line}"))
    };
    let word = |text: &str| {
        text.split([' ', ','])
            .next()
            .unwrap_or_default()
            .to_string()
    };
    let lengths = after("len (rec/tot):")
        .split_once('/')
        .expect("two lengths")
        .1
        .trim_start();
    let desc = after("desc: ");
    let seen = Seen {
        lsn: word(after("lsn: ")).parse().expect("an LSN"),
        prev: word(after(", prev ")).parse().expect("an LSN"),
        xid: word(after("tx: ")).parse().expect("an xid"),
        rmgr: word(after("rmgr: ")),
        length: word(lengths).parse().expect("a length"),
        blocks: desc
            .split(", blkref ")
            .skip(1)
            .map(|block| block.trim_end_matches(" FPW").to_string())
            .collect(),
    };
    (seen, desc.to_string())
}

fn inspected(line: &str) -> Printed {
    let columns: Vec<&str> = line.splitn(8, '|').collect();
    let [lsn, prev, xid, rmgr, length, kind, description, blocks] = columns[..] else {
        panic!("{line}")
    };
    // "blkref #0: rel 1663/5/1259 fork main blk 0 (FPW); hole: …, blkref #1: …"
    let block = |text: &str| {
        let place = text.split(" (FPW)").next().unwrap_or_default();
        place.trim().replace("fork main ", "")
    };
    let seen = Seen {
        lsn: lsn.parse().expect("an LSN"),
        prev: prev.parse().expect("an LSN"),
        xid: xid.parse().expect("an xid"),
        rmgr: rmgr.to_string(),
        length: length.parse().expect("a length"),
        blocks: blocks.split("blkref ").skip(1).map(block).collect(),
    };
    (seen, format!("{kind} {description}"))
}

/// `COMMIT 2026-01-02 03:04:05.678901 UTC; rels: base/5/16384 base/5/16385; …`: its time and relations.
fn ended(description: &str) -> (String, Vec<String>) {
    let after_xid = description
        .split_once(": ")
        .filter(|(before, _)| before.contains("PREPARED"));
    let text = after_xid.map_or_else(
        || description.split_once(' ').expect("a time").1,
        |(_, rest)| rest,
    );
    let rels = description
        .split("; ")
        .find_map(|part| part.strip_prefix("rels: "));
    // pg_waldump: "… 03:04:05.678900 UTC"; the server: "… 03:04:05.6789+00".
    let time = text
        .split([';', '+'])
        .next()
        .unwrap_or_default()
        .trim_end_matches(" UTC");
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    let time = format!("{seconds}.{fraction:0<6}");
    (
        time,
        rels.unwrap_or_default()
            .split_whitespace()
            .map(|path| path.trim_end_matches(',').to_string())
            .collect(),
    )
}

/// The ends of transactions: time and dropped relations.
fn ends(worked: &Worked) -> BTreeMap<Lsn, (String, Vec<String>)> {
    let mut ends = BTreeMap::new();
    decode(&worked.segments, 1 << 18, |record, fact| {
        if let Some(Fact::End(end)) = fact {
            let rels = end.dropped.iter().map(|file| match file.tablespace {
                1664 => format!("global/{}", file.number),
                _ => format!("base/{}/{}", file.database, file.number),
            });
            ends.insert(record.lsn, (time_text(end.time), rels.collect()));
        }
    });
    ends
}

fn time_text(time: Timestamp) -> String {
    time.to_utc()
        .expect("a time")
        .format("%Y-%m-%d %H:%M:%S%.6f")
        .to_string()
}

/// LSN, link, transaction, resource manager, length and blocks of each record; times and files of each end.
pub fn every_record_is_read_as_the_server_reads_it(worked: &Worked) {
    let (ours, stop) = records(&worked.segments, 1 << 18);
    let stop = stop.expect("WAL ends within its last segment");
    assert!(
        matches!(
            stop.why,
            StopReason::ZeroPage | StopReason::ZeroLength | StopReason::Address(_)
        ),
        "{stop}"
    );
    for piece in [8192, 100_003] {
        assert_eq!(
            records(&worked.segments, piece),
            (ours.clone(), Some(stop.clone())),
            "in pieces of {piece} bytes"
        );
    }
    let Some(theirs) = printed(worked) else {
        return;
    };
    assert!(theirs.len() > 20_000, "only {} records", theirs.len());
    for (our, (their, description)) in ours.iter().zip(&theirs) {
        assert_eq!(our, their, "{description}");
    }
    // The server writes on until it stops, after pg_walinspect has looked.
    assert!(
        worked.inspected.is_some() || ours.len() == theirs.len(),
        "{} and {}",
        ours.len(),
        theirs.len()
    );
    assert!(ours.len() >= theirs.len());
    let ends = ends(worked);
    let theirs = theirs.iter().filter(|(seen, _)| seen.rmgr == "Transaction");
    let mut compared = 0;
    for (seen, description) in theirs {
        if description.starts_with("COMMIT") || description.starts_with("ABORT") {
            assert_eq!(
                ends.get(&seen.lsn),
                Some(&ended(description)),
                "{description}"
            );
            compared += 1;
        }
    }
    assert!(compared > 100, "only {compared} ends of transactions");
}
