//! Objects in a bucket of Amazon S3 or of a server that speaks its protocol.
//!
//! One request is made for one call, or several for a large object; nothing is repeated here but the rest of a body
//! whose connection broke.

mod body;
mod classes;
mod client;
mod error;
mod get;
mod lifecycle;
mod list;
mod multipart;
mod options;
mod put;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::types::StorageClass;
use bytes::Bytes;
use tokio::sync::{Mutex, OnceCell, Semaphore, SemaphorePermit};

use super::classes::{ClassChange, Readability, ThawOrder, ThawStarted};
use super::lifecycle::LifecycleRule;
use super::parts::put_long;
use super::{
    Body, IsOwnKey, IsOwnRule, Key, ListEntry, ObjectMeta, Promises, PutMode, PutOutcome, Storage,
    StorageError, Upload,
};

pub use aws_sdk_s3::config::Credentials;
pub use error::S3Error;
pub use options::{CreateOnly, S3Options, credentials};

/// A bucket, or what lies below a prefix of it.
#[derive(Debug)]
pub struct S3Storage {
    options: Arc<S3Options>,
    /// Keeps connections; outlives clients.
    http: OnceCell<SharedHttpClient>,
    /// Made by the first call; made anew when its credentials were refused.
    client: Mutex<Option<Client>>,
    places: Semaphore,
}

impl S3Storage {
    /// Nothing is read or connected to before the first call.
    pub fn new(options: S3Options) -> Self {
        let places = Semaphore::new(options.requests.max(1));
        Self {
            options: Arc::new(options),
            http: OnceCell::new(),
            client: Mutex::new(None),
            places,
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.options.prefix)
    }

    /// The client, and the right to make one request with it at a time.
    async fn enter(
        &self,
        api: &'static str,
        path: &str,
    ) -> Result<(Client, SemaphorePermit<'_>), S3Error> {
        let place = self
            .places
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let mut kept = self.client.lock().await;
        if let Some(client) = &*kept {
            return Ok((client.clone(), place));
        }
        let http = self
            .http
            .get_or_try_init(|| client::http(&self.options))
            .await;
        let http = http.map_err(|why| S3Error::before(&self.options, api, path, &why))?;
        let client = client::connect(&self.options, http.clone()).await;
        *kept = Some(client.clone());
        Ok((client, place))
    }

    /// What a call came to; after refused credentials the next call reads them anew.
    async fn told<T>(
        &self,
        operation: &'static str,
        key: &str,
        result: Result<T, S3Error>,
    ) -> Result<T, StorageError> {
        let error = match result {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.is_about_credentials() {
            *self.client.lock().await = None;
        }
        let store = self.describe();
        Err(StorageError {
            operation,
            key: key.to_string(),
            store,
            lasting: error.is_lasting(),
            source: error.with_hint(),
        })
    }

    fn class(&self, key: &str) -> Option<StorageClass> {
        let kind = (self.options.kind_of)(key)?;
        let found = self.options.classes.iter().find(|(of, _)| *of == kind);
        found.map(|(_, class)| class.clone())
    }
}

#[async_trait]
impl Storage for S3Storage {
    fn describe(&self) -> String {
        format!("s3://{}/{}", self.options.bucket, self.options.prefix)
            .trim_end_matches('/')
            .to_string()
    }

    fn promises(&self) -> Promises {
        self.options.promises()
    }

    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError> {
        if body.len() >= self.options.multipart_threshold {
            return put_long(self, key, &body, mode).await;
        }
        let result = self.put_whole(key, body, mode).await;
        self.told("put", key.as_str(), result).await
    }

    async fn begin(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        let begun = self.begin_upload(key, mode).await;
        let begun = self.told("put", key.as_str(), begun).await?;
        Ok(begun.map(|upload| Box::new(upload) as Box<dyn Upload + '_>))
    }

    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        let result = self.get_range(key, range).await;
        self.told("get", key.as_str(), result).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError> {
        let result = self.meta(key).await;
        self.told("head", key.as_str(), result).await
    }

    async fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        let result = self.page(folder, after).await;
        self.told("list", folder, result).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let result = self.remove(key).await;
        self.told("delete", key.as_str(), result).await
    }

    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError> {
        let result = self.abort_uploads_older_than(age, ours).await;
        self.told("sweep", "", result).await
    }

    async fn readability(&self, key: &Key) -> Result<Option<Readability>, StorageError> {
        let result = self.is_readable(key).await;
        self.told("head", key.as_str(), result).await
    }

    async fn set_class(
        &self,
        object: &ObjectMeta,
        class: &str,
    ) -> Result<ClassChange, StorageError> {
        let result = self.move_to(object, class).await;
        self.told("copy", object.key.as_str(), result).await
    }

    async fn thaw(&self, key: &Key, order: ThawOrder) -> Result<ThawStarted, StorageError> {
        let result = self.order_thaw(key, order).await;
        self.told("thaw", key.as_str(), result).await
    }

    async fn lifecycle(&self) -> Result<Option<Vec<LifecycleRule>>, StorageError> {
        let result = self.rules().await;
        self.told("get the lifecycle", "", result).await
    }

    async fn set_lifecycle(
        &self,
        ours: &[LifecycleRule],
        is_ours: IsOwnRule<'_>,
    ) -> Result<(), StorageError> {
        let result = self.replace_rules(ours, is_ours).await;
        self.told("set the lifecycle", "", result).await
    }
}
