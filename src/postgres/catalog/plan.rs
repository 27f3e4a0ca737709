//! Target in, plan out: which backup, along which timelines, with which WAL; or why not. Decides before anything is
//! touched, because PostgreSQL notices late or, before version 15, not at all.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::path::{PathStep, Reach, TimelinePath, WalPiece};
use super::target::{Request, Target, TimelineChoice, postgresql_time};
use super::unreachable::{Nearest, Reason, Unreachable};
use super::{BackupDescription, WalRanges};
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::types::{Lsn, SegmentName, TimelineHistory, TimelineId};

/// How far the clock of the store may be behind the server's when the two are compared.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(2);

/// Everything that a plan is made from.
#[derive(Debug, Clone)]
pub struct Facts {
    pub cluster: ClusterName,
    /// Complete ones, oldest first.
    pub backups: Vec<BackupDescription>,
    /// Backups whose manifest cannot be used; and why.
    pub damaged_backups: BTreeMap<BackupId, String>,
    pub unfinished_backups: Vec<BackupId>,
    pub ranges: WalRanges,
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    pub damaged_histories: BTreeMap<TimelineId, String>,
}

/// How a moment is restored, and why so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecoveryPlan {
    pub cluster: ClusterName,
    pub request: Request,
    /// The target in words.
    pub target: String,
    pub backup: BackupDescription,
    /// Why this backup.
    pub reason: String,
    /// The timeline that recovery follows to.
    pub timeline: TimelineId,
    /// From the backup's timeline to that one.
    pub path: Vec<PathStep>,
    /// The WAL that replay may read, in order.
    pub wal: Vec<WalPiece>,
    /// Segments of it.
    pub segments: u64,
    /// Bytes of their objects, estimated.
    pub wal_bytes: u64,
    /// The first LSN that is not archived on the path.
    pub wal_reaches: Lsn,
    /// Fetching answers "absent" from this segment on, so that recovery ends before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_end: Option<SegmentName>,
    /// The settings of the target.
    pub settings: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

impl RecoveryPlan {
    /// Whether PostgreSQL is given a target; else it replays all WAL that it gets, and promotes.
    pub fn has_target(&self) -> bool {
        self.settings.iter().any(|(name, _)| name.starts_with("recovery_target") && name != "recovery_target_timeline")
    }
}

/// Decides how to restore what is asked for. Every moment that an [`Unreachable`] names can itself be planned.
pub fn plan(facts: &Facts, request: &Request) -> Result<RecoveryPlan, Box<Unreachable>> {
    let mut notes = Notes::new();
    decide(facts, request, &mut notes).map_err(|refusal| {
        let reachable = |nearest: Option<Nearest>| {
            nearest.filter(|nearest| decide(facts, &nearest.request, &mut Notes::new()).is_ok())
        };
        Box::new(Unreachable {
            target: request.words(),
            reason: refusal.reason,
            nearest_before: reachable(refusal.before),
            nearest_after: reachable(refusal.after),
            notes: notes.into_iter().map(|(id, why)| format!("backup \"{id}\" {why}")).collect(),
        })
    })
}

impl Facts {
    /// Whether a refusal names a gap that may close by itself: segments are stored several at a time, so that a later one
    /// can be there before an earlier one. True when what lies behind the gap was stored less than `grace` before `now`.
    pub fn may_close(&self, refused: &Unreachable, now: DateTime<Utc>, grace: TimeDelta) -> bool {
        let Reason::Gap { resumes, .. } = &refused.reason else { return false };
        self.ranges.holding(*resumes).is_some_and(|range| now - range.first_stored < grace)
    }
}

/// Backups that were passed over; and why.
type Notes = Vec<(BackupId, String)>;

/// A reason with the moments it suggests.
struct Refusal {
    reason: Reason,
    before: Option<Nearest>,
    after: Option<Nearest>,
}

