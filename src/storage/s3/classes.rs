use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, GlacierJobParameters, MetadataDirective,
    RestoreRequest, StorageClass, TaggingDirective, Tier,
};
use chrono::DateTime;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{S3Error, S3Storage, client};
use crate::storage::classes::{
    ClassChange, Readability, STANDARD, ThawOrder, ThawSpeed, ThawStarted, may_be_cold,
};
use crate::storage::{Key, ObjectMeta};

/// S3 copies no more by one request.
const MOST_AT_ONCE: u64 = 5 << 30;
/// S3 takes no more parts.
const MOST_PARTS: u64 = 10_000;
/// Parts of one object under way at once.
const PARTS_AT_ONCE: usize = 4;

/// The class that a store tells; it does not tell the usual one.
pub(super) fn class_name(class: Option<&StorageClass>) -> String {
    class.map_or(STANDARD, StorageClass::as_str).to_string()
}

/// Bytes of one part, and of the last one what is left.
fn part_size(size: u64, threshold: u64) -> u64 {
    size.div_ceil(MOST_PARTS).max(threshold).min(MOST_AT_ONCE)
}

/// An object that is copied onto itself.
struct Source<'a> {
    path: &'a str,
    head: HeadObjectOutput,
    class: StorageClass,
}

impl Source<'_> {
    fn size(&self) -> u64 {
        u64::try_from(self.head.content_length().unwrap_or(0)).unwrap_or(0)
    }
}

