//! A decorator with storage classes that must be thawed, as strict as Amazon's: what is cold or being thawed is not read,
//! for tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use super::classes::{
    ClassChange, ObjectIsCold, Readability, STANDARD, ThawOrder, ThawStarted, is_cold,
};
use super::{
    Body, IsOwnKey, Key, ListEntry, ObjectMeta, Promises, PutMode, PutOutcome, Storage,
    StorageError, Upload,
};

/// Passes calls on, and keeps a class for each object.
#[derive(Debug)]
pub struct FreezingStorage {
    inner: Arc<dyn Storage>,
    /// Looks at an object until it is thawed.
    looks: u32,
    states: Mutex<BTreeMap<Key, State>>,
}

#[derive(Debug, Clone)]
struct State {
    class: String,
    thaw: Option<Thaw>,
}

#[derive(Debug, Clone, Copy)]
enum Thaw {
    After(u32),
    Until(SystemTime),
}

impl FreezingStorage {
    /// `inner`, all of whose objects are warm; one that is thawed is readable after so many looks.
    pub fn new(inner: Arc<dyn Storage>, looks: u32) -> Self {
        Self {
            inner,
            looks,
            states: Mutex::default(),
        }
    }

    /// Puts an object into a class, as a rule of the bucket would.
    pub fn freeze(&self, key: &Key, class: &str) {
        let class = class.to_string();
        self.states()
            .insert(key.clone(), State { class, thaw: None });
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<Key, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn class(&self, key: &Key) -> String {
        let states = self.states();
        states
            .get(key)
            .map_or(STANDARD, |state| &state.class)
            .to_string()
    }

    fn with_class(&self, meta: ObjectMeta) -> ObjectMeta {
        ObjectMeta {
            class: Some(self.class(&meta.key)),
            ..meta
        }
    }

    /// Errors: the object is cold, or is still being thawed.
    fn check(&self, operation: &'static str, key: &Key) -> Result<(), StorageError> {
        match self.states().get(key) {
            Some(State { class, thaw })
                if is_cold(class) && !matches!(thaw, Some(Thaw::Until(_))) =>
            {
                Err(StorageError {
                    operation,
                    key: key.to_string(),
                    store: self.describe(),
                    lasting: true,
                    source: ObjectIsCold.into(),
                })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Storage for FreezingStorage {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.inner.put(key, body, mode).await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        self.inner.begin(key, mode).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.check("get", key)?;
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        Ok(self
            .inner
            .head(key)
            .await?
            .map(|meta| self.with_class(meta)))
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        let entries = self.inner.list(folder, after).await?;
        let with_class = |entry| match entry {
            ListEntry::Object(meta) => ListEntry::Object(self.with_class(meta)),
            folder => folder,
        };
        Ok(entries.into_iter().map(with_class).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.states().remove(key);
        self.inner.delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.inner.sweep(age, ours).await
    }

    async fn readability(&self, key: &Key) -> Result<Option<Readability>, StorageError> {
        if self.inner.head(key).await?.is_none() {
            return Ok(None);
        }
        let mut states = self.states();
        let Some(state) = states.get_mut(key).filter(|state| is_cold(&state.class)) else {
            return Ok(Some(Readability::Now));
        };
        Ok(Some(match &mut state.thaw {
            None => Readability::Cold,
            Some(Thaw::Until(until)) => Readability::Until(*until),
            Some(Thaw::After(0)) => {
                let until = SystemTime::now() + Duration::from_secs(86_400);
                state.thaw = Some(Thaw::Until(until));
                Readability::Until(until)
            }
            Some(Thaw::After(looks)) => {
                *looks -= 1;
                Readability::Thawing
            }
        }))
    }

    async fn set_class(
        &self,
        object: &ObjectMeta,
        class: &str,
    ) -> Result<ClassChange, StorageError> {
        let key = &object.key;
        if self.inner.head(key).await?.is_none() {
            return Ok(ClassChange::Absent);
        }
        if self.class(key) == class {
            return Ok(ClassChange::AlreadyThere);
        }
        self.check("copy", key)?;
        self.freeze(key, class);
        Ok(ClassChange::Moved)
    }

    async fn thaw(&self, key: &Key, _order: ThawOrder) -> Result<ThawStarted, StorageError> {
        if self.inner.head(key).await?.is_none() {
            return Ok(ThawStarted::Absent);
        }
        let mut states = self.states();
        let Some(state) = states.get_mut(key).filter(|state| is_cold(&state.class)) else {
            return Ok(ThawStarted::NotCold);
        };
        state.thaw.get_or_insert(Thaw::After(self.looks));
        Ok(ThawStarted::Ordered)
    }
}
