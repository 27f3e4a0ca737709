//! Times, ages and sizes as the page shows them.

use std::fmt;

use askama::filters::HtmlSafe;
use chrono::{DateTime, Utc};
use indicatif::BinaryBytes;

pub use crate::plain::lasting as duration;

/// A moment as an element that the script adds the viewer's local time to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    at: DateTime<Utc>,
    to_microseconds: bool,
}

impl When {
    /// To the second.
    pub fn of(at: DateTime<Utc>) -> Self {
        Self {
            at,
            to_microseconds: false,
        }
    }

    /// To the microsecond, as PostgreSQL counts.
    pub fn exactly(at: DateTime<Utc>) -> Self {
        Self {
            at,
            to_microseconds: true,
        }
    }

    /// What it shows.
    pub fn text(&self) -> String {
        let form = if self.to_microseconds {
            "%Y-%m-%d %H:%M:%S%.6f UTC"
        } else {
            "%Y-%m-%d %H:%M:%S UTC"
        };
        self.at.format(form).to_string()
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<time datetime=\"{}\">{}</time>",
            self.at.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
            self.text()
        )
    }
}

// Made of digits.
impl HtmlSafe for When {}

/// The time from one moment to another.
pub fn between(from: DateTime<Utc>, until: DateTime<Utc>) -> String {
    duration((until - from).as_seconds_f64())
}

/// So many bytes.
pub fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// `1 file`, `3 files`.
pub fn count(number: u64, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_named_apart_from_several() {
        assert_eq!(
            (count(1, "file"), count(0, "file")),
            ("1 file".into(), "0 files".into())
        );
    }

    #[test]
    fn a_moment_is_an_element_of_digits() {
        let at = "2026-01-31T03:00:00.250Z".parse().unwrap();
        assert_eq!(
            When::of(at).to_string(),
            "<time datetime=\"2026-01-31T03:00:00.250000Z\">2026-01-31 03:00:00 UTC</time>"
        );
        assert_eq!(When::exactly(at).text(), "2026-01-31 03:00:00.250000 UTC");
    }
}
