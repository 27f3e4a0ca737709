//! What the repository has of a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;

use super::super::app::App;
use super::super::dto::{Backups, ClusterState, Clusters, Dated};
use super::super::problem::Problem;
use super::OfCluster;
use crate::api::{Timelines, UnusableBackup, Wal};
use crate::postgres::catalog::Facts;
use crate::postgres::types::TimelineId;

/// The clusters that this service serves.
#[utoipa::path(get, path = "/v1/clusters", tag = "clusters", security(("token" = [])), responses((status = 200, body = Clusters)))]
pub async fn clusters(State(app): State<Arc<App>>) -> Json<Clusters> {
    Json(Clusters {
        clusters: vec![(&app.cluster).into()],
    })
}

/// What can be restored of a cluster, and how much would be lost now.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Dated<ClusterState>))
)]
pub async fn cluster(
    State(app): State<Arc<App>>,
    _: OfCluster,
) -> Result<Json<Dated<ClusterState>>, Problem> {
    let (read, known) = app.read()?;
    let seen = app.status.borrow().clone();
    let health = app.health(&read, seen.as_ref().map(|seen| &seen.status), Utc::now());
    let upkeep = app.upkeep();
    let (dumps, dumps_left_out) = upkeep.shown_dumps();
    let state = ClusterState {
        cluster: (&app.cluster).into(),
        restorable: read.windows.as_ref().into(),
        gaps: read.gaps.len() as u64,
        last_backup: read.facts.backups.last().map(Into::into),
        dumps: dumps.into_iter().map(Into::into).collect(),
        dumps_left_out,
        dumps_unknown: upkeep.dumps_unknown.clone(),
        disk: upkeep.disk.map(Into::into),
        rpo: (&health).into(),
        health: (&health).into(),
        archiving: seen.as_ref().map(Into::into),
    };
    Ok(Json(Dated::new(state, &read, &known)))
}

/// All base backups of a cluster.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/backups", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Dated<Backups>))
)]
pub async fn backups(
    State(app): State<Arc<App>>,
    _: OfCluster,
) -> Result<Json<Dated<Backups>>, Problem> {
    let (read, known) = app.read()?;
    let damaged = read.facts.damaged_backups.clone().into_iter();
    let backups = Backups {
        backups: read.facts.backups.iter().map(Into::into).collect(),
        damaged: damaged
            .map(|(id, why)| UnusableBackup { id, why })
            .collect(),
        unfinished: read.facts.unfinished_backups.clone(),
    };
    Ok(Json(Dated::new(backups, &read, &known)))
}

/// The archived WAL of a cluster, and what is missing in it.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/wal", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Dated<Wal>))
)]
pub async fn archived(
    State(app): State<Arc<App>>,
    _: OfCluster,
) -> Result<Json<Dated<Wal>>, Problem> {
    let (read, known) = app.read()?;
    Ok(Json(Dated::new(
        Wal::of(&read.facts.ranges, &read.gaps),
        &read,
        &known,
    )))
}

/// The timelines of a cluster, and where each left its parent.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/timelines", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Dated<Timelines>))
)]
pub async fn timelines(
    State(app): State<Arc<App>>,
    _: OfCluster,
) -> Result<Json<Dated<Timelines>>, Problem> {
    let (read, known) = app.read()?;
    Ok(Json(Dated::new(all_timelines(&read.facts), &read, &known)))
}

fn all_timelines(facts: &Facts) -> Timelines {
    let of_wal = facts.ranges.iter().map(|range| range.timeline());
    let of_backups = facts
        .backups
        .iter()
        .flat_map(|backup| [backup.timeline, backup.stop_timeline]);
    let told = facts
        .histories
        .keys()
        .chain(facts.damaged_histories.keys())
        .copied();
    let ancestors = facts
        .histories
        .values()
        .flat_map(|history| history.ancestors.iter().map(|each| each.timeline));
    let all: BTreeSet<TimelineId> = of_wal
        .chain(of_backups)
        .chain(told)
        .chain(ancestors)
        .collect();
    Timelines::of(all, &facts.histories, &facts.damaged_histories)
}
