use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoUtc;

use super::Format;
use crate::config::{self, CreateOnly, LogFormat, RepositoryUrl, Settings, SettingsSource};
use crate::error::with_hint;
use crate::jobs::permit;
use crate::owner::{self, Owner};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{BASE_FOLDER, DUMPS_FOLDER, WAL_FOLDER, bulk_of};
use crate::repo::Repository;
use crate::storage::{self, Retry, Storage, Store, s3};

/// How long a verb that is over waits for blocking work that cannot be interrupted, such as a read from a file server
/// that went away.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// What every verb has: settings, and how to print.
#[derive(Debug, Clone)]
pub struct Context {
    pub settings: Settings,
    pub format: Format,
}

impl Context {
    /// Reads the settings and starts logging to standard error.
    pub fn load(file: Option<&Path>, format: Format) -> anyhow::Result<Self> {
        let context = Self::load_silently(file, format)?;
        for warning in &context.settings.warnings {
            tracing::warn!("{warning}");
        }
        Ok(context)
    }

    /// The same for a verb that tells the settings' warnings itself.
    pub fn load_silently(file: Option<&Path>, format: Format) -> anyhow::Result<Self> {
        let settings = config::load(file, std::env::vars_os())?;
        start_logging(&settings);
        Ok(Self { settings, format })
    }

    /// The repository that the settings name.
    pub async fn repository(&self) -> anyhow::Result<Repository> {
        Repository::open(open_storage(&self.settings)?).await
    }

    /// The cluster that the settings name.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        self.make_cache_as_root();
        Cluster::open(
            self.repository().await?,
            self.settings.cluster.name.parse()?,
        )
        .await
    }

    /// Makes a missing folder of the index for whom root works, so that this user can use it, too. Where that fails, verbs
    /// do without an index.
    fn make_cache_as_root(&self) {
        let (cache, root) = (&self.settings.catalog.cache, Path::new("/"));
        if !owner::is_root() || cache.exists() {
            return;
        }
        let of = |path: &Path| Owner::of(path).ok().filter(|owner| owner.uid != 0);
        let above = || owner::heir(cache, root).ok().flatten();
        let of_repository = || heir_of_cluster(&self.settings).ok().flatten();
        let of_file = || match &self.settings.source {
            SettingsSource::File(file) => of(file),
            SettingsSource::Environment => None,
        };
        let user = above().or_else(of_repository).or_else(of_file);
        if let Some(Err(error)) = user.map(|user| owner::make_for(cache, user)) {
            tracing::debug!("cannot make \"{}\": {error}", cache.display());
        }
    }

    /// Runs a verb on a runtime of two threads beside the blocking ones: all heavy work is blocking work.
    pub fn block_on<T>(&self, verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let result = runtime.block_on(verb);
        runtime.shutdown_timeout(LAST_WAIT);
        result
    }

    /// Runs a verb in which one connection is busy: the thread that waits does the work, too.
    pub fn block_on_one_thread<T>(
        &self,
        verb: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(verb);
        runtime.shutdown_timeout(LAST_WAIT);
        result
    }

    /// Runs a verb that PostgreSQL waits for: like [`block_on_one_thread`](Self::block_on_one_thread), and over after
    /// `wal.timeout`, whatever hangs.
    pub fn block_on_hook<T>(
        &self,
        verb: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        within(self.settings.wal.timeout, verb)
    }
}

fn within<T>(limit: Duration, verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async { tokio::time::timeout(limit, verb).await });
    // Not waiting for threads that hang: the error must get out.
    runtime.shutdown_background();
    result.unwrap_or_else(|_| {
        let error = anyhow!("the repository did not answer within {} s (`wal.timeout`)", limit.as_secs_f32());
        let hint = "is the repository's file server reachable? Else raise `wal.timeout`; PostgreSQL asks again";
        Err(with_hint(error, hint))
    })
}

