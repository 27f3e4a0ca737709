//! `walden find`: what happened, when, and how to restore to just before it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::exit::wrong_usage;
use super::planning;
use super::restore::target::moment;
use super::{Context, Exit, Format, Table, print_json, print_text};
use crate::api::Events;
use crate::plain::counted;
use crate::postgres::catalog::{EventKind, Filter, FoundEvent};
use crate::postgres::index::{FoundEvents, Index, IndexState, on_index};
use crate::postgres::wal::Timestamp;

/// Arguments of `walden find`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this relation: NAME or SCHEMA.NAME, with * and ? as in a shell.
    #[arg(long, value_name = "NAME")]
    relation: Option<String>,
    /// Only of this kind: drop, truncate, rewrite, delete, update, restore-point, database-drop, database-create or
    /// timeline. May be repeated, or a list with commas.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    kind: Vec<EventKind>,
    /// Only deletes and updates of at least N rows; 10 if not given, with --all 1. Smaller ones are known of WAL segments
    /// that have few of them.
    #[arg(long, value_name = "N")]
    min_rows: Option<u64>,
    /// Not before this moment; in the form of `walden restore --time`.
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Not after this moment.
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Show at most N events, the latest.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Also events that lose no data, such as rewrites, and those of indexes and system catalogs.
    #[arg(long)]
    all: bool,
}

/// For `--format json`.
#[derive(Serialize)]
struct FindOutput {
    #[serde(flatten)]
    events: Events,
    /// The moments as they were understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<DateTime<Utc>>,
}

/// Runs the verb.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let moment = |text: &Option<String>| {
        text.as_deref()
            .map(|text| moment(text, chrono::Utc::now()))
            .transpose()
            .map_err(wrong_usage)
    };
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    let filter = Filter {
        relation: args.relation.clone(),
        kinds: args.kind.clone(),
        min_rows: args.min_rows,
        since: since.map(Timestamp::from),
        until: until.map(Timestamp::from),
        all: args.all,
        latest: Some(args.limit),
    };
    let planner = planning::open(context, true).await?;
    let search = async |index: &Arc<Index>| {
        let filter = filter.clone();
        on_index(index, move |index| index.events(&filter)).await
    };
    let found = planner.ask_index(search).await?.unwrap_or_default();
    if let Some(missing) = missing(&found.state) {
        tracing::warn!("{missing}");
    }
    match context.format {
        Format::Json => print_json(&FindOutput {
            events: Events::of(&found, None),
            since,
            until,
        })?,
        Format::Table => print_text(&in_words(&found, args.limit))?,
    }
    Ok(Exit::Success)
}

/// What may be missing among the events.
fn missing(state: &IndexState) -> Option<String> {
    let IndexState {
        whole,
        segments,
        not_indexed,
        unreadable,
        first_unreadable,
        ..
    } = state;
    if !whole {
        let what = "the archived WAL is being listed anew by another process: what happened in the rest is not shown";
        return Some(format!("{what}\nHINT: try again"));
    }
    let told = (*not_indexed > 0).then(|| {
        format!(
            "{not_indexed} of {} could not be searched: what happened in them is not shown",
            counted(*segments, "WAL segment")
        )
    });
    let why = first_unreadable.as_ref().map(|first| {
        format!(
            "; {unreadable} cannot be read, the first one {}: {}\nHINT: run `walden repo verify`, and repair \
             the repository from a copy",
            first.segment, first.why
        )
    });
    told.map(|told| told + &why.unwrap_or_default())
}

fn in_words(found: &FoundEvents, limit: usize) -> String {
    let mut text = String::new();
    let mut table = Table::new(&["time", "kind", "of", "database", ">rows", ">xid", "event"]);
    for event in &found.events {
        let at_least = if event.exact { "" } else { "≥ " };
        let guess = if is_guess(event) { "?" } else { "" };
        table.row([
            event.time.to_string(),
            format!("{}{guess}", event.kind),
            event.subject(),
            event.database.clone().unwrap_or_default(),
            event
                .rows
                .map(|rows| format!("{at_least}{rows}"))
                .unwrap_or_default(),
            event.xid.map(|xid| xid.to_string()).unwrap_or_default(),
            event.id.to_string(),
        ]);
    }
    if !found.events.is_empty() {
        text += &table.render();
    }
    if found.events.iter().any(is_guess) {
        text += "?: what is known of the WAL does not tell for sure that it was this\n";
    }
    if found.more {
        text +=
            &format!("these are the latest {limit}; for others use --limit, --since or --until\n");
    }
    if let segments @ 1.. = found.overfull_segments {
        text += &format!(
            "{} of that time had more events than are indexed: more may have happened\n",
            counted(segments, "WAL segment")
        );
    }
    let lost = found.events.iter().rfind(|event| event.lost_data());
    match found.events.last() {
        Some(_) => match lost {
            Some(lost) => {
                text + &format!(
                    "to restore to just before {}: {}\n",
                    lost.words(),
                    lost.undo()
                )
            }
            None => text,
        },
        None if found.state.is_complete() => {
            format!("no matching event in the archived WAL\n{text}")
        }
        None => {
            let IndexState {
                segments,
                not_indexed,
                ..
            } = found.state;
            let searched = segments - not_indexed;
            format!(
                "no matching event in what was searched, {searched} of {}\n{text}",
                counted(segments, "WAL segment")
            )
        }
    }
}

