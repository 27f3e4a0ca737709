//! The repository's URL.

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The schemes that [`RepositoryUrl::parse`] accepts, for messages.
const SUPPORTED: &str = "supported: file (file:///absolute/path)";

/// Where the repository is. `Display` writes a URL that parses to the same value; it encodes only what would not,
/// so that people recognise their path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryUrl {
    /// `file:///absolute/path`: a folder; the path is absolute and percent-decoded.
    File(PathBuf),
}

impl RepositoryUrl {
    /// Parses a URL. Spaces may stand as they are or as `%20`; `%`, `?` and `#` of a path are written `%25`, `%3F`, `%23`.
    ///
    /// # Errors
    /// A text that says what is allowed instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            return Err(match text {
                "" => format!("a URL is needed; {SUPPORTED}"),
                path if path.starts_with('/') => format!("a URL is needed, for this path \"file://{path}\""),
                _ => format!("a URL with an absolute path is needed; {SUPPORTED}"),
            });
        };
        if !scheme.eq_ignore_ascii_case("file") {
            return Err(format!("scheme \"{scheme}\" is not supported; {SUPPORTED}"));
        }
        let path = rest.strip_prefix("//").ok_or("a file URL begins with \"file:///\"")?;
        let path = path.strip_prefix("localhost").filter(|after| after.starts_with('/')).unwrap_or(path);
        if !path.starts_with('/') {
            return Err("the path must be absolute, with three slashes: \"file:///absolute/path\"".into());
        }
        if path.contains(['?', '#']) {
            return Err(
                "a file URL has no \"?\" or \"#\" part; write them %3F and %23 if they belong to the path".into()
            );
        }
        let path = PathBuf::from(OsString::from_vec(percent_decode(path)?));
        if path.components().count() < 2 {
            return Err("the path must name a folder below \"/\"".into());
        }
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err("the path must not contain \"..\"".into());
        }
        Ok(RepositoryUrl::File(path.components().collect()))
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RepositoryUrl::File(path) = self;
        f.write_str("file://")?;
        for chunk in path.as_os_str().as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    c if matches!(c, '%' | '?' | '#') || c.is_ascii_control() => write!(f, "%{:02X}", u32::from(c))?,
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
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| (digit as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err("two hexadecimal digits must follow \"%\"; write %25 for a percent sign".into());
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
