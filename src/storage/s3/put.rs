use aws_sdk_s3::types::ServerSideEncryption;

use super::{CreateOnly, S3Error, S3Options, S3Storage, body, client};
use crate::storage::parts::digest;
use crate::storage::{Body, Key, PutMode, PutOutcome};

impl S3Storage {
    /// Stores an object by one request.
    pub(super) async fn put_whole(
        &self,
        key: &Key,
        content: Body,
        mode: PutMode,
    ) -> Result<PutOutcome, S3Error> {
        if self.is_taken(key, mode).await? {
            return Ok(PutOutcome::AlreadyExists);
        }
        let (options, path) = (&self.options, self.path(key.as_str()));
        let (digest, length) = (digest(&content).await, content.len());
        let (client, _place) = self.enter("PutObject", &path).await?;
        let put = client
            .put_object()
            .bucket(&options.bucket)
            .key(&path)
            .content_length(length as i64)
            .checksum_sha256(body::in_base64(&digest))
            .body(body::stream(content))
            .set_if_none_match(condition(options, mode))
            .set_storage_class(self.class(key.as_str()))
            .set_server_side_encryption(options.encryption.clone())
            .set_ssekms_key_id(options.kms_key.clone())
            .set_expected_bucket_owner(options.bucket_owner.clone());
        let put = put
            .customize()
            .config_override(client::patience(options, length));
        match put.interceptor(body::SignedOver(digest)).send().await {
            Ok(_) => Ok(PutOutcome::Stored),
            Err(error) => match S3Error::of(options, "PutObject", &path, error) {
                error if error.says_taken() => Ok(PutOutcome::AlreadyExists),
                error => Err(error),
            },
        }
    }

    /// Looks for an object where the store itself would not.
    pub(super) async fn is_taken(&self, key: &Key, mode: PutMode) -> Result<bool, S3Error> {
        let look =
            mode == PutMode::CreateOnly && self.options.create_only == CreateOnly::HeadThenPut;
        Ok(look && self.meta(key).await?.is_some())
    }

    /// Removes an object.
    pub(super) async fn remove(&self, key: &Key) -> Result<(), S3Error> {
        let (options, path) = (&self.options, self.path(key.as_str()));
        let (client, _place) = self.enter("DeleteObject", &path).await?;
        let delete = client.delete_object().bucket(&options.bucket).key(&path);
        match delete
            .set_expected_bucket_owner(options.bucket_owner.clone())
            .send()
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => match S3Error::of(options, "DeleteObject", &path, error) {
                error if error.says_absent() => Ok(()),
                error => Err(error),
            },
        }
    }
}

/// The header that lets the store decide.
pub(super) fn condition(options: &S3Options, mode: PutMode) -> Option<String> {
    let conditional = mode == PutMode::CreateOnly && options.create_only == CreateOnly::Conditional;
    conditional.then(|| "*".to_string())
}

/// The encryption as text.
pub(super) fn encryption(kind: Option<&ServerSideEncryption>) -> Option<String> {
    kind.map(|kind| kind.as_str().to_string())
}
