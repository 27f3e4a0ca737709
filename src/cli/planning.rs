//! What the verbs that plan restores have in common: facts, the index, and the planner over them.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::anyhow;

use super::Context;
use super::progress::{Step, show};
use crate::config::Settings;
use crate::error::{Hint, find, hints, one_line, with_hint};
use crate::health::FRESH_GAP;
use crate::postgres::catalog::{
    EventId, EventTarget, Facts, NoIndex, Reason, RecoveryPlan, Request, Unknown, Unreachable, WalIndex, WalPiece,
    expected_seconds, load,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::partial::index_of;
use crate::postgres::index::update::{self, Progress, Scope};
use crate::postgres::index::{Index, IndexFailed};
use crate::postgres::planning::locate::{find_event, locate};
use crate::postgres::restore::past;

/// How often a gap is looked at that may close.
const FRESH_GAP_LOOKS: usize = 12;

/// An open cluster and what is known of its WAL.
pub struct Planning {
    pub cluster: Cluster,
    /// `None`: none is needed, and there is none that can be used.
    index: Mutex<Option<Arc<Index>>>,
    needs_index: bool,
    settings: Settings,
}

impl Planning {
    /// Opens the cluster and its index. Targets that need no index use one only if there is one already: to make it takes
    /// as long as there is WAL. For the end of it all the headers of what is replayed are enough.
    pub async fn open(context: &Context, needs_index: bool) -> anyhow::Result<Self> {
        let cluster = context.cluster().await?;
        let settings = context.settings.clone();
        let folder = local_folder(&settings);
        let index = match needs_index || Index::is_in(folder, &cluster) {
            true => Some(Arc::new(open_index(folder, &cluster)?)),
            false => None,
        };
        Ok(Self { cluster, index: Mutex::new(index), needs_index, settings })
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
        self.with_index(async |index| self.update(&index, scope).await).await.map(drop)
    }

    /// What an index that knows the WAL that is archived now says; `None`: there is no index.
    pub async fn ask_index<T: Send + 'static>(
        &self,
        ask: impl AsyncFn(&Arc<Index>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let update_and_ask = async |index: Arc<Index>| {
            self.update(&index, Scope::New).await?;
            ask(&index).await
        };
        self.with_index(update_and_ask).await
    }

    /// Works with the index, if there is one; if that fails, with another one or without.
    async fn with_index<T>(&self, work: impl AsyncFn(Arc<Index>) -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        loop {
            let Some(index) = self.index() else { return Ok(None) };
            match work(index).await {
                Err(error) if is_of_index(&error) => self.replace_index(error)?,
                done => return done.map(Some),
            }
        }
    }

    fn index(&self) -> Option<Arc<Index>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on without the index in the folder: it is only a copy of what the repository says. Errors: it was not that one.
    fn replace_index(&self, error: anyhow::Error) -> anyhow::Result<()> {
        if self.index().is_none_or(|index| index.path().is_none()) {
            return Err(error);
        }
        let hints: String = hints(&error).into_iter().map(|hint| format!("\nHINT: {hint}")).collect();
        let (instead, what) = match self.needs_index {
            true => (Some(Arc::new(Index::temporary(&self.cluster)?)), "WAL is indexed for this run only"),
            false => (None, "going on without it"),
        };
        tracing::warn!("{}: {what}{hints}", one_line(&error));
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = instead;
        Ok(())
    }

    async fn update(&self, index: &Arc<Index>, scope: Scope) -> anyhow::Result<()> {
        let far = Mutex::new(Progress::default());
        let observe = |progress| *locked(&far) = progress;
        self.show(&far, "indexed", update::complete(index, &self.cluster, scope, &observe)).await
    }

    /// Shows how far the reading of segments is.
    async fn show<T>(
        &self,
        far: &Mutex<Progress>,
        done: &str,
        reading: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let size = self.cluster.description.segment_size.bytes();
        let step = || {
            let Progress { done, total } = *locked(far);
            Step { done: done * size, total: total * size, phase: String::new() }
        };
        show(reading, done, step).await
    }

    /// The index for planning.
    pub fn wal_index(&self) -> Arc<dyn WalIndex + Send + Sync> {
        match self.index() {
            Some(index) => index,
            None => Arc::new(NoIndex),
        }
    }

    /// Plans. Where a gap is so fresh that it may only be the order in which segments are being stored, looks again; where
    /// the index lacks a segment or has a broken one, which may have been replaced, compares it with all of the
    /// repository first.
    pub async fn decide(&self, request: &Request) -> anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>> {
        let (mut looks, mut compared) = (0, self.index().is_none());
        loop {
            let facts = self.facts().await?;
            let located = locate(&self.cluster, &self.wal_index(), &facts, request, None).await;
            if !compared && depends_on_a_segment(&located) {
                compared = true;
                self.update_index(Scope::All).await?;
                continue;
            }
            let decided = match located {
                Err(error) if is_of_index(&error) => {
                    self.replace_index(error)?;
                    continue;
                }
                located => located?,
            };
            match decided {
                Err(refused) if looks < FRESH_GAP_LOOKS && facts.may_close(&refused, chrono::Utc::now(), FRESH_GAP) => {
                    looks += 1;
                    tracing::info!("{}: looking again, for segments are being archived", refused.reason);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(plan) if !compared && plan.made.unknown.is_some() => {
                    compared = true;
                    self.update_index(Scope::All).await?;
                }
                Ok(plan) if self.index().is_none() => {
                    return self.decide_by_headers(&facts, request, &plan.wal).await;
                }
                Ok(plan) => return Ok(Ok(self.estimated(plan))),
                refused => return Ok(refused),
            }
        }
    }

    /// Plans with an index of no more than what replay reads: a server takes broken WAL for the end, and makes tablespaces
    /// wherever it says.
    async fn decide_by_headers(
        &self,
        facts: &Arc<Facts>,
        request: &Request,
        wal: &[WalPiece],
    ) -> anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>> {
        let far = Mutex::new(Progress::default());
        let observe = |progress| *locked(&far) = progress;
        let index = self.show(&far, "checked", index_of(&self.cluster, wal, &observe)).await?;
        let index: Arc<dyn WalIndex + Send + Sync> = index;
        let located = locate(&self.cluster, &index, facts, request, None).await?;
        Ok(located.map(|plan| self.estimated(plan)))
    }

    /// With what past restores let expect. Only an estimate depends on them.
    fn estimated(&self, plan: RecoveryPlan) -> RecoveryPlan {
        let past = past::read(local_folder(&self.settings)).unwrap_or_default();
        let expected_seconds = expected_seconds(&past, plan.backup.plain_bytes, plan.segments);
        RecoveryPlan { expected_seconds, ..plan }
    }

    /// An event as a target.
    pub async fn event(&self, id: EventId) -> anyhow::Result<EventTarget> {
        let found = self.ask_index(async |index| find_event(&self.cluster, index, id).await).await?;
        let found = found.flatten().ok_or_else(|| {
            let error = anyhow!("there is no event {id} in the archived WAL");
            with_hint(error, "`walden find` lists the events there are; `--all` also those of less interest")
        })?;
        Ok(EventTarget::from(&found))
    }
}

fn locked(far: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    far.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is no plan because of one segment: the index does not know it, or knows that it is broken.
fn depends_on_a_segment(located: &anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>>) -> bool {
    match located {
        Err(error) => matches!(find::<Unknown>(error), Some(Unknown::Segment(_))),
        Ok(Err(refused)) => matches!(refused.reason, Reason::Broken { .. }),
        Ok(Ok(_)) => false,
    }
}

/// Whether it is the local index that failed, and not the repository.
fn is_of_index(error: &anyhow::Error) -> bool {
    find::<IndexFailed>(error).is_some() || matches!(find(error), Some(Unknown::Failed(_)))
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
