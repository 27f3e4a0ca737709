//! What all routes share.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{Semaphore, watch};

use super::facts::{Known, Read};
use super::problem::{Kind, Problem};
use super::restores::Restores;
use super::status::Seen;
use super::tokens::Tokens;
use super::web::Sessions;
use crate::error::{find, hints, one_line};
use crate::metrics::Durations;
use crate::postgres::archive::locate::locate;
use crate::postgres::catalog::{
    ClusterDescription, EventId, Facts, FoundEvent, Moments, RecoveryPlan, Request, Unknown, Unreachable,
    expected_seconds,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::Index;
use crate::postgres::restore::past;

/// Answers computed at once: the threads that they take are the hooks', too.
pub const COMPUTED_AT_ONCE: usize = 4;

/// Requests that were answered, by route and status code.
pub type Requests = Family<[(&'static str, String); 2], Counter>;

/// What all routes share.
pub struct App {
    pub cluster: ClusterDescription,
    /// Where segments are looked into.
    pub archive: Cluster,
    pub known: watch::Receiver<Known>,
    pub status: watch::Receiver<Option<Seen>>,
    pub index: Arc<Index>,
    pub restores: Restores,
    pub tokens: Tokens,
    pub sessions: Sessions,
    pub has_tls: bool,
    pub durations: Durations,
    pub requests: Requests,
    /// After this an answer is given, whatever it is.
    pub longest: Duration,
    pub computing: Arc<Semaphore>,
}

impl App {
    /// What the repository had when it was read last.
    pub fn read(&self) -> Result<(Read, Known), Problem> {
        let known = self.known.borrow().clone();
        match (&known.read, &known.failed) {
            (Some(read), _) => Ok((read.clone(), known)),
            (None, Some(why)) => Err(Problem::new(Kind::NotReadYet, format!("the repository cannot be read: {why}"))
                .hint("check that it is reachable; the service goes on trying")),
            (None, None) => {
                let detail = "the service has just started and still reads the repository";
                Err(Problem::new(Kind::NotReadYet, detail).hint("ask again in a moment"))
            }
        }
    }

    /// Decides how to restore what is asked for. Errors: it could not be found out.
    pub async fn decide(
        &self,
        facts: &Arc<Facts>,
        request: &Request,
    ) -> Result<Result<RecoveryPlan, Box<Unreachable>>, Problem> {
        let (archive, index, facts, request) =
            (self.archive.clone(), self.index.clone(), facts.clone(), request.clone());
        let locating = async move {
            let moments: Arc<dyn Moments + Send + Sync> = index.clone();
            let located = locate(&archive, &moments, &facts, &request).await;
            if let Some(Unknown::Segment(segment)) = located.as_ref().err().and_then(find) {
                let segment = *segment;
                // Else it is read again at the next look into all of the repository.
                drop(tokio::task::spawn_blocking(move || index.try_again(segment)).await);
            }
            located
        };
        let decided = self
            .apart(locating)
            .await?
            .map_err(|error| Problem::new(Kind::Unknown, one_line(&error)).hint(hints(&error).join("; ")))?;
        let Ok(mut plan) = decided else { return Ok(decided) };
        if let Some(folder) = self.index.path().and_then(std::path::Path::parent) {
            // Only an estimate depends on them.
            let past = past::read(folder).unwrap_or_default();
            plan.expected_seconds = expected_seconds(&past, plan.backup.plain_bytes, plan.segments);
        }
        Ok(Ok(plan))
    }

    /// An event; `None`: there is none of this id. Errors: the index cannot be read.
    pub async fn event(&self, id: EventId) -> Result<Option<FoundEvent>, Problem> {
        let index = self.index.clone();
        let found = self.compute(move || index.event(id)).await?;
        found.map_err(|error| {
            Problem::new(Kind::Unknown, format!("the index of the WAL cannot be read: {}", one_line(&error)))
        })
    }

    /// Computes on a thread of its own.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        self.apart(async { tokio::task::spawn_blocking(work).await }).await?.map_err(|panicked| failed(&panicked))
    }

    /// Works in a place of its own, which is taken until the work has ended, also when nobody waits for it any more.
    async fn apart<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Problem> {
        let place = self.computing.clone().acquire_owned().await.map_err(|error| failed(&error))?;
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
        task.await.map_err(|panicked| failed(&panicked))
    }
}

fn failed(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!("an answer over HTTP could not be made: {error}");
    Problem::new(Kind::Unknown, format!("the answer could not be made: {error}"))
        .hint("ask again; the log of `walden serve` says more")
}
