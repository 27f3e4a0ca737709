//! One deletion at a time, announced before it begins: readers that come later see it, and it sees those that came before.

use std::time::{Duration, SystemTime};

use anyhow::{anyhow, ensure};
use chrono::Utc;

use super::lease::{Lease, LeaseContent, LeaseKind, StoredLease, leases};
use super::needs::Needs;
use super::record::{Expiry, ExpiryIntent, ExpiryOutcome, put_intent, put_outcome, trim_records};
use crate::error::with_hint;
use crate::postgres::cluster::Cluster;
use crate::storage::{Key, StorageError};

/// How long a deletion counts that was killed.
const LIFE: Duration = Duration::from_secs(600);
/// From so long before the end of its lease on nothing more is deleted: a request may still be on its way.
const MARGIN: Duration = Duration::from_secs(120);

/// Another deletion is under way.
#[derive(Debug, thiserror::Error)]
#[error("{holder} is deleting from this cluster")]
pub struct OtherDeletion {
    pub holder: String,
}

/// The right to delete. Whoever holds it keeps its lease alive by [`while_held`](Self::while_held).
#[derive(Debug)]
pub struct Deletion {
    cluster: Cluster,
    lease: Lease,
    number: Option<u32>,
}

impl Deletion {
    /// Takes it. Errors: [`OtherDeletion`], or the store did not answer.
    pub async fn begin(cluster: &Cluster) -> anyhow::Result<Self> {
        let content = LeaseContent::own(LeaseKind::Expiry, Needs::default(), LIFE);
        let deletion = Self {
            cluster: cluster.clone(),
            lease: Lease::put(cluster, content).await?,
            number: None,
        };
        match deletion.other().await {
            Ok(None) => Ok(deletion),
            Ok(Some(other)) => {
                deletion.lease.release().await;
                let error = OtherDeletion {
                    holder: other.holder().to_string(),
                };
                Err(with_hint(
                    error.into(),
                    "try again when it is over; of one that was killed nothing is left after ten minutes",
                ))
            }
            Err(error) => {
                deletion.lease.release().await;
                Err(error)
            }
        }
    }

    /// Another one that is alive. Of two that begin at once each sees the other, and neither goes on.
    async fn other(&self) -> anyhow::Result<Option<StoredLease>> {
        let now = self.now().await?;
        let others = leases(&self.cluster).await?.into_iter();
        let is_other = |lease: &StoredLease| {
            let is_deletion = lease
                .content
                .as_ref()
                .is_ok_and(|content| content.kind == LeaseKind::Expiry);
            is_deletion && lease.id != *self.lease.id() && lease.is_live(now)
        };
        Ok(others.into_iter().find(is_other))
    }

    /// The store's clock.
    pub async fn now(&self) -> anyhow::Result<SystemTime> {
        self.lease.stored_at().await
    }

    /// Says what is to be deleted, before whoever reads is looked for. Errors: the store's, or another one came between.
    pub async fn announce(&mut self, digest: &str, deletes: Needs) -> anyhow::Result<()> {
        let intent = ExpiryIntent {
            digest: digest.to_string(),
            made_at: Utc::now(),
            made_by: LeaseContent::own(LeaseKind::Expiry, Needs::default(), LIFE).holder,
            deletes,
        };
        let number = Expiry::load(&self.cluster).await?.numbers.next();
        let is_own = put_intent(&self.cluster, number, &intent).await?;
        ensure!(is_own, "another deletion was begun just now");
        self.number = Some(number);
        self.lease.announce(number).await
    }

    /// Those who read now. Errors: the store did not answer.
    pub async fn readers(&self) -> anyhow::Result<Vec<StoredLease>> {
        let now = self.now().await?;
        let mut all = leases(&self.cluster).await?;
        all.retain(|lease| lease.is_live(now) && !lease.needs().is_empty());
        Ok(all)
    }

    /// For how long may be deleted without looking again. Errors: the repository did not take the lease any more, so
    /// readers do not see the deletion.
    pub fn time_left(&self) -> anyhow::Result<Duration> {
        match self.lease.left().checked_sub(MARGIN) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => {
                let error = anyhow!("the lease of the deletion could not be renewed in time");
                Err(with_hint(error, "run it again: it goes on where it ended"))
            }
        }
    }

    /// Deletes an object, if the lease still counts. Errors: as of [`time_left`](Self::time_left); inside: the store's.
    pub async fn delete(&self, key: &Key) -> anyhow::Result<Result<(), StorageError>> {
        self.time_left()?;
        Ok(self.cluster.repository.storage().delete(key).await)
    }

    /// Works, and keeps the lease alive.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> T {
        self.lease.while_held(work).await
    }

    /// Tells what was deleted, and gives the right back. Errors: the store's.
    pub async fn end(self, outcome: Option<&ExpiryOutcome>) -> anyhow::Result<()> {
        let ended = async {
            if let (Some(number), Some(outcome)) = (self.number, outcome) {
                let is_own = put_outcome(&self.cluster, number, outcome).await?;
                ensure!(is_own, "another process ended this deletion");
                trim_records(&self.cluster).await?;
                self.forget_old_leases().await?;
            }
            Ok(())
        };
        let ended = ended.await;
        self.lease.release().await;
        ended
    }

    /// Tells what `outcome` says though nothing was deleted, and gives the right back. Errors: the store's.
    pub async fn tell(mut self, outcome: &ExpiryOutcome) -> anyhow::Result<()> {
        let numbered = Expiry::load(&self.cluster).await;
        self.number = numbered.as_ref().ok().map(|expiry| expiry.numbers.next());
        self.end(Some(outcome)).await?;
        numbered.map(drop).map_err(Into::into)
    }

    /// Removes old leases.
    async fn forget_old_leases(&self) -> anyhow::Result<()> {
        let now = self.now().await?;
        for lease in leases(&self.cluster).await? {
            if lease.is_old(now) {
                let key = self.cluster.layout.lease(&lease.id);
                self.cluster.repository.storage().delete(&key).await?;
            }
        }
        Ok(())
    }
}
