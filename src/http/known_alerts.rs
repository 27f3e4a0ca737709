//! What fires, as the repository keeps it. Where this service tells people it knows; where others do it is read.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::alerts::AlertStore;
use crate::alerts::state::AlertState;
use crate::error::one_line;
use crate::postgres::cluster::Cluster;

/// What is known of the alerts.
#[derive(Debug, Clone, Default)]
pub struct KnownAlerts {
    pub state: Arc<AlertState>,
    /// Somebody judges: this service, or who stored the state.
    pub is_watched: bool,
    /// When it was known; `None`: not yet.
    pub read_at: Option<DateTime<Utc>>,
    /// Why it is not known since.
    pub failed: Option<String>,
}

impl KnownAlerts {
    /// As it was then.
    pub fn of(state: AlertState, is_watched: bool, at: DateTime<Utc>) -> Self {
        Self {
            state: state.into(),
            is_watched,
            read_at: Some(at),
            failed: None,
        }
    }
}

/// Reads what others store.
#[derive(Debug)]
pub struct AlertsReader {
    store: AlertStore,
    interval: Duration,
    /// Of the state that is known.
    number: Option<u64>,
    known: watch::Sender<KnownAlerts>,
}

impl AlertsReader {
    /// Reads a cluster's alerts, each time `interval` after the last.
    pub fn new(cluster: &Cluster, interval: Duration) -> (Self, watch::Sender<KnownAlerts>) {
        let (storage, known) = (
            cluster.repository.shared_storage(),
            watch::Sender::default(),
        );
        let reader = Self {
            store: AlertStore::new(storage, cluster.layout.alerts_folder()),
            interval,
            number: None,
            known,
        };
        let known = reader.known.clone();
        (reader, known)
    }

    /// Works until `stopped` says so.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let work = async {
            loop {
                self.read().await;
                sleep(self.interval).await;
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
            () = work => Ok(()),
        }
    }

    async fn read(&mut self) {
        let at = Utc::now();
        match self.store.other_than(self.number).await {
            Ok(Some((number, state))) => {
                self.number = Some(number);
                self.known
                    .send_replace(KnownAlerts::of(state, number > 0, at));
            }
            Ok(None) => self.known.send_modify(|known| {
                (known.read_at, known.failed) = (Some(at), None);
            }),
            Err(error) => self
                .known
                .send_modify(|known| known.failed = Some(one_line(&error))),
        }
    }
}
