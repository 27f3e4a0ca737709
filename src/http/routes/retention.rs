//! What is kept and what goes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::super::app::App;
use super::super::dto::RetentionNow;
use super::super::problem::Problem;
use super::OfCluster;

/// What retention would delete of a cluster, and why; nothing is deleted. The first answer is 503: the plan is being made.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/retention-plan", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = RetentionNow))
)]
pub async fn retention_plan(
    State(app): State<Arc<App>>,
    _: OfCluster,
) -> Result<Json<RetentionNow>, Problem> {
    Ok(Json(app.plans.get()?.into()))
}
