//! Where the state is kept: numbered objects, each created only once. The highest number is the state; who creates the next
//! one has decided it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};

use super::state::{AlertState, FORMAT};
use crate::error::{Hint, one_line, with_hint};
use crate::storage::{Key, ListEntry, PutMode, PutOutcome, Storage, get_all, list_all};

/// Bytes of a state at most.
const LONGEST: u64 = 16 << 20;
/// How often the highest object is asked for again when it went meanwhile.
const LOOKS: usize = 10;
/// Old objects that are removed at a time.
const REMOVED: usize = 100;

/// A cluster's alerts.
#[derive(Debug, Clone)]
pub struct AlertStore {
    storage: Arc<dyn Storage>,
    /// Ends with `/`.
    folder: String,
    /// Old objects may not be deleted.
    keeps_all: Arc<AtomicBool>,
}

impl AlertStore {
    /// `folder` ends with `/`.
    pub fn new(storage: Arc<dyn Storage>, folder: String) -> Self {
        Self {
            storage,
            folder,
            keeps_all: Arc::default(),
        }
    }

    /// The state and its number; 0: there is none yet. Errors: it cannot be read, or a newer Walden wrote it.
    pub async fn latest(&self) -> anyhow::Result<(u64, AlertState)> {
        Ok(self.other_than(None).await?.unwrap_or_default())
    }

    /// The same; `None`: its number is `known`, so it is what was read then.
    pub async fn other_than(
        &self,
        known: Option<u64>,
    ) -> anyhow::Result<Option<(u64, AlertState)>> {
        for _ in 0..LOOKS {
            let number = self.numbers().await?.pop().unwrap_or_default();
            if known == Some(number) {
                return Ok(None);
            }
            if number == 0 {
                return Ok(Some((0, AlertState::default())));
            }
            let key = self.key(number);
            // It may have been the highest, and be removed by now.
            if let Some(bytes) = get_all(&*self.storage, &key, LONGEST).await? {
                return Ok(Some((number, parse(&key, &bytes)?)));
            }
        }
        Err(anyhow!(
            "the state of the alerts changes too fast to be read"
        ))
    }

    /// Stores the state that follows another. `false`: somebody else was first.
    pub async fn put(&self, number: u64, state: &AlertState) -> anyhow::Result<bool> {
        let (key, body) = (self.key(number), serde_json::to_vec_pretty(state)?);
        let put = self.storage.put(&key, body.into(), PutMode::CreateOnly);
        if put.await? == PutOutcome::AlreadyExists {
            return Ok(false);
        }
        let all = self.numbers().await?;
        if all.last().is_some_and(|last| *last > number) {
            // What was read is long past: the number was free because it had been removed.
            self.remove(number).await;
            return Ok(false);
        }
        // The one before stays, for who is just reading it.
        for old in all.iter().filter(|old| **old + 1 < number).take(REMOVED) {
            if !self.remove(*old).await {
                break;
            }
        }
        Ok(true)
    }

    /// What stays does no harm: the next one removes it. Who may delete nothing does not try again.
    async fn remove(&self, number: u64) -> bool {
        if self.keeps_all.load(Ordering::Relaxed) {
            return false;
        }
        let Err(error) = self.storage.delete(&self.key(number)).await else {
            return true;
        };
        if error.lasting && !self.keeps_all.swap(true, Ordering::Relaxed) {
            let folder = self.subfolder();
            tracing::warn!(
                "alerts: old states below \"{folder}\" stay, as they cannot be deleted: {}",
                one_line(&error.into())
            );
        } else {
            tracing::debug!("{error}: {:#}", error.source);
        }
        false
    }

