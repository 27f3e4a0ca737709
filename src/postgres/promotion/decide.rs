//! Which objects change their storage class. Pure.

use std::collections::BTreeSet;

use anyhow::anyhow;

use crate::config::S3;
use crate::error::with_hint;
use crate::retention::{ItemId, ItemKind, KeepReason, Plan, Tier};
use crate::storage::ObjectMeta;
use crate::storage::classes::{STANDARD, is_cold};

/// Smaller objects cost more in other classes than they save.
const SMALLEST: u64 = 128 << 10;
/// Classes from the warmest to the coldest; one that is not among them lies before those that must be thawed.
const BY_WARMTH: &[&str] = &[
    STANDARD,
    "EXPRESS_ONEZONE",
    "REDUCED_REDUNDANCY",
    "INTELLIGENT_TIERING",
    "STANDARD_IA",
    "ONEZONE_IA",
    "GLACIER_IR",
];

/// The storage classes of one kind of items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KindClasses {
    /// When they are stored; `None`: the bucket's own.
    pub first: Option<String>,
    /// Once no shorter tier keeps them, in the order of [`Tier::ALL`]; `None`: as they are.
    pub tiers: [Option<String>; 6],
}

/// The storage classes of all kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    pub base: KindClasses,
    pub dump: KindClasses,
    pub schema: KindClasses,
}

impl KindClasses {
    fn new(setting: &str, first: Option<&String>, tiers: &[String]) -> anyhow::Result<Self> {
        let mut classes = Self {
            first: first.cloned(),
            ..Self::default()
        };
        for text in tiers {
            let parts = text.split_once('=').map(|(a, b)| (a.trim(), b.trim()));
            let at =
                parts.and_then(|(tier, _)| Tier::ALL.iter().position(|one| one.as_str() == tier));
            match (at, parts) {
                (Some(at), Some((_, class))) if !class.is_empty() => {
                    classes.tiers[at] = Some(class.to_string());
                }
                _ => {
                    let error = anyhow!("\"{text}\" in {setting} names no tier and class");
                    let hint = "write a tier, = and a class, such as \"monthly = GLACIER\"";
                    return Err(with_hint(error, hint));
                }
            }
        }
        Ok(classes)
    }
}

impl Classes {
    /// As section `s3` has them. Errors: one that names no tier.
    pub fn of_settings(s3: &S3) -> anyhow::Result<Self> {
        let of = KindClasses::new;
        let dump = s3.storage_class_dump.as_ref();
        Ok(Self {
            base: of(
                "s3.tier_classes_base",
                s3.storage_class_base.as_ref(),
                &s3.tier_classes_base,
            )?,
            dump: of("s3.tier_classes_dump", dump, &s3.tier_classes_dump)?,
            schema: of("s3.tier_classes_schema", dump, &s3.tier_classes_schema)?,
        })
    }

    /// Whether nothing ever moves.
    pub fn is_empty(&self) -> bool {
        ItemKind::ALL
            .into_iter()
            .all(|kind| self.says_nothing_of(kind))
    }

    /// Of one kind.
    pub fn of(&self, kind: ItemKind) -> &KindClasses {
        match kind {
            ItemKind::Base => &self.base,
            ItemKind::Dump => &self.dump,
            ItemKind::Schema => &self.schema,
        }
    }

    /// Whether no tier of a kind has a class.
    pub fn says_nothing_of(&self, kind: ItemKind) -> bool {
        self.of(kind).tiers.iter().all(Option::is_none)
    }
}

/// A kept item, and the objects that hold its bulk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemObjects {
    pub id: ItemId,
    pub objects: Vec<ObjectMeta>,
}

/// An object that is to get another class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    pub object: ObjectMeta,
    pub to: String,
}

/// Which class an item's objects are to have. The order is from the warmest on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A promised restore depends on it: none that must be thawed.
    AtOnce,
    AsItIs,
    Class(String),
}

impl Target {
    fn rank(&self) -> usize {
        let of = |class: &str| BY_WARMTH.iter().position(|each| *each == class);
        match self {
            Self::AtOnce => 0,
            Self::AsItIs => 1,
            Self::Class(class) => match of(class) {
                Some(at) => 2 + at,
                None => 2 + BY_WARMTH.len() + usize::from(is_cold(class)),
            },
        }
    }
}

/// The class that an item may have: that of the shortest tier that keeps it, unless something else keeps it that may be
/// wanted at once. Objects that several items name take the warmest of theirs.
fn target(plan: &Plan, classes: &Classes, id: &ItemId, seen: &mut BTreeSet<ItemId>) -> Target {
    let Some(item) = plan.item(id).filter(|_| seen.insert(id.clone())) else {
        return Target::AtOnce;
    };
    let mut targets = Vec::new();
    let mut shortest: Option<Tier> = None;
    for reason in item.reasons() {
        match reason {
            KeepReason::Tier { tier } => {
                shortest = Some(shortest.map_or(*tier, |other| other.min(*tier)));
            }
            // A pin says how long, not how soon.
            KeepReason::Pin { .. } => (),
            KeepReason::NeededBy { item } => targets.push(target(plan, classes, item, seen)),
            _ => return Target::AtOnce,
        }
    }
    seen.remove(id);
    if let Some(tier) = shortest {
        let class = Tier::ALL.iter().position(|each| *each == tier);
        let class = class.and_then(|at| classes.of(id.kind).tiers[at].clone());
        targets.push(class.map_or(Target::AsItIs, Target::Class));
    }
    let warmest = targets.into_iter().min_by_key(Target::rank);
    warmest.unwrap_or(Target::AsItIs)
}

/// The objects that are to get another class, and which.
pub fn promotions(plan: &Plan, classes: &Classes, items: &[ItemObjects]) -> Vec<Promotion> {
    let mut promotions = Vec::new();
    for ItemObjects { id, objects } in items {
        let target = target(plan, classes, id, &mut BTreeSet::new());
        for object in objects {
            // In a store without classes there is nothing to do.
            let Some(class) = object.class.as_deref() else {
                continue;
            };
            let to = match &target {
                Target::AtOnce if is_cold(class) => {
                    classes.of(id.kind).first.as_deref().unwrap_or(STANDARD)
                }
                // What is cold already stays so: bringing it back costs more than it saves.
                Target::Class(to) if !is_cold(class) && object.size >= SMALLEST => to,
                _ => continue,
            };
            if to != class {
                promotions.push(Promotion {
                    object: object.clone(),
                    to: to.to_string(),
                });
            }
        }
    }
    promotions
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
