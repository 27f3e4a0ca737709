//! `walden status`: what the running service is doing.

use std::fmt::Write;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::exit::print_error;
use super::standing::{Standing, find_out, service};
use super::{Context, Exit, Format, print_json, print_text, push};
use crate::error::one_line;
use crate::health::{Health, HealthReason, Level, Protected, moment};
use crate::plain::counted;
use crate::postgres::index::IndexState;
use crate::service::status::{
    Archiving, Backlog, Failures, Fetching, Http, Indexing, Occurrences, ServiceStatus,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tell how all stands in one line with figures, and exit as Nagios plugins do: 0 good, 1 warning, 2 critical,
    /// 3 unknown. No service needs to run.
    #[arg(long)]
    pub nagios: bool,
    /// Also push the figures to this pushgateway, such as http://127.0.0.1:9091: for cron, where no service is scraped.
    /// No service needs to run. Exit code 9: they could not be pushed.
    #[arg(long, value_name = "URL", conflicts_with = "nagios")]
    pub push_metrics: Option<String>,
}

/// Runs the verb.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let status = match (service(context).await, &args.push_metrics) {
        (Ok(status), _) => Some(status),
        (Err(error), Some(_)) => {
            tracing::debug!("{}", one_line(&error));
            None
        }
        (Err(error), None) => return Err(error),
    };
    let standing = find_out(context, status.as_ref()).await;
    let exit = match &args.push_metrics {
        Some(url) => push(context, url, status.as_ref(), standing.as_ref().ok()).await,
        None => Exit::Success,
    };
    let health = standing.map(|standing| standing.health);
    match context.format {
        Format::Json => print_json(&StatusOutput {
            status: status.as_ref(),
            health: HealthOutput::of(&health),
        })?,
        Format::Table => {
            let service = status.map_or("service    none answers\n".into(), |status| {
                in_words(&status, Utc::now())
            });
            print_text(&(service + &standing_in_words(&health)))?
        }
    }
    Ok(exit)
}

/// Pushes the figures. What goes wrong is told, and stops nothing else.
async fn push(
    context: &Context,
    url: &str,
    status: Option<&ServiceStatus>,
    standing: Option<&Standing>,
) -> Exit {
    match push::run(context, url, status, standing).await {
        Ok(()) if standing.is_some() => Exit::Success,
        Ok(()) => Exit::Failed,
        Err(error) => {
            print_error(&error);
            Exit::NotPushed
        }
    }
}

/// For `--format json`.
#[derive(Serialize)]
struct StatusOutput<'a> {
    /// `None`: no service answers.
    #[serde(flatten)]
    status: Option<&'a ServiceStatus>,
    health: HealthOutput<'a>,
}

/// How it stands.
#[derive(Serialize)]
struct HealthOutput<'a> {
    status: Level,
    #[serde(flatten)]
    protected: Option<Protected>,
    problems: &'a [HealthReason],
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'a str>,
}

impl<'a> HealthOutput<'a> {
    fn of(health: &'a Result<Health, String>) -> Self {
        match health {
            Ok(health) => {
                let (protected, problems) = (health.protected, &health.reasons[..]);
                Self {
                    status: health.level(),
                    protected,
                    problems,
                    failed: None,
                }
            }
            Err(why) => Self {
                status: Level::Unknown,
                protected: None,
                problems: &[],
                failed: Some(why),
            },
        }
    }
}

/// What would be lost, and what is not good.
fn standing_in_words(health: &Result<Health, String>) -> String {
    match health {
        Ok(health) => {
            let until = health
                .protected
                .map(|protected| format!(", restorable to {}", moment(protected.until)));
            let mut text = format!("lost now   {}{}\n", health.loss, until.unwrap_or_default());
            for reason in &health.reasons {
                let _ = writeln!(
                    text,
                    "           {}\n           HINT: {}",
                    reason.what, reason.next
                );
            }
            text
        }
        Err(why) => format!("lost now   not known: {why}\n"),
    }
}

fn in_words(status: &ServiceStatus, now: DateTime<Utc>) -> String {
    let mut text = format!(
        "service    walden {}, pid {}, up {}\n           cluster {} of {}\n",
        status.version,
        status.pid,
        span(now - status.started_at),
        status.cluster,
        status.repository
    );
    text.push_str(&http(status.http.as_ref()));
    archiving(&mut text, &status.archiving, now);
    fetching(&mut text, &status.fetching, now);
    indexing(&mut text, &status.indexing, now);
    text
}

fn http(http: Option<&Http>) -> String {
    match http {
        None => String::new(),
        Some(Http {
            url, failed: None, ..
        }) => format!("http       answered on {url}\n"),
        Some(Http {
            url,
            failed: Some(why),
            ..
        }) => {
            format!("http       not answered on {url}, tried again and again\n           {why}\n")
        }
    }
}

