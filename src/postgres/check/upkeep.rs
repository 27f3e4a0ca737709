//! What is done beside archiving: dumps, and the jobs that make them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::{Check, CheckRequest, Verdict, disk_use, open_cluster};
use crate::certificate::{read_chain, valid_until};
use crate::config::Settings;
use crate::error::one_line;
use crate::evidence::LatestRecords;
use crate::evidence::record::{Act, Record, Verdict as EvidenceVerdict};
use crate::health::{
    ActEnd, ActKind, HealthReason, SeenAct, SeenJobs, Subject, Upkeep, moment, words,
};
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::drill::DrillKind;
use crate::postgres::dump::newest::NewestDumps;
use crate::repo::Repository;
use crate::storage::until;

/// The checks of this file.
pub(super) const CHECKS: &[Check] = &[Check::Dump, Check::Jobs, Check::Proof];

/// Records of evidence that are judged, the newest.
const RECORDS: usize = 2000;

/// How the scheduled jobs of a cluster stand. Who asks knows what they are.
pub type LookAtJobs =
    Box<dyn Fn(Cluster) -> BoxFuture<'static, anyhow::Result<SeenJobs>> + Send + Sync>;

/// Reads all that is judged beside what is archived, each for so long at most.
pub async fn upkeep(
    settings: &Settings,
    cluster: &Cluster,
    jobs: &LookAtJobs,
    patience: Duration,
) -> Upkeep {
    let (mut reader, folder) = (UpkeepReader::new(cluster), settings.repository.url.folder());
    let (upkeep, (SeenJobs { jobs, runs }, jobs_unknown)) = tokio::join!(
        reader.look(cluster, folder, patience),
        found_out(jobs(cluster.clone()), patience),
    );
    let (certificate, certificate_unknown) = certificate_end(settings);
    Upkeep {
        jobs,
        runs,
        jobs_unknown,
        certificate,
        certificate_unknown,
        ..upkeep
    }
}

/// When the certificate ends that the settings name, and why that is not known; nothing where none is shown.
fn certificate_end(settings: &Settings) -> (Option<DateTime<Utc>>, Option<String>) {
    let named = settings.http.tls_certificate.as_deref();
    let Some(file) = named.filter(|_| settings.http.listen.is_some()) else {
        return (None, None);
    };
    match read_chain(file, "http.tls_certificate") {
        Ok(chain) => match valid_until(&chain) {
            Some(until) => (Some(until), None),
            None => {
                let file = file.display();
                (None, Some(format!("\"{file}\" does not say when it ends")))
            }
        },
        Err(error) => (None, Some(one_line(&error))),
    }
}

/// Judges the file: what a service shows that was started before is what `walden status` tells.
pub(super) fn check_certificate(settings: &Settings) -> Verdict {
    let (certificate, certificate_unknown) = certificate_end(settings);
    let upkeep = Upkeep {
        certificate,
        certificate_unknown,
        ..Upkeep::default()
    };
    let reasons = upkeep.judge(&settings.health, Utc::now());
    let reasons = about(&reasons, Subject::Certificate);
    match upkeep.certificate {
        None if reasons.is_empty() => Check::Certificate.skipped("HTTPS is not spoken"),
        until => {
            let good = until.map(|until| format!("it is valid until {}", moment(until)));
            Check::Certificate.judged(&reasons, good.unwrap_or_default())
        }
    }
}

/// Reads the same without the jobs, again and again: what was seen before is not read anew.
#[derive(Debug)]
pub struct UpkeepReader {
    dumps: NewestDumps,
    records: LatestRecords,
}

impl UpkeepReader {
    /// Nothing was seen yet.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            dumps: NewestDumps::new(cluster),
            records: LatestRecords::default(),
        }
    }

    /// Looks; `folder` is where the repository lies, unless it is a bucket.
    pub async fn look(
        &mut self,
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
        let journal = cluster.journal();
        let acts = async {
            self.records.renew(&journal, RECORDS).await?;
            let refused = self.records.refused;
            ensure!(
                refused == 0,
                "{} cannot be read",
                counted(refused, "record")
            );
            Ok(seen_acts(&self.records.newest_first()))
        };
        let ((dumps, dumps_unknown), (disk, disk_unknown), (acts, acts_unknown)) = tokio::join!(
            found_out(self.dumps.refresh(cluster), patience),
            found_out(disk, patience),
            found_out(acts, patience),
        );
        Upkeep {
            knows_acts: acts_unknown.is_none(),
            acts,
            acts_unknown,
            dumps,
            dumps_at: dumps_unknown.is_none().then_some(at),
            dumps_unknown,
            disk,
            disk_unknown,
            ..Upkeep::default()
        }
    }
}

fn seen_acts(records: &[Arc<Record>]) -> Vec<SeenAct> {
    let evidence = records.iter().map(|record| &record.evidence);
    let seen = evidence.map(|evidence| SeenAct {
        kind: match evidence.act {
            Act::Drill => match DrillKind::of(evidence) {
                DrillKind::Physical => ActKind::Drill,
                DrillKind::Dump => ActKind::DumpDrill,
                DrillKind::RoundTrip => ActKind::RoundTrip,
            },
            Act::Restore | Act::DumpRestore | Act::TableRecovery => ActKind::Restore,
            Act::Verification => ActKind::Verification,
            _ => ActKind::Other,
        },
        ended: evidence.ended,
        end: match evidence.verdict {
            EvidenceVerdict::Passed => ActEnd::Passed,
            EvidenceVerdict::Failed => ActEnd::Failed,
            EvidenceVerdict::CouldNotRun => ActEnd::CouldNotRun,
        },
        why: evidence.reason.clone(),
        took: match evidence.rto_seconds {
            Some(seconds) => TimeDelta::milliseconds((seconds * 1000.0) as i64),
            None => evidence.ended - evidence.began,
        },
    });
    seen.collect()
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
            vec![
                dump(&upkeep, &reasons),
                jobs(&upkeep, &reasons),
                proof(&upkeep, &reasons),
            ]
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

fn proof(upkeep: &Upkeep, reasons: &[HealthReason]) -> Verdict {
    let reasons = about(reasons, Subject::Proof);
    let proven = |act: &&SeenAct| act.end == ActEnd::Passed && act.kind != ActKind::Other;
    let newest = upkeep
        .acts
        .iter()
        .filter(proven)
        .max_by_key(|act| act.ended);
    match newest {
        None if reasons.is_empty() => Check::Proof.skipped("nothing was restored or verified yet"),
        newest => {
            let age = newest
                .map(|act| words(Utc::now() - act.ended))
                .unwrap_or_default();
            Check::Proof.judged(&reasons, format!("the last that passed is {age} old"))
        }
    }
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
