//! `walden find`: what happened, when, and how to restore to just before it.

use serde::Serialize;

use super::planning::Planning;
use super::{Context, Exit, Format, Table, print_json, print_text};
use crate::postgres::catalog::{EventKind, Filter, FoundEvent, parse_time};
use crate::postgres::index::FoundEvents;
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

/// An event with the command that restores to just before it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    event: &'a FoundEvent,
    restore: String,
}

/// For `--format json`.
#[derive(Serialize)]
struct Report<'a> {
    events: Vec<Shown<'a>>,
    /// There are older ones than `--limit` lets through.
    more: bool,
    /// WAL segments of that time with more events than their summaries have room for.
    incomplete_segments: u64,
}

/// Runs the verb.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let moment = |text: &Option<String>| -> anyhow::Result<Option<Timestamp>> {
        Ok(text.as_deref().map(parse_time).transpose()?.map(|(time, _)| time.into()))
    };
    let filter = Filter {
        relation: args.relation.clone(),
        kinds: args.kind.clone(),
        min_rows: args.min_rows,
        since: moment(&args.since)?,
        until: moment(&args.until)?,
        all: args.all,
        latest: Some(args.limit),
    };
    let planning = Planning::open(context, true).await?;
    planning.update_index().await?;
    let index = planning.index.clone();
    let found = tokio::task::spawn_blocking(move || index.map(|index| index.events(&filter)).transpose()).await??;
    let found = found.unwrap_or_default();
    match context.format {
        Format::Json => {
            let shown = |event| Shown { event, restore: command(event) };
            let events = found.events.iter().map(shown).collect();
            let FoundEvents { more, incomplete_segments, .. } = found;
            print_json(&Report { events, more, incomplete_segments })?;
        }
        Format::Table => print_text(&in_words(&found, args.limit))?,
    }
    Ok(Exit::Success)
}

/// How to restore to just before an event.
fn command(event: &FoundEvent) -> String {
    format!("walden restore --before {} --to-dir DIR", event.id)
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
            event.rows.map(|rows| format!("{at_least}{rows}")).unwrap_or_default(),
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
        text += &format!("these are the latest {limit}; for others use --limit, --since or --until\n");
    }
    if let segments @ 1.. = found.incomplete_segments {
        text += &format!(
            "{segments} WAL segments of that time have more events than are indexed: more may have happened\n"
        );
    }
    match found.events.last() {
        Some(last) => text + &format!("to restore to just before one, such as the last: {}\n", command(last)),
        None => format!("no matching event in the archived WAL\n{text}"),
    }
}

/// Whether it may have been something else, or nothing.
fn is_guess(event: &FoundEvent) -> bool {
    !event.exact && event.rows.is_none()
}
