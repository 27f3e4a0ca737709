use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::parts::{self, put_long};
use super::{
    Body, FolderStamp, IsOwnKey, Key, ListEntry, ObjectMeta, Part, Promises, PutMode, PutOutcome, Sent, Storage,
    StorageError, Upload,
};
use crate::error::with_hint;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
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

/// Repeats what failed and may pass. The one place that repeats: neither the stores below nor their callers do.
#[derive(Debug)]
pub struct RetryingStorage {
    inner: Arc<dyn Storage>,
    retry: Retry,
}

impl RetryingStorage {
    /// `inner`, with its failures repeated.
    pub fn new(inner: Arc<dyn Storage>, retry: Retry) -> Self {
        Self { inner, retry }
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
            let Ok(result) = timeout_at(deadline, call(attempt > 0)).await else {
                return Err(self.timed_out(operation, key, began.elapsed()));
            };
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = pause(attempt);
            if attempt == self.retry.retries || error.lasting || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!("{error}: {:#}: again in {} ms", error.source, pause.as_millis());
            sleep(pause).await;
        }
        unreachable!("the loop above ends by returning")
    }

    /// For a call that begins now.
    fn deadline(&self) -> Instant {
        let own = Instant::now() + self.retry.timeout;
        DEADLINE.try_with(|deadline| own.min(*deadline)).unwrap_or(own)
    }

    fn timed_out(&self, operation: &'static str, key: &str, waited: Duration) -> StorageError {
        let error = anyhow!("the repository did not answer within {:.1} s", waited.as_secs_f32());
        let hint =
            "check that the repository is reachable, or raise `repository.timeout` (for hooks also `wal.timeout`)";
        let source = with_hint(error, hint);
        StorageError { operation, key: key.to_string(), store: self.describe(), lasting: false, source }
    }

    /// Whether the object is exactly `body`.
    async fn holds(&self, key: &Key, body: &Body) -> Result<bool, StorageError> {
        if self.inner.head(key).await?.is_none_or(|meta| meta.size != body.len()) {
            return Ok(false);
        }
        for at in (0..body.len()).step_by(COMPARED) {
            let range = at..body.len().min(at + COMPARED as u64);
            if self.inner.get(key, range.clone()).await?.is_none_or(|found| found != body.slice(range).to_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the object is made of exactly these parts.
    async fn holds_parts(&self, key: &Key, parts: &[Sent]) -> Result<bool, StorageError> {
        let size: u64 = parts.iter().map(|part| part.size).sum();
        if self.inner.head(key).await?.is_none_or(|meta| meta.size != size) {
            return Ok(false);
        }
        for part in parts {
            let Some(found) = self.inner.get(key, part.at..part.at + part.size).await? else { return Ok(false) };
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
        self.storage.run("put", self.key.as_str(), |_| self.inner.send(part.clone())).await
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
        aborted.unwrap_or_else(|_| Err(self.storage.timed_out("put", self.key.as_str(), began.elapsed())))
    }
}

/// The time to wait after failure `attempt` (from 0). Half to all of the doubled pause: several processes that failed
/// together do not come back together.
pub fn pause(attempt: u32) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
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
        if self.promises().in_parts_from.is_some_and(|from| body.len() >= from) {
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

    async fn begin(&self, key: &Key, mode: PutMode) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        let begun = self.run("put", key.as_str(), |_| self.inner.begin(key, mode)).await?;
        let wrap = |inner| Box::new(RetryingUpload { storage: self, key: key.clone(), inner }) as Box<dyn Upload + '_>;
        Ok(begun.map(wrap))
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.run("get", key.as_str(), |_| self.inner.get(key, range.clone())).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.run("head", key.as_str(), |_| self.inner.head(key)).await
    }

    async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StorageError> {
        self.run("list", folder, |_| self.inner.list(folder, after)).await
    }

    async fn list_on(&self, folder: &str, after: &str) -> Result<Vec<ListEntry>, StorageError> {
        self.run("list", folder, |_| self.inner.list_on(folder, after)).await
    }

    async fn stamp(&self, folder: &str) -> Result<Option<FolderStamp>, StorageError> {
        self.run("list", folder, |_| self.inner.stamp(folder)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.run("delete", key.as_str(), |_| self.inner.delete(key)).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.run("sweep", "", |_| self.inner.sweep(age, ours)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::storage::{MemoryStorage, put_stream_by};

    const RETRY: Retry = Retry { retries: 2, timeout: Duration::from_secs(60) };

    fn key() -> Key {
        Key::new("k").unwrap()
    }

    /// Fails some calls: before they reach the store, or after, as an answer that is lost.
    #[derive(Debug, Default)]
    struct Failing {
        inner: MemoryStorage,
        calls: AtomicU32,
        /// Calls that fail, from call `first` on.
        failing: u32,
        first: u32,
        lasting: bool,
        carried_out: bool,
        hangs: bool,
    }

    impl Failing {
        async fn call<T>(&self, call: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            if !(self.first..self.first + self.failing).contains(&self.calls.fetch_add(1, Ordering::SeqCst)) {
                return call.await;
            }
            if self.carried_out {
                call.await?;
            }
            let (store, source) = (self.describe(), anyhow!("it fails"));
            Err(StorageError { operation: "test", key: "k".into(), store, lasting: self.lasting, source })
        }
    }

    #[async_trait]
    impl Storage for Failing {
        fn describe(&self) -> String {
            "failing:".into()
        }
        async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
            self.call(self.inner.put(key, body, mode)).await
        }
        async fn begin(&self, key: &Key, mode: PutMode) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
            let begun = self.call(self.inner.begin(key, mode)).await?;
            Ok(begun.map(|inner| Box::new(FailingUpload { storage: self, inner }) as Box<dyn Upload + '_>))
        }
        async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
            self.call(self.inner.get(key, range)).await
        }
        async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
            self.call(self.inner.head(key)).await
        }
        async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StorageError> {
            self.call(self.inner.list(folder, after)).await
        }
        async fn delete(&self, key: &Key) -> Result<(), StorageError> {
            self.call(self.inner.delete(key)).await
        }
        async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
            self.call(self.inner.sweep(age, ours)).await
        }
    }

    #[derive(Debug)]
    struct FailingUpload<'a> {
        storage: &'a Failing,
        inner: Box<dyn Upload + 'a>,
    }

    #[async_trait]
    impl Upload for FailingUpload<'_> {
        async fn send(&self, part: Part) -> Result<Sent, StorageError> {
            self.storage.call(self.inner.send(part)).await
        }
        async fn complete(&self, parts: &[Sent]) -> Result<PutOutcome, StorageError> {
            self.storage.call(self.inner.complete(parts)).await
        }
        async fn abort(&self) -> Result<(), StorageError> {
            self.storage.call(self.inner.abort()).await
        }
    }

    /// Calls made until a head was answered, or that were made in vain.
    async fn calls(failing: u32, lasting: bool) -> Result<u32, u32> {
        let failing = Arc::new(Failing { failing, lasting, ..Failing::default() });
        let answered = RetryingStorage::new(failing.clone(), RETRY).head(&key()).await;
        let calls = failing.calls.load(Ordering::SeqCst);
        answered.map(|_| calls).map_err(|_| calls)
    }

    #[tokio::test]
    async fn a_passing_failure_is_overcome_and_a_lasting_one_told() {
        assert_eq!(calls(2, false).await, Ok(3));
        assert_eq!(calls(3, false).await, Err(3));
        assert_eq!(calls(1, true).await, Err(1));
    }

    #[tokio::test]
    async fn no_answer_ends_at_the_timeout() {
        let failing = Arc::new(Failing { hangs: true, ..Failing::default() });
        let retry = Retry { timeout: Duration::from_millis(30), ..RETRY };
        let error = RetryingStorage::new(failing, retry).head(&key()).await.unwrap_err();
        assert!(format!("{:#}", error.source).contains("did not answer"), "{error}");
    }

    #[tokio::test]
    async fn at_a_callers_deadline_the_failure_itself_is_told() {
        let failing = Arc::new(Failing { failing: u32::MAX, ..Failing::default() });
        let storage = RetryingStorage::new(failing, Retry { retries: 1000, ..RETRY });
        let deadline = Instant::now() + Duration::from_millis(300);
        let error = until(deadline, storage.head(&key())).await.unwrap_err();
        assert_eq!(error.source.to_string(), "it fails");
        assert!(Instant::now() <= deadline, "no pause goes beyond it");
    }

    #[tokio::test]
    async fn a_put_whose_answer_was_lost_is_found_to_be_stored() {
        let body = || Body(vec!["head".into(), vec![7u8; COMPARED + 5].into()]);
        let failing = Arc::new(Failing { failing: 1, carried_out: true, ..Failing::default() });
        let storage = RetryingStorage::new(failing, RETRY);
        assert_eq!(storage.put(&key(), body(), PutMode::CreateOnly).await.unwrap(), PutOutcome::Stored);
        // Called once, what is there is told as it is: the same content may be somebody else's.
        assert_eq!(storage.put(&key(), body(), PutMode::CreateOnly).await.unwrap(), PutOutcome::AlreadyExists);
    }

    /// Three parts; before the last one comes, `meanwhile` is put.
    async fn streamed(failing: &Arc<Failing>, meanwhile: Option<&'static str>) -> PutOutcome {
        let storage = RetryingStorage::new(failing.clone(), RETRY);
        let last = stream::once(async {
            if let Some(other) = meanwhile {
                let _ = failing.inner.put(&key(), other.into(), PutMode::CreateOnly).await?;
            }
            Ok::<_, StorageError>(Bytes::from("89"))
        });
        let content = stream::iter([Ok(Bytes::from("01234567"))]).chain(last);
        put_stream_by(&storage, &key(), content, PutMode::CreateOnly, 4).await.unwrap()
    }

    #[tokio::test]
    async fn each_step_of_a_stream_is_repeated_by_itself() {
        // It begins, sends three parts, completes.
        for (first, carried_out) in (0..5).flat_map(|first| [(first, false), (first, true)]) {
            let failing = Arc::new(Failing { first, failing: 1, carried_out, ..Failing::default() });
            assert_eq!(streamed(&failing, None).await, PutOutcome::Stored, "{first} {carried_out}");
            // To see that what was completed is ours, it is looked at and its parts are read.
            let looks = if (first, carried_out) == (4, true) { 4 } else { 0 };
            assert_eq!(failing.calls.load(Ordering::SeqCst), 6 + looks, "{first} {carried_out}");
            let stored = failing.inner.get(&key(), 0..100).await.unwrap();
            assert_eq!(stored.unwrap(), "0123456789", "{first} {carried_out}");
        }
    }

    #[tokio::test]
    async fn somebody_elses_object_is_not_taken_for_a_stream() {
        for other in ["abcdefghij", "short"] {
            let failing = Arc::new(Failing { first: 4, failing: 1, ..Failing::default() });
            assert_eq!(streamed(&failing, Some(other)).await, PutOutcome::AlreadyExists);
            assert_eq!(failing.inner.get(&key(), 0..100).await.unwrap().unwrap(), other);
        }
    }

    #[tokio::test]
    async fn somebody_elses_object_is_not_taken_for_ours() {
        for other in ["same length", "short"] {
            let failing = Arc::new(Failing { failing: 1, ..Failing::default() });
            let _ = failing.inner.put(&key(), other.into(), PutMode::CreateOnly).await.unwrap();
            let storage = RetryingStorage::new(failing, RETRY);
            let outcome = storage.put(&key(), "ours length".into(), PutMode::CreateOnly).await.unwrap();
            assert_eq!(outcome, PutOutcome::AlreadyExists);
        }
    }
}
