//! Which paths of timelines are known, and which one a request follows.

use super::facts::Facts;
use super::path::TimelinePath;
use super::refuse::Searched;
use super::target::{RestoreRequest, Target, TimelineChoice};
use super::unreachable::UnreachableReason;
use super::{BackupDescription, Gap};
use crate::postgres::types::{TimelineHistory, TimelineId};

/// The first timeline has no history file.
pub(super) fn has_path(facts: &Facts, timeline: TimelineId) -> bool {
    timeline == TimelineId(1) || facts.histories.contains_key(&timeline)
}

/// The paths of timelines by number. Where one without its history file comes from is not known: nothing leads there
/// for sure.
pub(super) fn paths(facts: &Facts) -> Vec<TimelinePath> {
    let mut paths = TimelinePath::all(
        facts.histories.values().cloned(),
        &facts.backups,
        &facts.ranges,
    );
    paths.retain(|path| has_path(facts, path.timeline()));
    paths.sort_by_key(TimelinePath::timeline);
    paths
}

/// All ranges of WAL that are missing, whether or not a backup would reach them.
pub fn missing_wal(facts: &Facts) -> Vec<Gap> {
    TimelinePath::all_gaps(&paths(facts), &facts.ranges)
}

/// The path to follow.
pub(super) fn chosen_path(facts: &Facts, request: &RestoreRequest) -> Searched<TimelinePath> {
    let path = path_to(facts, chosen_timeline(facts, request));
    let Target::Event(event) = &request.target else {
        return path;
    };
    // An event is where the path of its timeline has it: other paths have it only if they did not leave that one before.
    let lsn = if request.inclusive {
        event.after
    } else {
        event.before
    };
    let own = path_to(facts, event.timeline)?;
    match path {
        Ok(path) if path.timeline_at(lsn) == own.timeline_at(lsn) => Ok(path),
        _ if request.timeline == TimelineChoice::Latest => Ok(own),
        Ok(path) => {
            let (id, timeline) = (event.id.clone(), path.timeline());
            Err(UnreachableReason::EventElsewhere {
                id,
                timeline,
                event_timeline: own.timeline_at(lsn),
            }
            .into())
        }
        refused => refused,
    }
}

fn chosen_timeline(facts: &Facts, request: &RestoreRequest) -> TimelineId {
    match (request.timeline, &request.target) {
        (TimelineChoice::Number(number), _) => number,
        (TimelineChoice::Latest, _) => {
            let known = facts
                .histories
                .keys()
                .chain(facts.damaged_histories.keys())
                .copied();
            let of_wal = facts.ranges.iter().map(|range| range.timeline());
            let of_backups = facts.backups.iter().map(|backup| backup.stop_timeline);
            known
                .chain(of_wal)
                .chain(of_backups)
                .max()
                .unwrap_or(TimelineId(1))
        }
        (TimelineChoice::Current, Target::Event(event)) => event.timeline,
        (TimelineChoice::Current, _) => {
            let named = request.backup.as_ref();
            let candidate = |backup: &&BackupDescription| match named {
                Some(id) => backup.id == *id,
                None => backup.is_sound() && ends_before(backup, request),
            };
            let newest = facts
                .backups
                .iter()
                .rev()
                .find(candidate)
                .or(facts.backups.last());
            newest.map_or(TimelineId(1), |backup| backup.stop_timeline)
        }
    }
}

/// The path that leads to a timeline, from its history file.
fn path_to(facts: &Facts, timeline: TimelineId) -> Searched<TimelinePath> {
    let size = facts.ranges.segment_size();
    if let Some(why) = facts.damaged_histories.get(&timeline) {
        return Err(UnreachableReason::HistoryDamaged {
            timeline,
            why: why.why.clone(),
            newer_walden: why.newer,
        }
        .into());
    }
    if let Some(history) = facts.histories.get(&timeline) {
        return Ok(TimelinePath::new(history.clone(), size));
    }
    let seen = !facts.ranges.of(timeline).is_empty()
        || facts.backups.iter().any(|b| b.stop_timeline == timeline);
    match (timeline, seen) {
        (TimelineId(1), _) => Ok(TimelinePath::new(TimelineHistory::root(timeline), size)),
        (_, true) => Err(UnreachableReason::HistoryMissing { timeline }.into()),
        (_, false) => Err(UnreachableReason::TimelineUnknown { timeline }.into()),
    }
}

/// A server that ends recovery asks for the histories of newer timelines one after the other, until there is none, and names
/// its own after that. One that was lost, or is damaged, ends recovery with an error when all was replayed. What a whole one
/// says does not matter.
pub(super) fn check_promotion(facts: &Facts, path: &TimelinePath) -> Searched<()> {
    let newer = (path.timeline().0 + 1..).map(TimelineId);
    let is_whole = |timeline: &TimelineId| {
        facts
            .damaged_histories
            .get(timeline)
            .is_some_and(|unusable| unusable.whole)
    };
    let is_there =
        |timeline: &TimelineId| facts.histories.contains_key(timeline) || is_whole(timeline);
    let Some(next) = newer.into_iter().find(|next| !is_there(next)) else {
        return Ok(());
    };
    let is_parent =
        |history: &TimelineHistory| history.ancestors.iter().any(|entry| entry.timeline == next);
    let backed_up =
        |backup: &BackupDescription| [backup.timeline, backup.stop_timeline].contains(&next);
    let shown = !facts.ranges.of(next).is_empty()
        || facts.histories.values().any(is_parent)
        || facts.backups.iter().any(backed_up);
    match (facts.damaged_histories.get(&next), shown) {
        (None, false) => Ok(()),
        (why, _) => Err(UnreachableReason::NewerHistoryUnknown {
            timeline: path.timeline(),
            newer: next,
            why: why.map(|why| why.why.clone()),
            newer_walden: why.is_some_and(|why| why.newer),
        }
        .into()),
    }
}

/// Whether the target lies after the backup's end for sure. Where a transaction or a restore point lies only a search
/// can tell.
pub(super) fn ends_before(backup: &BackupDescription, request: &RestoreRequest) -> bool {
    match &request.target {
        // A commit at the very instant of the end may lie before it, and to leave it out is then impossible.
        Target::Time(time) if !request.inclusive => backup.stopped_at < *time,
        Target::Time(time) => backup.stopped_at <= *time,
        Target::Lsn(lsn) => backup.stop_lsn <= *lsn,
        Target::Event(event) if request.inclusive => backup.stop_lsn <= event.after,
        Target::Event(event) => backup.stop_lsn <= event.before,
        Target::Xid(_) | Target::Name(_) | Target::Immediate | Target::Latest => true,
    }
}
