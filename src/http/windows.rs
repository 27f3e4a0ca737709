//! What can be restored, as stretches of moments. Pure.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::postgres::catalog::{Facts, Gap, TimelinePath};
use crate::postgres::types::{Lsn, TimelineId};

/// Moments that can all be restored along one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Window {
    /// The timeline to follow, with all that it came from.
    pub timeline: u32,
    /// The end of the first backup.
    #[schema(example = "0/3000100")]
    pub from_lsn: String,
    /// The first LSN that is not archived.
    #[schema(example = "0/B000000")]
    pub to_lsn: String,
    /// When the first backup ended.
    pub from_time: DateTime<Utc>,
    /// When the last segment was stored: every commit in it is older. Absent when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub to_time: Option<DateTime<Utc>>,
    /// Base backups that recovery can begin with.
    pub backups: u64,
}

/// All windows, by timeline and place.
pub fn windows(facts: &Facts) -> Vec<Window> {
    let mut windows: Vec<Window> = lines(facts).iter().flat_map(|line| of_line(facts, line)).collect();
    windows.sort_by_key(|window| window.timeline);
    windows
}

/// All stretches of WAL that are missing.
pub fn gaps(facts: &Facts) -> Vec<Gap> {
    TimelinePath::all_gaps(&lines(facts), &facts.ranges)
}

/// The lines of timelines whose way is known.
fn lines(facts: &Facts) -> Vec<TimelinePath> {
    let lines = TimelinePath::all(facts.histories.values().cloned(), &facts.backups, &facts.ranges);
    let is_known = |timeline| timeline == TimelineId(1) || facts.histories.contains_key(&timeline);
    lines.into_iter().filter(|line| is_known(line.timeline())).collect()
}

fn of_line(facts: &Facts, line: &TimelinePath) -> Vec<Window> {
    let size = facts.ranges.segment_size();
    let mut windows: Vec<(Lsn, Window)> = Vec::new();
    let usable = facts.backups.iter().filter(|backup| line.carries(backup) && backup.checksum_failures.is_empty());
    let mut usable: Vec<_> = usable.collect();
    usable.sort_by_key(|backup| backup.stop_lsn);
    for backup in usable {
        let Some((from, to)) = line.moments(&facts.ranges, backup) else { continue };
        match windows.last_mut() {
            Some((end, window)) if *end == to => window.backups += 1,
            _ => {
                let last = line.segment((to.0 / size.bytes()).saturating_sub(1));
                let range = facts.ranges.holding(last).filter(|range| range.last == last);
                let window = Window {
                    timeline: line.timeline().0,
                    from_lsn: from.to_string(),
                    to_lsn: to.to_string(),
                    from_time: backup.stopped_at,
                    to_time: range.map(|range| range.last_stored),
                    backups: 1,
                };
                windows.push((to, window));
            }
        }
    }
    windows.into_iter().map(|(_, window)| window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::facts;

    #[test]
    fn a_gap_ends_a_window_and_the_next_backup_begins_another() {
        let mut facts = facts(&["000000010000000000000002", "000000010000000000000003", "000000010000000000000005"]);
        let one = windows(&facts);
        assert_eq!((one.len(), one[0].from_lsn.as_str(), one[0].to_lsn.as_str()), (1, "0/2000100", "0/4000000"));
        assert_eq!((one[0].backups, one[0].to_time), (1, Some(DateTime::UNIX_EPOCH)));
        let mut later = facts.backups[0].clone();
        later.start_lsn = "0/5000028".parse().unwrap();
        later.stop_lsn = "0/5000100".parse().unwrap();
        facts.backups.push(later.clone());
        let two = windows(&facts);
        assert_eq!((two.len(), two[1].from_lsn.as_str(), two[1].to_lsn.as_str()), (2, "0/5000100", "0/6000000"));
        later.checksum_failures.push("base/1/2 block 3".into());
        facts.backups[1] = later;
        assert_eq!(windows(&facts), one, "a damaged one is used only when it is named");
        assert_eq!(gaps(&facts).len(), 1);
    }

    #[test]
    fn a_timeline_without_its_history_has_no_window() {
        let mut facts = facts(&["000000020000000000000002"]);
        (facts.backups[0].timeline, facts.backups[0].stop_timeline) = (TimelineId(2), TimelineId(2));
        assert!(windows(&facts).is_empty());
    }
}
