//! `walden serve`: the service, until SIGTERM or SIGINT.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{SignalKind, signal};

use super::context::heir_of_cluster;
use super::evidence::tell_settings;
use super::{Context, Exit, alert, jobs};
use crate::config::{ClusterIdentity, Settings};
use crate::error::{Hint, one_line};
use crate::http::{self, Alerting};
use crate::owner;
use crate::postgres::cluster::Cluster;
use crate::postgres::replication::ConnInfo;
use crate::service::{self, IndexOptions, JobsOptions, ServiceOptions};

/// Threads for files and compression: more than all parts of the service use at once.
const BLOCKING_THREADS: usize = 64;
/// Who deletes what was stored this recently could do so after the answer as well.
const FRESH: Duration = Duration::from_secs(10);
/// A thread without work for so long ends.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// For blocking work that cannot be interrupted, once all that was in flight has had its time.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Runs the service.
pub fn run(context: &Context) -> anyhow::Result<Exit> {
    refuse_root(&context.settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
        };
        let cluster = context.cluster().await?;
        let options = ServiceOptions {
            jobs: Some(jobs(&context.settings, &cluster)),
            ..options(context)
        };
        let identity = ClusterIdentity::of(&context.settings, |name| std::env::var_os(name));
        let http = http::HttpOptions::of(&context.settings)?;
        let alerting = alerting(&context.settings, &cluster);
        let open = async || http::beside(http, alerting).await;
        let told = tell_settings(&context.settings, &cluster, chrono::Utc::now());
        let serving = service::run(cluster.clone(), identity, options, open, stop);
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended,
            _ = told => {}
        }
        serving.await
    });
    runtime.shutdown_timeout(LAST_WAIT);
    result.map(|()| Exit::Success)
}

/// Root's service would answer none of PostgreSQL's hooks.
fn refuse_root(settings: &Settings) -> anyhow::Result<()> {
    let Some(folder) = settings
        .repository
        .url
        .folder()
        .filter(|_| owner::is_root())
    else {
        return Ok(());
    };
    match heir_of_cluster(settings) {
        Ok(Some(user)) => Err(anyhow!(
            "root is to serve repository \"{}\", which belongs to {user}",
            folder.display()
        ))
        .hint(format!("run `walden serve` as {user}")),
        // Opening the repository tells what is wrong with it.
        _ => Ok(()),
    }
}

/// Who is told of alerts. A file that cannot be used keeps nothing from being archived.
fn alerting(settings: &Settings, cluster: &Cluster) -> Option<Alerting> {
    match alert::evaluator(settings, cluster) {
        Ok(evaluator) => evaluator.map(|(evaluator, reach)| Alerting {
            evaluator,
            reach,
            interval: settings.alerts.interval,
        }),
        Err(error) => {
            let why = one_line(&error);
            tracing::error!("nobody is told of alerts until the service is started again: {why}");
            None
        }
    }
}

/// What runs by itself.
fn jobs(settings: &Settings, cluster: &Cluster) -> JobsOptions {
    JobsOptions {
        jobs: jobs::kinds::jobs(settings),
        runs: jobs::runs_of(settings, cluster),
        launch: jobs::launch(settings),
        begins: settings.schedule.in_service,
    }
}

fn options(context: &Context) -> ServiceOptions {
    let Settings {
        cluster,
        wal,
        service,
        catalog,
        postgresql,
        ..
    } = &context.settings;
    let dsn = postgresql.dsn.clone();
    ServiceOptions {
        socket: service.socket.clone(),
        max_connections: service.max_connections,
        compression_level: wal.compression_level,
        look_ahead: wal.look_ahead,
        fresh: FRESH,
        pg_wal: cluster
            .data_directory
            .as_ref()
            .map(|data| data.join("pg_wal")),
        prefetch: wal.prefetch,
        workers: wal.workers,
        memory: wal.memory as u64,
        timeout: wal.timeout,
        index: IndexOptions {
            cache: catalog.cache.clone(),
            names_interval: catalog.names_interval,
            resolve: Arc::new(move || ConnInfo::from_process(dsn.expose())),
        },
        jobs: None,
    }
}
