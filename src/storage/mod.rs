//! Where objects are kept: a trait over immutable blobs, with one conformance suite that every backend passes.
//!
//! A put becomes visible at once and whole, or not at all, and is durable when it returns. Absent is an answer
//! (`None`), never an error; an error always means that the answer is unknown.

mod key;
mod local;
mod memory;
mod open;
mod parts;
mod promises;
mod retry;
mod walk;
mod watched;

pub mod classes;
pub mod conformance;
pub mod counting;
#[cfg(test)]
pub mod decorator;
pub mod faulty;
pub mod freezing;
pub mod lifecycle;
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{find, with_hint};
use classes::{ClassChange, Readability, ThawOrder, ThawStarted};
use lifecycle::LifecycleRule;

pub use key::{InvalidKey, Key};
pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use open::{Store, open};
pub use parts::{PART, Part, Sent, Upload, put_stream, put_stream_by};
pub use promises::{AtRest, Promise, Promises};
pub use retry::{Retry, RetryingStorage, WritePermit, pause, until};
pub use s3::S3Storage;
pub use walk::{Pages, Walk};
pub use watched::Watched;

/// Bytes of objects that came over the network so far: while there are more of them, the store is only slow.
pub static RECEIVED: AtomicU64 = AtomicU64::new(0);

/// Entries in one answer of [`Storage::list`], at most.
pub const LIST_PAGE: usize = 1000;

/// What a put does when the key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Leave what is there; for everything that must be written once.
    CreateOnly,
    /// Replace it; for derived or administrative objects only.
    Overwrite,
}

/// What a put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PutOutcome {
    /// The object is stored and durable.
    Stored,
    /// The key was taken, by an object that is durable; nothing was changed. Only with [`PutMode::CreateOnly`].
    AlreadyExists,
}

/// Bytes to store, in pieces so that a header can be put before a body without copying.
#[derive(Debug, Clone, Default)]
pub struct Body(pub Vec<Bytes>);

impl Body {
    /// Total length in bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a range of it, which lies within it, without copying.
    pub fn slice(&self, range: Range<u64>) -> Self {
        let mut at = 0;
        let mut pieces = Vec::new();
        for piece in &self.0 {
            let end = at + piece.len() as u64;
            let (from, to) = (range.start.max(at), range.end.min(end));
            if from < to {
                pieces.push(piece.slice((from - at) as usize..(to - at) as usize));
            }
            at = end;
        }
        Self(pieces)
    }

    /// All pieces copied into one.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(vec![bytes.into()])
    }
}

/// What a store tells of an object without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: Key,
    /// Length in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
    /// The storage class, in stores that have such.
    pub class: Option<String>,
    /// How the store encrypts it at rest, as it says by `head`; listings do not tell.
    pub encryption: Option<String>,
}

/// What a listing says of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListEntry {
    Object(ObjectMeta),
    /// A common prefix; ends with `/`.
    Folder(String),
}

impl ListEntry {
    /// The object's key or the folder's prefix: what listings are ordered by and continue after.
    pub fn name(&self) -> &str {
        match self {
            Self::Object(meta) => meta.key.as_str(),
            Self::Folder(prefix) => prefix,
        }
    }
}

/// Changes whenever something comes into a folder or goes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderStamp {
    /// Which folder it is, and when it changed last.
    pub state: (u64, u64, SystemTime),
    /// That was long enough before it was looked at: what changes later has another time.
    pub settled: bool,
}

impl FolderStamp {
    /// Whether nothing came or went since an earlier look.
    pub fn is_unchanged_since(&self, earlier: Option<&Self>) -> bool {
        earlier.is_some_and(|earlier| earlier.settled && earlier.state == self.state)
    }
}

/// The store did not answer: whether the object exists, or the put took effect, is not known.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}{} in {store}", quoted(.key))]
pub struct StorageError {
    /// The operation, as a verb: `put`, `get`, `head`, `list`, `delete`, `sweep`, `copy`, `thaw`.
    pub operation: &'static str,
    /// Empty for the whole store.
    pub key: String,
    /// The store's URL.
    pub store: String,
    /// Repeating cannot help: access is denied, the disk is full, a setting is wrong.
    pub lasting: bool,
    /// Carries a hint where the store knows the next step.
    #[source]
    pub source: anyhow::Error,
}

impl StorageError {
    /// The object is there, and must be thawed before it is read.
    pub fn is_cold(&self) -> bool {
        find::<classes::ObjectIsCold>(&self.source).is_some()
    }
}

fn quoted(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!(" \"{key}\"")
    }
}

/// Tells which keys are one's own.
pub type IsOwnKey<'a> = &'a (dyn Fn(&Key) -> bool + Sync);

