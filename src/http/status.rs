//! What the service is doing, as it was a moment ago: metrics and answers are made from this copy, so that they wait for
//! nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::service::connections::ServiceInfo;
use crate::service::status::ServiceStatus;
use crate::service::{fetches, indexing, pushes};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// What the service was doing, and when.
#[derive(Debug, Clone)]
pub struct LastStatus {
    pub status: ServiceStatus,
    pub at: DateTime<Utc>,
}

/// The owner of the copy.
pub struct Watcher {
    about: ServiceInfo,
    pushes: pushes::PushHandle,
    fetches: fetches::FetchHandle,
    indexing: indexing::IndexHandle,
    status: watch::Sender<Option<LastStatus>>,
}

impl Watcher {
    /// Asks the owners of archiving and fetching.
    pub fn new(
        about: ServiceInfo,
        pushes: pushes::PushHandle,
        fetches: fetches::FetchHandle,
        indexing: indexing::IndexHandle,
    ) -> (Self, watch::Receiver<Option<LastStatus>>) {
        let (status, receiver) = watch::channel(None);
        (
            Self {
                about,
                pushes,
                fetches,
                indexing,
                status,
            },
            receiver,
        )
    }

    /// Works until `stopped` says so.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let work = async {
            while let Some(status) = self
                .about
                .status(&self.pushes, &self.fetches, &self.indexing)
                .await
            {
                self.status.send_replace(Some(LastStatus {
                    status,
                    at: Utc::now(),
                }));
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => (),
            () = work => (),
        }
        Ok(())
    }
}
