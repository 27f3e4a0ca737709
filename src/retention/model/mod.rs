//! Random histories of years against what was promised, told by brute force from a record that nothing is deleted of.

mod deletion;
mod promised;
mod world;

use std::collections::BTreeSet;

use super::policy::{Keep, KindPolicy, Policy, Tiers};
use super::{Deletions, ItemId, ItemKind, decide};
use promised::check;
use world::{Random, World};

/// How many histories of a kind: more in a long run.
fn histories(normal: u64) -> u64 {
    if std::env::var_os("WALDEN_TEST_LONG").is_some() {
        normal * 40
    } else {
        normal
    }
}

fn random_keep(random: &mut Random, days: i64) -> Option<Keep> {
    match random.below(4) {
        0 => None,
        1 => Some(Keep::For(chrono::TimeDelta::days(
            days * (1 + random.below(6) as i64),
        ))),
        _ => Some(Keep::Count(1 + random.below(8) as u32)),
    }
}

fn random_kind(random: &mut Random) -> KindPolicy {
    let lengths = [1, 1, 7, 30, 91, 365];
    KindPolicy {
        tiers: Tiers(lengths.map(|days| random_keep(random, days))),
        minimum: random.below(4) as u32,
    }
}

fn random_policy(random: &mut Random) -> Policy {
    let zones = [
        chrono_tz::UTC,
        chrono_tz::Europe::Berlin,
        chrono_tz::Asia::Kathmandu,
        chrono_tz::America::New_York,
    ];
    let window =
        (random.below(5) > 0).then(|| chrono::TimeDelta::hours(random.below(24 * 30) as i64));
    Policy {
        zone: zones[random.below(4) as usize],
        window,
        base: random_kind(random),
        dump: random_kind(random),
        schema: random_kind(random),
    }
}

/// One history: plans are made, go stale, are applied by halves, in any order; and each time all promises are checked.
fn live(seed: u64, wrong_clocks: bool) {
    let mut random = Random(seed);
    let policy = random_policy(&mut random);
    let mut world = World::new(random, wrong_clocks);
    let mut printed: Option<Deletions> = None;
    for _ in 0..60 {
        world.go_on();
        match (world.random.below(4), printed.take()) {
            // What was printed is applied later: what came to need something meanwhile has a say.
            (0, Some(old)) => {
                let plan = decide(&world.left, &policy);
                let deletions = old.still_in(&plan.deletions());
                world.delete(&plan, &deletions, true);
            }
            (1, _) => {
                let plan = decide(&world.left, &policy);
                let deletions = plan.deletions();
                world.delete(&plan, &deletions, true);
            }
            (2, _) => {
                let plan = decide(&world.left, &policy);
                let deletions = plan.deletions();
                world.delete(&plan, &deletions, false);
                let again = decide(&world.left, &policy).deletions();
                assert!(
                    wrong_clocks || again.is_empty(),
                    "seed {seed}: nothing is left to do after an apply\n{}",
                    again.text()
                );
            }
            (_, old) => printed = old.or_else(|| Some(decide(&world.left, &policy).deletions())),
        }
        check(&world, &policy, &format!("seed {seed}"));
    }
}

#[test]
fn every_promise_holds_after_every_apply() {
    (0..histories(5)).for_each(|seed| live(seed, false));
}

#[test]
fn a_wrong_clock_costs_no_promise() {
    let seeds = 1000..1000 + histories(5);
    // 1010: base backups of a clock that was wrong took the places of the newest ones.
    seeds.chain([1010]).for_each(|seed| live(seed, true));
}

/// The same history, applied every so many steps and at the end.
fn applied(seed: u64, every: u64, policy: &Policy) -> World {
    let mut world = World::steady(Random(seed));
    for step in 1..=90 {
        world.go_on();
        if step % every == 0 || step == 90 {
            let plan = decide(&world.left, policy);
            world.delete(&plan, &plan.deletions(), false);
        }
    }
    world
}

#[test]
fn how_often_it_is_applied_does_not_matter() {
    for seed in 2000..2000 + histories(2) {
        let policy = random_policy(&mut Random(seed));
        let once = applied(seed, u64::MAX, &policy);
        for often in [1, 7].map(|every| applied(seed, every, &policy)) {
            let ids = |world: &World| -> BTreeSet<ItemId> {
                world
                    .left
                    .items
                    .iter()
                    .map(|item| item.id.clone())
                    .collect()
            };
            let differs = ids(&once)
                .symmetric_difference(&ids(&often))
                .next()
                .cloned();
            let told = differs.map(|id| (often.history_of(&id), once.history_of(&id), id));
            assert_eq!(told, None, "seed {seed}\n{policy:?}");
            let segments = |world: &World| -> Vec<_> {
                world
                    .left
                    .wal
                    .ranges
                    .iter()
                    .map(|range| (range.first, range.last))
                    .collect()
            };
            assert_eq!(segments(&once), segments(&often), "seed {seed}");
        }
    }
}

#[test]
fn without_a_policy_nothing_goes() {
    let policy = Policy {
        zone: chrono_tz::UTC,
        window: None,
        base: KindPolicy::default(),
        dump: KindPolicy::default(),
        schema: KindPolicy::default(),
    };
    let mut world = World::new(Random(1), true);
    (0..60).for_each(|_| world.go_on());
    let plan = decide(&world.left, &policy);
    assert!(plan.deletions().is_empty());
    assert!(ItemKind::ALL.iter().all(|kind| !policy.limits(*kind)));
}
