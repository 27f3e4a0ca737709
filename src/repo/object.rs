use std::io::{self, Write};

use bytes::Bytes;

use super::error::ObjectError;
use super::{Repository, reread};
use crate::codec::{
    Damaged, Envelope, EnvelopeError, EnvelopeHeader, Sealed, VerifyLevel, object_bound, unseal,
};
use crate::error::{find, with_hint};
use crate::storage::classes::ObjectIsCold;
use crate::storage::{
    Body, FEW_LINES, Key, ObjectTooLarge, PutMode, PutOutcome, StorageError, get_all,
};

/// Bytes read to get an object's envelope; a longer envelope costs a second read. Few segments say more of themselves.
const HEADER_READ: u64 = 32 << 10;

/// A whole object. Its envelope was checked, its content is checked as it is opened.
#[derive(Debug, Clone)]
pub struct SealedObject {
    key: Key,
    store: String,
    envelope: Envelope,
    bytes: Bytes,
}

impl SealedObject {
    /// What the envelope tells.
    pub fn header(&self) -> &EnvelopeHeader {
        &self.envelope.header
    }

    /// The body: zstd frames one behind the other.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.envelope.len as usize..]
    }

    /// All of the object, as it is stored.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Writes the content to `sink`, verified; on an error `sink` holds bytes that must not be used. Blocks. Errors: those of
    /// `sink`, and within that [`ObjectError::Damaged`].
    pub fn unseal(
        &self,
        check: VerifyLevel,
        sink: &mut dyn Write,
    ) -> io::Result<Result<(), ObjectError>> {
        let opened = unseal(self.header(), self.body(), check, sink)?;
        Ok(opened.map_err(|source| self.damaged(source)))
    }

    /// The error that its content is damaged.
    pub fn damaged(&self, source: Damaged) -> ObjectError {
        ObjectError::Damaged {
            key: self.key.to_string(),
            store: self.store.clone(),
            source,
        }
    }
}

/// What a create-only put of a sealed object found.
#[derive(Debug)]
#[must_use]
pub enum PutSealed {
    /// Stored now.
    Stored,
    /// An object with the same content was there, and is whole.
    SameContent,
    /// An object with other content is there.
    OtherContent(Box<EnvelopeHeader>),
}

impl Repository {
    /// Stores an object under a key that is written once. An object that is there already is read whole and
    /// compared: it may be all that is left of its content, so that it exists is not enough.
    pub async fn put_sealed(&self, key: &Key, sealed: &Sealed) -> Result<PutSealed, ObjectError> {
        let body = Body(vec![sealed.envelope.clone(), sealed.body.clone()]);
        if self.storage().put(key, body, PutMode::CreateOnly).await? == PutOutcome::Stored {
            return Ok(PutSealed::Stored);
        }
        // Nothing much longer than what was to be put belongs there.
        let ours = &sealed.header;
        let vanished = || {
            self.damaged(
                key,
                Damaged("it vanished while it was being compared".into()),
            )
        };
        let found = self
            .get_verified(key, &ours.kind, ours.plain.size.max(FEW_LINES))
            .await?
            .ok_or_else(vanished)?;
        Ok(match found.header().plain == ours.plain {
            true => PutSealed::SameContent,
            false => PutSealed::OtherContent(Box::new(found.envelope.header)),
        })
    }

    /// The header of an object, by a small read; `None` when there is no such object. The body's length is checked,
    /// its content is not. This and all that follow read once more what is damaged: it may have been on its way here.
    pub async fn header(
        &self,
        key: &Key,
        kind: &str,
    ) -> Result<Option<EnvelopeHeader>, ObjectError> {
        let read = async || match self.storage().head(key).await? {
            Some(meta) => self.header_once(key, meta.size, kind).await,
            None => Ok(None),
        };
        reread(ObjectError::is_damage, read).await
    }

    /// The same of an object whose size is known, such as from a listing. Read only once: it may have been replaced since.
    pub async fn header_once(
        &self,
        key: &Key,
        size: u64,
        kind: &str,
    ) -> Result<Option<EnvelopeHeader>, ObjectError> {
        let Some(Envelope { header, len }) = self.envelope_once(key, kind).await? else {
            return Ok(None);
        };
        match size.saturating_sub(len) {
            body if body == header.stored.size => Ok(Some(header)),
            body => {
                let why = format!(
                    "{} bytes are noted for its body, which has {body}",
                    header.stored.size
                );
                Err(self.damaged(key, Damaged(why)))
            }
        }
    }

