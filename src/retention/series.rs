//! Which items of one series stay by its own measure: tiers, the newest good ones, and what is in doubt.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::clock::{self, DOUBTED, Made, Trust};
use super::item::{Condition, Item};
use super::plan::{KeepReason, Missed};
use super::policy::{Keep, KindPolicy, Tier};

/// For so long an item stays that cannot be restored, to be looked at.
const EXAMINE: TimeDelta = TimeDelta::days(7);

/// An item, where it stands among all, and when it was made.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub at: usize,
    pub item: &'a Item,
    pub made: Made,
}

/// What one tier chooses from.
struct Chosen<'a> {
    tier: Tier,
    /// The first good item of each period.
    firsts: BTreeMap<i64, Member<'a>>,
    /// The oldest period of which the tier keeps something.
    oldest: i64,
    /// Doubted ones that would be the first of their periods if their own times were right, and those of the others wrong.
    maybe: Vec<Member<'a>>,
}

/// The items of one series.
pub(super) struct Series<'a> {
    /// By time.
    members: Vec<Member<'a>>,
    /// Those that promises are kept with, by time: up to the reference.
    good: Vec<Member<'a>>,
    tiers: Vec<Chosen<'a>>,
    zone: Tz,
    minimum: usize,
}

impl<'a> Series<'a> {
    pub fn new(mut members: Vec<Member<'a>>, policy: &KindPolicy, zone: Tz) -> Self {
        members.sort_by_key(|member| (member.made.time, member.item.time, &member.item.id));
        let is_good =
            |member: &&Member<'_>| member.item.is_good() && member.made.trust != Trust::Ahead;
        let mut good: Vec<Member<'a>> = members.iter().filter(is_good).copied().collect();
        // Where a doubted one was put is no evidence that a jump was none.
        let sure = good
            .iter()
            .filter(|member| member.made.trust == Trust::Sure)
            .map(|member| member.made.time);
        let sure: Vec<DateTime<Utc>> = sure.collect();
        let believed = clock::believed(&sure, policy.longest_gap());
        let reference = sure[..believed].last();
        good.retain(|member| Some(&member.made.time) <= reference);
        let tiers = policy
            .tiers
            .iter()
            .map(|(tier, keep)| Chosen::new(&good, tier, keep, zone));
        let tiers = tiers.collect();
        Self {
            members,
            good,
            tiers,
            zone,
            minimum: policy.minimum.max(1) as usize,
        }
    }

    /// The newest good one: its time is the reference time.
    pub fn newest(&self) -> Option<&Member<'a>> {
        self.good.last()
    }

    /// All of them, by time.
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// The good ones up to the reference, by time.
    pub fn good(&self) -> &[Member<'a>] {
        &self.good
    }

    /// All reasons to keep an item of the series, with its place among all items.
    pub fn reasons(&self) -> Vec<(usize, KeepReason)> {
        let by_tiers = self.tiers.iter().flat_map(|chosen| {
            let firsts = chosen.firsts.range(chosen.oldest..);
            let kept = firsts.map(|(_, first)| first).chain(&chosen.maybe);
            kept.map(|first| (first.at, KeepReason::Tier { tier: chosen.tier }))
        });
        // A doubted one may be as new as it seems: it counts, and takes the place of none that surely is.
        let is_sure = |member: &&Member<'_>| member.made.trust == Trust::Sure;
        let newest = self.good.iter().rev().take(self.minimum);
        let surely = self.good.iter().rev().filter(is_sure).take(self.minimum);
        let minimum = newest.chain(surely);
        let minimum = minimum.map(|member| (member.at, KeepReason::Minimum));
        by_tiers.chain(minimum).chain(self.doubts()).collect()
    }

    /// Why the tiers do not keep a good one.
    pub fn missed(&self, member: &Member<'a>) -> Vec<(Tier, Missed)> {
        let missed = |chosen: &Chosen<'a>| {
            let period = chosen.tier.period(member.made.time, self.zone);
            let missed = match chosen.firsts.get(&period) {
                Some(first) if period >= chosen.oldest => Missed::NotFirst {
                    first: first.item.id.clone(),
                },
                _ => Missed::TooOld,
            };
            (chosen.tier, missed)
        };
        self.tiers.iter().map(missed).collect()
    }

    /// What stays because something about it is not known, or not well.
    fn doubts(&self) -> impl Iterator<Item = (usize, KeepReason)> + '_ {
        let (minimum, reference) = (self.minimum, self.newest().map(|newest| newest.made.time));
        let is_recent = move |member: &Member<'_>, span| {
            reference
                .is_none_or(|reference| member.made.time.max(member.item.time) > reference - span)
        };
        let enough_newer = move |member: &Member<'_>| {
            let newer = self
                .good
                .iter()
                .rev()
                .take_while(|good| good.made.time > member.made.time);
            newer.take(minimum).count() == minimum
        };
        self.members.iter().flat_map(move |member| {
            let mut doubts = Vec::new();
            match &member.item.condition {
                Condition::Unknown(why) => doubts.push(KeepReason::Unknown { why: why.clone() }),
                Condition::Bad(_) if !enough_newer(member) => doubts.push(KeepReason::NotReplaced),
                Condition::Bad(_) if is_recent(member, EXAMINE) => doubts.push(KeepReason::Examine),
                _ => (),
            }
            let later = reference.is_some_and(|reference| member.made.time > reference);
            if member.made.trust == Trust::Ahead || later && member.item.is_good() {
                doubts.push(KeepReason::Ahead);
            }
            if member.made.trust == Trust::Doubted && is_recent(member, DOUBTED) {
                doubts.push(KeepReason::ClockDoubted);
            }
            doubts.into_iter().map(|reason| (member.at, reason))
        })
    }
}

impl<'a> Chosen<'a> {
    fn new(good: &[Member<'a>], tier: Tier, keep: Keep, zone: Tz) -> Self {
        let mut firsts = BTreeMap::new();
        // A doubted one stands for no period: it could take the place of one that is right.
        for member in good
            .iter()
            .filter(|member| member.made.trust == Trust::Sure)
        {
            firsts
                .entry(tier.period(member.made.time, zone))
                .or_insert(*member);
        }
        let oldest = match (keep, good.last()) {
            (Keep::Count(0), _) | (_, None) => i64::MAX,
            (Keep::Count(count), _) => {
                let oldest = firsts.keys().rev().nth(count as usize - 1);
                oldest.copied().unwrap_or(i64::MIN)
            }
            (Keep::For(span), Some(newest)) => {
                let from = newest.made.time.checked_sub_signed(span);
                tier.period(from.unwrap_or(DateTime::<Utc>::MIN_UTC), zone)
            }
        };
        let period = |member: &Member<'_>| tier.period(member.item.time, zone);
        let last = good
            .last()
            .map_or(i64::MIN, |newest| tier.period(newest.made.time, zone));
        let may_be_first = |member: &&Member<'_>| {
            let period = period(member);
            member.made.trust == Trust::Doubted
                && (oldest..=last).contains(&period)
                && firsts
                    .get(&period)
                    .is_none_or(|first| member.item.time < first.item.time)
        };
        let maybe = good.iter().filter(may_be_first).copied().collect();
        Self {
            tier,
            firsts,
            oldest,
            maybe,
        }
    }
}
