//! What the repository has, as it was read last: answers are made from this copy and tell its age. One owner reads it
//! anew in its own time, so that no request ever waits for the repository. Of WAL, the index keeps the listing: what is
//! known is read once, and what the service stored itself shows at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config;
use crate::error::one_line;
use crate::health::{Health, Upkeep};
use crate::metrics::{Durations, Phase};
use crate::postgres::catalog::{
    Facts, Gap, IdleTimes, WalIndex, WalRanges, Windows, missing_wal, windows,
};
use crate::postgres::check::UpkeepReader;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::update::{ListScope, list};
use crate::postgres::index::{Index, IndexVersion, on_index};
use crate::postgres::load::{KeptBackups, LoadedBackups, LoadedHistories, facts, load_idle};
use crate::postgres::protection::{Expiry, newest_records};
use crate::service::indexing;
use crate::service::status::ServiceStatus;

/// What comes to the index within this time is taken in at once.
const SETTLE: Duration = Duration::from_millis(300);
/// Where that takes long, so many times as long is waited.
const REST: u32 = 4;
/// So many times as rarely dumps in a bucket are looked for,
const UPKEEP_RARER: u32 = 10;
/// and at least after this.
const UPKEEP_REST: Duration = Duration::from_secs(300);
/// So long they and the file system may take to be looked at.
const UPKEEP_PATIENCE: Duration = Duration::from_secs(60);

/// What is known of the repository.
#[derive(Debug, Clone, Default)]
pub struct RepositoryFacts {
    /// `None` until it was read for the first time.
    pub read: Option<FactsSnapshot>,
    /// Why it could not be read anew since.
    pub failed: Option<String>,
    /// How often reading failed.
    pub failures: u64,
    /// Of the dumps, and of the file system that a repository in a folder lies in.
    pub upkeep: Arc<Upkeep>,
}

/// One reading, and what follows from it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FactsSnapshot {
    pub facts: Arc<Facts>,
    pub windows: Arc<Windows>,
    /// Ranges of WAL that are missing.
    pub gaps: Arc<[Gap]>,
    /// When the repository was read: of what others stored later nothing is in it.
    pub at: DateTime<Utc>,
}

impl FactsSnapshot {
    /// What was read at `at`, and what follows with an index of its WAL.
    fn of(facts: Facts, index: &dyn WalIndex, at: DateTime<Utc>) -> Self {
        let (windows, gaps) = (windows(&facts, index).into(), missing_wal(&facts).into());
        Self {
            facts: Arc::new(facts),
            windows,
            gaps,
            at,
        }
    }

    /// How it stands.
    pub fn health(
        &self,
        limits: &config::Health,
        status: Option<&ServiceStatus>,
        time: DateTime<Utc>,
    ) -> Health {
        let now = status.map_or(time.into(), |status| status.archiving.at(time));
        Health::of(&self.facts, &self.windows, &self.gaps, limits, now)
    }
}

/// What was read of the repository, but for its segments. Cheap to compare with itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct StoredFacts {
    backups: LoadedBackups,
    histories: LoadedHistories,
    idle: IdleTimes,
    /// What retention deleted.
    expiry: Expiry,
}

/// The owner of what is known.
pub struct FactsReader {
    cluster: Cluster,
    index: Arc<Index>,
    indexing: indexing::IndexHandle,
    interval: Duration,
    durations: Durations,
    known: watch::Sender<RepositoryFacts>,
    backups: KeptBackups,
    upkeep: UpkeepReader,
    /// Where the repository lies, unless it is a bucket.
    folder: Option<PathBuf>,
    /// When the dumps and the file system were looked at.
    upkeep_at: Option<Instant>,
    /// And when that was.
    stored: Option<(StoredFacts, DateTime<Utc>)>,
    /// The last reading, and what it follows from: only when that is another it is made anew.
    derived: Option<(StoredFacts, IndexVersion, FactsSnapshot)>,
}

impl FactsReader {
    /// Reads `cluster`'s part of the repository, each time `interval` after the last, and lists its WAL into `index`,
    /// which `indexing` keeps. `folder` is where the repository lies, unless it is a bucket.
    pub fn new(
        cluster: Cluster,
        index: Arc<Index>,
        indexing: indexing::IndexHandle,
        (interval, folder): (Duration, Option<PathBuf>),
        durations: Durations,
    ) -> (Self, watch::Receiver<RepositoryFacts>) {
        let (known, receiver) = watch::channel(RepositoryFacts::default());
        let (backups, upkeep) = (KeptBackups::new(&cluster), UpkeepReader::new(&cluster));
        (
            Self {
                cluster,
                index,
                indexing,
                interval,
                durations,
                known,
                backups,
                upkeep,
                folder,
                upkeep_at: None,
                stored: None,
                derived: None,
            },
            receiver,
        )
    }

