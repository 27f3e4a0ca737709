//! Stores that do not keep what create-only promises, each in a way that is met in the wild.

use async_trait::async_trait;

use crate::storage::decorator::Decorator;
use crate::storage::{Body, Key, MemoryStorage, PutMode, PutOutcome, Storage, StorageError};

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
impl Decorator for Lenient {
    fn inner(&self) -> &dyn Storage {
        &self.inner
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
}
