//! What the index does not have, or what breaks off, it does not answer for.

use std::sync::Arc;

use super::testing::{
    FIRST, MadeUp, SIZE, TIMELINE, archived, cluster, indexed, seed, segment, store, store_history,
    stored, summaries, summarize, unknown,
};
use super::update::{ListScope, decode, update};
use super::*;
use crate::postgres::archive::testing::SEGMENT;
use crate::postgres::catalog::{KnownPrefix, Unknown, WalIndex};
use crate::postgres::types::Lsn;
use crate::postgres::wal::testing::{Draft, Writer};
use crate::postgres::wal::{Summary, Timestamp, rmgr};

#[tokio::test]
async fn a_segment_that_was_never_listed_is_unknown_and_not_empty() {
    let made = MadeUp::new(seed("absent"), 12);
    let (cluster, _) = cluster().await;
    let mut segments = summaries(&made.segments());
    let (absent, _) = segments.remove(7);
    let index = indexed(&cluster, &segments, 16);
    let (first, until) = (FIRST, FIRST + 12);
    let expected = Unknown::Segment(absent);
    assert_eq!(
        unknown(&index, TIMELINE, first, until),
        Some(expected.clone())
    );
    assert_eq!(unknown(&index, TIMELINE, first, FIRST + 7), None);
    assert_eq!(unknown(&index, TIMELINE, FIRST + 8, until), None);
    assert_eq!(
        unknown(&index, TIMELINE, FIRST + 8, until + 1),
        Some(Unknown::Segment(segment(1, until)))
    );
    // What lies before it stands.
    let end = made
        .ends
        .iter()
        .rfind(|end| end.segment < FIRST + 7)
        .unwrap();
    let told = index.ending(end.xid, TIMELINE, first, until).unwrap();
    assert!(
        told.found.contains(&end.segment) && told.more == Some(expected.clone()),
        "{told:?}"
    );
    for (name, ..) in &made.points {
        let KnownPrefix { found, more } =
            index.restore_points(name, TIMELINE, first, until).unwrap();
        let points = made
            .points
            .iter()
            .filter(|(one, _, segment)| one == name && *segment < FIRST + 7);
        assert_eq!(
            (found.len(), more),
            (points.count(), Some(expected.clone()))
        );
    }
    // The commits around are looked for on the other side of it only if it is known.
    assert_eq!(
        index.last_commit(TIMELINE, first, FIRST + 8),
        Err(expected.clone())
    );
    assert_eq!(
        index.first_commit(TIMELINE, FIRST + 7, until),
        Err(expected)
    );
    assert!(
        index
            .last_commit(TIMELINE, first, FIRST + 7)
            .unwrap()
            .is_some()
    );
    index.clear().unwrap();
    assert_eq!(
        unknown(&index, TIMELINE, first, until),
        Some(Unknown::Segment(segment(1, FIRST)))
    );
}

#[tokio::test]
async fn lookups_go_through_keys() {
    let (cluster, _) = cluster().await;
    let index = Index::temporary(&cluster).unwrap();
    let db = index.connection();
    let within = [
        wal_index::FIRST_COMMIT,
        wal_index::LAST_COMMIT,
        wal_index::NAMED_POINTS,
    ];
    let range = [
        wal_index::BROKEN,
        tablespace::TABLESPACES,
        wal_index::LISTED,
        wal_index::FULL_BLOCKS,
        wal_index::BLOCKS_MAYBE_ENDING,
        wal_index::MAYBE_ENDING,
    ];
    for sql in within.into_iter().chain(range) {
        let mut select = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let bounds = rusqlite::params_from_iter(1..=select.parameter_count() as i64);
        let plan = select
            .query_map(bounds, |row| row.get::<_, String>(3))
            .unwrap();
        let plan: Vec<String> = plan.collect::<rusqlite::Result<_>>().unwrap();
        let [step] = plan.as_slice() else {
            panic!("{sql}: {plan:?}")
        };
        assert!(
            step.starts_with("SEARCH") && step.contains("timeline=? AND "),
            "{sql}: {step}"
        );
    }
}

