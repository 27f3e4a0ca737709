//! Plans a restore: runs the planner on a thread of its own, and probes the segments that it asks about.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::error::{DeadlineExceeded, find, with_hint};
use crate::postgres::archive::probe::probe;
use crate::postgres::archive::summarize::summary_of;
use crate::postgres::catalog::{
    EventId, Facts, FoundEvent, NoPlan, PlanInput, ProbeQuery, ProbeResult, RecoveryPlan,
    RestoreRequest, Unknown, Unreachable, WalIndex, plan,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::{Index, on_index};

/// The plan for a request, or why the target cannot be reached exactly. From `deadline` on no further segment is looked
/// into. Errors: what decides is [`Unknown`] or cannot be read, the store did not answer, or [`DeadlineExceeded`].
pub async fn locate(
    cluster: &Cluster,
    index: &Arc<dyn WalIndex + Send + Sync>,
    facts: &Arc<Facts>,
    request: &RestoreRequest,
    deadline: Option<Instant>,
) -> anyhow::Result<Result<RecoveryPlan, Box<Unreachable>>> {
    let (index, facts, request) = (index.clone(), facts.clone(), request.clone());
    let (asks, mut asked) =
        mpsc::channel::<(ProbeQuery, oneshot::Sender<anyhow::Result<ProbeResult>>)>(1);
    // The index is a file. Who no longer waits for the plan takes the answers away, and with them the work.
    let planning = spawn_blocking(move || {
        let probe = |query: &ProbeQuery| {
            let (answer, answered) = oneshot::channel();
            asks.blocking_send((query.clone(), answer))
                .ok()
                .context("nobody waits for the plan")?;
            answered
                .blocking_recv()
                .context("nobody waits for the plan")?
        };
        plan(
            &PlanInput {
                facts: &facts,
                index: &*index,
                probe: &probe,
            },
            &request,
        )
    });
    // A refusal, and the moments that it names instead, may ask the same.
    let mut answers: Vec<(ProbeQuery, ProbeResult)> = Vec::new();
    while let Some((query, answer)) = asked.recv().await {
        if let Some((_, result)) = answers.iter().find(|(asked, _)| *asked == query) {
            drop(answer.send(Ok(*result)));
            continue;
        }
        let result = probe_in_time(cluster, &query, deadline).await;
        answers.extend(result.as_ref().ok().map(|result| (query, *result)));
        drop(answer.send(result));
    }
    match planning.await? {
        Ok(plan) => Ok(Ok(plan)),
        Err(NoPlan::Refused(refused)) => Ok(Err(refused)),
        Err(NoPlan::Unread(error)) => Err(error),
        Err(NoPlan::Unknown(unknown)) => {
            let what = "where the target lies in the WAL cannot be found out".to_string();
            Err(not_known(cluster, unknown, what).await)
        }
    }
}

async fn probe_in_time(
    cluster: &Cluster,
    query: &ProbeQuery,
    deadline: Option<Instant>,
) -> anyhow::Result<ProbeResult> {
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        let error = DeadlineExceeded("finding the place of the target in the WAL");
        return Err(with_hint(
            error.into(),
            "`walden target` takes the time that it needs",
        ));
    }
    probe(cluster, query).await
}

/// An event by its name; `None`: there is none in the archived WAL. Errors: it may lie where what the WAL holds is
/// [`Unknown`]; the index cannot be read, or the store did not answer.
pub async fn find_event(
    cluster: &Cluster,
    index: &Arc<Index>,
    id: EventId,
) -> anyhow::Result<Option<FoundEvent>> {
    let found = on_index(index, move |index| index.event(id)).await;
    match found.as_ref().err().and_then(find) {
        Some(unknown) => {
            let what = format!("whether there is an event {id} cannot be found out");
            Err(not_known(cluster, Unknown::clone(unknown), what).await)
        }
        None => found,
    }
}

/// What the index does not know it could not read, or did not come to yet.
async fn not_known(cluster: &Cluster, unknown: Unknown, what: String) -> anyhow::Error {
    if let Unknown::Segment(segment) = unknown
        && let Err(error) = summary_of(cluster, segment).await
    {
        return error.context(unknown).context(what);
    }
    let hint = match unknown {
        Unknown::Failed(_) => {
            "free disk space, or delete the index: it is a cache and will be rebuilt (`--immediate` needs \
             none)"
        }
        _ => {
            "try again, for the index catches up with the repository; `--immediate` needs no index"
        }
    };
    with_hint(anyhow::Error::new(unknown).context(what), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::archive::testing::{PgWal, SEGMENT, cluster_in, pusher};
    use crate::postgres::catalog::{BackupDescription, NoIndex, Target, WalRanges, testing};
    use crate::postgres::types::Lsn;
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn behind_the_deadline_no_segment_is_looked_into() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        let wal = PgWal::new();
        let segment = "000000010000000000000002";
        pusher(&cluster)
            .push(&wal.segment(segment, 3))
            .await
            .unwrap();
        let mut ranges = WalRanges::new(cluster.description.segment_size);
        ranges.add(segment.parse().unwrap(), 10, chrono::DateTime::UNIX_EPOCH);
        let begin = 2 * SEGMENT as u64;
        let (start_lsn, stop_lsn) = (Lsn(begin + 0x28), Lsn(begin + 0x100));
        let backups = vec![BackupDescription {
            start_lsn,
            stop_lsn,
            ..testing::backup("20260101-000000Z")
        }]
        .into();
        let facts = Facts {
            backups,
            ..testing::facts_in(ranges)
        };
        let (facts, index): (_, Arc<dyn WalIndex + Send + Sync>) =
            (Arc::new(facts), Arc::new(NoIndex));
        let request = RestoreRequest::new(Target::Lsn(Lsn(begin + 0x200)));
        let ask = async |deadline| locate(&cluster, &index, &facts, &request, deadline).await;
        let error = ask(Some(Instant::now())).await.unwrap_err();
        assert!(find::<DeadlineExceeded>(&error).is_some(), "{error:#}");
        assert!(ask(None).await.is_ok());
    }
}
