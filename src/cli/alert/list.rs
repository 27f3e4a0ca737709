use std::cmp::Reverse;

use chrono::Utc;

use super::store;
use crate::alerts::state::{Alert, AlertState};
use crate::cli::{Context, Exit, Format, Table, print_json, print_text};
use crate::health::{moment, words};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also what is over, of the last seven days.
    #[arg(long)]
    all: bool,
}

/// Lists what is known.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let (_, state) = store(&cluster).latest().await?;
    print(context, &state, args.all)?;
    Ok(Exit::Success)
}

/// Prints what fires; `all`: also what is over.
pub fn print(context: &Context, state: &AlertState, all: bool) -> anyhow::Result<()> {
    match context.format {
        Format::Json => print_json(&answer(state, all)),
        Format::Table => print_text(&in_words(state, all)),
    }
}

fn chosen(state: &AlertState, all: bool) -> Vec<&Alert> {
    let mut alerts = state.firing();
    let over = state.alerts.values().filter(|alert| all && !alert.fires());
    let mut over: Vec<&Alert> = over.collect();
    over.sort_by_key(|alert| Reverse(alert.resolved_at));
    alerts.extend(over);
    alerts
}

fn answer(state: &AlertState, all: bool) -> serde_json::Value {
    serde_json::json!({
        "alerts": chosen(state, all),
        "channels": state.channels,
        "silences": state.silences,
        "heartbeats": state.heartbeats,
    })
}

fn in_words(state: &AlertState, all: bool) -> String {
    let (now, alerts) = (Utc::now(), chosen(state, all));
    let mut text = String::new();
    if alerts.is_empty() {
        text += "nothing fires\n";
    } else {
        let mut table = Table::new(&["ALERT", "SEVERITY", "STATE", "SINCE", "WHAT"]);
        for alert in alerts {
            let standing = match (alert.resolved_at, state.silence(alert, now), alert.is_told) {
                (Some(_), ..) => "over",
                (None, Some(_), _) => "silent",
                (None, None, true) => "fires",
                (None, None, false) => "not told",
            };
            let since = alert.resolved_at.unwrap_or(alert.since);
            let cells = [
                &*alert.id(),
                alert.severity.name(),
                standing,
                &moment(since),
                &alert.what,
            ];
            table.row(cells.map(str::to_string));
        }
        text += &table.render();
    }
    for alert in state.firing() {
        text += &format!("HINT: {}: {}\n", alert.id(), alert.next);
    }
    for (name, trouble) in &state.channels {
        let (times, since) = (trouble.failures, words(now - trouble.since));
        text += &format!(
            "channel {name}: {times} failures in {since}: {}\n",
            trouble.why
        );
    }
    for (name, silence) in &state.silences {
        let reason = match &*silence.reason {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        text += &format!(
            "silence {name}: until {} by {}{reason}\n",
            moment(silence.until),
            silence.by
        );
    }
    text
}
