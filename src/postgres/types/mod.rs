//! PostgreSQL's own values: positions, names and files, parsed and printed exactly as the server does. Pure.
//!
//! Text and bytes become these types at the edge, and nothing else passes for them: a name that PostgreSQL would not
//! write does not parse.

mod backup_label;
mod control_file;
mod history;
#[cfg(test)]
pub mod history_model;
mod lsn;
mod page_header;
mod version;
mod wal_file_name;

pub use backup_label::{BackupLabel, TablespaceMap};
pub use control_file::{ControlFile, RecoverySettings};
pub use history::{HistoryEntry, TimelineHistory};
pub use lsn::{Lsn, SegmentSize, TimelineId};
pub use page_header::LongPageHeader;
pub use version::{MajorVersion, SystemIdentifier};
pub use wal_file_name::{AsideKind, LONGEST_SMALL_FILE, SegmentName, WalFileName};

/// A value that does not have the form PostgreSQL gives it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{value}\" is not valid: {why}")]
pub struct ParseError {
    /// What was to be read, such as `LSN`.
    pub what: &'static str,
    /// The text or number found.
    pub value: String,
    /// The form it should have.
    pub why: String,
}

impl ParseError {
    fn new(what: &'static str, value: impl ToString, why: impl ToString) -> Self {
        Self {
            what,
            value: value.to_string(),
            why: why.to_string(),
        }
    }
}

/// Serialises through `Display` and `FromStr`, so that JSON shows a value as PostgreSQL prints it.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
