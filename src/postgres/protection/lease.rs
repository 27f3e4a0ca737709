//! Leases: what somebody needs now. Each is one object that its holder alone rewrites. Its age is told by the store's
//! clock, so clocks that are wrong do not matter; the lease of a process that was killed ends by itself.

use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::content::{get, list, put, stored_at};
use super::needs::Needs;
use super::process::ProcessIdentity;
use super::record::{find_intent, load_expired, newest_records};
use crate::error::{Hint, one_line, with_hint};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{ObjectKind, TimedId};
use crate::storage::{PutMode, StorageError};

/// For how long a lease counts that cannot be understood: a newer Walden wrote it.
pub const LISTED_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A lease is renewed so often within its life.
const RENEWALS: u32 = 6;

/// Who holds a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseKind {
    /// A restore of a cluster, or the restored cluster that replays WAL.
    Restore,
    DumpRestore,
    Copy,
    Drill,
    /// Whoever deletes: needs nothing, and tells by a record what it deletes.
    Expiry,
    /// A newer Walden's.
    #[serde(other)]
    Other,
}

/// What a lease says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseContent {
    pub kind: LeaseKind,
    /// Host and process, for people.
    pub holder: String,
    /// By the holder's clock, for people.
    pub begun: DateTime<Utc>,
    /// Who must be alive for it to count; absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessIdentity>,
    /// How long it counts after it was stored last.
    pub life_seconds: u64,
    /// When it was stored last, in seconds since the machine of `process` started: on that machine this counts, for the
    /// store's clock may be its own, and be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_uptime: Option<u64>,
    #[serde(default)]
    pub needs: Needs,
    /// The number of the deletion that is carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<u32>,
}

impl LeaseContent {
    /// A lease of this process.
    pub fn own(kind: LeaseKind, needs: Needs, life: Duration) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            kind,
            holder: format!("process {} on \"{}\"", std::process::id(), host.trim()),
            begun: Utc::now(),
            process: Some(ProcessIdentity::own()),
            life_seconds: life.as_secs(),
            stored_uptime: None,
            needs,
            record: None,
        }
    }
}

/// A lease as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    pub id: TimedId,
    /// By the store's clock.
    pub stored: SystemTime,
    /// Why it cannot be understood; it needs everything then.
    pub content: Result<LeaseContent, String>,
}

impl StoredLease {
    /// Whether it counts, at a moment of the store's clock.
    pub fn is_live(&self, now: SystemTime) -> bool {
        let here = self.content.as_ref().ok().and_then(|content| {
            let process = content
                .process
                .as_ref()
                .filter(|process| process.is_here())?;
            Some((process, content.stored_uptime?, content.life_seconds))
        });
        match here {
            Some((process, stored, life)) => {
                !process.is_gone() && boot_time().as_secs() < stored.saturating_add(life)
            }
            None => now < self.ends(),
        }
    }

    /// When it ends unless it is renewed, by the store's clock.
    pub fn ends(&self) -> SystemTime {
        let life = self.content.as_ref().map_or(LISTED_LIFE, |content| {
            Duration::from_secs(content.life_seconds)
        });
        self.stored
            .checked_add(life)
            .unwrap_or(self.stored + LISTED_LIFE)
    }

    /// Whether nothing of it counts any more for a day.
    pub fn is_old(&self, now: SystemTime) -> bool {
        let day = Duration::from_secs(24 * 3600);
        !self.is_live(now) && now.duration_since(self.ends()).is_ok_and(|age| age > day)
    }

    /// What it needs.
    pub fn needs(&self) -> Needs {
        match &self.content {
            Ok(content) if content.kind == LeaseKind::Other => Needs::everything(),
            Ok(content) => content.needs.clone(),
            Err(_) => Needs::everything(),
        }
    }

    /// The deletion that its holder carries out.
    pub fn deletion(&self) -> Option<u32> {
        let content = self.content.as_ref().ok()?;
        content.record.filter(|_| content.kind == LeaseKind::Expiry)
    }

