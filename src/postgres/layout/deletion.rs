//! Keys of what decides over deletions: pins, leases, and the numbered records of what was deleted.

use super::{Layout, ObjectKind, TimedId};
use crate::storage::Key;

/// The folder of a cluster that holds its pins.
const PINS_FOLDER: &str = "pins";
/// The folder of a cluster in which readers tell what they need.
const LEASES_FOLDER: &str = "leases";
/// The folder of a cluster that tells what was deleted of it.
const EXPIRY_FOLDER: &str = "retention";
const JSON: &str = ".json";
/// Digits of a record's number, so that names sort by it.
const DIGITS: usize = 8;

/// A record of the folder `retention`, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpiryRecord {
    pub number: u32,
    /// What was done; else what is to be done.
    pub done: bool,
}

impl Layout {
    /// The folder with all pins.
    pub fn pins_folder(&self) -> String {
        format!("{}/{PINS_FOLDER}/", self.cluster())
    }

    /// A pin.
    pub fn pin(&self, id: &TimedId) -> Key {
        self.key(&format!("{PINS_FOLDER}/{id}{JSON}"))
    }

    /// The folder with all leases.
    pub fn leases_folder(&self) -> String {
        format!("{}/{LEASES_FOLDER}/", self.cluster())
    }

    /// A lease.
    pub fn lease(&self, id: &TimedId) -> Key {
        self.key(&format!("{LEASES_FOLDER}/{id}{JSON}"))
    }

    /// The folder with the records of deletions.
    pub fn expiry_folder(&self) -> String {
        format!("{}/{EXPIRY_FOLDER}/", self.cluster())
    }

    /// A record of a deletion.
    pub fn expiry(&self, record: ExpiryRecord) -> Key {
        let done = if record.done { "-done" } else { "" };
        self.key(&format!(
            "{EXPIRY_FOLDER}/{:0DIGITS$}{done}{JSON}",
            record.number
        ))
    }

    /// What an object of these folders is.
    pub(super) fn parse_deletion(&self, key: &Key) -> Option<ObjectKind> {
        let name = |folder: String| key.as_str().strip_prefix(&folder)?.strip_suffix(JSON);
        if let Some(id) = name(self.pins_folder()) {
            return id.parse().ok().map(ObjectKind::Pin);
        }
        if let Some(id) = name(self.leases_folder()) {
            return id.parse().ok().map(ObjectKind::Lease);
        }
        let name = name(self.expiry_folder())?;
        let digits = name.strip_suffix("-done").unwrap_or(name);
        let number = digits.parse().ok()?;
        let record = ExpiryRecord {
            number,
            done: digits != name,
        };
        (self.expiry(record) == *key).then_some(ObjectKind::Expiry(record))
    }
}
