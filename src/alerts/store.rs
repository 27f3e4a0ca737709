//! Where the state is kept: numbered objects, each created only once. The highest number is the state; who creates the next
//! one has decided it.

use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::state::{AlertState, FORMAT};
use crate::error::{Hint, with_hint};
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
    pub storage: Arc<dyn Storage>,
    /// Ends with `/`.
    pub folder: String,
}

impl AlertStore {
    /// The state and its number; 0: there is none yet. Errors: it cannot be read, or a newer Walden wrote it.
    pub async fn latest(&self) -> anyhow::Result<(u64, AlertState)> {
        for _ in 0..LOOKS {
            let Some(number) = self.numbers().await?.pop() else {
                return Ok((0, AlertState::default()));
            };
            let key = self.key(number);
            // It may have been the highest, and be removed by now.
            if let Some(bytes) = get_all(&*self.storage, &key, LONGEST).await? {
                return Ok((number, parse(&key, &bytes)?));
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
            self.remove(*old).await;
        }
        Ok(true)
    }

    /// What stays does no harm: the next one removes it.
    async fn remove(&self, number: u64) {
        if let Err(error) = self.storage.delete(&self.key(number)).await {
            tracing::debug!("{error}: {:#}", error.source);
        }
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
    use super::*;
    use crate::error::{hints, one_line};
    use crate::storage::MemoryStorage;

    fn store() -> AlertStore {
        AlertStore {
            storage: Arc::new(MemoryStorage::default()),
            folder: "main/alerts/".into(),
        }
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
        assert_eq!(store.numbers().await.unwrap(), [3, 4]);
        // One that slept since: its number is free again.
        assert!(!store.put(2, &AlertState::default()).await.unwrap());
        assert_eq!(store.numbers().await.unwrap(), [3, 4]);
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
