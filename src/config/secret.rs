//! Text that must not be printed.

use std::fmt;

/// A value that may hold a password: its `Debug` and `Display` are `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one place that hands it on.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether a libpq connection string, in keyword or URI form, carries a password (`password`, `sslpassword`, or the
/// part of a URI between the user's colon and the `@`).
pub(super) fn holds_password(dsn: &str) -> bool {
    let keyword = dsn
        .match_indices("password")
        .any(|(at, word)| dsn[at + word.len()..].trim_start().starts_with('='));
    let in_uri = dsn.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, word)| !word.is_empty())
    });
    keyword || in_uri
}
