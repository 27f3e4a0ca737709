use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};

use crate::error::with_hint;
use crate::storage::{AtRest, Promise, Promises};

/// Where the bucket is and how it is used.
#[derive(Debug, Clone)]
pub struct S3Options {
    pub bucket: String,
    /// Before every key: empty, or ending with `/`.
    pub prefix: String,
    /// `None`: as the environment, the profile or the instance says.
    pub region: Option<String>,
    /// URL of a server other than Amazon's.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// `None`: the standard chain of environment, profile, web identity and instance role.
    pub credentials: Option<Credentials>,
    /// The profile of the standard chain.
    pub profile: Option<String>,
    /// Certificates to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// The account that must own the bucket.
    pub bucket_owner: Option<String>,
    /// The storage class of objects of a kind; others get the bucket's own.
    pub classes: Vec<(&'static str, StorageClass)>,
    /// The kind of an object, by its key.
    pub kind_of: fn(&str) -> Option<&'static str>,
    /// `None`: as the bucket is set.
    pub encryption: Option<ServerSideEncryption>,
    /// The key of `aws:kms`; `None`: the account's own for S3.
    pub kms_key: Option<String>,
    pub create_only: CreateOnly,
    /// Objects of this size and more, in bytes, are stored in parts.
    pub multipart_threshold: u64,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// Until an answer begins.
    pub response_timeout: Duration,
    /// Requests under way at once.
    pub requests: usize,
}

/// How an object is stored only where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateOnly {
    /// By `If-None-Match: *`: the store decides, one of many wins.
    Conditional,
    /// By looking first: of two that look at the same moment both store, the later one wins. For stores that ignore
    /// the condition.
    HeadThenPut,
}

impl CreateOnly {
    /// What objects can be relied on for that are stored in this way.
    pub fn promises(self) -> Promises {
        let (create_only, if_it_overwrites, caution) = match self {
            Self::Conditional => (
                Promise::Atomic,
                "use a store that honours If-None-Match, or set s3.create_only = \"head-then-put\" with one \
                 server a cluster name",
                None,
            ),
            Self::HeadThenPut => (
                Promise::OneByOne,
                "use another store: what this one answers is not what it keeps",
                Some(
                    "s3.create_only is head-then-put: two servers that archive the same name at the same moment are not \
                     told apart",
                ),
            ),
        };
        Promises {
            create_only,
            if_it_overwrites,
            caution,
            ..Promises::default()
        }
    }
}

impl S3Options {
    pub(super) fn promises(&self) -> Promises {
        let asked = self
            .encryption
            .as_ref()
            .map(|kind| kind.as_str().to_string());
        Promises {
            in_parts_from: Some(self.multipart_threshold),
            encryption: Some(AtRest {
                asked,
                setting: "s3.encryption",
                unasked: "bucket",
            }),
            ..self.create_only.promises()
        }
    }
}

/// Keys as they are set; `None` when neither is, which leaves it to the standard chain. Errors: one of them is missing.
pub fn credentials(id: &str, secret: &str) -> anyhow::Result<Option<Credentials>> {
    match (id, secret) {
        ("", "") => Ok(None),
        ("", _) | (_, "") => {
            let error = anyhow!(
                "one of s3.access_key_id and s3.secret_access_key is set, the other is not"
            );
            Err(with_hint(
                error,
                "set both, or neither to use the standard chain of credentials",
            ))
        }
        (id, secret) => Ok(Some(Credentials::new(
            id,
            secret,
            None,
            None,
            "walden.toml",
        ))),
    }
}
