//! The repository's URL.

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The schemes that [`RepositoryUrl::parse`] accepts, for messages.
const SUPPORTED: &str = "supported: file (file:///absolute/path) and s3 (s3://bucket/prefix)";

/// Of 1024 bytes of an S3 key, what `storage::Key` leaves.
const LONGEST_PREFIX: usize = 500;

/// Where the repository is. `Display` writes a URL that parses to the same value; it encodes only what would not,
/// so that people recognise their path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryUrl {
    /// `file:///absolute/path`: a folder; the path is absolute and percent-decoded.
    File(PathBuf),
    /// `s3://bucket/prefix`: a bucket, or what lies below a prefix of it.
    S3 {
        bucket: String,
        /// Empty, or ending with `/`.
        prefix: String,
    },
}

impl RepositoryUrl {
    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::S3 { .. } => None,
        }
    }

    /// Parses a URL. Spaces may stand as they are or as `%20`; `%`, `?` and `#` of a path are written `%25`, `%3F`, `%23`.
    ///
    /// # Errors
    /// A text that says what is allowed instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
        else {
            return Err(match text {
                "" => format!("a URL is needed; {SUPPORTED}"),
                path if path.starts_with('/') => {
                    format!("a URL is needed, for this path \"file://{path}\"")
                }
                _ => format!("a URL with an absolute path is needed; {SUPPORTED}"),
            });
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file(rest),
            "s3" => s3(rest),
            _ => Err(format!("scheme \"{scheme}\" is not supported; {SUPPORTED}")),
        }
    }
}

fn file(rest: &str) -> Result<RepositoryUrl, String> {
    let path = rest
        .strip_prefix("//")
        .ok_or("a file URL begins with \"file:///\"")?;
    let path = path
        .strip_prefix("localhost")
        .filter(|after| after.starts_with('/'))
        .unwrap_or(path);
    if !path.starts_with('/') {
        return Err(
            "the path must be absolute, with three slashes: \"file:///absolute/path\"".into(),
        );
    }
    if path.contains(['?', '#']) {
        return Err("write \"?\" as %3F and \"#\" as %23 in a path".into());
    }
    let path = PathBuf::from(OsString::from_vec(percent_decode(path)?));
    if path.components().count() < 2 {
        return Err("the path must name a folder below \"/\"".into());
    }
    if path
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        return Err("the path must not contain \"..\"".into());
    }
    Ok(RepositoryUrl::File(path.components().collect()))
}

/// Names of buckets: Amazon S3 User Guide, "General purpose bucket naming rules"; upper case and `_` occur in old ones
/// and on other servers. Prefixes have the characters of object keys.
fn s3(rest: &str) -> Result<RepositoryUrl, String> {
    let rest = rest
        .strip_prefix("//")
        .ok_or("an S3 URL begins with \"s3://\"")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !(3..=63).contains(&bucket.len())
        || !bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !bucket.chars().all(plain)
    {
        return Err(format!(
            "\"{bucket}\" is not a bucket's name: expected 3 to 63 letters, digits, \".\", \"-\" and \"_\""
        ));
    }
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    if prefix.len() > LONGEST_PREFIX || !(prefix.is_empty() || prefix.split('/').all(part)) {
        return Err(format!(
            "\"{prefix}\" is not a prefix: expected parts of letters, digits, \".\", \"-\" and \"_\" separated by \"/\", at most \
             {LONGEST_PREFIX} characters"
        ));
    }
    let prefix = if prefix.is_empty() {
        String::new()
    } else {
        format!("{prefix}/")
    };
    Ok(RepositoryUrl::S3 {
        bucket: bucket.into(),
        prefix,
    })
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            RepositoryUrl::File(path) => path,
            RepositoryUrl::S3 { bucket, prefix } if prefix.is_empty() => {
                return write!(f, "s3://{bucket}");
            }
            RepositoryUrl::S3 { bucket, prefix } => {
                return write!(f, "s3://{bucket}/{}", prefix.trim_end_matches('/'));
            }
        };
        f.write_str("file://")?;
        for chunk in path.as_os_str().as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    c if matches!(c, '%' | '?' | '#') || c.is_ascii_control() => {
                        write!(f, "%{:02X}", u32::from(c))?
                    }
                    plain => f.write_char(plain)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// RFC 3986: a letter, then letters, digits, `+`, `-`, `.`.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| (digit as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(
                        "two hexadecimal digits must follow \"%\"; write %25 for a percent sign"
                            .into(),
                    );
                };
                (high * 16 + low) as u8
            }
            plain => plain,
        };
        if byte == 0 {
            return Err("a path cannot hold a zero byte".into());
        }
        decoded.push(byte);
    }
    Ok(decoded)
}
