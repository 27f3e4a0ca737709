//! What is done beside archiving: dumps, and the jobs that make them.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::{Check, CheckRequest, Verdict, disk_use, open_cluster};
use crate::config::Settings;
use crate::error::one_line;
use crate::health::{HealthReason, ScheduledJob, Subject, Upkeep, words};
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::newest::NewestDumps;
use crate::repo::Repository;
use crate::storage::until;

/// The checks of this file.
pub(super) const CHECKS: &[Check] = &[Check::Dump, Check::Jobs];

/// How the scheduled jobs of a cluster stand. Who asks knows what they are.
pub type LookAtJobs =
    Box<dyn Fn(Cluster) -> BoxFuture<'static, anyhow::Result<Vec<ScheduledJob>>> + Send + Sync>;

/// Reads all that is judged beside what is archived, each for so long at most.
pub async fn upkeep(
    settings: &Settings,
    cluster: &Cluster,
    jobs: &LookAtJobs,
    patience: Duration,
) -> Upkeep {
    let (mut dumps, folder) = (NewestDumps::new(cluster), settings.repository.url.folder());
    let (upkeep, (jobs, jobs_unknown)) = tokio::join!(
        dumps_and_disk(&mut dumps, cluster, folder, patience),
        found_out(jobs(cluster.clone()), patience),
    );
    Upkeep {
        jobs,
        jobs_unknown,
        ..upkeep
    }
}

/// The same without the jobs. `dumps` is what was seen of them before, and `folder` where the repository lies, unless it
/// is a bucket.
pub async fn dumps_and_disk(
    dumps: &mut NewestDumps,
    cluster: &Cluster,
    folder: Option<&Path>,
    patience: Duration,
) -> Upkeep {
    let at = Utc::now();
    let disk = async {
        match folder {
            Some(folder) => disk_use(folder).await.map(Some),
            None => Ok(None),
        }
    };
    let ((dumps, dumps_unknown), (disk, disk_unknown)) = tokio::join!(
        found_out(dumps.refresh(cluster), patience),
        found_out(disk, patience),
    );
    Upkeep {
        dumps,
        dumps_at: dumps_unknown.is_none().then_some(at),
        dumps_unknown,
        disk,
        disk_unknown,
        ..Upkeep::default()
    }
}

/// What was found out, and why it was not: one that fails must not hide the others.
async fn found_out<T: Default>(
    read: impl Future<Output = anyhow::Result<T>>,
    patience: Duration,
) -> (T, Option<String>) {
    let slow = || anyhow!("no answer came within {} s", patience.as_secs_f32());
    let read = timeout(patience, until(Instant::now() + patience, read)).await;
    match read.unwrap_or_else(|_| Err(slow())) {
        Ok(found) => (found, None),
        Err(error) => (T::default(), Some(one_line(&error))),
    }
}

pub(super) async fn check(
    request: &CheckRequest<'_>,
    repository: Option<Repository>,
) -> Vec<Verdict> {
    let told = |verdict: &dyn Fn(&Check) -> Verdict| CHECKS.iter().map(verdict).collect();
    let Some(repository) = repository else {
        return told(&|check| check.because(Check::Repository));
    };
    let opened = request.within("the repository", open_cluster(request, repository));
    match opened.await {
        Ok(cluster) => {
            let (settings, look) = (request.settings, &request.jobs);
            let upkeep = upkeep(settings, &cluster, look, request.timeout).await;
            let reasons = upkeep.judge(&request.settings.health, Utc::now());
            vec![dump(&upkeep, &reasons), jobs(&upkeep, &reasons)]
        }
        Err(error) => told(&|check| Verdict {
            hint: error.hint.clone(),
            ..check.unknown(&*error.what)
        }),
    }
}

fn about(reasons: &[HealthReason], subject: Subject) -> Vec<&HealthReason> {
    let about = reasons.iter().filter(|reason| reason.about == subject);
    about.collect()
}

fn dump(upkeep: &Upkeep, reasons: &[HealthReason]) -> Verdict {
    let newest = upkeep.dumps.iter().max_by_key(|dump| dump.time);
    let good = newest.map(|newest| {
        let (age, size) = (
            words(Utc::now() - newest.time),
            newest.bytes.div_ceil(1 << 20),
        );
        format!("the newest is {age} old: \"{}\", {size} MiB", newest.id)
    });
    match (good, about(reasons, Subject::Dump)) {
        (None, reasons) if reasons.is_empty() => Check::Dump.skipped("there is no dump"),
        (good, reasons) => Check::Dump.judged(&reasons, good.unwrap_or_default()),
    }
}

fn jobs(upkeep: &Upkeep, reasons: &[HealthReason]) -> Verdict {
    let reasons = about(reasons, Subject::Jobs);
    if upkeep.jobs.is_empty() && reasons.is_empty() {
        return Check::Jobs.skipped("nothing is scheduled");
    }
    let count = upkeep.jobs.len() as u64;
    Check::Jobs.judged(
        &reasons,
        format!("{} scheduled, none failed last", counted(count, "job")),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::testing::defaults;
    use crate::postgres::cluster::testing::cluster_in;
    use crate::postgres::dump::testing::{id, store};
    use crate::postgres::layout::DumpKind;
    use crate::storage::MemoryStorage;

    #[tokio::test]
    async fn jobs_that_nobody_tells_of_in_time_hide_no_dump() {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        store(&cluster, &id("shop", "14:00:00", DumpKind::Full)).await;
        let silent: LookAtJobs = Box::new(|_| Box::pin(std::future::pending()));
        let patience = Duration::from_millis(200);
        let upkeep = upkeep(&defaults(), &cluster, &silent, patience).await;
        assert_eq!((upkeep.dumps.len(), upkeep.dumps_unknown), (1, None));
        let why = upkeep.jobs_unknown.unwrap();
        assert_eq!(why, "no answer came within 0.2 s");
    }
}
