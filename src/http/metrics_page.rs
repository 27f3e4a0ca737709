//! Metrics, made anew for each scrape of what is in memory.

use std::fmt;

use chrono::{DateTime, Utc};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::app::App;
use super::figures::{Figures, Kept, service};
use super::runbook;
use super::show::Show;

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
pub fn metrics_page(app: &App) -> Result<String, fmt::Error> {
    let seen = app.status.borrow().clone();
    let status = seen.as_ref().map(|seen| &seen.status);
    let (known, upkeep) = (app.known.borrow().clone(), app.upkeep());
    let (jobs, alerts) = (app.jobs.borrow().clone(), app.alerts.borrow().clone());
    let read = known.read.as_ref();
    let read = read.map(|read| (read, app.health(read, status, Utc::now())));
    let figures = Figures {
        cluster: &app.cluster.name.to_string(),
        status,
        kept: read.as_ref().map(|(read, health)| Kept {
            facts: &read.facts,
            windows: &read.windows,
            gaps: &read.gaps,
            read_at: read.at,
            health,
        }),
        is_unreadable: known.failed.is_some(),
        upkeep: &upkeep,
        jobs: &jobs.jobs,
        alerts: (alerts.is_watched && alerts.failed.is_none()).then_some(&*alerts.state),
        has_runbook_names: app.has_runbook_names,
        is_in_bucket: app.is_in_bucket,
    };
    let mut show = figures.show("job");
    if let Some(status) = status {
        service(&mut show, status);
    }
    of_this_process(&mut show, app, known.failures);
    text(&figures, &show)
}

/// As a pushgateway takes them: no figure of the service, which is scraped; and a job is named as it is where it is scraped,
/// since `job` is who pushes.
pub fn pushed(figures: &Figures<'_>, at: DateTime<Utc>) -> Result<String, fmt::Error> {
    let mut show = figures.show("exported_job");
    let help = "When these figures were made that were pushed";
    show.time("pushed", help, Some(at));
    text(figures, &show)
}

fn text(figures: &Figures<'_>, show: &Show) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode_registry(&mut text, &show.0)?;
    if figures.has_runbook_names {
        let mut show = Show(Registry::with_labels(figures.labels()));
        runbook::show(&mut show, figures);
        encode_registry(&mut text, &show.0)?;
    }
    encode_eof(&mut text)?;
    Ok(text)
}

/// What counts since the service started.
fn of_this_process(show: &mut Show, app: &App, failures: u64) {
    let help = "How often the repository could not be read";
    show.count("repository_read_failures", help, failures);
    app.durations.register(&mut show.0);
    show.0.register(
        "http_requests",
        "Requests over HTTP by route and status code",
        app.requests.clone(),
    );
}
