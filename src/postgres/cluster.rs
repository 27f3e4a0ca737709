//! An open cluster: the repository, the cluster's keys in it, and the identity that everything stored must carry.

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};

use crate::error::{Hint, find, with_hint};
use crate::evidence::Journal;
use crate::postgres::catalog::{ClusterDescription, MajorSince};
use crate::postgres::layout::{BackupId, ClusterName, Layout, ObjectKind};
use crate::postgres::types::WalFileName;
use crate::repo::{MarkerError, Repository, is_damage, reread};
use crate::storage::{
    FEW_LINES, Key, ListEntry, ObjectMeta, PutMode, PutOutcome, StorageError, get_all, list_all,
};

/// A registered cluster in a repository.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub repository: Repository,
    pub layout: Layout,
    pub description: ClusterDescription,
}

/// The repository's cluster and the server differ in identity.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} of cluster \"{name}\" in repository \"{store}\" is \"{kept}\", the server's is \"{found}\""
)]
pub struct WrongCluster {
    /// `system identifier` or `WAL segment size`.
    pub what: &'static str,
    pub name: String,
    pub store: String,
    pub kept: String,
    pub found: String,
}

/// The repository has no cluster of this name.
#[derive(Debug, thiserror::Error)]
#[error("cluster \"{name}\" is not registered in repository \"{store}\"")]
pub struct NotRegistered {
    pub name: String,
    pub store: String,
}

impl Cluster {
    /// Opens a registered cluster. Errors: [`NotRegistered`], or the store's.
    pub async fn open(repository: Repository, name: ClusterName) -> anyhow::Result<Self> {
        let layout = Layout::new(name);
        match reread(is_damage, || read_description(&repository, &layout)).await? {
            Some(description) => Ok(Self {
                repository,
                layout,
                description,
            }),
            None => {
                let (name, store) = (layout.cluster().to_string(), repository.describe());
                Err(NotRegistered { name, store })
                    .hint("check the cluster's name (`cluster.name`), or register the server with `walden init`")
            }
        }
    }

    /// Makes sure that what answers is still this cluster's repository: the empty folder below an unmounted disk has
    /// nothing either. Errors: it is not, or the store's.
    pub async fn confirm(&self) -> anyhow::Result<()> {
        reread(
            |error| is_damage(error) && !is_absence(error),
            || self.confirm_once(),
        )
        .await
    }

    async fn confirm_once(&self) -> anyhow::Result<()> {
        let repository = Repository::reopen(self.repository.shared_storage()).await?;
        let kept = self.repository.marker();
        let again = Self::open(repository, self.layout.cluster().clone()).await?;
        if again.repository.marker().id != kept.id
            || again.description.system_identifier != self.description.system_identifier
        {
            let error = anyhow!(
                "{} is another repository than before",
                self.repository.describe()
            );
            return Err(with_hint(
                error,
                "restart `walden serve`, and check what is mounted there",
            ));
        }
        Ok(())
    }

    /// Registers what the server says of itself, or checks it against what was registered before; says whether it was
    /// new. Errors: [`WrongCluster`], or the store's.
    pub async fn register(
        repository: Repository,
        found: ClusterDescription,
    ) -> anyhow::Result<(Self, bool)> {
        let layout = Layout::new(found.name.clone());
        let put = async |description: &ClusterDescription, mode| {
            let json = serde_json::to_vec_pretty(description)?;
            let outcome = repository
                .storage()
                .put(&layout.cluster_json(), json.into(), mode)
                .await;
            outcome.hint("check that the user who runs Walden may write to the repository")
        };
        let read = || reread(is_damage, || read_description(&repository, &layout));
        if read().await?.is_none() && put(&found, PutMode::CreateOnly).await? == PutOutcome::Stored
        {
            return Ok((
                Self {
                    repository,
                    layout,
                    description: found,
                },
                true,
            ));
        }
        let kept = read()
            .await?
            .context("cluster.json vanished while it was read")?;
        let mut cluster = Self {
            repository: repository.clone(),
            layout: layout.clone(),
            description: kept,
        };
        cluster.check_identity(&found)?;
        let versions = &mut cluster.description.versions;
        let new: Vec<MajorSince> = found
            .versions
            .iter()
            .filter(|v| !versions.iter().any(|known| known.major == v.major))
            .cloned()
            .collect();
        if !new.is_empty() {
            versions.extend(new);
            let _ = put(&cluster.description, PutMode::Overwrite).await?;
        }
        Ok((cluster, false))
    }

