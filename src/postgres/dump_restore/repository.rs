//! Dumps of the repository: which one is meant, its bytes on disk with their digests proven.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::files::{new_file, spool_for};
use crate::error::{Hint, one_line};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::{ListedDump, list, read_all};
use crate::postgres::dump::manifest::{self, DumpManifest};
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::read_back::{Nowhere, Sink, key_of, read};
use crate::postgres::dump::spool::Spool;
use crate::postgres::layout::{DumpFormat, DumpId, DumpKind};
use crate::postgres::protection::{Lease, LeaseContent, LeaseKind, Needs, register};
use crate::repo::cold::{ColdObjects, survey};

/// How long a restore that was killed keeps its dump from deletion.
const LEASE: Duration = Duration::from_secs(3600);

/// The dump does not have the bytes that its manifest says.
#[derive(Debug, thiserror::Error)]
#[error("dump \"{id}\" is damaged: \"{path}\": {why}")]
pub struct DamagedDump {
    id: DumpId,
    path: String,
    why: String,
}

/// The manifest of the newest complete dump of all of a database, or of the newest that shows it as it was at a moment or
/// before. `schema_only`: one without rows will do, too. Errors: there is none, or the newest one cannot be read: an older one
/// is not taken in its place.
pub async fn newest(
    cluster: &Cluster,
    database: &str,
    until: Option<DateTime<Utc>>,
    schema_only: bool,
) -> anyhow::Result<DumpManifest> {
    let mut candidates = list(cluster, Some(database)).await?.complete;
    candidates.retain(|dump| is_candidate(dump, schema_only));
    candidates.sort_by_key(|dump| (dump.id.time(), dump.id.clone()));
    let found = match until {
        None => last(cluster, &candidates).await?,
        Some(until) => last_until(cluster, candidates, until).await?,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    let when = until.map_or(String::new(), |time| {
        format!(
            " of {} or before",
            crate::postgres::catalog::marks::shown(time)
        )
    });
    Err(anyhow!(
        "there is no complete dump of all of database \"{database}\"{when}"
    ))
    .hint(
        "`walden dump list` shows what there is; name one by its ID, or its database by --database",
    )
}

fn is_candidate(dump: &ListedDump, schema_only: bool) -> bool {
    let kind = dump.id.kind();
    let is_of_kind = kind == DumpKind::Full || (schema_only && kind == DumpKind::Schema);
    is_of_kind && !dump.id.name().is_partial()
}

/// The one that began last. `candidates`: in that order.
async fn last(
    cluster: &Cluster,
    candidates: &[ListedDump],
) -> anyhow::Result<Option<DumpManifest>> {
    for dump in candidates.iter().rev() {
        // One that is gone by now was deleted.
        if let Some(manifest) = manifest::read(cluster, &dump.id).await?
            && !manifest.options.is_partial()
        {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// The one with the last snapshot until a moment. Of a drill's server it is older than the dump, of another one hardly: only
/// the manifests tell.
async fn last_until(
    cluster: &Cluster,
    candidates: Vec<ListedDump>,
    until: DateTime<Utc>,
) -> anyhow::Result<Option<DumpManifest>> {
    let (mut found, mut unread) = (None::<DumpManifest>, Vec::new());
    for (dump, read) in read_all(cluster, candidates).await {
        let manifest = match read {
            Ok(Some(manifest)) => manifest,
            Ok(None) => continue,
            Err(error) => {
                unread.push((dump.id.time(), error));
                continue;
            }
        };
        let is_meant = manifest.snapshot.time <= until && !manifest.options.is_partial();
        let is_later = |best: &DumpManifest| best.snapshot.time <= manifest.snapshot.time;
        if is_meant && found.as_ref().is_none_or(is_later) {
            found = Some(manifest);
        }
    }
    let after = found.as_ref().map(|best| best.snapshot.time);
    let mut between = unread.into_iter();
    let may_be_later = |time| time <= until && after.is_none_or(|after| time >= after);
    match between.find(|(time, _)| may_be_later(*time)) {
        Some((_, error)) => Err(error.into()),
        None => Ok(found),
    }
}

/// A dump on disk.
#[derive(Debug)]
pub struct FetchedDump {
    pub path: PathBuf,
    /// What it lies in, if that was made for it.
    _spool: Option<Spool>,
}

/// Reads all of a dump and compares it with its manifest. In a repository that is a folder it stays where it is; else it is
/// copied to disk, since `pg_restore` reads it from several places at once.
pub async fn fetch(
    cluster: &Cluster,
    manifest: &DumpManifest,
    repository: Option<&Path>,
    spool: Option<&Path>,
) -> anyhow::Result<FetchedDump> {
    let copied = match repository {
        Some(_) => None,
        None => Some(spool_for(spool, manifest.size())?),
    };
    let progress = DumpProgress::default();
    for object in &manifest.objects {
        let (id, path) = (
            &manifest.id,
            copied.as_ref().map(|spool| spool.path().join(&object.path)),
        );
        let fault = match path {
            None => read(cluster, id, object, &progress, &mut Nowhere).await?,
            Some(path) => {
                let mut file = FileSink::make(&path)?;
                read(cluster, id, object, &progress, &mut file).await?
            }
        };
        if let Some(why) = fault {
            let (id, path) = (id.clone(), object.path.clone());
            let damaged = DamagedDump { id, path, why };
            return Err(damaged).hint("`walden dump list` shows others; take a new one");
        }
    }
    let path = match (&copied, repository) {
        (None, Some(folder)) => folder.join(content_key(cluster, manifest)?),
        (spool, _) => {
            let folder = spool.as_ref().map(Spool::path).unwrap_or(Path::new(""));
            folder.join(manifest.id.name().file(manifest.format))
        }
    };
    let _spool = copied;
    Ok(FetchedDump { path, _spool })
}

/// What of a dump must be thawed before it can be read. In a store without classes that is nothing, and costs a listing.
pub async fn cold(cluster: &Cluster, manifest: &DumpManifest) -> anyhow::Result<ColdObjects> {
    let listed = list(cluster, Some(manifest.id.database())).await?.complete;
    let own = listed.into_iter().find(|dump| dump.id == manifest.id);
    let objects = own.into_iter().flat_map(|dump| dump.objects);
    let objects = objects.filter(|(object, _)| object.is_content());
    let storage = cluster.repository.storage();
    Ok(survey(storage, objects.map(|(_, meta)| meta)).await?)
}

/// The path of the file or folder with the content, within the repository.
fn content_key(cluster: &Cluster, manifest: &DumpManifest) -> anyhow::Result<String> {
    let first = manifest
        .objects
        .first()
        .context("the manifest names no object")?;
    let key = key_of(cluster, &manifest.id, first)?.to_string();
    match manifest.format {
        DumpFormat::Directory => {
            let folder = key.rsplit_once('/').map(|(folder, _)| folder.to_string());
            folder.context("a key without a folder")
        }
        DumpFormat::Custom | DumpFormat::Plain => Ok(key),
    }
}

/// Writes what comes to a new file.
struct FileSink(File);

impl FileSink {
    fn make(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self(new_file(path)?))
    }
}

impl Sink for FileSink {
    async fn take_in(&mut self, piece: Bytes) -> anyhow::Result<()> {
        let mut file = self.0.try_clone()?;
        let written = tokio::task::spawn_blocking(move || file.write_all(&piece)).await?;
        written
            .context("cannot write the dump to local disk")
            .hint("make room, or name another folder with `dump.spool`")
    }
}

/// Keeps the dump from deletion while it is restored. `None`: the repository does not take that, as with credentials that may
/// only read.
pub async fn lease(cluster: &Cluster, id: &DumpId) -> anyhow::Result<Option<Lease>> {
    let content = LeaseContent::own(LeaseKind::DumpRestore, Needs::dump(&id.to_string()), LEASE);
    match register(cluster, content).await? {
        Ok(lease) => Ok(Some(lease)),
        Err(error) => {
            tracing::info!("{}", one_line(&error.into()));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::dump::testing::{id, store, store_at};
    use crate::postgres::layout::DumpObject;
    use crate::repo::cold::{ThawProgress, ThawWait, thaw};
    use crate::storage::MemoryStorage;
    use crate::storage::classes::{ThawOrder, ThawSpeed};
    use crate::storage::freezing::FreezingStorage;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_newest_until_a_moment_is_told_by_the_snapshots_and_not_by_the_names() {
        let cluster = cluster_in(Arc::<MemoryStorage>::default()).await;
        let at = |time: &str| format!("2026-01-31T{time}Z").parse().unwrap();
        for (began, shows) in [
            ("14:00:00", "14:00:00"),
            ("15:00:00", "13:30:00"),
            ("16:00:00", "14:30:00"),
        ] {
            store_at(&cluster, &id("shop", began, DumpKind::Full), at(shows)).await;
        }
        let chosen = async |until: Option<&str>| {
            let found = newest(&cluster, "shop", until.map(at), false).await;
            found.unwrap().id.time().format("%H:%M").to_string()
        };
        assert_eq!(chosen(None).await, "16:00");
        assert_eq!(chosen(Some("15:30:00")).await, "16:00");
        assert_eq!(chosen(Some("14:10:00")).await, "14:00");
        assert_eq!(chosen(Some("13:50:00")).await, "15:00");
        // One that cannot be read counts only where it may be meant.
        let damaged = id("shop", "14:20:00", DumpKind::Full);
        let key = cluster.layout.dump(&damaged, &DumpObject::Manifest);
        crate::postgres::dump::testing::put(&cluster, &key).await;
        assert_eq!(chosen(Some("14:10:00")).await, "14:00");
        let until = Some(at("14:25:00"));
        assert!(newest(&cluster, "shop", until, false).await.is_err());
        assert_eq!(chosen(Some("14:30:00")).await, "16:00");
    }

    #[tokio::test]
    async fn only_the_content_of_the_dump_itself_is_thawed() {
        let storage = Arc::new(FreezingStorage::new(Arc::<MemoryStorage>::default(), 2));
        let cluster = cluster_in(storage.clone()).await;
        let (own, other) = (
            id("shop", "14:05:00", DumpKind::Full),
            id("shop", "15:05:00", DumpKind::Full),
        );
        let manifest = store(&cluster, &own).await;
        store(&cluster, &other).await;
        assert!(cold(&cluster, &manifest).await.unwrap().is_empty());
        let key = |id: &DumpId, object: DumpObject| cluster.layout.dump(id, &object);
        let content = key(&own, DumpObject::Whole(DumpFormat::Custom));
        for key in [
            content.clone(),
            key(&own, DumpObject::Globals),
            key(&other, DumpObject::Whole(DumpFormat::Custom)),
        ] {
            storage.freeze(&key, "GLACIER");
        }
        let found = cold(&cluster, &manifest).await.unwrap();
        assert_eq!(found.objects, [(content, manifest.size())]);
        let order = ThawOrder {
            days: 1,
            speed: ThawSpeed::Standard,
        };
        let wait = ThawWait {
            most: Duration::from_secs(5),
            pause: Duration::from_millis(1),
        };
        thaw(&*storage, &found, order, wait, &ThawProgress::default())
            .await
            .unwrap();
        assert!(cold(&cluster, &manifest).await.unwrap().is_empty());
        fetch(&cluster, &manifest, None, None).await.unwrap();
    }
}
