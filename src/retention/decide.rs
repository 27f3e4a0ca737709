//! The decision.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::clock::{self, Made};
use super::item::{Condition, Holdings, Item, ItemId, ItemKind, Needs};
use super::paths::Paths;
use super::plan::{DeleteReason, ItemDecision, KeepReason, Plan, Reference, Verdict, WalReason};
use super::policy::Policy;
use super::series::{Member, Series};
use super::wal::{Begin, Needed};

/// Decides what is kept and what goes.
///
/// Nothing of a kind that the policy says nothing of ever goes, nor what is not known, nor what anything kept may need.
pub fn decide(holdings: &Holdings, policy: &Policy) -> Plan {
    let paths = Paths::new(holdings);
    let (made, clock_wrong) = clock::made(holdings, &paths);
    let series = by_series(holdings, policy, &made);
    let base = series.get(&(ItemKind::Base, ""));
    let mut keep = Keeping::new(&holdings.items);
    keep.whole_kinds(policy, &paths, clock_wrong);
    let by_series = series.values().flat_map(Series::reasons);
    by_series.for_each(|(at, reason)| keep.add(at, reason));
    let begins = base.map(|base| windows(base, policy, &paths, &mut keep));
    keep.pinned(holdings, &series);
    keep.leased(holdings);
    keep.witnesses(&made);
    keep.needed();
    let mut needed = match base.and_then(Series::newest) {
        _ if clock_wrong => paths.all(WalReason::ClockWrong),
        _ if policy.window.is_none() => paths.all(WalReason::NoPolicy),
        None => paths.all(WalReason::NoBackup),
        Some(_) => {
            let begins = begins.iter().flatten();
            begins.flat_map(|begin| paths.of_window(begin)).collect()
        }
    };
    for timeline in paths.unknown.iter().copied() {
        needed.extend(paths.all(WalReason::PathUnknown { timeline }));
    }
    needed.extend(of_readers(holdings, &paths));
    needed.extend(of_kept(holdings, &paths, &keep));
    Plan {
        references: references(&series),
        wal: paths.decide(&needed),
        warnings: super::warnings::warnings(
            holdings,
            policy,
            &paths.unknown,
            clock_wrong,
            &keep.reasons,
        ),
        items: verdicts(&series, keep),
    }
}

/// The WAL that is being read.
fn of_readers(holdings: &Holdings, paths: &Paths<'_>) -> Vec<Needed> {
    let leased = holdings.leases.iter().flat_map(|lease| {
        let wal = lease.wal.iter();
        wal.flat_map(|wal| paths.of_lease(wal, &lease.id, &lease.holder))
    });
    leased.collect()
}

/// The WAL that kept base backups need by themselves, or may need.
fn of_kept(holdings: &Holdings, paths: &Paths<'_>, keep: &Keeping<'_>) -> Vec<Needed> {
    let mut needed = Vec::new();
    for (item, reasons) in holdings.items.iter().zip(&keep.reasons) {
        match (item.wal, &item.condition) {
            _ if reasons.is_empty() => (),
            (Some(wal), _) => needed.extend(paths.of_backup(&item.id, wal)),
            (None, Condition::Unknown(_)) if item.id.kind == ItemKind::Base => {
                // Where it lies in the WAL only its time tells, and clocks go wrong: it may need any.
                let item = item.id.clone();
                needed.extend(paths.all(WalReason::MayBeNeededBy { item }));
            }
            _ => (),
        }
    }
    needed
}

type BySeries<'a> = BTreeMap<(ItemKind, &'a str), Series<'a>>;

fn by_series<'a>(holdings: &'a Holdings, policy: &Policy, made: &[Made]) -> BySeries<'a> {
    let mut members: BTreeMap<(ItemKind, &str), Vec<Member<'a>>> = BTreeMap::new();
    for (at, (item, made)) in holdings.items.iter().zip(made).enumerate() {
        let of = members.entry((item.id.kind, &item.series)).or_default();
        of.push(Member {
            at,
            item,
            made: *made,
        });
    }
    let series = |(key, members): ((ItemKind, &'a str), _)| {
        (key, Series::new(members, policy.of(key.0), policy.zone))
    };
    members.into_iter().map(series).collect()
}

/// Keeps the base backups of the recovery window, and tells where it begins on each timeline. Without a window it begins
/// with the newest one: tiers may choose those of a timeline that was left, and the newest timeline needs one, too.
fn windows<'a>(
    base: &'a Series<'a>,
    policy: &Policy,
    paths: &Paths<'a>,
    keep: &mut Keeping<'a>,
) -> Vec<Begin<'a>> {
    let Some(newest) = base.newest() else {
        return Vec::new();
    };
    let window = policy.window.unwrap_or_default();
    let from = newest.made.time.checked_sub_signed(window);
    let from = from.unwrap_or(DateTime::<Utc>::MIN_UTC);
    for member in base.good().iter().filter(|member| member.made.time > from) {
        keep.add(member.at, KeepReason::Window);
    }
    let begins = paths.begins(base.good(), from);
    for begin in &begins {
        if let Some(backup) = begin.backup {
            let timeline = begin.timeline;
            keep.add(backup.at, KeepReason::WindowBegin { timeline });
        }
    }
    begins
}

/// The reasons to keep each item, as they are found.
struct Keeping<'a> {
    items: &'a [Item],
    places: BTreeMap<&'a ItemId, usize>,
    reasons: Vec<BTreeSet<KeepReason>>,
}

