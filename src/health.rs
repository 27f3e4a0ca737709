//! How it stands. What is told as good follows from what can be restored, never from what was stored. Pure: here are all
//! rules and thresholds; the check, `walden status`, `walden target`, the page, the API and the metrics show the answer.

#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::postgres::catalog::{Facts, Gap, Unused, Usable, Window, Windows, newest_usable};
use crate::postgres::types::TimelineId;

/// A finished segment that waits longer than this, or work that nothing protects for longer, is no matter of course.
pub const LONG_WAIT: TimeDelta = TimeDelta::minutes(10);
/// Finished segments that wait: more are told.
pub const LARGE_BACKLOG: u64 = 64;
/// Segments are stored several at a time, a later one may come first: what lies behind a gap counts from this age on.
pub const FRESH_GAP: TimeDelta = TimeDelta::seconds(10);
/// A base backup that is older makes restores long, where one is taken each week.
const OLD_BACKUP: TimeDelta = TimeDelta::days(8);
/// As long after the first archived WAL the first base backup may be still to come.
const FIRST_BACKUP: TimeDelta = TimeDelta::days(1);
/// A moment that lies so far ahead of the clock was made by another clock.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// How good something is; the order is that of what is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Good,
    Warning,
    Unknown,
    Critical,
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// How much would be lost if the server were.
    Rpo,
    /// The base backups.
    Backup,
    /// The archived WAL.
    Recovery,
}

/// Why something is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub about: Subject,
    pub level: Level,
    pub what: String,
    /// The next step.
    pub next: String,
}

/// Why it is known that everything until a moment can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The last commit that can be restored.
    Commit,
    /// The server proved that nothing followed it.
    Quiet,
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
    /// Since when the oldest finished segment waits.
    pub waiting_since: Option<DateTime<Utc>>,
}

impl From<DateTime<Utc>> for Now {
    fn from(time: DateTime<Utc>) -> Self {
        Self { time, waiting_since: None }
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
    pub reasons: Vec<Reason>,
}

impl Health {
    /// Judges what is archived.
    pub fn of(facts: &Facts, windows: &Windows, gaps: &[Gap], now: impl Into<Now>) -> Self {
        let now = now.into();
        let judge = Judge { facts, windows, gaps, now };
        let usable = newest_usable(facts);
        let newest = judge.newest();
        let window = newest.and_then(|newest| windows.windows.iter().rfind(|window| window.timeline == newest));
        let mut reasons = judge.backups(&usable);
        let beyond = judge.beyond(newest, window, &mut reasons);
        reasons.extend(judge.older_trouble(newest));
        let (protected, loss) = judge.loss(newest, window, &mut reasons);
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
        Self { protected, loss, backup: usable.newest.map(|backup| backup.stopped_at), beyond, reasons }
    }

    /// The worst of all.
    pub fn level(&self) -> Level {
        self.reasons.iter().map(|reason| reason.level).max().unwrap_or(Level::Good)
    }

    /// The worst about one thing.
    pub fn level_of(&self, about: Subject) -> Level {
        self.about(about).map(|reason| reason.level).max().unwrap_or(Level::Good)
    }

