//! Which backup and which WAL lead to a moment.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::app::App;
use super::super::dto::Dated;
use super::super::problem::Problem;
use super::{OfCluster, Query};
use crate::api::RecoveryTarget;
use crate::postgres::catalog::{EventTarget, NamedTarget, ParsedRequest, RequestText, Target};

/// The target; at most one of `time`, `lsn`, `xid`, `name`, `before`, `after`, `immediate` and `latest`, else everything
/// that is archived.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct TargetQuery {
    /// A moment: RFC 3339, or YYYY-MM-DD HH:MM:SS[.ffffff][offset]; without an offset it is UTC. Write + as %2B.
    #[param(nullable = false, example = "2026-01-31T03:00:00Z")]
    time: Option<String>,
    /// A place in the WAL.
    #[param(value_type = Option<String>, nullable = false, example = "16/B374D848")]
    lsn: Option<String>,
    /// A transaction id, without epoch.
    #[param(value_type = Option<u64>, nullable = false, minimum = 3, maximum = 4294967295_u64)]
    xid: Option<String>,
    /// A restore point.
    #[param(nullable = false, min_length = 1, max_length = 63)]
    name: Option<String>,
    /// Just before an event, by its `id` of /events.
    #[param(nullable = false, example = "1-0-80B728-d16384")]
    before: Option<String>,
    /// Just after an event.
    #[param(nullable = false, example = "1-0-80B728-d16384")]
    after: Option<String>,
    /// As soon as the cluster is consistent: the end of the backup.
    #[param(nullable = false)]
    immediate: Option<bool>,
    /// Everything that is archived.
    #[param(nullable = false)]
    latest: Option<bool>,
    /// Leave out what lies exactly at the target.
    #[param(nullable = false)]
    exclusive: Option<bool>,
    /// The timeline to follow: latest, current (the backup's own), or a number, also as file names have it: 0000000A.
    #[param(nullable = false, example = "latest")]
    timeline: Option<String>,
    /// The backup to begin with.
    #[param(value_type = Option<String>, nullable = false, example = "20260131-030000Z")]
    backup: Option<String>,
}

impl TargetQuery {
    /// What is asked for. Errors: not one target, or one that PostgreSQL does not have.
    fn asked(&self) -> Result<ParsedRequest, Problem> {
        let targets = [
            ("time", self.time.as_deref()),
            ("lsn", self.lsn.as_deref()),
            ("xid", self.xid.as_deref()),
            ("name", self.name.as_deref()),
            ("before", self.before.as_deref()),
            ("after", self.after.as_deref()),
            ("immediate", self.immediate.filter(|is| *is).map(|_| "")),
            ("latest", self.latest.filter(|is| *is).map(|_| "")),
        ];
        let (exclusive, timeline) = (self.exclusive == Some(true), self.timeline.as_deref());
        let words = RequestText {
            exclusive,
            timeline,
            backup: self.backup.as_deref(),
        };
        ParsedRequest::read(&targets, words, Utc::now()).map_err(Problem::wrong_value)
    }
}

/// How a moment is restored: the backup, the WAL and the settings; or why it cannot be, and the nearest ones that can.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/recovery-target", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main"), TargetQuery),
    responses((status = 200, body = Dated<RecoveryTarget>))
)]
pub async fn recovery_target(
    State(app): State<Arc<App>>,
    _: OfCluster,
    Query(query): Query<TargetQuery>,
) -> Result<Json<Dated<RecoveryTarget>>, Problem> {
    let asked = query.asked()?;
    let target = match &asked.named {
        NamedTarget::Target(target) => target.clone(),
        NamedTarget::Event(id) => {
            let unknown =
                || Problem::wrong_value(format!("there is no event {id} in the archived WAL"));
            Target::Event(EventTarget::from(
                &app.event(*id).await?.ok_or_else(unknown)?,
            ))
        }
    };
    let request = asked.request(target);
    let (read, known) = app.read()?;
    let target: RecoveryTarget = match &app.decide(&read.facts, &request).await? {
        Ok(plan) => plan.into(),
        Err(refused) => refused.as_ref().into(),
    };
    Ok(Json(Dated::new(target, &read, &known)))
}
