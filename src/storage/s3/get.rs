use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use tokio::sync::SemaphorePermit;

use super::classes::class_name;
use super::error::chain;
use super::put::encryption;
use super::{S3Error, S3Storage};
use crate::storage::{Key, ObjectMeta, RECEIVED};

/// A body whose connection broke is continued when at least so many bytes of it came; else the whole read is repeated.
const PROGRESS: usize = 64 << 10;
/// Bytes reserved at most because an answer says that it is so long.
const RESERVED: usize = 64 << 20;

/// Takes the body in, up to `wanted` bytes in all: a store may ignore where a range ends. Errors: it breaks off.
async fn receive(
    body: &mut ByteStream,
    got: &mut BytesMut,
    wanted: usize,
) -> Result<(), aws_sdk_s3::primitives::ByteStreamError> {
    while let Some(piece) = body.try_next().await? {
        let room = wanted - got.len();
        RECEIVED.fetch_add(piece.len().min(room) as u64, Ordering::Relaxed);
        got.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    Ok(())
}

impl S3Storage {
    /// Bytes of an object. A body whose connection breaks is asked for again from there, from the same object.
    pub(super) async fn get_range(
        &self,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, S3Error> {
        if range.start >= range.end {
            return Ok(self.meta(key).await?.map(|_| Bytes::new()));
        }
        let path = self.path(key.as_str());
        let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut got = BytesMut::new();
        let mut etag = None;
        loop {
            let before = got.len();
            let (mut response, _place) = match self
                .answer(&path, range.start + before as u64..range.end, etag)
                .await
            {
                Ok(response) => response,
                Err(error) if before == 0 && error.says_absent() => return Ok(None),
                Err(error) if before == 0 && error.says_beyond_end() => {
                    return Ok(Some(Bytes::new()));
                }
                Err(error) => return Err(error),
            };
            let length = response
                .content_length()
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(0);
            got.reserve(length.min(RESERVED));
            etag = response.e_tag().map(str::to_string);
            let Err(broken) = receive(&mut response.body, &mut got, wanted).await else {
                return Ok(Some(got.freeze()));
            };
            if got.len() - before < PROGRESS || etag.is_none() {
                let why = format!("the answer was cut off: {}", chain(&broken));
                return Err(S3Error::no_answer(&self.options, "GetObject", &path, &why));
            }
            tracing::debug!(
                "GetObject of \"{path}\": the connection broke: {broken}: going on at {}",
                got.len()
            );
        }
    }

    /// Begins to read a range, from an object that still has `tag`.
    async fn answer(
        &self,
        path: &str,
        range: Range<u64>,
        tag: Option<String>,
    ) -> Result<(GetObjectOutput, SemaphorePermit<'_>), S3Error> {
        let bad = |why| Err(S3Error::bad_answer(&self.options, "GetObject", path, why));
        match self.request(path, &range, tag).await {
            Err(error) if error.has_status(412) => bad("the object changed meanwhile"),
            Ok((response, _)) if first_byte(response.content_range()) != Some(range.start) => {
                bad("the answer is another range")
            }
            answer => answer,
        }
    }

    /// Asks for a range of an object that still has `tag`.
    pub(super) async fn request(
        &self,
        path: &str,
        range: &Range<u64>,
        tag: Option<String>,
    ) -> Result<(GetObjectOutput, SemaphorePermit<'_>), S3Error> {
        let options = &self.options;
        let wanted = match (range.start, range.end) {
            (0, u64::MAX) => None,
            (start, u64::MAX) => Some(format!("bytes={start}-")),
            (start, end) => Some(format!("bytes={start}-{}", end - 1)),
        };
        let (client, place) = self.enter("GetObject", path).await?;
        let get = client
            .get_object()
            .bucket(&options.bucket)
            .key(path)
            .set_range(wanted)
            .set_if_match(tag);
        let sent = get
            .set_expected_bucket_owner(options.bucket_owner.clone())
            .send()
            .await;
        Ok((
            sent.map_err(|error| S3Error::of(options, "GetObject", path, error))?,
            place,
        ))
    }

    /// What the store tells of an object.
    pub(super) async fn meta(&self, key: &Key) -> Result<Option<ObjectMeta>, S3Error> {
        let path = self.path(key.as_str());
        // An answer to HEAD has no body to say what is missing: it may be the bucket.
        if let Some(found) = self.head_object(key, &path).await? {
            return Ok(Some(found));
        }
        if self.is_absent(&path).await? {
            return Ok(None);
        }
        // It was put in between.
        let found = self.head_object(key, &path).await?;
        found.map(Some).ok_or_else(|| self.torn(&path))
    }

    /// The error that a store answers by HEAD what it does not by GET.
    pub(super) fn torn(&self, path: &str) -> S3Error {
        let why = "the object is there and is not";
        S3Error::bad_answer(&self.options, "HeadObject", path, why)
    }

    async fn head_object(&self, key: &Key, path: &str) -> Result<Option<ObjectMeta>, S3Error> {
        let Some(found) = self.head_output(path).await? else {
            return Ok(None);
        };
        Ok(Some(ObjectMeta {
            key: key.clone(),
            size: u64::try_from(found.content_length().unwrap_or(0)).unwrap_or(0),
            modified: self.time("HeadObject", path, found.last_modified())?,
            class: Some(class_name(found.storage_class())),
            encryption: encryption(found.server_side_encryption()),
        }))
    }

    /// An answer to HEAD; `None`: there is no such object, or no such bucket.
    pub(super) async fn head_output(
        &self,
        path: &str,
    ) -> Result<Option<HeadObjectOutput>, S3Error> {
        let options = &self.options;
        let (client, _place) = self.enter("HeadObject", path).await?;
        let head = client.head_object().bucket(&options.bucket).key(path);
        let sent = head
            .set_expected_bucket_owner(options.bucket_owner.clone())
            .send()
            .await;
        match sent {
            Ok(found) => Ok(Some(found)),
            Err(error) => match S3Error::of(options, "HeadObject", path, error) {
                error if error.has_status(404) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Whether the bucket is there and has no such object.
    async fn is_absent(&self, path: &str) -> Result<bool, S3Error> {
        match self.request(path, &(0..1), None).await {
            Ok(_) => Ok(false),
            Err(error) if error.says_absent() => Ok(true),
            Err(error) if error.says_beyond_end() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A time that the store must tell: without it nobody knows what is old.
    pub(super) fn time(
        &self,
        api: &'static str,
        path: &str,
        time: Option<&DateTime>,
    ) -> Result<SystemTime, S3Error> {
        time.map(system_time).ok_or_else(|| {
            S3Error::bad_answer(&self.options, api, path, "it tells no time of storing")
        })
    }
}

/// The place of a body's first byte: `bytes 5-9/10`; the object's begin without that header (RFC 9110, section 14.4).
fn first_byte(content_range: Option<&str>) -> Option<u64> {
    let Some(range) = content_range else {
        return Some(0);
    };
    range
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .parse()
        .ok()
}

/// A time of the store's clock.
pub(super) fn system_time(time: &DateTime) -> SystemTime {
    let seconds = u64::try_from(time.secs()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_an_answer_is_known_or_it_is_no_answer() {
        assert_eq!(first_byte(None), Some(0));
        assert_eq!(first_byte(Some("bytes 5-9/10")), Some(5));
        for wrong in ["", "bytes */10", "items 5-9/10", "bytes 5"] {
            assert_eq!(first_byte(Some(wrong)), None, "{wrong}");
        }
    }
}
