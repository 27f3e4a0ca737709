//! Long objects, and those whose length nobody knows before: sent in parts, visible when the last step is done.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{Body, Key, PutMode, PutOutcome, Storage, StorageError};

/// Bytes of a part; S3 takes 5 MiB to 5 GiB, and 10,000 parts.
pub const PART: usize = 16 << 20;
/// Where objects are not stored in parts, nobody counts what is written.
const PIECE: usize = 1 << 20;
/// Parts of one object under way at once. So many, and the one that is being filled, are in memory.
const AT_ONCE: usize = 4;
/// For giving up an upload that failed.
const ABORT: Duration = Duration::from_secs(10);
/// Digests of longer bodies are made off the async threads.
const QUICK: u64 = 1 << 20;

pub type Sha256Digest = [u8; 32];

/// A part to send.
#[derive(Debug, Clone)]
pub struct Part {
    /// Counted from 0.
    pub number: u32,
    /// Where in the object it begins.
    pub at: u64,
    pub body: Body,
    pub digest: Sha256Digest,
}

/// A part that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub number: u32,
    pub at: u64,
    pub size: u64,
    pub digest: Sha256Digest,
    /// The store's name of it, where it gives one.
    pub tag: Option<String>,
}

impl Sent {
    /// Of a part, with the store's name of it.
    pub fn new(part: &Part, tag: Option<String>) -> Self {
        Self {
            number: part.number,
            at: part.at,
            size: part.body.len(),
            digest: part.digest,
            tag,
        }
    }
}

/// An object that comes in parts; nothing of it shows before it is complete. One that is dropped is a leftover, which
/// [`Storage::sweep`] removes.
#[async_trait]
pub trait Upload: Send + Sync + fmt::Debug {
    /// Keeps a part. Safe to repeat; several may be under way at once.
    async fn send(&self, part: Part) -> Result<Sent, StorageError>;

    /// Makes the object of its parts, in order and without a gap; durable and visible when it returns `Stored`. After an
    /// error it may have been carried out.
    async fn complete(&self, parts: &[Sent]) -> Result<PutOutcome, StorageError>;

    /// Removes what was sent; also succeeds when there is nothing.
    async fn abort(&self) -> Result<(), StorageError>;
}

/// Stores what a stream gives, as [`Storage::put`] would, with a few parts of it in memory. Errors: the store's, or the
/// stream's own; then nothing of it is stored, unless the store's last answer was lost.
pub async fn put_stream<E: From<StorageError> + Send>(
    storage: &dyn Storage,
    key: &Key,
    content: impl Stream<Item = Result<Bytes, E>> + Send,
    mode: PutMode,
) -> Result<PutOutcome, E> {
    let part = match storage.promises().in_parts_from {
        Some(_) => PART,
        None => PIECE,
    };
    put_stream_by(storage, key, content, mode, part).await
}

/// The same with parts of so many bytes.
pub async fn put_stream_by<E: From<StorageError> + Send>(
    storage: &dyn Storage,
    key: &Key,
    content: impl Stream<Item = Result<Bytes, E>> + Send,
    mode: PutMode,
    part: usize,
) -> Result<PutOutcome, E> {
    let mut parts = Box::pin(cut(content, part));
    let first = parts.try_next().await?.unwrap_or_default();
    if first.len() < part {
        return Ok(storage.put(key, first.into(), mode).await?);
    }
    let parts = stream::iter([Ok(first)]).chain(parts).map_ok(Body::from);
    put_parts(storage, key, parts, mode).await
}

/// Stores a body in parts.
pub(super) async fn put_long(
    storage: &dyn Storage,
    key: &Key,
    body: &Body,
    mode: PutMode,
) -> Result<PutOutcome, StorageError> {
    let starts = (0..body.len()).step_by(PART);
    let parts: Vec<_> = starts
        .map(|at| Ok(body.slice(at..body.len().min(at + PART as u64))))
        .collect();
    put_parts(storage, key, stream::iter(parts), mode).await
}

async fn put_parts<E: From<StorageError>>(
    storage: &dyn Storage,
    key: &Key,
    parts: impl Stream<Item = Result<Body, E>> + Send,
    mode: PutMode,
) -> Result<PutOutcome, E> {
    // Spares sending what is there already.
    let Some(upload) = storage.begin(key, mode).await? else {
        return Ok(PutOutcome::AlreadyExists);
    };
    let outcome = match send_all(&*upload, parts).await {
        Ok(sent) => upload.complete(&sent).await.map_err(E::from),
        Err(error) => Err(error),
    };
    if !matches!(outcome, Ok(PutOutcome::Stored)) {
        // Best effort: what is left is swept later.
        let _ = timeout(ABORT, upload.abort()).await;
    }
    outcome
}

async fn send_all<E: From<StorageError>>(
    upload: &dyn Upload,
    parts: impl Stream<Item = Result<Body, E>> + Send,
) -> Result<Vec<Sent>, E> {
    let (mut number, mut at) = (0, 0);
    let sends = parts.map_ok(|body| {
        let place = (number, at);
        (number, at) = (number + 1, at + body.len());
        send(upload, place, body)
    });
    pin!(sends).try_buffered(AT_ONCE).try_collect().await
}

async fn send<E: From<StorageError>>(
    upload: &dyn Upload,
    (number, at): (u32, u64),
    body: Body,
) -> Result<Sent, E> {
    let digest = digest(&body).await;
    Ok(upload
        .send(Part {
            number,
            at,
            body,
            digest,
        })
        .await?)
}

/// What comes in pieces of any length, in parts of one length; only the last is shorter, and none is empty. Pieces are
/// copied: one of a few bytes can hold a large buffer in memory.
fn cut<E>(
    content: impl Stream<Item = Result<Bytes, E>> + Send,
    part: usize,
) -> impl Stream<Item = Result<Bytes, E>> + Send {
    let state = (Box::pin(content.fuse()), Bytes::new());
    stream::try_unfold(state, move |(mut content, mut rest)| async move {
        let mut filled = BytesMut::new();
        while filled.len() < part {
            if rest.is_empty() {
                let Some(next) = content.try_next().await? else {
                    break;
                };
                rest = next;
            }
            let piece = rest.split_to(rest.len().min(part - filled.len()));
            filled.extend_from_slice(&piece);
        }
        Ok((!filled.is_empty()).then(|| (filled.freeze(), (content, rest))))
    })
}

/// The SHA-256 of a body.
pub(super) async fn digest(body: &Body) -> Sha256Digest {
    let make = |body: &Body| {
        let mut hasher = Sha256::new();
        body.0.iter().for_each(|piece| hasher.update(piece));
        Sha256Digest::from(hasher.finalize())
    };
    if body.len() <= QUICK {
        return make(body);
    }
    let owned = body.clone();
    tokio::task::spawn_blocking(move || make(&owned))
        .await
        .unwrap_or_else(|_| make(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_cut_at_each_parts_border_whatever_its_pieces_are() {
        for (pieces, expected) in [
            (&[][..], &[][..]),
            (&["", ""], &[]),
            (&["012"], &["012"]),
            (&["0", "", "123", "4567", "8"], &["0123", "4567", "8"]),
            (&["01234567"], &["0123", "4567"]),
        ] {
            let pieces: Vec<_> = pieces
                .iter()
                .map(|piece| Ok::<_, StorageError>(Bytes::from(*piece)))
                .collect();
            let parts: Vec<Bytes> = cut(stream::iter(pieces), 4).try_collect().await.unwrap();
            assert_eq!(parts, expected);
        }
    }
}
