//! `walden retention plan`: what stays and what goes, and why. Deletes nothing.

use std::time::SystemTime;

use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use super::policy;
use crate::api::RetentionPlan;
use crate::plain::counted;
use crate::postgres::expiry::apply::Decision;

/// Prints the plan. Exit code 3 when somebody should look at something first.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let policy = policy(context);
    let cluster = context.cluster().await?;
    let decision = Decision::make(&cluster, &policy, SystemTime::now()).await?;
    let plan = RetentionPlan::from(&decision.plan);
    match context.format {
        Format::Json => print_json(&plan)?,
        Format::Table => print_text(&in_words(&plan))?,
    }
    Ok(match plan.warnings.is_empty() {
        true => Exit::Success,
        false => Exit::Unsound,
    })
}

fn verdict(keep: bool) -> String {
    if keep { "keep" } else { "DELETE" }.to_string()
}

fn in_words(plan: &RetentionPlan) -> String {
    let mut items = Table::new(&["ITEM", "TIME", ">SIZE", "VERDICT", "BECAUSE"]);
    for item in &plan.items {
        let time = item.time.format("%Y-%m-%d %H:%M:%SZ").to_string();
        items.row([
            item.item.clone(),
            time,
            bytes(item.bytes),
            verdict(item.keep),
            item.because.clone(),
        ]);
    }
    let mut wal = Table::new(&["WAL FROM", "TO", ">SEGMENTS", ">SIZE", "VERDICT", "BECAUSE"]);
    for span in &plan.wal {
        wal.row([
            span.first.clone(),
            span.last.clone(),
            span.segments.to_string(),
            bytes(span.bytes),
            verdict(span.keep),
            span.because.clone(),
        ]);
    }
    let mut text = items.render() + "\n" + &wal.render() + "\n";
    for warning in &plan.warnings {
        text += &format!("WARNING: {warning}\n");
    }
    text + &summary(plan)
}

fn summary(plan: &RetentionPlan) -> String {
    if !plan.deletes {
        return "nothing goes\n".into();
    }
    let items: Vec<_> = plan.items.iter().filter(|item| !item.keep).collect();
    let wal: Vec<_> = plan.wal.iter().filter(|wal| !wal.keep).collect();
    let stored = items.iter().map(|item| item.bytes).sum::<u64>()
        + wal.iter().map(|wal| wal.bytes).sum::<u64>();
    let segments = wal.iter().map(|wal| wal.segments).sum();
    format!(
        "{} and {} go, {}: walden retention apply --plan {}\n",
        counted(items.len() as u64, "item"),
        counted(segments, "WAL segment"),
        bytes(stored),
        plan.digest
    )
}
