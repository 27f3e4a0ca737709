//! Which backup and which WAL lead to a moment.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::app::App;
use super::super::dto::{AsOf, RecoveryTarget};
use super::super::problem::Problem;
use super::{OfCluster, Query};
use crate::postgres::catalog::{EventId, EventTarget, Request, Target, TimelineChoice, parse_time};
use crate::postgres::layout::BackupId;
use crate::postgres::types::Lsn;

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
    lsn: Option<Lsn>,
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
    backup: Option<BackupId>,
}

impl TargetQuery {
    /// The event that is named. Errors: it is no event's id.
    fn event(&self) -> Result<Option<EventId>, Problem> {
        let id = self.before.as_deref().or(self.after.as_deref());
        id.map(str::parse::<EventId>).transpose().map_err(Problem::wrong_value)
    }

    /// What is asked for, with the event that is named. Errors: not one target, or one that PostgreSQL does not have.
    fn request(self, event: Option<EventTarget>) -> Result<Request, Problem> {
        let wrong = |text: String| Err(Problem::wrong_value(text));
        let mut targets: Vec<Target> = Vec::new();
        if let Some(text) = &self.time {
            targets.push(Target::Time(parse_time(text, Utc::now()).map_err(Problem::wrong_value)?.0));
        }
        targets.extend(self.lsn.map(Target::Lsn));
        targets.extend(self.xid.as_deref().map(Target::xid).transpose().map_err(Problem::wrong_value)?);
        targets.extend(self.name.as_deref().map(Target::restore_point).transpose().map_err(Problem::wrong_value)?);
        targets.extend(event.map(Target::Event));
        targets.extend((self.immediate == Some(true)).then_some(Target::Immediate));
        targets.extend((self.latest == Some(true)).then_some(Target::Latest));
        if targets.len() > 1 || (self.before.is_some() && self.after.is_some()) {
            let all = "time, lsn, xid, name, before, after, immediate, latest";
            return wrong(format!("there is more than one target: give one of {all}"));
        }
        let target = targets.pop().unwrap_or(Target::Latest);
        let exclusive = self.exclusive == Some(true);
        if exclusive && !target.can_be_exclusive() {
            return wrong("exclusive needs one of time, lsn and xid".into());
        }
        let timeline = self.timeline.as_deref().map(str::parse::<TimelineChoice>).transpose();
        let timeline = timeline.map_err(Problem::wrong_value)?.unwrap_or(TimelineChoice::Latest);
        Ok(Request { target, inclusive: !exclusive && self.before.is_none(), timeline, backup: self.backup })
    }
}

/// How a moment is restored: the backup, the WAL and the settings; or why it cannot be, and the nearest ones that can.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/recovery-target", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main"), TargetQuery),
    responses((status = 200, body = RecoveryTarget))
)]
pub async fn recovery_target(
    State(app): State<Arc<App>>,
    _: OfCluster,
    Query(query): Query<TargetQuery>,
) -> Result<Json<RecoveryTarget>, Problem> {
    let event = match query.event()? {
        Some(id) => {
            let unknown = || Problem::wrong_value(format!("there is no event {id} in the archived WAL"));
            Some(EventTarget::from(&app.event(id).await?.ok_or_else(unknown)?))
        }
        None => None,
    };
    let request = query.request(event)?;
    let (read, known) = app.read()?;
    let (facts, target) = (read.facts.clone(), request.words());
    let decided = app.decide(&facts, &request).await?;
    let as_of = AsOf::at(Utc::now(), read.at, &known);
    Ok(Json(match &decided {
        Ok(plan) => {
            RecoveryTarget { as_of, kind: plan.kind.into(), target, plan: Some(plan.into()), unreachable: None }
        }
        Err(refused) => RecoveryTarget {
            as_of,
            kind: refused.kind.into(),
            target,
            plan: None,
            unreachable: Some(refused.as_ref().into()),
        },
    }))
}
