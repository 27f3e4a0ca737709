//! Plans over what the repository holds now.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, Utc};

use super::{Decided, Planner};
use crate::error::{Hint, find, hints, one_line, with_hint};
use crate::health::FRESH_GAP;
use crate::postgres::catalog::{
    EventId, EventTarget, Facts, RecoveryPlan, RestoreRequest, Unknown, UnreachableReason,
    WalIndex, WalPiece,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::partial::index_of;
use crate::postgres::index::update::{self, IndexProgress, ListScope};
use crate::postgres::index::{Index, IndexFailed};
use crate::postgres::load;

/// How often a gap is looked at that may close.
const FRESH_GAP_POLLS: usize = 12;

/// Told how many segments were read, and what for: `indexed` or `checked`.
pub type Observe = Box<dyn Fn(&'static str, IndexProgress) + Send + Sync>;

/// Plans restores of a cluster; gathers the facts, and keeps the index up with them.
pub struct FreshPlanner {
    /// With the index that can be used; with none when none is needed.
    planner: Mutex<Planner>,
    needs_index: bool,
    observe: Observe,
}

impl FreshPlanner {
    /// With the index in `folder`. Targets that need no index use one only if there is one already: to make it takes as long
    /// as there is WAL. For the end of it all the headers of what is replayed are enough.
    pub fn open(
        cluster: Cluster,
        folder: &Path,
        needs_index: bool,
        observe: Observe,
    ) -> anyhow::Result<Self> {
        let index = match needs_index || Index::is_in(folder, &cluster) {
            true => Some(Arc::new(open_index(folder, &cluster)?)),
            false => None,
        };
        let planner = Mutex::new(Planner {
            cluster,
            index,
            folder: Some(folder.to_path_buf()),
        });
        Ok(Self {
            planner,
            needs_index,
            observe,
        })
    }

    fn planner(&self) -> Planner {
        self.planner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The cluster that is planned for.
    pub fn cluster(&self) -> Cluster {
        self.planner().cluster
    }

    /// What the planner asks.
    pub fn wal_index(&self) -> Arc<dyn WalIndex + Send + Sync> {
        self.planner().wal_index()
    }

    /// The facts as they are now; what they name the index knows, too.
    pub async fn facts(&self) -> anyhow::Result<Arc<Facts>> {
        let unknown =
            "check that the repository is reachable and that this user may read all of it";
        let facts = load::load(&self.cluster()).await.hint(unknown)?;
        self.update_index(ListScope::New).await?;
        Ok(Arc::new(facts))
    }

    /// Lets the index know the WAL that is archived now.
    async fn update_index(&self, scope: ListScope) -> anyhow::Result<()> {
        self.with_index(scope, async |_| Ok(())).await.map(drop)
    }

    /// What an index that knows the WAL that is archived now says; `None`: there is no index.
    pub async fn ask_index<T>(
        &self,
        ask: impl AsyncFn(&Arc<Index>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        self.with_index(ListScope::New, ask).await
    }

    /// Brings the index up to date and works with it, if there is one; if that fails, with another one or without.
    async fn with_index<T>(
        &self,
        scope: ListScope,
        work: impl AsyncFn(&Arc<Index>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let observe = |progress| (self.observe)("indexed", progress);
        loop {
            let Planner {
                cluster,
                index: Some(index),
                ..
            } = self.planner()
            else {
                return Ok(None);
            };
            let done = async {
                update::complete(&index, &cluster, scope, &observe).await?;
                work(&index).await
            };
            match done.await {
                Err(error) if is_of_index(&error) => self.replace_index(error)?,
                done => return done.map(Some),
            }
        }
    }

    /// Goes on without the index in the folder: it is only a copy of what the repository says. Errors: it was not that one.
    fn replace_index(&self, error: anyhow::Error) -> anyhow::Result<()> {
        let Planner { cluster, index, .. } = self.planner();
        if index.is_none_or(|index| index.path().is_none()) {
            return Err(error);
        }
        let hints: String = hints(&error)
            .into_iter()
            .map(|hint| format!("\nHINT: {hint}"))
            .collect();
        let (instead, what) = match self.needs_index {
            true => (
                Some(Arc::new(Index::temporary(&cluster)?)),
                "WAL is indexed for this run only",
            ),
            false => (None, "going on without it"),
        };
        tracing::warn!("{}: {what}{hints}", one_line(&error));
        self.planner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .index = instead;
        Ok(())
    }

    /// Plans, and does it again as long as the answer may be another one then.
    pub async fn decide(&self, request: &RestoreRequest) -> anyhow::Result<Decided> {
        let (mut polls, mut compared) = (0, self.planner().index.is_none());
        loop {
            let facts = self.facts().await?;
            let planner = self.planner();
            let decided = match planner.decide(&facts, request, None).await {
                Err(error) if is_of_index(&error) => {
                    self.replace_index(error)?;
                    continue;
                }
                decided => decided,
            };
            match again(&decided, &facts, Utc::now()) {
                Some(Again::Compared) if !compared => {
                    compared = true;
                    self.update_index(ListScope::All).await?;
                }
                Some(Again::Later) if polls < FRESH_GAP_POLLS => {
                    polls += 1;
                    if let Ok(Err(refused)) = &decided {
                        tracing::info!(
                            "{}: looking again, for segments are being archived",
                            refused.reason
                        );
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => {
                    return match decided? {
                        Ok(plan) if planner.index.is_none() => {
                            self.by_headers(planner, &facts, request, &plan.wal).await
                        }
                        decided => Ok(decided),
                    };
                }
            }
        }
    }

    /// Plans with an index of no more than what replay reads: a server takes broken WAL for the end, and makes tablespaces
    /// wherever it says.
    async fn by_headers(
        &self,
        planner: Planner,
        facts: &Arc<Facts>,
        request: &RestoreRequest,
        wal: &[WalPiece],
    ) -> anyhow::Result<Decided> {
        let observe = |progress| (self.observe)("checked", progress);
        let index = Some(index_of(&planner.cluster, wal, &observe).await?);
        Planner { index, ..planner }
            .decide(facts, request, None)
            .await
    }

    /// The event's place in the WAL. Errors: no such event.
    pub async fn event(&self, id: EventId) -> anyhow::Result<EventTarget> {
        let found = self
            .ask_index(async |_| self.planner().event(id).await)
            .await?;
        let found = found.flatten().ok_or_else(|| {
            let error = anyhow!("there is no event {id} in the archived WAL");
            with_hint(
                error,
                "`walden find` lists the events there are; `--all` also those of less interest",
            )
        })?;
        Ok(EventTarget::from(&found))
    }
}

/// What may make the answer another one.
#[derive(Debug, PartialEq, Eq)]
enum Again {
    /// The index is compared with all of the repository: it lacks a segment, or has a broken one, which may have been
    /// replaced.
    Compared,
    /// Time passes: a gap is so fresh that it may only be the order in which segments are being stored.
    Later,
}

fn again(decided: &anyhow::Result<Decided>, facts: &Facts, now: DateTime<Utc>) -> Option<Again> {
    match decided {
        Err(error) => matches!(find(error), Some(Unknown::Segment(_))).then_some(Again::Compared),
        Ok(Err(refused)) if matches!(refused.reason, UnreachableReason::Broken { .. }) => {
            Some(Again::Compared)
        }
        Ok(Err(refused)) => facts
            .may_close(refused, now, FRESH_GAP)
            .then_some(Again::Later),
        Ok(Ok(RecoveryPlan { made, .. })) => made.unknown.is_some().then_some(Again::Compared),
    }
}

/// Whether it is the local index that failed, and not the repository.
fn is_of_index(error: &anyhow::Error) -> bool {
    find::<IndexFailed>(error).is_some() || matches!(find(error), Some(Unknown::Failed(_)))
}

/// The index in the folder; if that cannot be used, one that is gone afterwards.
fn open_index(folder: &Path, cluster: &Cluster) -> anyhow::Result<Index> {
    Index::open(folder, cluster).or_else(|error| {
        tracing::info!("WAL is indexed for this run only: {}", one_line(&error));
        Index::temporary(cluster)
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::postgres::catalog::{Target, Unreachable, WalRanges, testing};
    use crate::postgres::types::SegmentName;

    #[test]
    fn planning_is_done_again_only_where_the_answer_may_change() {
        let now = Utc::now();
        let segment: SegmentName = "000000010000000000000005".parse().unwrap();
        let mut ranges = WalRanges::new(testing::cluster_description().segment_size);
        ranges.add(segment, 10, now);
        let facts = Facts {
            backups: Default::default(),
            ..testing::facts_in(ranges)
        };
        let refused = |reason: UnreachableReason| {
            Ok(Err(Box::new(Unreachable {
                target: RestoreRequest::new(Target::Latest).words(),
                kind: reason.kind(),
                reason,
                nearest_before: None,
                nearest_after: None,
                other_timelines: Vec::new(),
                notes: Vec::new(),
            })))
        };
        let failed =
            |unknown: Unknown| Err(anyhow::Error::new(unknown).context("where the target lies"));
        let gap = || UnreachableReason::Gap {
            first_missing: "000000010000000000000004".parse().unwrap(),
            resumes: segment,
        };
        let broken = UnreachableReason::Broken {
            segment,
            lsn: segment.start(facts.ranges.segment_size()),
        };
        assert_eq!(
            again(&failed(Unknown::Segment(segment)), &facts, now),
            Some(Again::Compared)
        );
        assert_eq!(again(&refused(broken), &facts, now), Some(Again::Compared));
        assert_eq!(again(&refused(gap()), &facts, now), Some(Again::Later));
        assert_eq!(
            again(&refused(gap()), &facts, now + TimeDelta::days(1)),
            None,
            "nothing closes it any more"
        );
        assert_eq!(
            again(&refused(UnreachableReason::NoBackup), &facts, now),
            None
        );
        assert_eq!(again(&failed(Unknown::NoIndex), &facts, now), None);
    }
}
