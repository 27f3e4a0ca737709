//! `walden serve`: answers the hook programs on a unix socket, and does ahead of being asked what they will ask for.
//! It remembers nothing that the repository or the file system cannot prove.
//!
//! Four tasks, each the owner of its state: [`connections`] takes requests, [`pushes`] stores, [`fetches`] delivers,
//! [`indexing`] keeps the index of the WAL.
//! They stop in this order: each ends when the one before it has let go of it and its own work is done. Beside them
//! [`crate::http`] answers.

mod allocator;
pub mod connections;
pub mod fetches;
pub mod indexing;
mod peer_credentials;
pub mod pushes;
mod ready;
mod recent_pushes;
mod served_cluster;
mod session;
mod socket;
mod spool;
pub mod standby_retry;
pub mod status;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::task::JoinSet;

pub use indexing::IndexingOptions as IndexOptions;
use served_cluster::ServedCluster;

use crate::budget::Budget;
use crate::config::ClusterIdentity;
use crate::error::{hints, one_line};
use crate::http;
use crate::metrics::Durations;
use crate::plain::plain;
use crate::postgres::archive::{Fetcher, Pusher};
use crate::postgres::cluster::Cluster;

/// Beyond the time that one request may take, for what is in flight when the service stops.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// How the service works; all bounds of it.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    pub socket: PathBuf,
    /// Connections served at once.
    pub max_connections: usize,
    /// zstd level of segments stored.
    pub compression_level: i32,
    /// Files stored ahead of the one asked for.
    pub look_ahead: usize,
    /// How long a file that was stored ahead needs no second look in the repository when it is asked for.
    pub fresh: Duration,
    /// The server's `pg_wal`, to be watched before the first call tells it.
    pub pg_wal: Option<PathBuf>,
    /// Segments fetched ahead of the one asked for.
    pub prefetch: usize,
    /// Files compressed at once, and decompressed at once.
    pub workers: usize,
    /// Bytes of compressed files held in memory; a file that may need more goes alone.
    pub memory: u64,
    /// For one access to the repository.
    pub timeout: Duration,
    pub index: IndexOptions,
    /// `None`: no HTTP.
    pub http: Option<http::HttpOptions>,
}

/// Serves the cluster, which settings call `identity`, until `stop` completes, then finishes what is in flight. Errors: the socket is taken or cannot be made; a
/// part of the service failed.
pub async fn run(
    cluster: Cluster,
    identity: ClusterIdentity,
    options: ServiceOptions,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    allocator::give_back_early();
    let socket = socket::Socket::bind(&options.socket)?;
    let port = match &options.http {
        Some(http) => Some(http::Port::open(http).await),
        None => None,
    };
    let about = about(&cluster, port.as_ref());
    tracing::info!("serving cluster \"{}\" of {} on {}", about.cluster, about.repository, options.socket.display());
    let (budget, durations) = (Budget::new(options.memory), Durations::default());
    let pusher = Pusher::new(cluster.clone(), options.compression_level, options.timeout);
    let (served, index_options) = (cluster.clone(), options.index.clone());
    let indexing = tokio::task::spawn_blocking(move || indexing::new(served, index_options)).await?;
    let (indexing, index_owner) = indexing?;
    let (pushes, push_owner) = pushes::new(pusher, indexing.clone(), &options, budget.clone(), durations.clone());
    let fetcher = Fetcher::new(cluster.clone(), options.timeout, options.workers);
    let (fetches, fetch_owner) = fetches::new(fetcher, options.prefetch, budget, durations.clone());
    let (stopping, stopped) = tokio::sync::watch::channel(false);

    let mut parts: JoinSet<(&'static str, anyhow::Result<()>)> = JoinSet::new();
    if let (Some(http), Some(port)) = (options.http.clone(), port) {
        let service = http::Service {
            cluster,
            about: about.clone(),
            pushes: pushes.clone(),
            fetches: fetches.clone(),
            indexing: indexing.clone(),
            index: index_owner.reader().await?,
            search_index: index_owner.reader().await?,
            kept_index: index_owner.index(),
            durations,
            timeout: options.timeout,
            queue_time: connections::QUEUE_TIME,
            prefetch: options.prefetch,
        };
        let (server, stopped) = (http::HttpServer::new(port, http, service), stopped.clone());
        parts.spawn(async move { ("HTTP", server.run(stopped).await) });
    }
    let connections = connections::HookConnections::new(
        socket,
        pushes,
        fetches,
        indexing,
        &options,
        about,
        ServedCluster::new(identity),
    );
    parts.spawn(async move { ("connections", connections.run(stopped).await) });
    parts.spawn(async move { ("pushes", push_owner.run().await) });
    parts.spawn(async move { ("fetches", fetch_owner.run().await) });
    parts.spawn(async move { ("index", index_owner.run().await) });

    let early = tokio::select! {
        () = stop => None,
        ended = parts.join_next() => ended,
    };
    tracing::info!("stopping: finishing what is in flight");
    stopping.send_replace(true);
    let result = early.map_or(Ok(()), |ended| Err(unexpected(ended)));
    finish(parts, options.timeout + STOP_MARGIN, result).await
}

/// What the service says of itself.
fn about(cluster: &Cluster, port: Option<&http::Port>) -> connections::ServiceInfo {
    connections::ServiceInfo {
        started_at: chrono::Utc::now(),
        cluster: cluster.layout.cluster().to_string(),
        repository: cluster.repository.describe(),
        http: port.map(http::Port::state),
    }
}

/// Waits until what is in flight has ended. Errors: those of `result`; a part failed; it took too long.
async fn finish(
    mut parts: JoinSet<(&'static str, anyhow::Result<()>)>,
    within: Duration,
    mut result: anyhow::Result<()>,
) -> anyhow::Result<()> {
    let finish = async {
        while let Some(ended) = parts.join_next().await {
            if let Ok((part, Err(error))) = ended {
                result = Err(error.context(format!("the service's {part} failed")));
            }
        }
    };
    if tokio::time::timeout(within, finish).await.is_err() {
        bail!("not all that was in flight ended in time; PostgreSQL repeats what was not answered");
    }
    result
}

fn unexpected(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok((part, Ok(()))) => anyhow!("the service's {part} ended unexpectedly"),
        Ok((part, Err(error))) => error.context(format!("the service's {part} failed")),
        Err(panicked) => anyhow::Error::from(panicked).context("a part of the service failed"),
    }
}

/// An error in the lines that a hook program prints. Here alone text of errors is made for the socket.
fn render(error: &anyhow::Error) -> String {
    lines(&one_line(error), hints(error))
}

fn lines<'a>(what: &str, hints: impl IntoIterator<Item = &'a str>) -> String {
    let hints = hints.into_iter().map(|hint| format!("\nHINT: {}", plain(hint)));
    format!("ERROR: {}{}\n", plain(what), hints.collect::<String>())
}
