use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Repository, is_damage, reread};
use crate::error::Hint;
use crate::storage::{FEW_LINES, Key, PutMode, PutOutcome, Storage, get_all, list_all};

/// The marker's key, at the repository's root.
const MARKER_KEY: &str = "walden.json";
/// The format this version reads and writes.
const FORMAT: u32 = 1;
/// Beside the marker, which is never written again: one object for each thing that was added to the format since and that
/// a Walden must know to work with the repository.
const CAPABILITIES: &str = "walden.capabilities/";
/// Those that this version knows; none was needed yet.
const KNOWN: &[&str] = &[];

/// `walden.json`: says that a folder or bucket prefix is a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version of the whole repository's format.
    pub format: u32,
    /// Random, told apart from other repositories by it.
    pub id: String,
    pub created: DateTime<Utc>,
}

/// Why a store is not a repository that can be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    #[error("\"{0}\" is not a Walden repository: it has no {MARKER_KEY}")]
    NotARepository(String),
    #[error(
        "repository \"{store}\" has format version {found}, this Walden knows version {FORMAT}"
    )]
    Newer { store: String, found: u32 },
    #[error(
        "repository \"{store}\" holds what needs the capability \"{capability}\", which this Walden does not know"
    )]
    NewerCapability { store: String, capability: String },
    #[error("{MARKER_KEY} of repository \"{store}\" cannot be read: {why}")]
    Unreadable { store: String, why: String },
}

impl Repository {
    /// Opens a repository after reading its marker and what it needs. Errors: [`MarkerError`], or the store's.
    pub async fn open(storage: Arc<dyn Storage>) -> anyhow::Result<Self> {
        let opened = Self::reopen(storage).await?;
        let unknown = opened
            .required()
            .await?
            .into_iter()
            .find(|name| !KNOWN.contains(&name.as_str()));
        match unknown {
            Some(capability) => Err(MarkerError::NewerCapability {
                store: opened.describe(),
                capability,
            })
            .hint("a newer Walden uses this repository: upgrade Walden on this host"),
            None => Ok(opened),
        }
    }

    /// What was opened before, after reading its marker once more. Errors: as of [`Self::open`].
    pub async fn reopen(storage: Arc<dyn Storage>) -> anyhow::Result<Self> {
        match reread(is_damage, || read_marker(&*storage)).await? {
            Some(marker) => Ok(Self { storage, marker }),
            None => Err(MarkerError::NotARepository(storage.describe()))
                .hint("is its disk mounted, and `repository.url` right? For a new repository run `walden init`"),
        }
    }

    /// Whether a store is one. Errors: the store's, or a marker that cannot be read.
    pub async fn is_there(storage: &dyn Storage) -> anyhow::Result<bool> {
        Ok(reread(is_damage, || read_marker(storage)).await?.is_some())
    }

    /// Opens a repository, making it first where there is none. Says whether it was made.
    pub async fn init(
        storage: Arc<dyn Storage>,
        now: DateTime<Utc>,
    ) -> anyhow::Result<(Self, bool)> {
        if reread(is_damage, || read_marker(&*storage))
            .await?
            .is_some()
        {
            return Ok((Self::open(storage).await?, false));
        }
        let mut random = [0u8; 16];
        getrandom::fill(&mut random)?;
        let id = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let marker = Marker {
            format: FORMAT,
            id,
            created: now,
        };
        let json = serde_json::to_vec_pretty(&marker)?;
        let outcome = storage
            .put(&marker_key(), json.into(), PutMode::CreateOnly)
            .await;
        let hint = "check that the folder can be written by the user who runs Walden";
        match outcome.hint(hint)? {
            PutOutcome::Stored => Ok((Self { storage, marker }, true)),
            // Another init was faster; its marker counts.
            PutOutcome::AlreadyExists => Ok((Self::open(storage).await?, false)),
        }
    }
}

impl Repository {
    /// Says for good that the repository holds what only a Walden with this capability can work with; older ones refuse it
    /// from now on. Before anything of that kind is stored.
    pub async fn require(&self, capability: &str) -> anyhow::Result<()> {
        let key = Key::new(format!("{CAPABILITIES}{capability}"))?;
        // One that is there already says the same.
        let put = self
            .storage
            .put(&key, "{}".into(), PutMode::CreateOnly)
            .await;
        put.map(drop)
            .hint("check that the user who runs Walden may write to the repository")
    }