    /// Whether it was left for a restored server: nobody renews it.
    pub fn is_left(&self) -> bool {
        let process = self.content.as_ref().map(|content| &content.process);
        process.is_ok_and(Option::is_none)
    }

    /// Whether somebody who says that nobody needs it may take it away. Errors: it counts; with `force` only if its holder is
    /// known to be alive.
    fn may_be_taken(&self, now: SystemTime, force: bool) -> anyhow::Result<()> {
        let content = self.content.as_ref().ok();
        let process = content.and_then(|content| content.process.as_ref());
        let is_alive = process.is_some_and(|process| process.is_here() && !process.is_gone());
        let (why, hint) = match self.is_left() {
            _ if !self.is_live(now) || (force && !is_alive) => return Ok(()),
            _ if is_alive => ("is alive", "wait until it ends, or end it"),
            true => (
                "left it for a restored server",
                "does no restored server need WAL any more? Repeat it with --force",
            ),
            false => (
                "may be alive",
                "is it gone for sure? Repeat it with --force",
            ),
        };
        let error = anyhow!(
            "lease \"{}\" still counts: {} {why}",
            self.id,
            self.holder()
        );
        Err(with_hint(error, hint))
    }

    /// Who holds it, for people.
    pub fn holder(&self) -> &str {
        self.content
            .as_ref()
            .map_or("a newer Walden", |content| &content.holder)
    }
}

/// All leases, also those that do not count any more. Errors: the store did not answer.
pub async fn leases(cluster: &Cluster) -> Result<Vec<StoredLease>, StorageError> {
    let mut all = Vec::new();
    for meta in list(cluster, cluster.layout.leases_folder()).await? {
        let Some(ObjectKind::Lease(id)) = cluster.object_kind(&meta.key) else {
            continue;
        };
        // One that is gone by now was given up.
        if let Some(content) = get(cluster, &meta.key).await? {
            let stored = meta.modified;
            all.push(StoredLease {
                id,
                stored,
                content,
            });
        }
    }
    Ok(all)
}

/// Whether somebody reads or brings this, at a moment of the store's clock. Errors: the store did not answer.
pub async fn is_used(
    cluster: &Cluster,
    now: SystemTime,
    is_needed: impl Fn(&Needs) -> bool,
) -> Result<bool, StorageError> {
    let all = leases(cluster).await?;
    let uses = |lease: &StoredLease| lease.is_live(now) && is_needed(&lease.needs());
    Ok(all.iter().any(uses))
}

/// Takes a lease away; with `force` also one that counts, of which somebody knows that nobody needs it. `None`: there is none
/// of that name. Errors: it counts, or the store's.
pub async fn take_lease(
    cluster: &Cluster,
    which: &str,
    force: bool,
) -> anyhow::Result<Option<StoredLease>> {
    let mut all = leases(cluster).await?.into_iter();
    let Some(lease) = all.find(|lease| lease.id.to_string() == which) else {
        return Ok(None);
    };
    lease.may_be_taken(store_time(cluster).await?, force)?;
    let key = cluster.layout.lease(&lease.id);
    cluster.repository.storage().delete(&key).await?;
    Ok(Some(lease))
}

/// The store's clock, by a lease of nothing that is stored for it. Errors: the store's.
pub async fn store_time(cluster: &Cluster) -> anyhow::Result<SystemTime> {
    let life = Duration::from_secs(60);
    let content = LeaseContent::own(LeaseKind::Copy, Needs::default(), life);
    let lease = Lease::put(cluster, content).await?;
    let time = lease.stored_at().await;
    lease.release().await;
    time
}

/// Time that goes on while the machine is suspended.
fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// A lease that this process holds.
#[derive(Debug)]
pub struct Lease {
    cluster: Cluster,
    id: TimedId,
    content: LeaseContent,
    /// When it was begun to be stored last, by this machine's own clock; `None`: it ended before it was stored again.
    renewed: std::sync::Mutex<Option<Duration>>,
}