    async fn numbers(&self) -> anyhow::Result<Vec<u64>> {
        let entries = list_all(&*self.storage, &self.subfolder()).await?;
        let number = |entry: &ListEntry| match entry {
            ListEntry::Object(meta) => self.parse_key(&meta.key),
            ListEntry::Folder(_) => None,
        };
        let mut numbers: Vec<u64> = entries.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn subfolder(&self) -> String {
        format!("{}state/", self.folder)
    }

    fn key(&self, number: u64) -> Key {
        Key::new(format!("{}{number:016x}.json", self.subfolder()))
            .expect("numbers and names of clusters make keys")
    }

    fn parse_key(&self, key: &Key) -> Option<u64> {
        let digits = key.file_name().strip_suffix(".json")?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (self.key(number) == *key).then_some(number)
    }
}

fn parse(key: &Key, bytes: &[u8]) -> anyhow::Result<AlertState> {
    #[derive(serde::Deserialize)]
    struct Form {
        format: u32,
    }
    // What a newer form has instead of what this one needs is not known.
    if let Ok(Form { format }) = serde_json::from_slice(bytes)
        && format > FORMAT
    {
        let error = anyhow!("a newer Walden wrote \"{key}\"");
        return Err(with_hint(error, "upgrade this host"));
    }
    serde_json::from_slice(bytes)
        .with_context(|| format!("\"{key}\" cannot be read as the state of the alerts"))
        .hint("remove that object: what fires is then told once more")
}

#[cfg(test)]
mod tests {

    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;

    use super::*;
    use crate::error::hints;
    use crate::storage::decorator::Decorator;
    use crate::storage::{MemoryStorage, StorageError};

    fn store() -> AlertStore {
        AlertStore::new(Arc::new(MemoryStorage::default()), "main/alerts/".into())
    }

    #[tokio::test]
    async fn of_two_that_decide_at_once_one_is_first() {
        let store = store();
        assert_eq!(store.latest().await.unwrap(), (0, AlertState::default()));
        for number in 1..5 {
            assert!(store.put(number, &AlertState::default()).await.unwrap());
            assert!(!store.put(number, &AlertState::default()).await.unwrap());
        }
        assert_eq!(store.latest().await.unwrap().0, 4);
        assert_eq!(store.other_than(Some(4)).await.unwrap(), None);
        let newer = store.other_than(Some(3)).await.unwrap();
        assert_eq!(newer.map(|(number, _)| number), Some(4));
        assert_eq!(store.numbers().await.unwrap(), [3, 4]);
        // One that slept since: its number is free again.
        assert!(!store.put(2, &AlertState::default()).await.unwrap());
        assert_eq!(store.numbers().await.unwrap(), [3, 4]);
    }

    /// Takes everything and deletes nothing.
    #[derive(Debug, Default)]
    struct Undeletable {
        inner: MemoryStorage,
        deletes: AtomicUsize,
    }

    #[async_trait]
    impl Decorator for Undeletable {
        fn inner(&self) -> &dyn Storage {
            &self.inner
        }

        async fn delete(&self, key: &Key) -> Result<(), StorageError> {
            self.deletes.fetch_add(1, Ordering::Relaxed);
            Err(StorageError {
                operation: "delete",
                key: key.to_string(),
                store: self.describe(),
                lasting: true,
                source: anyhow!("access denied"),
            })
        }
    }

    #[tokio::test]
    async fn who_may_delete_nothing_tries_it_once() {
        let storage = Arc::new(Undeletable::default());
        let store = AlertStore::new(storage.clone(), "main/alerts/".into());
        for number in 1..10 {
            assert!(store.put(number, &AlertState::default()).await.unwrap());
        }
        assert_eq!(store.latest().await.unwrap().0, 9);
        assert_eq!(storage.deletes.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_newer_state_and_a_damaged_one_are_told_apart() {
        let store = store();
        for (text, said, hint) in [
            (
                "{\"format\": 2, \"alerts\": 1}",
                "a newer Walden",
                "upgrade",
            ),
            ("{\"format\": 1, \"alerts\": 1}", "cannot be read", "remove"),
        ] {
            let key = store.key(1);
            let put = store.storage.put(&key, text.into(), PutMode::Overwrite);
            assert_eq!(put.await.unwrap(), PutOutcome::Stored);
            let error = store.latest().await.unwrap_err();
            assert!(one_line(&error).contains(said), "{error:#}");
            assert!(hints(&error)[0].starts_with(hint));
        }
    }
}