impl From<Reason> for Box<Refusal> {
    fn from(reason: Reason) -> Self {
        Box::new(Refusal { reason, before: None, after: None })
    }
}

fn decide(facts: &Facts, request: &Request, notes: &mut Notes) -> Result<RecoveryPlan, Box<Refusal>> {
    if let Some(id) = &request.backup {
        named_backup(facts, id)?;
    }
    if facts.backups.is_empty() {
        note_damaged(facts, notes);
        return Err(Reason::NoBackup.into());
    }
    let planner = Planner { facts, request, path: path_to(facts, chosen_timeline(facts, request))? };
    let (backup, reason) = planner.choose(notes)?;
    let reach = planner.path.reach(&facts.ranges, planner.start(backup), u64::MAX);
    let mut plan = planner.check_reach(backup, reach, notes)?;
    plan.reason = reason;
    Ok(plan)
}

fn note_damaged(facts: &Facts, notes: &mut Notes) {
    notes.extend(facts.damaged_backups.iter().map(|(id, why)| (id.clone(), format!("cannot be used: {why}"))));
}

fn named_backup<'a>(facts: &'a Facts, id: &BackupId) -> Result<&'a BackupDescription, Box<Refusal>> {
    let unusable = |why: String| Reason::BackupUnusable { id: id.clone(), why };
    if let Some(why) = facts.damaged_backups.get(id) {
        return Err(unusable(format!("cannot be used: {why}")).into());
    }
    if facts.unfinished_backups.contains(id) {
        return Err(unusable("is not complete: it is being taken, or was interrupted".into()).into());
    }
    let found = facts.backups.iter().find(|backup| backup.id == *id);
    found.ok_or_else(|| unusable("does not exist".into()).into())
}

fn chosen_timeline(facts: &Facts, request: &Request) -> TimelineId {
    match request.timeline {
        TimelineChoice::Number(number) => number,
        TimelineChoice::Latest => {
            let known = facts.histories.keys().chain(facts.damaged_histories.keys()).copied();
            let of_wal = facts.ranges.iter().map(|range| range.timeline());
            let of_backups = facts.backups.iter().map(|backup| backup.stop_timeline);
            known.chain(of_wal).chain(of_backups).max().unwrap_or(TimelineId(1))
        }
        TimelineChoice::Current => {
            let named = request.backup.as_ref();
            let candidate = |backup: &&BackupDescription| match named {
                Some(id) => backup.id == *id,
                None => backup.checksum_failures.is_empty() && ends_before(backup, request),
            };
            let newest = facts.backups.iter().rev().find(candidate).or(facts.backups.last());
            newest.map_or(TimelineId(1), |backup| backup.stop_timeline)
        }
    }
}

/// The line that leads to a timeline, from its history file.
fn path_to(facts: &Facts, timeline: TimelineId) -> Result<TimelinePath, Box<Refusal>> {
    let size = facts.ranges.segment_size();
    if let Some(why) = facts.damaged_histories.get(&timeline) {
        return Err(Reason::HistoryDamaged { timeline, why: why.clone() }.into());
    }
    if let Some(history) = facts.histories.get(&timeline) {
        return Ok(TimelinePath::new(history.clone(), size));
    }
    let seen = !facts.ranges.of(timeline).is_empty() || facts.backups.iter().any(|b| b.stop_timeline == timeline);
    match (timeline, seen) {
        (TimelineId(1), _) => Ok(TimelinePath::new(TimelineHistory::root(timeline), size)),
        (_, true) => Err(Reason::HistoryMissing { timeline }.into()),
        (_, false) => Err(Reason::TimelineUnknown { timeline }.into()),
    }
}

