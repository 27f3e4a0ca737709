use std::time::Instant;

use chrono::Utc;
use serde_json::Value;

use super::super::Exit;
use super::super::exit::WrongUsage;
use super::configuration::{PATIENCE, tell_settings, who_under};
use super::verdict;
use crate::config::Settings;
use crate::error::{find, hints, one_line};
use crate::evidence::record::{Act, Check, Evidence, Phase, Scope, Verdict};
use crate::postgres::cluster::Cluster;
use crate::storage::until;

/// What an act tells of itself when it is over.
#[derive(Debug, Default)]
pub struct Told {
    pub subject: String,
    /// How much of what there is it was about; absent where it is always whole.
    pub scope: Option<Scope>,
    pub phases: Vec<Phase>,
    pub checks: Vec<Check>,
    pub details: Value,
    /// How it ended, where its exit code and its error do not tell, and why.
    pub verdict: Option<Verdict>,
    pub reason: String,
    /// Nothing happened that anybody would look for later.
    pub is_nothing: bool,
}

impl Told {
    /// Adds a phase that is over.
    pub fn phase(&mut self, name: &str, seconds: f64) {
        let name = name.into();
        self.phases.push(Phase { name, seconds });
    }

    /// How it ended, and why.
    fn ending(&mut self, done: &anyhow::Result<Exit>) -> (Verdict, String) {
        let reason = std::mem::take(&mut self.reason);
        let or = |else_: &str| match reason.is_empty() {
            true => else_.to_string(),
            false => reason.clone(),
        };
        let (verdict, reason) = match done {
            Ok(Exit::Success) => (Verdict::Passed, reason),
            Ok(Exit::Refused) => (
                Verdict::CouldNotRun,
                or("refused before anything was begun"),
            ),
            Ok(_) => (Verdict::Failed, or("what was done is not as it should be")),
            Err(error) => (verdict::of_error(error), one_line(error)),
        };
        (self.verdict.unwrap_or(verdict), reason)
    }
}

/// Does something and keeps a record of how it ended. Where no record can be kept, that is told, and nothing else changes.
pub async fn recorded(
    settings: &Settings,
    cluster: &Cluster,
    act: Act,
    work: impl AsyncFnOnce(&mut Told) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let (began, clock, mut told) = (Utc::now(), Instant::now(), Told::default());
    let done = work(&mut told).await;
    let is_typo = |error| find::<WrongUsage>(error).is_some();
    if told.is_nothing && done.is_ok() || done.as_ref().is_err_and(is_typo) {
        return done;
    }
    let (verdict, reason) = told.ending(&done);
    let evidence = Evidence {
        act,
        subject: told.subject,
        scope: told.scope,
        began,
        ended: began + clock.elapsed(),
        verdict,
        reason,
        phases: told.phases,
        checks: told.checks,
        rto_seconds: None,
        rpo_seconds: None,
        details: told.details,
    };
    keep(settings, cluster, evidence).await;
    done
}

/// Keeps a record, and removes those that are too old. That it cannot be kept is told, and nothing else changes.
pub async fn keep(settings: &Settings, cluster: &Cluster, evidence: Evidence) {
    if let Err(error) = append(settings, cluster, evidence).await {
        tell("no record of this is kept", &error);
    }
}

/// The same. Errors: it cannot be kept.
pub async fn append(
    settings: &Settings,
    cluster: &Cluster,
    evidence: Evidence,
) -> anyhow::Result<()> {
    let are_told = tell_settings(settings, cluster, evidence.began).await;
    let (journal, mut who, ended) = (cluster.journal(), who_under(settings), evidence.ended);
    if !are_told {
        who.settings = None;
    }
    let deadline = Instant::now() + PATIENCE;
    let id = until(deadline.into(), journal.append(&who, evidence)).await?;
    tracing::debug!("kept as record {id}");
    if let Err(error) = journal.trim(&who, settings.evidence.keep, ended).await {
        tell(
            "this is recorded, but old records cannot be removed",
            &error,
        );
    }
    Ok(())
}

fn tell(what: &str, error: &anyhow::Error) {
    let hints = hints(error).concat();
    let hint = match hints.is_empty() {
        true => String::new(),
        false => format!("\nHINT: {hints}"),
    };
    tracing::warn!("{what}: {}{hint}", one_line(error));
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn what_an_act_says_of_its_end_comes_before_its_exit_code() {
        let ending = |verdict, reason: &str, done| {
            let reason = reason.into();
            let mut told = Told {
                verdict,
                reason,
                ..Told::default()
            };
            told.ending(&done)
        };
        let could_not = Verdict::CouldNotRun;
        assert_eq!(
            ending(None, "", Ok(Exit::Success)),
            (Verdict::Passed, String::new())
        );
        assert_eq!(ending(None, "", Ok(Exit::Unsound)).0, Verdict::Failed);
        assert_eq!(
            ending(None, "no backup", Ok(Exit::Refused)),
            (could_not, "no backup".into())
        );
        assert_eq!(
            ending(Some(could_not), "unread", Ok(Exit::Unsound)),
            (could_not, "unread".into())
        );
        assert_eq!(
            ending(None, "", Err(anyhow!("interrupted"))),
            (could_not, "interrupted".into())
        );
    }
}
