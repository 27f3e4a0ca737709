use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::classes::{ClassChange, Readability, ThawOrder, ThawStarted};
use super::lifecycle::LifecycleRule;
use super::parts::{self, put_long};
use super::{
    Body, FolderStamp, IsOwnKey, IsOwnRule, Key, ListEntry, ObjectMeta, Part, Promises, PutMode,
    PutOutcome, Sent, Storage, StorageError, Upload,
};
use crate::error::with_hint;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Bytes for which a copy within the store has the time of one access.
const COPIED: u64 = 8 << 30;
/// Bytes of an object compared at a time.
const COMPARED: usize = 4 << 20;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs calls of stores whose repetitions must be over by `deadline`, so that what went wrong is told in time.
pub async fn until<F: Future>(deadline: Instant, calls: F) -> F::Output {
    DEADLINE.scope(deadline, calls).await
}

/// How often and how long a failed call of a store is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Repetitions at most.
    pub retries: u32,
    /// No repetition begins, and no answer is waited for, beyond this.
    pub timeout: Duration,
}

/// Whether this process may still write. It is asked before each call that changes something is sent.
pub trait WritePermit: Send + Sync + std::fmt::Debug {
    /// Errors: no more.
    fn check(&self) -> anyhow::Result<()>;
}

/// Operations that change nothing.
const READS: [&str; 4] = ["get", "head", "list", "get the lifecycle"];

/// Repeats what failed and may pass. The one place that repeats: neither the stores below nor their callers do.
#[derive(Debug)]
pub struct RetryingStorage {
    inner: Arc<dyn Storage>,
    retry: Retry,
    permit: Option<Arc<dyn WritePermit>>,
}

impl RetryingStorage {
    /// `inner`, with its failures repeated.
    pub fn new(inner: Arc<dyn Storage>, retry: Retry) -> Self {
        Self {
            inner,
            retry,
            permit: None,
        }
    }

    /// Asks a permit before each write.
    pub fn with_permit(mut self, permit: Option<Arc<dyn WritePermit>>) -> Self {
        self.permit = permit;
        self
    }

    /// Errors: it is a write, and this process may write no more.
    fn permit(&self, operation: &'static str, key: &str) -> Result<(), StorageError> {
        let permit = self.permit.as_ref();
        let asked = permit.filter(|_| !READS.contains(&operation));
        asked
            .map_or(Ok(()), |permit| permit.check())
            .map_err(|source| StorageError {
                operation,
                key: key.to_string(),
                store: self.describe(),
                lasting: true,
                source,
            })
    }

    /// Makes a call until it is answered, what it meets will not change by itself, or the bounds are reached. The
    /// call is told whether it was made before.
    async fn run<T, F>(
        &self,
        operation: &'static str,
        key: &str,
        mut call: impl FnMut(bool) -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        let (began, deadline) = (Instant::now(), self.deadline());
        for attempt in 0.. {
            self.permit(operation, key)?;
            let Ok(result) = timeout_at(deadline, call(attempt > 0)).await else {
                return Err(self.timed_out(operation, key, began.elapsed()));
            };
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = pause(attempt);
            if attempt == self.retry.retries || error.lasting || Instant::now() + pause >= deadline
            {
                return Err(error);
            }
            tracing::debug!(
                "{error}: {:#}: again in {} ms",
                error.source,
                pause.as_millis()
            );
            sleep(pause).await;
        }
        unreachable!("the loop above ends by returning")
    }

    /// For a call that begins now.
    fn deadline(&self) -> Instant {
        let own = Instant::now() + self.retry.timeout;
        DEADLINE
            .try_with(|deadline| own.min(*deadline))
            .unwrap_or(own)
    }

    fn timed_out(&self, operation: &'static str, key: &str, waited: Duration) -> StorageError {
        let error = anyhow!(
            "the repository did not answer within {:.1} s",
            waited.as_secs_f32()
        );
        let hint = "check that the repository is reachable, or raise `repository.timeout` (for hooks also `wal.timeout`)";
        let source = with_hint(error, hint);
        StorageError {
            operation,
            key: key.to_string(),
            store: self.describe(),
            lasting: false,
            source,
        }
    }

