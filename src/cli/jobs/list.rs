use serde::Serialize;

use super::super::{Context, Exit, Format, Table, print_json, print_text};
use super::{runs_of, statuses};
use crate::health::{moment, words};
use crate::jobs::record::{RunRecord, RunState};
use crate::jobs::status::JobStatus;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the last runs instead, so many at most.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,
}

#[derive(Debug, Serialize)]
struct JobsOutput {
    jobs: Vec<JobStatus>,
}

/// Lists jobs or runs.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    if let Some(most) = args.runs {
        let runs = runs_of(&context.settings, &cluster);
        let records = runs.history.newest(most as usize).await?;
        match context.format {
            Format::Json => print_json(&records)?,
            Format::Table => print_text(&runs_in_words(&records))?,
        }
        return Ok(Exit::Success);
    }
    let jobs = statuses(&context.settings, &cluster).await?;
    match context.format {
        Format::Json => print_json(&JobsOutput { jobs })?,
        Format::Table => print_text(&in_words(&jobs))?,
    }
    Ok(Exit::Success)
}

fn in_words(jobs: &[JobStatus]) -> String {
    let mut table = Table::new(&[
        "JOB",
        "CRON",
        "NEXT RUN",
        "LAST RUN",
        "STATE",
        ">FAILED IN A ROW",
    ]);
    for job in jobs {
        let last = job.last.as_ref();
        let (began, state) = match &job.running {
            Some(running) => (
                moment(running.started_at),
                format!("running {} on {}", running.id, running.host),
            ),
            None => (
                last.map_or("never".into(), |last| moment(last.started_at)),
                last.map_or(String::new(), |last| last.state.to_string()),
            ),
        };
        table.row([
            job.job.clone(),
            job.cron.clone().unwrap_or_else(|| "not scheduled".into()),
            job.next.map_or(String::new(), moment),
            began,
            state,
            job.failures_in_a_row.to_string(),
        ]);
    }
    let mut text = table.render();
    let failed = jobs.iter().filter(|job| job.failures_in_a_row > 0);
    for (job, last) in failed.filter_map(|job| Some((job, job.last.as_ref()?))) {
        let why = last.why.as_deref().unwrap_or("why is not known");
        text += &format!("{}: {}: {}\n", job.job, last.state, why);
    }
    text
}

fn runs_in_words(records: &[RunRecord]) -> String {
    if records.is_empty() {
        return "no run has ended yet\n".into();
    }
    let mut table = Table::new(&["RUN", "JOB", "STATE", "BEGAN", "TOOK", "WHY"]);
    for record in records {
        let why = record.why.as_deref().unwrap_or_default();
        table.row([
            record.id.to_string(),
            record.job.clone(),
            record.state.to_string(),
            moment(record.started_at),
            // A runner that died told no time.
            match record.state {
                RunState::Interrupted => String::new(),
                _ => words(record.ended_at - record.started_at),
            },
            why.lines().next().unwrap_or_default().to_string(),
        ]);
    }
    table.render()
}
