//! A dump that somebody means, on disk, and what keeps it from deletion meanwhile.

use std::path::Path;

use super::super::Context;
use super::super::progress::show;
use super::super::restore::thaw_step;
use super::chosen::with_manifest;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::dump_restore::needs::RestoreOptions;
use crate::postgres::dump_restore::repository::{FetchedDump, cold, fetch, lease, newest};
use crate::postgres::dump_restore::source::{DumpSource, open};
use crate::postgres::dump_restore::validate::{Wanted, read_file};
use crate::postgres::protection::Lease;
use crate::postgres::restore::{refuse_cold, thaw};
use crate::repo::cold::ThawProgress;

/// The dump that is meant, on disk, and what its manifest says.
pub struct FoundDump {
    pub name: String,
    pub source: DumpSource,
    /// A digest was compared.
    pub is_proven: bool,
    pub kept: Option<KeptDump>,
}

impl FoundDump {
    /// Works with it, and keeps it from deletion meanwhile.
    pub async fn held<T>(
        self,
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let lease = self.kept.as_ref().and_then(|kept| kept.lease.as_ref());
        let done = match lease {
            Some(lease) => lease.while_held(work(&self)).await,
            None => work(&self).await,
        };
        if let Some(lease) = self.kept.and_then(|kept| kept.lease) {
            lease.release().await;
        }
        done
    }

    pub fn wanted<'a>(
        &'a self,
        database: &'a str,
        options: &'a RestoreOptions,
        is_remote: bool,
    ) -> Wanted<'a> {
        let manifest = self.kept.as_ref().map(|kept| &kept.manifest);
        Wanted {
            source: &self.source,
            facts: manifest.map(|manifest| &manifest.database),
            database,
            options,
            is_remote,
            is_partial: manifest.is_some_and(|manifest| manifest.options.is_partial()),
        }
    }
}

/// A dump of the repository.
pub struct KeptDump {
    pub cluster: Cluster,
    pub manifest: DumpManifest,
    lease: Option<Lease>,
    _fetched: FetchedDump,
}

/// A dump by its name in the repository or its path, else the newest of a database.
pub async fn dump_of(
    context: &Context,
    named: Option<&str>,
    database: &str,
) -> anyhow::Result<FoundDump> {
    if let Some(path) = named.map(Path::new).filter(|path| path.exists()) {
        return on_disk(path).await;
    }
    let cluster = context.cluster().await?;
    let manifest = match named {
        Some(id) => with_manifest(&cluster, id).await?.1,
        None => newest(&cluster, database, None, false).await?,
    };
    kept(context, cluster, manifest, false).await
}

/// A dump at a path.
pub async fn on_disk(path: &Path) -> anyhow::Result<FoundDump> {
    let (source, sums) = read_file(path).await?;
    Ok(FoundDump {
        name: source.path.display().to_string(),
        source,
        is_proven: sums.is_some(),
        kept: None,
    })
}

/// A dump of the repository.
pub async fn kept(
    context: &Context,
    cluster: Cluster,
    manifest: DumpManifest,
    may_thaw: bool,
) -> anyhow::Result<FoundDump> {
    let lease = lease(&cluster, &manifest.id).await?;
    let reading = async {
        readable(context, &cluster, &manifest, may_thaw).await?;
        fetched(context, &cluster, &manifest).await
    };
    let read = match &lease {
        Some(lease) => lease.while_held(reading).await,
        None => reading.await,
    };
    let (source, _fetched) = match read {
        Ok(read) => read,
        Err(error) => {
            if let Some(lease) = lease {
                lease.release().await;
            }
            return Err(error);
        }
    };
    Ok(FoundDump {
        name: manifest.id.to_string(),
        source,
        is_proven: true,
        kept: Some(KeptDump {
            cluster,
            manifest,
            lease,
            _fetched,
        }),
    })
}

/// Has what must be thawed thawed, or refuses it.
async fn readable(
    context: &Context,
    cluster: &Cluster,
    manifest: &DumpManifest,
    may_thaw: bool,
) -> anyhow::Result<()> {
    let settings = &context.settings;
    if settings.repository.url.folder().is_some() {
        return Ok(());
    }
    let cold = cold(cluster, manifest).await?;
    if cold.is_empty() || !may_thaw {
        return refuse_cold(&format!("dump \"{}\"", manifest.id), &cold);
    }
    tracing::info!("{cold}");
    let (total, progress) = (cold.bytes(), ThawProgress::default());
    let thawing = thaw(cluster, &cold, &settings.restore, &progress);
    show(thawing, "thawed", || thaw_step(&progress, total)).await
}

/// Reads all of a dump, and looks into it.
async fn fetched(
    context: &Context,
    cluster: &Cluster,
    manifest: &DumpManifest,
) -> anyhow::Result<(DumpSource, FetchedDump)> {
    let settings = &context.settings;
    let folder = settings.repository.url.folder();
    let fetched = fetch(cluster, manifest, folder, settings.dump.spool.as_deref()).await?;
    let path = fetched.path.clone();
    let source = tokio::task::spawn_blocking(move || open(&path)).await??;
    Ok((source, fetched))
}
