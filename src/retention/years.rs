//! Each preset for some years, as the table in docs/operations/retention.md.

use std::fmt::Write;

use super::super::holds::{Gone, Held, holds};
use super::super::{KeepReason, Pin, Policy, Tier, WalFacts};
use super::*;
use crate::config::{self, PRESETS, Preset};
use crate::postgres::types::SegmentSize;

const PAGE: &str = "docs/operations/retention.md";
const BEGIN: &str = "<!-- made by a test: begin -->\n";
const END: &str = "<!-- made by a test: end -->";

fn policy(preset: &Preset) -> Policy {
    let url = ("repository.url", "file:///srv/archive");
    let given: Vec<_> = [url]
        .into_iter()
        .chain(preset.settings.iter().copied())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("walden.toml");
    std::fs::write(&file, config::render_commented(&given).unwrap()).unwrap();
    let settings = config::load::<&str, &str>(Some(&file), []).unwrap();
    Policy::new(&settings)
}

/// How often backups are made, in hours: base backups, dumps, dumps of the schema.
fn hours(preset: &str) -> [i64; 3] {
    match preset {
        "hourly" | "quarterly" => [7 * 24, 1, 24],
        "daily" => [7 * 24, 24, 24],
        "pitr" | "month" => [24, 24, 24],
        other => panic!("how often preset \"{other}\" makes backups is not told here"),
    }
}

/// What is left after so many days, the policy applied every few days.
fn after(policy: &Policy, hours: [i64; 3], days: i64, step: i64) -> (Holdings, Plan) {
    let begin: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let holdings = Holdings {
        items: Vec::new(),
        wal: WalFacts {
            ranges: WalRanges::new(SegmentSize::new(16 << 20).unwrap()),
            histories: BTreeMap::new(),
            unread_histories: BTreeMap::new(),
        },
        pins: Vec::new(),
        leases: Vec::new(),
        now: begin,
    };
    let every = ItemKind::ALL.into_iter().zip(hours);
    let every = every.map(|(kind, hours)| ((kind, String::new()), TimeDelta::hours(hours)));
    let mut simulation = Simulation::new(holdings, policy, every.collect());
    for day in (step..days).step_by(step as usize) {
        simulation.pass_until(begin + TimeDelta::days(day));
        simulation.apply();
    }
    simulation.pass_until(begin + TimeDelta::days(days));
    let plan = simulation.apply();
    (simulation.holdings, plan)
}

/// What each tier keeps, and how far back that reaches, in days.
fn tiers(plan: &Plan, kind: ItemKind) -> String {
    let newest = plan
        .references
        .iter()
        .find(|reference| reference.kind == kind)
        .unwrap()
        .time;
    let mut text = Vec::new();
    for tier in Tier::ALL {
        let by_tier = |reason: &KeepReason| *reason == KeepReason::Tier { tier };
        let kept = plan
            .items
            .iter()
            .filter(|item| item.id.kind == kind && item.reasons().iter().any(by_tier));
        let ages: Vec<i64> = kept.map(|item| (newest - item.time).num_days()).collect();
        if let Some(oldest) = ages.iter().max() {
            text.push(format!("{} {tier}, back {oldest} d", ages.len()));
        }
    }
    text.join("; ")
}

fn table() -> String {
    let mut text = String::from(
        "| preset | base backups | dumps | items in all | WAL without a gap |\n|---|---|---|---|---|\n",
    );
    for preset in PRESETS {
        let (left, plan) = after(&policy(preset), hours(preset.name), 365, 5);
        let count = |kind| {
            left.items
                .iter()
                .filter(|item| item.id.kind == kind)
                .count()
        };
        let window = left
            .items
            .iter()
            .filter(|item| item.id.kind == ItemKind::Base);
        let last = left.wal.ranges.iter().last().unwrap().first;
        let size = left.wal.ranges.segment_size();
        let begin = window
            .filter(|item| item.wal.unwrap().start.lsn >= last.start(size))
            .map(|item| item.time)
            .min();
        let days = begin.map_or(0, |begin| (left.now - begin).num_days());
        writeln!(
            text,
            "| `{}` | {} | {} | {} + {} + {} | of {days} d |",
            preset.name,
            tiers(&plan, ItemKind::Base),
            tiers(&plan, ItemKind::Dump),
            count(ItemKind::Base),
            count(ItemKind::Dump),
            count(ItemKind::Schema),
        )
        .unwrap();
    }
    text
}