/// Whether it may have been something else, or nothing.
fn is_guess(event: &FoundEvent) -> bool {
    !event.exact && event.rows.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::EventId;
    use crate::postgres::index::UnreadableSegment;

    fn event(kind: EventKind, rows: Option<u64>, exact: bool) -> FoundEvent {
        let id: EventId = format!("1-0-3000158-{}16384", kind.row().letter)
            .parse()
            .unwrap();
        FoundEvent {
            id,
            kind,
            cluster: "main".parse().unwrap(),
            timeline: id.timeline,
            lsn: id.lsn,
            end_lsn: None,
            commit_lsn: None,
            xid: Some(745),
            time: Timestamp(0),
            database: None,
            database_oid: Some(5),
            relation: Some("public.orders".into()),
            relkind: Some('r'),
            oid: Some(16384),
            file: None,
            rows,
            name: None,
            exact,
            minor: false,
        }
    }

    fn found(events: Vec<FoundEvent>) -> FoundEvents {
        let state = IndexState {
            whole: true,
            segments: 7,
            ..IndexState::default()
        };
        FoundEvents {
            events,
            more: false,
            overfull_segments: 0,
            state,
        }
    }

    const LEGEND: &str = "?: what is known of the WAL does not tell for sure";

    #[test]
    fn each_event_is_marked_by_how_sure_it_is() {
        for (kind, rows, exact, marked, legend) in [
            (
                EventKind::Delete,
                Some(20),
                true,
                "delete  public.orders  20",
                false,
            ),
            (
                EventKind::Delete,
                Some(20),
                false,
                "delete  public.orders  ≥ 20",
                false,
            ),
            (
                EventKind::Drop,
                None,
                true,
                "drop  public.orders  745",
                false,
            ),
            (
                EventKind::Drop,
                None,
                false,
                "drop?  public.orders  745",
                true,
            ),
        ] {
            let text = in_words(&found(vec![event(kind, rows, exact)]), 100);
            let line = text.lines().nth(1).unwrap();
            let squeezed = line
                .split("  ")
                .filter(|part| !part.is_empty())
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("  ");
            assert!(
                squeezed.contains(&format!("  {marked}")),
                "{squeezed:?} {marked:?}"
            );
            assert_eq!(text.contains(LEGEND), legend, "{text}");
            assert!(
                !text.contains("latest") && !text.contains("more may have happened"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_may_be_missing_is_told_below() {
        let all = found(vec![event(EventKind::Drop, None, true)]);
        let told = |found: &FoundEvents| in_words(found, 100);
        assert!(
            told(&FoundEvents {
                more: true,
                ..found(all.events.clone())
            })
            .contains("these are the latest 100;")
        );
        let overfull = FoundEvents {
            overfull_segments: 3,
            ..found(Vec::new())
        };
        let text = told(&overfull);
        assert!(
            text.starts_with("no matching event in the archived WAL\n3 WAL segments of that time"),
            "{text}"
        );
        let partly = IndexState {
            not_indexed: 2,
            ..all.state.clone()
        };
        let text = told(&FoundEvents {
            state: partly.clone(),
            ..found(Vec::new())
        });
        assert_eq!(
            text,
            "no matching event in what was searched, 5 of 7 WAL segments\n"
        );
        assert_eq!(missing(&all.state), None);
        assert!(
            missing(&partly)
                .unwrap()
                .starts_with("2 of 7 WAL segments could not be searched")
        );
        let why = UnreadableSegment {
            segment: "000000010000000000000002".parse().unwrap(),
            why: "it is cut off".into(),
        };
        let unreadable = IndexState {
            unreadable: 1,
            first_unreadable: Some(why),
            ..partly
        };
        let text = missing(&unreadable).unwrap();
        assert!(
            text.contains(
                "1 cannot be read, the first one 000000010000000000000002: it is cut off\nHINT:"
            ),
            "{text}"
        );
        assert!(
            missing(&IndexState {
                whole: false,
                ..all.state
            })
            .unwrap()
            .contains("listed anew by another process")
        );
    }
}
