//! Judges what was proven: by drills, restores and verifications that left a record.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{HealthReason, Rule, words};
use crate::config::Health as Limits;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActKind {
    /// Of base backups and WAL.
    Drill,
    DumpDrill,
    /// Known data through a dump: it proves nothing of what is kept.
    RoundTrip,
    Restore,
    Verification,
    Other,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActEnd {
    Passed,
    Failed,
    CouldNotRun,
}

/// Something that was done, by its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAct {
    pub kind: ActKind,
    pub ended: DateTime<Utc>,
    pub end: ActEnd,
    /// Why, unless it passed.
    pub why: String,
    /// Of a drill or restore: how long it took.
    pub took: TimeDelta,
}

/// What is broken where a drill did not pass, or could not run.
const DRILL: [Rule; 2] = [Rule::DrillFailed, Rule::DrillCouldNotRun];

impl ActKind {
    /// Whether something that is kept was restored by itself.
    fn is_drill(self) -> bool {
        matches!(self, Self::Drill | Self::DumpDrill)
    }
}

/// What is not good about what was done, in any order.
pub fn judge(acts: &[SeenAct], limits: &Limits, now: DateTime<Utc>) -> Vec<HealthReason> {
    let mut reasons = not_passed(acts);
    reasons.extend(too_long_ago(acts, limits, now));
    reasons.extend(slow_restore(acts, limits));
    reasons
}

/// The last drill of each kind and the last verification, if they did not pass.
fn not_passed(acts: &[SeenAct]) -> Vec<HealthReason> {
    let of = |kind: ActKind| {
        let of_kind = acts.iter().filter(move |act| act.kind == kind);
        of_kind.max_by_key(|act| act.ended)
    };
    let last = [
        (
            (of(ActKind::Drill), ""),
            "drill",
            DRILL,
            "`walden evidence list --act drill` shows it; mend it, then `walden drill run`",
        ),
        (
            (of(ActKind::DumpDrill), "dump"),
            "drill of a dump",
            DRILL,
            "`walden evidence list --act drill` shows it; mend it, then `walden drill run --dump`",
        ),
        (
            (of(ActKind::RoundTrip), "round-trip"),
            "round trip of a dump",
            DRILL,
            "`walden evidence list --act drill` shows it; mend it, then `walden drill round-trip`",
        ),
        (
            (of(ActKind::Verification), ""),
            "verification",
            [Rule::VerificationFailed; 2],
            "look with `walden repo verify`, and repair from a copy",
        ),
    ];
    let reason =
        |((act, of), name, rules, next): ((Option<&SeenAct>, &str), &str, [Rule; 2], _)| {
            let act = act?;
            let (rule, how) = match act.end {
                ActEnd::Passed => return None,
                ActEnd::Failed => (rules[0], "failed"),
                ActEnd::CouldNotRun => (rules[1], "could not run"),
            };
            let why = act.why.lines().next().unwrap_or_default();
            let what = format!("the last {name} {how}: {why}");
            Some(HealthReason::new(rule, what, next).of(of))
        };
    last.into_iter().filter_map(reason).collect()
}

fn too_long_ago(acts: &[SeenAct], limits: &Limits, now: DateTime<Utc>) -> Vec<HealthReason> {
    let is_drill = |act: &&SeenAct| act.end == ActEnd::Passed && act.kind.is_drill();
    let drilled = acts.iter().filter(is_drill).map(|act| act.ended).max();
    // Neither changed settings nor known data prove anything of what is kept.
    let is_proof = |act: &&SeenAct| !matches!(act.kind, ActKind::Other | ActKind::RoundTrip);
    let proofs = acts.iter().filter(is_proof);
    let ages = [
        (
            limits.drill_age,
            drilled,
            Rule::DrillOld,
            "drill that passed",
            "run one: `walden drill run`",
        ),
        (
            limits.evidence_age,
            proofs.map(|act| act.ended).max(),
            Rule::EvidenceOld,
            "record of anything that was proven",
            "run a drill or `walden repo verify`",
        ),
    ];
    let reason = |(limit, last, rule, what, next): (Option<_>, _, _, _, _)| {
        let age = too_old(limit?, last, now)?;
        Some(HealthReason::new(rule, format!("{age} {what}"), next))
    };
    ages.into_iter().filter_map(reason).collect()
}