    /// Works until `stopped` says so.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let (mut changes, mut next, mut settle) = (self.indexing.changes(), Instant::now(), SETTLE);
        loop {
            let rest = settle;
            let news = async {
                match changes.changed().await {
                    Ok(()) => sleep(rest).await,
                    // The service stops.
                    Err(_) => std::future::pending().await,
                }
            };
            let work = async {
                tokio::select! {
                    () = sleep_until(next) => {
                        self.read().await;
                        next = Instant::now() + self.interval;
                    }
                    () = news => {
                        let begun = Instant::now();
                        self.renew().await;
                        settle = SETTLE.max(begun.elapsed() * REST);
                    }
                }
            };
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
                () = work => (),
            }
        }
    }

    /// Reads the repository.
    pub(super) async fn read(&mut self) {
        let (at, mut stored) = (Utc::now(), self.stored.clone().unwrap_or_default().0);
        let durations = self.durations.clone();
        let work = async {
            // Backups first: the WAL of one that was complete by then is in the listing that follows.
            stored.backups = self.backups.refresh(&self.cluster).await?;
            let mut listed = list(&self.index, &self.cluster, ListScope::New).await?;
            // What is missing by now was told before it went.
            let numbers = newest_records(&self.cluster).await?.unwrap_or_default();
            if numbers != stored.expiry.numbers {
                stored.expiry = Expiry::load(&self.cluster).await?;
                // Elsewhere it shows only in its turn.
                let all = list(&self.index, &self.cluster, ListScope::All).await?;
                listed.gone |= all.gone;
            }
            if listed.gone {
                self.indexing.poll();
            }
            stored
                .histories
                .refresh(&self.cluster, &listed.histories)
                .await?;
            let Some((version, ranges)) = self.ranges().await? else {
                return Ok((stored, None));
            };
            stored.idle = load_idle(&self.cluster, &ranges).await?;
            let read = self.derive(stored.clone(), version, ranges, at).await?;
            anyhow::Ok((stored, Some(read)))
        };
        let read = durations.time(Phase::ReadRepository, work).await;
        match read {
            Ok((stored, read)) => {
                // Before the rest is told: what was not looked at yet must not show as missing.
                self.look_at_upkeep().await;
                self.stored = Some((stored, at));
                self.known.send_modify(|known| {
                    known.read = read.or(known.read.take());
                    known.failed = None;
                });
            }
            Err(error) => self.failed(&error),
        }
    }

    /// A folder tells without a listing whether something came; a bucket does not, and a dump is hours apart from the next.
    async fn look_at_upkeep(&mut self) {
        let rest = (self.interval * UPKEEP_RARER).min(UPKEEP_REST);
        let is_early = self.upkeep_at.is_some_and(|at| at.elapsed() < rest);
        if self.folder.is_none() && is_early {
            return;
        }
        let (cluster, folder) = (&self.cluster, self.folder.as_deref());
        let upkeep = self.upkeep.look(cluster, folder, UPKEEP_PATIENCE).await;
        self.upkeep_at = upkeep.dumps_unknown.is_none().then(Instant::now);
        self.known.send_modify(|known| known.upkeep = upkeep.into());
    }

    /// Takes in what the index knows by now.
    async fn renew(&mut self) {
        let Some((stored, at)) = self.stored.clone() else {
            return;
        };
        let derived = async {
            let Some((version, ranges)) = self.ranges().await? else {
                return Ok(None);
            };
            self.derive(stored, version, ranges, at).await.map(Some)
        };
        match derived.await {
            Ok(Some(read)) => self.known.send_modify(|known| known.read = Some(read)),
            Ok(None) => (),
            Err(error) => self.failed(&error),
        }
    }

    /// What the index lists, and its version then; `None` while it is being made anew.
    async fn ranges(&self) -> anyhow::Result<Option<(IndexVersion, WalRanges)>> {
        let known = self
            .derived
            .as_ref()
            .map(|(_, version, read)| (*version, read.facts.clone()));
        let ranges = move |index: &Index| {
            let version = index.version()?;
            let ranges = match known {
                Some((seen, facts)) if seen == version => Some(facts.ranges.clone()),
                _ => index.ranges()?,
            };
            Ok(ranges.map(|ranges| (version, ranges)))
        };
        on_index(&self.index, ranges).await
    }

    /// What follows from what was read.
    async fn derive(
        &mut self,
        mut stored: StoredFacts,
        version: IndexVersion,
        ranges: WalRanges,
        at: DateTime<Utc>,
    ) -> anyhow::Result<FactsSnapshot> {
        stored.idle.extend(self.indexing.report().proven);
        if let Some((from, seen, read)) = &self.derived
            && (from, *seen) == (&stored, version)
        {
            return Ok(FactsSnapshot { at, ..read.clone() });
        }
        let (index, cluster) = (self.index.clone(), self.cluster.clone());
        let StoredFacts {
            backups,
            histories,
            idle,
            expiry,
        } = stored.clone();
        let ranges = ranges.with_expired(expiry.expired);
        let derive = move || {
            FactsSnapshot::of(
                facts(&cluster, backups, ranges, histories, idle),
                &*index,
                at,
            )
        };
        let read = spawn_blocking(derive).await?;
        self.derived = Some((stored, version, read.clone()));
        Ok(read)
    }

    fn failed(&self, error: &anyhow::Error) {
        let why = one_line(error);
        self.known.send_modify(|known| {
            // Once, not each time.
            if known.failed.is_none() {
                tracing::warn!("answers over HTTP grow old, the repository cannot be read: {why}");
            }
            known.failed = Some(why);
            known.failures += 1;
        });
    }
}
