//! Judges facts, windows and gaps by the rules.

use std::cmp::Reverse;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    BEHIND, Evidence, FRESH_GAP, Health, HealthReason, Level, Loss, Now, Protected, Rule, Subject,
    moment, sizes, words,
};
use crate::config::Health as Limits;
use crate::postgres::catalog::{
    BackupDescription, Facts, Gap, Unused, Usable, WalRange, Window, Windows, newest_usable,
};
use crate::postgres::types::{SegmentName, TimelineId};

/// A server asks again each minute for what was refused.
const REFUSED: TimeDelta = TimeDelta::minutes(10);

const TAKE_BACKUP: &str = "take a base backup now: `walden backup take`";

impl Health {
    /// Judges what is archived.
    pub fn of(
        facts: &Facts,
        windows: &Windows,
        gaps: &[Gap],
        limits: &Limits,
        now: impl Into<Now>,
    ) -> Self {
        let judge = Judge {
            facts,
            windows,
            gaps,
            limits,
            now: now.into(),
        };
        let usable = newest_usable(facts);
        let newest = judge.newest();
        let window = newest.and_then(|newest| {
            windows
                .windows
                .iter()
                .rfind(|window| window.timeline == newest)
        });
        let mut reasons = judge.backups(&usable);
        reasons.extend(judge.backup_size(usable.newest));
        let beyond = judge.beyond(newest, window, &mut reasons);
        reasons.extend(judge.older_reasons(newest));
        let is_broken = reasons
            .iter()
            .any(|reason| (reason.about, reason.level) == (Subject::Recovery, Level::Critical));
        reasons.extend(judge.archiving());
        let (protected, loss) = judge.loss(newest, window, is_broken, &mut reasons);
        reasons.sort_by_key(|reason| Reverse(reason.level));
        Self {
            protected,
            loss,
            backup: usable.newest.map(|backup| backup.stopped_at),
            beyond,
            reasons,
        }
    }
}

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
                let what = format!(
                    "the newest base backup that can be used is {} old",
                    words(age)
                );
                reasons.push(HealthReason::new(
                    Rule::BackupOld,
                    what,
                    "take one each week: restores replay all WAL since",
                ));
            }
            if exceeds(-age, self.limits.clock_skew) {
                let what = format!(
                    "backup \"{}\" ended {} ahead of this machine's clock",
                    newest.id,
                    words(-age)
                );
                reasons.push(HealthReason::new(
                    Rule::BackupAhead,
                    what,
                    "set the clocks of the server and of this machine right",
                ));
            }
        } else {
            let what = match facts.backups.len() + facts.damaged_backups.len() {
                0 => "nothing can be restored: there is no base backup".to_string(),
                count => {
                    format!("nothing can be restored: none of {count} base backups can be used")
                }
            };
            let rule = if self.is_new() {
                Rule::NoBackupYet
            } else {
                Rule::NoBackup
            };
            reasons.push(HealthReason::new(rule, what, TAKE_BACKUP));
        }
        for unused in &usable.newer {
            let (rule, next) = match unused.cause {
                Unused::LeftOut => (
                    Rule::BackupLeftOut,
                    "move that part back to its place, then `walden backup take`",
                ),
                Unused::DamagedPages => (
                    Rule::BackupDamagedPages,
                    "find out what damages the server's files",
                ),
                Unused::NoWal => (
                    Rule::BackupWithoutWal,
                    "find out with `walden wal list` what is missing",
                ),
            };
            reasons.push(HealthReason::new(rule, &*unused.why, next));
        }
        if let Some((id, why)) = facts.damaged_backups.last_key_value() {
            let what = match facts.damaged_backups.len() {
                1 => format!("backup {id} cannot be used: {why}"),
                count => format!("{count} backups cannot be used, the newest is {id}: {why}"),
            };
            let next =
                "let Walden's user read it, repair it from a copy, or `walden backup delete` it";
            reasons.push(HealthReason::new(Rule::BackupDamaged, what, next));
        }
        reasons
    }

    fn backup_size(&self, newest: Option<&BackupDescription>) -> Option<HealthReason> {
        let newest = newest?;
        let before = |backup: &&BackupDescription| backup.stopped_at < newest.stopped_at;
        let mut earlier: Vec<_> = self.facts.backups.iter().filter(before).collect();
        earlier.sort_by_key(|backup| Reverse(backup.stopped_at));
        let earlier: Vec<u64> = earlier.iter().map(|backup| backup.plain_bytes).collect();
        let what = format!("base backup \"{}\"", newest.id);
        let rules = [Rule::BackupSmall, Rule::BackupSize];
        sizes::judge(
            rules,
            (&what, newest.plain_bytes),
            &earlier,
            self.limits.size_change,
        )
    }

    /// Judges the WAL of the newest timeline behind its last window; how many segments that are.
    fn beyond(
        &self,
        newest: Option<TimelineId>,
        window: Option<&Window>,
        reasons: &mut Vec<HealthReason>,
    ) -> u64 {
        let Some(newest) = newest else { return 0 };
        let mut add =
            |rule, what: String, next: &str| reasons.push(HealthReason::new(rule, what, next));
        if let Some(unknown) = self
            .windows
            .unknown
            .iter()
            .find(|unknown| unknown.timeline == newest)
        {
            let what = format!(
                "what can be restored of timeline {newest}, the newest, is not known: {}",
                unknown.why
            );
            add(
                Rule::TimelineUnknown,
                what,
                &format!("`walden target --timeline {newest} --latest` says what to do"),
            );
            return 0;
        }
        let ranges = self.facts.ranges.of(newest);
        let Some(window) = window else {
            // Without any usable backup that is what is told.
            if !self.windows.windows.is_empty() {
                let what = format!(
                    "nothing of timeline {newest}, the newest, can be restored: no base backup leads to it"
                );
                add(Rule::TimelineWithoutBackup, what, TAKE_BACKUP);
            }
            return ranges.iter().map(|range| range.segments).sum();
        };
        let size = self.facts.ranges.segment_size();
        let reached = window.to.lsn.0 / size.bytes();
        let behind = ranges
            .iter()
            .filter(|range| range.last.number(size) >= reached);
        let beyond = behind
            .clone()
            .map(|range| range.last.number(size) + 1 - range.first.number(size).max(reached));
        reasons.extend(self.break_off(window, reached, &behind.collect::<Vec<_>>()));
        beyond.sum()
    }

    /// Why WAL lies `behind` the newest window, which ends in segment `reached`.
    fn break_off(
        &self,
        window: &Window,
        reached: u64,
        behind: &[&WalRange],
    ) -> Option<HealthReason> {
        let last = behind.last()?.last;
        let since = window
            .until()
            .map(|until| format!(" since {}", moment(until)))
            .unwrap_or_default();
        let size = self.facts.ranges.segment_size();
        let (rule, what) = match self
            .gaps
            .iter()
            .find(|gap| gap.first_missing.number(size) == reached)
        {
            // A later segment may have been stored first.
            Some(_)
                if behind
                    .iter()
                    .all(|range| self.now.time - range.first_stored < FRESH_GAP) =>
            {
                return None;
            }
            Some(gap) => (
                Rule::WalGap,
                format!("WAL{since} cannot be restored, though it is archived up to {last}: {gap}"),
            ),
            None => {
                let broken = SegmentName::from_number(window.timeline, reached, size);
                let end = window.to.lsn;
                let what = format!(
                    "WAL{since} cannot be restored: the records of {broken} break off at {end}"
                );
                (Rule::WalBroken, what)
            }
        };
        Some(HealthReason::new(rule, what, TAKE_BACKUP))
    }

    /// What cannot be restored before the last window, and on older timelines.
    fn older_reasons(&self, newest: Option<TimelineId>) -> Vec<HealthReason> {
        let unknown = self
            .windows
            .unknown
            .iter()
            .filter(|unknown| Some(unknown.timeline) != newest)
            .map(|unknown| {
                let what = format!(
                    "what can be restored of timeline {} is not known: {}",
                    unknown.timeline, unknown.why
                );
                let next = format!(
                    "`walden target --timeline {} --latest` says what to do",
                    unknown.timeline
                );
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

    /// Judges whether the server's WAL is archived soon enough.
    fn archiving(&self) -> impl Iterator<Item = HealthReason> {
        let since = self
            .now
            .waiting_since
            .filter(|since| exceeds(self.now.time - *since, self.limits.wal_wait));
        let waits = since.map(|since| {
            let what = format!("finished WAL waits to be archived since {}", moment(since));
            let next = "look at `walden status` and the server's log";
            HealthReason::new(Rule::WalWaits, what, next)
        });
        let backlog = self
            .now
            .waiting
            .filter(|waiting| *waiting > self.limits.backlog)
            .map(|waiting| {
                HealthReason::new(
                    Rule::Backlog,
                    format!("{waiting} finished WAL files wait to be archived"),
                    BEHIND,
                )
            });
        let fails = self.now.fails_since.map(|since| {
            let what = format!(
                "a WAL file could not be stored at {}, and none was since",
                moment(since)
            );
            HealthReason::new(Rule::StoringFails, what, "`walden status` says why")
        });
        let is_recent = |at: &DateTime<Utc>| self.now.time - *at <= REFUSED;
        let refused = self.now.refused_at.filter(is_recent).map(|at| {
            let what = format!(
                "WAL of another server, or of a copy of this one, was to be archived under this cluster's name at {}",
                moment(at)
            );
            let next = "`walden status` says which; give that server a `cluster.name` of its own";
            HealthReason::new(Rule::IdentityConflict, what, next)
        });
        waits.into_iter().chain(backlog).chain(fails).chain(refused)
    }

    /// How much would be lost now; `is_broken`: WAL is archived that cannot be restored.
    fn loss(
        &self,
        newest: Option<TimelineId>,
        window: Option<&Window>,
        is_broken: bool,
        reasons: &mut Vec<HealthReason>,
    ) -> (Option<Protected>, Loss) {
        let mut add =
            |rule, what: String, next: &str| reasons.push(HealthReason::new(rule, what, next));
        let Some((window, timeline)) = window.zip(newest) else {
            let (rule, what, next, loss) = self.without_window(newest);
            add(rule, what.into(), next);
            return (None, loss);
        };
        let Some((until, evidence)) = protected(window) else {
            let what = "the last commit that can be restored is not known: its WAL is not indexed";
            add(
                Rule::NotIndexed,
                what.into(),
                "let `walden serve` run: it keeps the index",
            );
            return (None, Loss::Unknown);
        };
        let lost = self.now.time - until;
        if is_broken {
            add(
                Rule::WalUnrestorable,
                format!("WAL since {} cannot be restored", moment(until)),
                TAKE_BACKUP,
            );
        } else if exceeds(lost, self.limits.rpo) {
            let what = format!(
                "what was committed since {} would be lost, if anything was",
                moment(until)
            );
            let next = "set archive_timeout, and let `walden serve` run: it proves when nothing was committed";
            add(Rule::RpoExceeded, what, next);
        } else if exceeds(-lost, self.limits.clock_skew) {
            let what = format!(
                "the last commit is {} ahead of this machine's clock",
                words(-lost)
            );
            add(
                Rule::CommitAhead,
                what,
                "set the clocks of the server and of this machine right",
            );
        }
        (
            Some(Protected {
                timeline,
                until,
                evidence,
            }),
            Loss::AtMost(lost.max(TimeDelta::zero())),
        )
    }

    /// Why nothing of the newest timeline is known to be restorable, and what would be lost.
    fn without_window(
        &self,
        newest: Option<TimelineId>,
    ) -> (Rule, &'static str, &'static str, Loss) {
        if !self.windows.windows.is_empty() || !self.windows.unknown.is_empty() {
            let what = "until when the newest timeline can be restored is not known, or nothing of it can be";
            return (
                Rule::NewestUnknown,
                what,
                "`walden target` tells what can be restored",
                Loss::Unknown,
            );
        }
        let (what, next) = match newest {
            None => (
                "no WAL is archived",
                "set archive_command: `walden init` prints it",
            ),
            Some(_) => (
                "nothing can be restored: there is no usable base backup with its WAL",
                TAKE_BACKUP,
            ),
        };
        (
            if self.is_new() {
                Rule::NothingYet
            } else {
                Rule::Nothing
            },
            what,
            next,
            Loss::Everything,
        )
    }

    /// Whether the first base backup may be still to come.
    fn is_new(&self) -> bool {
        let began = self
            .facts
            .ranges
            .iter()
            .map(|range| range.first_stored)
            .min();
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

/// Whether a span is longer than its limit.
fn exceeds(span: TimeDelta, limit: Duration) -> bool {
    span.to_std().is_ok_and(|span| span > limit)
}