/// Whether the target lies after the backup's end for sure. Where a transaction id or a restore point lies is not
/// known without reading WAL.
fn ends_before(backup: &BackupDescription, request: &Request) -> bool {
    match &request.target {
        // A commit at the very instant of the end may lie before it, and to leave it out is then impossible.
        Target::Time(time) if !request.inclusive => backup.stopped_at < *time,
        Target::Time(time) => backup.stopped_at <= *time,
        Target::Lsn(lsn) => backup.stop_lsn <= *lsn,
        Target::Xid(_) | Target::Name(_) | Target::Immediate | Target::Latest => true,
    }
}

struct Planner<'a> {
    facts: &'a Facts,
    request: &'a Request,
    path: TimelinePath,
}

impl<'a> Planner<'a> {
    /// Number of the first segment that a backup needs.
    fn start(&self, backup: &BackupDescription) -> u64 {
        backup.start_lsn.0 / self.facts.ranges.segment_size().bytes()
    }

    /// Number of the first segment after those that a backup needs to become consistent.
    fn stop(&self, backup: &BackupDescription) -> u64 {
        let size = self.facts.ranges.segment_size();
        SegmentName::ending_at(backup.stop_timeline, backup.stop_lsn, size).number(size) + 1
    }

    /// Why a backup cannot be used for any target on the path; `None` when it can.
    fn unusable(&self, backup: &BackupDescription, named: bool) -> Option<String> {
        if !self.path.carries(backup) {
            return Some(format!(
                "is on timeline {} from {} to {}, which does not lead to timeline {}",
                backup.timeline,
                backup.start_lsn,
                backup.stop_lsn,
                self.path.timeline()
            ));
        }
        if !named && !backup.checksum_failures.is_empty() {
            let count = backup.checksum_failures.len();
            return Some(format!("has {count} page checksum failures: it is only restored when named with --backup"));
        }
        let reach = self.path.reach(&self.facts.ranges, self.start(backup), self.stop(backup));
        let missing = reach.first_missing;
        (missing.number(self.facts.ranges.segment_size()) < self.stop(backup))
            .then(|| format!("lacks WAL segment {missing}, without which it does not become consistent"))
    }

    /// The backup to begin with, and why it.
    fn choose(&self, notes: &mut Notes) -> Result<(&'a BackupDescription, String), Box<Refusal>> {
        if let Some(id) = &self.request.backup {
            return self.choose_named(named_backup(self.facts, id)?);
        }
        let mut usable: Vec<&BackupDescription> = Vec::new();
        for backup in &self.facts.backups {
            match self.unusable(backup, false) {
                None => usable.push(backup),
                Some(why) => notes.push((backup.id.clone(), why)),
            }
        }
        note_damaged(self.facts, notes);
        usable.sort_by_key(|backup| (backup.stop_lsn, backup.stopped_at));
        let Some(oldest) = usable.first() else {
            return Err(self.refuse_path());
        };
        let unplaced = matches!(self.request.target, Target::Xid(_) | Target::Name(_));
        if unplaced {
            return Ok(self.choose_for_unplaced(&usable));
        }
        match usable.iter().rev().find(|backup| ends_before(backup, self.request)) {
            Some(backup) => Ok((backup, "the newest usable backup that ends before the target".into())),
            None => {
                let reason = Reason::BeforeOldestBackup {
                    id: oldest.id.clone(),
                    stopped_at: oldest.stopped_at,
                    stop_lsn: oldest.stop_lsn,
                };
                Err(Box::new(Refusal { reason, before: None, after: Some(end_of(oldest, self.path.timeline())) }))
            }
        }
    }

    fn choose_named(&self, backup: &'a BackupDescription) -> Result<(&'a BackupDescription, String), Box<Refusal>> {
        let unusable = |why: String| Reason::BackupUnusable { id: backup.id.clone(), why };
        if let Some(why) = self.unusable(backup, true) {
            let after = Some(end_of(backup, backup.stop_timeline));
            return Err(Box::new(Refusal { reason: unusable(why), before: None, after }));
        }
        if !ends_before(backup, self.request) {
            let reason = unusable(format!("ends after the target, at {}", end_words(backup)));
            return Err(Box::new(Refusal { reason, before: None, after: Some(end_of(backup, self.path.timeline())) }));
        }
        Ok((backup, "named with --backup".into()))
    }

