//! Objects that others take the place of, or that were damaged: they are read again.

use std::sync::Arc;

use chrono::DateTime;

use super::testing::{
    FIRST, MadeUp, SIZE, TIMELINE, archived, assert_same, cluster, indexed, learn, remove, seed,
    segment, store, stored, summaries, unknown,
};
use super::update::{ListScope, complete, read_headers, update};
use super::*;
use crate::postgres::catalog::Unknown;
use crate::postgres::types::{Lsn, WalFileName};
use crate::postgres::wal::{Ended, Ends, Summary, Timestamp};
use crate::storage::{PutMode, Storage};

#[tokio::test]
async fn an_object_that_was_repaired_is_read_again() {
    let made = MadeUp::new(seed("repaired"), 3).segments();
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    for (at, (name, bytes, summary)) in made.iter().enumerate() {
        let key = cluster.layout.wal(&WalFileName::Segment(*name));
        match at {
            1 => drop(
                storage
                    .put(&key, "no envelope at all".into(), PutMode::CreateOnly)
                    .await
                    .unwrap(),
            ),
            _ => store(&cluster, *name, bytes, Some(summary)).await,
        }
    }
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let (name, bytes, summary) = &made[1];
    assert_eq!(
        unknown(&index, TIMELINE, FIRST, FIRST + 3),
        Some(Unknown::Segment(*name))
    );
    let told = index.state().unwrap().first_unreadable.unwrap();
    assert!(
        told.segment == *name && told.why.contains("damaged"),
        "{told:?}"
    );
    // It is tried again when asked to, and not at every look.
    update(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().unreadable, 1);
    index.try_again(*name).unwrap();
    assert_eq!(
        (
            index.state().unwrap().unreadable,
            index.state().unwrap().not_indexed
        ),
        (0, 1)
    );
    remove(&storage, &cluster, *name).await;
    store(&cluster, *name, bytes, Some(summary)).await;
    // By the size that it was listed with it is damaged still.
    read_headers(&index, &cluster, &|_| ()).await.unwrap();
    assert_eq!(unknown(&index, TIMELINE, FIRST, FIRST + 3), None);
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    assert_eq!(unknown(&index, TIMELINE, FIRST, FIRST + 3), None);
    assert_eq!(index.state().unwrap().first_unreadable, None);
}

#[tokio::test]
async fn what_a_replaced_segment_mentions_decides_again_what_is_new_behind_it() {
    let (cluster, _) = cluster().await;
    let (at, behind) = (FIRST + 18, FIRST + 21);
    let summary = |number: u64, newest: u32| {
        let ended = match number {
            number if number == at => newest,
            number if number == behind => 300,
            number if (at..behind).contains(&number) => return Summary::default(),
            number => 100 + number as u32,
        };
        let (lsn, time) = (Lsn(number * SIZE + 8), Timestamp(1));
        Summary {
            ends: Ends {
                count: 1,
                min_time: Some(time),
                max_time: Some(time),
                newest: Some(ended),
                cut: false,
            },
            oldest_ended: vec![Ended {
                xid: ended,
                top: ended,
                lsn,
                time,
                committed: true,
            }],
            ..Summary::default()
        }
    };
    let version = |newest| {
        (FIRST..=behind)
            .map(|n| (segment(1, n), summary(n, newest)))
            .collect::<Vec<_>>()
    };
    let facts = |index: &Index| -> Vec<String> {
        let tables = ["ended", "block"];
        index
            .dump()
            .into_iter()
            .filter(|line| tables.iter().any(|table| line.starts_with(table)))
            .collect()
    };
    // Transaction 300 is known to be older than its segment only by the number that one before it mentions.
    let (first, second) = (version(500), version(150));
    let index = indexed(&cluster, &first, 30);
    let before = facts(&index);
    for (bytes, replacement) in [(101, &second), (100, &first)] {
        let replaced = Archived {
            bytes,
            ..archived(segment(1, at))
        };
        index.list(&[replaced]).unwrap();
        let listed = |name| {
            if name == replaced.name {
                replaced
            } else {
                archived(name)
            }
        };
        let summaries: Vec<_> = replacement
            .iter()
            .map(|(name, one)| (listed(*name), Box::new(one.clone())))
            .collect();
        learn(&index, &summaries);
        let anew = Index::temporary(&cluster).unwrap();
        anew.list(&[replaced]).unwrap();
        anew.list(
            &(FIRST..=behind)
                .filter(|n| *n != at)
                .map(|n| archived(segment(1, n)))
                .collect::<Vec<_>>(),
        )
        .unwrap();
        anew.learn(&summaries).unwrap();
        assert_same(&facts(&anew), &facts(&index));
    }
    assert_eq!(facts(&index), before);
    assert_ne!(facts(&indexed(&cluster, &second, 30)), before);
}

