//! `walden status --nagios`: one line for what watches.

use chrono::{DateTime, Utc};

use super::standing::standing;
use super::{Context, Exit, print_text};
use crate::health::{Health, Level, Loss, Upkeep};

/// Tells how all stands.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let (health, upkeep, _) = standing(context).await?;
    print_text(&line(&health, &upkeep, Utc::now()))?;
    Ok(match health.level() {
        Level::Good => Exit::Success,
        Level::Warning => Exit::CheckWarning,
        Level::Critical => Exit::CheckCritical,
        Level::Unknown => Exit::CheckUnknown,
    })
}

/// What stands behind the bar are the figures, each only where it is known.
fn line(health: &Health, upkeep: &Upkeep, now: DateTime<Utc>) -> String {
    let word = match health.level() {
        Level::Good => "OK",
        Level::Warning => "WARNING",
        Level::Critical => "CRITICAL",
        Level::Unknown => "UNKNOWN",
    };
    let mut reasons = health
        .reasons
        .iter()
        .map(|reason| reason.what.replace('|', "/"));
    let what = match (reasons.next(), reasons.count()) {
        (None, _) => format!("lost now: {}", health.loss),
        (Some(first), 0) => first,
        (Some(first), others) => format!("{first} (and {others} more)"),
    };
    let seconds = |since: DateTime<Utc>| (now - since).num_seconds().max(0);
    let loss = match health.loss {
        Loss::AtMost(span) => Some(format!("rpo={}s", span.num_seconds())),
        Loss::Everything | Loss::Unknown => None,
    };
    let dump = upkeep.dumps.iter().map(|dump| dump.time).max();
    let figures = [
        loss,
        health
            .backup
            .map(|at| format!("backup_age={}s", seconds(at))),
        dump.map(|at| format!("dump_age={}s", seconds(at))),
        upkeep
            .disk
            .map(|disk| format!("disk_used={}%", disk.percent())),
        Some(format!("problems={}", health.reasons.len())),
    ];
    let figures: Vec<String> = figures.into_iter().flatten().collect();
    format!("WALDEN {word} - {what} | {}\n", figures.join(" "))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::config::testing::health_limits;
    use crate::health::DiskUse;

    #[test]
    fn one_line_has_the_worst_and_the_figures_that_are_known() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(3);
        let good = Health {
            protected: None,
            loss: Loss::AtMost(TimeDelta::seconds(7)),
            backup: Some(DateTime::UNIX_EPOCH),
            beyond: 0,
            reasons: Vec::new(),
        };
        assert_eq!(
            line(&good, &Upkeep::default(), now),
            "WALDEN OK - lost now: at most 7 s | rpo=7s backup_age=10800s problems=0\n"
        );
        let upkeep = Upkeep {
            disk: Some(DiskUse {
                used_bytes: 99,
                free_bytes: 1,
            }),
            jobs_unknown: Some("a|b".into()),
            ..Upkeep::default()
        };
        let health = Health {
            loss: Loss::Unknown,
            backup: None,
            ..good
        };
        let told = line(&health.with(&upkeep, &health_limits(), now), &upkeep, now);
        assert!(
            told.starts_with("WALDEN CRITICAL - the repository's file system is 99 % full"),
            "{told}"
        );
        assert!(
            told.ends_with("(and 1 more) | disk_used=99% problems=2\n"),
            "{told}"
        );
    }
}