    /// Where a transaction or a restore point lies is not known: the oldest backup from which WAL goes on to where it
    /// goes on from the newest one is right wherever it lies after that.
    fn choose_for_unplaced(&self, usable: &[&'a BackupDescription]) -> (&'a BackupDescription, String) {
        let reach = |backup: &BackupDescription| {
            self.path.reach(&self.facts.ranges, self.start(backup), u64::MAX).first_missing
        };
        let newest = usable[usable.len() - 1];
        let end = reach(newest);
        let at = usable.iter().position(|backup| reach(backup) == end).unwrap_or(usable.len() - 1);
        let mut why =
            "where the target lies in the WAL is not known, so replay begins with the oldest usable backup; a later \
                       one that ends before the target, named with --backup, makes it shorter"
                .to_string();
        if at > 0 {
            why.push_str(&format!(
                "; older backups lie before a gap in the WAL: for a target before that gap name one, such as --backup {}",
                usable[at - 1].id
            ));
        }
        (usable[at], why)
    }

    fn refuse_path(&self) -> Box<Refusal> {
        let timeline = self.path.timeline();
        let newest = self.facts.backups.iter().rev().find(|backup| backup.stop_timeline != timeline);
        let before = newest.map(|backup| end_of(backup, backup.stop_timeline));
        Box::new(Refusal { reason: Reason::NoBackupOnPath { timeline }, before, after: None })
    }

    /// Checks that WAL goes as far as the target needs, and makes the plan.
    fn check_reach(
        &self,
        backup: &BackupDescription,
        reach: Reach,
        notes: &Notes,
    ) -> Result<RecoveryPlan, Box<Refusal>> {
        let size = self.facts.ranges.segment_size();
        let end = reach.first_missing.start(size);
        // Older ones would not have been chosen anyway.
        let newer = notes.iter().filter(|(id, _)| *id > backup.id);
        let mut warnings: Vec<String> = newer.map(|(id, why)| format!("backup \"{id}\" {why}")).collect();
        let mut wal_end = self.guard_end(&reach);
        let mut settings = self.request.settings();
        let mut until = u64::MAX;
        match &self.request.target {
            Target::Immediate => until = self.stop(backup),
            Target::Latest if reach.resumes.is_some() => return Err(self.refuse_end(&reach, None)),
            Target::Latest => (),
            Target::Lsn(lsn) if *lsn == end && !self.request.inclusive => {
                wal_end = Some(reach.first_missing);
                settings.clear();
                warnings.push(format!(
                    "the target is where the archived WAL ends: recovery ends before {}",
                    reach.first_missing
                ));
            }
            Target::Lsn(lsn) if *lsn >= end => return Err(self.refuse_end(&reach, None)),
            Target::Lsn(lsn) => {
                until = lsn.0 / size.bytes() + 1;
                if until == reach.first_missing.number(size) {
                    warnings.push(LAST_SEGMENT.into());
                }
            }
            Target::Time(time) => {
                let stored = self.last_stored(&reach);
                if stored.is_some_and(|stored| *time > stored + CLOCK_TOLERANCE) {
                    return Err(self.refuse_end(&reach, stored));
                }
                warnings.extend(gap_ahead(&reach));
            }
            Target::Xid(_) | Target::Name(_) => warnings.extend(gap_ahead(&reach)),
        }
        let wal = self.path.reach(&self.facts.ranges, self.start(backup), until).pieces;
        settings.push(("recovery_target_timeline", self.path.timeline().to_string()));
        if reach.resumes.is_some() && backup.major.number() >= 15 {
            // Reading ahead would meet the gap before replay meets the target.
            settings.push(("recovery_prefetch", "off".into()));
        }
        Ok(RecoveryPlan {
            cluster: self.facts.cluster.clone(),
            request: self.request.clone(),
            target: self.request.words(),
            backup: backup.clone(),
            reason: String::new(),
            timeline: self.path.timeline(),
            path: self.path.steps(backup.timeline),
            segments: wal.iter().map(|piece| piece.segments).sum(),
            wal_bytes: wal.iter().map(|piece| piece.stored_bytes).sum(),
            wal,
            wal_reaches: end,
            wal_end,
            settings: settings.into_iter().map(|(name, value)| (name.to_string(), value)).collect(),
            warnings,
        })
    }

    /// When the next segment of the line is not archived yet but an older timeline has one of that number, the server
    /// would go on with what the line left behind: fetching has to end before it. At a fork also when the older one is
    /// not there yet: a server that lives on could still archive it.
    fn guard_end(&self, reach: &Reach) -> Option<SegmentName> {
        let missing = reach.first_missing;
        let stale = self.path.stale_segments(missing);
        let is_there = || stale.iter().any(|name| self.facts.ranges.contains(*name));
        let tempting = reach.resumes.is_none() && (self.path.is_first_of_fork(missing) || is_there());
        tempting.then_some(missing)
    }

    /// When the last segment before the end of unbroken WAL was stored: every commit before is older.
    fn last_stored(&self, reach: &Reach) -> Option<DateTime<Utc>> {
        let last = reach.pieces.last()?.last;
        Some(self.facts.ranges.holding(last)?.last_stored)
    }

    fn refuse_end(&self, reach: &Reach, last_stored: Option<DateTime<Utc>>) -> Box<Refusal> {
        let size = self.facts.ranges.segment_size();
        let missing = reach.first_missing;
        let timeline = TimelineChoice::Number(self.path.timeline());
        let backup = self.request.backup.clone();
        let (end, last_timeline) =
            (missing.start(size), reach.pieces.last().map_or(missing.timeline, |piece| piece.last.timeline));
        let Some(resumes) = reach.resumes else {
            let request = Request { timeline, backup, ..Request::new(Target::Latest) };
            let before = Some(Nearest::new(format!("everything that is archived, up to {end}"), request));
            let reason = Reason::BeyondArchive { end, timeline: last_timeline, last_stored };
            return Box::new(Refusal { reason, before, after: None });
        };
        let request = Request { timeline, backup, inclusive: false, ..Request::new(Target::Lsn(end)) };
        let before = Nearest::new(format!("everything before the gap, up to {end}"), request);
        let behind = |backup: &&BackupDescription| {
            self.start(backup) > missing.number(size) && self.unusable(backup, false).is_none()
        };
        let after = self.facts.backups.iter().filter(behind).min_by_key(|backup| backup.stop_lsn);
        Box::new(Refusal {
            reason: Reason::Gap { first_missing: missing, resumes },
            before: Some(before),
            after: after.map(|backup| end_of(backup, self.path.timeline())),
        })
    }
}

/// The end of a backup as a moment to restore to.
fn end_of(backup: &BackupDescription, timeline: TimelineId) -> Nearest {
    let request = Request {
        timeline: TimelineChoice::Number(timeline),
        backup: Some(backup.id.clone()),
        ..Request::new(Target::Immediate)
    };
    Nearest::new(format!("the end of backup \"{}\", {}", backup.id, end_words(backup)), request)
}

fn end_words(backup: &BackupDescription) -> String {
    format!("{} ({})", postgresql_time(backup.stopped_at), backup.stop_lsn)
}

const LAST_SEGMENT: &str = "the target lies in the last archived segment: if no WAL record begins at or after it there, PostgreSQL \
                            refuses to start";

fn gap_ahead(reach: &Reach) -> Option<String> {
    let resumes = reach.resumes?;
    Some(format!(
        "WAL segment {} is missing and archived WAL goes on with {resumes}: if the target is not reached before it, the server \
         stops and the restore fails",
        reach.first_missing
    ))
}
