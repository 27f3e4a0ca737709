//! Target in, plan out: where replay stops exactly, which backup, along which timelines, with which WAL; or why not.
//! Decides before anything is touched, because PostgreSQL notices late or, before version 15, not at all.

use chrono::{DateTime, TimeDelta, Utc};

use super::BackupDescription;
use super::choose::{Choice, Chooser, Notes, named_backup, note_damaged};
use super::facts::{Facts, PlanInput};
use super::follow::{check_promotion, chosen_path};
use super::other_timelines::{OtherTimeline, meant};
use super::path::{Coverage, PathStep, TimelinePath, WalPiece};
use super::refuse::{NoPlan, Refusal, map_refusal};
use super::replayed_tablespaces::ReplayedTablespaces;
use super::stop_at::{Neighbours, Reachability, StopAt};
use super::target::{RestoreRequest, Target};
use super::unreachable::{Nearest, Unreachable, UnreachableReason};
use super::wal_index::Unknown;
use crate::postgres::layout::ClusterName;
use crate::postgres::types::{Lsn, SegmentName, TimelineId};

/// How a moment is restored, and why so.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveryPlan {
    pub cluster: ClusterName,
    pub request: RestoreRequest,
    /// The target in words.
    pub target: String,
    pub kind: Reachability,
    pub stop: StopAt,
    /// The commits on both sides of where replay stops; absent when they are not known.
    pub transactions: Option<Neighbours>,
    pub backup: BackupDescription,
    /// Why this backup.
    pub reason: String,
    /// The timeline that recovery follows to.
    pub timeline: TimelineId,
    /// From the backup's timeline to that one.
    pub path: Vec<PathStep>,
    /// The WAL that replay may read, in order.
    pub wal: Vec<WalPiece>,
    /// Number of segments in `wal`.
    pub segments: u64,
    /// Bytes of their objects, estimated.
    pub wal_bytes: u64,
    /// The first LSN that is not archived on the path.
    pub wal_reaches: Lsn,
    /// Fetching answers "absent" from this segment on, so that recovery ends before it.
    pub wal_end: Option<SegmentName>,
    /// Timelines that go on beside the path, and could be meant as well.
    pub other_timelines: Vec<OtherTimeline>,
    /// Tablespaces that replay makes outside the data directory.
    pub made: ReplayedTablespaces,
    /// The settings of the target.
    pub settings: Vec<(String, String)>,
    /// What past restores let expect; absent without any.
    pub expected_seconds: Option<f64>,
    /// About the target.
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

impl RecoveryPlan {
    /// Whether PostgreSQL is given a target; else it replays all WAL that it gets, and promotes.
    pub fn has_target(&self) -> bool {
        !matches!(self.stop, StopAt::End)
    }

    /// Up to when it restores what is then left behind; `None`: everything there is.
    pub fn moment(&self) -> Option<DateTime<Utc>> {
        let last = self.transactions.and_then(|around| around.last_included);
        let moment = last.map_or(self.backup.stopped_at, |last| last.time);
        self.has_target().then_some(moment)
    }
}

/// Decides how to restore what is asked for. Every moment that an [`Unreachable`] names can itself be planned.
pub fn plan(known: &PlanInput<'_>, request: &RestoreRequest) -> Result<RecoveryPlan, NoPlan> {
    let mut notes = Notes::new();
    decide(known, request, &mut notes).map_err(|stuck| {
        map_refusal(stuck, |refusal: Refusal| {
            let refused = |nearest: &Nearest| {
                matches!(
                    decide(known, &nearest.request, &mut Notes::new()),
                    Err(NoPlan::Refused(_))
                )
            };
            Unreachable {
                target: request.words(),
                kind: refusal.reason.kind(),
                reason: refusal.reason,
                nearest_before: refusal.before.filter(|nearest| !refused(nearest)),
                nearest_after: refusal.after.filter(|nearest| !refused(nearest)),
                other_timelines: others(known, request),
                notes: notes
                    .into_iter()
                    .map(|(id, why)| format!("backup \"{id}\" {why}"))
                    .collect(),
            }
        })
    })
}

/// Timelines that go on beside the one that was chosen. Without a path there is none to follow beside it.
fn others(known: &PlanInput<'_>, request: &RestoreRequest) -> Vec<OtherTimeline> {
    chosen_path(known.facts, request)
        .map(|path| meant(known, &path, request))
        .unwrap_or_default()
}

impl Facts {
    /// Whether a refusal names a gap that may close by itself: segments are stored several at a time, so that a later one
    /// can be there before an earlier one. True when what lies behind the gap was stored less than `grace` before `now`.
    pub fn may_close(&self, refused: &Unreachable, now: DateTime<Utc>, grace: TimeDelta) -> bool {
        let UnreachableReason::Gap { resumes, .. } = &refused.reason else {
            return false;
        };
        self.ranges
            .holding(*resumes)
            .is_some_and(|range| now - range.first_stored < grace)
    }
}

