//! Recordings of days that are over become few and say the same, wherever that stops.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};

use super::merge::{Merging, merge_a_day};
use super::store::MOST;
use crate::postgres::archive::testing::cluster_in;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::recordings::{load, store};
use crate::postgres::index::testing::{Waiting, cluster};
use crate::postgres::index::update::{ListScope, read_names};
use crate::postgres::index::{Index, RecordedName, Recording};
use crate::postgres::layout::NamesId;
use crate::postgres::repository::copy::{CopyOptions, copy, open_destination};
use crate::postgres::types::{Lsn, TimelineId};
use crate::postgres::wal::RelFileLocator;
use crate::repo::Repository;
use crate::storage::faulty::{CrashPoint, FaultyStorage};
use crate::storage::{Key, MemoryStorage, Storage, list_all};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn recording(number: u32, names: u32) -> Recording {
    let name = |index| {
        let file = RelFileLocator {
            tablespace: 0,
            database: number * 100_000 + index,
            number: 0,
        };
        (file, RecordedName::Database(format!("db {number} {index}")))
    };
    Recording {
        timeline: TimelineId(1),
        lsn: Lsn(u64::from(number)),
        names: (0..names).map(name).collect(),
    }
}

/// Recordings of these times, each with so many names.
async fn record(
    cluster: &Cluster,
    first: u32,
    names: u32,
    times: &[DateTime<Utc>],
) -> Vec<Recording> {
    let mut all = Vec::new();
    for (number, time) in (first..).zip(times) {
        let made = recording(number, names);
        store(
            cluster,
            std::slice::from_ref(&made),
            NamesId::new(*time, number),
            *time,
        )
        .await
        .unwrap();
        all.push(made);
    }
    all
}

async fn keys(cluster: &Cluster) -> Vec<Key> {
    let listed = list_all(cluster.repository.storage(), &cluster.layout.names_folder())
        .await
        .unwrap();
    listed
        .iter()
        .map(|entry| Key::new(entry.name()).unwrap())
        .collect()
}

/// All that is recorded, in the order of places.
async fn recorded(cluster: &Cluster) -> Vec<Recording> {
    let mut all = Vec::new();
    for key in keys(cluster).await {
        all.extend(load(cluster, &key).await.unwrap().unwrap());
    }
    all.sort_by_key(|recording| recording.lsn);
    all.dedup();
    all
}

async fn merge_all(
    cluster: &Cluster,
    index: &Arc<Index>,
    now: DateTime<Utc>,
) -> anyhow::Result<()> {
    let mut merging = Merging::default();
    while merge_a_day(cluster, index, &mut merging, now).await? {}
    Ok(())
}

#[tokio::test]
async fn each_day_that_is_over_becomes_one_recording_that_says_the_same() {
    let (cluster, _) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let begin = at("2026-01-01T22:00:00Z");
    // Four days, the first and the last of them not whole, one an hour.
    let times: Vec<_> = (0..60).map(|hour| begin + Duration::hours(hour)).collect();
    let all = record(&cluster, 1, 2, &times).await;
    read_names(&index, &cluster, ListScope::New).await.unwrap();
    // The day after the second one has just begun.
    merge_all(&cluster, &index, at("2026-01-03T00:59:00Z"))
        .await
        .unwrap();
    assert_eq!(
        keys(&cluster).await.len(),
        1 + 24 + 24 + 10,
        "the first day alone"
    );
    merge_all(&cluster, &index, at("2026-01-03T01:00:00Z"))
        .await
        .unwrap();
    assert_eq!(keys(&cluster).await.len(), 1 + 1 + 24 + 10);
    assert_eq!(recorded(&cluster).await, all);
    merge_all(&cluster, &index, at("2026-01-03T01:00:00Z"))
        .await
        .unwrap();
    assert_eq!(
        keys(&cluster).await.len(),
        1 + 1 + 24 + 10,
        "nothing is left to be done"
    );
    // Whoever reads anew knows as much.
    let anew = Arc::new(Index::temporary(&cluster).unwrap());
    read_names(&anew, &cluster, ListScope::New).await.unwrap();
    for recording in all {
        let (mut ours, mut theirs) = (recording.clone(), recording);
        index.keep_new_names(&mut ours).unwrap();
        anew.keep_new_names(&mut theirs).unwrap();
        assert_eq!((ours.names, theirs.names), (vec![], vec![]));
    }
}