    /// What is not good about one thing, the worst first.
    pub fn about(&self, about: Subject) -> impl Iterator<Item = &Reason> {
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

const TAKE_BACKUP: &str = "take a base backup now: `walden backup take`";

struct Judge<'a> {
    facts: &'a Facts,
    windows: &'a Windows,
    gaps: &'a [Gap],
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

    fn backups(&self, usable: &Usable<'_>) -> Vec<Reason> {
        let reason =
            |level, what: String, next: &str| Reason { about: Subject::Backup, level, what, next: next.into() };
        let (facts, mut reasons) = (self.facts, Vec::new());
        if let Some(newest) = usable.newest {
            let age = self.now.time - newest.stopped_at;
            if age > OLD_BACKUP {
                let what = format!("the newest base backup that can be used is {} old", words(age));
                reasons.push(reason(Level::Warning, what, "take one each week: restores replay all WAL since"));
            }
            if -age > SKEW {
                let what = format!("backup \"{}\" ended {} ahead of this machine's clock", newest.id, words(-age));
                reasons.push(reason(Level::Warning, what, "set the clocks of the server and of this machine right"));
            }
        } else {
            let what = match facts.backups.len() + facts.damaged_backups.len() {
                0 => "nothing can be restored: there is no base backup".to_string(),
                count => format!("nothing can be restored: none of {count} base backups can be used"),
            };
            reasons.push(reason(self.nothing(), what, TAKE_BACKUP));
        }
        for unused in &usable.newer {
            let (level, next) = match unused.cause {
                Unused::LeftOut => (Level::Critical, "move that part back to its place, then `walden backup take`"),
                Unused::DamagedPages => (Level::Critical, "find out what damages the server's files"),
                Unused::NoWal => (Level::Warning, "find out with `walden wal list` what is missing"),
            };
            reasons.push(reason(level, unused.why.clone(), next));
        }
        if let Some((id, why)) = facts.damaged_backups.last_key_value() {
            let what = match facts.damaged_backups.len() {
                1 => format!("backup {id} cannot be used: {why}"),
                count => format!("{count} backups cannot be used, the newest is {id}: {why}"),
            };
            let next = "let the user who runs Walden read it, repair it from a copy, or `walden backup delete` it";
            reasons.push(reason(Level::Warning, what, next));
        }
        reasons
    }

    /// Judges the WAL of the newest timeline behind its last window; how many segments that are.
    fn beyond(&self, newest: Option<TimelineId>, window: Option<&Window>, reasons: &mut Vec<Reason>) -> u64 {
        let Some(newest) = newest else { return 0 };
        let mut add = |level, what: String, next: String| {
            reasons.push(Reason { about: Subject::Recovery, level, what, next });
        };
        if let Some(unknown) = self.windows.unknown.iter().find(|unknown| unknown.timeline == newest) {
            let what = format!("what can be restored of timeline {newest}, the newest, is not known: {}", unknown.why);
            add(Level::Critical, what, format!("`walden target --timeline {newest} --latest` says what to do"));
            return 0;
        }
        let ranges = self.facts.ranges.of(newest);
        let Some(window) = window else {
            // Without any usable backup that is what is told.
            if !self.windows.windows.is_empty() {
                let what =
                    format!("nothing of timeline {newest}, the newest, can be restored: no base backup leads to it");
                add(Level::Critical, what, TAKE_BACKUP.into());
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
                add(Level::Critical, what, TAKE_BACKUP.into());
            }
            None => {
                let broken = crate::postgres::types::SegmentName::from_number(newest, reached, size);
                let what =
                    format!("WAL{since} cannot be restored: the records of {broken} break off at {}", window.to.lsn);
                add(Level::Critical, what, TAKE_BACKUP.into());
            }
        }
        beyond
    }

    /// What cannot be restored before the last window, and on older timelines.
    fn older_trouble(&self, newest: Option<TimelineId>) -> Vec<Reason> {
        let reason = |what, next: String| Reason { about: Subject::Recovery, level: Level::Warning, what, next };
        let unknown = self.windows.unknown.iter().filter(|unknown| Some(unknown.timeline) != newest).map(|unknown| {
            let what = format!("what can be restored of timeline {} is not known: {}", unknown.timeline, unknown.why);
            reason(what, format!("`walden target --timeline {} --latest` says what to do", unknown.timeline))
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
            reason(what, "delete the backups before it once nobody needs them: `walden backup delete`".into())
        });
        let begun = self.facts.histories.keys().max().filter(|begun| Some(**begun) > newest).map(|begun| {
            let what = format!("timeline {begun} began, and none of its WAL is archived: what it does would be lost");
            reason(what, "check that the new primary archives: run `walden check` there".into())
        });
        unknown.chain(between).chain(begun).collect()
    }

    fn loss(
        &self,
        newest: Option<TimelineId>,
        window: Option<&Window>,
        reasons: &mut Vec<Reason>,
    ) -> (Option<Protected>, Loss) {
        let broken = reasons.iter().filter(|reason| reason.about == Subject::Recovery).map(|reason| reason.level).max();
        let restores_nothing = self.windows.windows.is_empty() && self.windows.unknown.is_empty();
        let mut add = |level, what: String, next: &str| {
            reasons.push(Reason { about: Subject::Rpo, level, what, next: next.into() });
        };
        if let Some(since) = self.now.waiting_since.filter(|since| self.now.time - *since > LONG_WAIT) {
            let next = "look at `walden status` and the server's log: it says why archiving does not go on";
            add(Level::Critical, format!("finished WAL waits to be archived since {}", moment(since)), next);
        }
        let Some((window, newest)) = window.zip(newest) else {
            if restores_nothing {
                let level = self.nothing();
                let (what, next) = match newest {
                    None => ("no WAL is archived", "set archive_command: `walden init` prints it"),
                    Some(_) => ("nothing can be restored: there is no usable base backup with its WAL", TAKE_BACKUP),
                };
                add(level, what.into(), next);
                return (None, Loss::Everything);
            }
            let what = "until when the newest timeline can be restored is not known, or nothing of it can be";
            add(Level::Critical, what.into(), "`walden target` tells what can be restored");
            return (None, Loss::Unknown);
        };
        let Some((until, evidence)) = protected(window) else {
            let what = "the last commit that can be restored is not known: its WAL is not indexed";
            add(Level::Unknown, what.into(), "let `walden serve` run: it keeps the index");
            return (None, Loss::Unknown);
        };
        let lost = self.now.time - until;
        if broken == Some(Level::Critical) {
            add(Level::Critical, format!("WAL since {} cannot be restored", moment(until)), TAKE_BACKUP);
        } else if lost > LONG_WAIT {
            let what = format!("what was committed since {} would be lost, if anything was", moment(until));
            let next = "set archive_timeout, and let `walden serve` run: it proves when nothing was committed";
            add(Level::Warning, what, next);
        } else if -lost > SKEW {
            let what = format!("the last commit is {} ahead of this machine's clock", words(-lost));
            add(Level::Unknown, what, "set the clocks of the server and of this machine right");
        }
        let protected = Protected { timeline: newest, until, evidence };
        (Some(protected), Loss::AtMost(lost.max(TimeDelta::zero())))
    }

    /// How bad it is that nothing can be restored: on the first day a backup may be still to come.
    fn nothing(&self) -> Level {
        let began = self.facts.ranges.iter().map(|range| range.first_stored).min();
        let is_new = self.facts.backups.is_empty()
            && self.facts.damaged_backups.is_empty()
            && began.is_none_or(|began| self.now.time - began <= FIRST_BACKUP);
        if is_new { Level::Warning } else { Level::Critical }
    }
}

/// Until when a window protects, and why that is known.
fn protected(window: &Window) -> Option<(DateTime<Utc>, Evidence)> {
    let last = window.to.time?;
    let (until, evidence) = match window.from.time {
        Some(backup) if backup >= last => (backup, Evidence::Backup),
        _ => (last, Evidence::Commit),
    };
    match window.quiet_until.filter(|quiet| *quiet > until) {
        Some(quiet) => Some((quiet, Evidence::Quiet)),
        None => Some((until, evidence)),
    }
}
