//! A repository: a store with a marker that says so, holding sealed objects. Knows no PostgreSQL.
//!
//! Objects are created only where nothing is. A put that finds its key taken compares. A reader checks digests, reads a
//! damaged object once more, and tells damaged, absent, newer and not given apart.

pub mod cold;
mod error;
mod frames;
mod marker;
mod object;
#[cfg(test)]
pub(crate) mod probe_testing;
mod reread;
pub mod store_check;
mod stream;

use std::sync::Arc;

use crate::storage::Storage;

pub use error::{ObjectError, UPGRADE, is_damage, is_newer, is_unusable, repair_or_wait};
pub use frames::{FramePlace, Frames};
pub use marker::{Marker, MarkerError};
pub use object::{PutSealed, SealedObject};
pub use reread::reread;
pub use stream::SealedStream;

/// A store whose marker was checked.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    marker: Marker,
}

impl Repository {
    /// The store below, for listings and packs.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The store below, to share with tasks.
    pub fn shared_storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    /// The repository's own identity.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    /// The store's URL, for messages.
    pub fn describe(&self) -> String {
        self.storage.describe()
    }
}
