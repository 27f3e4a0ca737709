//! The segment in which a timeline begins: the older one's records, then the new one's.

use walden::postgres::types::{LongPageHeader, TimelineId};
use walden::postgres::wal::{EventDetail, StopReason, Summarizer};

use crate::harness::{Cluster, Major, Scratch, each_major};

fn a_promotion_is_seen_in_the_segment_where_it_was(major: Major) {
    let scratch = Scratch::new("wal timeline");
    let primary = Cluster::builder(major).segment_mib(1).start(&scratch);
    let standby = primary.standby(&scratch);
    primary.sql("create table t as select generate_series(1, 100)");
    standby.wait_for_replay(&primary.sql("select pg_current_wal_lsn()"));
    standby.promote();
    let name = standby.sql("select pg_walfile_name(pg_current_wal_lsn())");
    // The page that holds the switch point keeps the old timeline.
    standby.sql("insert into t select generate_series(1, 1000)");
    let bytes = std::fs::read(standby.data.join("pg_wal").join(&name)).expect("read a segment");
    let header = LongPageHeader::parse(&bytes).expect("a segment");
    let mut summarizer = Summarizer::new(header.address, header.segment_size);
    summarizer.push(&bytes);
    let summary = summarizer.finish();
    let began: Vec<&EventDetail> = summary
        .events
        .iter()
        .map(|event| &event.what)
        .filter(|what| is_timeline(what))
        .collect();
    assert_eq!(
        began,
        [&EventDetail::TimelineBegan {
            timeline: TimelineId(2),
            previous: TimelineId(1)
        }],
        "{name}"
    );
    assert_eq!(
        (header.timeline, summary.timeline),
        (TimelineId(1), Some(TimelineId(2)))
    );
    let last = summary.commits.last.expect("a commit");
    let began = summary
        .events
        .iter()
        .find(|event| is_timeline(&event.what))
        .expect("an event");
    assert!(last.lsn > began.lsn);
    let stop = summary.stop.expect("WAL ends within the segment");
    assert!(
        matches!(
            stop.why,
            StopReason::ZeroPage | StopReason::ZeroLength | StopReason::Address(_)
        ),
        "{stop}"
    );
}
each_major!(promotions, a_promotion_is_seen_in_the_segment_where_it_was);

fn is_timeline(what: &EventDetail) -> bool {
    matches!(what, EventDetail::TimelineBegan { .. })
}
