use chrono::{DateTime, Utc};
use serde::Serialize;

use super::super::exit::print_error;
use super::super::jobs::kinds::{jobs, runnable};
use super::super::{Context, Exit, Format, Table, print_json, print_text};
use super::NOTHING_SCHEDULED;
use crate::health::moment;
use crate::jobs::Job;
use crate::jobs::schedule::Schedule;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many runs.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Show the runs from this moment on (RFC 3339); else from now on.
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
}

/// A coming run.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ComingRun {
    job: &'static str,
    /// When it begins.
    begins: DateTime<Utc>,
    /// The moment of the expression, which the jitter puts off, in the schedule's zone.
    scheduled: String,
    cron: String,
    time_zone: String,
}

/// Shows the coming runs.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let jobs = jobs(&context.settings);
    let runs = coming(
        &jobs,
        args.from.unwrap_or_else(Utc::now),
        args.count as usize,
    );
    match context.format {
        Format::Json => print_json(&runs)?,
        Format::Table => print_text(&in_words(&runs))?,
    }
    // What will fail is told before it does.
    let scheduled = jobs.iter().filter(|job| job.schedule.is_some());
    for error in scheduled.filter_map(|job| runnable(job).err()) {
        print_error(&error);
    }
    Ok(Exit::Success)
}

fn coming(jobs: &[Job], from: DateTime<Utc>, most: usize) -> Vec<ComingRun> {
    let mut runs = Vec::new();
    for job in jobs {
        let Some(schedule) = &job.schedule else {
            continue;
        };
        let first = schedule.next_begin(from);
        let next = |moment: &DateTime<Utc>| schedule.next_after(*moment);
        let moments = std::iter::successors(first, next).take(most);
        runs.extend(moments.map(|moment| coming_run(job.name, schedule, moment)));
    }
    runs.sort_by_key(|run| run.begins);
    runs.truncate(most);
    runs
}

fn coming_run(job: &'static str, schedule: &Schedule, moment: DateTime<Utc>) -> ComingRun {
    let wall = moment.with_timezone(&schedule.zone().0);
    ComingRun {
        job,
        begins: schedule.begin_of(moment),
        scheduled: wall.format("%Y-%m-%d %H:%M %:z").to_string(),
        cron: schedule.cron().to_string(),
        time_zone: schedule.zone().to_string(),
    }
}

fn in_words(runs: &[ComingRun]) -> String {
    if runs.is_empty() {
        return format!("nothing is scheduled\nHINT: {NOTHING_SCHEDULED}\n");
    }
    let mut table = Table::new(&["JOB", "SCHEDULED", "ZONE", "BEGINS", "CRON"]);
    for run in runs {
        table.row([
            run.job.into(),
            run.scheduled.clone(),
            run.time_zone.clone(),
            moment(run.begins),
            run.cron.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::defaults;

    #[test]
    fn coming_runs_of_all_jobs_stand_in_order() {
        let mut settings = defaults();
        settings.schedule.time_zone = "Europe/Berlin".parse().unwrap();
        settings.schedule.backup = "30 2 * * 0".parse().ok();
        settings.schedule.verify = "0 1 * * *".parse().ok();
        let runs = coming(&jobs(&settings), "2027-03-27T12:00:00Z".parse().unwrap(), 3);
        let shown: Vec<(&str, &str)> = runs
            .iter()
            .map(|run| (run.job, run.scheduled.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("verify", "2027-03-28 01:00 +01:00"),
                ("backup", "2027-03-28 03:00 +02:00"),
                ("verify", "2027-03-29 01:00 +02:00"),
            ]
        );
        let text = in_words(&runs);
        assert!(
            text.starts_with("JOB     SCHEDULED") && text.contains("Europe/Berlin"),
            "{text}"
        );
        assert!(in_words(&[]).contains("HINT"));
    }

    #[test]
    fn a_run_that_is_put_off_is_coming_until_it_begins() {
        let mut settings = defaults();
        settings.schedule.jitter = std::time::Duration::from_secs(3600);
        settings.schedule.backup = "0 2 * * *".parse().ok();
        let at = |from: DateTime<Utc>| coming(&jobs(&settings), from, 1).remove(0);
        let run = at("2026-11-30T01:00:00Z".parse().unwrap());
        assert!(run.begins > "2026-11-30T02:00:00Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(at(run.begins - chrono::TimeDelta::seconds(1)), run);
        assert!(at(run.begins).begins > run.begins, "it has begun");
    }
}
