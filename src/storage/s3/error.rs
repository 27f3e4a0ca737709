use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;

use super::S3Options;
use crate::error::with_hint;
use crate::storage::classes::ObjectIsCold;

/// A request that failed: which, on what, and what came back.
#[derive(Debug)]
pub struct S3Error {
    /// S3's name of the operation.
    api: &'static str,
    bucket: String,
    /// The object's full key, or the prefix of a listing.
    path: String,
    endpoint: Option<String>,
    what: Cause,
}

#[derive(Debug)]
enum Cause {
    /// The store answered.
    Answer(Box<ErrorResponse>),
    /// It was asked, and did not answer, or not to the end.
    NoAnswer(String),
    /// It answered something that cannot be used.
    BadAnswer(String),
    /// There are no credentials to ask with. `lasting`: there is nowhere to look for them.
    NoCredentials { why: String, lasting: bool },
    /// It could not be asked.
    NotAsked(String),
}

/// What S3 says of an error (Amazon S3 API Reference, "Error responses").
#[derive(Debug, Default)]
struct ErrorResponse {
    status: u16,
    code: String,
    message: String,
    request_id: String,
    /// The region that the bucket is in, when the store says that it is another one.
    region: Option<String>,
}

/// Which error an answer tells of; decides the hint and whether to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorKind {
    Credentials,
    Expired,
    ClockSkew,
    Region,
    NoBucket,
    Denied,
    Busy,
    Encryption,
    StorageClass,
    NotReadable,
    Unsupported,
    Other,
}

impl S3Error {
    /// Of the client's error.
    pub(super) fn of<E>(
        options: &S3Options,
        api: &'static str,
        path: &str,
        error: SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let request_id = error.request_id().unwrap_or_default().to_string();
        let what = match &error {
            SdkError::ServiceError(service) => {
                let (raw, meta) = (service.raw(), service.err().meta());
                let header = raw.headers().get("x-amz-bucket-region").map(str::to_string);
                Cause::Answer(Box::new(ErrorResponse {
                    status: raw.status().as_u16(),
                    code: meta.code().unwrap_or_default().to_string(),
                    message: meta.message().unwrap_or_default().to_string(),
                    request_id,
                    region: header,
                }))
            }
            SdkError::ResponseError(response) => Cause::Answer(Box::new(ErrorResponse {
                status: response.raw().status().as_u16(),
                message: format!("the answer cannot be understood: {}", chain(&error)),
                request_id,
                ..ErrorResponse::default()
            })),
            _ => match credentials(&error) {
                Some(cause) => Cause::NoCredentials {
                    why: chain(cause),
                    lasting: matches!(
                        cause,
                        CredentialsError::CredentialsNotLoaded(_)
                            | CredentialsError::InvalidConfiguration(_)
                    ),
                },
                None if matches!(error, SdkError::ConstructionFailure(_)) => {
                    Cause::NotAsked(chain(&error))
                }
                None => Cause::NoAnswer(chain(&error)),
            },
        };
        Self::new(options, api, path, what)
    }

    /// The request was not made.
    pub(super) fn before(options: &S3Options, api: &'static str, path: &str, why: &str) -> Self {
        Self::new(options, api, path, Cause::NotAsked(why.to_string()))
    }

    /// What came cannot be used; asking again may bring what can.
    pub(super) fn bad_answer(
        options: &S3Options,
        api: &'static str,
        path: &str,
        why: &str,
    ) -> Self {
        Self::new(options, api, path, Cause::BadAnswer(why.to_string()))
    }

    /// The answer did not come to its end; asking again may bring it.
    pub(super) fn no_answer(options: &S3Options, api: &'static str, path: &str, why: &str) -> Self {
        Self::new(options, api, path, Cause::NoAnswer(why.to_string()))
    }

    fn new(options: &S3Options, api: &'static str, path: &str, what: Cause) -> Self {
        let (bucket, endpoint) = (options.bucket.clone(), options.endpoint.clone());
        Self {
            api,
            bucket,
            path: path.to_string(),
            endpoint,
            what,
        }
    }

