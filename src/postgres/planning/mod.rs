//! Plans of restores, for everybody who asks for one: a [`Planner`] works over facts that another gathered and an index
//! that another keeps, as the service does; a [`FreshPlanner`] reads the repository each time, and waits for what may
//! still come.

mod fresh;
mod locate;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

pub use fresh::{FreshPlanner, Observe};
use locate::{find_event, locate};

use super::catalog::{
    EventId, Facts, FoundEvent, NoIndex, RecoveryPlan, RestoreRequest, Unknown, Unreachable,
    WalIndex, expected_seconds,
};
use super::cluster::Cluster;
use super::index::{Index, on_index};
use super::restore::restore_history;
use crate::error::find;

/// A plan, or why the target cannot be reached exactly.
pub type Decided = Result<RecoveryPlan, Box<Unreachable>>;

/// Plans restores of a cluster over what it is given. Cheap to clone.
#[derive(Clone)]
pub struct Planner {
    pub cluster: Cluster,
    /// `None`: none is kept, and targets that need one cannot be planned.
    pub index: Option<Arc<Index>>,
    /// Where this machine notes what restores took.
    pub folder: Option<PathBuf>,
}

impl Planner {
    /// The plan for a request. From `deadline` on no further segment is looked into. Errors: what decides is [`Unknown`]
    /// or cannot be read, the store did not answer, or [`TooLong`](crate::error::TooLong).
    pub async fn decide(
        &self,
        facts: &Arc<Facts>,
        request: &RestoreRequest,
        deadline: Option<Instant>,
    ) -> anyhow::Result<Decided> {
        let located = locate(&self.cluster, &self.wal_index(), facts, request, deadline).await;
        self.read_again(located.as_ref().err()).await;
        Ok(located?.map(|plan| self.with_estimate(plan)))
    }

    /// An event by its name; `None`: there is none in the archived WAL. Errors: it may lie where what the WAL holds is
    /// [`Unknown`]; the index cannot be read, or the store did not answer.
    pub async fn event(&self, id: EventId) -> anyhow::Result<Option<FoundEvent>> {
        let Some(index) = &self.index else {
            return Err(Unknown::NoIndex.into());
        };
        let found = find_event(&self.cluster, index, id).await;
        self.read_again(found.as_ref().err()).await;
        found
    }

    /// What the planner asks.
    pub fn wal_index(&self) -> Arc<dyn WalIndex + Send + Sync> {
        match &self.index {
            Some(index) => index.clone(),
            None => Arc::new(NoIndex),
        }
    }

    /// A segment that an answer wants, and could not be read, is read again before the next look into all of the
    /// repository.
    async fn read_again(&self, error: Option<&anyhow::Error>) {
        if let (Some(index), Some(Unknown::Segment(segment))) = (&self.index, error.and_then(find))
        {
            let segment = *segment;
            drop(on_index(index, move |index| index.try_again(segment)).await);
        }
    }

    /// With what past restores let expect. Only an estimate depends on them.
    fn with_estimate(&self, plan: RecoveryPlan) -> RecoveryPlan {
        let past = self
            .folder
            .as_deref()
            .and_then(|folder| restore_history::read(folder).ok())
            .unwrap_or_default();
        let expected_seconds = expected_seconds(&past, plan.backup.plain_bytes, plan.segments);
        RecoveryPlan {
            expected_seconds,
            ..plan
        }
    }
}
