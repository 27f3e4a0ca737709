//! Reading what runners store for each other: a newer form is told from damage.

use anyhow::{Context, anyhow};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Hint, with_hint};
use crate::storage::Key;

/// The newest form of these objects.
pub const FORMAT: u32 = 1;

/// What every form has.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

/// Reads an object. Errors: a newer Walden wrote it, or it is no `what`.
pub fn parse<T: DeserializeOwned>(key: &Key, bytes: &[u8], what: &str) -> anyhow::Result<T> {
    // What a newer form has instead of what this one needs is not known.
    if let Ok(Form { format }) = serde_json::from_slice(bytes)
        && format > FORMAT
    {
        return Err(with_hint(
            anyhow!("a newer Walden wrote \"{key}\""),
            "upgrade this host",
        ));
    }
    serde_json::from_slice(bytes)
        .with_context(|| format!("\"{key}\" cannot be read as {what}"))
        .hint("remove that object: the job is then looked after without it")
}

#[cfg(test)]
mod tests {
    use super::super::record::RunRecord;
    use super::*;
    use crate::error::{hints, one_line};

    #[test]
    fn a_newer_form_is_told_whatever_else_it_has() {
        let key = Key::new("main/jobs/dump/lease-0000000000000001.json").unwrap();
        let read = |text: &str| parse::<RunRecord>(&key, text.as_bytes(), "a record").unwrap_err();
        let newer = read(r#"{ "format": 2, "holders": [] }"#);
        assert!(one_line(&newer).contains("a newer Walden wrote \"main/jobs"));
        assert_eq!(hints(&newer), ["upgrade this host"]);
        for damaged in [r#"{ "format": 1, "holders": [] }"#, "x"] {
            assert!(one_line(&read(damaged)).contains("cannot be read as a record"));
        }
    }
}
