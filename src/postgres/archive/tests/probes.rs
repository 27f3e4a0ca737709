//! Looking into parts of a segment gives the answer that reading all of it gives.

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::pushing::damage;
use super::summaries::rewrite;
use crate::postgres::archive::probe::{probe, probe_parts, probe_whole};
use crate::postgres::archive::summarize::described;
use crate::postgres::archive::testing::*;
use crate::postgres::catalog::{ClusterDescription, ProbeQuery, ProbeResult, ProbeTarget};
use crate::postgres::cluster::Cluster;
use crate::postgres::cluster::testing::registered;
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Timestamp, rmgr};
use crate::repo::Repository;
use crate::storage::MemoryStorage;
use crate::storage::faulty::GarblingStorage;

/// A segment of eight parts.
const LARGE: usize = 4 << 20;
const START: u64 = 3 * LARGE as u64;

/// What is written behind some bytes that say nothing.
#[derive(Debug, Clone)]
enum Step {
    /// Later than the ones before by so much.
    End {
        committed: bool,
        time: i64,
        subxids: u32,
    },
    RestorePoint(u8),
    Switch,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let end = (
        any::<bool>(),
        -15i64..15,
        prop_oneof![80 => 0u32..3, 10 => 100u32..9000, 1 => 140_000u32..200_000],
    )
        .prop_map(|(committed, time, subxids)| Step::End {
            committed,
            time,
            subxids,
        });
    let step =
        prop_oneof![20 => end, 4 => (0u8..5).prop_map(Step::RestorePoint), 1 => Just(Step::Switch)];
    (
        prop_oneof![6 => 0usize..2000, 6 => 0usize..150_000, 1 => 0usize..1_500_000],
        step,
    )
}

/// The WAL of these steps, and where its records begin.
fn written(steps: &[(usize, Step)]) -> (Vec<u8>, Vec<u64>) {
    let mut wal = Writer::new(0xD110, LARGE as u64, START);
    let mut lsns = Vec::new();
    for (number, (length, step)) in (100..).zip(steps) {
        let nothing = Draft {
            rmgr: rmgr::XLOG,
            info: 0x20,
            main: vec![number as u8; *length],
            ..Draft::default()
        };
        lsns.push(wal.write(&nothing));
        lsns.push(wal.write(&match step {
            Step::End {
                committed,
                time,
                subxids,
            } => {
                let info = if *committed { 0x80 } else { 0xA0 };
                let own: Vec<u32> = (0..*subxids)
                    .map(|sub| number as u32 * 10_000 + sub)
                    .collect();
                let mut main = (i64::from(number) + time).to_le_bytes().to_vec();
                [2, *subxids]
                    .iter()
                    .chain(&own)
                    .for_each(|field| main.extend(field.to_le_bytes()));
                Draft {
                    xid: number as u32,
                    rmgr: rmgr::TRANSACTION,
                    info,
                    main,
                    block: None,
                }
            }
            Step::RestorePoint(name) => {
                let mut main = i64::from(number).to_le_bytes().to_vec();
                main.extend([b'p', b'0' + name]);
                main.resize(72, 0);
                Draft {
                    rmgr: rmgr::XLOG,
                    info: 0x70,
                    main,
                    ..Draft::default()
                }
            }
            Step::Switch => Draft {
                rmgr: rmgr::XLOG,
                info: 0x40,
                ..Draft::default()
            },
        }));
        if matches!(step, Step::Switch) {
            wal.fill();
        }
    }
    let end = (wal.bytes.len() / LARGE).max(1) * LARGE;
    wal.bytes.resize(end, 0);
    (wal.bytes, lsns)
}

async fn archived(bytes: &[u8]) -> (Cluster, Arc<MemoryStorage>, Vec<SegmentName>) {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let size = SegmentSize::new(LARGE as u32).unwrap();
    let description = ClusterDescription {
        segment_size: size,
        ..cluster_description()
    };
    let cluster = registered(storage.clone(), description).await;
    let mut names = Vec::new();
    for (number, content) in (START / LARGE as u64..).zip(bytes.chunks(LARGE)) {
        let name = SegmentName::from_number(TimelineId(1), number, size);
        pusher(&cluster)
            .push(&wal.ready(&name.to_string(), content))
            .await
            .unwrap();
        names.push(name);
    }
    (cluster, storage, names)
}

fn query(segment: SegmentName, from: u64, target: ProbeTarget) -> ProbeQuery {
    let begin = segment.start(SegmentSize::new(LARGE as u32).unwrap());
    ProbeQuery {
        segment,
        begin,
        from: Lsn(from),
        target,
    }
}

/// A query, in numbers that any WAL has something for.
fn asked() -> impl Strategy<Value = (usize, Option<usize>, bool, ProbeTarget)> {
    let target = prop_oneof![
        4 => (90i64..300, any::<bool>()).prop_map(|(time, or_at)| ProbeTarget::Later { time: Timestamp(time), or_at }),
        2 => (95u32..250).prop_map(ProbeTarget::End),
        1 => (100u32..250, 0u32..4).prop_map(|(xid, sub)| ProbeTarget::End(xid * 10_000 + sub)),
        1 => (0u8..6).prop_map(|name| ProbeTarget::RestorePoint(format!("p{name}"))),
        2 => Just(ProbeTarget::Record),
        1 => (100u32..300).prop_map(ProbeTarget::Change),
    ];
    (
        any::<usize>(),
        prop::option::of(any::<usize>()),
        any::<bool>(),
        target,
    )
}

