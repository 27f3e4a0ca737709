//! Stores that do not keep what create-only promises, each in a way that is met in the wild.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::storage::{
    Body, IsOwnKey, Key, ListEntry, MemoryStorage, ObjectMeta, PutMode, PutOutcome, Storage,
    StorageError,
};

/// What becomes of the condition of a create-only put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// Accepted without effect: "stored", always.
    Ignored,
    /// Answered as it should be, after the damage is done.
    RefusedButDone,
    /// Looked at before the put: others can come between.
    LookedAtFirst,
}

/// Objects in memory behind a create-only put that is none.
#[derive(Debug)]
pub struct Lenient {
    inner: MemoryStorage,
    conditional: Conditional,
}

impl Lenient {
    pub fn new(conditional: Conditional) -> Self {
        Self {
            inner: MemoryStorage::default(),
            conditional,
        }
    }
}

#[async_trait]
impl Storage for Lenient {
    fn describe(&self) -> String {
        "lenient:".into()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        let taken = mode == PutMode::CreateOnly && self.inner.head(key).await?.is_some();
        if taken && self.conditional == Conditional::LookedAtFirst {
            return Ok(PutOutcome::AlreadyExists);
        }
        tokio::task::yield_now().await;
        let outcome = self.inner.put(key, body, PutMode::Overwrite).await?;
        Ok(
            match taken && self.conditional == Conditional::RefusedButDone {
                true => PutOutcome::AlreadyExists,
                false => outcome,
            },
        )
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.inner.get(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.inner.list(folder, after).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.inner.sweep(age, ours).await
    }
}
