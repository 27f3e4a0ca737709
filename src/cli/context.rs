use std::path::Path;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoUtc;

use super::Format;
use crate::config::{self, LogFormat, RepositoryUrl, Settings};
use crate::postgres::cluster::Cluster;
use crate::repo::Repository;
use crate::storage::{LocalStorage, Storage};

/// What every verb has: settings, and how to print.
#[derive(Debug)]
pub struct Context {
    pub settings: Settings,
    pub format: Format,
}

impl Context {
    /// Reads the settings and starts logging to standard error.
    pub fn load(file: Option<&Path>, format: Format) -> anyhow::Result<Self> {
        let settings = config::load(file, std::env::vars_os())?;
        start_logging(&settings);
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        Ok(Self { settings, format })
    }

    /// The repository that the settings name.
    pub async fn repository(&self) -> anyhow::Result<Repository> {
        Repository::open(open_storage(&self.settings.repository.url)).await
    }

    /// The cluster that the settings name.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        Cluster::open(self.repository().await?, self.settings.cluster.name.parse()?).await
    }

    /// Runs a verb on a runtime of two threads beside the blocking ones: all heavy work is blocking work.
    pub fn block_on<T>(&self, verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(verb)
    }

    /// Runs a verb that must start quickly, or in which one connection is busy: the thread that waits does the work, too.
    pub fn block_on_one_thread<T>(&self, verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(verb)
    }
}

/// The store that a repository's URL names: one arm a kind of storage.
pub fn open_storage(url: &RepositoryUrl) -> Arc<dyn Storage> {
    match url {
        RepositoryUrl::File(path) => Arc::new(LocalStorage::new(path)),
    }
}

/// Log lines go to standard error; `WALDEN_LOG` (tracing's filter syntax) overrides `log.level`.
fn start_logging(settings: &Settings) {
    let filter = std::env::var("WALDEN_LOG").unwrap_or_else(|_| settings.log.level.as_str().to_string());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(settings.log.level.as_str()));
    let timer = ChronoUtc::new("%Y-%m-%dT%H:%M:%S%.3fZ".into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_timer(timer);
    // Only fails when a log was set up before, by a test.
    let _ = match settings.log.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}
