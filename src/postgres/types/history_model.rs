//! What PostgreSQL makes of a history file, written down from timeline.c and xlogrecovery.c word for word: the rest of
//! Walden is compared with it.

use proptest::prelude::*;

use super::{HistoryEntry, Lsn, TimelineHistory, TimelineId};

/// `TimeLineHistoryEntry`; 0 is `InvalidXLogRecPtr`.
struct ModelEntry {
    tli: u32,
    begin: u64,
    end: u64,
}

/// `readTimeLineHistory`: the newest first.
fn read_time_line_history(history: &TimelineHistory) -> Vec<ModelEntry> {
    let (mut entries, mut previous_end) = (Vec::new(), 0);
    for entry in &history.ancestors {
        entries.insert(
            0,
            ModelEntry {
                tli: entry.timeline.0,
                begin: previous_end,
                end: entry.switch_lsn.0,
            },
        );
        previous_end = entry.switch_lsn.0;
    }
    entries.insert(
        0,
        ModelEntry {
            tli: history.timeline.0,
            begin: previous_end,
            end: 0,
        },
    );
    entries
}

/// `tliOfPointInHistory`.
pub fn tli_of_point_in_history(history: &TimelineHistory, lsn: u64) -> u32 {
    let holds = |entry: &&ModelEntry| {
        (entry.begin == 0 || entry.begin <= lsn) && (entry.end == 0 || lsn < entry.end)
    };
    read_time_line_history(history)
        .iter()
        .find(holds)
        .expect("timeline history was not contiguous")
        .tli
}

/// `XLogFileReadAnyTLI`: the timelines whose segment of that number is asked for, in order, when the one before was of
/// `current`.
pub fn timelines_asked(
    history: &TimelineHistory,
    segment: u64,
    segment_size: u64,
    current: u32,
) -> Vec<u32> {
    let entries = read_time_line_history(history);
    let young = entries.iter().take_while(|entry| entry.tli >= current);
    young
        .filter(|entry| entry.begin == 0 || segment >= entry.begin / segment_size)
        .map(|entry| entry.tli)
        .collect()
}

/// Histories as a server writes them: a new timeline's file is its parent's with one line more, and where recovery
/// ended is anywhere.
pub fn histories() -> impl Strategy<Value = TimelineHistory> {
    proptest::collection::vec((1..4_u32, 1..400_u64), 0..7).prop_map(|lines| {
        let mut timeline = 1;
        let mut ancestors = Vec::new();
        for (step, switch) in lines {
            ancestors.push(HistoryEntry {
                timeline: TimelineId(timeline),
                switch_lsn: Lsn(switch),
                reason: String::new(),
            });
            timeline += step;
        }
        TimelineHistory {
            timeline: TimelineId(timeline),
            ancestors,
        }
    })
}

proptest! {
    #[test]
    fn each_byte_belongs_to_the_timeline_that_postgresql_takes(history in histories()) {
        for lsn in 1..450 {
            let timeline = TimelineId(tli_of_point_in_history(&history, lsn));
            prop_assert_eq!(history.timeline_at(Lsn(lsn)), timeline, "at {}", lsn);
            let (begin, end) = (history.begin_of(timeline).unwrap(), history.end_of(timeline).unwrap());
            prop_assert!(begin <= Lsn(lsn) && end.is_none_or(|end| Lsn(lsn) < end), "{:?} to {:?}", begin, end);
        }
    }

    #[test]
    fn timelines_follow_one_another_on_a_path(history in histories()) {
        let mut at = Lsn(0);
        for timeline in history.path() {
            prop_assert_eq!(history.begin_of(timeline), Some(at));
            let end = history.end_of(timeline).unwrap().unwrap_or(Lsn(u64::MAX));
            prop_assert!(at <= end);
            at = end;
        }
    }
}
