//! What fires.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;

use super::super::app::App;
use super::super::dto::Dated;
use super::super::problem::Problem;
use super::OfCluster;
use crate::api::FiringAlerts;

/// The alerts of a cluster: what fires, since when, whom that was told, what is silenced, and channels that fail.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/alerts", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Dated<FiringAlerts>))
)]
pub async fn alerts(
    State(app): State<Arc<App>>,
    _: OfCluster,
) -> Result<Json<Dated<FiringAlerts>>, Problem> {
    let (known, at) = app.alerts()?;
    let answer = FiringAlerts::new(&known.state, known.is_watched, Utc::now());
    Ok(Json(Dated::of(answer, at, known.failed)))
}