    /// The other clusters of the repository that have this one's system identifier. One whose description is damaged is
    /// left out: its own verbs tell it. Errors: the store's.
    pub async fn same_system(&self) -> anyhow::Result<Vec<ClusterName>> {
        let entries = list_all(self.repository.storage(), "").await?;
        let mut names: Vec<ClusterName> = entries
            .iter()
            .filter_map(|entry| entry.name().strip_suffix('/')?.parse().ok())
            .collect();
        names.retain(|name| name != self.layout.cluster());
        let mut found = Vec::new();
        for name in names {
            let other = read_description(&self.repository, &Layout::new(name)).await;
            match other {
                Ok(Some(other))
                    if other.system_identifier == self.description.system_identifier =>
                {
                    found.push(other.name)
                }
                Ok(_) => (),
                Err(error) if find::<StorageError>(&error).is_some() => return Err(error),
                Err(_) => (),
            }
        }
        Ok(found)
    }

    /// Where the records are of what was done to it.
    pub fn journal(&self) -> Journal {
        Journal {
            storage: self.repository.shared_storage(),
            folder: self.layout.evidence_folder(),
            repository: self.repository.marker().id.clone(),
        }
    }

    /// All objects of one backup. What else lies in its folder is foreign.
    pub async fn objects_of(&self, id: &BackupId) -> Result<Vec<ObjectMeta>, StorageError> {
        let entries = list_all(self.repository.storage(), &self.layout.backup_folder(id)).await?;
        let object = |entry| match entry {
            ListEntry::Object(meta) => self.layout.parse(&meta.key).is_some().then_some(meta),
            ListEntry::Folder(_) => None,
        };
        Ok(entries.into_iter().filter_map(object).collect())
    }

    /// The WAL file of an object below the WAL folder; `None` for an object that is no WAL file of this cluster.
    pub fn wal_file(&self, key: &Key) -> Option<WalFileName> {
        let fits = |name: &WalFileName| match name {
            WalFileName::Segment(segment) => segment.fits(self.description.segment_size),
            _ => true,
        };
        self.layout.parse_wal(key).filter(fits)
    }

    /// What an object of this cluster is; `None` for a key that the layout does not know.
    pub fn object_kind(&self, key: &Key) -> Option<ObjectKind> {
        match self.layout.parse(key) {
            Some(ObjectKind::Wal(_)) => self.wal_file(key).map(ObjectKind::Wal),
            other => other,
        }
    }

    /// Refuses a server that is another cluster than the repository's.
    pub fn check_identity(&self, found: &ClusterDescription) -> anyhow::Result<()> {
        let kept = &self.description;
        let wrong = |what, kept: String, found: String| {
            let (name, store) = (
                self.layout.cluster().to_string(),
                self.repository.describe(),
            );
            let hint = "set another `cluster.name` and run `walden init` (after initdb or pg_upgrade a server is \
                 another cluster)";
            Err(WrongCluster {
                what,
                name,
                store,
                kept,
                found,
            })
            .hint(hint)
        };
        if kept.system_identifier != found.system_identifier {
            return wrong(
                "system identifier",
                kept.system_identifier.to_string(),
                found.system_identifier.to_string(),
            );
        }
        if kept.segment_size != found.segment_size {
            let bytes = |d: &ClusterDescription| format!("{} bytes", d.segment_size.bytes());
            return wrong("WAL segment size", bytes(kept), bytes(found));
        }
        Ok(())
    }
}

/// Whether there is no such repository or cluster.
fn is_absence(error: &anyhow::Error) -> bool {
    matches!(find(error), Some(MarkerError::NotARepository(_)))
        || find::<NotRegistered>(error).is_some()
}

/// The description of one server now, as [`Cluster::register`] takes it.
pub fn describe_server(
    name: ClusterName,
    system_identifier: crate::postgres::types::SystemIdentifier,
    segment_size: crate::postgres::types::SegmentSize,
    major: crate::postgres::types::MajorVersion,
    now: DateTime<Utc>,
) -> ClusterDescription {
    ClusterDescription {
        name,
        system_identifier,
        segment_size,
        versions: vec![MajorSince { major, since: now }],
    }
}

async fn read_description(
    repository: &Repository,
    layout: &Layout,
) -> anyhow::Result<Option<ClusterDescription>> {
    let key = layout.cluster_json();
    let Some(bytes) = get_all(repository.storage(), &key, FEW_LINES).await? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&bytes);
    let unreadable = || {
        format!(
            "object \"{key}\" of repository \"{}\" cannot be understood",
            repository.describe()
        )
    };
    let hint = "restore cluster.json from a copy of the repository";
    let description: ClusterDescription = parsed.with_context(unreadable).hint(hint)?;
    if description.name != *layout.cluster() {
        let error = anyhow!(
            "object \"{key}\" describes cluster \"{}\"",
            description.name
        );
        return Err(with_hint(
            error,
            "the cluster's folder was renamed or copied: give it back its name",
        ));
    }
    Ok(Some(description))
}

