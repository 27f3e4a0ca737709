//! Metrics for a pushgateway, where nobody scrapes a service.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use chrono::Utc;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use tokio::time::timeout;

use super::Context;
use super::jobs::statuses;
use super::standing::Standing;
use crate::alerts::send_request;
use crate::error::{Hint, one_line};
use crate::health::Upkeep;
use crate::http::{Figures, Kept, pushed};
use crate::http_client::with_bearer;
use crate::postgres::layout::ClusterName;
use crate::service::status::ServiceStatus;

/// For the request, and for asking how the jobs stand.
const PATIENCE: Duration = Duration::from_secs(10);
/// The text form that pushgateways take.
const TEXT: &str = "text/plain; version=0.0.4";
const HINT: &str = "does a pushgateway answer there? Name it as http://host:9091";

/// Pushes what is known, in place of what was pushed before. `standing`: `None`, the repository could not be read.
pub async fn run(
    context: &Context,
    url: &str,
    status: Option<&ServiceStatus>,
    standing: Option<&Standing>,
) -> anyhow::Result<()> {
    let settings = &context.settings;
    // It has no character that a path does not.
    let cluster: ClusterName = settings.cluster.name.parse()?;
    let path = format!("/metrics/job/walden/cluster/{cluster}");
    let url = format!("{}{path}", url.trim().trim_end_matches('/'));
    let request = Request::put("/").header(CONTENT_TYPE, TEXT);
    let request = request.body(figures(context, status, standing).await?)?;
    let token_file = settings.metrics.push_token_file.as_deref();
    let request = with_bearer(request, token_file, "metrics.push_token_file")?;
    let ca_file = settings.metrics.push_ca_file.as_deref();
    let sent = timeout(PATIENCE, send_request(request, &url, ca_file)).await;
    let slow = |_| Err(anyhow!("no answer came within {} s", PATIENCE.as_secs()));
    sent.unwrap_or_else(slow)
        .context("the metrics cannot be pushed")
        .hint(HINT)
}

async fn figures(
    context: &Context,
    status: Option<&ServiceStatus>,
    standing: Option<&Standing>,
) -> anyhow::Result<String> {
    let (settings, now) = (&context.settings, Utc::now());
    let jobs = match standing {
        Some(standing) => {
            let asked = timeout(PATIENCE, statuses(settings, &standing.cluster)).await;
            let slow = |_| Err(anyhow!("no answer came within {} s", PATIENCE.as_secs()));
            let told = asked.unwrap_or_else(slow);
            told.inspect_err(|error| tracing::debug!("how the jobs stand: {}", one_line(error)))
                .unwrap_or_default()
        }
        None => Vec::new(),
    };
    let nothing = Upkeep::default();
    let figures = Figures {
        cluster: &settings.cluster.name,
        status,
        kept: standing.map(|standing| Kept {
            facts: &standing.kept.facts,
            windows: &standing.kept.windows,
            gaps: &standing.kept.gaps,
            read_at: now,
            health: &standing.health,
        }),
        is_unreadable: standing.is_none(),
        upkeep: standing.map_or(&nothing, |standing| &standing.upkeep),
        jobs: &jobs,
        alerts: None,
        has_runbook_names: settings.metrics.runbook_names,
        is_in_bucket: settings.repository.url.folder().is_none(),
    };
    Ok(pushed(&figures, now)?)
}
