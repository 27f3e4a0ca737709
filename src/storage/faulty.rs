//! Decorators that stop at the k-th call, or damage the k-th read, for enumerating faults.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::classes::{ClassChange, Readability, ThawOrder, ThawStarted};
use super::{
    Body, IsOwnKey, Key, ListEntry, ObjectMeta, Part, Promises, PutMode, PutOutcome, Sent, Storage,
    StorageError, Upload,
};

/// Whether the call at which the process stops still reaches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// The call never reached the store.
    Before,
    /// The store carried it out, the answer was lost.
    After,
}

/// Passes calls on until call `stop_at` (from 0); that one and all later ones fail as if the process had died there.
#[derive(Debug)]
pub struct FaultyStorage {
    inner: Arc<dyn Storage>,
    stop_at: u64,
    point: CrashPoint,
    calls: AtomicU64,
}

impl FaultyStorage {
    /// `inner`, stopping at call `stop_at`.
    pub fn new(inner: Arc<dyn Storage>, stop_at: u64, point: CrashPoint) -> Self {
        Self {
            inner,
            stop_at,
            point,
            calls: AtomicU64::new(0),
        }
    }

    /// Whether the stop was reached: when not, there are no more crash points to try.
    pub fn stopped(&self) -> bool {
        self.calls.load(Ordering::SeqCst) > self.stop_at
    }

    /// Runs one call, or the stop in its place.
    async fn call<T>(
        &self,
        operation: &'static str,
        key: &str,
        run: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if number == self.stop_at && self.point == CrashPoint::After {
            run.await?;
        } else if number < self.stop_at {
            return run.await;
        }
        Err(StorageError {
            operation,
            key: key.to_string(),
            store: self.describe(),
            lasting: false,
            source: anyhow::anyhow!("stopped at call {number}"),
        })
    }
}

#[async_trait]
impl Storage for FaultyStorage {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        self.call("put", key.as_str(), self.inner.put(key, body, mode))
            .await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        let begun = self
            .call("put", key.as_str(), self.inner.begin(key, mode))
            .await?;
        let wrap = |inner| {
            Box::new(FaultyUpload {
                storage: self,
                key: key.clone(),
                inner,
            }) as Box<dyn Upload + '_>
        };
        Ok(begun.map(wrap))
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.call("get", key.as_str(), self.inner.get(key, range))
            .await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.call("head", key.as_str(), self.inner.head(key)).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        self.call("list", folder, self.inner.list(folder, after))
            .await
    }

    async fn link(&self, key: &Key, beside: &str) -> Result<(), StorageError> {
        self.call("put", key.as_str(), self.inner.link(key, beside))
            .await
    }

    async fn linked(&self, key: &Key) -> Result<Option<String>, StorageError> {
        self.call("get", key.as_str(), self.inner.linked(key)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.call("delete", key.as_str(), self.inner.delete(key))
            .await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.call("sweep", "", self.inner.sweep(age, ours)).await
    }

    async fn readability(&self, key: &Key) -> Result<Option<Readability>, StorageError> {
        self.call("head", key.as_str(), self.inner.readability(key))
            .await
    }

    async fn set_class(
        &self,
        object: &ObjectMeta,
        class: &str,
    ) -> Result<ClassChange, StorageError> {
        let (key, copy) = (object.key.as_str(), self.inner.set_class(object, class));
        self.call("copy", key, copy).await
    }

    async fn thaw(&self, key: &Key, order: ThawOrder) -> Result<ThawStarted, StorageError> {
        self.call("thaw", key.as_str(), self.inner.thaw(key, order))
            .await
    }
}

/// Each part is a call, and so is the last step.
#[derive(Debug)]
struct FaultyUpload<'a> {
    storage: &'a FaultyStorage,
    key: Key,
    inner: Box<dyn Upload + 'a>,
}

#[async_trait]
impl Upload for FaultyUpload<'_> {
    async fn send(&self, part: Part) -> Result<Sent, StorageError> {
        self.storage
            .call("put", self.key.as_str(), self.inner.send(part))
            .await
    }

    async fn complete(&self, parts: &[Sent]) -> Result<PutOutcome, StorageError> {
        self.storage
            .call("put", self.key.as_str(), self.inner.complete(parts))
            .await
    }

    async fn abort(&self) -> Result<(), StorageError> {
        self.storage
            .call("put", self.key.as_str(), self.inner.abort())
            .await
    }
}