    /// The header of an object and where its body begins, by one small read; `None` when there is no such object. The
    /// body is not checked at all.
    pub async fn envelope(&self, key: &Key, kind: &str) -> Result<Option<Envelope>, ObjectError> {
        reread(ObjectError::is_damage, || self.envelope_once(key, kind)).await
    }

    async fn envelope_once(&self, key: &Key, kind: &str) -> Result<Option<Envelope>, ObjectError> {
        let mut wanted = HEADER_READ;
        loop {
            let Some(bytes) = self.storage().get(key, 0..wanted).await? else {
                return Ok(None);
            };
            match Envelope::parse(&bytes).and_then(|envelope| envelope.of_kind(kind)) {
                Ok(envelope) => return Ok(Some(envelope)),
                Err(EnvelopeError::TooShort { needed, got }) if got as u64 == wanted => {
                    wanted = needed as u64
                }
                Err(error) => return Err(self.unusable(key, error)),
            }
        }
    }

    /// A whole object of at most `most` bytes, as it is; `None` when there is none. A longer one is damaged.
    pub async fn get_whole(&self, key: &Key, most: u64) -> Result<Option<Bytes>, ObjectError> {
        get_all(self.storage(), key, most).await.map_err(|error| {
            match find::<ObjectTooLarge>(&error.source) {
                Some(too_long) => self.damaged(key, Damaged(too_long.to_string())),
                None => error.into(),
            }
        })
    }

    /// A whole object whose content has at most `most` bytes; `None` when there is none. Opening it may still find it
    /// damaged.
    pub async fn get_sealed(
        &self,
        key: &Key,
        kind: &str,
        most: u64,
    ) -> Result<Option<SealedObject>, ObjectError> {
        reread(ObjectError::is_damage, || self.get_once(key, kind, most)).await
    }

    async fn get_once(
        &self,
        key: &Key,
        kind: &str,
        most: u64,
    ) -> Result<Option<SealedObject>, ObjectError> {
        let Some(bytes) = self.get_whole(key, object_bound(most)).await? else {
            return Ok(None);
        };
        let envelope =
            Envelope::of_whole(kind, &bytes).map_err(|error| self.unusable(key, error))?;
        match envelope.header.plain.size {
            found if found > most => {
                let why = format!(
                    "it says that its content has {found} bytes, where at most {most} belong"
                );
                Err(self.damaged(key, Damaged(why)))
            }
            _ => Ok(Some(SealedObject {
                key: key.clone(),
                store: self.describe(),
                envelope,
                bytes,
            })),
        }
    }

    /// The content of a small object, at most `most` bytes, verified, in memory; `None` when there is none.
    pub async fn read_small(
        &self,
        key: &Key,
        kind: &str,
        most: u64,
    ) -> Result<Option<(EnvelopeHeader, Vec<u8>)>, ObjectError> {
        let read = async || {
            let Some(object) = self.get_once(key, kind, most).await? else {
                return Ok(None);
            };
            let mut content = Vec::new();
            object
                .unseal(VerifyLevel::Stored, &mut content)
                .map_err(|error| self.unchecked(key, error.into()))??;
            Ok(Some((object.envelope.header, content)))
        };
        reread(ObjectError::is_damage, read).await
    }

    /// A whole object whose content has at most `most` bytes, all of it checked; `None` when there is none.
    pub async fn get_verified(
        &self,
        key: &Key,
        kind: &str,
        most: u64,
    ) -> Result<Option<SealedObject>, ObjectError> {
        let read = async || {
            let Some(object) = self.get_once(key, kind, most).await? else {
                return Ok(None);
            };
            let work = move || {
                object
                    .unseal(VerifyLevel::Content, &mut io::sink())
                    .map(|opened| opened.map(|()| object))
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(Ok(opened)) => opened.map(Some),
                Ok(Err(error)) => Err(self.unchecked(key, error.into())),
                Err(panicked) => Err(self.unchecked(key, panicked.into())),
            }
        };
        reread(ObjectError::is_damage, read).await
    }

    /// `source` with the key and the store that it was read from.
    pub fn damaged(&self, key: &Key, source: Damaged) -> ObjectError {
        ObjectError::Damaged {
            key: key.to_string(),
            store: self.describe(),
            source,
        }
    }

    /// The error for an object that is needed and not there.
    pub fn absent(&self, key: &Key) -> ObjectError {
        ObjectError::Absent {
            key: key.to_string(),
            store: self.describe(),
        }
    }

    /// The error for an object that must be thawed before it is read.
    pub fn cold(&self, key: &Key) -> ObjectError {
        let source = with_hint(
            ObjectIsCold.into(),
            "thaw it first: `walden restore --thaw` or `walden dump restore --thaw` does",
        );
        ObjectError::Storage(StorageError {
            operation: "get",
            key: key.to_string(),
            store: self.describe(),
            lasting: true,
            source,
        })
    }

