//! What runs by itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::super::app::App;
use super::super::dto::Jobs;
use super::OfCluster;

/// The jobs of a cluster with their last and next runs, and the runs that ended last.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/jobs", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Jobs))
)]
pub async fn jobs(State(app): State<Arc<App>>, _: OfCluster) -> Json<Jobs> {
    Json((&*app.jobs.borrow()).into())
}
