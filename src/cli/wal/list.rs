use serde::Serialize;

use super::super::{Context, Exit, Format, Table, bytes, gap_lines, print_json, print_text};
use crate::postgres::catalog::{Gap, TimelinePath, WalRange, postgresql_time};
use crate::postgres::load::{LoadedHistories, LoadedWal, load_histories, load_wal};
use crate::postgres::types::{HistoryEntry, Lsn, SegmentName, TimelineId, WalFileName};

/// All archived WAL, for `--format json`.
#[derive(Serialize)]
struct WalListOutput<'a> {
    cluster: String,
    segment_size: u64,
    timelines: Vec<TimelineOutput<'a>>,
    gaps: Vec<Gap>,
    partials: &'a [SegmentName],
    /// Kept beside names that have other content.
    aside: &'a [WalFileName],
    /// Objects that are no WAL file's.
    foreign: &'a [String],
}

#[derive(Serialize)]
struct TimelineOutput<'a> {
    timeline: TimelineId,
    /// Absent when its history file is not archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    came_from: Option<&'a HistoryEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_damaged: Option<&'a str>,
    ranges: Vec<RangeOutput<'a>>,
}

#[derive(Serialize)]
struct RangeOutput<'a> {
    #[serde(flatten)]
    range: &'a WalRange,
    start_lsn: Lsn,
    end_lsn: Lsn,
}

/// Lists archived WAL.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let wal = load_wal(&cluster).await?;
    let histories = load_histories(&cluster, &wal.histories).await?;
    let paths = TimelinePath::all(histories.known.values().cloned(), &[], &wal.ranges);
    let report = WalListOutput {
        cluster: cluster.description.name.to_string(),
        segment_size: cluster.description.segment_size.bytes(),
        timelines: timelines(&wal, &histories),
        gaps: TimelinePath::all_gaps(&paths, &wal.ranges),
        partials: &wal.partials,
        aside: &wal.aside,
        foreign: &wal.foreign,
    };
    match context.format {
        Format::Json => print_json(&report)?,
        Format::Table => print_text(&in_words(&report))?,
    }
    Ok(Exit::Success)
}

fn timelines<'a>(wal: &'a LoadedWal, histories: &'a LoadedHistories) -> Vec<TimelineOutput<'a>> {
    let size = wal.ranges.segment_size();
    let of_ranges = wal.ranges.iter().map(WalRange::timeline);
    let mut all: Vec<TimelineId> = of_ranges.chain(wal.histories.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    let range =
        |range: &'a WalRange| RangeOutput { range, start_lsn: range.first.start(size), end_lsn: range.last.end(size) };
    let timeline = |timeline| TimelineOutput {
        timeline,
        came_from: histories.known.get(&timeline).and_then(|history| history.ancestors.last()),
        history_damaged: histories.damaged.get(&timeline).map(|unusable| unusable.why.as_str()),
        ranges: wal.ranges.of(timeline).iter().map(range).collect(),
    };
    all.into_iter().map(timeline).collect()
}

fn in_words(report: &WalListOutput) -> String {
    if report.timelines.is_empty() {
        return format!("no WAL of cluster \"{}\" is archived\n", report.cluster);
    }
    let mut table = Table::new(&[">TLI", "FIRST", "LAST", "FROM LSN", "TO LSN", ">SEGMENTS", ">STORED", "LAST STORED"]);
    let mut rest = String::new();
    for timeline in &report.timelines {
        for RangeOutput { range, start_lsn, end_lsn } in &timeline.ranges {
            table.row([
                timeline.timeline.to_string(),
                range.first.to_string(),
                range.last.to_string(),
                start_lsn.to_string(),
                end_lsn.to_string(),
                range.segments.to_string(),
                bytes(range.stored_bytes),
                postgresql_time(range.last_stored),
            ]);
        }
        rest += &origin(timeline);
    }
    rest += &gap_lines("GAP", &report.gaps);
    let aside = report
        .aside
        .iter()
        .map(|file| format!("kept aside: \"{file}\" was handed over as \"{}\"\n", file.handed_over()));
    rest.extend(aside);
    let not_wal = report.foreign.iter().map(|object| format!("foreign: object \"{object}\"\n"));
    table.render() + &rest + &not_wal.collect::<String>()
}

fn origin(timeline: &TimelineOutput) -> String {
    let number = timeline.timeline;
    match (timeline.came_from, timeline.history_damaged) {
        (_, Some(why)) => format!("timeline {number}: its history file is DAMAGED: {why}\n"),
        (Some(from), _) => {
            format!("timeline {number} left timeline {} at {}: {}\n", from.timeline, from.switch_lsn, from.reason)
        }
        (None, None) if number.0 > 1 => format!("timeline {number}: its history file is MISSING\n"),
        (None, None) => String::new(),
    }
}
