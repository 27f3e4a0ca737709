//! What is archived: base backups, whether all WAL can be restored, and how much would be lost now.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Check, CheckError, CheckRequest, CheckStatus, Verdict, open_cluster};
use crate::health::{Evidence, Health, Level, Loss, Subject, moment, words};
use crate::postgres::catalog::{OtherTimeline, WalRanges, Window};
use crate::postgres::idle;
use crate::postgres::overview::Overview;
use crate::postgres::replication::ConnInfo;
use crate::repo::Repository;

/// The checks of this file.
pub(super) const CHECKS: &[Check] = &[Check::Backup, Check::Recovery, Check::Rpo];

/// What the server proves is no more than a help.
const PATIENCE: Duration = Duration::from_secs(5);
/// A timeline beside the newest one with a transaction no older than this is one that somebody still writes.
const STILL_WRITTEN: chrono::Duration = chrono::Duration::days(1);
/// How often WAL that may only come in another order is looked at.
const FRESH_GAP_POLLS: usize = 12;

/// Checks what is archived; `asks` whether the server can prove that nothing followed.
pub(super) async fn check(
    request: &CheckRequest<'_>,
    repository: Option<Repository>,
    asks: bool,
) -> Vec<Verdict> {
    let Some(repository) = repository else {
        return CHECKS
            .iter()
            .map(|check| check.because(Check::Repository))
            .collect();
    };
    match request
        .within("the repository", gather(request, repository, asks))
        .await
    {
        Ok((kept, health)) => vec![
            backup(&kept, &health),
            recovery(&kept, &health),
            rpo(&health),
        ],
        Err(error) => unknown(&error),
    }
}

