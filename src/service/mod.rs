//! `walden serve`: answers the hook programs on a unix socket, and does ahead of being asked what they will ask for.
//! It remembers nothing that the repository or the file system cannot prove.
//!
//! Four tasks, each the owner of its state: [`connections`] takes requests, [`pushes`] stores, [`fetches`] delivers,
//! [`indexing`] keeps the index of the WAL.
//! They stop in this order: each ends when the one before it has let go of it and its own work is done. Beside them
//! [`jobs`] begins what is due, and answers what the service is handed: HTTP.

mod allocator;
pub mod connections;
mod fetch_to_spool;
pub mod fetches;
pub mod indexing;
pub mod jobs;
mod peer_credentials;
pub mod pushes;
mod ready;
mod recent_pushes;
pub mod request;
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
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

pub use indexing::IndexingOptions as IndexOptions;
pub use jobs::JobsOptions;
use served_cluster::ServedCluster;

use crate::budget::Budget;
use crate::config::ClusterIdentity;
use crate::error::{hints, one_line};
use crate::metrics::Durations;
use crate::plain::plain;
use crate::postgres::archive::{Fetcher, Pusher};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::Index;

/// Beyond the time that one request may take, for what is in flight when the service stops.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// How the service works; all bounds of it.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    pub socket: PathBuf,
    /// HookConnections served at once.
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
    /// What runs by itself.
    pub jobs: Option<JobsOptions>,
}

/// What answers beside the hook socket, such as HTTP. It is handed over: the service need not know it.
pub struct Beside {
    pub name: &'static str,
    /// Where it answers, or why it does not; `None`: nowhere.
    pub state: Option<Receiver<status::Http>>,
    /// Answers from the handles until told to stop.
    pub serve: Box<dyn FnOnce(ServiceHandles, Receiver<bool>) -> Serving + Send>,
}

/// A part of the service at work.
pub type Serving = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// What can be asked of a running service.
pub struct ServiceHandles {
    pub cluster: Cluster,
    pub about: connections::ServiceInfo,
    pub pushes: pushes::PushHandle,
    pub fetches: fetches::FetchHandle,
    pub indexing: indexing::IndexHandle,
    /// What happened, to be asked: requests wait for no writing.
    pub index: Arc<Index>,
    /// The same, for searches that may take long: nothing else waits for them.
    pub search_index: Arc<Index>,
    /// The same, to be written.
    pub kept_index: Arc<Index>,
    pub durations: Durations,
    /// For one access to the repository.
    pub timeout: Duration,
    /// Beyond that, for waiting its turn.
    pub queue_time: Duration,
    /// Segments fetched ahead of the one asked for.
    pub prefetch: usize,
    /// How the jobs stand.
    pub jobs: Receiver<jobs::JobsSnapshot>,
}

/// Serves the cluster, which settings call `identity`, until `stop` completes, then finishes what is in flight. Once the
/// socket is bound, `open` says what else answers. Errors: the socket is taken or cannot be made; a part failed.
pub async fn run(
    cluster: Cluster,
    identity: ClusterIdentity,
    options: ServiceOptions,
    open: impl AsyncFnOnce() -> Option<Beside>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    allocator::give_back_early();
    let socket = socket::Socket::bind(&options.socket)?;
    let beside = open().await;
    let about = about(&cluster, beside.as_ref());
    tracing::info!(
        "serving cluster \"{}\" of {} on {}",
        about.cluster,
        about.repository,
        options.socket.display()
    );
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let mut parts = start(
        cluster,
        Door {
            socket,
            beside,
            about,
            ours: ServedCluster::new(identity),
        },
        &options,
        &stopped,
    )
    .await?;
    let early = tokio::select! {
        () = stop => None,
        ended = parts.join_next() => ended,
    };
    tracing::info!("stopping: finishing what is in flight");
    stopping.send_replace(true);
    let result = early.map_or(Ok(()), |ended| Err(unexpected(ended)));
    finish(parts, options.timeout + STOP_MARGIN, result).await
}

/// Where the service is asked, and as whom.
struct Door {
    socket: socket::Socket,
    beside: Option<Beside>,
    about: connections::ServiceInfo,
    ours: ServedCluster,
}