#[tokio::test]
async fn large_recordings_stay_within_the_bound_of_an_object() {
    let (cluster, _) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let begin = at("2026-01-01T10:00:00Z");
    let times: Vec<_> = (0..5)
        .map(|minute| begin + Duration::minutes(minute))
        .collect();
    let all = record(&cluster, 1, MOST as u32 * 2 / 5, &times).await;
    merge_all(&cluster, &index, at("2026-01-03T01:00:00Z"))
        .await
        .unwrap();
    assert_eq!(keys(&cluster).await.len(), 3, "two and two and one");
    assert_eq!(recorded(&cluster).await, all);
}

#[tokio::test]
async fn a_merge_that_stops_at_any_call_loses_no_name_and_goes_on() {
    for point in [CrashPoint::Before, CrashPoint::After] {
        for stop_at in 0.. {
            let (cluster, storage) = cluster().await;
            let index = Arc::new(Index::temporary(&cluster).unwrap());
            let begin = at("2026-01-01T10:00:00Z");
            let all = record(
                &cluster,
                1,
                1,
                &[0, 1, 2].map(|minute| begin + Duration::minutes(minute)),
            )
            .await;
            let faulty = Arc::new(FaultyStorage::new(storage.clone(), stop_at, point));
            let now = at("2026-01-03T01:00:00Z");
            let opened = Repository::open(faulty.clone()).await;
            if let Ok(repository) = opened
                && let Ok(through) = Cluster::open(repository, "main".parse().unwrap()).await
            {
                // An answer that was lost may also be that of the trial removal, which ends merging without an error.
                let _ = merge_all(&through, &index, now).await;
            }
            assert_eq!(recorded(&cluster).await, all, "{point:?} {stop_at}");
            merge_all(&cluster, &index, now).await.unwrap();
            assert_eq!(
                (recorded(&cluster).await, keys(&cluster).await.len()),
                (all, 1),
                "{point:?} {stop_at}"
            );
            if !faulty.stopped() {
                assert!(stop_at > 8);
                break;
            }
        }
    }
}

#[tokio::test]
async fn who_lists_while_recordings_are_merged_learns_all_names() {
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let begin = at("2026-01-01T10:00:00Z");
    let times: Vec<_> = (0..600)
        .map(|second| begin + Duration::seconds(second))
        .collect();
    let all = record(&cluster, 1, 1, &times).await;
    // It knows of the first ones that they are there, and could not read them.
    for key in keys(&cluster).await.iter().take(2) {
        index.pass_over(key.as_str()).unwrap();
    }
    let other = Arc::new(Index::temporary(&cluster).unwrap());
    merge_all(&cluster, &other, at("2026-01-03T01:00:00Z"))
        .await
        .unwrap();
    let _ = storage
        .head(&keys(&cluster).await[0])
        .await
        .unwrap()
        .unwrap();
    let late = record(
        &cluster,
        1000,
        1,
        &times
            .iter()
            .map(|time| *time + Duration::days(1))
            .collect::<Vec<_>>(),
    )
    .await;
    read_names(&index, &cluster, ListScope::New).await.unwrap();
    for mut recording in all.into_iter().chain(late) {
        index.keep_new_names(&mut recording).unwrap();
        assert_eq!(recording.names, []);
    }
    assert_eq!(index.passed_over().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_copy_of_recordings_that_are_merged_meanwhile_has_all_names() {
    let waiting = Arc::new(Waiting::default());
    let cluster = cluster_in(waiting.clone()).await;
    let begin = at("2026-01-01T10:00:00Z");
    let all = record(
        &cluster,
        1,
        2,
        &[0, 1, 26, 27].map(|hour| begin + Duration::hours(hour)),
    )
    .await;
    let to = Arc::new(MemoryStorage::default());
    let destination = open_destination(&cluster, to, at("2026-01-03T00:00:00Z"))
        .await
        .unwrap()
        .0;
    *waiting.folder.lock().unwrap() = Some(cluster.layout.names_folder());
    let options = CopyOptions {
        backup: None,
        workers: 2,
        memory: 1 << 16,
    };
    let merging = async {
        waiting.listed.notified().await;
        let index = Arc::new(Index::temporary(&cluster).unwrap());
        merge_all(&cluster, &index, at("2026-01-03T00:59:00Z"))
            .await
            .unwrap();
        waiting.go_on.notify_one();
    };
    let (copied, ()) = tokio::join!(
        copy(&cluster, &destination, &options, Arc::default()),
        merging
    );
    let copied = copied.unwrap();
    assert!(copied.complete, "{copied:?}");
    assert_eq!(recorded(&destination).await, all);
    // Those of the first day vanished after they were listed; the second day's are not over yet.
    assert_eq!(
        (keys(&cluster).await.len(), copied.counts.names.copied),
        (3, 3),
        "{copied:?}"
    );
}
