//! A store that is another one, but for what a test changes.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Body, IsOwnKey, Key, ListEntry, ObjectMeta, PutMode, PutOutcome, Storage, StorageError, Upload,
};

/// Whoever is one is a [`Storage`]: what it does not say for itself the other store does.
#[async_trait]
pub trait Decorator: Send + Sync + fmt::Debug {
    /// The other store.
    fn inner(&self) -> &dyn Storage;

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.inner().put(key, body, mode).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.inner().get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.inner().head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.inner().list(folder, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.inner().delete(key).await
    }
}

#[async_trait]
impl<D: Decorator> Storage for D {
    fn describe(&self) -> String {
        self.inner().describe()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        Decorator::put(self, key, body, mode).await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        self.inner().begin(key, mode).await
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        Decorator::get(self, key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        Decorator::head(self, key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        Decorator::list(self, folder, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        Decorator::delete(self, key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.inner().sweep(age, ours).await
    }
}
