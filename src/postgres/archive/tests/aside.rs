use std::sync::Arc;

use crate::error::find;
use crate::postgres::archive::aside::has_more;
use crate::postgres::archive::testing::*;
use crate::postgres::archive::{Conflict, PushOutcome};
use crate::postgres::load::load_wal;
use crate::postgres::wal::rmgr;
use crate::postgres::wal::testing::{Draft, Writer};
use crate::storage::MemoryStorage;

const THIRD: &str = "000000010000000000000003";

/// Segment 3 with a record for each number, then bytes of a kind; and where its records end.
fn wal(records: &[u8], tail: u8) -> (Vec<u8>, u64) {
    let mut writer = Writer::new(0xD110, SEGMENT as u64, 3 * SEGMENT as u64);
    for number in records {
        let main = vec![*number; 400];
        writer.write(&Draft {
            xid: 700,
            rmgr: rmgr::HEAP,
            main,
            ..Draft::default()
        });
    }
    let end = writer.position().next_multiple_of(8);
    writer.bytes.resize((end - 3 * SEGMENT as u64) as usize, 0);
    writer.bytes.resize(SEGMENT, tail);
    (writer.bytes, end)
}

#[tokio::test]
async fn the_same_wal_that_ends_earlier_is_kept_aside_and_other_wal_is_refused() {
    let (long, cut, recycled) = (wal(&[1, 2, 3], 0).0, wal(&[1, 2], 0).0, wal(&[1, 2], 9).0);
    for (first, second, more) in [
        (&long, &cut, false),
        (&cut, &long, true),
        (&cut, &recycled, false),
        (&recycled, &long, true),
    ] {
        let (files, cluster) = (
            PgWal::new(),
            cluster_in(Arc::new(MemoryStorage::default())).await,
        );
        assert_eq!(
            pusher(&cluster)
                .push(&files.ready(THIRD, first))
                .await
                .unwrap(),
            PushOutcome::Now
        );
        for _ in 0..2 {
            assert_eq!(
                pusher(&cluster)
                    .push(&files.ready(THIRD, second))
                    .await
                    .unwrap(),
                PushOutcome::Aside
            );
        }
        let aside = load_wal(&cluster).await.unwrap().aside;
        let back = files.folder().join("back");
        fetcher(&cluster)
            .fetch(&aside[0], &back, None)
            .await
            .unwrap();
        assert!(aside.len() == 1 && content(&back).as_ref() == Some(second));
        assert_eq!(has_more(&cluster, &aside[0]).await.unwrap(), more);
        let other = wal(&[1, 4, 5], 0).0;
        let error = pusher(&cluster)
            .push(&files.ready(THIRD, &other))
            .await
            .unwrap_err();
        assert!(find::<Conflict>(&error).is_some(), "{error:#}");
    }
}

#[tokio::test]
async fn an_unfinished_segment_that_a_timeline_left_leaves_its_name_to_the_finished_one() {
    let (files, cluster) = (
        PgWal::new(),
        cluster_in(Arc::new(MemoryStorage::default())).await,
    );
    let (cut, end) = wal(&[1, 2], 0);
    let (long, _) = wal(&[1, 2, 3], 0);
    let history = format!("1\t0/{end:X}\tno recovery target specified\n");
    std::fs::write(files.folder().join("00000002.history"), &history).unwrap();
    assert_eq!(
        pusher(&cluster)
            .push(&files.ready(THIRD, &cut))
            .await
            .unwrap(),
        PushOutcome::Aside
    );
    assert_eq!(
        pusher(&cluster)
            .push(&files.ready(THIRD, &long))
            .await
            .unwrap(),
        PushOutcome::Now
    );
    // Left elsewhere: it may be all that there is.
    let (files, cluster) = (
        PgWal::new(),
        cluster_in(Arc::new(MemoryStorage::default())).await,
    );
    std::fs::write(
        files.folder().join("00000002.history"),
        history.replace(&format!("{end:X}"), "400000"),
    )
    .unwrap();
    assert_eq!(
        pusher(&cluster)
            .push(&files.ready(THIRD, &cut))
            .await
            .unwrap(),
        PushOutcome::Now
    );
}
