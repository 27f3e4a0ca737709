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
use crate::metrics::Durations;
use crate::postgres::catalog::ClusterDescription;
use crate::postgres::index::Index;

/// Answers computed at once: the threads that they take are the hooks', too.
pub const COMPUTED_AT_ONCE: usize = 4;

/// Requests that were answered, by route and status code.
pub type Requests = Family<[(&'static str, String); 2], Counter>;

/// What all routes share.
pub struct App {
    pub cluster: ClusterDescription,
    pub known: watch::Receiver<Known>,
    pub status: watch::Receiver<Option<Seen>>,
    pub index: Arc<Index>,
    pub restores: Restores,
    pub tokens: Tokens,
    pub durations: Durations,
    pub requests: Requests,
    /// After this an answer is given, whatever it is.
    pub longest: Duration,
    pub computing: Semaphore,
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

    /// Computes on a thread of its own.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let unknown = |error: &dyn std::fmt::Display| Problem::new(Kind::Unknown, format!("it did not work: {error}"));
        let _place = self.computing.acquire().await.map_err(|error| unknown(&error))?;
        tokio::task::spawn_blocking(work).await.map_err(|panicked| {
            tracing::error!("an answer over HTTP could not be made: {panicked}");
            unknown(&panicked)
        })
    }
}
