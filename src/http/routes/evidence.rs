//! What was done, as its records tell it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::app::App;
use super::super::dto::{Dated, Drills, Records};
use super::super::problem::Problem;
use super::{OfCluster, Query};
use crate::evidence::record::{Act, Record};
use crate::postgres::catalog::parse_time;

/// Records in an answer when nothing else is asked for, and at most.
const USUAL: usize = 200;
const MOST: usize = 1000;

/// Which records to find.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EvidenceQuery {
    /// Acts, separated by commas: drill, restore, dump-restore, table-recovery, verification, deletion, configuration, trim.
    #[param(nullable = false, example = "restore,dump-restore")]
    act: Option<String>,
    /// Not ended earlier than this; as `time` of recovery-target.
    #[param(nullable = false, example = "2026-01-31T03:00:00Z")]
    since: Option<String>,
    /// Not ended later than this.
    #[param(nullable = false, example = "2036-01-31T03:00:00Z")]
    until: Option<String>,
    /// At most so many, the latest: 200 when not given.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Which drills to find.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct DrillQuery {
    /// At most so many, the latest: 200 when not given.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

fn within(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit),
        limit => Err(Problem::wrong_value(format!(
            "limit is {limit}, allowed is 1 to {MOST}"
        ))),
    }
}

fn act(name: &str) -> Result<Act, Problem> {
    Act::named(name).ok_or_else(|| Problem::wrong_value(format!("there is no act \"{name}\"")))
}

fn time(text: Option<String>) -> Result<Option<DateTime<Utc>>, Problem> {
    let read = |text: String| parse_time(&text, Utc::now()).map(|(time, _)| time);
    text.map(read).transpose().map_err(Problem::wrong_value)
}

/// What was done to a cluster, the latest first: drills, restores, verifications, deletions, changes of the settings.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/evidence", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main"), EvidenceQuery),
    responses((status = 200, body = Dated<Records>))
)]
pub async fn evidence(
    State(app): State<Arc<App>>,
    _: OfCluster,
    Query(query): Query<EvidenceQuery>,
) -> Result<Json<Dated<Records>>, Problem> {
    let limit = within(query.limit)?;
    let names = query.act.as_deref().unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    let acts: Vec<Act> = names.map(act).collect::<Result<_, _>>()?;
    let (since, until) = (time(query.since)?, time(query.until)?);
    let is_meant = |record: &&Record| {
        let ended = record.evidence.ended;
        (acts.is_empty() || acts.contains(&record.evidence.act))
            && since.is_none_or(|since| ended >= since)
            && until.is_none_or(|until| ended <= until)
    };
    let (known, at) = app.records()?;
    let all = known.records.iter().map(|record| &**record);
    let found: Vec<&Record> = all.filter(is_meant).take(limit + 1).collect();
    let answer = Records::new(&found, limit, known.has_more);
    Ok(Json(Dated::of(answer, at, known.failed)))
}

/// The drills of a cluster, the latest first, and what they are measured by.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/drills", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main"), DrillQuery),
    responses((status = 200, body = Dated<Drills>))
)]
pub async fn drills(
    State(app): State<Arc<App>>,
    _: OfCluster,
    Query(query): Query<DrillQuery>,
) -> Result<Json<Dated<Drills>>, Problem> {
    let limit = within(query.limit)?;
    let (known, at) = app.records()?;
    let found: Vec<&Record> = known.drills().take(limit + 1).collect();
    let answer = Drills::new(&found, limit, known.has_more, &app.drill_targets);
    Ok(Json(Dated::of(answer, at, known.failed)))
}
