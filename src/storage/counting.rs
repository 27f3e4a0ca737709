//! A decorator that remembers which calls were made, for telling what something costs.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::classes::{ClassChange, Readability, ThawOrder, ThawStarted};
use super::lifecycle::LifecycleRule;
use super::{
    Body, FolderStamp, IsOwnKey, IsOwnRule, Key, ListEntry, ObjectMeta, Promises, PutMode,
    PutOutcome, Storage, StorageError, Upload,
};

/// Passes calls on and remembers their names: those of the trait's methods, `list` also for further pages.
#[derive(Debug)]
pub struct CountingStorage {
    inner: Arc<dyn Storage>,
    calls: Mutex<Vec<&'static str>>,
}

impl CountingStorage {
    /// `inner`, of which no call was made yet.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
        }
    }

    /// The calls since [`forget`](Self::forget), sorted: several may be under way at once.
    pub fn calls(&self) -> Vec<&'static str> {
        let mut calls = self.noted().clone();
        calls.sort_unstable();
        calls
    }

    /// Begins anew.
    pub fn forget(&self) {
        self.noted().clear();
    }

    fn noted(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: &'static str) {
        self.noted().push(call);
    }
}

#[async_trait]
impl Storage for CountingStorage {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.note("put");
        self.inner.put(key, body, mode).await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        self.note("begin");
        self.inner.begin(key, mode).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.note("get");
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.note("head");
        self.inner.head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.note("list");
        self.inner.list(folder, after).await
    }

    async fn list_on(&self, folder: &str, after: &str) -> Result<Vec<ListEntry>, StorageError> {
        self.note("list");
        self.inner.list_on(folder, after).await
    }

    async fn stamp(&self, folder: &str) -> Result<Option<FolderStamp>, StorageError> {
        let stamp = self.inner.stamp(folder).await?;
        // No request where there are none.
        stamp.inspect(|_| self.note("stamp"));
        Ok(stamp)
    }

    async fn link(&self, key: &Key, beside: &str) -> Result<(), StorageError> {
        self.note("put");
        self.inner.link(key, beside).await
    }

    async fn linked(&self, key: &Key) -> Result<Option<String>, StorageError> {
        self.note("get");
        self.inner.linked(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.note("delete");
        self.inner.delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.note("sweep");
        self.inner.sweep(age, ours).await
    }

    async fn readability(&self, key: &Key) -> Result<Option<Readability>, StorageError> {
        self.note("readability");
        self.inner.readability(key).await
    }

    async fn set_class(
        &self,
        object: &ObjectMeta,
        class: &str,
    ) -> Result<ClassChange, StorageError> {
        self.note("set_class");
        self.inner.set_class(object, class).await
    }

    async fn thaw(&self, key: &Key, order: ThawOrder) -> Result<ThawStarted, StorageError> {
        self.note("thaw");
        self.inner.thaw(key, order).await
    }

    async fn lifecycle(&self) -> Result<Option<Vec<LifecycleRule>>, StorageError> {
        self.note("lifecycle");
        self.inner.lifecycle().await
    }

    async fn set_lifecycle(
        &self,
        ours: &[LifecycleRule],
        is_ours: IsOwnRule<'_>,
    ) -> Result<(), StorageError> {
        self.note("set_lifecycle");
        self.inner.set_lifecycle(ours, is_ours).await
    }
}
