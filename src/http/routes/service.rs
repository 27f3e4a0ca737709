//! The service itself: probes and metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::app::App;
use super::super::metrics_page::{MEDIA_TYPE, metrics_page};
use super::super::problem::{Problem, ProblemType};

/// A probe's good answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Liveness {
    #[schema(example = "ok")]
    status: String,
}

fn ok() -> Json<Liveness> {
    Json(Liveness {
        status: "ok".into(),
    })
}

/// Whether the service answers.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Liveness)))]
pub async fn healthz() -> Json<Liveness> {
    ok()
}

/// Whether answers tell of the repository as it is: it was read, and could be the last time.
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = Liveness)))]
pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Liveness>, Problem> {
    let known = app.known.borrow();
    // Why not may name what a probe without a token need not know.
    let detail = match (&known.read, &known.failed) {
        (Some(_), None) => return Ok(ok()),
        (None, None) => "the repository was not read yet",
        (_, Some(_)) => "the repository could not be read the last time",
    };
    Err(Problem::new(ProblemType::NotReadYet, detail).hint("look at the service's log"))
}

/// Metrics for Prometheus (OpenMetrics text). Made of what is in memory: they wait for nothing.
#[utoipa::path(
    get, path = "/metrics", tag = "service", security(("token" = [])),
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = metrics_page(&app).map_err(|error| {
        Problem::new(
            ProblemType::Unknown,
            format!("metrics cannot be shown: {error}"),
        )
    })?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}
