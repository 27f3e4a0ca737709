//! Plans a restore: asks the planner, looks into the segments that it asks about, and asks again.

use std::sync::Arc;

use super::look::look;
use super::summarize::summary_of;
use crate::error::with_hint;
use crate::postgres::catalog::{
    Answers, Facts, Known, Moments, RecoveryPlan, Request, Stuck, Unknown, Unreachable, plan,
};
use crate::postgres::cluster::Cluster;

/// The plan for a request, or why the target cannot be reached exactly. Errors: what decides is [`Unknown`] or cannot be
/// read, or the store did not answer.
pub async fn locate(
    cluster: &Cluster,
    moments: &Arc<dyn Moments + Send + Sync>,
    facts: &Arc<Facts>,
    request: &Request,
) -> anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>> {
    let mut answers = Answers::default();
    loop {
        let (moments, facts, request) = (moments.clone(), facts.clone(), request.clone());
        // The index is a file.
        let planning = tokio::task::spawn_blocking(move || {
            let planned = plan(&Known { facts: &facts, moments: &*moments, answers: &answers }, &request);
            (planned, answers)
        });
        let planned;
        (planned, answers) = planning.await?;
        match planned {
            Ok(plan) => return Ok(Ok(plan)),
            Err(Stuck::Refused(refused)) => return Ok(Err(refused)),
            Err(Stuck::Ask(question)) => {
                let seen = look(cluster, &question).await?;
                answers.add(*question, seen);
            }
            Err(Stuck::Unknown(unknown)) => return Err(not_known(cluster, unknown).await),
        }
    }
}

/// What the index does not know it could not read, or did not come to yet.
async fn not_known(cluster: &Cluster, unknown: Unknown) -> anyhow::Error {
    let what = "where the target lies in the WAL cannot be found out";
    if let Unknown::Segment(segment) = unknown
        && let Err(error) = summary_of(cluster, segment).await
    {
        return error.context(unknown).context(what);
    }
    let hint = "try again, for the index catches up with the repository; `--latest` and `--immediate` need no index";
    with_hint(anyhow::Error::new(unknown).context(what), hint)
}
