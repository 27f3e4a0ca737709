//! What the service does a minute, and a fetch of a file that is not there, cost the same however much is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

use super::kept::{Kept, archive, make, name, put, summary};
use crate::http::facts::{FactsReader, FactsSnapshot, RepositoryFacts};
use crate::metrics::Durations;
use crate::postgres::archive::Fetcher;
use crate::postgres::archive::testing::{SEGMENT, back_up_as, cluster_in};
use crate::postgres::catalog::WAL_KIND;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::update::ListScope;
use crate::postgres::index::{Archived, Index};
use crate::postgres::layout::{BackupId, IdleMarker};
use crate::postgres::types::{Lsn, TimelineId, WalFileName};
use crate::service::{IndexOptions, indexing};
use crate::storage::counting::CountingStorage;
use crate::storage::{LocalStorage, MemoryStorage, PutMode, Storage};

/// Minutes that are measured.
const MINUTES: usize = 5;

/// How often each kind of call was made.
type Calls = BTreeMap<&'static str, usize>;

/// What was measured.
#[derive(Debug)]
struct Cost {
    minutes: Calls,
    /// Of minutes in which a segment came.
    busy: Calls,
    absent: Calls,
}

fn count(storage: &CountingStorage) -> Calls {
    let mut calls = Calls::new();
    for call in storage.calls() {
        *calls.entry(call).or_default() += 1;
    }
    calls
}

/// Seconds of processor time of this process so far.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .to_string()
}

/// What the service does each minute.
struct Service {
    cluster: Cluster,
    index: Arc<Index>,
    reader: FactsReader,
    known: watch::Receiver<RepositoryFacts>,
    cache: tempfile::TempDir,
    /// Whom the reader tells.
    _owner: indexing::IndexActor,
}

impl Service {
    fn new(cluster: &Cluster) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let options = IndexOptions {
            cache: cache.path().to_path_buf(),
            names_interval: Duration::ZERO,
            resolve: Arc::new(|| anyhow::bail!("no server in these tests")),
        };
        let (handle, owner) = indexing::new(cluster.clone(), options).unwrap();
        let (index, interval) = (owner.index(), Duration::from_secs(60));
        let (reader, known) = FactsReader::new(
            cluster.clone(),
            index.clone(),
            handle,
            (interval, None),
            Durations::default(),
        );
        Self {
            cluster: cluster.clone(),
            index,
            reader,
            known,
            cache,
            _owner: owner,
        }
    }

    /// A minute passes: what is known then.
    async fn minute(&mut self) -> FactsSnapshot {
        self.reader.read().await;
        indexing::poll(&self.index, &self.cluster, ListScope::New)
            .await
            .unwrap();
        let known = self.known.borrow();
        assert_eq!(known.failed, None);
        known.read.clone().unwrap()
    }

    /// What some minutes cost, and what is known then. `from`: in each a segment comes, from this number on.
    async fn pass(
        &mut self,
        counting: &CountingStorage,
        from: Option<usize>,
    ) -> (Calls, FactsSnapshot) {
        counting.forget();
        let (begun, processor, mut read) = (Instant::now(), processor_time(), None);
        for minute in 0..MINUTES {
            if let Some(from) = from {
                archive(&self.cluster, from + minute).await;
            }
            read = Some(self.minute().await);
        }
        let (calls, each) = (
            count(counting),
            (processor_time() - processor) / MINUTES as f64,
        );
        let what = if from.is_some() {
            "with a segment each"
        } else {
            "in which nothing came"
        };
        let elapsed = begun.elapsed();
        eprintln!(
            "  {MINUTES} minutes {what}: {calls:?}, {each:.3} s of processor time each, {elapsed:.2?} in all"
        );
        (calls, read.unwrap())
    }

    /// What is kept is noted, then what it holds; then all is known.
    async fn settle(&mut self) -> FactsSnapshot {
        self.minute().await;
        self.minute().await;
        self.minute().await
    }
}

/// Whether what follows from what was read was not worked out again.
fn is_same(one: &FactsSnapshot, other: &FactsSnapshot) -> bool {
    Arc::ptr_eq(&one.facts, &other.facts) && Arc::ptr_eq(&one.windows, &other.windows)
}

async fn measure(storage: Arc<dyn Storage>, kept: Kept, rest: Duration) -> Cost {
    let counting = Arc::new(CountingStorage::new(storage));
    let cluster = cluster_in(counting.clone()).await;
    let begun = Instant::now();
    make(&cluster, kept).await;
    eprintln!(
        "{kept:?} in {}: made in {:.0?}",
        counting.describe(),
        begun.elapsed()
    );
    let (begun, mut service) = (Instant::now(), Service::new(&cluster));
    let read = service.settle().await;
    let state = service.index.state().unwrap();
    assert_eq!(
        (state.segments, state.not_indexed),
        (kept.segments as u64, 0)
    );
    assert_eq!(
        (read.facts.backups.len(), read.windows.windows.len()),
        (kept.backups, 1)
    );
    eprintln!(
        "  indexed in {:.0?}, {} resident",
        begun.elapsed(),
        resident()
    );
    tokio::time::sleep(rest).await;
    let before = service.minute().await;
    let (minutes, idle) = service.pass(&counting, None).await;
    assert!(is_same(&before, &idle), "nothing came");
    let (busy, after) = service.pass(&counting, Some(kept.segments)).await;
    let segments: u64 = after.facts.ranges.iter().map(|range| range.segments).sum();
    assert_eq!(segments, (kept.segments + MINUTES) as u64);
    assert!(
        Arc::ptr_eq(&before.facts.backups, &after.facts.backups),
        "no backup came"
    );
    counting.forget();
    let (begun, missing) = (
        Instant::now(),
        WalFileName::Segment(name(&cluster, kept.segments + MINUTES)),
    );
    let fetcher = Fetcher::new(cluster.clone(), Duration::from_secs(60), 1);
    assert!(
        !fetcher
            .obtain(&missing, &service.cache.path().join("missing"), None)
            .await
            .unwrap()
    );
    let absent = count(&counting);
    eprintln!(
        "  a file that is not there: {absent:?}, {:.0?}",
        begun.elapsed()
    );
    Cost {
        minutes,
        busy,
        absent,
    }
}

