//! The answer: what is kept and deleted, and why; and the exact deletions, which have a digest.

use std::fmt::{self, Write};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::item::{ItemId, ItemKind};
use super::policy::Tier;
use crate::postgres::catalog::WalSpan;
use crate::postgres::types::TimelineId;

/// Why an item stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum KeepReason {
    /// The recovery window of a timeline begins with it.
    WindowBegin { timeline: TimelineId },
    /// It lies in the recovery window.
    Window,
    /// It is the first good one of its period.
    Tier { tier: Tier },
    /// It is one of the newest good ones of its series.
    Minimum,
    Pin {
        id: String,
        reason: String,
        expires: Option<DateTime<Utc>>,
    },
    /// It is being read.
    Lease { id: String, holder: String },
    /// Its objects hold a part of a kept item.
    NeededBy { item: ItemId },
    /// What that item needs is not known.
    MayBeNeededBy { item: ItemId },
    /// Whether it can be restored is not known.
    Unknown { why: String },
    /// It cannot be restored, but nothing good took its place yet.
    NotReplaced,
    /// It cannot be restored, and is kept for some days to be looked at.
    Examine,
    /// It is later than the reference time: a clock may be wrong.
    Ahead,
    /// Something older by its time comes later in the WAL: when it was made is not known.
    ClockDoubted,
    /// Its time contradicts that item's, which would be believed without it.
    Contradicts { item: ItemId },
    /// Several items are later than this machine's clock, which therefore may be wrong: nothing goes.
    ClockWrong,
    /// A history file cannot be read: which base backups a timeline needs is not known.
    PathUnknown { timeline: TimelineId },
    /// The policy says nothing of its kind.
    NoPolicy,
}

/// Why a tier does not keep an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// This one is the first of its period.
    NotFirst { first: ItemId },
    /// The tier does not reach back so far.
    TooOld,
}

/// Why an item goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum DeleteReason {
    /// Nothing keeps it; for each tier the reason.
    Expired { tiers: Vec<(Tier, Missed)> },
    /// It cannot be restored, and newer ones can.
    Bad { why: String },
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The reasons are not empty.
    Keep(Vec<KeepReason>),
    Delete(DeleteReason),
}

/// An item, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemDecision {
    pub id: ItemId,
    pub series: String,
    pub time: DateTime<Utc>,
    pub size: u64,
    pub verdict: Verdict,
}

impl ItemDecision {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        matches!(self.verdict, Verdict::Keep(_))
    }

    /// Why it stays; empty if it goes.
    pub fn reasons(&self) -> &[KeepReason] {
        match &self.verdict {
            Verdict::Keep(reasons) => reasons,
            Verdict::Delete(_) => &[],
        }
    }

    /// The tier whose storage class it may have: the shortest that keeps it. `None` where something else keeps it too
    /// that a restore may want at once.
    pub fn class_tier(&self) -> Option<Tier> {
        let mut shortest = None;
        for reason in self.reasons() {
            match reason {
                KeepReason::Tier { tier } => {
                    shortest = Some(shortest.map_or(*tier, |other: Tier| other.min(*tier)));
                }
                // A pin says how long, not how soon.
                KeepReason::Pin { .. } => (),
                _ => return None,
            }
        }
        shortest
    }
}

/// Why WAL stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "because")]
pub enum WalReason {
    /// The recovery window of these timelines needs it.
    Window { timeline: TimelineId },
    /// A base backup is consistent only with it.
    Backup { item: ItemId },
    /// It is being read.
    Lease { id: String, holder: String },
    /// What that base backup needs is not known.
    MayBeNeededBy { item: ItemId },
    /// No base backup is good yet.
    NoBackup,
    /// Where this timeline comes from is not known.
    PathUnknown { timeline: TimelineId },
    /// Several items are later than this machine's clock: nothing goes.
    ClockWrong,
    /// The policy has no recovery window.
    NoPolicy,
}

/// What becomes of WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalVerdict {
    /// The reasons are not empty.
    Keep(Vec<WalReason>),
    /// It lies before every window, and no kept base backup needs it.
    Delete,
}

/// Archived WAL, and what becomes of it. Files beside segments (`.partial`, `.backup`, those kept aside) go with the
/// segment that they are named after; history files stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalDecision {
    pub span: WalSpan,
    pub segments: u64,
    /// Estimated.
    pub stored_bytes: u64,
    pub verdict: WalVerdict,
}

/// The reference time of a series: durations count from it, into the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub kind: ItemKind,
    pub series: String,
    pub time: DateTime<Utc>,
    /// The newest good item.
    pub item: ItemId,
}