async fn gather(
    request: &CheckRequest<'_>,
    repository: Repository,
    asks: bool,
) -> anyhow::Result<(Overview, Health)> {
    let cluster = open_cluster(request, repository).await?;
    let resolve = || ConnInfo::from_process(request.settings.postgresql.dsn.expose());
    let mut polls = 0;
    loop {
        let prove = async |ranges: &WalRanges| {
            let end = |timeline| ranges.of(timeline).last().map(|range| ranges.end(range));
            if !asks {
                return None;
            }
            // Without a proof it is the last commit that counts.
            let proof = tokio::time::timeout(PATIENCE, idle::proof(&cluster, end, &resolve)).await;
            proof.ok()?.ok().flatten()
        };
        let kept = Overview::read(&cluster, &request.settings.catalog.cache, prove).await?;
        let health = kept.health(&request.settings.health, Utc::now());
        let may_close = health.beyond > 0 && health.level_of(Subject::Recovery) < Level::Critical;
        if !may_close || polls == FRESH_GAP_POLLS {
            return Ok((kept, health));
        }
        polls += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn unknown(error: &CheckError) -> Vec<Verdict> {
    let told = |check: &Check| Verdict {
        hint: error.hint.clone(),
        ..check.unknown(&*error.what)
    };
    CHECKS.iter().map(told).collect()
}

fn decide(check: Check, health: &Health, about: Subject, good: String) -> Verdict {
    check.judged(&health.about(about).collect::<Vec<_>>(), good)
}

fn backup(kept: &Overview, health: &Health) -> Verdict {
    let age = health.backup.map(|ended| words(Utc::now() - ended));
    let good = format!(
        "{} complete, the newest is {} old",
        kept.facts.backups.len(),
        age.unwrap_or_default()
    );
    decide(Check::Backup, health, Subject::Backup, good)
}

fn recovery(kept: &Overview, health: &Health) -> Verdict {
    let windows = &kept.windows.windows;
    let first = windows.iter().filter_map(|window| window.from.time).min();
    let last = windows.iter().filter_map(Window::until).max();
    let good = match first.zip(last) {
        Some((first, last)) => format!("every moment from {} to {}", moment(first), moment(last)),
        None => "nothing is archived that a base backup leads to".into(),
    };
    let verdict = decide(Check::Recovery, health, Subject::Recovery, good);
    with_others(verdict, &kept.windows.other_timelines, Utc::now())
}

/// Tells of timelines that go on beside the newest; a warning while one is still written, as by a clone that archives here.
fn with_others(verdict: Verdict, others: &[OtherTimeline], now: DateTime<Utc>) -> Verdict {
    let told: String = others.iter().map(|other| format!("; {other}")).collect();
    let verdict = Verdict {
        message: verdict.message.clone() + &told,
        ..verdict
    };
    let is_written = |other: &OtherTimeline| {
        other
            .to
            .time
            .is_some_and(|last| now - last <= STILL_WRITTEN)
    };
    match verdict.status {
        CheckStatus::Ok if others.iter().any(is_written) => Verdict {
            status: CheckStatus::Warning,
            ..verdict
        }
        .hint("does a clone archive here? give it a cluster.name of its own"),
        _ => verdict,
    }
}

fn rpo(health: &Health) -> Verdict {
    let why = match health.protected.map(|protected| protected.evidence) {
        Some(Evidence::Idle) => ": until then the server committed nothing more",
        _ => "",
    };
    let good = match (health.loss, health.protected) {
        (Loss::AtMost(_), Some(protected)) => {
            format!(
                "what was committed since {}, {}{why}",
                moment(protected.until),
                health.loss
            )
        }
        (loss, _) => loss.to_string(),
    };
    decide(Check::Rpo, health, Subject::Rpo, good)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::postgres::catalog::{Facts, NoIndex, testing, windows};
    use crate::postgres::types::{TimelineHistory, TimelineId};

    /// Timeline 1 goes on behind the place where timeline 2 left it.
    fn others() -> Vec<OtherTimeline> {
        let mut ranges = WalRanges::new(testing::cluster_description().segment_size);
        for segment in [
            "000000010000000000000002",
            "000000010000000000000003",
            "000000020000000000000003",
        ] {
            ranges.add(segment.parse().unwrap(), 10, DateTime::UNIX_EPOCH);
        }
        let history = TimelineHistory::parse(TimelineId(2), "1\t0/3800000\tpromoted\n").unwrap();
        let facts = Facts {
            cluster: "main".parse().unwrap(),
            idle: Default::default(),
            backups: vec![testing::backup("20260101-000000Z")].into(),
            damaged_backups: BTreeMap::new(),
            unfinished_backups: Vec::new(),
            ranges,
            histories: [(TimelineId(2), history)].into(),
            damaged_histories: BTreeMap::new(),
        };
        windows(&facts, &NoIndex).other_timelines
    }

    #[test]
    fn a_timeline_beside_the_newest_is_a_warning_only_while_it_is_written() {
        let now: DateTime<Utc> = "2026-01-10T12:00:00Z".parse().unwrap();
        let mut others = others();
        let told = |others: &[OtherTimeline], verdict| with_others(verdict, others, now);
        let good = || Check::Recovery.ok("every moment");
        assert_eq!(told(&[], good()), good());
        for (last, status) in [
            (None, CheckStatus::Ok),
            (Some("2026-01-09T11:59:59Z"), CheckStatus::Ok),
            (Some("2026-01-09T12:00:00Z"), CheckStatus::Warning),
        ] {
            others[0].to.time = last.map(|last| last.parse().unwrap());
            let verdict = told(&others, good());
            assert!(
                verdict
                    .message
                    .starts_with("every moment; timeline 1 goes on beside it"),
                "{verdict:?}"
            );
            let hint = (status == CheckStatus::Warning).then_some("does a clone archive here");
            assert_eq!(
                (
                    verdict.status,
                    verdict
                        .hint
                        .as_deref()
                        .and_then(|hint| hint.split('?').next())
                ),
                (status, hint)
            );
        }
        let bad = || {
            Verdict {
                status: CheckStatus::Critical,
                ..good()
            }
            .hint("take a base backup")
        };
        let verdict = told(&others, bad());
        assert_eq!(
            (verdict.status, &verdict.hint),
            (CheckStatus::Critical, &bad().hint),
            "the worse comes first"
        );
        assert!(verdict.message.contains("--timeline 1"), "{verdict:?}");
    }
}
