//! What happened, found in the index of the WAL.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::app::App;
use super::super::problem::Problem;
use super::{OfCluster, Query};
use crate::api::Events;
use crate::postgres::catalog::{EventKind, Filter, parse_time};
use crate::postgres::wal::Timestamp;

/// Events in an answer when nothing else is asked for, and at most.
const USUAL: usize = 200;
const MOST: usize = 1000;

/// Which events to find.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// `name` or `schema.name`; `*` and `?` as in a shell.
    #[param(nullable = false, example = "orders")]
    relation: Option<String>,
    /// Kinds, separated by commas: drop, truncate, rewrite, delete, update, restore-point, database-drop,
    /// database-create, timeline.
    #[param(nullable = false, example = "drop,truncate")]
    kind: Option<String>,
    /// Of deletes and updates those of at least so many rows: 10 when not given, with `all` 1. Smaller ones are known of
    /// WAL segments that have few of them.
    #[param(nullable = false, minimum = 0)]
    min_rows: Option<i64>,
    /// Not earlier than this; as `time` of recovery-target.
    #[param(nullable = false, example = "2026-01-31T03:00:00Z")]
    since: Option<String>,
    /// Not later than this.
    #[param(nullable = false, example = "2036-01-31T03:00:00Z")]
    until: Option<String>,
    /// Also what is of the system, of an index by itself, or loses nothing.
    #[param(nullable = false)]
    all: Option<bool>,
    /// At most so many, the latest: 200 when not given.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

impl EventQuery {
    fn filter(self) -> Result<Filter, Problem> {
        let time = |text: Option<String>| {
            text.map(|text| parse_time(&text, Utc::now()).map(|(time, _)| Timestamp::from(time)))
                .transpose()
        };
        let kinds = self
            .kind
            .as_deref()
            .map(|kinds| kinds.split(',').map(str::parse::<EventKind>).collect());
        let limit = self.limit.unwrap_or(USUAL);
        if limit == 0 || limit > MOST {
            return Err(Problem::wrong_value(format!(
                "limit is {limit}, allowed is 1 to {MOST}"
            )));
        }
        let min_rows = self.min_rows.map(u64::try_from).transpose();
        Ok(Filter {
            relation: self.relation,
            kinds: kinds
                .transpose()
                .map_err(Problem::wrong_value)?
                .unwrap_or_default(),
            min_rows: min_rows.map_err(|_| Problem::wrong_value("min_rows is below 0"))?,
            since: time(self.since).map_err(Problem::wrong_value)?,
            until: time(self.until).map_err(Problem::wrong_value)?,
            all: self.all == Some(true),
            latest: Some(limit),
        })
    }
}

/// What happened to a cluster's data: tables dropped or emptied, many rows deleted or updated, restore points.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/events", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main"), EventQuery),
    responses((status = 200, body = Events))
)]
pub async fn events(
    State(app): State<Arc<App>>,
    _: OfCluster,
    Query(query): Query<EventQuery>,
) -> Result<Json<Events>, Problem> {
    let found = app.events(query.filter()?).await?;
    let looked_at = app
        .status
        .borrow()
        .as_ref()
        .and_then(|seen| seen.status.indexing.looked_at);
    Ok(Json(Events::of(&found, looked_at)))
}