/// Clusters in new repositories, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use chrono::DateTime;

    use super::{Cluster, ClusterDescription};
    use crate::codec::seal;
    use crate::postgres::catalog::testing;
    use crate::repo::Repository;
    use crate::storage::{Key, PutMode, PutOutcome, Storage};

    /// The cluster of the catalog's facts for tests.
    pub async fn cluster_in(storage: Arc<dyn Storage>) -> Cluster {
        registered(storage, testing::cluster_description()).await
    }

    /// A cluster that is described so.
    pub async fn registered(storage: Arc<dyn Storage>, description: ClusterDescription) -> Cluster {
        let repository = Repository::init(storage, DateTime::UNIX_EPOCH).await;
        let cluster = Cluster::register(repository.unwrap().0, description).await;
        cluster.unwrap().0
    }

    /// Stores an object that was not there.
    pub async fn put(cluster: &Cluster, key: &Key, bytes: Vec<u8>) {
        let storage = cluster.repository.storage();
        let outcome = storage.put(key, bytes.into(), PutMode::CreateOnly).await;
        assert_eq!(outcome.unwrap(), PutOutcome::Stored);
    }

    /// An object with a header.
    pub fn sealed(kind: &str, about: &impl serde::Serialize, content: &str) -> Vec<u8> {
        let (mut bytes, size) = (content.as_bytes(), content.len() as u64);
        let sealed = seal(kind, about, &mut bytes, size, 1).unwrap();
        [sealed.envelope, sealed.body].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{find, hints};
    use crate::postgres::types::{MajorVersion, SegmentSize, SystemIdentifier};
    use crate::storage::MemoryStorage;

    fn server(system_identifier: u64, segment: u32, major: u32) -> ClusterDescription {
        describe_server(
            "main".parse().unwrap(),
            SystemIdentifier(system_identifier),
            SegmentSize::new(segment).unwrap(),
            MajorVersion::new(major).unwrap(),
            DateTime::UNIX_EPOCH,
        )
    }

    async fn repository() -> Repository {
        Repository::init(Arc::new(MemoryStorage::default()), DateTime::UNIX_EPOCH)
            .await
            .unwrap()
            .0
    }

    #[tokio::test]
    async fn a_server_registers_once_and_is_recognised_again() {
        let repository = repository().await;
        assert!(
            Cluster::register(repository.clone(), server(7, 1 << 24, 15))
                .await
                .unwrap()
                .1
        );
        let (again, new) = Cluster::register(repository.clone(), server(7, 1 << 24, 16))
            .await
            .unwrap();
        assert!(!new && again.description.versions.len() == 2);
        let opened = Cluster::open(repository, "main".parse().unwrap())
            .await
            .unwrap();
        assert_eq!(opened.description, again.description);
    }

    #[tokio::test]
    async fn a_copy_of_a_cluster_is_known_by_its_system_identifier() {
        let repository = repository().await;
        let register = async |name: &str, system| {
            let found = ClusterDescription {
                name: name.parse().unwrap(),
                ..server(system, 1 << 24, 15)
            };
            Cluster::register(repository.clone(), found)
                .await
                .unwrap()
                .0
        };
        let main = register("main", 7).await;
        let _ = register("stranger", 8).await;
        assert!(main.same_system().await.unwrap().is_empty());
        let copy = register("copy", 7).await;
        let _ = repository
            .storage()
            .put(
                &Key::new("x/cluster.json").unwrap(),
                "{".into(),
                PutMode::Overwrite,
            )
            .await;
        assert_eq!(copy.same_system().await.unwrap(), ["main".parse().unwrap()]);
    }

    #[tokio::test]
    async fn another_cluster_under_the_same_name_is_refused() {
        let repository = repository().await;
        let _ = Cluster::register(repository.clone(), server(7, 1 << 24, 15))
            .await
            .unwrap();
        for other in [server(8, 1 << 24, 15), server(7, 1 << 20, 15)] {
            let error = Cluster::register(repository.clone(), other)
                .await
                .unwrap_err();
            assert!(find::<WrongCluster>(&error).is_some(), "{error:#}");
        }
    }

    #[tokio::test]
    async fn a_damaged_description_is_told_with_its_store_and_what_to_do() {
        let repository = repository().await;
        let key = Key::new("main/cluster.json").unwrap();
        let _ = repository
            .storage()
            .put(&key, "{".into(), PutMode::Overwrite)
            .await
            .unwrap();
        let error = Cluster::open(repository.clone(), "main".parse().unwrap())
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains(&repository.describe()),
            "{error:#}"
        );
        assert_eq!(
            hints(&error),
            ["restore cluster.json from a copy of the repository"]
        );
    }

    #[tokio::test]
    async fn an_unregistered_cluster_is_told() {
        let error = Cluster::open(repository().await, "other".parse().unwrap())
            .await
            .unwrap_err();
        assert!(find::<NotRegistered>(&error).is_some());
    }
}
