use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};

use super::get::system_time;
use super::put::condition;
use super::{S3Error, S3Storage, body, client};
use crate::storage::{IsOwnKey, Key, Part, PutMode, PutOutcome, Sent, StorageError, Upload};

/// An upload that was begun and is not completed yet.
#[derive(Debug)]
pub(super) struct S3Upload<'a> {
    storage: &'a S3Storage,
    key: Key,
    path: String,
    id: String,
    mode: PutMode,
}

#[async_trait]
impl Upload for S3Upload<'_> {
    async fn send(&self, part: Part) -> Result<Sent, StorageError> {
        self.storage
            .told("put", self.key.as_str(), self.send_part(part).await)
            .await
    }

    async fn complete(&self, parts: &[Sent]) -> Result<PutOutcome, StorageError> {
        self.storage
            .told("put", self.key.as_str(), self.join(parts).await)
            .await
    }

    async fn abort(&self) -> Result<(), StorageError> {
        self.storage
            .told(
                "put",
                self.key.as_str(),
                self.storage.abort(&self.path, &self.id).await,
            )
            .await
    }
}

impl S3Upload<'_> {
    async fn send_part(&self, part: Part) -> Result<Sent, S3Error> {
        let (storage, options, path) = (self.storage, &self.storage.options, self.path.as_str());
        let (sent, length) = (Sent::new(&part, None), part.body.len());
        let (client, _place) = storage.enter("UploadPart", path).await?;
        let send = client
            .upload_part()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(&self.id)
            .part_number(number(&sent))
            .content_length(length as i64)
            .checksum_sha256(body::in_base64(&part.digest))
            .body(body::stream(part.body))
            .set_expected_bucket_owner(options.bucket_owner.clone());
        let send = send
            .customize()
            .config_override(client::patience(options, length));
        let answer = send.interceptor(body::SignedOver(part.digest)).send().await;
        let answer = answer.map_err(|error| S3Error::of(options, "UploadPart", path, error))?;
        Ok(Sent {
            tag: answer.e_tag,
            ..sent
        })
    }

    async fn join(&self, parts: &[Sent]) -> Result<PutOutcome, S3Error> {
        // Sending took its time, and this stands in for the condition where a store ignores it at the end.
        if self.mode == PutMode::CreateOnly && self.storage.meta(&self.key).await?.is_some() {
            return Ok(PutOutcome::AlreadyExists);
        }
        let (options, path) = (&self.storage.options, self.path.as_str());
        let (client, _place) = self.storage.enter("CompleteMultipartUpload", path).await?;
        let parts = parts.iter().map(|sent| {
            let part = CompletedPart::builder()
                .part_number(number(sent))
                .set_e_tag(sent.tag.clone());
            part.checksum_sha256(body::in_base64(&sent.digest)).build()
        });
        let complete = client
            .complete_multipart_upload()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(&self.id)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts.collect()))
                    .build(),
            )
            .set_if_none_match(condition(options, self.mode))
            .set_expected_bucket_owner(options.bucket_owner.clone());
        match complete.send().await {
            Ok(_) => Ok(PutOutcome::Stored),
            Err(error) => match S3Error::of(options, "CompleteMultipartUpload", path, error) {
                error if error.says_taken() => Ok(PutOutcome::AlreadyExists),
                error => Err(error),
            },
        }
    }
}

/// S3 counts parts from 1, and refuses the first of more than it takes.
fn number(part: &Sent) -> i32 {
    i32::try_from(part.number).unwrap_or(i32::MAX - 1) + 1
}

impl S3Storage {
    /// Begins an upload; `None` if the key is taken.
    pub(super) async fn begin_upload(
        &self,
        key: &Key,
        mode: PutMode,
    ) -> Result<Option<S3Upload<'_>>, S3Error> {
        if mode == PutMode::CreateOnly && self.meta(key).await?.is_some() {
            return Ok(None);
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
        let created =
            create.map_err(|error| S3Error::of(options, "CreateMultipartUpload", &path, error))?;
        let id = created.upload_id.unwrap_or_default();
        Ok(Some(S3Upload {
            storage: self,
            key: key.clone(),
            path,
            id,
            mode,
        }))
    }

    pub(super) async fn abort(&self, path: &str, upload: &str) -> Result<(), S3Error> {
        let options = &self.options;
        let (client, _place) = self.enter("AbortMultipartUpload", path).await?;
        let abort = client
            .abort_multipart_upload()
            .bucket(&options.bucket)
            .key(path)
            .upload_id(upload);
        match abort
            .set_expected_bucket_owner(options.bucket_owner.clone())
            .send()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => match S3Error::of(options, "AbortMultipartUpload", path, error) {
                error if error.says_absent() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Gives up uploads of `ours` that were begun longer ago than `age` and never completed; how many there were.
    pub(super) async fn abort_uploads_older_than(
        &self,
        age: Duration,
        ours: IsOwnKey<'_>,
    ) -> Result<u64, S3Error> {
        let options = &self.options;
        let before = SystemTime::now() - age;
        let (mut key_marker, mut upload_marker, mut aborted) = (None, None, 0);
        loop {
            let sent = {
                let (client, _place) = self.enter("ListMultipartUploads", &options.prefix).await?;
                let list = client
                    .list_multipart_uploads()
                    .bucket(&options.bucket)
                    .prefix(&options.prefix);
                let list = list
                    .set_key_marker(key_marker)
                    .set_upload_id_marker(upload_marker);
                list.set_expected_bucket_owner(options.bucket_owner.clone())
                    .send()
                    .await
            };
            let found = sent.map_err(|error| {
                S3Error::of(options, "ListMultipartUploads", &options.prefix, error)
            })?;
            for upload in found.uploads() {
                let old = upload
                    .initiated()
                    .is_some_and(|begun| system_time(begun) < before);
                let is_ours = |path: &&str| {
                    let name = path
                        .strip_prefix(&options.prefix)
                        .and_then(|name| Key::new(name).ok());
                    name.is_some_and(|key| ours(&key))
                };
                if let (true, Some(path), Some(id)) =
                    (old, upload.key().filter(is_ours), upload.upload_id())
                {
                    self.abort(path, id).await?;
                    aborted += 1;
                }
            }
            if !found.is_truncated().unwrap_or(false) {
                return Ok(aborted);
            }
            if found.next_key_marker.is_none() {
                let why = "the listing is cut and does not say where it goes on";
                return Err(S3Error::bad_answer(
                    options,
                    "ListMultipartUploads",
                    &options.prefix,
                    why,
                ));
            }
            (key_marker, upload_marker) = (found.next_key_marker, found.next_upload_id_marker);
        }
    }
}
