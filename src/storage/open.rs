use std::path::PathBuf;
use std::sync::Arc;

use super::{LocalStorage, Retry, RetryingStorage, S3Storage, Storage, WritePermit, s3};

/// A store that is named, with what is set for its kind.
#[derive(Debug)]
pub enum Store {
    Folder(PathBuf),
    Bucket(Box<s3::S3Options>),
}

/// The store, with the one layer that repeats: one arm a kind of store. Nothing is asked of it yet; what its settings
/// give up is told. A permit is asked for before each write.
pub fn open(store: Store, retry: Retry, permit: Option<Arc<dyn WritePermit>>) -> Arc<dyn Storage> {
    let store: Arc<dyn Storage> = match store {
        Store::Folder(path) => Arc::new(LocalStorage::new(path)),
        Store::Bucket(options) => Arc::new(S3Storage::new(*options)),
    };
    if let Some(caution) = store.promises().caution {
        tracing::warn!("{caution}");
    }
    Arc::new(RetryingStorage::new(store, retry).with_permit(permit))
}