#[tokio::test]
async fn what_was_read_of_an_object_is_not_taken_for_what_replaced_it() {
    let made = summaries(&MadeUp::new(seed("read"), 3).segments());
    let (cluster, _) = cluster().await;
    let later = |name| Archived {
        stored_at: DateTime::from_timestamp(1, 0).unwrap(),
        ..archived(name)
    };
    let index = indexed(&cluster, &made[..1], 2);
    let (name, summary) = &made[1];
    index.list(&[archived(*name)]).unwrap();
    // While it is read another one comes, of the same size.
    let [read]: [Archived; 1] = index.not_indexed(None, 9).unwrap().try_into().unwrap();
    index.list(&[later(*name)]).unwrap();
    index.learn(&[(read, Box::new(summary.clone()))]).unwrap();
    index.give_up(&read, "what it was cannot be read").unwrap();
    let state = index.state().unwrap();
    assert_eq!((state.not_indexed, state.unreadable), (1, 0));
    let [read]: [Archived; 1] = index.not_indexed(None, 9).unwrap().try_into().unwrap();
    index.learn(&[(read, Box::new(summary.clone()))]).unwrap();
    assert_eq!(index.state().unwrap().not_indexed, 0);
}

#[tokio::test]
async fn who_stored_a_segment_tells_another_time_than_the_store() {
    let made = MadeUp::new(seed("clock"), 2).segments();
    let (cluster, _) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let (name, bytes, summary) = &made[0];
    store(&cluster, *name, bytes, Some(summary)).await;
    let seen = stored(&cluster, *name).await;
    index.observe(seen, summary).unwrap();
    let before = index.dump().len();
    let listed = |stored_at| Archived { stored_at, ..seen };
    let (first, second) = (
        DateTime::from_timestamp(1, 0).unwrap(),
        DateTime::from_timestamp(2, 0).unwrap(),
    );
    index.list(&[listed(first)]).unwrap();
    assert_eq!(
        (index.state().unwrap().not_indexed, index.dump().len()),
        (0, before)
    );
    index.observe(listed(second), summary).unwrap();
    assert_eq!(index.state().unwrap().not_indexed, 0);
    index.list(&[listed(second)]).unwrap();
    assert_eq!(
        index.state().unwrap().not_indexed,
        1,
        "another object lies there"
    );
}

#[tokio::test]
async fn an_unreadable_object_is_told_and_tried_again() {
    let made = MadeUp::new(seed("unreadable"), 3).segments();
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let (name, bytes, summary) = &made[1];
    let key = cluster
        .layout
        .wal(&crate::postgres::types::WalFileName::Segment(*name));
    let _ = storage
        .put(
            &key,
            "no envelope at all, just some text".into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
    complete(&index, &cluster, ListScope::New, &|_| ())
        .await
        .unwrap();
    let state = index.state().unwrap();
    assert_eq!(
        (state.segments, state.not_indexed, state.unreadable),
        (1, 1, 1)
    );
    storage.delete(&key).await.unwrap();
    store(&cluster, *name, bytes, Some(summary)).await;
    complete(&index, &cluster, ListScope::All, &|_| ())
        .await
        .unwrap();
    assert_eq!(index.state().unwrap().unreadable, 0);
}
