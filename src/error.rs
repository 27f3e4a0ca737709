//! Hints: every error that a person reads says what to do next.
//!
//! `anyhow` carries the context chain; [`Hint`] adds the next step to any link of it. The edges print the chain on
//! one line and the hints below it, each behind `HINT:`.

use std::fmt;

use crate::plain::plain;

/// An error together with the step that would mend it.
#[derive(Debug)]
struct Hinted {
    hint: String,
    inner: anyhow::Error,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

/// Work that was not done by its caller's deadline: nothing is found out.
#[derive(Debug, thiserror::Error)]
#[error("{0} takes too long")]
pub struct DeadlineExceeded(pub &'static str);

/// Adds the next step to an error.
pub trait Hint<T> {
    /// The same result; an error carries `text` as its hint.
    fn hint(self, text: impl fmt::Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, text: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|error| with_hint(error.into(), text))
    }
}

/// `error` with `text` as its hint.
pub fn with_hint(error: anyhow::Error, text: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Hinted {
        hint: text.to_string(),
        inner: error,
    })
}

/// The first error of type `T` in the chain, also behind hints.
pub fn find<T: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error) -> Option<&T> {
    if let Some(found) = error.downcast_ref::<T>() {
        return Some(found);
    }
    error
        .chain()
        .find_map(|link| match link.downcast_ref::<Hinted>() {
            Some(hinted) => find::<T>(&hinted.inner),
            None => link.downcast_ref::<T>(),
        })
}

/// The hints of the chain, outermost first.
pub fn hints(error: &anyhow::Error) -> Vec<&str> {
    match error.chain().find_map(|link| link.downcast_ref::<Hinted>()) {
        Some(hinted) => std::iter::once(hinted.hint.as_str())
            .chain(hints(&hinted.inner))
            .collect(),
        None => Vec::new(),
    }
}

/// Why a TOML text cannot be understood, and in which line. Of the line itself nothing is told: it may hold a password.
pub fn toml_problem(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| toml_line(text, span.start));
    let message = error.message();
    // These quote the value.
    let what = match message.split_once(", expected ") {
        Some((quoted, expected)) if quoted.starts_with("invalid ") => {
            format!("a value is not {expected}")
        }
        _ => message.into(),
    };
    line.unwrap_or_default() + &what
}

/// In which line something begins.
pub fn toml_line(text: &str, at: usize) -> String {
    let before = text.bytes().take(at);
    format!(
        "line {}: ",
        before.filter(|byte| *byte == b'\n').count() + 1
    )
}

/// The chain on one line, `outer: inner: …`, without the hints.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for link in error.chain() {
        // Also a server's message may have lines of its own.
        let text = plain(link.to_string().trim_end()).into_owned();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[derive(Debug, thiserror::Error)]
    #[error("no such thing")]
    struct Absent;

    #[test]
    fn a_hint_keeps_the_chain_and_the_typed_error_within() {
        let error = Err::<(), _>(Absent)
            .hint("make one")
            .context("cannot use the thing")
            .unwrap_err();
        assert_eq!(one_line(&error), "cannot use the thing: no such thing");
        assert_eq!(hints(&error), ["make one"]);
        assert!(find::<Absent>(&error).is_some());
    }

    #[test]
    fn of_a_text_that_is_not_understood_no_value_is_told() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[allow(dead_code)]
            port: u16,
        }
        let told = |text: &str| {
            let error = toml::from_str::<File>(text).unwrap_err();
            toml_problem(text, &error)
        };
        for text in [
            "\nport = \"hunter2\"",
            "\npassword = \"hunter2\"",
            "\nport = \"hunter2",
        ] {
            let told = told(text);
            assert!(told.starts_with("line 2: "), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        assert!(told("\nport = \"hunter2\"").ends_with("is not u16"));
    }

    #[test]
    fn hints_of_several_links_come_outermost_first() {
        let error = Err::<(), _>(Absent)
            .hint("inner")
            .context("outer text")
            .hint("outer")
            .unwrap_err();
        assert_eq!(hints(&error), ["outer", "inner"]);
    }
}