#[test]
fn the_table_of_a_simulated_year_in_the_tree_is_fresh() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the page says where its table begins");
    let (_, after) = rest
        .split_once(END)
        .expect("the page says where its table ends");
    config::testing::assert_fresh(PAGE, &format!("{before}{BEGIN}{}{END}{after}", table()));
}

#[test]
fn applying_daily_or_every_ten_days_ends_the_same() {
    for preset in PRESETS.iter().filter(|preset| preset.name != "quarterly") {
        let policy = policy(preset);
        let [often, seldom] = [1, 10].map(|step| after(&policy, hours(preset.name), 120, step).0);
        let names = |left: &Holdings| {
            left.items
                .iter()
                .map(|item| item.id.clone())
                .collect::<Vec<_>>()
        };
        let segments = |left: &Holdings| -> Vec<_> {
            left.wal
                .ranges
                .iter()
                .map(|range| (range.first, range.last))
                .collect()
        };
        assert_eq!(names(&often), names(&seldom), "{}", preset.name);
        assert_eq!(segments(&often), segments(&seldom), "{}", preset.name);
    }
}

#[test]
fn years_of_daily_dumps_are_kept_as_the_preset_promises() {
    let (left, plan) = after(
        &policy(Preset::of("daily").unwrap()),
        hours("daily"),
        8 * 365,
        20,
    );
    assert_eq!(tiers(&plan, ItemKind::Dump).split("; ").count(), 4);
    let dumps = left
        .items
        .iter()
        .filter(|item| item.id.kind == ItemKind::Dump);
    let years: Vec<_> = dumps
        .filter(|item| item.id.name.ends_with("0101-000000Z"))
        .map(|item| &item.id.name[..4])
        .collect();
    assert_eq!(
        years,
        ["2027", "2028", "2029", "2030", "2031", "2032", "2033"]
    );
}

#[test]
fn what_holds_old_data_is_gone_when_the_policy_lets_it_go() {
    let policy = policy(Preset::of("pitr").unwrap());
    let (mut left, _) = after(&policy, hours("pitr"), 60, 5);
    let before = left.now - TimeDelta::days(3);
    let pinned = ItemId::new(ItemKind::Dump, "20260225-000000Z");
    let pin = |expires| Pin {
        id: "p".into(),
        item: pinned.clone(),
        reason: "audit".into(),
        expires,
    };
    left.pins.push(pin(None));
    let found = holds(&left, &policy, before);
    let gone = |name: &str| {
        let of = |held: &Held| matches!(held, Held::Item { id, .. } if id.to_string() == name);
        found
            .iter()
            .find(|hold| of(&hold.held))
            .map(|hold| hold.gone)
    };
    let by = |text: &str| Some(Gone::By(format!("{text}T00:00:00Z").parse().unwrap()));
    // Of seven years the first: when the eighth begins.
    assert_eq!(
        gone("base:20260101-000000Z")
            .map(|gone| gone > Gone::By("2033-01-01T00:00:00Z".parse().unwrap())),
        Some(true)
    );
    assert_eq!(
        gone("dump:20260224-000000Z"),
        by("2026-03-03"),
        "the seventh day after it"
    );
    assert_eq!(
        gone("dump:20260225-000000Z"),
        Some(Gone::Never),
        "it is pinned"
    );
    assert_eq!(gone("dump:20260301-000000Z"), None, "it began later");
    let wal = found
        .iter()
        .filter(|hold| matches!(hold.held, Held::Wal { .. }));
    assert!(wal.clone().all(|hold| hold.gone != Gone::Never) && wal.count() > 0);
}