/// Passes calls on; of the `get` number `at` (from 0) the first byte is another.
#[derive(Debug)]
pub struct GarblingStorage {
    inner: Arc<dyn Storage>,
    at: u64,
    gets: AtomicU64,
}

impl GarblingStorage {
    /// `inner`, damaging what its `get` number `at` gives.
    pub fn new(inner: Arc<dyn Storage>, at: u64) -> Self {
        Self {
            inner,
            at,
            gets: AtomicU64::new(0),
        }
    }

    /// Whether that one came.
    pub fn garbled(&self) -> bool {
        self.gets.load(Ordering::SeqCst) > self.at
    }
}

#[async_trait]
impl Storage for GarblingStorage {
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
        let is_garbled = self.gets.fetch_add(1, Ordering::SeqCst) == self.at;
        let got = self.inner.get(key, range).await?;
        Ok(got.map(|bytes| match bytes.first() {
            Some(first) if is_garbled => [&[first ^ 0x80], &bytes[1..]].concat().into(),
            _ => bytes,
        }))
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

    async fn link(&self, key: &Key, beside: &str) -> Result<(), StorageError> {
        self.inner.link(key, beside).await
    }

    async fn linked(&self, key: &Key) -> Result<Option<String>, StorageError> {
        self.inner.linked(key).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.delete(key).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        self.inner.sweep(age, ours).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::storage::{LocalStorage, MemoryStorage, get_all, list_all, put_stream_by};

    const WHOLE: &[u8] = b"0123456789";

    async fn put(storage: &dyn Storage, key: &Key) -> Result<PutOutcome, StorageError> {
        let pieces = ["0123", "4567", "89"].map(|piece| Ok(Bytes::from(piece)));
        put_stream_by(storage, key, stream::iter(pieces), PutMode::CreateOnly, 4).await
    }

    /// Stops at each call of a stream in parts; how many there are.
    async fn stop_everywhere(fresh: impl Fn() -> Arc<dyn Storage>, point: CrashPoint) -> u64 {
        let key = Key::new("a/k").unwrap();
        for stop_at in 0.. {
            let inner = fresh();
            let faulty = FaultyStorage::new(inner.clone(), stop_at, point);
            let outcome = put(&faulty, &key).await;
            if !faulty.stopped() {
                assert_eq!(outcome.unwrap(), PutOutcome::Stored);
                return stop_at;
            }
            assert!(outcome.is_err(), "{point:?} {stop_at}");
            // Only the last of the five calls shows it, and shows all.
            let is_there = point == CrashPoint::After && stop_at == 4;
            let found = get_all(&*inner, &key, 100).await.unwrap();
            assert_eq!(
                found.as_deref(),
                is_there.then_some(WHOLE),
                "{point:?} {stop_at}"
            );
            assert_eq!(
                list_all(&*inner, "a/").await.unwrap().len(),
                usize::from(is_there)
            );
            let expected = if is_there {
                PutOutcome::AlreadyExists
            } else {
                PutOutcome::Stored
            };
            assert_eq!(
                put(&*inner, &key).await.unwrap(),
                expected,
                "{point:?} {stop_at}"
            );
            inner.sweep(Duration::ZERO, &|_| true).await.unwrap();
            assert_eq!(
                get_all(&*inner, &key, 100).await.unwrap().as_deref(),
                Some(WHOLE)
            );
        }
        unreachable!("the loop above ends by returning")
    }

    #[tokio::test]
    async fn a_stream_that_stops_at_any_call_leaves_all_or_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let number = AtomicU64::new(0);
        let folder = || -> Arc<dyn Storage> {
            Arc::new(LocalStorage::new(
                scratch
                    .path()
                    .join(number.fetch_add(1, Ordering::SeqCst).to_string()),
            ))
        };
        let memory = || -> Arc<dyn Storage> { Arc::new(MemoryStorage::default()) };
        for point in [CrashPoint::Before, CrashPoint::After] {
            assert_eq!(
                stop_everywhere(memory, point).await,
                5,
                "it begins, sends three parts, completes"
            );
            assert_eq!(
                stop_everywhere(folder, point).await,
                5,
                "it begins, sends three parts, completes"
            );
        }
    }
}
