//! Tablespaces that are to lie elsewhere than in the source.

use std::path::PathBuf;

use crate::postgres::catalog::TablespaceDescription;

/// A tablespace is to lie elsewhere than in the source: `OLD=NEW`, where OLD is its location or OID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    pub old: String,
    pub new: PathBuf,
}

impl std::str::FromStr for Relocation {
    type Err = String;

    /// The first `=` that is not behind a `\` separates.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut old = String::new();
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' if text[at + 1..].starts_with('=') => {
                    old.extend(characters.next().map(|(_, c)| c))
                }
                '=' if !old.is_empty() && text.len() > at + 1 => {
                    return Ok(Self {
                        old,
                        new: PathBuf::from(text[at + 1..].replace("\\=", "=")),
                    });
                }
                other => old.push(other),
            }
        }
        Err("expected OLD=NEW, the tablespace's location or OID and its new folder".into())
    }
}

/// Whether a relocation is of a tablespace.
pub fn is_meant(relocation: &Relocation, tablespace: &TablespaceDescription) -> bool {
    relocation.old.trim_end_matches('/') == tablespace.location.trim_end_matches('/')
        || relocation.old.parse() == Ok(tablespace.oid)
}
