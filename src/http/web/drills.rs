//! Drills, as the page shows them: marks on the time line, a card, charts, and a list. Pure.

use chrono::{DateTime, Utc};

use super::super::options::DrillTargets;
use super::super::records::KnownRecords;
use super::axis::Span;
use super::cards::Card;
use super::signs::{NEAR, Sign, percent};
use super::words::{When, between, count, duration};
use crate::evidence::chart::Chart;
use crate::evidence::record::{Record, Verdict};
use crate::health::Level;

/// Drills in the list, and in the charts.
const LISTED: usize = 10;
const DRAWN: usize = 200;

/// What the page tells of drills.
pub struct DrillsView {
    /// The latest first.
    pub rows: Vec<DrillView>,
    pub has_more: bool,
    pub charts: Vec<Chart>,
    /// What runs one, at the chosen moment if there is one.
    pub command: String,
    /// Why they are not known.
    pub failed: Option<String>,
}

/// A drill.
pub struct DrillView {
    pub ended: When,
    pub target: String,
    pub verdict: String,
    pub class: &'static str,
    pub reason: String,
    pub rto: String,
    pub rpo: String,
    pub by: String,
    /// Those that did not pass, with what was seen.
    pub checks: Vec<String>,
    pub passed: String,
}

/// The class of a verdict's colour, and its sign for who does not see colours.
fn looks(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Passed => ("good", "✓"),
        Verdict::Failed => ("lost", "✗"),
        Verdict::CouldNotRun => ("other", "?"),
    }
}

impl DrillsView {
    /// Of what is known.
    pub fn new(
        known: &KnownRecords,
        targets: &DrillTargets,
        chosen: Option<DateTime<Utc>>,
    ) -> Self {
        let at = chosen.map(|at| format!(" --at {}", at.format("%Y-%m-%dT%H:%M:%S%.6fZ")));
        let measured = |value: fn(&Record) -> Option<f64>| -> Vec<(DateTime<Utc>, f64)> {
            let drills = known.drills().take(DRAWN);
            let mut all: Vec<_> = drills
                .filter_map(|drill| Some((drill.evidence.ended, value(drill)?)))
                .collect();
            all.reverse();
            all
        };
        let charts = [
            Chart::new(
                "RTO: until a restored server was checked",
                &measured(|drill| drill.evidence.rto_seconds),
                targets.rto.map(|target| target.as_secs_f64()),
            ),
            Chart::new(
                "RPO: age of the newest data that came back",
                &measured(|drill| drill.evidence.rpo_seconds),
                targets.rpo.map(|target| target.as_secs_f64()),
            ),
        ];
        Self {
            rows: known.drills().take(LISTED).map(DrillView::from).collect(),
            has_more: known.has_more || known.drills().count() > LISTED,
            charts: charts.into_iter().flatten().collect(),
            command: format!("walden drill run{}", at.unwrap_or_default()),
            failed: known.failed.clone(),
        }
    }
}

impl From<&Record> for DrillView {
    fn from(record: &Record) -> Self {
        let evidence = &record.evidence;
        let lasts = |seconds: Option<f64>| seconds.map(duration).unwrap_or_default();
        let (passed, others): (Vec<_>, Vec<_>) = evidence
            .checks
            .iter()
            .partition(|check| check.verdict == Verdict::Passed);
        let seen = |check: &&crate::evidence::record::Check| {
            format!("{} {}: {}", check.name, check.verdict, check.seen)
        };
        Self {
            ended: When::of(evidence.ended),
            target: evidence.subject.clone(),
            verdict: evidence.verdict.to_string(),
            class: looks(evidence.verdict).0,
            reason: evidence.reason.clone(),
            rto: lasts(evidence.rto_seconds),
            rpo: lasts(evidence.rpo_seconds),
            by: format!("{} on {}", record.who.user, record.who.host),
            checks: others.iter().map(seen).collect(),
            passed: format!("{} passed", count(passed.len() as u64, "check")),
        }
    }
}

/// How the newest drill ended; nothing where there was none.
pub fn card(known: &KnownRecords, now: DateTime<Utc>) -> Option<Card> {
    let evidence = &known.drills().next()?.evidence;
    let level = match evidence.verdict {
        Verdict::Passed => Level::Good,
        Verdict::Failed => Level::Critical,
        Verdict::CouldNotRun => Level::Warning,
    };
    let ago = format!("{} ago, ended", between(evidence.ended, now));
    let mut lines = vec![(ago, Some(When::of(evidence.ended)))];
    lines.extend(
        evidence
            .rto_seconds
            .map(|rto| (format!("RTO {}", duration(rto)), None)),
    );
    if !evidence.reason.is_empty() {
        lines.push((evidence.reason.clone(), None));
    }
    Some(Card {
        title: "Last drill",
        level,
        value: evidence.verdict.to_string(),
        lines,
    })
}

