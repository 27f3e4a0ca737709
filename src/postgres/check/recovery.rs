//! What is archived: base backups, whether all WAL can be restored, and how much would be lost now.

use std::time::Duration;

use chrono::Utc;

use super::{Check, Request, Status, Trouble, Verdict, open_cluster};
use crate::health::{Evidence, Health, Level, Loss, Subject, moment, words};
use crate::postgres::catalog::{WalRanges, Window};
use crate::postgres::kept::Kept;
use crate::postgres::quiet;
use crate::postgres::replication::ConnInfo;
use crate::repo::Repository;

/// The checks of this file.
pub(super) const CHECKS: &[Check] = &[Check::Backup, Check::Recovery, Check::Rpo];

/// What the server proves is no more than a help.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often WAL that may only come in another order is looked at.
const FRESH_GAP_LOOKS: usize = 12;

/// Checks what is archived; `asks` whether the server can prove that nothing followed.
pub(super) async fn check(request: &Request<'_>, repository: Option<Repository>, asks: bool) -> Vec<Verdict> {
    let Some(repository) = repository else {
        return CHECKS.iter().map(|check| check.because(Check::Repository)).collect();
    };
    match request.within("the repository", gather(request, repository, asks)).await {
        Ok((kept, health)) => vec![backup(&kept, &health), recovery(&kept, &health), rpo(&health)],
        Err(trouble) => unknown(&trouble),
    }
}

async fn gather(request: &Request<'_>, repository: Repository, asks: bool) -> anyhow::Result<(Kept, Health)> {
    let cluster = open_cluster(request, repository).await?;
    let resolve = || ConnInfo::from_process(request.settings.postgresql.dsn.expose());
    let mut looks = 0;
    loop {
        let prove = async |ranges: &WalRanges| {
            let end = |timeline| ranges.of(timeline).last().map(|range| ranges.end(range));
            if !asks {
                return None;
            }
            // Without a proof it is the last commit that counts.
            let proof = tokio::time::timeout(PATIENCE, quiet::proof(&cluster, end, &resolve)).await;
            proof.ok()?.ok().flatten()
        };
        let kept = Kept::read(&cluster, &request.settings.catalog.cache, prove).await?;
        let health = kept.health(Utc::now());
        let may_close = health.beyond > 0 && health.level_of(Subject::Recovery) < Level::Critical;
        if !may_close || looks == FRESH_GAP_LOOKS {
            return Ok((kept, health));
        }
        looks += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn unknown(trouble: &Trouble) -> Vec<Verdict> {
    let told = |check: &Check| Verdict { hint: trouble.hint.clone(), ..check.unknown(&*trouble.what) };
    CHECKS.iter().map(told).collect()
}

/// What is not good, the worst first; else that it is.
fn decide(check: Check, health: &Health, about: Subject, good: String) -> Verdict {
    let Some(worst) = health.about(about).next() else { return check.ok(good) };
    let status = match worst.level {
        Level::Good => Status::Ok,
        Level::Warning => Status::Warning,
        Level::Unknown => Status::Unknown,
        Level::Critical => Status::Critical,
    };
    let all: Vec<&str> = health.about(about).map(|reason| reason.what.as_str()).collect();
    Verdict { status, ..check.ok(all.join("; ")) }.hint(&*worst.next)
}

fn backup(kept: &Kept, health: &Health) -> Verdict {
    let age = health.backup.map(|ended| words(Utc::now() - ended));
    let good = format!("{} complete, the newest is {} old", kept.facts.backups.len(), age.unwrap_or_default());
    decide(Check::Backup, health, Subject::Backup, good)
}

fn recovery(kept: &Kept, health: &Health) -> Verdict {
    let windows = &kept.windows.windows;
    let first = windows.iter().filter_map(|window| window.from.time).min();
    let last = windows.iter().filter_map(Window::until).max();
    let good = match first.zip(last) {
        Some((first, last)) => format!("every moment from {} to {}", moment(first), moment(last)),
        None => "nothing is archived that a base backup leads to".into(),
    };
    decide(Check::Recovery, health, Subject::Recovery, good)
}

fn rpo(health: &Health) -> Verdict {
    let why = match health.protected.map(|protected| protected.evidence) {
        Some(Evidence::Quiet) => ": until then the server committed nothing more",
        _ => "",
    };
    let good = match (health.loss, health.protected) {
        (Loss::AtMost(_), Some(protected)) => {
            format!("what was committed since {}, {}{why}", moment(protected.until), health.loss)
        }
        (loss, _) => loss.to_string(),
    };
    decide(Check::Rpo, health, Subject::Rpo, good)
}
