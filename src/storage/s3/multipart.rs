use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::get::system_time;
use super::put::condition;
use super::{S3Error, S3Storage, body, client};
use crate::storage::{Body, Key, Ours, PutMode, PutOutcome};

/// Bytes of a part; S3 takes 5 MiB to 5 GiB, and 10,000 parts.
const PART: u64 = 16 << 20;
/// Parts of one object under way at once.
const AT_ONCE: usize = 4;
/// For giving up an upload that failed.
const ABORT: Duration = Duration::from_secs(10);

impl S3Storage {
    /// Stores an object in parts, visible when the last step is done.
    pub(super) async fn put_parts(&self, key: &Key, content: &Body, mode: PutMode) -> Result<PutOutcome, S3Error> {
        // Spares sending what is there already, and stands in for the condition where a store ignores it at the end.
        if mode == PutMode::CreateOnly && self.meta(key).await?.is_some() {
            return Ok(PutOutcome::AlreadyExists);
        }
        let (options, path) = (&self.options, self.path(key.as_str()));
        let create = {
            let (client, _place) = self.enter("CreateMultipartUpload", &path).await?;
            client
                .create_multipart_upload()
                .bucket(&options.bucket)
                .key(&path)
                .checksum_algorithm(ChecksumAlgorithm::Sha256)
                .set_storage_class(self.class(key.as_str()))
                .set_server_side_encryption(options.encryption.clone())
                .set_ssekms_key_id(options.kms_key.clone())
                .set_expected_bucket_owner(options.bucket_owner.clone())
                .send()
                .await
        };
        let created = create.map_err(|error| S3Error::of(options, "CreateMultipartUpload", &path, error))?;
        let upload = created.upload_id().unwrap_or_default();
        let outcome = async {
            let parts = self.send_parts(&path, upload, content).await?;
            // Sending took its time.
            if mode == PutMode::CreateOnly && self.meta(key).await?.is_some() {
                return Ok(PutOutcome::AlreadyExists);
            }
            self.complete(&path, upload, parts, mode).await
        };
        let outcome = outcome.await;
        if !matches!(outcome, Ok(PutOutcome::Stored)) {
            // Best effort: what is left is swept later.
            let _ = tokio::time::timeout(ABORT, self.abort(&path, upload)).await;
        }
        outcome
    }

    async fn send_parts(&self, path: &str, upload: &str, content: &Body) -> Result<Vec<CompletedPart>, S3Error> {
        let count = content.len().div_ceil(PART);
        let sends = (0..count).map(|number| {
            let range = number * PART..content.len().min((number + 1) * PART);
            self.send_part(path, upload, number as i32 + 1, content.slice(range))
        });
        stream::iter(sends).buffered(AT_ONCE).try_collect().await
    }

    async fn send_part(&self, path: &str, upload: &str, number: i32, part: Body) -> Result<CompletedPart, S3Error> {
        let options = &self.options;
        let (digest, length) = (body::digest(&part).await, part.len());
        let checksum = body::in_base64(&digest);
        let (client, _place) = self.enter("UploadPart", path).await?;
        let send = client
            .upload_part()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(upload)
            .part_number(number)
            .content_length(length as i64)
            .checksum_sha256(&checksum)
            .body(body::stream(part))
            .set_expected_bucket_owner(options.bucket_owner.clone());
        let send = send.customize().config_override(client::patience(options, length));
        let sent = send.interceptor(body::SignedOver(digest)).send().await;
        let sent = sent.map_err(|error| S3Error::of(options, "UploadPart", path, error))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).checksum_sha256(checksum).build())
    }

    async fn complete(
        &self,
        path: &str,
        upload: &str,
        parts: Vec<CompletedPart>,
        mode: PutMode,
    ) -> Result<PutOutcome, S3Error> {
        let options = &self.options;
        let (client, _place) = self.enter("CompleteMultipartUpload", path).await?;
        let complete = client
            .complete_multipart_upload()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_none_match(condition(options, mode))
            .set_expected_bucket_owner(options.bucket_owner.clone());
        match complete.send().await {
            Ok(_) => Ok(PutOutcome::Stored),
            Err(error) => match S3Error::of(options, "CompleteMultipartUpload", path, error) {
                error if error.says_taken() => Ok(PutOutcome::AlreadyExists),
                error => Err(error),
            },
        }
    }

    async fn abort(&self, path: &str, upload: &str) -> Result<(), S3Error> {
        let options = &self.options;
        let (client, _place) = self.enter("AbortMultipartUpload", path).await?;
        let abort = client.abort_multipart_upload().bucket(&options.bucket).key(path).upload_id(upload);
        match abort.set_expected_bucket_owner(options.bucket_owner.clone()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match S3Error::of(options, "AbortMultipartUpload", path, error) {
                error if error.says_absent() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Gives up uploads of `ours` that were begun longer ago than `age` and never completed; how many there were.
    pub(super) async fn abort_uploads_older_than(&self, age: Duration, ours: Ours<'_>) -> Result<u64, S3Error> {
        let options = &self.options;
        let before = SystemTime::now() - age;
        let (mut key_marker, mut upload_marker, mut aborted) = (None, None, 0);
        loop {
            let sent = {
                let (client, _place) = self.enter("ListMultipartUploads", &options.prefix).await?;
                let list = client.list_multipart_uploads().bucket(&options.bucket).prefix(&options.prefix);
                let list = list.set_key_marker(key_marker).set_upload_id_marker(upload_marker);
                list.set_expected_bucket_owner(options.bucket_owner.clone()).send().await
            };
            let found = sent.map_err(|error| S3Error::of(options, "ListMultipartUploads", &options.prefix, error))?;
            for upload in found.uploads() {
                let old = upload.initiated().is_some_and(|begun| system_time(begun) < before);
                let is_ours = |path: &&str| {
                    let name = path.strip_prefix(&options.prefix).and_then(|name| Key::new(name).ok());
                    name.is_some_and(|key| ours(&key))
                };
                if let (true, Some(path), Some(id)) = (old, upload.key().filter(is_ours), upload.upload_id()) {
                    self.abort(path, id).await?;
                    aborted += 1;
                }
            }
            if !found.is_truncated().unwrap_or(false) {
                return Ok(aborted);
            }
            if found.next_key_marker.is_none() {
                let why = "the listing is cut and does not say where it goes on";
                return Err(S3Error::bad_answer(options, "ListMultipartUploads", &options.prefix, why));
            }
            (key_marker, upload_marker) = (found.next_key_marker, found.next_upload_id_marker);
        }
    }
}
