use std::fmt;

/// The name of an object: components of `A-Z a-z 0-9 . _ - %` separated by `/`. A component never begins with a dot, so
/// no key leads out of the store or meets a backend's own temporary files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "object key \"{0}\" is not valid: expected parts of letters, digits, '.', '_', '-' and '%' separated by '/'"
)]
pub struct InvalidKey(pub String);

impl Key {
    /// Longest key in bytes; S3 allows 1024 with the prefix. The longest are files of dumps of a database whose name is
    /// encoded.
    pub const MAX_LEN: usize = 600;

    /// Checks the form.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let valid = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'%'))
        };
        match text.len() <= Self::MAX_LEN && text.split('/').all(valid) {
            true => Ok(Self(text)),
            false => Err(InvalidKey(text)),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_leads_out_of_the_store() {
        for text in [
            "", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a/.tmp", "a b", "a\\b", "ä", "a\0",
        ] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Key::new("main/wal/00000001.history.zst")
                .unwrap()
                .file_name(),
            "00000001.history.zst"
        );
    }
}