    /// The capabilities that working with the repository needs. Errors: the store did not answer.
    pub async fn required(&self) -> anyhow::Result<Vec<String>> {
        let hint = "is the repository reachable, and may the user who runs Walden list it?";
        let entries = list_all(&*self.storage, CAPABILITIES).await.hint(hint)?;
        Ok(entries
            .iter()
            .filter_map(|entry| entry.name().strip_prefix(CAPABILITIES))
            .map(str::to_string)
            .collect())
    }
}

fn marker_key() -> Key {
    Key::new(MARKER_KEY).expect("the marker's key is valid")
}

async fn read_marker(storage: &dyn Storage) -> anyhow::Result<Option<Marker>> {
    let hint = "is the repository reachable, and may the user who runs Walden read it?";
    let Some(bytes) = get_all(storage, &marker_key(), FEW_LINES)
        .await
        .hint(hint)?
    else {
        return Ok(None);
    };
    let unreadable = |error: serde_json::Error| MarkerError::Unreadable {
        store: storage.describe(),
        why: error.to_string(),
    };
    let hint =
        "restore walden.json from a copy of the repository, or point Walden at the right folder";
    let value: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(unreadable)
        .hint(hint)?;
    match value["format"].as_u64() {
        Some(found) if found > u64::from(FORMAT) => Err(MarkerError::Newer {
            store: storage.describe(),
            found: u32::try_from(found).unwrap_or(u32::MAX),
        })
        .hint("a newer Walden made it: upgrade Walden on this host"),
        _ => Ok(Some(
            serde_json::from_value(value)
                .map_err(unreadable)
                .hint(hint)?,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{find, hints};
    use crate::storage::MemoryStorage;

    async fn with_marker(content: &'static str) -> anyhow::Error {
        let storage = Arc::new(MemoryStorage::default());
        let outcome = storage
            .put(&marker_key(), content.into(), PutMode::Overwrite)
            .await
            .unwrap();
        assert_eq!(outcome, PutOutcome::Stored);
        Repository::open(storage).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_store_without_a_marker_is_not_a_repository() {
        let error = Repository::open(Arc::new(MemoryStorage::default()))
            .await
            .unwrap_err();
        assert!(matches!(find(&error), Some(MarkerError::NotARepository(_))));
        assert!(hints(&error)[0].contains("walden init"));
    }

    #[tokio::test]
    async fn making_a_repository_twice_keeps_the_first() {
        let storage = Arc::new(MemoryStorage::default());
        assert!(!Repository::is_there(&*storage).await.unwrap());
        let (first, made) = Repository::init(storage.clone(), DateTime::UNIX_EPOCH)
            .await
            .unwrap();
        assert!(made && Repository::is_there(&*storage).await.unwrap());
        let (second, made) = Repository::init(storage, DateTime::UNIX_EPOCH)
            .await
            .unwrap();
        assert!(!made);
        assert_eq!(first.marker().id, second.marker().id);
    }

    #[tokio::test]
    async fn newer_and_unreadable_markers_are_told_apart() {
        let newer = with_marker(r#"{"format": 2, "shape": "unknown"}"#).await;
        assert!(matches!(
            find(&newer),
            Some(MarkerError::Newer { found: 2, .. })
        ));
        let broken = with_marker("not json").await;
        assert!(matches!(
            find(&broken),
            Some(MarkerError::Unreadable { .. })
        ));
    }

    #[tokio::test]
    async fn what_an_existing_repository_needs_since_is_told_to_older_versions() {
        let storage = Arc::new(MemoryStorage::default());
        let (newer, _) = Repository::init(storage.clone(), DateTime::UNIX_EPOCH)
            .await
            .unwrap();
        for _ in 0..2 {
            newer.require("keys").await.unwrap();
        }
        assert_eq!(newer.required().await.unwrap(), ["keys"]);
        for older in [
            Repository::open(storage.clone()).await.unwrap_err(),
            Repository::init(storage, DateTime::UNIX_EPOCH)
                .await
                .unwrap_err(),
        ] {
            assert!(
                matches!(find(&older), Some(MarkerError::NewerCapability { capability, .. }) if capability == "keys")
            );
            assert!(hints(&older)[0].contains("upgrade Walden on this host"));
        }
    }
}
