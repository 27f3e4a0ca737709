//! `walden target`: the plan of a restore, or what can be restored at all.

use serde::Serialize;

use super::planning;
use super::restore::render;
use super::restore::target::{self, MEANINGS, TargetArgs};
use super::{Context, Exit, Format, Table, print_json, print_text};
use crate::api::Restorable;
use crate::health::{Health, HealthReason, Level, Subject};
use crate::plain::plain;
use crate::postgres::catalog::{
    UnknownTimeline, WindowEdge, Windows, missing_wal, postgresql_time, unused_backups, windows,
};
use crate::postgres::planning::FreshPlanner;

/// Arguments of `walden target`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Without a target: what can be restored. {MEANINGS}"))]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
}

/// For `--format json`.
#[derive(Serialize)]
struct TargetOutput<'a> {
    #[serde(flatten)]
    restorable: Restorable,
    /// What is not good, the worst first.
    problems: &'a [HealthReason],
}

/// Runs the verb. Exit code 4 when the target cannot be reached exactly.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let asked = args.target.asked()?;
    let needs_index = !args.target.names_one() || asked.needs_index();
    let planner = planning::open(context, needs_index).await?;
    if !args.target.names_one() {
        return list(context, &planner).await;
    }
    let request = target::request(asked, &planner).await?;
    match planner.decide(&request).await? {
        Ok(plan) => {
            let settings = plan.settings.clone();
            render::dry_run(context.format, &plan, (None, &[]), &settings)
        }
        Err(unreachable) => render::refusal(context.format, &unreachable, &|arguments| {
            format!("walden restore {arguments}")
        }),
    }
}

async fn list(context: &Context, planner: &FreshPlanner) -> anyhow::Result<Exit> {
    let (facts, index) = (planner.facts().await?, planner.wal_index());
    let unused = unused_backups(&facts);
    let limits = context.settings.health.clone();
    let derive = move || {
        let told = windows(&facts, &*index);
        let health = Health::of(
            &facts,
            &told,
            &missing_wal(&facts),
            &limits,
            chrono::Utc::now(),
        );
        (told, health)
    };
    let (told, health) = tokio::task::spawn_blocking(derive).await?;
    match context.format {
        Format::Json => print_json(&TargetOutput {
            restorable: (&told).into(),
            problems: &health.reasons,
        })?,
        Format::Table => print_text(&(in_words(&told, &unused) + &problems(&told, &health)))?,
    }
    Ok(Exit::Success)
}

/// What keeps WAL that is archived from being restored, and backups from being used. What the windows tell is not said
/// again.
fn problems(told: &Windows, health: &Health) -> String {
    let is_told = |reason: &&HealthReason| match reason.about {
        Subject::Rpo
        | Subject::Dump
        | Subject::Jobs
        | Subject::Proof
        | Subject::Space
        | Subject::Certificate => false,
        Subject::Backup => !told.windows.is_empty(),
        Subject::Recovery => reason.level == Level::Critical && told.unknown.is_empty(),
    };
    let line =
        |reason: &HealthReason| format!("{}\nHINT: {}\n", plain(&reason.what), plain(&reason.next));
    health.reasons.iter().filter(is_told).map(line).collect()
}

fn in_words(told: &Windows, unused_backups: &[String]) -> String {
    let unknown = |UnknownTimeline { timeline, why }: &UnknownTimeline| {
        let next = format!("`walden target --timeline {timeline} --latest` says what to do");
        format!("NOT KNOWN what can be restored on timeline {timeline}: {why}; {next}\n")
    };
    let unknown: String = told.unknown.iter().map(unknown).collect();
    if told.windows.is_empty() {
        let unused: String = unused_backups
            .iter()
            .map(|why| format!("{why}\n"))
            .collect();
        let nothing = "nothing can be restored: there is no usable base backup with its WAL";
        return format!("{nothing}\n{unknown}{unused}");
    }
    let mut table = Table::new(&[
        ">timeline",
        "from",
        "from LSN",
        "to",
        "to LSN",
        "first backup",
    ]);
    let known = |time: Option<_>| time.map_or_else(|| "not known".to_string(), postgresql_time);
    let time = |edge: WindowEdge| known(edge.time);
    for window in &told.windows {
        table.row([
            window.timeline.to_string(),
            time(window.from),
            window.from.lsn.to_string(),
            known(window.to.time.and(window.until())),
            window.to.lsn.to_string(),
            window.backup.to_string(),
        ]);
    }
    let gap = |gap: &crate::postgres::catalog::Unrestorable| {
        let lasts = gap
            .seconds
            .map(|seconds| format!(", {:.1} min", seconds / 60.0))
            .unwrap_or_default();
        let (timeline, from, to) = (gap.timeline, time(gap.from), time(gap.to));
        format!("CANNOT BE RESTORED on timeline {timeline}: from {from} to {to}{lasts}\n")
    };
    let others: String = told
        .other_timelines
        .iter()
        .map(|other| format!("{other}\n"))
        .collect();
    table.render() + &others + &told.gaps.iter().map(gap).collect::<String>() + &unknown
}