fn archiving(text: &mut String, done: &Archiving, now: DateTime<Utc>) {
    let ahead = match done.ahead {
        0 => String::new(),
        ahead => format!(" ({ahead} of them ahead of being asked)"),
    };
    let _ = writeln!(
        text,
        "archiving  {} stored{ahead}{}",
        done.stored.count,
        last(&done.stored, now)
    );
    for backlog in &done.backlogs {
        let _ = writeln!(text, "           {}", waiting(backlog, done, now));
    }
    failures(text, "failed", &done.failed, now);
    failures(text, "of another server, refused", &done.refused, now);
    if done.aside.count > 0 {
        let (count, last) = (done.aside.count, last(&done.aside, now));
        let _ = writeln!(
            text,
            "           {count} kept aside{last}; see `walden wal list`"
        );
    }
    failures(
        text,
        "with records that break off, stored as they are",
        &done.broken,
        now,
    );
    if done.resting {
        text.push_str("           storing ahead pauses, since the last file could not be stored\n");
    }
}

fn fetching(text: &mut String, done: &Fetching, now: DateTime<Utc>) {
    let ready = match done.ahead {
        0 => String::new(),
        ahead => format!(" ({ahead} lay ready)"),
    };
    let absent = match done.absent.count {
        0 => String::new(),
        count => format!(", {count} proven absent"),
    };
    let _ = writeln!(
        text,
        "fetching   {} delivered{ready}{absent}{}",
        done.delivered.count,
        last(&done.delivered, now)
    );
    failures(text, "failed", &done.failed, now);
}

fn indexing(text: &mut String, done: &Indexing, now: DateTime<Utc>) {
    let state = &done.state;
    let looked = match done.looked_at {
        Some(at) => format!(", last looked into the repository {} ago", span(now - at)),
        None => ", the first poll of the repository is not over".to_string(),
    };
    let _ = writeln!(
        text,
        "index      {}{looked}",
        counted(state.segments - state.not_indexed, "segment")
    );
    let left = [
        (state.not_indexed - state.unreadable, "not indexed yet"),
        (state.unreadable, "cannot be read"),
    ];
    for (segments, what) in left.into_iter().filter(|(segments, _)| *segments > 0) {
        let _ = writeln!(text, "           {segments} {what}");
    }
    positions(text, state);
    failures(text, "failed", &done.failed, now);
    if let Some(at) = done.names_read_at {
        let _ = writeln!(
            text,
            "names      {} recorded, last read {} ago",
            done.names,
            span(now - at)
        );
    }
    failures(
        text,
        "attempts to read names failed",
        &done.names_failed,
        now,
    );
    if done.idle.count > 0 {
        let _ = writeln!(
            text,
            "idle       {} stored{}",
            counted(done.idle.count, "marker"),
            last(&done.idle, now)
        );
    }
    failures(
        text,
        "attempts to note that the server is idle failed",
        &done.idle_failed,
        now,
    );
}

fn positions(text: &mut String, state: &IndexState) {
    if let Some(first) = &state.first_unreadable {
        let why = first.why.replace('\n', "\n           ");
        let _ = writeln!(
            text,
            "           the first of them {}: {why}",
            first.segment
        );
    }
    for position in &state.positions {
        let up_to = position
            .indexed
            .map_or("nothing".to_string(), |indexed| format!("up to {indexed}"));
        let behind = if position.indexed == Some(position.archived) {
            ""
        } else {
            ", behind the archive"
        };
        let _ = writeln!(
            text,
            "           timeline {}: {up_to}{behind}",
            position.timeline
        );
    }
}

fn waiting(backlog: &Backlog, done: &Archiving, now: DateTime<Utc>) -> String {
    let place = backlog.pg_wal.display();
    if let Some(why) = &backlog.failed {
        return format!("what waits in {place} is not known: {why}");
    }
    let Some(oldest) = backlog.oldest_since else {
        return format!("nothing waits in {place}");
    };
    let stored = match backlog.stored {
        0 => String::new(),
        stored => format!(" ({stored} of them stored already)"),
    };
    let eta = match backlog.eta_seconds {
        Some(seconds) => format!(
            "about {} to go",
            span(TimeDelta::milliseconds((seconds * 1000.0) as i64))
        ),
        None if done.resting => "the last one could not be stored".to_string(),
        None => "nothing was stored in the last minute".to_string(),
    };
    format!(
        "{} waiting{stored} in {place}, the oldest for {}; {eta}",
        backlog.files,
        span(now - oldest)
    )
}

fn failures(text: &mut String, what: &str, failed: &Failures, now: DateTime<Utc>) {
    if failed.count.count > 0 {
        let why = failed
            .why
            .as_deref()
            .unwrap_or_default()
            .replace('\n', "\n           ");
        let last = last(&failed.count, now);
        let _ = writeln!(
            text,
            "           {} {what}{last}\n           {why}",
            failed.count.count
        );
    }
}

fn last(count: &Occurrences, now: DateTime<Utc>) -> String {
    match (&count.last, count.last_at) {
        (Some(name), Some(at)) => format!(", last {name} {} ago", span(now - at)),
        _ => String::new(),
    }
}

/// A span of time with its two largest units.
fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