/// What is kept and deleted, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of each series with a good item, by kind and series.
    pub references: Vec<Reference>,
    /// By kind, series and time.
    pub items: Vec<ItemDecision>,
    /// By timeline and place.
    pub wal: Vec<WalDecision>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Exactly what goes.
    pub fn deletions(&self) -> Deletions {
        let items = self.items.iter().filter(|item| !item.is_kept());
        let wal = self
            .wal
            .iter()
            .filter(|wal| wal.verdict == WalVerdict::Delete);
        let mut deletions = Deletions {
            items: items.map(|item| item.id.clone()).collect(),
            wal: wal.map(|wal| wal.span).collect(),
        };
        deletions.items.sort();
        deletions.wal.sort();
        deletions
    }

    /// What becomes of an item; `None`: there is none of that name.
    pub fn item(&self, id: &ItemId) -> Option<&ItemDecision> {
        self.items.iter().find(|item| item.id == *id)
    }
}

/// What goes: all that applying a plan may delete. WAL goes last, since items that are still there may need it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Deletions {
    /// By kind and name; not the order in which they go.
    pub items: Vec<ItemId>,
    /// By timeline and place.
    pub wal: Vec<WalSpan>,
}

impl Deletions {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.wal.is_empty()
    }

    /// The text that the digest is of: one line for each deletion.
    pub fn text(&self) -> String {
        let mut text = String::from("walden retention 1\n");
        for item in &self.items {
            // Names are the source's: one with a line break must not look like two.
            let _ = writeln!(text, "item {:?}", item.to_string());
        }
        for WalSpan { first, last } in &self.wal {
            let _ = writeln!(text, "wal {first} {last}");
        }
        text
    }

    /// Names these deletions and no others.
    pub fn digest(&self) -> PlanDigest {
        let hash = blake3::hash(self.text().as_bytes());
        PlanDigest(hash.to_hex()[..PlanDigest::DIGITS].to_string())
    }

    /// What a newer decision deletes, too: what came to be needed since stays.
    pub fn still_in(&self, newer: &Self) -> Self {
        let still = |item: &&ItemId| newer.items.binary_search(item).is_ok();
        let wal = self
            .wal
            .iter()
            .flat_map(|span| newer.wal.iter().filter_map(|other| span.common(other)));
        Self {
            items: self.items.iter().filter(still).cloned().collect(),
            wal: wal.collect(),
        }
    }
}

/// Names deletions: 32 hexadecimal digits of a BLAKE3 of their text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanDigest(pub String);

impl PlanDigest {
    const DIGITS: usize = 32;
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::types::{SegmentName, SegmentSize};

    fn span(first: u64, last: u64) -> WalSpan {
        let name = |number| SegmentName::from_number(TimelineId(1), number, size());
        WalSpan {
            first: name(first),
            last: name(last),
        }
    }

    fn size() -> SegmentSize {
        SegmentSize::new(16 << 20).unwrap()
    }

    fn deletions(items: &[&str], wal: &[(u64, u64)]) -> Deletions {
        Deletions {
            items: items.iter().map(|name| name.parse().unwrap()).collect(),
            wal: wal
                .iter()
                .map(|(first, last)| span(*first, *last))
                .collect(),
        }
    }

    #[test]
    fn a_digest_names_exactly_these_deletions() {
        let one = deletions(&["base:a", "dump:b"], &[(1, 5)]);
        assert_eq!(one.digest(), one.clone().digest());
        for other in [
            deletions(&["base:a"], &[(1, 5)]),
            deletions(&["base:a", "dump:b"], &[(1, 6)]),
            deletions(&["base:a", "schema:b"], &[(1, 5)]),
            deletions(&["base:a\\n", "dump:b"], &[(1, 5)]),
            deletions(&[], &[]),
        ] {
            assert_ne!(one.digest(), other.digest(), "{}", other.text());
        }
        assert_eq!(one.digest().to_string().len(), 32);
    }

    #[test]
    fn a_name_with_a_line_break_is_no_second_deletion() {
        let odd = Deletions {
            items: vec![ItemId::new(ItemKind::Dump, "a\nitem \"base:b\"")],
            wal: Vec::new(),
        };
        assert_eq!(odd.text().lines().count(), 2);
    }

    #[test]
    fn what_a_newer_decision_keeps_stays() {
        let old = deletions(&["base:a", "base:b"], &[(1, 10), (20, 21)]);
        let newer = deletions(&["base:b", "base:c"], &[(2, 3), (6, 30)]);
        let still = deletions(&["base:b"], &[(2, 3), (6, 10), (20, 21)]);
        assert_eq!(old.still_in(&newer), still);
        assert_eq!(old.still_in(&old), old);
    }

    #[test]
    fn the_class_is_that_of_the_shortest_tier_and_of_none_that_a_promised_restore_wants() {
        let decision = |reasons| ItemDecision {
            id: "base:a".parse().unwrap(),
            series: String::new(),
            time: DateTime::UNIX_EPOCH,
            size: 1,
            verdict: Verdict::Keep(reasons),
        };
        let tier = |tier| KeepReason::Tier { tier };
        let both = decision(vec![tier(Tier::Yearly), tier(Tier::Monthly)]);
        assert_eq!(both.class_tier(), Some(Tier::Monthly));
        let newest = decision(vec![tier(Tier::Yearly), KeepReason::Minimum]);
        assert_eq!(newest.class_tier(), None);
        assert_eq!(decision(vec![KeepReason::Window]).class_tier(), None);
    }
}
