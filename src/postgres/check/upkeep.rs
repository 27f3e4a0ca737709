//! What is done beside archiving: dumps, and the jobs that make them.

use anyhow::Context;
use chrono::Utc;
use futures_util::future::BoxFuture;

use super::{Check, CheckRequest, Verdict, disk_use, open_cluster};
use crate::config::Settings;
use crate::error::one_line;
use crate::health::{HealthReason, ScheduledJob, Subject, Upkeep, words};
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::newest::NewestDumps;
use crate::repo::Repository;

/// The checks of this file.
pub(super) const CHECKS: &[Check] = &[Check::Dump, Check::Jobs];

/// How the scheduled jobs of a cluster stand. Who asks knows what they are.
pub type LookAtJobs =
    Box<dyn Fn(Cluster) -> BoxFuture<'static, anyhow::Result<Vec<ScheduledJob>>> + Send + Sync>;

/// Reads all that is judged beside what is archived. Errors: the repository did not answer.
pub async fn upkeep(
    settings: &Settings,
    cluster: &Cluster,
    jobs: &LookAtJobs,
) -> anyhow::Result<Upkeep> {
    let dumps = NewestDumps::new(cluster).refresh(cluster).await?;
    let (jobs, jobs_unknown) = match jobs(cluster.clone()).await {
        Ok(jobs) => (jobs, None),
        Err(error) => (Vec::new(), Some(one_line(&error))),
    };
    let disk = match settings.repository.url.folder() {
        Some(folder) => Some(
            disk_use(folder)
                .await
                .context("the repository's file system does not tell how full it is")?,
        ),
        None => None,
    };
    Ok(Upkeep {
        dumps,
        jobs,
        jobs_unknown,
        disk,
    })
}

pub(super) async fn check(
    request: &CheckRequest<'_>,
    repository: Option<Repository>,
) -> Vec<Verdict> {
    let told = |verdict: &dyn Fn(&Check) -> Verdict| CHECKS.iter().map(verdict).collect();
    let Some(repository) = repository else {
        return told(&|check| check.because(Check::Repository));
    };
    let read = async {
        let cluster = open_cluster(request, repository).await?;
        upkeep(request.settings, &cluster, &request.jobs).await
    };
    match request.within("the repository", read).await {
        Ok(upkeep) => {
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
