//! What a store really does, found out by doing it: that it answers "stored" or "taken" proves nothing, since some
//! servers accept a condition and ignore it. Only what can be read afterwards counts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::storage::{
    Key, ListEntry, ObjectMeta, Promise, PutMode, PutOutcome, Storage, StorageError, get_all,
    list_all,
};

/// Bytes of a small probe object.
const SMALL: usize = 1024;
/// Creators of a small object that start at once, and how often.
const CREATORS: u8 = 6;
const ROUNDS: u32 = 3;

/// What became of a small object that was put, read, listed and deleted.
#[derive(Debug)]
pub struct WriteEffect {
    /// The content read is the content put.
    pub read_back: bool,
    /// A listing shows it.
    pub listed: bool,
    /// What the store tells of it.
    pub meta: Option<ObjectMeta>,
    /// Our clock before and after the put.
    pub put_between: (SystemTime, SystemTime),
    /// Whether it is gone after its deletion.
    pub deleted: anyhow::Result<bool>,
    pub key: Key,
}

/// Puts a small object into `folder` (ending with `/`), looks at it in every way and deletes it.
pub async fn write(storage: &dyn Storage, folder: &str) -> anyhow::Result<WriteEffect> {
    let (key, content) = (fresh(folder)?, content(1, SMALL));
    let begun = SystemTime::now();
    let outcome = storage
        .put(&key, content.clone().into(), PutMode::CreateOnly)
        .await?;
    let put_between = (begun, SystemTime::now());
    let looked = async {
        let read_back = outcome == PutOutcome::Stored
            && get_all(storage, &key, SMALL as u64).await? == Some(content);
        let listed = list_all(storage, folder)
            .await?
            .iter()
            .map(ListEntry::name)
            .any(|name| name == key.as_str());
        Ok::<_, StorageError>((read_back, listed, storage.head(&key).await?))
    };
    let looked = looked.await;
    let deleted = match storage.delete(&key).await {
        Ok(()) => storage
            .head(&key)
            .await
            .map(|meta| meta.is_none())
            .map_err(Into::into),
        Err(error) => Err(error.into()),
    };
    let (read_back, listed, meta) = looked?;
    Ok(WriteEffect {
        read_back,
        listed,
        meta,
        put_between,
        deleted,
        key,
    })
}

impl WriteEffect {
    /// How far the store's clock is from ours, and whether it is ahead. `None`: the store told no time. Stores tell
    /// whole seconds.
    pub fn clock_skew(&self) -> Option<(Duration, bool)> {
        let (before, after) = self.put_between;
        let modified = self.meta.as_ref()?.modified;
        Some(match modified.duration_since(after) {
            Ok(ahead) => (ahead, true),
            Err(_) => (before.duration_since(modified).unwrap_or_default(), false),
        })
    }
}

/// What create-only puts did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOnlyEffect {
    /// The answer to the put of other content under a key that was taken.
    pub second: PutOutcome,
    /// Whether the first content was still there after it.
    pub kept: bool,
    pub races: Vec<Race>,
}

/// Creators of one key, started at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    /// How many were told that they stored it.
    pub winners: usize,
    /// Whether the content is that of the last one told so.
    pub kept: bool,
}

impl CreateOnlyEffect {
    /// What this proves, or at least did not disprove.
    pub fn promise(&self) -> Promise {
        if self.second != PutOutcome::AlreadyExists || !self.kept {
            return Promise::None;
        }
        match self.races.iter().all(|race| race.winners == 1 && race.kept) {
            true => Promise::Atomic,
            false => Promise::OneByOne,
        }
    }
}

/// Tries create-only puts of small objects in `folder`.
pub async fn create_only(
    storage: &Arc<dyn Storage>,
    folder: &str,
) -> anyhow::Result<CreateOnlyEffect> {
    try_create_only(storage, folder, SMALL, CREATORS, ROUNDS).await
}

/// The same with objects of `size` bytes, once and with two creators: enough to see whether the store's other way of
/// taking large objects keeps the promise, too.
pub async fn create_only_large(
    storage: &Arc<dyn Storage>,
    folder: &str,
    size: usize,
) -> anyhow::Result<CreateOnlyEffect> {
    try_create_only(storage, folder, size, 2, 1).await
}

async fn try_create_only(
    storage: &Arc<dyn Storage>,
    folder: &str,
    size: usize,
    creators: u8,
    rounds: u32,
) -> anyhow::Result<CreateOnlyEffect> {
    let key = fresh(folder)?;
    let one_by_one = async {
        let _ = storage
            .put(&key, content(1, size).into(), PutMode::CreateOnly)
            .await?;
        let second = storage
            .put(&key, content(2, size).into(), PutMode::CreateOnly)
            .await?;
        Ok::<_, StorageError>((
            second,
            get_all(&**storage, &key, size as u64).await? == Some(content(1, size)),
        ))
    };
    let one_by_one = one_by_one.await;
    tidy_up(&**storage, &key).await;
    let (second, kept) = one_by_one?;
    let mut effect = CreateOnlyEffect {
        second,
        kept,
        races: Vec::new(),
    };
    if effect.promise() == Promise::None {
        return Ok(effect);
    }
    for _ in 0..rounds {
        let key = fresh(folder)?;
        let race = race(storage, &key, size, creators).await;
        tidy_up(&**storage, &key).await;
        effect.races.push(race?);
    }
    Ok(effect)
}

