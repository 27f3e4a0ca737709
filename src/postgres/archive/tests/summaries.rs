use std::sync::Arc;

use proptest::prelude::*;

use crate::codec::seal;
use crate::postgres::archive::probe::probe;
use crate::postgres::archive::summarize::{summarize, summary_of};
use crate::postgres::archive::testing::*;
use crate::postgres::catalog::{ProbeQuery, ProbeTarget, WAL_KIND, WalDescription};
use crate::postgres::cluster::Cluster;
use crate::postgres::types::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Decoder, Fact, Timestamp, read_fact, rmgr};
use crate::storage::{MemoryStorage, PutMode, Storage};

const START: u64 = 3 * SEGMENT as u64;

fn writer() -> Writer {
    Writer::new(0xD110, SEGMENT as u64, START)
}

/// A commit (info 0) or rollback (info 0x20) with so many subtransactions.
fn end(xid: u32, info: u8, subxids: u32) -> Draft {
    let mut main = i64::from(xid).to_le_bytes().to_vec();
    [2, subxids]
        .iter()
        .chain((0..subxids).collect::<Vec<u32>>().iter())
        .for_each(|n| main.extend(n.to_le_bytes()));
    Draft {
        xid,
        rmgr: rmgr::TRANSACTION,
        info: 0x80 | info,
        main,
        block: None,
    }
}

fn padding(length: usize) -> Draft {
    Draft {
        xid: 9,
        rmgr: rmgr::HEAP,
        info: 0,
        main: vec![0; 3],
        block: Some((1, vec![1; length])),
    }
}

fn segments(timeline: u32, bytes: &[u8]) -> Vec<SegmentName> {
    let size = SegmentSize::new(SEGMENT as u32).unwrap();
    let first = START / SEGMENT as u64;
    let number =
        |index: usize| SegmentName::from_number(TimelineId(timeline), first + index as u64, size);
    (0..bytes.len() / SEGMENT).map(number).collect()
}

/// Archives WAL as segments of timeline 1, without the summaries of some.
async fn archived(bytes: &[u8], bare: impl Fn(usize) -> bool) -> (Cluster, Vec<SegmentName>) {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    let names = segments(1, bytes);
    for (index, (name, content)) in names.iter().zip(bytes.chunks(SEGMENT)).enumerate() {
        pusher(&cluster)
            .push(&wal.ready(&name.to_string(), content))
            .await
            .unwrap();
        if bare(index) {
            rewrite(&cluster, &*storage, *name, content, |about| {
                drop(about.as_object_mut().unwrap().remove("summary"))
            })
            .await;
        }
    }
    (cluster, names)
}

/// Stores a segment once more with another description.
pub(super) async fn rewrite(
    cluster: &Cluster,
    storage: &dyn Storage,
    name: SegmentName,
    content: &[u8],
    change: impl FnOnce(&mut serde_json::Value),
) {
    let key = cluster.layout.wal(&WalFileName::Segment(name));
    let mut about = cluster
        .repository
        .header(&key, WAL_KIND)
        .await
        .unwrap()
        .unwrap()
        .about
        .read()
        .unwrap();
    change(&mut about);
    let sealed = seal(WAL_KIND, &about, &mut &content[..], content.len() as u64, 1).unwrap();
    let object = [sealed.envelope, sealed.body].concat();
    let _ = storage
        .put(&key, object.into(), PutMode::Overwrite)
        .await
        .unwrap();
}

/// Where the record of a commit or rollback begins and ends.
type Ending = (Lsn, Lsn);

/// All ends by reading everything from the beginning.
fn all_ends(bytes: &[u8]) -> Vec<Ending> {
    let (mut decoder, mut ends) = (Decoder::new(Lsn(START)), Vec::new());
    decoder.push(bytes, |record| {
        if let Ok(Some(Fact::End(_))) = read_fact(record) {
            ends.push((record.lsn, record.end));
        }
    });
    ends
}

