//! A second opinion before anything is deleted: could everything that stays still be restored, and everything since the
//! window's begin? Asked of the planner of restores, which knows nothing of retention. Pure.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::postgres::catalog::{
    BackupDescription, ExpiredWal, Facts, NoIndex, NoPlan, PlanInput, ProbeQuery, ProbeResult,
    RestoreRequest, Target, TimelineChoice, TimelinePath, plan,
};
use crate::postgres::protection::Needs;
use crate::postgres::types::Lsn;

/// Objections that are told, at most.
const MOST: usize = 8;

/// The facts as they are when all that was deleted.
pub fn facts_without(facts: &Facts, deletes: &Needs) -> Facts {
    let size = facts.ranges.segment_size();
    let mut spans = facts.ranges.expired().spans().to_vec();
    spans.extend(&deletes.wal);
    let stays = |backup: &&BackupDescription| !deletes.backups.contains(&backup.id);
    Facts {
        backups: Arc::new(facts.backups.iter().filter(stays).cloned().collect()),
        ranges: facts
            .ranges
            .without(&deletes.wal)
            .with_expired(ExpiredWal::new(spans, size)),
        ..facts.clone()
    }
}

/// Why not to delete that; empty: nothing speaks against it. `window`: any moment of so long a time before the newest base
/// backup is promised.
pub fn objections(facts: &Facts, deletes: &Needs, window: Option<TimeDelta>) -> Vec<String> {
    let after = facts_without(facts, deletes);
    let mut objections = Vec::new();
    let paths = TimelinePath::all(
        facts.histories.values().cloned(),
        &facts.backups,
        &facts.ranges,
    );
    for backup in after.backups.iter() {
        let lost = |path: &&TimelinePath| {
            path.carries(backup)
                && path.moments(&facts.ranges, backup).is_some()
                && path.moments(&after.ranges, backup).is_none()
        };
        if paths.iter().any(|path| lost(&path)) {
            objections.push(format!(
                "backup {} stays, and WAL without which it cannot be restored would go",
                backup.id
            ));
        } else if is_planned(facts, at_end_of(backup)) && !is_planned(&after, at_end_of(backup)) {
            objections.push(format!(
                "backup {} could not be restored any more",
                backup.id
            ));
        }
    }
    let reference = facts.backups.iter().filter(|backup| backup.is_sound());
    let reference = reference.map(|backup| backup.stopped_at).max();
    let begin = reference.map(|time| {
        time.checked_sub_signed(window.unwrap_or_default())
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
    });
    for path in paths.iter().filter(|_| begin.is_some()) {
        objections.extend(window_lost(path, facts, &after, begin.unwrap_or_default()));
    }
    let latest = || RestoreRequest::new(Target::Latest);
    if is_planned(facts, latest()) && !is_planned(&after, latest()) {
        objections.push("the newest moment could not be restored any more".into());
    }
    objections.truncate(MOST);
    objections
}

fn at_end_of(backup: &BackupDescription) -> RestoreRequest {
    RestoreRequest {
        timeline: TimelineChoice::Number(backup.stop_timeline),
        backup: Some(backup.id.clone()),
        ..RestoreRequest::new(Target::Immediate)
    }
}

/// Whether the planner finds a way. What only an index or a segment could tell does not count against it.
fn is_planned(facts: &Facts, request: RestoreRequest) -> bool {
    let unread = |query: &ProbeQuery| -> anyhow::Result<ProbeResult> {
        anyhow::bail!("segment {} was not to be probed", query.segment)
    };
    let known = PlanInput {
        facts,
        index: &NoIndex,
        probe: &unread,
    };
    !matches!(plan(&known, &request), Err(NoPlan::Refused(_)))
}

/// What of the window of a path would be lost. It begins with the newest backup that ended by its begin.
fn window_lost(
    path: &TimelinePath,
    facts: &Facts,
    after: &Facts,
    begin: DateTime<Utc>,
) -> Option<String> {
    let newest = facts.histories.keys().last();
    let is_newest = newest.is_none_or(|newest| *newest <= path.timeline());
    let last = facts.ranges.of(path.timeline()).last();
    if !is_newest && last.is_none_or(|last| last.last_stored < begin) {
        return None;
    }
    let (before, left) = (reaches(path, facts), reaches(path, after));
    let old = before.iter().filter(|(.., time)| *time <= begin);
    let first = old.map(|(from, ..)| *from).max();
    let first = first.or(before.iter().map(|(from, ..)| *from).min())?;
    let mut lost: Vec<(Lsn, Lsn)> = before
        .iter()
        .map(|(from, to, _)| (*from.max(&first), *to))
        .filter(|(from, to)| from < to)
        .collect();
    for (from, to, _) in left {
        lost = lost
            .into_iter()
            .flat_map(|(a, b)| [(a, b.min(from)), (a.max(to), b)])
            .filter(|(a, b)| a < b)
            .collect();
    }
    let (from, to) = lost.first()?;
    Some(format!(
        "timeline {} could not be restored any more from {from} to before {to}, which lies in the window",
        path.timeline()
    ))
}

/// From where to where each backup leads along a path, and when it ended.
fn reaches(path: &TimelinePath, facts: &Facts) -> Vec<(Lsn, Lsn, DateTime<Utc>)> {
    let usable = facts.backups.iter();
    let usable = usable.filter(|backup| backup.is_sound() && path.carries(backup));
    let moments = |backup: &BackupDescription| {
        let (from, to) = path.moments(&facts.ranges, backup)?;
        Some((from, to, backup.stopped_at))
    };
    usable.filter_map(moments).collect()
}