/// No call is made more often than a small repository takes, but for so many.
fn assert_as_small(small: &Calls, large: &Calls, more: usize) {
    for (call, count) in large {
        let least = small.get(call).copied().unwrap_or_default();
        assert!(
            *count <= least + more,
            "{call}: {count}, {least} in a small repository"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_costs_the_same_however_much_is_kept() {
    assert_eq!(SEGMENT, 1 << 20);
    let small = Kept {
        backups: 20,
        names: 300,
        relations: 300,
        segments: 40,
    };
    let large = Kept {
        backups: 1100,
        names: 1300,
        relations: 1300,
        segments: 400,
    };
    let of = async |kept| measure(Arc::new(MemoryStorage::default()), kept, Duration::ZERO).await;
    let (small, large) = (of(small).await, of(large).await);
    // Where there are more entries than a page has, a few more pages each time: of backups, and of what lies beside WAL.
    assert_as_small(&small.minutes, &large.minutes, 3 * MINUTES);
    assert_as_small(&small.busy, &large.busy, 3 * MINUTES);
    assert_as_small(&small.absent, &large.absent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_costs_the_same_in_a_large_folder() {
    if std::env::var_os("WALDEN_TEST_LONG").is_none() {
        return;
    }
    let of = async |kept| {
        // In memory, if there is such a place: a million files are made.
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let folder = folder.unwrap();
        measure(
            Arc::new(LocalStorage::new(folder.path())),
            kept,
            Duration::from_secs(3),
        )
        .await
    };
    let small = of(Kept {
        backups: 20,
        names: 300,
        relations: 300,
        segments: 1000,
    })
    .await;
    let large = of(Kept {
        backups: 10_000,
        names: 300_000,
        relations: 160_000,
        segments: 100_000,
    })
    .await;
    // Of folders of WAL, some are looked at again in turn.
    assert_as_small(&small.minutes, &large.minutes, 9 * MINUTES);
    assert_as_small(&small.busy, &large.busy, 9 * MINUTES);
    assert_as_small(&small.absent, &large.absent, 1);
}

#[tokio::test]
async fn what_came_is_worked_out_once_and_nothing_else() {
    let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
    make(
        &cluster,
        Kept {
            backups: 6,
            names: 1,
            relations: 1,
            segments: 4,
        },
    )
    .await;
    let (mut service, storage) = (Service::new(&cluster), cluster.repository.storage());
    let mut before = service.settle().await;
    let other = Index::open(service.cache.path(), &cluster).unwrap();
    let archived = |number| Archived {
        name: name(&cluster, number),
        bytes: 9,
        stored_at: Utc::now(),
    };
    for came in [
        "nothing",
        "segment",
        "another process's segment",
        "backup",
        "mark",
        "history",
        "damage",
        "gone",
    ] {
        match came {
            "segment" => archive(&cluster, 4).await,
            "another process's segment" => other.observe(archived(5), &summary()).unwrap(),
            "backup" => {
                back_up_as(
                    storage,
                    &cluster,
                    &BackupId::at(Utc::now() + TimeDelta::hours(1)).to_string(),
                )
                .await
            }
            "mark" => {
                let mark = IdleMarker {
                    timeline: TimelineId(1),
                    lsn: Lsn(SEGMENT as u64),
                    time: DateTime::UNIX_EPOCH,
                };
                put(
                    &cluster,
                    &cluster.layout.idle(&mark),
                    "quiet",
                    &serde_json::json!({}),
                    "",
                )
                .await;
            }
            "history" => {
                let key = cluster.layout.wal(&WalFileName::History(TimelineId(2)));
                put(
                    &cluster,
                    &key,
                    WAL_KIND,
                    &serde_json::json!({}),
                    "1\t0/300000\tpromoted\n",
                )
                .await;
            }
            "damage" => {
                let id = BackupId::at(Utc::now() + TimeDelta::hours(2));
                let _ = storage
                    .put(
                        &cluster.layout.manifest(&id),
                        "x".into(),
                        PutMode::CreateOnly,
                    )
                    .await
                    .unwrap();
            }
            "gone" => storage
                .delete(&cluster.layout.manifest(&before.facts.backups[0].id))
                .await
                .unwrap(),
            _ => (),
        }
        let after = service.settle().await;
        assert_eq!(is_same(&before, &after), came == "nothing", "{came}");
        assert!(is_same(&after, &service.settle().await), "{came}: again");
        before = after;
    }
    let facts = &before.facts;
    assert_eq!(
        (
            facts.backups.len(),
            facts.damaged_backups.len(),
            facts.histories.len()
        ),
        (6, 1, 1)
    );
}