/// Marks on the time line; those that lie near to each other are one, which shows the worst.
pub fn marks(known: &KnownRecords, span: &Span) -> Vec<Sign> {
    let mut groups: Vec<Vec<&Record>> = Vec::new();
    let mut drills: Vec<&Record> = known.drills().collect();
    drills.reverse();
    for drill in drills
        .into_iter()
        .filter(|drill| span.holds(drill.evidence.ended))
    {
        let near = |group: &&mut Vec<&Record>| {
            let first = group.first().map(|first| span.place(first.evidence.ended));
            first.is_some_and(|first| span.place(drill.evidence.ended) - first < NEAR)
        };
        match groups.last_mut().filter(near) {
            Some(group) => group.push(drill),
            None => groups.push(vec![drill]),
        }
    }
    groups
        .iter()
        .filter_map(|group| mark(group, span))
        .collect()
}

fn mark(group: &[&Record], span: &Span) -> Option<Sign> {
    let (first, last) = (&group.first()?.evidence, &group.last()?.evidence);
    let has = |verdict| group.iter().any(|drill| drill.evidence.verdict == verdict);
    let all = [Verdict::Failed, Verdict::CouldNotRun, Verdict::Passed];
    let worst = all.into_iter().find(|verdict| has(*verdict))?;
    let (class, inside) = looks(worst);
    let words = match group {
        [_] => format!(
            "drill {worst}, {}: {}",
            When::of(first.ended).text(),
            first.subject
        ),
        all => format!(
            "{} from {} to {}, the worst {worst}",
            count(all.len() as u64, "drill"),
            When::of(first.ended).text(),
            When::of(last.ended).text()
        ),
    };
    Some(Sign {
        x: percent(span.place(first.ended)),
        ms: first.ended.timestamp_millis(),
        href: "#drills".into(),
        words,
        class,
        inside: inside.into(),
        chosen: false,
        name: None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use chrono::TimeDelta;

    use super::*;
    use crate::evidence::record::testing::{evidence, record};
    use crate::evidence::record::{Act, Check};

    fn hour(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    /// Drills that ended at these hours, given in their order.
    fn known(drills: &[(i64, Verdict)]) -> KnownRecords {
        let made = drills.iter().rev().map(|(at, verdict)| {
            let mut drill = evidence(Act::Drill);
            (drill.ended, drill.verdict) = (hour(*at), *verdict);
            drill.rto_seconds = Some(*at as f64);
            let check = |name: &str, verdict| Check {
                name: name.into(),
                verdict,
                seen: "seen".into(),
            };
            drill.checks = vec![check("pages", Verdict::Passed), check("indexes", *verdict)];
            Arc::new(record(drill))
        });
        let other = Arc::new(record(evidence(Act::Restore)));
        KnownRecords {
            records: std::iter::once(other).chain(made).collect(),
            ..KnownRecords::default()
        }
    }

    #[test]
    fn drills_near_to_each_other_are_one_mark_that_shows_the_worst() {
        let (passed, failed) = (Verdict::Passed, Verdict::Failed);
        let known = known(&[
            (1, passed),
            (50, passed),
            (51, failed),
            (52, passed),
            (2000, passed),
        ]);
        let marks = marks(&known, &Span::between(hour(0), hour(1000)));
        let told: Vec<_> = marks
            .iter()
            .map(|mark| (mark.class, mark.inside.as_str()))
            .collect();
        assert_eq!(told, [("good", "✓"), ("lost", "✗")]);
        assert!(
            marks[1].words.starts_with("3 drills from"),
            "{}",
            marks[1].words
        );
        let card = card(&known, hour(2001)).unwrap();
        assert_eq!((card.level, card.value.as_str()), (Level::Good, "passed"));
        assert_eq!(card.lines[0].0, "60 min ago, ended");
    }

    #[test]
    fn the_newest_drills_are_listed_with_what_did_not_pass() {
        let targets = DrillTargets {
            rto: Some(Duration::from_secs(60)),
            rpo: None,
        };
        let view = |known: &KnownRecords, chosen| DrillsView::new(known, &targets, chosen);
        let known = known(&[(1, Verdict::Passed), (2, Verdict::CouldNotRun)]);
        let shown = view(&known, None);
        assert_eq!(
            (shown.rows.len(), shown.command.as_str()),
            (2, "walden drill run")
        );
        assert_eq!(shown.rows[0].checks, ["indexes could not run: seen"]);
        assert_eq!(shown.rows[0].passed, "1 check passed");
        assert_eq!(shown.charts.len(), 1);
        assert_eq!((shown.charts[0].most, shown.charts[0].last), (2.0, 2.0));
        let chosen = view(&known, Some(hour(3))).command;
        assert_eq!(chosen, "walden drill run --at 1970-01-01T03:00:00.000000Z");
        assert!(super::card(&KnownRecords::default(), hour(3)).is_none());
    }
}
