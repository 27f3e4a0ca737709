//! How it stands. What is told as good follows from what can be restored, never from what was stored. Pure: here are all
//! rules; the check, `walden status`, `walden target`, the page, the API, the metrics and the alerts show the answer. From
//! where on something is not good the settings say.

mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

pub use rules::Rule;

use crate::config::Health as Limits;
use crate::postgres::catalog::{Facts, Gap, Unused, Usable, Window, Windows, newest_usable};
use crate::postgres::types::TimelineId;

/// Segments are stored several at a time, a later one may come first: what lies behind a gap counts from this age on.
pub const FRESH_GAP: TimeDelta = TimeDelta::seconds(10);

/// How good something is.
// The order is that of what is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Good,
    Warning,
    /// It could not be found out.
    Unknown,
    Critical,
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// How much would be lost now.
    Rpo,
    /// The base backups.
    Backup,
    /// The archived WAL.
    Recovery,
}

/// Something that is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthReason {
    /// The rule that is broken; an alert has its name.
    pub rule: Rule,
    /// The check of `walden check` that tells it, too.
    pub about: Subject,
    pub level: Level,
    pub what: String,
    /// The next step.
    pub next: String,
}

impl HealthReason {
    fn new(rule: Rule, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { rule, about: rule.about(), level: rule.level(), what: what.into(), next: next.into() }
    }
}

/// Why it is known that everything until a moment can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// It is the last commit that can be restored.
    Commit,
    /// The server proved that nothing was committed since.
    Idle,
    /// A base backup ended, and no commit followed.
    Backup,
}

/// Until when everything can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Protected {
    pub timeline: TimelineId,
    pub until: DateTime<Utc>,
    pub evidence: Evidence,
}

/// How much would be lost now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// At most what was committed in this time.
    AtMost(TimeDelta),
    /// Nothing can be restored.
    Everything,
    /// It could not be found out.
    Unknown,
}

/// What is known of archiving by now, beside what is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub time: DateTime<Utc>,
    /// Finished files that wait.
    pub waiting: Option<u64>,
    /// Since when the oldest of them waits.
    pub waiting_since: Option<DateTime<Utc>>,
}

impl From<DateTime<Utc>> for Now {
    fn from(time: DateTime<Utc>) -> Self {
        Self { time, waiting: None, waiting_since: None }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Of the newest timeline.
    pub protected: Option<Protected>,
    pub loss: Loss,
    /// When the newest base backup ended that can be used.
    pub backup: Option<DateTime<Utc>>,
    /// Archived segments of the newest timeline that lie behind its last window: they cannot be restored.
    pub beyond: u64,
    /// The worst first.
    pub reasons: Vec<HealthReason>,
}

impl Health {
    /// Judges what is archived.
    pub fn of(facts: &Facts, windows: &Windows, gaps: &[Gap], limits: &Limits, now: impl Into<Now>) -> Self {
        let judge = Judge { facts, windows, gaps, limits, now: now.into() };
        let usable = newest_usable(facts);
        let newest = judge.newest();
        let window = newest.and_then(|newest| windows.windows.iter().rfind(|window| window.timeline == newest));
        let mut reasons = judge.backups(&usable);
        let beyond = judge.beyond(newest, window, &mut reasons);
        reasons.extend(judge.older_reasons(newest));
        let (protected, loss) = judge.loss(newest, window, &mut reasons);
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
        Self { protected, loss, backup: usable.newest.map(|backup| backup.stopped_at), beyond, reasons }
    }

    /// The worst of all.
    pub fn level(&self) -> Level {
        self.reasons.iter().map(|reason| reason.level).max().unwrap_or(Level::Good)
    }

    /// Whether a rule is broken.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.reasons.iter().any(|reason| reason.rule == rule)
    }

    /// The worst about one thing.
    pub fn level_of(&self, about: Subject) -> Level {
        self.about(about).map(|reason| reason.level).max().unwrap_or(Level::Good)
    }