/// The tasks of the service, by name.
type Parts = JoinSet<(&'static str, anyhow::Result<()>)>;

/// Starts all parts. Errors: one cannot begin.
async fn start(
    cluster: Cluster,
    door: Door,
    options: &ServiceOptions,
    stopped: &Receiver<bool>,
) -> anyhow::Result<Parts> {
    let (budget, durations) = (Budget::new(options.memory), Durations::default());
    let (indexing, index_owner) = open_index(cluster.clone(), options.index.clone()).await?;
    let pusher = Pusher::new(cluster.clone(), options.compression_level, options.timeout);
    let (pushes, push_owner) = pushes::new(
        pusher,
        indexing.clone(),
        options,
        budget.clone(),
        durations.clone(),
    );
    let fetcher = Fetcher::new(cluster.clone(), options.timeout, options.workers);
    let (fetches, fetch_owner) = fetches::new(fetcher, options.prefetch, budget, durations.clone());
    let fetch_owner = fetch_owner.syncing();
    let mut parts = Parts::new();
    let jobs = start_jobs(&mut parts, options, stopped);
    let Door {
        socket,
        beside,
        about,
        ours,
    } = door;
    if let Some(beside) = beside {
        let index = [
            index_owner.reader().await?,
            index_owner.reader().await?,
            index_owner.index(),
        ];
        let asked = (pushes.clone(), fetches.clone(), indexing.clone());
        let asked = (asked, jobs);
        let handles = handles(cluster, about.clone(), asked, index, durations, options);
        add(
            &mut parts,
            beside.name,
            (beside.serve)(handles, stopped.clone()),
        );
    }
    let connections =
        connections::HookConnections::new(socket, pushes, fetches, indexing, options, about, ours);
    add(&mut parts, "connections", connections.run(stopped.clone()));
    add(&mut parts, "pushes", push_owner.run());
    add(&mut parts, "fetches", fetch_owner.run());
    add(&mut parts, "index", index_owner.run());
    Ok(parts)
}

/// Runs the jobs; how they stand.
fn start_jobs(
    parts: &mut Parts,
    options: &ServiceOptions,
    stopped: &Receiver<bool>,
) -> Receiver<jobs::JobsSnapshot> {
    let Some(options) = &options.jobs else {
        return tokio::sync::watch::channel(jobs::JobsSnapshot::default()).1;
    };
    let (owner, told) = jobs::JobsOwner::new(options.clone(), stopped.clone());
    add(parts, "jobs", owner.run());
    told
}

async fn open_index(
    cluster: Cluster,
    options: IndexOptions,
) -> anyhow::Result<(indexing::IndexHandle, indexing::IndexActor)> {
    tokio::task::spawn_blocking(move || indexing::new(cluster, options)).await?
}

fn add(
    parts: &mut Parts,
    name: &'static str,
    part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    parts.spawn(async move { (name, part.await) });
}

fn handles(
    cluster: Cluster,
    about: connections::ServiceInfo,
    ((pushes, fetches, indexing), jobs): (
        (
            pushes::PushHandle,
            fetches::FetchHandle,
            indexing::IndexHandle,
        ),
        Receiver<jobs::JobsSnapshot>,
    ),
    [index, search_index, kept_index]: [Arc<Index>; 3],
    durations: Durations,
    options: &ServiceOptions,
) -> ServiceHandles {
    ServiceHandles {
        cluster,
        about,
        pushes,
        fetches,
        indexing,
        index,
        search_index,
        kept_index,
        durations,
        timeout: options.timeout,
        queue_time: connections::QUEUE_TIME,
        prefetch: options.prefetch,
        jobs,
    }
}

/// What the service says of itself.
fn about(cluster: &Cluster, beside: Option<&Beside>) -> connections::ServiceInfo {
    connections::ServiceInfo {
        started_at: chrono::Utc::now(),
        cluster: cluster.layout.cluster().to_string(),
        repository: cluster.repository.describe(),
        http: beside.and_then(|beside| beside.state.clone()),
    }
}

/// Waits until what is in flight has ended. Errors: those of `result`; a part failed; it took too long.
async fn finish(
    mut parts: Parts,
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
        bail!(
            "some requests did not finish before shutdown; PostgreSQL repeats what was not answered"
        );
    }
    result
}

fn unexpected(
    ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>,
) -> anyhow::Error {
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
    let hints = hints
        .into_iter()
        .map(|hint| format!("\nHINT: {}", plain(hint)));
    format!("ERROR: {}{}\n", plain(what), hints.collect::<String>())
}