/// The ends that a segment holds the last byte of, asked for one after the other.
async fn ends_in(cluster: &Cluster, segment: SegmentName) -> anyhow::Result<Vec<Ending>> {
    let (mut ends, mut from) = (Vec::new(), Lsn(0));
    loop {
        let begin = segment.start(cluster.description.segment_size);
        let query = ProbeQuery {
            segment,
            begin,
            from,
            target: ProbeTarget::Later {
                time: Timestamp(0),
                or_at: false,
            },
        };
        let Some(found) = probe(cluster, &query).await?.found else {
            return Ok(ends);
        };
        ends.push((found.lsn, found.end));
        from = Lsn(found.lsn.0 + 1);
    }
}

async fn found_ends(cluster: &Cluster, names: &[SegmentName]) -> Vec<Ending> {
    let mut ends = Vec::new();
    for name in names {
        ends.extend(ends_in(cluster, *name).await.unwrap());
    }
    ends
}

fn sample() -> Vec<u8> {
    let mut wal = writer();
    for xid in 10..70 {
        wal.write(&padding(60_000));
        wal.write(&end(xid, 0x20 * (xid % 2) as u8, xid));
    }
    wal.fill();
    wal.bytes
}

#[tokio::test]
async fn a_pushed_segment_carries_its_summary_and_one_without_it_is_read() {
    let bytes = sample();
    let (cluster, names) = archived(&bytes, |index| index == 1).await;
    assert!(names.len() > 3);
    let mut commits = 0;
    for name in &names {
        let summary = summary_of(&cluster, *name).await.unwrap().unwrap();
        assert_eq!(
            summarize(&cluster, *name).await.unwrap().unwrap(),
            summary,
            "{name}"
        );
        commits += summary.commits.count;
    }
    assert!(commits > 20, "{commits}");
    let key = |name: &SegmentName| cluster.layout.wal(&WalFileName::Segment(*name));
    for (name, stored) in [(&names[0], true), (&names[1], false)] {
        let about = cluster
            .repository
            .header(&key(name), WAL_KIND)
            .await
            .unwrap()
            .unwrap()
            .about;
        let description: WalDescription = about.read().unwrap();
        assert_eq!(description.summary.is_some(), stored, "{name}");
    }
    assert_eq!(
        summary_of(&cluster, name_of(9)).await.unwrap(),
        None,
        "not archived"
    );
}

fn name_of(number: u64) -> SegmentName {
    SegmentName::from_number(
        TimelineId(1),
        number,
        SegmentSize::new(SEGMENT as u32).unwrap(),
    )
}

#[tokio::test]
async fn a_summary_in_a_form_that_is_not_known_does_no_harm() {
    let (storage, wal) = (Arc::new(MemoryStorage::default()), PgWal::new());
    let cluster = cluster_in(storage.clone()).await;
    let (bytes, name) = (sample(), name_of(3));
    let content = &bytes[..SEGMENT];
    pusher(&cluster)
        .push(&wal.ready(&name.to_string(), content))
        .await
        .unwrap();
    let before = summary_of(&cluster, name).await.unwrap();
    rewrite(&cluster, &*storage, name, content, |about| {
        about["summary"]["events"] = "later".into()
    })
    .await;
    assert_eq!(summary_of(&cluster, name).await.unwrap(), before);
    let back = wal.folder().join("back");
    fetcher(&cluster)
        .fetch(&WalFileName::Segment(name), &back, None)
        .await
        .unwrap();
    assert!(super::super::testing::content(&back).as_deref() == Some(content));
}

#[tokio::test]
async fn a_segment_with_damaged_records_is_stored_and_says_so() {
    let wal = PgWal::new();
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    let (mut bytes, name) = (sample(), name_of(3));
    bytes[SEGMENT / 2] ^= 1;
    let pusher = pusher(&cluster);
    let prepared = pusher
        .prepare(&wal.ready(&name.to_string(), &bytes[..SEGMENT]))
        .unwrap();
    let stop = prepared.broken().expect("a break").clone();
    assert!(
        stop.lsn > Lsn(START) && stop.lsn <= Lsn(START + SEGMENT as u64 / 2),
        "{stop}"
    );
    pusher.store(&prepared).await.unwrap();
    assert_eq!(
        summary_of(&cluster, name).await.unwrap().unwrap().stop,
        Some(stop)
    );
    // Where a promotion ended a timeline, WAL may break off anywhere.
    let partial = wal.ready(&format!("{name}.partial"), &bytes[..SEGMENT]);
    assert_eq!(pusher.prepare(&partial).unwrap().broken(), None);
}

