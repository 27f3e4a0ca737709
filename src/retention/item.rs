//! What retention decides over.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::postgres::catalog::WalRanges;
use crate::postgres::types::{Lsn, ParseError, TimelineHistory, TimelineId, serde_as_text};

/// What an item is. Each kind has a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// A base backup.
    Base,
    /// A logical dump with data.
    Dump,
    /// A logical dump of the schema alone.
    Schema,
}

impl ItemKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Base, Self::Dump, Self::Schema];

    /// As it stands before the name in an [`ItemId`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Dump => "dump",
            Self::Schema => "schema",
        }
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names one item: `base:20260131-030000Z`, `dump:shop/shop_20260131_030000`. What follows the kind is the source's own
/// name for it, unique among its kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    pub kind: ItemKind,
    pub name: String,
}

impl ItemId {
    /// The item of that kind and name.
    pub fn new(kind: ItemKind, name: impl fmt::Display) -> Self {
        Self {
            kind,
            name: name.to_string(),
        }
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl FromStr for ItemId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let known = text.split_once(':').and_then(|(kind, name)| {
            let kind = ItemKind::ALL.into_iter().find(|one| one.as_str() == kind)?;
            (!name.is_empty()).then(|| Self::new(kind, name))
        });
        known.ok_or_else(|| ParseError {
            what: "item",
            value: text.to_string(),
            why: "expected base:ID, dump:ID or schema:ID".into(),
        })
    }
}

serde_as_text!(ItemId);

/// A place in the WAL of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalPlace {
    pub timeline: TimelineId,
    pub lsn: Lsn,
}

/// The WAL without which a base backup is none: from its start to its stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupWal {
    pub start: WalPlace,
    pub stop: WalPlace,
}

/// Whether an item can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Good,
    /// It is known that it cannot, or not without loss; and why. It is no item that a promise is kept with.
    Bad(String),
    /// It could not be read, or is not complete yet; and why. It is never deleted, nor what it may need.
    Unknown(String),
}

/// Which other items one needs, because their objects hold a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    Known(Vec<ItemId>),
    /// It could be any item of its kind that is older.
    Unknown,
}

/// One thing that is kept or deleted as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub id: ItemId,
    /// Items of one kind and series stand for each other: tiers are chosen, and good ones counted, within it. Empty for
    /// base backups; for dumps the database, and what of it was dumped where that is not all.
    pub series: String,
    /// When reading the data began: what was deleted before is not in it.
    pub began: DateTime<Utc>,
    /// The moment that it restores: of a base backup its end, of a dump its snapshot.
    pub time: DateTime<Utc>,
    /// Bytes that deleting it sets free, its own objects.
    pub size: u64,
    pub condition: Condition,
    /// Of a base backup; `None` where its manifest is not known.
    pub wal: Option<BackupWal>,
    /// Of a dump: where its snapshot lies, if that is known.
    pub snapshot: Option<WalPlace>,
    pub needs: Needs,
}

impl Item {
    /// Where in the WAL the moment lies that it restores.
    pub fn place(&self) -> Option<WalPlace> {
        self.wal.map(|wal| wal.stop).or(self.snapshot)
    }

    /// Whether promises can be kept with it.
    pub fn is_good(&self) -> bool {
        self.condition == Condition::Good
    }
}

/// Somebody's word that an item stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub id: String,
    pub item: ItemId,
    pub reason: String,
    /// The pin holds until the reference time of the item's series is later; `None`: until it is taken away.
    pub expires: Option<DateTime<Utc>>,
}

/// A restore, copy or drill that reads right now. Whether it still does is the source's to find out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: String,
    /// Who reads, in words.
    pub holder: String,
    pub items: Vec<ItemId>,
    pub wal: Vec<LeasedWal>,
}

/// WAL that a reader needs: from a place on along the path to a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedWal {
    /// Where the path leads.
    pub timeline: TimelineId,
    pub from: Lsn,
    /// The first LSN that is not needed any more; `None`: all there is.
    pub until: Option<Lsn>,
}

/// The archived WAL, and where timelines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFacts {
    pub ranges: WalRanges,
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// History files that are there and could not be read or understood; and why.
    pub unread_histories: BTreeMap<TimelineId, String>,
}

/// All that there is of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// In any order. Base backups that are being taken, or were interrupted, are items of unknown condition.
    pub items: Vec<Item>,
    pub wal: WalFacts,
    pub pins: Vec<Pin>,
    /// Those that are alive.
    pub leases: Vec<Lease>,
    /// This machine's clock: items that are later do not move the reference time. It never makes anything old.
    pub now: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_named_by_its_kind_and_its_sources_name() {
        for text in [
            "base:20260131-030000Z",
            "dump:shop/shop_20260131_030000",
            "schema:a:b",
        ] {
            assert_eq!(text.parse::<ItemId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "base",
            "base:",
            "wal:000000010000000000000001",
            "20260131-030000Z",
        ] {
            assert!(text.parse::<ItemId>().is_err(), "{text:?}");
        }
    }
}
