//! `walden retention holds`: what still holds data from before a moment, and when it will be gone.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::exit::wrong_usage;
use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use super::policy;
use crate::api::HeldData;
use crate::postgres::catalog::parse_time;
use crate::postgres::expiry::gather;
use crate::retention::holds;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The moment, such as '2026-01-31 12:00:00+00'.
    #[arg(long, value_name = "TIME")]
    before: String,
}

#[derive(Debug, Serialize)]
struct HoldsOutput {
    before: DateTime<Utc>,
    holds: Vec<HeldData>,
}

/// Prints what holds such data.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let (before, _) = parse_time(&args.before, Utc::now()).map_err(wrong_usage)?;
    let policy = policy(context);
    let cluster = context.cluster().await?;
    let holdings = gather(&cluster, SystemTime::now()).await?.holdings;
    let found = tokio::task::spawn_blocking(move || holds(&holdings, &policy, before)).await?;
    let output = HoldsOutput {
        before,
        holds: found.iter().map(HeldData::from).collect(),
    };
    match context.format {
        Format::Json => print_json(&output)?,
        Format::Table => print_text(&in_words(&output))?,
    }
    Ok(Exit::Success)
}

fn in_words(output: &HoldsOutput) -> String {
    let before = output.before.format("%Y-%m-%d %H:%M:%SZ");
    if output.holds.is_empty() {
        return format!("nothing holds data from before {before}\n");
    }
    let mut table = Table::new(&["WHAT", "BEGAN", ">SIZE", "GONE BY", "KEPT BECAUSE"]);
    for held in &output.holds {
        table.row([
            held.what.clone(),
            held.began.map_or_else(String::new, |began| {
                began.format("%Y-%m-%d %H:%M:%SZ").to_string()
            }),
            bytes(held.bytes),
            held.gone_by
                .map_or("never".into(), |gone| gone.format("%Y-%m-%d").to_string()),
            held.because.clone(),
        ]);
    }
    format!("data from before {before}:\n{}", table.render())
}