/// Tells by its id whether a rule of a bucket's lifecycle is one's own.
pub type IsOwnRule<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// A store of objects. All methods are safe to repeat.
#[async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// The store's URL, for messages.
    fn describe(&self) -> String;

    /// What can be relied on, and what to do where it cannot.
    fn promises(&self) -> Promises {
        Promises::default()
    }

    /// Stores an object; durable and visible when it returns `Stored`.
    async fn put(&self, key: &Key, body: Body, mode: PutMode) -> Result<PutOutcome, StorageError>;

    /// Begins an object that comes in parts ([`put_stream`] sends them); `None` when the key is taken, with
    /// [`PutMode::CreateOnly`].
    async fn begin(
        &self,
        key: &Key,
        _mode: PutMode,
    ) -> Result<Option<Box<dyn Upload + '_>>, StorageError> {
        Err(unsupported(self, "put", key.as_str(), "objects in parts"))
    }

    /// Bytes of an object, `None` when there is no such object. A range is clipped to the object's length.
    async fn get(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, StorageError>;

    /// Size and time, `None` when there is no such object.
    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, StorageError>;

    /// At most [`LIST_PAGE`] entries directly below `folder` (empty, or ending with `/`) whose names sort after `after`,
    /// in byte order. Deeper objects show as one [`ListEntry::Folder`]. A short page is the last one. `after` is the name of
    /// an entry, whether it is there or not.
    async fn list(&self, folder: &str, after: Option<&str>)
    -> Result<Vec<ListEntry>, StorageError>;

    /// The next page of a listing whose last page ended with `after`. It may show the folder as it was when that listing
    /// began, which costs some stores less.
    async fn list_on(&self, folder: &str, after: &str) -> Result<Vec<ListEntry>, StorageError> {
        self.list(folder, Some(after)).await
    }

    /// What tells whether something directly in a folder came or went; `None` in a store that does not tell.
    async fn stamp(&self, _folder: &str) -> Result<Option<FolderStamp>, StorageError> {
        Ok(None)
    }

    /// Makes `key` name what lies beside it, in place of what it named before: a symbolic link in a folder, else an object
    /// with the name and a line break.
    async fn link(&self, key: &Key, beside: &str) -> Result<(), StorageError> {
        let name = format!("{beside}\n");
        let _ = self.put(key, name.into(), PutMode::Overwrite).await?;
        Ok(())
    }

    /// What [`link`](Self::link) made a key name; `None` when there is nothing.
    async fn linked(&self, key: &Key) -> Result<Option<String>, StorageError> {
        let name = get_all(self, key, FEW_LINES).await?;
        Ok(name.map(|name| String::from_utf8_lossy(&name).trim_end().to_string()))
    }

    /// Removes an object; also succeeds when there is none.
    async fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// Removes leftovers of interrupted puts of `ours` that are older than `age`, and says how many there were: a bucket
    /// can be shared with others.
    async fn sweep(&self, age: Duration, ours: IsOwnKey<'_>) -> Result<u64, StorageError>;

    /// Whether an object can be read now; `None` when there is none. A store without classes reads all at once.
    async fn readability(&self, key: &Key) -> Result<Option<Readability>, StorageError> {
        Ok(self.head(key).await?.map(|_| Readability::Now))
    }

    /// Gives an object another storage class, by a copy within the store: key, content, metadata and encryption stay, the
    /// time of storing does not. Errors: also [`classes::ObjectIsCold`], and a store without classes.
    async fn set_class(
        &self,
        object: &ObjectMeta,
        _class: &str,
    ) -> Result<ClassChange, StorageError> {
        Err(unsupported(
            self,
            "copy",
            object.key.as_str(),
            "storage classes",
        ))
    }

    /// Orders that an object becomes readable for a time; [`readability`](Self::readability) tells when it is.
    async fn thaw(&self, key: &Key, _order: ThawOrder) -> Result<ThawStarted, StorageError> {
        let there = self.head(key).await?;
        Ok(there.map_or(ThawStarted::Absent, |_| ThawStarted::NotCold))
    }

    /// By which rules the bucket deletes and moves objects by itself; `None` for a store that never does.
    async fn lifecycle(&self) -> Result<Option<Vec<LifecycleRule>>, StorageError> {
        Ok(None)
    }

    /// Puts `ours` in the place of all rules whose id is ours. Others stay; that this is so was read back.
    async fn set_lifecycle(
        &self,
        _ours: &[LifecycleRule],
        _is_ours: IsOwnRule<'_>,
    ) -> Result<(), StorageError> {
        Err(unsupported(self, "set the lifecycle", "", "lifecycle"))
    }
}

fn unsupported(
    store: &(impl Storage + ?Sized),
    operation: &'static str,
    key: &str,
    what: &str,
) -> StorageError {
    StorageError {
        operation,
        key: key.to_string(),
        store: store.describe(),
        lasting: true,
        source: anyhow::anyhow!("this store has no {what}"),
    }
}

/// Bytes that an object of a few lines, such as `walden.json`, has at most.
pub const FEW_LINES: u64 = 1 << 20;

/// The object is longer than any that Walden puts there. No more of it was read.
#[derive(Debug, thiserror::Error)]
#[error("it has more than {most} bytes, which nothing that belongs there has")]
pub struct ObjectTooLarge {
    pub most: u64,
}

/// The whole of an object that has at most so many bytes. Errors: also [`ObjectTooLarge`].
pub async fn get_all(
    storage: &(impl Storage + ?Sized),
    key: &Key,
    most: u64,
) -> Result<Option<Bytes>, StorageError> {
    let bytes = storage.get(key, 0..most.saturating_add(1)).await?;
    let Some(_) = bytes.as_ref().filter(|bytes| bytes.len() as u64 > most) else {
        return Ok(bytes);
    };
    let hint = "bring the right one back from a copy: something else put this one there";
    let source = with_hint(ObjectTooLarge { most }.into(), hint);
    Err(StorageError {
        operation: "get",
        key: key.to_string(),
        store: storage.describe(),
        lasting: true,
        source,
    })
}

/// All entries directly below `folder`, page by page.
pub async fn list_all(storage: &dyn Storage, folder: &str) -> Result<Vec<ListEntry>, StorageError> {
    let (mut pages, mut entries) = (Pages::new(folder.into(), None), Vec::new());
    while let Some(page) = pages.next(storage).await? {
        entries.extend(page);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_a_body_crosses_its_pieces() {
        let body = Body(vec!["01".into(), "".into(), "2345".into(), "6".into()]);
        for (range, expected) in [
            (0..7, "0123456"),
            (1..3, "12"),
            (2..6, "2345"),
            (5..7, "56"),
            (3..3, ""),
        ] {
            assert_eq!(body.slice(range.clone()).to_bytes(), expected, "{range:?}");
        }
    }
}
