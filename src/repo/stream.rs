//! A sealed object read piece by piece: memory does not grow with its size.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;

use super::{ObjectError, Repository};
use crate::codec::{EnvelopeHeader, Hasher, SizedDigest};
use crate::storage::{Key, Storage};

/// Stored bytes fetched at a time.
const FETCH: u64 = 1 << 20;

/// The content of a sealed object. Size and digest are verified at the end: only when `read` returned 0 is all of it
/// known to be right. What is damaged is an error of the kind `InvalidData`. Blocks, so it belongs on a
/// blocking thread of the runtime that it was opened on.
pub struct SealedStream {
    decoder: zstd::Decoder<'static, io::BufReader<PartFetcher>>,
    hasher: Option<Hasher>,
    size: u64,
    expected: SizedDigest,
    key: Key,
}

impl Repository {
    /// Opens an object for reading piece by piece; `None` when there is none.
    pub async fn open_stream(
        &self,
        key: &Key,
        kind: &str,
    ) -> Result<Option<(EnvelopeHeader, SealedStream)>, ObjectError> {
        let Some(meta) = self.storage().head(key).await? else {
            return Ok(None);
        };
        let Some(header) = self.header_once(key, meta.size, kind).await? else {
            return Ok(None);
        };
        let (storage, end) = (self.shared_storage(), meta.size);
        let at = end - header.stored.size;
        let fetcher = PartFetcher {
            storage,
            key: key.clone(),
            at,
            end,
            piece: Bytes::new(),
            runtime: Handle::current(),
        };
        let decoder = zstd::Decoder::new(fetcher)
            .map_err(|error| self.damaged(key, damage(&error)))?
            .single_frame();
        let expected = header.plain;
        let stream = SealedStream {
            decoder,
            hasher: Some(Hasher::default()),
            size: 0,
            expected,
            key: key.clone(),
        };
        Ok(Some((header, stream)))
    }
}

fn damage(error: &io::Error) -> crate::codec::Damaged {
    crate::codec::Damaged(error.to_string())
}

impl Read for SealedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self
            .decoder
            .read(buffer)
            .map_err(|error| match error.kind() {
                // The store did not answer, or has no such object any more: no damage.
                io::ErrorKind::NotFound => error,
                io::ErrorKind::Other
                    if error
                        .get_ref()
                        .is_some_and(|inner| inner.is::<crate::storage::StorageError>()) =>
                {
                    error
                }
                _ => self.damaged(&format!("it does not decompress: {error}")),
            })?;
        self.size += read as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        if self.size > self.expected.size {
            return Err(self.damaged("its content is longer than its header says"));
        }
        if read == 0
            && !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
            && (self.size != self.expected.size || hasher.finish() != self.expected.digest)
        {
            return Err(self.damaged("its content does not have the digest that its header says"));
        }
        Ok(read)
    }
}

impl SealedStream {
    fn damaged(&self, why: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("object \"{}\" is damaged: {why}", self.key),
        )
    }
}

struct PartFetcher {
    storage: Arc<dyn Storage>,
    key: Key,
    at: u64,
    end: u64,
    piece: Bytes,
    runtime: Handle,
}

impl Read for PartFetcher {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.at < self.end {
            let range = self.at..self.end.min(self.at + FETCH);
            let got = self
                .runtime
                .block_on(self.storage.get(&self.key, range))
                .map_err(io::Error::other)?;
            self.piece = got.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("object \"{}\" vanished while it was read", self.key),
                )
            })?;
            self.at += self.piece.len() as u64;
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::codec::seal;
    use crate::storage::{MemoryStorage, PutMode};

    fn content() -> Vec<u8> {
        (0..900_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect()
    }

    async fn read_back(object: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let storage = Arc::new(MemoryStorage::default());
        let repository = Repository::init(storage.clone(), DateTime::UNIX_EPOCH)
            .await?
            .0;
        let key = Key::new("a").unwrap();
        let _ = storage
            .put(&key, object.into(), PutMode::CreateOnly)
            .await?;
        let (_, mut stream) = repository.open_stream(&key, "test").await?.unwrap();
        tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            stream.read_to_end(&mut read)?;
            Ok(read)
        })
        .await?
    }

    fn object() -> Vec<u8> {
        let content = content();
        let sealed = seal(
            "test",
            &serde_json::json!({}),
            &mut &content[..],
            content.len() as u64,
            1,
        )
        .unwrap();
        [sealed.envelope, sealed.body].concat()
    }

    #[tokio::test]
    async fn an_object_of_several_pieces_reads_back() {
        assert!(object().len() as u64 > 2 * FETCH);
        assert!(read_back(object()).await.unwrap() == content());
    }

    #[tokio::test]
    async fn a_flipped_bit_or_a_missing_end_never_passes() {
        let whole = object();
        for place in (0..whole.len()).step_by(whole.len() / 40) {
            let mut flipped = whole.clone();
            flipped[place] ^= 4;
            assert!(read_back(flipped).await.is_err(), "bit flipped at {place}");
            assert!(
                read_back(whole[..place].to_vec()).await.is_err(),
                "cut at {place}"
            );
        }
    }

    #[tokio::test]
    async fn an_object_that_is_not_there_is_absent() {
        let repository = Repository::init(Arc::new(MemoryStorage::default()), DateTime::UNIX_EPOCH)
            .await
            .unwrap()
            .0;
        assert!(
            repository
                .open_stream(&Key::new("none").unwrap(), "test")
                .await
                .unwrap()
                .is_none()
        );
    }
}
