//! Storage classes: which of them are read at once, and what it takes to read an object of another.

use std::time::SystemTime;

/// Classes of Amazon S3 whose objects are read at once.
const INSTANT: &[&str] = &[
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "REDUCED_REDUNDANCY",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
    "OUTPOSTS",
    "SNOW",
];
/// Classes of Amazon S3 whose objects must be thawed before they are read.
const COLD: &[&str] = &["GLACIER", "DEEP_ARCHIVE"];

/// The class of objects for which no other was asked.
pub const STANDARD: &str = "STANDARD";

/// Whether objects of a class are known to be read at once. Of a class that some server has of its own nobody knows.
pub fn is_instant(class: &str) -> bool {
    INSTANT.contains(&class)
}

/// Whether objects of a class are known to need thawing.
pub fn is_cold(class: &str) -> bool {
    COLD.contains(&class)
}

/// Whether single objects of a class may have to be thawed: an object tells by [`Storage::readability`](super::Storage).
pub fn may_be_cold(class: Option<&str>) -> bool {
    class.is_some_and(|class| !is_instant(class) || class == "INTELLIGENT_TIERING")
}

/// The object is there, and must be thawed before it can be read or copied: in the chain of a
/// [`StorageError`](super::StorageError).
#[derive(Debug, thiserror::Error)]
#[error("it lies in a class that must be thawed before it is read")]
pub struct ObjectIsCold;

/// Whether an object can be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readability {
    /// As long as it is there.
    Now,
    /// It was thawed, and is readable until then.
    Until(SystemTime),
    /// It is being thawed.
    Thawing,
    /// It must be thawed first.
    Cold,
}

impl Readability {
    /// Whether a read that begins now and takes as long as it takes is answered, if it is over at `end`.
    pub fn lasts_until(self, end: SystemTime) -> bool {
        match self {
            Self::Now => true,
            Self::Until(until) => until >= end,
            Self::Thawing | Self::Cold => false,
        }
    }
}

/// How fast an object is thawed; what that costs differs by orders of magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThawSpeed {
    Bulk,
    Standard,
    Expedited,
}

/// How objects are thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThawOrder {
    /// How many days they stay readable.
    pub days: u32,
    pub speed: ThawSpeed,
}

/// What an order to thaw an object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThawStarted {
    /// It is being thawed, since now or since earlier, or is thawed and stays readable longer.
    Ordered,
    /// It needs no thawing.
    NotCold,
    /// There is no such object.
    Absent,
}

/// What moving an object to another class came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassChange {
    /// It has the class now.
    Moved,
    /// It had the class before.
    AlreadyThere,
    /// There is no such object.
    Absent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_nobody_knows_is_neither_instant_nor_cold() {
        for (class, instant, cold, may) in [
            ("STANDARD", true, false, false),
            ("GLACIER_IR", true, false, false),
            ("INTELLIGENT_TIERING", true, false, true),
            ("GLACIER", false, true, true),
            ("DEEP_ARCHIVE", false, true, true),
            ("HDD", false, false, true),
        ] {
            assert_eq!(
                (is_instant(class), is_cold(class), may_be_cold(Some(class))),
                (instant, cold, may),
                "{class}"
            );
        }
        assert!(!may_be_cold(None));
    }
}
