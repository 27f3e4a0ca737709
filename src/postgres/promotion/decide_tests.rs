use std::time::SystemTime;

use chrono::DateTime;

use super::*;
use crate::retention::{ItemDecision, Verdict};
use crate::storage::Key;

fn tier(tier: Tier) -> KeepReason {
    KeepReason::Tier { tier }
}

fn needed_by(name: &str) -> KeepReason {
    KeepReason::NeededBy {
        item: ItemId::new(ItemKind::Base, name),
    }
}

/// A plan that keeps base backups of these names for these reasons.
fn plan(items: &[(&str, &[KeepReason])]) -> Plan {
    let items = items.iter().map(|(name, reasons)| ItemDecision {
        id: ItemId::new(ItemKind::Base, name),
        series: String::new(),
        time: DateTime::UNIX_EPOCH,
        size: 1,
        verdict: Verdict::Keep(reasons.to_vec()),
    });
    Plan {
        references: Vec::new(),
        items: items.collect(),
        wal: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Weekly in STANDARD_IA, monthly in GLACIER, yearly in DEEP_ARCHIVE.
fn classes() -> Classes {
    let class = |name: &str| Some(name.to_string());
    Classes {
        base: KindClasses {
            first: None,
            tiers: [
                None,
                None,
                class("STANDARD_IA"),
                class("GLACIER"),
                None,
                class("DEEP_ARCHIVE"),
            ],
        },
        ..Classes::default()
    }
}

fn object(name: &str, class: Option<&str>, size: u64) -> ItemObjects {
    ItemObjects {
        id: ItemId::new(ItemKind::Base, name),
        objects: vec![ObjectMeta {
            key: Key::new(format!("main/base/{name}/pack-000001")).unwrap(),
            size,
            modified: SystemTime::UNIX_EPOCH,
            class: class.map(str::to_string),
            encryption: None,
        }],
    }
}

/// Where an object of item `a` moves that has the class `now`.
fn moves(items: &[(&str, &[KeepReason])], now: &str) -> Option<String> {
    let found = promotions(&plan(items), &classes(), &[object("a", Some(now), 1 << 20)]);
    found.first().map(|one| one.to.clone())
}

fn to(class: &str) -> Option<String> {
    Some(class.to_string())
}

#[test]
fn an_item_gets_the_class_of_the_shortest_tier_that_keeps_it() {
    let of = |reasons: &[KeepReason], now| moves(&[("a", reasons)], now);
    assert_eq!(of(&[tier(Tier::Weekly)], "STANDARD"), to("STANDARD_IA"));
    assert_eq!(
        of(&[tier(Tier::Yearly), tier(Tier::Monthly)], "STANDARD_IA"),
        to("GLACIER")
    );
    assert_eq!(
        of(&[tier(Tier::Weekly), tier(Tier::Daily)], "STANDARD"),
        None
    );
    assert_eq!(of(&[tier(Tier::Weekly)], "STANDARD_IA"), None);
    assert_eq!(of(&[tier(Tier::Quarterly)], "STANDARD"), None);
}

#[test]
fn what_a_promised_restore_depends_on_is_never_cold() {
    let pin = KeepReason::Pin {
        id: "1".into(),
        reason: "audit".into(),
        expires: None,
    };
    for promised in [
        KeepReason::Window,
        KeepReason::Minimum,
        KeepReason::NoPolicy,
        KeepReason::NotReplaced,
        KeepReason::Unknown { why: "odd".into() },
    ] {
        let reasons = [tier(Tier::Yearly), pin.clone(), promised];
        assert_eq!(moves(&[("a", &reasons)], "STANDARD"), None);
        assert_eq!(moves(&[("a", &reasons)], "STANDARD_IA"), None);
        assert_eq!(
            moves(&[("a", &reasons)], "GLACIER"),
            to("STANDARD"),
            "what is cold comes back"
        );
    }
    let reasons = [tier(Tier::Yearly), pin];
    assert_eq!(moves(&[("a", &reasons)], "STANDARD"), to("DEEP_ARCHIVE"));
}

#[test]
fn objects_that_several_items_name_take_the_warmest_class() {
    let of = |reasons: &[KeepReason], other: &[KeepReason]| {
        moves(&[("a", reasons), ("b", other)], "STANDARD")
    };
    let a = [tier(Tier::Yearly), needed_by("b")];
    assert_eq!(of(&a, &[tier(Tier::Monthly)]), to("GLACIER"));
    assert_eq!(of(&a, &[tier(Tier::Weekly)]), to("STANDARD_IA"));
    assert_eq!(of(&a, &[tier(Tier::Daily)]), None);
    assert_eq!(of(&a, &[KeepReason::Window]), None);
    let a = [needed_by("b")];
    assert_eq!(of(&a, &[tier(Tier::Monthly)]), to("GLACIER"));
    assert_eq!(of(&a, &[needed_by("a"), tier(Tier::Monthly)]), None);
    assert_eq!(moves(&[("a", &[needed_by("gone")])], "STANDARD"), None);
}

#[test]
fn what_costs_more_than_it_saves_is_left_alone() {
    let weekly = [tier(Tier::Weekly)];
    assert_eq!(moves(&[("a", &weekly)], "GLACIER"), None);
    let plan = plan(&[("a", &weekly)]);
    let small = object("a", Some("STANDARD"), SMALLEST - 1);
    let folder = object("a", None, 1 << 20);
    assert!(promotions(&plan, &classes(), &[small, folder]).is_empty());
    let none = Classes::default();
    assert!(none.says_nothing_of(ItemKind::Base) && !classes().says_nothing_of(ItemKind::Base));
    let large = object("a", Some("STANDARD"), 1 << 20);
    assert!(promotions(&plan, &none, &[large]).is_empty());
}

#[test]
fn classes_are_set_by_tier() {
    let of = |tiers: &[&str]| {
        let tiers: Vec<String> = tiers.iter().map(ToString::to_string).collect();
        KindClasses::new("s3.tier_classes_base", None, &tiers)
    };
    let set = of(&[
        "weekly = STANDARD_IA",
        "monthly=GLACIER",
        "yearly = DEEP_ARCHIVE",
    ]);
    assert_eq!(set.unwrap(), classes().base);
    for wrong in ["weekly", "fortnightly = GLACIER", "weekly = ", ""] {
        let error = of(&[wrong]).unwrap_err();
        assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
    }
}