#[tokio::test]
async fn what_breaks_off_at_the_end_counts_up_to_there() {
    let made = MadeUp::new(seed("tail"), 8);
    let (cluster, _) = cluster().await;
    let mut segments = made.segments();
    let (name, bytes, summary) = &mut segments[7];
    bytes[SIZE as usize / 2..].fill(0);
    *summary = summarize(bytes, FIRST + 7);
    let broken = Unknown::Broken {
        segment: *name,
        lsn: summary.stop.clone().unwrap().lsn,
    };
    let index = indexed(&cluster, &summaries(&segments), 3);
    let until = FIRST + 8;
    let end = made
        .ends
        .iter()
        .rfind(|end| end.segment < FIRST + 7)
        .unwrap();
    let told = index.ending(end.xid, TIMELINE, FIRST, until).unwrap();
    assert!(
        told.found.contains(&end.segment) && told.more == Some(broken),
        "{told:?}"
    );
    let last = made
        .ends
        .iter()
        .rfind(|one| one.committed && one.lsn < (FIRST + 7) * SIZE + SIZE / 4);
    let found = index.last_commit(TIMELINE, FIRST, until).unwrap();
    assert!(
        found.map(|commit| commit.lsn.0) >= last.map(|last| last.lsn),
        "{found:?}"
    );
    assert!(matches!(
        index.last_commit(TIMELINE, FIRST, until + 1),
        Err(Unknown::Broken { .. })
    ));
    // Of a segment that does not follow on the one before nothing counts.
    let whole = made.segments();
    let mut other = MadeUp::new(1, 9).segments();
    let segments = [whole, other.split_off(8)].concat();
    let index = indexed(&cluster, &summaries(&segments), 3);
    let found = |until| index.last_commit(TIMELINE, FIRST, until).unwrap();
    assert_eq!(found(until + 1), found(until));
}

#[tokio::test]
async fn where_a_timeline_does_not_follow_on_its_parent_replay_ends() {
    let (cluster, _) = cluster().await;
    let made = summaries(&MadeUp::new(seed("boundary"), 4).segments());
    let other = summaries(&MadeUp::new(1, 4).segments());
    let (second, fork) = (TimelineId(2), FIRST + 3);
    for (first, follows) in [(&made[3].1, true), (&other[3].1, false)] {
        let mut segments = made[..3].to_vec();
        segments.push((segment(2, fork), first.clone()));
        let index = indexed(&cluster, &segments, 2);
        let told = index.check_boundary(second, fork);
        let broken =
            matches!(&told, Err(Unknown::Broken { segment: at, .. }) if *at == segment(2, fork));
        assert!(if follows { told == Ok(()) } else { broken }, "{told:?}");
        assert_eq!(
            unknown(&index, second, fork, fork + 1),
            None,
            "what lies before its first segment is left out"
        );
    }
}

#[tokio::test]
async fn what_crosses_into_a_fork_is_told_until_what_lies_before_is_another() {
    let (cluster, _) = cluster().await;
    // A commit that begins in one segment and ends in the next.
    let mut wal = Writer::new(0xD110, SIZE, FIRST * SIZE);
    let fill = |wal: &mut Writer, until: u64| {
        while wal.position() + 8000 < until {
            let block = Some((1, vec![1; 7000]));
            wal.write(&Draft {
                rmgr: rmgr::XLOG,
                info: 0xB0,
                block,
                ..Draft::default()
            });
        }
    };
    fill(&mut wal, (FIRST + 2) * SIZE);
    let mut main = 5000i64.to_le_bytes().to_vec();
    main.extend_from_slice(&(1u32 << 2).to_le_bytes());
    main.extend_from_slice(&2000u32.to_le_bytes());
    (0..2000u32).for_each(|file| {
        [1663, 5, file]
            .iter()
            .for_each(|part: &u32| main.extend_from_slice(&part.to_le_bytes()))
    });
    wal.write(&Draft {
        xid: 77,
        rmgr: rmgr::TRANSACTION,
        info: 0x80,
        main,
        ..Draft::default()
    });
    fill(&mut wal, (FIRST + 4) * SIZE);
    let made: Vec<(u64, Vec<u8>, Summary)> = wal
        .bytes
        .chunks_exact(SEGMENT)
        .zip(FIRST..)
        .map(|(bytes, number)| (number, bytes.to_vec(), summarize(bytes, number)))
        .collect();
    let fork = FIRST + 2;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    for (number, bytes, summary) in &made[..3] {
        store(&cluster, segment(1, *number), bytes, Some(summary)).await;
        index
            .observe(stored(&cluster, segment(1, *number)).await, summary)
            .unwrap();
    }
    assert_eq!(
        index.first_later(TIMELINE, FIRST, FIRST + 3, Timestamp(4000), true),
        Ok(Some(fork))
    );
    let (_, bytes, summary) = &made[2];
    store(&cluster, segment(2, fork), bytes, None).await;
    store_history(
        &cluster,
        2,
        &format!("1\t{}\tpromoted\n", Lsn((fork + 1) * SIZE - 8)),
    )
    .await;
    index
        .observe(stored(&cluster, segment(2, fork)).await, summary)
        .unwrap();
    let second = TimelineId(2);
    assert_eq!(
        index.first_later(second, fork, fork + 1, Timestamp(4000), true),
        Ok(Some(fork))
    );
    let replaced = Archived {
        bytes: 1,
        ..archived(segment(1, fork - 1))
    };
    index.list(&[replaced]).unwrap();
    assert_eq!(
        unknown(&index, second, fork, fork + 1),
        Some(Unknown::Segment(segment(2, fork)))
    );
    // Also when it has to be read whole.
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    decode(&index, &cluster, 9).await.unwrap();
    assert_eq!(
        index.first_later(second, fork, fork + 1, Timestamp(4000), true),
        Ok(Some(fork))
    );
}
