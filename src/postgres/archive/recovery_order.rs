//! In what order a server in recovery asks for segments. Pure.

use crate::postgres::types::{SegmentName, SegmentSize, TimelineHistory};

/// The segment that recovery asks for after `last`: of the newest timeline of `history` that begins in or before its
/// place (xlogrecovery.c, XLogFileReadAnyTLI). Without a history, or off its path, the same timeline goes on.
pub fn next_segment(
    last: SegmentName,
    history: Option<&TimelineHistory>,
    size: SegmentSize,
) -> SegmentName {
    let next = last.next(size);
    let Some(history) = history.filter(|history| history.end_of(last.timeline).is_some()) else {
        return next;
    };
    let begins_by_then = |timeline| {
        let begin = history.begin_of(timeline)?;
        (SegmentName::containing(timeline, begin, size).number(size) <= next.number(size))
            .then_some(timeline)
    };
    let newest = history
        .path()
        .filter_map(begins_by_then)
        .max()
        .unwrap_or(last.timeline);
    SegmentName::from_number(newest, next.number(size), size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::{cluster_description, name};
    use crate::postgres::types::history_model::{histories, timelines_asked};
    use crate::postgres::types::{Lsn, TimelineId};

    fn after(last: &str, history: Option<&str>) -> String {
        let history =
            history.map(|content| TimelineHistory::parse(TimelineId(3), content).unwrap());
        next_segment(
            name(last),
            history.as_ref(),
            cluster_description().segment_size,
        )
        .to_string()
    }

    #[test]
    fn a_timeline_goes_on_until_the_path_leaves_it() {
        let history = Some("1\t0/300100\tx\n2\t0/500000\tx\n");
        assert_eq!(
            after("000000010000000000000003", None),
            "000000010000000000000004"
        );
        assert_eq!(
            after("000000010000000000000FFF", None),
            "000000010000000100000000"
        );
        assert_eq!(
            after("000000010000000000000001", history),
            "000000010000000000000002"
        );
        // The switch lies within segment 3: recovery wants the child's copy of it.
        assert_eq!(
            after("000000010000000000000002", history),
            "000000020000000000000003"
        );
        assert_eq!(
            after("000000020000000000000003", history),
            "000000020000000000000004"
        );
        assert_eq!(
            after("000000020000000000000004", history),
            "000000030000000000000005"
        );
        assert_eq!(
            after("000000030000000000000005", history),
            "000000030000000000000006"
        );
        assert_eq!(
            after("000000070000000000000005", history),
            "000000070000000000000006"
        );
    }

    proptest::proptest! {
        /// Histories of places below 400, in segments of 1 MiB a place in each: what is asked for first of each segment.
        #[test]
        fn the_next_segment_is_the_one_that_postgresql_asks_for(mut history in histories(), number in 0..450_u64) {
            let size = cluster_description().segment_size;
            for entry in &mut history.ancestors {
                entry.switch_lsn = Lsn(entry.switch_lsn.0 * size.bytes() / 3);
            }
            let current = history.timeline_at(Lsn(number * size.bytes()));
            let asked = timelines_asked(&history, number + 1, size.bytes(), current.0);
            let next = next_segment(SegmentName::from_number(current, number, size), Some(&history), size);
            proptest::prop_assert_eq!(next.timeline.0, asked[0]);
        }
    }
}