/// To whom what root makes of the settings' cluster belongs; `None` where that is root, or not in folders.
pub fn heir_of_cluster(settings: &Settings) -> std::io::Result<Option<Owner>> {
    let folder = settings.repository.url.folder();
    folder.map_or(Ok(None), |folder| {
        owner::heir(&folder.join(&settings.cluster.name), folder)
    })
}

/// The store that the settings name.
pub fn open_storage(settings: &Settings) -> anyhow::Result<Arc<dyn Storage>> {
    let store = match &settings.repository.url {
        RepositoryUrl::File(path) => Store::Folder(path.clone()),
        RepositoryUrl::S3 { bucket, prefix } => {
            Store::Bucket(Box::new(bucket_options(settings, bucket, prefix)?))
        }
    };
    let retry = Retry {
        retries: settings.repository.retries,
        timeout: settings.repository.timeout,
    };
    Ok(storage::open(store, retry, permit::of_process()))
}

/// Section `s3` in the store's own words.
fn bucket_options(
    settings: &Settings,
    bucket: &str,
    prefix: &str,
) -> anyhow::Result<s3::S3Options> {
    let s3 = settings.s3.clone();
    let class = |folder: &'static str, class: Option<String>| {
        class.map(|class| (folder, class.as_str().into()))
    };
    Ok(s3::S3Options {
        bucket: bucket.to_string(),
        prefix: prefix.to_string(),
        region: s3.region,
        path_style: s3.path_style.unwrap_or(s3.endpoint.is_some()),
        endpoint: s3.endpoint,
        credentials: s3::credentials(s3.access_key_id.expose(), s3.secret_access_key.expose())?,
        profile: s3.profile,
        ca_file: s3.ca_file,
        bucket_owner: s3.bucket_owner,
        classes: [
            class(WAL_FOLDER, s3.storage_class_wal),
            class(BASE_FOLDER, s3.storage_class_base),
            class(DUMPS_FOLDER, s3.storage_class_dump),
        ]
        .into_iter()
        .flatten()
        .collect(),
        kind_of: bulk_of,
        encryption: s3.encryption.asked().map(Into::into),
        kms_key: s3.kms_key,
        create_only: match s3.create_only {
            CreateOnly::Conditional => s3::CreateOnly::Conditional,
            CreateOnly::HeadThenPut => s3::CreateOnly::HeadThenPut,
        },
        multipart_threshold: s3.multipart_threshold,
        connect_timeout: s3.connect_timeout,
        response_timeout: s3.response_timeout,
        requests: s3.requests,
    })
}

/// Log lines go to standard error; `WALDEN_LOG` (tracing's filter syntax) overrides `log.level`.
fn start_logging(settings: &Settings) {
    // Of the libraries only what an operator must know.
    let default = format!("error,walden={}", settings.log.level.as_str());
    let filter = std::env::var("WALDEN_LOG").unwrap_or_else(|_| default.clone());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(default));
    let timer = ChronoUtc::new("%Y-%m-%dT%H:%M:%S%.3fZ".into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .with_timer(timer);
    // Only fails when a log was set up before, by a test.
    let _ = match settings.log.format {
        LogFormat::Text => log.with_writer(|| crate::plain::LogWriter).try_init(),
        LogFormat::Json => log.json().with_writer(std::io::stderr).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{hints, one_line};

    #[test]
    fn a_read_that_never_ends_is_told_in_time() {
        // As of a file server that went away: the thread cannot be interrupted.
        let (back, away) = std::sync::mpsc::channel::<()>();
        let read = async { Ok(tokio::task::spawn_blocking(move || away.recv()).await?) };
        let error = within(Duration::from_millis(50), read).unwrap_err();
        drop(back);
        assert!(
            one_line(&error).contains("did not answer within 0.05 s"),
            "{error:#}"
        );
        assert!(hints(&error)[0].contains("wal.timeout"));
    }
}
