//! What all routes share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{Semaphore, watch};

use super::facts::{FactsSnapshot, RepositoryFacts};
use super::known_alerts::KnownAlerts;
use super::options::{DrillTargets, Tls};
use super::plans::PlansHandle;
use super::problem::{Problem, ProblemType};
use super::records::KnownRecords;
use super::restores::Restores;
use super::status::LastStatus;
use super::tokens::Tokens;
use super::web::Sessions;
use crate::config;
use crate::error::{DeadlineExceeded, find, hints, one_line};
use crate::health::{Health, Upkeep};
use crate::metrics::Durations;
use crate::postgres::catalog::{
    ClusterDescription, EventId, Facts, Filter, FoundEvent, RestoreRequest,
};
use crate::postgres::index::{FoundEvents, Index, on_index};
use crate::postgres::planning::{Decided, Planner};
use crate::service::jobs::{JobsSnapshot, scheduled};
use crate::service::status::ServiceStatus;

/// Answers computed at once: the threads that they take are the hooks', too.
pub const COMPUTED_AT_ONCE: usize = 4;

/// Requests that were answered, by route and status code.
pub type Requests = Family<[(&'static str, String); 2], Counter>;

/// What all routes share.
pub struct App {
    pub cluster: ClusterDescription,
    pub known: watch::Receiver<RepositoryFacts>,
    pub status: watch::Receiver<Option<LastStatus>>,
    /// How the jobs stand.
    pub jobs: watch::Receiver<JobsSnapshot>,
    /// Its lookups in the index take milliseconds.
    pub planner: Planner,
    /// The index by another connection, for searches, which may take long.
    pub search_index: Arc<Index>,
    pub restores: Restores,
    pub plans: PlansHandle,
    /// What was done.
    pub records: watch::Receiver<KnownRecords>,
    /// What fires. Who tells people says so; where nobody does here, it is read.
    pub alerts: watch::Sender<KnownAlerts>,
    pub drill_targets: DrillTargets,
    pub tokens: Tokens,
    pub sessions: Sessions,
    pub tls: Option<Tls>,
    pub has_runbook_names: bool,
    pub is_in_bucket: bool,
    pub durations: Durations,
    pub requests: Requests,
    /// From where on something is not good.
    pub limits: config::Health,
    /// After this an answer is given, whatever it is.
    pub longest: Duration,
    pub computing: Arc<Semaphore>,
    /// One search at once: its connection is taken.
    pub searching: Arc<Semaphore>,
}

impl App {
    /// What the repository had when it was read last.
    pub fn read(&self) -> Result<(FactsSnapshot, RepositoryFacts), Problem> {
        let known = self.known.borrow().clone();
        match (&known.read, &known.failed) {
            (Some(read), _) => Ok((read.clone(), known)),
            (None, Some(why)) => Err(Problem::new(
                ProblemType::NotReadYet,
                format!("the repository cannot be read: {why}"),
            )
            .hint("check that it is reachable; the service goes on trying")),
            (None, None) => {
                let detail = "the service has just started and still reads the repository";
                Err(Problem::new(ProblemType::NotReadYet, detail).hint("ask again in a moment"))
            }
        }
    }

    /// What was done, and when that was read. Errors: it was not read yet.
    pub fn records(&self) -> Result<(KnownRecords, DateTime<Utc>), Problem> {
        let known = self.records.borrow().clone();
        match known.read_at {
            Some(at) => Ok((known, at)),
            None => {
                let detail = match known.failed {
                    Some(why) => format!("the records cannot be read: {why}"),
                    None => "the service still reads the records".into(),
                };
                Err(Problem::new(ProblemType::NotReadYet, detail).hint("ask again in a moment"))
            }
        }
    }

    /// What fires, and when that was known. Errors: it was not read yet.
    pub fn alerts(&self) -> Result<(KnownAlerts, DateTime<Utc>), Problem> {
        let known = self.alerts.borrow().clone();
        match known.read_at {
            Some(at) => Ok((known, at)),
            None => {
                let detail = match known.failed {
                    Some(why) => format!("the alerts cannot be read: {why}"),
                    None => "the service still finds out what fires".into(),
                };
                Err(Problem::new(ProblemType::NotReadYet, detail).hint("ask again in a moment"))
            }
        }
    }

    /// What is known beside what is archived.
    pub fn upkeep(&self) -> Upkeep {
        let (known, jobs) = (self.known.borrow(), self.jobs.borrow());
        Upkeep {
            jobs: scheduled(&jobs.jobs),
            jobs_unknown: jobs.failed.clone(),
            runs: jobs.runs,
            certificate: self.tls.as_ref().and_then(|tls| tls.until),
            ..(*known.upkeep).clone()
        }
    }

    /// How it stands.
    pub fn health(
        &self,
        read: &FactsSnapshot,
        status: Option<&ServiceStatus>,
        now: DateTime<Utc>,
    ) -> Health {
        let health = read.health(&self.limits, status, now);
        health.with(&self.upkeep(), &self.limits, now)
    }

    /// Decides how to restore what is asked for. Errors: it could not be found out.
    pub async fn decide(
        &self,
        facts: &Arc<Facts>,
        request: &RestoreRequest,
    ) -> Result<Decided, Problem> {
        let (planner, facts, request, deadline) = (
            self.planner.clone(),
            facts.clone(),
            request.clone(),
            self.deadline(),
        );
        self.apart(&self.computing, async move {
            planner.decide(&facts, &request, Some(deadline)).await
        })
        .await
    }

    /// An event; `None`: there is none of this id. Errors: it is not known yet, or the index cannot be read.
    pub async fn event(&self, id: EventId) -> Result<Option<FoundEvent>, Problem> {
        let planner = self.planner.clone();
        self.apart(&self.computing, async move { planner.event(id).await })
            .await
    }

    /// What happened. Errors: the index cannot be read, or not in time.
    pub async fn events(&self, filter: Filter) -> Result<FoundEvents, Problem> {
        let (index, deadline) = (self.search_index.clone(), self.deadline());
        let searching = async move {
            on_index(&index, move |index| index.events_until(&filter, deadline)).await
        };
        self.apart(&self.searching, searching).await
    }

    /// When one part of an answer has to be there. A page has two of them, and is told what is missing.
    fn deadline(&self) -> Instant {
        Instant::now() + self.longest / 2
    }

    /// Works in one of the places, which is taken until the work has ended, also when nobody waits for it any more.
    async fn apart<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = places
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| failed(&error))?;
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
        task.await
            .map_err(|panicked| failed(&panicked))?
            .map_err(|error| not_found_out(&error))
    }
}

/// What could not be found out, or not in time.
fn not_found_out(error: &anyhow::Error) -> Problem {
    let kind = if find::<DeadlineExceeded>(error).is_some() {
        ProblemType::Timeout
    } else {
        ProblemType::Unknown
    };
    Problem::new(kind, one_line(error)).hint(hints(error).join("; "))
}

fn failed(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!("an answer over HTTP could not be made: {error}");
    Problem::new(
        ProblemType::Unknown,
        format!("the answer could not be made: {error}"),
    )
    .hint("ask again; the log of `walden serve` says more")
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::error::with_hint;

    #[test]
    fn what_takes_too_long_is_told_apart_from_what_cannot_be_read() {
        let slow = not_found_out(&with_hint(
            DeadlineExceeded("the search").into(),
            "narrow it",
        ));
        assert_eq!(
            (slow.status(), slow.detail(), slow.next()),
            (
                StatusCode::GATEWAY_TIMEOUT,
                "the search takes too long",
                "narrow it"
            )
        );
        let failed = not_found_out(&anyhow::anyhow!("no space"));
        assert_eq!(failed.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