fn slow_restore(acts: &[SeenAct], limits: &Limits) -> Option<HealthReason> {
    let is_restore = |act: &&SeenAct| {
        act.end == ActEnd::Passed && (act.kind == ActKind::Restore || act.kind.is_drill())
    };
    let restored = acts.iter().filter(is_restore);
    let (last, limit) = (restored.max_by_key(|act| act.ended)?, limits.restore_time?);
    if !last.took.to_std().is_ok_and(|took| took > limit) {
        return None;
    }
    let limit = TimeDelta::from_std(limit).unwrap_or_default();
    let what = format!(
        "the last restore took {}; health.restore_time is {}",
        words(last.took),
        words(limit)
    );
    let next = "look where the time goes: `walden evidence show`";
    Some(HealthReason::new(Rule::RestoreSlow, what, next))
}

/// In words, if it is.
fn too_old(limit: Duration, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<String> {
    match last {
        None => Some("there is no".into()),
        Some(last) => {
            let is_old = (now - last).to_std().is_ok_and(|age| age > limit);
            is_old.then(|| format!("for {} there was no", words(now - last)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::health_limits;

    fn act(kind: ActKind, days: i64, end: ActEnd) -> SeenAct {
        SeenAct {
            kind,
            ended: DateTime::UNIX_EPOCH + TimeDelta::days(days),
            end,
            why: "a page is damaged".into(),
            took: TimeDelta::minutes(days),
        }
    }

    fn rules(acts: &[SeenAct], limits: &Limits) -> Vec<Rule> {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(100);
        let reasons = judge(acts, limits, now);
        reasons.iter().map(|reason| reason.rule).collect()
    }

    #[test]
    fn the_last_of_a_kind_counts() {
        use ActEnd::{CouldNotRun, Failed, Passed};
        use ActKind::{Drill, Restore, Verification};
        let judged = |acts: &[SeenAct]| rules(acts, &health_limits());
        assert_eq!(judged(&[]), []);
        let failed = act(Drill, 90, Failed);
        assert_eq!(judged(std::slice::from_ref(&failed)), [Rule::DrillFailed]);
        assert_eq!(judged(&[act(Drill, 91, Passed), failed.clone()]), []);
        assert_eq!(
            judged(&[failed, act(Drill, 91, CouldNotRun)]),
            [Rule::DrillCouldNotRun]
        );
        assert_eq!(
            judged(&[act(Verification, 1, Failed)]),
            [Rule::VerificationFailed]
        );
        assert_eq!(
            judged(&[act(Verification, 1, Failed), act(Verification, 2, Passed)]),
            []
        );
        // Another kind hides no failure, and both are told apart.
        let both = [
            act(Drill, 90, Failed),
            act(ActKind::DumpDrill, 91, Passed),
            act(ActKind::RoundTrip, 92, Failed),
        ];
        let told = judge(&both, &health_limits(), DateTime::UNIX_EPOCH);
        let told: Vec<_> = told.iter().map(|r| (r.rule, &*r.of)).collect();
        assert_eq!(
            told,
            [(Rule::DrillFailed, ""), (Rule::DrillFailed, "round-trip")]
        );
        assert_eq!(
            judged(&[act(Restore, 90, Failed)]),
            [],
            "whoever restored was told"
        );
    }

    #[test]
    fn what_was_promised_is_asked_for() {
        use ActEnd::{Failed, Passed};
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let limits = Limits {
            drill_age: days(7),
            evidence_age: days(30),
            restore_time: Some(Duration::from_secs(3600)),
            ..health_limits()
        };
        assert_eq!(rules(&[], &limits), [Rule::DrillOld, Rule::EvidenceOld]);
        let restored = |days| act(ActKind::Restore, days, Passed);
        assert_eq!(
            rules(&[restored(60)], &limits),
            [Rule::DrillOld, Rule::EvidenceOld]
        );
        assert_eq!(
            rules(&[restored(99)], &limits),
            [Rule::DrillOld, Rule::RestoreSlow]
        );
        // What was known before proves nothing of what is kept.
        assert_eq!(
            rules(&[act(ActKind::RoundTrip, 99, Passed)], &limits),
            [Rule::DrillOld, Rule::EvidenceOld]
        );
        let drill = act(ActKind::DumpDrill, 93, Passed);
        assert_eq!(
            rules(std::slice::from_ref(&drill), &limits),
            [Rule::RestoreSlow]
        );
        let failed = act(ActKind::Drill, 99, Failed);
        let told = rules(&[act(ActKind::Drill, 92, Passed), failed], &limits);
        assert_eq!(told, [Rule::DrillFailed, Rule::DrillOld, Rule::RestoreSlow]);
    }
}
