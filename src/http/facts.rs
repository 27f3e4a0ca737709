//! What the repository has, as it was read last: answers are made from this copy and tell its age. One owner reads it
//! anew in its own time, so that no request ever waits for the repository.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use super::windows::{Window, gaps, windows};
use crate::error::one_line;
use crate::metrics::{Durations, Phase};
use crate::postgres::catalog::{Facts, Gap, load};
use crate::postgres::cluster::Cluster;

/// What is known of the repository.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// `None` until it was read for the first time.
    pub read: Option<Read>,
    /// Why it could not be read anew since.
    pub failed: Option<String>,
    /// How often reading failed.
    pub failures: u64,
}

/// One reading, and what follows from it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Read {
    pub facts: Arc<Facts>,
    pub windows: Arc<[Window]>,
    /// Stretches of WAL that are missing.
    pub gaps: Arc<[Gap]>,
    /// When it began: what came later may be missing.
    pub at: DateTime<Utc>,
}

impl Read {
    /// What was read at `at`.
    pub fn of(facts: Facts, at: DateTime<Utc>) -> Self {
        Self { windows: windows(&facts).into(), gaps: gaps(&facts).into(), facts: Arc::new(facts), at }
    }
}

/// The owner of what is known.
pub struct Reader {
    cluster: Cluster,
    interval: Duration,
    durations: Durations,
    known: watch::Sender<Known>,
}

impl Reader {
    /// Reads `cluster`'s part of the repository, each time `interval` after the last.
    pub fn new(cluster: Cluster, interval: Duration, durations: Durations) -> (Self, watch::Receiver<Known>) {
        let (known, receiver) = watch::channel(Known::default());
        (Self { cluster, interval, durations, known }, receiver)
    }

    /// Works until `stopped` says so.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        loop {
            let work = async {
                self.read().await;
                tokio::time::sleep(self.interval).await;
            };
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
                () = work => (),
            }
        }
    }

    async fn read(&self) {
        let at = Utc::now();
        let work = async {
            let facts = load::load(&self.cluster).await?;
            anyhow::Ok(tokio::task::spawn_blocking(move || Read::of(facts, at)).await?)
        };
        match self.durations.time(Phase::ReadRepository, work).await {
            Ok(read) => self.known.send_modify(|known| {
                known.read = Some(read);
                known.failed = None;
            }),
            Err(error) => {
                let why = one_line(&error);
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
    }
}
