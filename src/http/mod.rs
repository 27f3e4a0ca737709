//! HTTP: what can be restored and to which moments, what the service is doing, and WAL for machines that restore without
//! the repository's credentials (docs/operations/http.md).
//!
//! Nothing here can hold up the hooks: answers are made of copies in memory, which owners of their own renew; WAL is
//! fetched by an owner of its own with memory of its own; connections, time, and threads at once are bounded.

mod alerting;
mod app;
mod dto;
mod facts;
mod figures;
mod guard;
mod known_alerts;
mod listen;
mod metrics_page;
mod options;
mod plans;
mod problem;
mod records;
mod restores;
mod routes;
mod runbook;
#[cfg(test)]
mod shipped;
mod show;
mod status;
#[cfg(test)]
mod tests;
mod tokens;
mod web;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::budget::Budget;
use crate::postgres::archive::Fetcher;
use crate::postgres::cluster::Cluster;
use crate::postgres::index::Index;
use crate::postgres::planning::Planner;
use crate::service::{Beside, ServiceHandles, fetches};

pub use alerting::Alerting;
pub use figures::{Figures, Kept};
pub use listen::Port;
pub use metrics_page::pushed;
pub use options::HttpOptions;

use app::{App, COMPUTED_AT_ONCE};
use facts::FactsReader;
use known_alerts::AlertsReader;
use plans::PlansOwner;
use records::RecordsReader;
use restores::Restores;
use status::Watcher;

/// Where the description of the API lies.
const DOCUMENT_PATH: &str = "/v1/openapi.json";
/// Files decompressed at once for restoring machines.
const WORKERS: usize = 1;

/// HTTP, ready to serve.
pub struct HttpServer {
    /// `None`: it is off. Then only who tells of alerts asks.
    port: Option<Port>,
    app: Arc<App>,
    reader: FactsReader,
    watcher: Watcher,
    fetch_owner: fetches::FetchActor,
    plans_owner: PlansOwner,
    records_reader: RecordsReader,
    alerts_reader: AlertsReader,
    alerting: Option<Alerting>,
}

/// Opens the port, and answers there from what the service hands over; tells people of alerts from the same. `None`:
/// nothing of that is wanted.
pub async fn beside(options: HttpOptions, alerting: Option<Alerting>) -> Option<Beside> {
    let port = Port::open(&options).await;
    if port.is_none() && alerting.is_none() {
        return None;
    }
    Some(Beside {
        name: "HTTP or alerts",
        state: port.as_ref().map(Port::state),
        serve: Box::new(|service, stopped| {
            Box::pin(HttpServer::new(port, options, service, alerting).run(stopped))
        }),
    })
}

impl HttpServer {
    /// Answers on `port`.
    pub fn new(
        port: Option<Port>,
        options: HttpOptions,
        service: ServiceHandles,
        alerting: Option<Alerting>,
    ) -> Self {
        let (app, reader, watcher, fetch_owner, plans_owner, records_reader, alerts_reader) =
            parts(options, service);
        Self {
            port,
            app: Arc::new(app),
            reader,
            watcher,
            fetch_owner,
            plans_owner,
            records_reader,
            alerts_reader,
            alerting,
        }
    }

    /// Serves until `stopped` says so.
    pub async fn run(self, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
        parts.spawn(self.reader.run(stopped.clone()));
        parts.spawn(self.watcher.run(stopped.clone()));
        parts.spawn(self.plans_owner.run(stopped.clone()));
        parts.spawn(self.records_reader.run(stopped.clone()));
        match self.alerting {
            Some(alerting) => parts.spawn(alerting.run(self.app.clone(), stopped.clone())),
            // Others may tell people.
            None => parts.spawn(self.alerts_reader.run(stopped.clone())),
        };
        if let Some(port) = self.port {
            parts.spawn(port.run(routes::router(self.app.clone()), stopped));
        }
        drop(self.app);
        // Ends when who asks it is gone.
        parts.spawn(self.fetch_owner.run());
        while let Some(ended) = parts.join_next().await {
            ended.context("a part of HTTP failed")??;
        }
        Ok(())
    }
}

/// What answers, and who keeps what the answers are made of.
type Parts = (
    App,
    FactsReader,
    Watcher,
    fetches::FetchActor,
    PlansOwner,
    RecordsReader,
    AlertsReader,
);

fn parts(options: HttpOptions, service: ServiceHandles) -> Parts {
    let ServiceHandles {
        cluster,
        about,
        durations,
        timeout,
        ..
    } = service;
    let (index, indexing) = (service.kept_index, service.indexing.clone());
    let (reader, known) = FactsReader::new(
        cluster.clone(),
        index,
        indexing,
        (options.refresh_interval, options.folder),
        durations.clone(),
    );
    let (watcher, status) = Watcher::new(about, service.pushes, service.fetches, service.indexing);
    let description = cluster.description.clone();
    let (fetcher, budget) = (
        Fetcher::new(cluster.clone(), timeout, WORKERS),
        Budget::new(options.wal_memory),
    );
    let (fetches, fetch_owner) = fetches::new(fetcher, service.prefetch, budget, durations.clone());
    let restores = Restores::new(fetches, &options.spool, &description.name.to_string());
    restores.tidy();
    let (plans, plans_owner) = plans::new(cluster.clone(), options.retention);
    let (records_reader, records) = RecordsReader::new(cluster.journal(), options.refresh_interval);
    let (alerts_reader, alerts) = AlertsReader::new(&cluster, options.refresh_interval);
    let app = App {
        cluster: description,
        known,
        status,
        jobs: service.jobs,
        planner: planner(cluster, service.index),
        search_index: service.search_index,
        restores,
        plans,
        records,
        alerts,
        drill_targets: options.drill_targets,
        tokens: options.tokens,
        sessions: web::Sessions::default(),
        tls: options.tls,
        has_runbook_names: options.runbook_names,
        is_in_bucket: options.is_in_bucket,
        durations,
        requests: app::Requests::default(),
        limits: options.limits,
        longest: timeout + service.queue_time,
        computing: Arc::new(Semaphore::new(COMPUTED_AT_ONCE)),
        searching: Arc::new(Semaphore::new(1)),
    };
    (
        app,
        reader,
        watcher,
        fetch_owner,
        plans_owner,
        records_reader,
        alerts_reader,
    )
}

fn planner(cluster: Cluster, index: Arc<Index>) -> Planner {
    let folder = index.path().and_then(Path::parent);
    Planner {
        cluster,
        folder: folder.map(Path::to_path_buf),
        index: Some(index),
    }
}