/// A path as the header of a copy's source has it.
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.bytes()
        .map(|b| match plain(b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect()
}

impl S3Storage {
    /// Moves an object to a class by copying it onto itself.
    pub(super) async fn move_to(
        &self,
        object: &ObjectMeta,
        class: &str,
    ) -> Result<ClassChange, S3Error> {
        let (key, path) = (&object.key, self.path(object.key.as_str()));
        let Some(head) = self.head_output(&path).await? else {
            return match self.meta(key).await? {
                None => Ok(ClassChange::Absent),
                Some(_) => Err(self.torn(&path)),
            };
        };
        if class_name(head.storage_class()) == class {
            return Ok(ClassChange::AlreadyThere);
        }
        let source = Source {
            path: &path,
            head,
            class: class.into(),
        };
        match source.size() {
            size if size < self.options.multipart_threshold.min(MOST_AT_ONCE) => {
                self.copy_whole(&source).await?;
            }
            size => self.copy_in_parts(&source, size).await?,
        }
        self.check_moved(&source).await?;
        Ok(ClassChange::Moved)
    }

    /// What a store answers is not always what it did.
    async fn check_moved(&self, source: &Source<'_>) -> Result<(), S3Error> {
        let found = self.head_output(source.path).await?;
        let is_moved = found.as_ref().is_some_and(|found| {
            found.content_length() == source.head.content_length()
                && class_name(found.storage_class()) == source.class.as_str()
                && found.server_side_encryption() == source.head.server_side_encryption()
        });
        match is_moved {
            true => Ok(()),
            false => {
                let why = "the store says that it copied the object, and did not as it was asked";
                Err(S3Error::bad_answer(
                    &self.options,
                    "CopyObject",
                    source.path,
                    why,
                ))
            }
        }
    }

    fn copy_source(&self, source: &Source<'_>) -> String {
        format!("{}/{}", self.options.bucket, encoded(source.path))
    }

    async fn copy_whole(&self, source: &Source<'_>) -> Result<(), S3Error> {
        let (options, path, head) = (&self.options, source.path, &source.head);
        let (client, _place) = self.enter("CopyObject", path).await?;
        let copy = client
            .copy_object()
            .bucket(&options.bucket)
            .key(path)
            .copy_source(self.copy_source(source))
            // What was looked at, and nothing that came in its place.
            .set_copy_source_if_match(head.e_tag.clone())
            .metadata_directive(MetadataDirective::Copy)
            .tagging_directive(TaggingDirective::Copy)
            .storage_class(source.class.clone())
            .set_server_side_encryption(head.server_side_encryption.clone())
            .set_ssekms_key_id(head.ssekms_key_id.clone())
            .set_bucket_key_enabled(head.bucket_key_enabled)
            .set_expected_bucket_owner(options.bucket_owner.clone())
            .set_expected_source_bucket_owner(options.bucket_owner.clone())
            .customize()
            .config_override(client::patience(options, source.size()));
        let copied = copy.send().await;
        copied.map_err(|error| S3Error::of(options, "CopyObject", path, error))?;
        Ok(())
    }

    async fn copy_in_parts(&self, source: &Source<'_>, size: u64) -> Result<(), S3Error> {
        let id = self.begin_copy(source).await?;
        let copied = self.copy_parts(source, size, &id).await;
        let copied = match copied {
            Ok(parts) => self.join_copies(source, &id, parts).await,
            Err(error) => Err(error),
        };
        if copied.is_err()
            && let Err(error) = self.abort(source.path, &id).await
        {
            // It is swept later.
            tracing::debug!("{error}");
        }
        copied
    }

    async fn begin_copy(&self, source: &Source<'_>) -> Result<String, S3Error> {
        let (options, path, head) = (&self.options, source.path, &source.head);
        let (client, _place) = self.enter("CreateMultipartUpload", path).await?;
        let create = client
            .create_multipart_upload()
            .bucket(&options.bucket)
            .key(path)
            .set_metadata(head.metadata.clone())
            .set_content_type(head.content_type.clone())
            .storage_class(source.class.clone())
            .set_server_side_encryption(head.server_side_encryption.clone())
            .set_ssekms_key_id(head.ssekms_key_id.clone())
            .set_bucket_key_enabled(head.bucket_key_enabled)
            .set_expected_bucket_owner(options.bucket_owner.clone());
        let created = create.send().await;
        let created =
            created.map_err(|error| S3Error::of(options, "CreateMultipartUpload", path, error))?;
        Ok(created.upload_id.unwrap_or_default())
    }

    async fn copy_parts(
        &self,
        source: &Source<'_>,
        size: u64,
        id: &str,
    ) -> Result<Vec<CompletedPart>, S3Error> {
        let part = part_size(size, self.options.multipart_threshold);
        let copies = (0..size).step_by(usize::try_from(part).unwrap_or(usize::MAX));
        let copies = copies.zip(1..).map(|(begin, number)| async move {
            let end = size.min(begin + part) - 1;
            self.copy_part(source, id, number, format!("bytes={begin}-{end}"))
                .await
        });
        stream::iter(copies)
            .buffered(PARTS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn copy_part(
        &self,
        source: &Source<'_>,
        id: &str,
        number: i32,
        range: String,
    ) -> Result<CompletedPart, S3Error> {
        let (options, path) = (&self.options, source.path);
        let (client, _place) = self.enter("UploadPartCopy", path).await?;
        let copy = client
            .upload_part_copy()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(id)
            .part_number(number)
            .copy_source(self.copy_source(source))
            .copy_source_range(range)
            .set_copy_source_if_match(source.head.e_tag.clone())
            .set_expected_bucket_owner(options.bucket_owner.clone())
            .set_expected_source_bucket_owner(options.bucket_owner.clone())
            .customize()
            .config_override(client::patience(options, source.size()));
        let copied = copy.send().await;
        let copied = copied.map_err(|error| S3Error::of(options, "UploadPartCopy", path, error))?;
        let tag = copied.copy_part_result.and_then(|part| part.e_tag);
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(tag)
            .build())
    }

    async fn join_copies(
        &self,
        source: &Source<'_>,
        id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), S3Error> {
        let (options, path) = (&self.options, source.path);
        let (client, _place) = self.enter("CompleteMultipartUpload", path).await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let complete = client
            .complete_multipart_upload()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(id)
            .multipart_upload(parts.build())
            .set_expected_bucket_owner(options.bucket_owner.clone());
        let completed = complete.send().await;
        completed.map_err(|error| S3Error::of(options, "CompleteMultipartUpload", path, error))?;
        Ok(())
    }

    /// Orders that an object becomes readable.
    pub(super) async fn order_thaw(
        &self,
        key: &Key,
        order: ThawOrder,
    ) -> Result<ThawStarted, S3Error> {
        let (options, path) = (&self.options, self.path(key.as_str()));
        let Some(meta) = self.meta(key).await? else {
            return Ok(ThawStarted::Absent);
        };
        // Objects that tier by themselves move back for good.
        let days = (meta.class.as_deref() != Some("INTELLIGENT_TIERING"))
            .then(|| i32::try_from(order.days).unwrap_or(i32::MAX));
        let tier = match order.speed {
            ThawSpeed::Bulk => Tier::Bulk,
            ThawSpeed::Standard => Tier::Standard,
            ThawSpeed::Expedited => Tier::Expedited,
        };
        let job = GlacierJobParameters::builder().tier(tier).build().ok();
        let request = RestoreRequest::builder()
            .set_days(days)
            .set_glacier_job_parameters(job)
            .build();
        let (client, _place) = self.enter("RestoreObject", &path).await?;
        let restore = client
            .restore_object()
            .bucket(&options.bucket)
            .key(&path)
            .restore_request(request)
            .set_expected_bucket_owner(options.bucket_owner.clone());
        match restore.send().await {
            Ok(_) => Ok(ThawStarted::Ordered),
            Err(error) => match S3Error::of(options, "RestoreObject", &path, error) {
                error if error.says_thawing() => Ok(ThawStarted::Ordered),
                error if error.says_cold() => Ok(ThawStarted::NotCold),
                error if error.says_absent() => Ok(ThawStarted::Absent),
                error => Err(error),
            },
        }
    }

    /// Whether an object can be read now: the store is asked for a byte where only that tells.
    pub(super) async fn is_readable(&self, key: &Key) -> Result<Option<Readability>, S3Error> {
        let path = self.path(key.as_str());
        let Some(head) = self.head_output(&path).await? else {
            return Ok(self.meta(key).await?.map(|_| Readability::Now));
        };
        if let Some(told) = head.restore().and_then(thawing) {
            return Ok(Some(told));
        }
        if head.archive_status().is_some() {
            return Ok(Some(Readability::Cold));
        }
        let class = head.storage_class().map(StorageClass::as_str);
        if !may_be_cold(class) || class == Some("INTELLIGENT_TIERING") {
            return Ok(Some(Readability::Now));
        }
        match self.request(&path, &(0..1), None).await {
            Err(error) if error.says_cold() => Ok(Some(Readability::Cold)),
            Err(error) if error.says_absent() => Ok(None),
            Err(error) if !error.says_beyond_end() => Err(error),
            _ => Ok(Some(Readability::Now)),
        }
    }
}

/// The header `x-amz-restore`: `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
fn thawing(header: &str) -> Option<Readability> {
    if header.contains("ongoing-request=\"true\"") {
        return Some(Readability::Thawing);
    }
    let date = header.split_once("expiry-date=\"")?.1.split('"').next()?;
    let until = DateTime::parse_from_rfc2822(date).ok()?.timestamp();
    let until = Duration::from_secs(u64::try_from(until).unwrap_or(0));
    Some(Readability::Until(SystemTime::UNIX_EPOCH + until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_thawing_is_read_from_the_header() {
        assert_eq!(
            thawing("ongoing-request=\"true\""),
            Some(Readability::Thawing)
        );
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_356_048_000);
        assert_eq!(
            thawing("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\""),
            Some(Readability::Until(until))
        );
        for odd in ["", "ongoing-request=\"false\"", "expiry-date=\"soon\""] {
            assert_eq!(thawing(odd), None, "{odd}");
        }
    }

    #[test]
    fn parts_of_a_copy_are_neither_too_many_nor_too_large() {
        let tib = 1 << 40;
        for (size, threshold) in [(tib, 64 << 20), (48 * tib, 64 << 20), (10 << 30, 5 << 30)] {
            let part = part_size(size, threshold);
            assert!(part <= MOST_AT_ONCE && size.div_ceil(part) <= MOST_PARTS);
        }
        assert_eq!(part_size(1 << 30, 64 << 20), 64 << 20);
    }

    #[test]
    fn a_source_is_written_as_a_header_takes_it() {
        assert_eq!(encoded("a b/ü+%.zst"), "a%20b/%C3%BC%2B%25.zst");
    }
}