    /// Whether the object is exactly `body`.
    async fn holds(&self, key: &Key, body: &Body) -> Result<bool, StorageError> {
        if self
            .inner
            .head(key)
            .await?
            .is_none_or(|meta| meta.size != body.len())
        {
            return Ok(false);
        }
        for at in (0..body.len()).step_by(COMPARED) {
            let range = at..body.len().min(at + COMPARED as u64);
            if self
                .inner
                .get(key, range.clone())
                .await?
                .is_none_or(|found| found != body.slice(range).to_bytes())
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the object is made of exactly these parts.
    async fn holds_parts(&self, key: &Key, parts: &[Sent]) -> Result<bool, StorageError> {
        let size: u64 = parts.iter().map(|part| part.size).sum();
        if self
            .inner
            .head(key)
            .await?
            .is_none_or(|meta| meta.size != size)
        {
            return Ok(false);
        }
        for part in parts {
            let Some(found) = self.inner.get(key, part.at..part.at + part.size).await? else {
                return Ok(false);
            };
            if parts::digest(&found.into()).await != part.digest {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Repeats each part by itself.
#[derive(Debug)]
struct RetryingUpload<'a> {
    storage: &'a RetryingStorage,
    key: Key,
    inner: Box<dyn Upload + 'a>,
}

#[async_trait]
impl Upload for RetryingUpload<'_> {
    async fn send(&self, part: Part) -> Result<Sent, StorageError> {
        self.storage
            .run("put", self.key.as_str(), |_| self.inner.send(part.clone()))
            .await
    }

    async fn complete(&self, parts: &[Sent]) -> Result<PutOutcome, StorageError> {
        let complete = |again: bool| async move {
            let outcome = self.inner.complete(parts).await;
            // It may be ours: carried out, its answer lost. Then there are no parts any more, which can be an error.
            let is_stored = matches!(outcome, Ok(PutOutcome::Stored));
            if again && !is_stored && self.storage.holds_parts(&self.key, parts).await? {
                return Ok(PutOutcome::Stored);
            }
            outcome
        };
        self.storage.run("put", self.key.as_str(), complete).await
    }

    async fn abort(&self) -> Result<(), StorageError> {
        // Once: what is left is swept, and nobody waits for it beyond the time that the object had.
        let (began, deadline) = (Instant::now(), self.storage.deadline());
        let aborted = timeout_at(deadline, self.inner.abort()).await;
        aborted.unwrap_or_else(|_| {
            Err(self
                .storage
                .timed_out("put", self.key.as_str(), began.elapsed()))
        })
    }
}

/// The time to wait after failure `attempt` (from 0). Half to all of the doubled pause: several processes that failed
/// together do not come back together.
pub fn pause(attempt: u32) -> Duration {
    let full = FIRST_PAUSE
        .saturating_mul(1 << attempt.min(10))
        .min(LONGEST_PAUSE);
    let random = getrandom::u32().unwrap_or(u32::MAX);
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[async_trait]
impl Storage for RetryingStorage {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        if self
            .promises()
            .in_parts_from
            .is_some_and(|from| body.len() >= from)
        {
            // The parts are repeated, not the whole, and all within the time for one object.
            return until(self.deadline(), put_long(self, key, &body, mode)).await;
        }
        let body = &body;
        let put = |again: bool| async move {
            let outcome = self.inner.put(key, body.clone(), mode).await?;
            // It may be ours: carried out, its answer lost.
            if again && outcome == PutOutcome::AlreadyExists && self.holds(key, body).await? {
                return Ok(PutOutcome::Stored);
            }
            Ok(outcome)
        };
        self.run("put", key.as_str(), put).await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        let begun = self
            .run("put", key.as_str(), |_| self.inner.begin(key, mode))
            .await?;
        let wrap = |inner| {
            Box::new(RetryingUpload {
                storage: self,
                key: key.clone(),
                inner,
            }) as Box<dyn Upload + '_>
        };
        Ok(begun.map(wrap))
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.run("get", key.as_str(), |_| self.inner.get(key, range.clone()))
            .await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.run("head", key.as_str(), |_| self.inner.head(key))
            .await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.run("list", folder, |_| self.inner.list(folder, after))
            .await
    }

    async fn list_on(&self, folder: &str, after: &str) -> Result<Vec<ListEntry>, StorageError> {
        self.run("list", folder, |_| self.inner.list_on(folder, after))
            .await
    }

    async fn stamp(&self, folder: &str) -> Result<Option<FolderStamp>, StorageError> {
        self.run("list", folder, |_| self.inner.stamp(folder)).await
    }

    async fn link(&self, key: &Key, beside: &str) -> Result<(), StorageError> {
        self.run("put", key.as_str(), |_| self.inner.link(key, beside))
            .await
    }

    async fn linked(&self, key: &Key) -> Result<Option<String>, StorageError> {
        self.run("get", key.as_str(), |_| self.inner.linked(key))
            .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.run("delete", key.as_str(), |_| self.inner.delete(key))
            .await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.run("sweep", "", |_| self.inner.sweep(age, ours)).await
    }

    async fn readability(&self, key: &Key) -> Result<Option<Readability>, StorageError> {
        self.run("head", key.as_str(), |_| self.inner.readability(key))
            .await
    }

    async fn set_class(
        &self,
        object: &ObjectMeta,
        class: &str,
    ) -> Result<ClassChange, StorageError> {
        // The store copies some hundred MiB a second, and a part after the other.
        let pieces = u32::try_from(object.size / COPIED).unwrap_or(u32::MAX);
        let slow = Self {
            inner: self.inner.clone(),
            retry: Retry {
                timeout: self.retry.timeout.saturating_mul(pieces.saturating_add(1)),
                ..self.retry
            },
            permit: self.permit.clone(),
        };
        slow.run("copy", object.key.as_str(), |_| {
            self.inner.set_class(object, class)
        })
        .await
    }

    async fn thaw(&self, key: &Key, order: ThawOrder) -> Result<ThawStarted, StorageError> {
        self.run("thaw", key.as_str(), |_| self.inner.thaw(key, order))
            .await
    }

    async fn lifecycle(&self) -> Result<Option<Vec<LifecycleRule>>, StorageError> {
        self.run("get the lifecycle", "", |_| self.inner.lifecycle())
            .await
    }

    async fn set_lifecycle(
        &self,
        ours: &[LifecycleRule],
        is_ours: IsOwnRule<'_>,
    ) -> Result<(), StorageError> {
        self.run("set the lifecycle", "", |_| {
            self.inner.set_lifecycle(ours, is_ours)
        })
        .await
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