    fn answer(&self) -> Option<&ErrorResponse> {
        match &self.what {
            Cause::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        self.answer()
            .is_some_and(|answer| codes.contains(&answer.code.as_str()))
    }

    /// Whether the store answered with this HTTP status.
    pub(super) fn has_status(&self, status: u16) -> bool {
        self.answer().is_some_and(|answer| answer.status == status)
    }

    /// The condition of a put does not hold: the key is taken.
    pub(super) fn says_taken(&self) -> bool {
        self.has_status(412)
    }

    /// The bucket is there and has no such object or upload.
    pub(super) fn says_absent(&self) -> bool {
        self.has_status(404) && self.has_code(&["NoSuchKey", "NoSuchUpload"])
    }

    /// The object must be thawed first; of an order to thaw it: its class needs none.
    pub(super) fn says_cold(&self) -> bool {
        self.answer()
            .is_some_and(|answer| answer.kind() == ErrorKind::NotReadable)
    }

    /// It is being thawed already.
    pub(super) fn says_thawing(&self) -> bool {
        self.has_code(&["RestoreAlreadyInProgress"])
    }

    /// The bucket has no lifecycle.
    pub(super) fn says_no_lifecycle(&self) -> bool {
        self.has_code(&["NoSuchLifecycleConfiguration"])
    }

    /// The store does not know the request.
    pub(super) fn says_unsupported(&self) -> bool {
        self.answer()
            .is_some_and(|answer| answer.kind() == ErrorKind::Unsupported)
    }

    /// The range begins behind the object's end.
    pub(super) fn says_beyond_end(&self) -> bool {
        self.has_status(416)
    }

    /// Whether other credentials would help.
    pub(super) fn is_about_credentials(&self) -> bool {
        match &self.what {
            // An answer to HEAD does not say why it refuses.
            Cause::Answer(answer) if answer.code.is_empty() => {
                matches!(answer.status, 400 | 401 | 403)
            }
            Cause::Answer(answer) => {
                matches!(answer.kind(), ErrorKind::Credentials | ErrorKind::Expired)
            }
            Cause::NoCredentials { .. } => true,
            Cause::NoAnswer(_) | Cause::BadAnswer(_) | Cause::NotAsked(_) => false,
        }
    }

    /// Whether asking again soon cannot help.
    pub(super) fn is_lasting(&self) -> bool {
        match &self.what {
            Cause::Answer(answer) => match answer.kind() {
                // New ones may lie where they are read from.
                ErrorKind::Expired | ErrorKind::Busy => false,
                // Without a code the answer did not arrive whole, or was to a request whose answer has no body.
                ErrorKind::Other => (400..500).contains(&answer.status) && !answer.code.is_empty(),
                _ => true,
            },
            Cause::NoAnswer(why) => is_about_certificates(why),
            Cause::BadAnswer(_) => false,
            Cause::NoCredentials { lasting, .. } => *lasting,
            Cause::NotAsked(_) => true,
        }
    }

    /// The error with the next step.
    pub(super) fn with_hint(self) -> anyhow::Error {
        let hint = self.hint();
        with_hint(self.into(), hint)
    }

    fn hint(&self) -> String {
        let bucket = &self.bucket;
        match &self.what {
            Cause::Answer(answer) => answer.hint(self.api, bucket),
            Cause::NoAnswer(why) if is_about_certificates(why) => {
                "the server's certificate is not trusted: name the authority's certificate in `s3.ca_file`".into()
            }
            Cause::NoAnswer(_) => match &self.endpoint {
                Some(endpoint) => {
                    format!("check that \"{endpoint}\" (`s3.endpoint`) is right and can be reached from here")
                }
                None => {
                    "check the network from here to Amazon S3, and `s3.region`; for another store set `s3.endpoint`"
                        .into()
                }
            },
            Cause::BadAnswer(_) => "it is asked again; when this goes on, `walden check` tests the store".into(),
            Cause::NoCredentials { .. } => {
                "set `s3.access_key_id` and `s3.secret_access_key`, or give AWS_ACCESS_KEY_ID, a profile, \
                 web identity or an instance role"
                    .into()
            }
            Cause::NotAsked(_) => "check the settings of section `s3`".into(),
        }
    }
}

impl ErrorResponse {
    fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "InvalidSecurity" => ErrorKind::Credentials,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => ErrorKind::Expired,
            "RequestTimeTooSkewed" => ErrorKind::ClockSkew,
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                ErrorKind::Region
            }
            "NoSuchBucket" => ErrorKind::NoBucket,
            "SlowDown"
            | "Throttling"
            | "ServiceUnavailable"
            | "InternalError"
            | "RequestTimeout"
            | "ConditionalRequestConflict"
            | "TemporaryRedirect"
            // Bytes were lost or changed on their way there.
            | "IncompleteBody"
            | "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "OperationAborted" => ErrorKind::Busy,
            "InvalidStorageClass" => ErrorKind::StorageClass,
            "InvalidObjectState" | "ObjectNotInActiveTierError" => ErrorKind::NotReadable,
            "NotImplemented" => ErrorKind::Unsupported,
            code if code.starts_with("KMS.") => ErrorKind::Encryption,
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => ErrorKind::Denied,
            _ => match self.status {
                301 => ErrorKind::Region,
                401 | 403 => ErrorKind::Denied,
                307 | 408 | 409 | 429 | 500 | 502..=599 => ErrorKind::Busy,
                501 => ErrorKind::Unsupported,
                _ => ErrorKind::Other,
            },
        }
    }

    /// Ceph says of an unknown class only that an argument is wrong; a copy has no other.
    fn kind_of(&self, api: &str) -> ErrorKind {
        match (api, self.code.as_str()) {
            ("CopyObject", "InvalidArgument") => ErrorKind::StorageClass,
            _ => self.kind(),
        }
    }

    fn hint(&self, api: &str, bucket: &str) -> String {
        match self.kind_of(api) {
            ErrorKind::Credentials => {
                "check `s3.access_key_id` and `s3.secret_access_key`, or where the standard chain finds them".into()
            }
            ErrorKind::Expired => {
                "renew the credentials: they have expired; a token in the environment needs a restart".into()
            }
            ErrorKind::ClockSkew => {
                "this machine's clock differs too much from the store's: set it right (`timedatectl`, NTP)".into()
            }
            ErrorKind::Region => match &self.region {
                Some(region) => format!("the bucket is in region \"{region}\": set `s3.region` to it"),
                None => "set `s3.region` to the bucket's region; the message may name it".into(),
            },
            ErrorKind::NoBucket => {
                format!(
                    "make bucket \"{bucket}\", or correct `repository.url`; with a server of your own check `s3.endpoint`, too"
                )
            }
            ErrorKind::Denied => format!(
                "allow this user {} on bucket \"{bucket}\"; Walden needs s3:ListBucket, \
                 s3:ListBucketMultipartUploads, s3:GetObject, s3:PutObject and s3:AbortMultipartUpload (without s3:ListBucket a missing object cannot be told from a forbidden one), \
                 and s3:DeleteObject for deleting backups",
                permission(api)
            ),
            ErrorKind::Busy => "is the store overloaded? If this goes on, look at it, or lower `s3.requests`".into(),
            ErrorKind::Encryption => {
                "check `s3.encryption` and `s3.kms_key`, and that this user may use that key (kms:GenerateDataKey, \
                 kms:Decrypt)"
                    .into()
            }
            ErrorKind::StorageClass => {
                "the store has no such storage class: check `s3.storage_class_…` and the classes of tiers in `[retention_…]`".into()
            }
            ErrorKind::NotReadable => {
                "thaw it first: `walden restore --thaw` or `walden dump restore --thaw` does, or RestoreObject in the store".into()
            }
            ErrorKind::Unsupported => match api {
                "RestoreObject" => "this store thaws nothing: bring the object back with the store's own tools".into(),
                "PutBucketLifecycleConfiguration" => "this store has no lifecycle: Walden does without".into(),
                _ => "the store does not know this request: check `walden check`; for one without conditional writes \
                      set `s3.create_only = \"head-then-put\"`"
                    .into(),
            },
            ErrorKind::Other => {
                "look up the code in the store's documentation; `walden check` tests the repository".into()
            }
        }
    }
}