    /// What is not good about one thing, the worst first.
    pub fn about(&self, about: Subject) -> impl Iterator<Item = &HealthReason> {
        self.reasons.iter().filter(move |reason| reason.about == about)
    }
}

/// The loss in words.
impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(span) => write!(f, "at most {}", words(*span)),
            Self::Everything => f.write_str("everything"),
            Self::Unknown => f.write_str("not known"),
        }
    }
}

/// A span for people, in its largest unit.
pub fn words(span: TimeDelta) -> String {
    match span.num_seconds().max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A moment for people, to the second.
pub fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Whether a span is longer than its limit.
fn exceeds(span: TimeDelta, limit: Duration) -> bool {
    span.to_std().is_ok_and(|span| span > limit)
}

/// What to do about a backlog.
pub const BEHIND: &str =
    "if this does not shrink, look at the speed of the store, and at `wal.workers` and `wal.look_ahead`";
const TAKE_BACKUP: &str = "take a base backup now: `walden backup take`";

struct Judge<'a> {
    facts: &'a Facts,
    windows: &'a Windows,
    gaps: &'a [Gap],
    limits: &'a Limits,
    now: Now,
}

impl Judge<'_> {
    /// The newest timeline that has WAL, or that nobody can tell where it comes from.
    fn newest(&self) -> Option<TimelineId> {
        let of_wal = self.facts.ranges.iter().map(|range| range.timeline());
        let unknown = self.windows.unknown.iter().map(|unknown| unknown.timeline);
        let restorable = self.windows.windows.iter().map(|window| window.timeline);
        of_wal.chain(unknown).chain(restorable).max()
    }

    fn backups(&self, usable: &Usable<'_>) -> Vec<HealthReason> {
        let (facts, mut reasons) = (self.facts, Vec::new());
        if let Some(newest) = usable.newest {
            let age = self.now.time - newest.stopped_at;
            if exceeds(age, self.limits.backup_age) {
                let what = format!("the newest base backup that can be used is {} old", words(age));
                reasons.push(HealthReason::new(
                    Rule::BackupOld,
                    what,
                    "take one each week: restores replay all WAL since",
                ));
            }
            if exceeds(-age, self.limits.clock_skew) {
                let what = format!("backup \"{}\" ended {} ahead of this machine's clock", newest.id, words(-age));
                reasons.push(HealthReason::new(
                    Rule::BackupAhead,
                    what,
                    "set the clocks of the server and of this machine right",
                ));
            }
        } else {
            let what = match facts.backups.len() + facts.damaged_backups.len() {
                0 => "nothing can be restored: there is no base backup".to_string(),
                count => format!("nothing can be restored: none of {count} base backups can be used"),
            };
            let rule = if self.is_new() { Rule::NoBackupYet } else { Rule::NoBackup };
            reasons.push(HealthReason::new(rule, what, TAKE_BACKUP));
        }
        for unused in &usable.newer {
            let (rule, next) = match unused.cause {
                Unused::LeftOut => (Rule::BackupLeftOut, "move that part back to its place, then `walden backup take`"),
                Unused::DamagedPages => (Rule::BackupDamagedPages, "find out what damages the server's files"),
                Unused::NoWal => (Rule::BackupWithoutWal, "find out with `walden wal list` what is missing"),
            };
            reasons.push(HealthReason::new(rule, &*unused.why, next));
        }
        if let Some((id, why)) = facts.damaged_backups.last_key_value() {
            let what = match facts.damaged_backups.len() {
                1 => format!("backup {id} cannot be used: {why}"),
                count => format!("{count} backups cannot be used, the newest is {id}: {why}"),
            };
            let next = "let the user who runs Walden read it, repair it from a copy, or `walden backup delete` it";
            reasons.push(HealthReason::new(Rule::BackupDamaged, what, next));
        }
        reasons
    }

    /// Judges the WAL of the newest timeline behind its last window; how many segments that are.
    fn beyond(&self, newest: Option<TimelineId>, window: Option<&Window>, reasons: &mut Vec<HealthReason>) -> u64 {
        let Some(newest) = newest else { return 0 };
        let mut add = |rule, what: String, next: &str| reasons.push(HealthReason::new(rule, what, next));
        if let Some(unknown) = self.windows.unknown.iter().find(|unknown| unknown.timeline == newest) {
            let what = format!("what can be restored of timeline {newest}, the newest, is not known: {}", unknown.why);
            add(Rule::TimelineUnknown, what, &format!("`walden target --timeline {newest} --latest` says what to do"));
            return 0;
        }
        let ranges = self.facts.ranges.of(newest);
        let Some(window) = window else {
            // Without any usable backup that is what is told.
            if !self.windows.windows.is_empty() {
                let what =
                    format!("nothing of timeline {newest}, the newest, can be restored: no base backup leads to it");
                add(Rule::TimelineWithoutBackup, what, TAKE_BACKUP);
            }
            return ranges.iter().map(|range| range.segments).sum();
        };
        let size = self.facts.ranges.segment_size();
        let reached = window.to.lsn.0 / size.bytes();
        let behind = ranges.iter().filter(|range| range.last.number(size) >= reached);
        let beyond =
            behind.clone().map(|range| range.last.number(size) + 1 - range.first.number(size).max(reached)).sum();
        let Some(last) = behind.clone().next_back() else { return 0 };
        let since = window.until().map(|until| format!(" since {}", moment(until))).unwrap_or_default();
        match self.gaps.iter().find(|gap| gap.first_missing.number(size) == reached) {
            // A later segment may have been stored first.
            Some(_) if behind.clone().all(|range| self.now.time - range.first_stored < FRESH_GAP) => (),
            Some(gap) => {
                let what = format!("WAL{since} cannot be restored, though it is archived up to {}: {gap}", last.last);
                add(Rule::WalGap, what, TAKE_BACKUP);
            }
            None => {
                let broken = crate::postgres::types::SegmentName::from_number(newest, reached, size);
                let what =
                    format!("WAL{since} cannot be restored: the records of {broken} break off at {}", window.to.lsn);
                add(Rule::WalBroken, what, TAKE_BACKUP);
            }
        }
        beyond
    }

    /// What cannot be restored before the last window, and on older timelines.
    fn older_reasons(&self, newest: Option<TimelineId>) -> Vec<HealthReason> {
        let unknown = self.windows.unknown.iter().filter(|unknown| Some(unknown.timeline) != newest).map(|unknown| {
            let what = format!("what can be restored of timeline {} is not known: {}", unknown.timeline, unknown.why);
            let next = format!("`walden target --timeline {} --latest` says what to do", unknown.timeline);
            HealthReason::new(Rule::OldTimelineUnknown, what, next)
        });
        let gaps = &self.windows.gaps;
        let between = gaps.first().map(|first| {
            let seconds: Option<f64> = gaps.iter().map(|gap| gap.seconds).sum();
            let lasted = seconds.map(|seconds| format!(", {} in all", words(TimeDelta::seconds(seconds as i64))));
            let what = format!(
                "no moment can be restored in {} between base backups{}, the first behind {} on timeline {}",
                if gaps.len() == 1 { "a gap".into() } else { format!("{} gaps", gaps.len()) },
                lasted.unwrap_or_default(),
                first.from.lsn,
                first.timeline
            );
            let next = "delete the backups before it once nobody needs them: `walden backup delete`";
            HealthReason::new(Rule::WindowGap, what, next)
        });
        let begun = self.facts.histories.keys().max().filter(|begun| Some(**begun) > newest).map(|begun| {
            let what = format!("timeline {begun} began, and none of its WAL is archived: what it does would be lost");
            HealthReason::new(
                Rule::TimelineWithoutWal,
                what,
                "check that the new primary archives: run `walden check` there",
            )
        });
        unknown.chain(between).chain(begun).collect()
    }

    fn loss(
        &self,
        newest: Option<TimelineId>,
        window: Option<&Window>,
        reasons: &mut Vec<HealthReason>,
    ) -> (Option<Protected>, Loss) {
        let broken = reasons.iter().filter(|reason| reason.about == Subject::Recovery).map(|reason| reason.level).max();
        let restores_nothing = self.windows.windows.is_empty() && self.windows.unknown.is_empty();
        let mut add = |rule, what: String, next: &str| reasons.push(HealthReason::new(rule, what, next));
        let waits_long = |since: &DateTime<Utc>| exceeds(self.now.time - *since, self.limits.wal_wait);
        if let Some(since) = self.now.waiting_since.filter(waits_long) {
            let next = "look at `walden status` and the server's log: it says why archiving does not go on";
            add(Rule::WalWaits, format!("finished WAL waits to be archived since {}", moment(since)), next);
        }
        if let Some(waiting) = self.now.waiting.filter(|waiting| *waiting > self.limits.backlog) {
            add(Rule::Backlog, format!("{waiting} finished WAL files wait to be archived"), BEHIND);
        }
        let Some((window, newest)) = window.zip(newest) else {
            if restores_nothing {
                let rule = if self.is_new() { Rule::NothingYet } else { Rule::Nothing };
                let (what, next) = match newest {
                    None => ("no WAL is archived", "set archive_command: `walden init` prints it"),
                    Some(_) => ("nothing can be restored: there is no usable base backup with its WAL", TAKE_BACKUP),
                };
                add(rule, what.into(), next);
                return (None, Loss::Everything);
            }
            let what = "until when the newest timeline can be restored is not known, or nothing of it can be";
            add(Rule::NewestUnknown, what.into(), "`walden target` tells what can be restored");
            return (None, Loss::Unknown);
        };
        let Some((until, evidence)) = protected(window) else {
            let what = "the last commit that can be restored is not known: its WAL is not indexed";
            add(Rule::NotIndexed, what.into(), "let `walden serve` run: it keeps the index");
            return (None, Loss::Unknown);
        };
        let lost = self.now.time - until;
        if broken == Some(Level::Critical) {
            add(Rule::WalUnrestorable, format!("WAL since {} cannot be restored", moment(until)), TAKE_BACKUP);
        } else if exceeds(lost, self.limits.rpo) {
            let what = format!("what was committed since {} would be lost, if anything was", moment(until));
            let next = "set archive_timeout, and let `walden serve` run: it proves when nothing was committed";
            add(Rule::RpoExceeded, what, next);
        } else if exceeds(-lost, self.limits.clock_skew) {
            let what = format!("the last commit is {} ahead of this machine's clock", words(-lost));
            add(Rule::CommitAhead, what, "set the clocks of the server and of this machine right");
        }
        let protected = Protected { timeline: newest, until, evidence };
        (Some(protected), Loss::AtMost(lost.max(TimeDelta::zero())))
    }

    /// Whether the first base backup may be still to come.
    fn is_new(&self) -> bool {
        let began = self.facts.ranges.iter().map(|range| range.first_stored).min();
        self.facts.backups.is_empty()
            && self.facts.damaged_backups.is_empty()
            && !began.is_some_and(|began| exceeds(self.now.time - began, self.limits.first_backup))
    }
}

/// Until when a window protects, and why that is known.
fn protected(window: &Window) -> Option<(DateTime<Utc>, Evidence)> {
    let last = window.to.time?;
    let (until, evidence) = match window.from.time {
        Some(backup) if backup >= last => (backup, Evidence::Backup),
        _ => (last, Evidence::Commit),
    };
    match window.idle_until.filter(|idle| *idle > until) {
        Some(idle) => Some((idle, Evidence::Idle)),
        None => Some((until, evidence)),
    }
}