impl Lease {
    /// Stores a lease. Errors: the store's.
    pub async fn put(cluster: &Cluster, content: LeaseContent) -> anyhow::Result<Self> {
        let id = TimedId::new(Utc::now(), getrandom::u32()?);
        let lease = Self {
            cluster: cluster.clone(),
            id,
            content,
            renewed: std::sync::Mutex::new(Some(boot_time())),
        };
        lease.store(PutMode::CreateOnly).await?;
        Ok(lease)
    }

    async fn store(&self, mode: PutMode) -> anyhow::Result<()> {
        let (begun, life) = (boot_time(), Duration::from_secs(self.content.life_seconds));
        let key = self.cluster.layout.lease(&self.id);
        let content = LeaseContent {
            stored_uptime: self.content.process.as_ref().map(|_| begun.as_secs()),
            ..self.content.clone()
        };
        let stored = put(&self.cluster, &key, &content, mode).await?;
        anyhow::ensure!(stored, "object \"{key}\" is there already");
        let mut renewed = self.renewed.lock().unwrap_or_else(|all| all.into_inner());
        // Who came while it did not count has not seen it: it never counts again.
        *renewed = renewed
            .filter(|last| boot_time() < *last + life)
            .map(|_| begun);
        Ok(())
    }

    /// Its name.
    pub fn id(&self) -> &TimedId {
        &self.id
    }

    /// When it was stored last, by the store's clock. Errors: the store's, or it is gone.
    pub async fn stored_at(&self) -> anyhow::Result<SystemTime> {
        let at = stored_at(&self.cluster, &self.cluster.layout.lease(&self.id)).await?;
        at.context("a lease vanished just after it was stored")
    }

    /// Stores it again, so that it counts from now on. Errors: the store's.
    pub async fn renew(&self) -> anyhow::Result<()> {
        self.store(PutMode::Overwrite).await
    }

    /// How long it surely counts still: whoever only acts within this is seen by all. Nothing once it has ended, also if it
    /// was stored again.
    pub fn left(&self) -> Duration {
        let renewed = *self.renewed.lock().unwrap_or_else(|all| all.into_inner());
        let life = Duration::from_secs(self.content.life_seconds);
        renewed.map_or(Duration::ZERO, |renewed| {
            (renewed + life).saturating_sub(boot_time())
        })
    }

    /// Leaves a word that outlives this process: what is needed from now on, and for how long. Errors: the store's.
    pub async fn outlive(&mut self, needs: Needs, life: Duration) -> anyhow::Result<()> {
        (self.content.needs, self.content.life_seconds) = (needs, life.as_secs());
        self.content.process = None;
        self.renew().await
    }

    /// Says which deletion is carried out. Errors: the store's.
    pub(super) async fn announce(&mut self, number: u32) -> anyhow::Result<()> {
        self.content.record = Some(number);
        self.renew().await
    }

    /// Works, and renews it meanwhile. A renewal that fails is repeated: the work goes on.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> T {
        let pause = Duration::from_secs(self.content.life_seconds) / RENEWALS;
        let renewing = async {
            loop {
                sleep(pause).await;
                if let Err(error) = self.renew().await {
                    tracing::debug!("a lease is not renewed: {}", one_line(&error));
                }
            }
        };
        tokio::select! {
            done = work => done,
            () = renewing => unreachable!("the loop above does not end"),
        }
    }

    /// Gives it up. Where that fails it ends by itself.
    pub async fn release(self) {
        let key = self.cluster.layout.lease(&self.id);
        if let Err(error) = self.cluster.repository.storage().delete(&key).await {
            tracing::debug!("a lease is not given up: {error}");
        }
    }
}

/// What a reader needs is being deleted, or was deleted since it looked.
#[derive(Debug, thiserror::Error)]
#[error("{what} was let go by retention{by}")]
pub struct BeingDeleted {
    what: String,
    by: String,
}

