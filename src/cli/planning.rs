//! What the verbs that plan restores have in common: facts, the index, and the planner over them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;

use super::Context;
use super::progress::{Step, show};
use crate::config::Settings;
use crate::error::{Hint, find, one_line, with_hint};
use crate::postgres::archive::locate::{find_event, locate};
use crate::postgres::catalog::{
    EventId, EventTarget, Facts, FoundEvent, NoIndex, Reason, RecoveryPlan, Request, Unknown, Unreachable, WalIndex,
    expected_seconds, load,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::Index;
use crate::postgres::index::update::{self, Progress, Scope};
use crate::postgres::restore::past;

/// How long ago a segment behind a gap must have been stored for the gap to count, and how often it is looked at before.
const FRESH_GAP: chrono::TimeDelta = chrono::TimeDelta::seconds(10);
const FRESH_GAP_LOOKS: usize = 12;

/// An open cluster and what is known of its WAL.
pub struct Planning {
    pub cluster: Cluster,
    /// `None`: none is needed, and there is none yet.
    pub index: Option<Arc<Index>>,
    settings: Settings,
}

impl Planning {
    /// Opens the cluster and its index. Targets that need no index use one only if there is one already: to make it takes
    /// as long as there is WAL.
    pub async fn open(context: &Context, needs_index: bool) -> anyhow::Result<Self> {
        let cluster = context.cluster().await?;
        let settings = context.settings.clone();
        let folder = local_folder(&settings);
        let index = match needs_index || Index::is_in(folder, &cluster) {
            true => Some(Arc::new(open_index(folder, &cluster)?)),
            false => None,
        };
        Ok(Self { cluster, index, settings })
    }

    /// The facts as they are now; what they name the index knows, too.
    pub async fn facts(&self) -> anyhow::Result<Arc<Facts>> {
        let unknown = "check that the repository is reachable and that this user may read all of it";
        let facts = load::load(&self.cluster).await.hint(unknown)?;
        self.update_index(Scope::New).await?;
        Ok(Arc::new(facts))
    }

    /// Lets the index know the WAL that is archived now.
    pub async fn update_index(&self, scope: Scope) -> anyhow::Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let far = Mutex::new(Progress::default());
        let lock = || far.lock().unwrap_or_else(PoisonError::into_inner);
        let size = self.cluster.description.segment_size.bytes();
        let step = || {
            let Progress { done, total } = *lock();
            Step { done: done * size, total: total * size, phase: String::new() }
        };
        let observe = |progress| *lock() = progress;
        show(update::complete(index, &self.cluster, scope, &observe), "indexed", step).await
    }

    /// The index for planning.
    pub fn wal_index(&self) -> Arc<dyn WalIndex + Send + Sync> {
        match &self.index {
            Some(index) => index.clone(),
            None => Arc::new(NoIndex),
        }
    }

    /// Plans. Where a gap is so fresh that it may only be the order in which segments are being stored, looks again; where
    /// the index lacks a segment or has a broken one, which may have been replaced, compares it with all of the
    /// repository first.
    pub async fn decide(&self, request: &Request) -> anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>> {
        let (mut looks, mut compared) = (0, self.index.is_none());
        loop {
            let facts = self.facts().await?;
            let located = locate(&self.cluster, &self.wal_index(), &facts, request, None).await;
            if !compared && depends_on_a_segment(&located) {
                compared = true;
                self.update_index(Scope::All).await?;
                continue;
            }
            match located? {
                Err(refused) if looks < FRESH_GAP_LOOKS && facts.may_close(&refused, chrono::Utc::now(), FRESH_GAP) => {
                    looks += 1;
                    tracing::info!("{}: looking again, for segments are being archived", refused.reason);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(mut plan) => {
                    // Only an estimate depends on them.
                    let past = past::read(local_folder(&self.settings)).unwrap_or_default();
                    plan.expected_seconds = expected_seconds(&past, plan.backup.plain_bytes, plan.segments);
                    return Ok(Ok(plan));
                }
                refused => return Ok(refused),
            }
        }
    }

    /// An event as a target.
    pub async fn event(&self, id: EventId) -> anyhow::Result<EventTarget> {
        self.update_index(Scope::New).await?;
        let found: Option<FoundEvent> = match self.index.clone() {
            Some(index) => find_event(&self.cluster, &index, id).await?,
            None => None,
        };
        let found = found.ok_or_else(|| {
            let error = anyhow!("there is no event {id} in the archived WAL");
            with_hint(error, "`walden find` lists the events there are; `--all` also those of less interest")
        })?;
        Ok(EventTarget::from(&found))
    }
}

/// Whether there is no plan because of one segment: the index does not know it, or knows that it is broken.
fn depends_on_a_segment(located: &anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>>) -> bool {
    match located {
        Err(error) => matches!(find::<Unknown>(error), Some(Unknown::Segment(_))),
        Ok(Err(refused)) => matches!(refused.reason, Reason::Broken { .. }),
        Ok(Ok(_)) => false,
    }
}

/// The index in the folder that the settings name; if that cannot be used, one that is gone afterwards.
fn open_index(folder: &Path, cluster: &Cluster) -> anyhow::Result<Index> {
    Index::open(folder, cluster).or_else(|error| {
        tracing::info!("WAL is indexed for this run only: {}", one_line(&error));
        Index::temporary(cluster)
    })
}

/// Where this machine keeps what can be deleted at any time.
pub fn local_folder(settings: &Settings) -> &Path {
    &settings.catalog.cache
}
