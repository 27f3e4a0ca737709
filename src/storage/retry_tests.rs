use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{StreamExt, stream};

use super::*;
use crate::storage::{MemoryStorage, put_stream_by};

const RETRY: Retry = Retry {
    retries: 2,
    timeout: Duration::from_secs(60),
};

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
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if !(self.first..self.first + self.failing)
            .contains(&self.calls.fetch_add(1, Ordering::SeqCst))
        {
            return call.await;
        }
        if self.carried_out {
            call.await?;
        }
        let (store, source) = (self.describe(), anyhow!("it fails"));
        Err(StorageError {
            operation: "test",
            key: "k".into(),
            store,
            lasting: self.lasting,
            source,
        })
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
    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        let begun = self.call(self.inner.begin(key, mode)).await?;
        Ok(begun.map(|inner| {
            Box::new(FailingUpload {
                storage: self,
                inner,
            }) as Box<dyn Upload + '_>
        }))
    }
    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.call(self.inner.get(key, range)).await
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        self.call(self.inner.head(key)).await
    }
    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
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
    let failing = Arc::new(Failing {
        failing,
        lasting,
        ..Failing::default()
    });
    let answered = RetryingStorage::new(failing.clone(), RETRY)
        .head(&key())
        .await;
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
    let failing = Arc::new(Failing {
        hangs: true,
        ..Failing::default()
    });
    let retry = Retry {
        timeout: Duration::from_millis(30),
        ..RETRY
    };
    let error = RetryingStorage::new(failing, retry)
        .head(&key())
        .await
        .unwrap_err();
    assert!(
        format!("{:#}", error.source).contains("did not answer"),
        "{error}"
    );
}

#[tokio::test]
async fn at_a_callers_deadline_the_failure_itself_is_told() {
    let failing = Arc::new(Failing {
        failing: u32::MAX,
        ..Failing::default()
    });
    let storage = RetryingStorage::new(
        failing,
        Retry {
            retries: 1000,
            ..RETRY
        },
    );
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = until(deadline, storage.head(&key())).await.unwrap_err();
    assert_eq!(error.source.to_string(), "it fails");
    assert!(Instant::now() <= deadline, "no pause goes beyond it");
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_found_to_be_stored() {
    let body = || Body(vec!["head".into(), vec![7u8; COMPARED + 5].into()]);
    let failing = Arc::new(Failing {
        failing: 1,
        carried_out: true,
        ..Failing::default()
    });
    let storage = RetryingStorage::new(failing, RETRY);
    assert_eq!(
        storage
            .put(&key(), body(), PutMode::CreateOnly)
            .await
            .unwrap(),
        PutOutcome::Stored
    );
    // Called once, what is there is told as it is: the same content may be somebody else's.
    assert_eq!(
        storage
            .put(&key(), body(), PutMode::CreateOnly)
            .await
            .unwrap(),
        PutOutcome::AlreadyExists
    );
}

/// Three parts; before the last one comes, `meanwhile` is put.
async fn streamed(failing: &Arc<Failing>, meanwhile: Option<&'static str>) -> PutOutcome {
    let storage = RetryingStorage::new(failing.clone(), RETRY);
    let last = stream::once(async {
        if let Some(other) = meanwhile {
            let _ = failing
                .inner
                .put(&key(), other.into(), PutMode::CreateOnly)
                .await?;
        }
        Ok::<_, StorageError>(Bytes::from("89"))
    });
    let content = stream::iter([Ok(Bytes::from("01234567"))]).chain(last);
    put_stream_by(&storage, &key(), content, PutMode::CreateOnly, 4)
        .await
        .unwrap()
}

#[tokio::test]
async fn each_step_of_a_stream_is_repeated_by_itself() {
    // It begins, sends three parts, completes.
    for (first, carried_out) in (0..5).flat_map(|first| [(first, false), (first, true)]) {
        let failing = Arc::new(Failing {
            first,
            failing: 1,
            carried_out,
            ..Failing::default()
        });
        assert_eq!(
            streamed(&failing, None).await,
            PutOutcome::Stored,
            "{first} {carried_out}"
        );
        // To see that what was completed is ours, it is looked at and its parts are read.
        let looks = if (first, carried_out) == (4, true) {
            4
        } else {
            0
        };
        assert_eq!(
            failing.calls.load(Ordering::SeqCst),
            6 + looks,
            "{first} {carried_out}"
        );
        let stored = failing.inner.get(&key(), 0..100).await.unwrap();
        assert_eq!(stored.unwrap(), "0123456789", "{first} {carried_out}");
    }
}

#[tokio::test]
async fn somebody_elses_object_is_not_taken_for_a_stream() {
    for other in ["abcdefghij", "short"] {
        let failing = Arc::new(Failing {
            first: 4,
            failing: 1,
            ..Failing::default()
        });
        assert_eq!(
            streamed(&failing, Some(other)).await,
            PutOutcome::AlreadyExists
        );
        assert_eq!(
            failing.inner.get(&key(), 0..100).await.unwrap().unwrap(),
            other
        );
    }
}

#[tokio::test]
async fn somebody_elses_object_is_not_taken_for_ours() {
    for other in ["same length", "short"] {
        let failing = Arc::new(Failing {
            failing: 1,
            ..Failing::default()
        });
        let _ = failing
            .inner
            .put(&key(), other.into(), PutMode::CreateOnly)
            .await
            .unwrap();
        let storage = RetryingStorage::new(failing, RETRY);
        let outcome = storage
            .put(&key(), "ours length".into(), PutMode::CreateOnly)
            .await
            .unwrap();
        assert_eq!(outcome, PutOutcome::AlreadyExists);
    }
}

/// Given back after so many writes.
#[derive(Debug)]
struct Until(AtomicU32);

impl WritePermit for Until {
    fn check(&self) -> anyhow::Result<()> {
        match self.0.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(anyhow!("no more")),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn without_its_permit_a_process_reads_and_no_longer_writes() {
    let permit = |writes| Some(Arc::new(Until(AtomicU32::new(writes))) as Arc<dyn WritePermit>);
    let inner = Arc::new(MemoryStorage::default());
    let storage = |writes| RetryingStorage::new(inner.clone(), RETRY).with_permit(permit(writes));
    let put = storage(1)
        .put(&key(), "a".into(), PutMode::CreateOnly)
        .await;
    assert_eq!(put.unwrap(), PutOutcome::Stored);
    let error = storage(0).delete(&key()).await.unwrap_err();
    assert!(
        error.lasting && error.source.to_string() == "no more",
        "{error:?}"
    );
    assert!(
        storage(0)
            .put(&key(), "b".into(), PutMode::Overwrite)
            .await
            .is_err()
    );
    assert!(storage(0).sweep(Duration::ZERO, &|_| true).await.is_err());
    assert_eq!(storage(0).get(&key(), 0..9).await.unwrap().unwrap(), "a");
    // Each part of a long one asks, and so does the last step.
    let late = storage(2);
    let upload = late
        .begin(&Key::new("long").unwrap(), PutMode::CreateOnly)
        .await
        .unwrap()
        .unwrap();
    let sent = upload
        .send(Part {
            number: 0,
            at: 0,
            body: "x".into(),
            digest: parts::digest(&"x".into()).await,
        })
        .await
        .unwrap();
    assert!(upload.complete(&[sent]).await.is_err());
    assert!(
        inner
            .head(&Key::new("long").unwrap())
            .await
            .unwrap()
            .is_none()
    );
}