fn decide(
    known: &PlanInput<'_>,
    request: &RestoreRequest,
    notes: &mut Notes,
) -> Result<RecoveryPlan, NoPlan<Refusal>> {
    if let Some(id) = &request.backup {
        named_backup(known.facts, id)?;
    }
    if known.facts.backups.is_empty() {
        note_damaged(known.facts, notes);
        return Err(UnreachableReason::NoBackup.into());
    }
    let path = chosen_path(known.facts, request)?;
    check_promotion(known.facts, &path)?;
    let chooser = Chooser {
        known,
        request,
        path,
    };
    let choice = chooser.choose(notes)?;
    let transactions = chooser.neighbours(&choice);
    let made = chooser.made(&choice).map_err(NoPlan::Unknown)?;
    let mut plan = conclude(&chooser, choice, made, notes);
    match transactions {
        Ok(transactions) => plan.transactions = Some(transactions),
        Err(Unknown::NoIndex) => (),
        // An index of no more than the WAL that is replayed; there was no commit since the backup.
        Err(Unknown::Segment(segment))
            if plan.wal.first().is_some_and(|wal| segment < wal.first) => {}
        Err(unknown) => plan.warnings.push(format!(
            "which transactions lie around the target is not known: {unknown}"
        )),
    }
    Ok(plan)
}

/// Makes the plan of what was chosen.
fn conclude(
    chooser: &Chooser<'_>,
    choice: Choice<'_>,
    made: ReplayedTablespaces,
    notes: &Notes,
) -> RecoveryPlan {
    let Choice {
        backup,
        why,
        coverage,
        place,
    } = choice;
    let (facts, path, request) = (chooser.known.facts, &chooser.path, chooser.request);
    // Older ones would not have been chosen anyway.
    let newer = notes
        .iter()
        .filter(|(id, _)| *id > backup.id)
        .map(|(id, why)| format!("backup \"{id}\" {why}"));
    // What is archived from now on may lie behind the target.
    let ends_here = place.stop == StopAt::End && request.target != Target::Latest;
    let end = Some(coverage.first_missing)
        .filter(|_| ends_here && matches!(request.target, Target::Lsn(_)));
    let end = end.map(|end| {
        format!("the target is where the archived WAL ends: recovery ends before {end}")
    });
    let warnings = newer.chain(made.warnings()).chain(end).collect();
    let wal = path
        .coverage(&facts.ranges, chooser.start(backup), place.until)
        .pieces;
    let other_timelines = meant(chooser.known, path, request);
    RecoveryPlan {
        cluster: facts.cluster.clone(),
        request: request.clone(),
        target: target_words(request, path, &other_timelines),
        kind: Reachability::Present,
        settings: settings(&place.stop, path, &coverage, backup),
        stop: place.stop,
        transactions: None,
        backup: backup.clone(),
        reason: why.to_string(),
        timeline: path.timeline(),
        path: path.steps(backup.timeline),
        segments: wal.iter().map(|piece| piece.segments).sum(),
        wal_bytes: wal.iter().map(|piece| piece.stored_bytes).sum(),
        wal,
        wal_reaches: path.start(coverage.first_missing),
        wal_end: if ends_here {
            Some(coverage.first_missing)
        } else {
            guard_end(facts, path, &coverage)
        },
        other_timelines,
        made,
        expected_seconds: None,
        notes: place.notes,
        warnings,
    }
}

/// The target in words. The newest moment is one of a timeline, where there are others.
fn target_words(request: &RestoreRequest, path: &TimelinePath, others: &[OtherTimeline]) -> String {
    match &request.target {
        Target::Latest if !others.is_empty() => {
            format!("{} on timeline {}", request.words(), path.timeline())
        }
        _ => request.words(),
    }
}

/// The settings of the target.
fn settings(
    stop: &StopAt,
    path: &TimelinePath,
    coverage: &Coverage,
    backup: &BackupDescription,
) -> Vec<(String, String)> {
    let mut settings = stop.settings();
    settings.push(("recovery_target_timeline", path.timeline().to_string()));
    if !coverage.is_end() && backup.major.number() >= 15 {
        // ReadPlan ahead would meet the gap before replay meets the target.
        settings.push(("recovery_prefetch", "off".into()));
    }
    settings
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}

/// When the next segment of the path is not archived yet but an older timeline has one of that number, the server would
/// go on with what the path left behind: fetching has to end before it. At a fork also when the older one is not there
/// yet: a server that lives on could still archive it.
fn guard_end(facts: &Facts, path: &TimelinePath, coverage: &Coverage) -> Option<SegmentName> {
    let missing = coverage.first_missing;
    let stale = path.stale_segments(missing);
    let is_there = || stale.iter().any(|name| facts.ranges.contains(*name));
    let tempting = coverage.resumes.is_none() && (path.is_first_of_fork(missing) || is_there());
    tempting.then_some(missing)
}