/// The permission that an operation needs.
fn permission(api: &str) -> &'static str {
    match api {
        "PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => {
            "s3:PutObject"
        }
        "ListObjectsV2" => "s3:ListBucket",
        "ListMultipartUploads" => "s3:ListBucketMultipartUploads",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        "DeleteObject" => "s3:DeleteObject",
        "CopyObject" | "UploadPartCopy" => "s3:GetObject and s3:PutObject",
        "RestoreObject" => "s3:RestoreObject",
        "GetBucketLifecycleConfiguration" => "s3:GetLifecycleConfiguration",
        "PutBucketLifecycleConfiguration" => "s3:PutLifecycleConfiguration",
        _ => "s3:GetObject",
    }
}

fn is_about_certificates(why: &str) -> bool {
    why.contains("certificate")
}

/// The error of credentials somewhere below.
fn credentials<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CredentialsError> {
    match error.downcast_ref() {
        Some(found) => Some(found),
        None => credentials(error.source()?),
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        if !text.contains(&part) {
            text += &format!(": {part}");
        }
        next = cause.source();
    }
    text
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of \"{}\" in bucket \"{}\": ",
            self.api, self.path, self.bucket
        )?;
        match &self.what {
            Cause::Answer(answer) => {
                write!(f, "HTTP {}", answer.status)?;
                for part in [&answer.code, &answer.message]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                {
                    write!(f, " {part}")?;
                }
                match answer.request_id.as_str() {
                    "" => Ok(()),
                    id => write!(f, " (request id {id})"),
                }
            }
            Cause::NoAnswer(why) => write!(f, "no answer: {why}"),
            Cause::BadAnswer(why) => write!(f, "the answer cannot be used: {why}"),
            Cause::NoCredentials { why, .. } => write!(f, "no credentials: {why}"),
            Cause::NotAsked(why) => f.write_str(why),
        }
    }
}

impl Error for S3Error {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let is_about_reading = self.api != "RestoreObject";
        (is_about_reading && self.says_cold()).then_some(&ObjectIsCold)
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