#[tokio::test]
async fn a_damaged_object_is_an_error_and_no_answer() {
    let storage = Arc::new(MemoryStorage::default());
    let wal = PgWal::new();
    let cluster = cluster_in(storage.clone()).await;
    let (bytes, name) = (sample(), name_of(3));
    pusher(&cluster)
        .push(&wal.ready(&name.to_string(), &bytes[..SEGMENT]))
        .await
        .unwrap();
    let key = cluster.layout.wal(&WalFileName::Segment(name));
    super::pushing::damage(&*storage, &key, |object| *object.last_mut().unwrap() ^= 1).await;
    let error = ends_in(&cluster, name).await.unwrap_err();
    assert!(
        crate::error::hints(&error)[0].contains("repair the repository"),
        "{error:#}"
    );
}

#[tokio::test]
async fn the_record_before_a_fork_is_found_on_the_older_timeline() {
    let mut wal = writer();
    while wal.position() < START + SEGMENT as u64 - 300 {
        wal.write(&padding(100));
    }
    let crossing = wal.write(&end(10, 0, 200));
    wal.fill();
    let (files, cluster) = (
        PgWal::new(),
        cluster_in(Arc::new(MemoryStorage::default())).await,
    );
    let (older, newer) = (segments(1, &wal.bytes)[0], segments(2, &wal.bytes)[1]);
    for (name, content) in [older, newer].iter().zip(wal.bytes.chunks(SEGMENT)) {
        pusher(&cluster)
            .push(&files.ready(&name.to_string(), content))
            .await
            .unwrap();
    }
    assert_eq!(all_ends(&wal.bytes)[0].0, Lsn(crossing));
    assert_eq!(
        ends_in(&cluster, newer).await.unwrap(),
        all_ends(&wal.bytes)
    );
}

#[tokio::test]
async fn a_record_longer_than_a_segment_is_found_where_it_ends() {
    let mut wal = writer();
    wal.write(&end(10, 0, 3));
    wal.write(&end(11, 0x20, 700_000));
    wal.write(&end(12, 0, 0));
    wal.fill();
    let (cluster, names) = archived(&wal.bytes, |index| index == 1).await;
    assert!(names.len() >= 3);
    assert_eq!(found_ends(&cluster, &names).await, all_ends(&wal.bytes));
    assert_eq!(ends_in(&cluster, names[1]).await.unwrap(), []);
}

#[tokio::test]
async fn what_begins_before_the_archive_does_is_left_out() {
    let bytes = sample();
    let (cluster, names) = archived(&bytes, |_| false).await;
    let all = all_ends(&bytes);
    let second = names[1].start(cluster.description.segment_size);
    cluster
        .repository
        .storage()
        .delete(&cluster.layout.wal(&WalFileName::Segment(names[0])))
        .await
        .unwrap();
    let expected: Vec<Ending> = all.into_iter().filter(|(lsn, _)| *lsn >= second).collect();
    assert_eq!(found_ends(&cluster, &names[1..]).await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn segment_by_segment_every_end_is_found_once(
        records in prop::collection::vec((1usize..60_000, 0u32..4000, any::<bool>()), 60..120), bare in any::<u8>(),
    ) {
        let mut wal = writer();
        for ((length, subxids, committed), xid) in records.iter().zip(100..) {
            wal.write(&padding(*length));
            wal.write(&end(xid, if *committed { 0 } else { 0x20 }, *subxids));
        }
        wal.fill();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let found = runtime.block_on(async {
            let (cluster, names) = archived(&wal.bytes, |index| bare >> (index % 8) & 1 == 1).await;
            found_ends(&cluster, &names).await
        });
        prop_assert_eq!(found, all_ends(&wal.bytes));
    }
}