async fn race(
    storage: &Arc<dyn Storage>,
    key: &Key,
    size: usize,
    creators: u8,
) -> Result<Race, StorageError> {
    let mut tasks = JoinSet::new();
    for creator in 1..=creators {
        let (storage, key) = (storage.clone(), key.clone());
        tasks.spawn(async move {
            let outcome = storage
                .put(&key, content(creator, size).into(), PutMode::CreateOnly)
                .await;
            outcome.map(|outcome| (creator, outcome))
        });
    }
    let outcomes: Result<Vec<_>, StorageError> = tasks.join_all().await.into_iter().collect();
    let winners: Vec<u8> = outcomes?
        .iter()
        .filter(|(_, outcome)| *outcome == PutOutcome::Stored)
        .map(|(creator, _)| *creator)
        .collect();
    let found = get_all(&**storage, key, size as u64).await?;
    let kept = winners
        .last()
        .is_some_and(|winner| found == Some(content(*winner, size)));
    Ok(Race {
        winners: winners.len(),
        kept,
    })
}

/// A key that nobody else has.
fn fresh(folder: &str) -> anyhow::Result<Key> {
    Ok(Key::new(format!(
        "{folder}probe-{:016x}",
        getrandom::u64()?
    ))?)
}

fn content(creator: u8, size: usize) -> Bytes {
    vec![creator; size].into()
}

/// Best effort: whether objects can be deleted is [`write`]'s question.
async fn tidy_up(storage: &dyn Storage, key: &Key) {
    if let Err(error) = storage.delete(key).await {
        tracing::debug!("a probe stays: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::probe_testing::{Conditional, Lenient};
    use crate::storage::{LocalStorage, MemoryStorage};

    async fn promise(storage: impl Storage + 'static) -> Promise {
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let effect = create_only(&storage, "main/").await.unwrap();
        assert!(
            list_all(&*storage, "main/").await.unwrap().is_empty(),
            "probes stay behind"
        );
        effect.promise()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_and_a_folder_keep_the_promise() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            promise(LocalStorage::new(folder.path())).await,
            Promise::Atomic
        );
        assert_eq!(promise(MemoryStorage::default()).await, Promise::Atomic);
    }

    #[tokio::test]
    async fn a_store_that_ignores_the_condition_is_found_out() {
        assert_eq!(
            promise(Lenient::new(Conditional::Ignored)).await,
            Promise::None
        );
    }

    #[tokio::test]
    async fn a_store_that_refuses_and_overwrites_all_the_same_is_found_out() {
        assert_eq!(
            promise(Lenient::new(Conditional::RefusedButDone)).await,
            Promise::None
        );
    }

    #[tokio::test]
    async fn a_store_that_looks_first_and_then_puts_is_found_out() {
        assert_eq!(
            promise(Lenient::new(Conditional::LookedAtFirst)).await,
            Promise::OneByOne
        );
    }

    #[tokio::test]
    async fn large_objects_are_raced_too() {
        let storage: Arc<dyn Storage> = Arc::new(Lenient::new(Conditional::LookedAtFirst));
        let effect = create_only_large(&storage, "main/", 3 << 20).await.unwrap();
        assert_eq!(
            (effect.promise(), effect.races.len()),
            (Promise::OneByOne, 1)
        );
        assert!(list_all(&*storage, "").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_object_is_read_back_listed_and_gone_again() {
        let storage = MemoryStorage::default();
        let written = write(&storage, "main/").await.unwrap();
        assert!(written.read_back && written.listed && matches!(written.deleted, Ok(true)));
        assert!(written.clock_skew().unwrap().0 < Duration::from_secs(1));
        assert!(list_all(&storage, "").await.unwrap().is_empty());
    }

    #[test]
    fn the_clock_is_off_by_what_the_time_of_the_put_cannot_explain() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let skew = |modified| {
            let key = Key::new("a").unwrap();
            let meta = Some(ObjectMeta {
                key: key.clone(),
                size: 1,
                modified,
                class: None,
                encryption: None,
            });
            let put_between = (at(100), at(103));
            WriteEffect {
                read_back: true,
                listed: true,
                meta,
                put_between,
                deleted: Ok(true),
                key,
            }
            .clock_skew()
        };
        assert_eq!(skew(at(110)), Some((Duration::from_secs(7), true)));
        assert_eq!(skew(at(60)), Some((Duration::from_secs(40), false)));
        assert_eq!(skew(at(101)), Some((Duration::ZERO, false)));
    }
}
