use std::collections::BTreeSet;

use serde::Serialize;

use super::super::{Context, Exit, Format, Table, bytes, gap_lines, print_json, print_text};
use crate::api::{History, Timeline, Timelines, Wal};
use crate::postgres::catalog::{Gap, TimelinePath, WalRange, postgresql_time};
use crate::postgres::load::{load_histories, load_wal};
use crate::postgres::object_problem::ProblemKind;
use crate::postgres::types::{SegmentName, TimelineId, WalFileName};

/// All archived WAL, for `--format json`.
#[derive(Serialize)]
struct WalListOutput<'a> {
    #[serde(flatten)]
    wal: Wal,
    #[serde(flatten)]
    timelines: Timelines,
    partials: &'a [SegmentName],
    /// Kept beside names that have other content.
    aside: &'a [WalFileName],
    /// Objects that are no WAL file's.
    foreign: &'a [String],
}

/// Lists archived WAL.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let wal = load_wal(&cluster).await?;
    let histories = load_histories(&cluster, &wal.histories).await?;
    let paths = TimelinePath::all(histories.known.values().cloned(), &[], &wal.ranges);
    let gaps = TimelinePath::all_gaps(&paths, &wal.ranges);
    let timelines: BTreeSet<TimelineId> = wal
        .ranges
        .iter()
        .map(WalRange::timeline)
        .chain(wal.histories.iter().copied())
        .collect();
    let report = WalListOutput {
        wal: Wal::of(&wal.ranges, &gaps),
        timelines: Timelines::of(timelines, &histories.known, &histories.damaged),
        partials: &wal.partials,
        aside: &wal.aside,
        foreign: &wal.foreign,
    };
    match context.format {
        Format::Json => print_json(&report)?,
        Format::Table if report.timelines.timelines.is_empty() => {
            print_text(&format!(
                "no WAL of cluster \"{}\" is archived\n",
                cluster.description.name
            ))?;
        }
        Format::Table => print_text(&in_words(&report, &gaps))?,
    }
    Ok(Exit::Success)
}

fn in_words(report: &WalListOutput, gaps: &[Gap]) -> String {
    let mut table = Table::new(&[
        ">TLI",
        "FIRST",
        "LAST",
        "FROM LSN",
        "TO LSN",
        ">SEGMENTS",
        ">STORED",
        "LAST STORED",
    ]);
    for range in &report.wal.ranges {
        table.row([
            range.timeline.to_string(),
            range.first.to_string(),
            range.last.to_string(),
            range.start_lsn.to_string(),
            range.end_lsn.to_string(),
            range.segments.to_string(),
            bytes(range.stored_bytes),
            postgresql_time(range.last_stored),
        ]);
    }
    let mut rest: String = report.timelines.timelines.iter().map(origin).collect();
    rest += &gap_lines("GAP", gaps);
    let aside = report.aside.iter().map(|file| {
        format!(
            "kept aside: \"{file}\" was handed over as \"{}\"\n",
            file.handed_over()
        )
    });
    rest.extend(aside);
    let not_wal = report
        .foreign
        .iter()
        .map(|object| format!("foreign: object \"{object}\"\n"));
    table.render() + &rest + &not_wal.collect::<String>()
}

fn origin(timeline: &Timeline) -> String {
    let number = timeline.timeline;
    match (&timeline.parent, &timeline.damage) {
        (_, Some(why)) => {
            let problem = match timeline.history {
                History::Newer => ProblemKind::Newer,
                _ => ProblemKind::Damaged,
            };
            format!("timeline {number}: its history file is {problem}: {why}\n")
        }
        (Some(from), _) => {
            format!(
                "timeline {number} left timeline {} at {}: {}\n",
                from.timeline, from.switch_lsn, from.reason
            )
        }
        (None, None) if number.0 > 1 => format!("timeline {number}: its history file is MISSING\n"),
        (None, None) => String::new(),
    }
}
