//! What the repository has of a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::Utc;

use super::super::app::App;
use super::super::dto::{
    AsOf, Backup, Backups, ClusterState, Clusters, DamagedBackup, History, Parent, Range, Timeline, Timelines, Wal,
};
use super::super::problem::Problem;
use super::OfCluster;
use crate::postgres::catalog::Facts;
use crate::postgres::types::TimelineId;

/// The clusters that this service serves.
#[utoipa::path(get, path = "/v1/clusters", tag = "clusters", security(("token" = [])), responses((status = 200, body = Clusters)))]
pub async fn clusters(State(app): State<Arc<App>>) -> Json<Clusters> {
    Json(Clusters { clusters: vec![(&app.cluster).into()] })
}

/// What can be restored of a cluster, and how much would be lost now.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = ClusterState))
)]
pub async fn cluster(State(app): State<Arc<App>>, _: OfCluster) -> Result<Json<ClusterState>, Problem> {
    let (read, known) = app.read()?;
    let seen = app.status.borrow().clone();
    let now = Utc::now();
    let health = read.health(&app.limits, seen.as_ref().map(|seen| &seen.status), now);
    Ok(Json(ClusterState {
        cluster: (&app.cluster).into(),
        as_of: AsOf::at(now, read.at, &known),
        windows: read.windows.windows.iter().map(Into::into).collect(),
        unrestorable: read.windows.gaps.iter().map(Into::into).collect(),
        unknown: read.windows.unknown.iter().map(Into::into).collect(),
        other_timelines: read.windows.other_timelines.iter().map(Into::into).collect(),
        gaps: read.gaps.len() as u64,
        last_backup: read.facts.backups.last().map(Into::into),
        rpo: (&health).into(),
        health: (&health).into(),
        archiving: seen.as_ref().map(Into::into),
    }))
}

/// All base backups of a cluster.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/backups", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Backups))
)]
pub async fn backups(State(app): State<Arc<App>>, _: OfCluster) -> Result<Json<Backups>, Problem> {
    let (read, known) = app.read()?;
    let damaged = read.facts.damaged_backups.iter();
    Ok(Json(Backups {
        as_of: AsOf::at(Utc::now(), read.at, &known),
        backups: read.facts.backups.iter().map(Backup::from).collect(),
        damaged: damaged.map(|(id, why)| DamagedBackup { id: id.to_string(), why: why.clone() }).collect(),
        unfinished: read.facts.unfinished_backups.iter().map(ToString::to_string).collect(),
    }))
}

/// The archived WAL of a cluster, and what is missing in it.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/wal", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Wal))
)]
pub async fn archived(State(app): State<Arc<App>>, _: OfCluster) -> Result<Json<Wal>, Problem> {
    let (read, known) = app.read()?;
    let size = read.facts.ranges.segment_size();
    Ok(Json(Wal {
        as_of: AsOf::at(Utc::now(), read.at, &known),
        segment_bytes: size.bytes(),
        ranges: read.facts.ranges.iter().map(|range| Range::of(range, size)).collect(),
        gaps: read.gaps.iter().map(Into::into).collect(),
    }))
}

/// The timelines of a cluster, and where each left its parent.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/timelines", tag = "clusters", security(("token" = [])),
    params(("cluster" = String, Path, description = "The cluster's name", example = "main")),
    responses((status = 200, body = Timelines))
)]
pub async fn timelines(State(app): State<Arc<App>>, _: OfCluster) -> Result<Json<Timelines>, Problem> {
    let (read, known) = app.read()?;
    Ok(Json(Timelines { as_of: AsOf::at(Utc::now(), read.at, &known), timelines: all_timelines(&read.facts) }))
}

fn all_timelines(facts: &Facts) -> Vec<Timeline> {
    let of_wal = facts.ranges.iter().map(|range| range.timeline());
    let of_backups = facts.backups.iter().flat_map(|backup| [backup.timeline, backup.stop_timeline]);
    let told = facts.histories.keys().chain(facts.damaged_histories.keys()).copied();
    let ancestors = facts.histories.values().flat_map(|history| history.ancestors.iter().map(|each| each.timeline));
    let all: BTreeSet<TimelineId> = of_wal.chain(of_backups).chain(told).chain(ancestors).collect();
    let timeline = |timeline: TimelineId| {
        let (history, damage) = (facts.histories.get(&timeline), facts.damaged_histories.get(&timeline));
        Timeline {
            timeline: timeline.0,
            parent: history.and_then(Parent::of),
            history: match (history, damage) {
                (Some(_), _) => History::Known,
                (None, Some(_)) => History::Damaged,
                (None, None) if timeline == TimelineId(1) => History::None,
                (None, None) => History::Missing,
            },
            damage: damage.map(|unusable| unusable.why.clone()),
        }
    };
    all.into_iter().map(timeline).collect()
}