impl<'a> Keeping<'a> {
    fn new(items: &'a [Item]) -> Self {
        let places = items
            .iter()
            .enumerate()
            .map(|(at, item)| (&item.id, at))
            .collect();
        Self {
            items,
            places,
            reasons: vec![BTreeSet::new(); items.len()],
        }
    }

    fn add(&mut self, at: usize, reason: KeepReason) {
        self.reasons[at].insert(reason);
    }

    fn all(&mut self, which: impl Fn(&Item) -> bool, reason: impl Fn() -> KeepReason) {
        for (item, reasons) in self.items.iter().zip(&mut self.reasons) {
            if which(item) {
                reasons.insert(reason());
            }
        }
    }

    /// Keeps what the policy does not limit, or what nothing can be said of.
    fn whole_kinds(&mut self, policy: &Policy, paths: &Paths<'_>, clock_wrong: bool) {
        if clock_wrong {
            self.all(|_| true, || KeepReason::ClockWrong);
        }
        self.all(|item| !policy.limits(item.id.kind), || KeepReason::NoPolicy);
        if let Some(timeline) = paths.unknown.first().copied() {
            let is_base = |item: &Item| item.id.kind == ItemKind::Base;
            self.all(is_base, || KeepReason::PathUnknown { timeline });
        }
    }

    fn pinned(&mut self, holdings: &Holdings, series: &BySeries<'_>) {
        for pin in &holdings.pins {
            let Some(at) = self.places.get(&pin.item).copied() else {
                continue;
            };
            let item = &self.items[at];
            let newest = series
                .get(&(item.id.kind, item.series.as_str()))
                .and_then(Series::newest);
            let reference = newest.map(|newest| newest.made.time);
            let over = pin
                .expires
                .zip(reference)
                .is_some_and(|(expires, reference)| expires < reference);
            if !over {
                let (id, reason, expires) = (pin.id.clone(), pin.reason.clone(), pin.expires);
                self.add(
                    at,
                    KeepReason::Pin {
                        id,
                        reason,
                        expires,
                    },
                );
            }
        }
    }

    fn leased(&mut self, holdings: &Holdings) {
        for lease in &holdings.leases {
            for item in &lease.items {
                if let Some(at) = self.places.get(item).copied() {
                    self.add(
                        at,
                        KeepReason::Lease {
                            id: lease.id.clone(),
                            holder: lease.holder.clone(),
                        },
                    );
                }
            }
        }
    }

    /// Keeps what shows that the time of a kept one is in doubt: without it that one would take the place of another.
    fn witnesses(&mut self, made: &[Made]) {
        for (at, made) in made.iter().enumerate() {
            if let Some(witness) = made.witness
                && !self.reasons[at].is_empty()
            {
                let item = self.items[at].id.clone();
                self.add(witness, KeepReason::Contradicts { item });
            }
        }
    }

    /// Keeps what kept ones need, and what those need.
    fn needed(&mut self) {
        let mut waiting: Vec<usize> = (0..self.items.len())
            .filter(|at| !self.reasons[*at].is_empty())
            .collect();
        while let Some(at) = waiting.pop() {
            let item = &self.items[at];
            let (found, reason): (Vec<usize>, _) = match &item.needs {
                Needs::Known(needs) => {
                    let found = needs
                        .iter()
                        .filter_map(|id| self.places.get(id).copied())
                        .collect();
                    (
                        found,
                        KeepReason::NeededBy {
                            item: item.id.clone(),
                        },
                    )
                }
                Needs::Unknown => {
                    let is_older =
                        |other: &Item| other.id.kind == item.id.kind && other.began < item.began;
                    let older = self
                        .items
                        .iter()
                        .enumerate()
                        .filter(|(_, other)| is_older(other));
                    (
                        older.map(|(at, _)| at).collect(),
                        KeepReason::MayBeNeededBy {
                            item: item.id.clone(),
                        },
                    )
                }
            };
            for found in found {
                if self.reasons[found].is_empty() {
                    waiting.push(found);
                }
                self.add(found, reason.clone());
            }
        }
    }
}

fn references(series: &BySeries<'_>) -> Vec<Reference> {
    let reference = |((kind, name), series): (&(ItemKind, &str), &Series<'_>)| {
        let newest = series.newest()?;
        let (time, item) = (newest.made.time, newest.item.id.clone());
        Some(Reference {
            kind: *kind,
            series: name.to_string(),
            time,
            item,
        })
    };
    series.iter().filter_map(reference).collect()
}

fn verdicts(series: &BySeries<'_>, keep: Keeping<'_>) -> Vec<ItemDecision> {
    let mut reasons = keep.reasons;
    let members = series
        .values()
        .flat_map(|series| series.members().iter().map(move |member| (series, member)));
    let decision = |(series, member): (&Series<'_>, &Member<'_>)| {
        let item = member.item;
        let reasons = std::mem::take(&mut reasons[member.at]);
        let verdict = match (&item.condition, reasons.is_empty()) {
            (_, false) => Verdict::Keep(reasons.into_iter().collect()),
            (Condition::Bad(why), true) => Verdict::Delete(DeleteReason::Bad { why: why.clone() }),
            _ => Verdict::Delete(DeleteReason::Expired {
                tiers: series.missed(member),
            }),
        };
        ItemDecision {
            id: item.id.clone(),
            series: item.series.clone(),
            time: item.time,
            size: item.size,
            verdict,
        }
    };
    members.map(decision).collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