#[test]
fn a_few_parts_answer_as_the_whole_segment_does() {
    // Asked, answered by parts, found by parts.
    let counts = Cell::new((0, 0, 0));
    let mut runner = TestRunner::new(Config {
        cases: 10,
        ..Config::with_source_file(file!())
    });
    let input = (
        prop::collection::vec(step(), 100..200),
        prop::collection::vec(asked(), 60..90),
    );
    let outcome = runner.run(&input, |(steps, queries)| {
        let (bytes, lsns) = written(&steps);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let result: Vec<(ProbeQuery, Option<ProbeResult>, ProbeResult)> = runtime.block_on(async {
            let (cluster, _, names) = archived(&bytes).await;
            let mut result = Vec::new();
            for (segment, from, behind, target) in queries {
                let segment = names[segment % names.len()];
                let from = from.map_or(0, |from| lsns[from % lsns.len()] + u64::from(behind));
                let query = query(segment, from, target);
                let by_parts = probe_parts(&cluster, &query).await.unwrap();
                let whole = probe_whole(&cluster, &query).await.unwrap();
                result.push((query, by_parts, whole));
            }
            result
        });
        for (query, by_parts, whole) in result {
            let (asked, answered, found) = counts.get();
            if let Some(by_parts) = by_parts {
                prop_assert_eq!(by_parts, whole, "{:?}", query);
            }
            let is_found = by_parts.is_some_and(|result| result.found.is_some());
            counts.set((
                asked + 1,
                answered + usize::from(by_parts.is_some()),
                found + usize::from(is_found),
            ));
        }
        Ok(())
    });
    outcome.unwrap();
    let (asked, answered, found) = counts.get();
    assert!(
        answered * 2 > asked && found * 8 > asked,
        "{asked} queries, {answered} answered, {found} with a record"
    );
}

/// A segment with an end in each part, and the queries for them.
async fn with_ends() -> (
    Cluster,
    Arc<MemoryStorage>,
    SegmentName,
    Vec<u8>,
    Vec<ProbeQuery>,
) {
    let end = |number: i64| {
        (
            90_000,
            Step::End {
                committed: number % 3 > 0,
                time: number * 10,
                subxids: 1,
            },
        )
    };
    let (bytes, _) = written(&(0..60).map(end).collect::<Vec<_>>());
    let (cluster, storage, names) = archived(&bytes).await;
    let time = |number: i64| ProbeTarget::Later {
        time: Timestamp(100 + number * 11),
        or_at: false,
    };
    let queries = (0..40)
        .map(|number| query(names[0], 0, time(number)))
        .collect();
    (cluster, storage, names[0], bytes, queries)
}

#[tokio::test]
async fn a_segment_without_frames_or_parts_is_read_whole() {
    for member in ["frames", "part_ends"] {
        let (cluster, storage, name, bytes, queries) = with_ends().await;
        let mut expected = Vec::new();
        for query in &queries {
            expected.push(
                probe_parts(&cluster, query)
                    .await
                    .unwrap()
                    .expect("parts are enough"),
            );
        }
        rewrite(&cluster, &*storage, name, &bytes[..LARGE], |about| {
            let holder = if member == "frames" {
                about
            } else {
                &mut about["summary"]
            };
            holder
                .as_object_mut()
                .unwrap()
                .remove(member)
                .expect("it was there");
        })
        .await;
        for (query, expected) in queries.iter().zip(expected) {
            assert_eq!(probe_parts(&cluster, query).await.unwrap(), None);
            assert_eq!(
                probe(&cluster, query).await.unwrap(),
                expected,
                "without {member}: {query:?}"
            );
        }
    }
}

#[tokio::test]
async fn damage_is_an_error_where_it_is_read_and_no_other_answer() {
    let (cluster, storage, name, _, queries) = with_ends().await;
    let mut expected = Vec::new();
    for query in &queries {
        expected.push(probe(&cluster, query).await.unwrap());
    }
    let frames = described(&cluster, name)
        .await
        .unwrap()
        .unwrap()
        .about
        .frames;
    let key = cluster.layout.wal(&WalFileName::Segment(name));
    let (mut right, mut failed) = (0, 0);
    for part in 0..frames.len() {
        let behind: u64 = frames[part..].iter().sum();
        let flip = |object: &mut Vec<u8>| {
            let place = object.len() - behind as usize + frames[part] as usize / 2;
            object[place] ^= 4;
        };
        damage(&*storage, &key, flip).await;
        for (query, expected) in queries.iter().zip(&expected) {
            match probe(&cluster, query).await {
                Ok(result) => {
                    assert_eq!(result, *expected, "part {part}: {query:?}");
                    right += 1;
                }
                Err(error) => {
                    assert!(
                        crate::error::hints(&error)[0].contains("repair the repository"),
                        "{error:#}"
                    );
                    failed += 1;
                }
            }
        }
        damage(&*storage, &key, flip).await;
    }
    assert!(
        right > failed && failed > frames.len(),
        "{right} right, {failed} failed"
    );
}

#[tokio::test]
async fn what_is_damaged_on_its_way_is_read_once_more() {
    let (whole, storage, _, _, queries) = with_ends().await;
    for query in &queries {
        let expected = probe(&whole, query).await.unwrap();
        for at in 0.. {
            let garbling = Arc::new(GarblingStorage::new(storage.clone(), at));
            let repository = Repository::open(garbling.clone()).await.unwrap();
            let cluster = Cluster::open(repository, "main".parse().unwrap())
                .await
                .unwrap();
            assert_eq!(
                probe(&cluster, query).await.unwrap(),
                expected,
                "get {at}: {query:?}"
            );
            assert_eq!(
                probe_whole(&cluster, query).await.unwrap(),
                expected,
                "get {at}: {query:?}"
            );
            if !garbling.garbled() {
                assert!(at > 4, "{at} reads");
                break;
            }
        }
    }
}
