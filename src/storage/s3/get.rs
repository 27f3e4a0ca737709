use std::ops::Range;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use bytes::{Bytes, BytesMut};
use tokio::sync::SemaphorePermit;

use super::put::encryption;
use super::{S3Error, S3Storage};
use crate::storage::{Key, ObjectMeta};

/// A body whose connection broke is continued when at least so many bytes of it came; else the whole read is repeated.
const PROGRESS: usize = 64 << 10;

impl S3Storage {
    /// Bytes of an object. A body whose connection breaks is asked for again from there, from the same object.
    pub(super) async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, S3Error> {
        if range.start >= range.end {
            return Ok(self.meta(key).await?.map(|_| Bytes::new()));
        }
        let path = self.path(key.as_str());
        let mut got = BytesMut::new();
        let mut tag = None;
        loop {
            let before = got.len();
            let rest = range.start + before as u64..range.end;
            let (mut response, _place) = match self.request(&path, &rest, tag.clone()).await {
                Ok(response) => response,
                Err(error) if before == 0 && error.says_absent() => return Ok(None),
                Err(error) if before == 0 && error.says_beyond_end() => return Ok(Some(Bytes::new())),
                Err(error) => return Err(error),
            };
            got.reserve(response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
            tag = response.e_tag().map(str::to_string);
            let broken = loop {
                match response.body.try_next().await {
                    Ok(Some(piece)) => got.extend_from_slice(&piece),
                    Ok(None) => return Ok(Some(got.freeze())),
                    Err(error) => break error,
                }
            };
            if got.len() - before < PROGRESS || tag.is_none() {
                return Err(S3Error::cut(&self.options, "GetObject", &path, &broken));
            }
            tracing::debug!("GetObject of \"{path}\": the connection broke: {broken}: going on at {}", got.len());
        }
    }

    /// Begins to read, from an object that still has `tag`.
    async fn request(
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
        let get = client.get_object().bucket(&options.bucket).key(path).set_range(wanted).set_if_match(tag);
        let sent = get.set_expected_bucket_owner(options.bucket_owner.clone()).send().await;
        Ok((sent.map_err(|error| S3Error::of(options, "GetObject", path, error))?, place))
    }

    /// What the store tells of an object.
    pub(super) async fn meta(&self, key: &Key) -> Result<Option<ObjectMeta>, S3Error> {
        let (options, path) = (&self.options, self.path(key.as_str()));
        let sent = {
            let (client, _place) = self.enter("HeadObject", &path).await?;
            let head = client.head_object().bucket(&options.bucket).key(&path);
            head.set_expected_bucket_owner(options.bucket_owner.clone()).send().await
        };
        let found = match sent {
            Ok(found) => found,
            Err(error) => {
                let error = S3Error::of(options, "HeadObject", &path, error);
                return match error.has_status(404) {
                    // An answer to HEAD has no body to say what is missing: it may be the bucket.
                    true => self.confirm_absent(&path).await.map(|()| None),
                    false => Err(error),
                };
            }
        };
        Ok(Some(ObjectMeta {
            key: key.clone(),
            size: u64::try_from(found.content_length().unwrap_or(0)).unwrap_or(0),
            modified: found.last_modified().map_or(SystemTime::UNIX_EPOCH, system_time),
            class: found.storage_class().map(|class| class.as_str().to_string()),
            encryption: encryption(found.server_side_encryption()),
        }))
    }

    /// Makes sure that the bucket is there. An object that appeared since was absent when it was asked for.
    async fn confirm_absent(&self, path: &str) -> Result<(), S3Error> {
        match self.request(path, &(0..1), None).await {
            Err(error) if !error.says_absent() && !error.says_beyond_end() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A time of the store's clock.
pub(super) fn system_time(time: &DateTime) -> SystemTime {
    let seconds = u64::try_from(time.secs()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, time.subsec_nanos())
}