/// The repository does not take leases, as with credentials that may only read.
#[derive(Debug, thiserror::Error)]
#[error("what is read is not registered in the repository, so retention may delete it meanwhile")]
pub struct NotRegistered(#[source] pub anyhow::Error);

/// Registers a reader before it reads. `Ok(Err(_))`: the repository does not take leases, and the reader goes on without.
/// Errors: [`BeingDeleted`], or the store did not answer.
pub async fn register(
    cluster: &Cluster,
    content: LeaseContent,
) -> anyhow::Result<Result<Lease, NotRegistered>> {
    let lease = match Lease::put(cluster, content).await {
        Ok(lease) => lease,
        Err(error) => return Ok(Err(NotRegistered(error))),
    };
    let deleted = match lease.being_deleted().await {
        Ok(None) => lease.deleted_meanwhile().await,
        deleted => deleted,
    };
    lease.unless(deleted).await.map(Ok)
}

/// Registers whoever brings what it needs: it is not there yet, and what is there of it stays. Errors: [`BeingDeleted`], or
/// the store's.
pub async fn register_writer(cluster: &Cluster, content: LeaseContent) -> anyhow::Result<Lease> {
    let lease = Lease::put(cluster, content).await?;
    let deleted = lease.being_deleted().await;
    lease.unless(deleted).await
}

impl Lease {
    /// Gives it up where something is or was deleted that it needs.
    async fn unless(self, deleted: anyhow::Result<Option<BeingDeleted>>) -> anyhow::Result<Self> {
        match deleted {
            Ok(None) => Ok(self),
            Ok(Some(deleted)) => {
                self.release().await;
                Err(deleted)
                    .hint("plan anew: `walden target` and `walden backup list` show what is kept")
            }
            Err(error) => {
                self.release().await;
                Err(error)
            }
        }
    }

    /// Whether what it needs is being deleted. Whoever begins to delete later sees it.
    async fn being_deleted(&self) -> anyhow::Result<Option<BeingDeleted>> {
        let (cluster, needs, now) = (&self.cluster, &self.content.needs, self.stored_at().await?);
        for other in leases(cluster).await? {
            let Some(number) = other.deletion().filter(|_| other.is_live(now)) else {
                continue;
            };
            let deletes = match find_intent(cluster, number).await? {
                Some(Ok(intent)) => intent.deletes,
                Some(Err(_)) => Needs::everything(),
                None => continue,
            };
            if let Some(what) = needs.common(&deletes) {
                let by = format!(", which {} carries out now", other.holder());
                return Ok(Some(BeingDeleted { what, by }));
            }
        }
        Ok(None)
    }

    /// Whether what it needs was deleted since the reader looked.
    async fn deleted_meanwhile(&self) -> anyhow::Result<Option<BeingDeleted>> {
        let (cluster, needs) = (&self.cluster, &self.content.needs);
        let gone = |what| {
            let by = " meanwhile".to_string();
            BeingDeleted { what, by }
        };
        for id in &needs.backups {
            if stored_at(cluster, &cluster.layout.manifest(id))
                .await?
                .is_none()
            {
                return Ok(Some(gone(format!("backup {id}"))));
            }
        }
        if needs.wal.is_empty() || newest_records(cluster).await?.is_none() {
            return Ok(None);
        }
        let expired = load_expired(cluster).await?;
        for span in &needs.wal {
            for gone_span in expired.spans().iter().filter(|gone| gone.overlaps(span)) {
                // It may have come again.
                let first = span.first.max(gone_span.first);
                let name = crate::postgres::types::WalFileName::Segment(first);
                if stored_at(cluster, &cluster.layout.wal(&name))
                    .await?
                    .is_none()
                {
                    return Ok(Some(gone(format!("WAL segment {first}"))));
                }
            }
        }
        Ok(None)
    }
}