    fn unusable(&self, key: &Key, error: EnvelopeError) -> ObjectError {
        match error {
            EnvelopeError::Newer(what) => ObjectError::Newer {
                key: key.to_string(),
                store: self.describe(),
                what,
            },
            other => self.damaged(key, Damaged(other.to_string())),
        }
    }

    pub(super) fn unchecked(&self, key: &Key, source: anyhow::Error) -> ObjectError {
        ObjectError::Unchecked {
            key: key.to_string(),
            store: self.describe(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;

    use super::*;
    use crate::codec::seal;
    use crate::storage::{MemoryStorage, Storage};

    async fn repository() -> (Repository, Arc<MemoryStorage>) {
        let storage = Arc::new(MemoryStorage::default());
        (
            Repository::init(storage.clone(), DateTime::UNIX_EPOCH)
                .await
                .unwrap()
                .0,
            storage,
        )
    }

    fn object(content: &[u8]) -> Sealed {
        seal(
            "test",
            &serde_json::json!({"pad": "x".repeat(40_000)}),
            &mut &content[..],
            content.len() as u64,
            1,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn the_same_content_again_succeeds_and_other_content_is_told() {
        let (repository, _) = repository().await;
        let key = Key::new("a").unwrap();
        assert!(matches!(
            repository.put_sealed(&key, &object(b"one")).await.unwrap(),
            PutSealed::Stored
        ));
        assert!(matches!(
            repository.put_sealed(&key, &object(b"one")).await.unwrap(),
            PutSealed::SameContent
        ));
        assert!(matches!(
            repository.put_sealed(&key, &object(b"two")).await.unwrap(),
            PutSealed::OtherContent(_)
        ));
        assert_eq!(
            repository
                .read_small(&key, "test", 3)
                .await
                .unwrap()
                .unwrap()
                .1,
            b"one"
        );
        assert_eq!(
            repository.header(&key, "test").await.unwrap().unwrap(),
            object(b"one").header
        );
    }

    #[tokio::test]
    async fn a_damaged_object_does_not_count_as_stored() {
        let (repository, storage) = repository().await;
        let key = Key::new("a").unwrap();
        let sealed = object(b"one");
        let mut damaged = [sealed.envelope.clone(), sealed.body.clone()].concat();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(
            storage
                .put(&key, damaged.into(), PutMode::CreateOnly)
                .await
                .unwrap(),
            PutOutcome::Stored
        );
        let error = repository.put_sealed(&key, &sealed).await.unwrap_err();
        assert!(matches!(error, ObjectError::Damaged { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_longer_than_it_can_be_is_damaged() {
        let (repository, storage) = repository().await;
        let key = Key::new("a").unwrap();
        let _ = repository.put_sealed(&key, &object(b"four")).await.unwrap();
        let why = |error: ObjectError| match error {
            ObjectError::Damaged { source, .. } => source.0,
            other => panic!("{other}"),
        };
        let error = repository.get_sealed(&key, "test", 3).await.unwrap_err();
        assert_eq!(
            why(error),
            "it says that its content has 4 bytes, where at most 3 belong"
        );
        assert!(repository.read_small(&key, "test", 3).await.is_err());
        assert!(
            repository
                .get_sealed(&key, "test", 4)
                .await
                .unwrap()
                .is_some()
        );
        let size = storage.head(&key).await.unwrap().unwrap().size;
        assert!(repository.get_whole(&key, size).await.unwrap().is_some());
        let error = repository.get_whole(&key, size - 1).await.unwrap_err();
        assert_eq!(
            why(error),
            format!(
                "it has more than {} bytes, which nothing that belongs there has",
                size - 1
            )
        );
    }

    #[tokio::test]
    async fn absent_and_truncated_headers_are_told_apart() {
        let (repository, storage) = repository().await;
        assert_eq!(
            repository
                .header(&Key::new("none").unwrap(), "test")
                .await
                .unwrap(),
            None
        );
        let key = Key::new("cut").unwrap();
        let whole = [object(b"one").envelope, object(b"one").body].concat();
        let cut = whole[..whole.len() - 1].to_vec();
        assert_eq!(
            storage
                .put(&key, cut.into(), PutMode::CreateOnly)
                .await
                .unwrap(),
            PutOutcome::Stored
        );
        assert!(matches!(
            repository.header(&key, "test").await,
            Err(ObjectError::Damaged { .. })
        ));
    }
}
