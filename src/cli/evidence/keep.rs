use std::time::Instant;

use chrono::Utc;
use serde_json::Value;

use super::super::Exit;
use super::journal;
use crate::config::Settings;
use crate::error::{hints, one_line};
use crate::evidence::record::{Act, Check, Evidence, Phase, Verdict, Who};
use crate::owner::Owner;
use crate::postgres::cluster::Cluster;

/// What an act tells of itself when it is over.
#[derive(Debug, Default)]
pub struct Told {
    pub subject: String,
    pub phases: Vec<Phase>,
    pub checks: Vec<Check>,
    pub details: Value,
    /// Nothing happened that anybody would look for later.
    pub is_nothing: bool,
}

impl Told {
    /// Adds a phase that is over.
    pub fn phase(&mut self, name: &str, seconds: f64) {
        let name = name.into();
        self.phases.push(Phase { name, seconds });
    }
}

/// Who runs this.
pub fn who() -> Who {
    let host = rustix::system::uname();
    Who {
        user: Owner::own().name(),
        host: host.nodename().to_string_lossy().into_owned(),
        token: None,
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
    if told.is_nothing && done.is_ok() {
        return done;
    }
    let (verdict, reason) = match &done {
        Ok(Exit::Success) => (Verdict::Passed, String::new()),
        // Nothing was begun.
        Ok(Exit::Refused) => return done,
        Ok(_) => (
            Verdict::Failed,
            "what was done is not as it should be".into(),
        ),
        Err(error) => (Verdict::Failed, one_line(error)),
    };
    let evidence = Evidence {
        act,
        subject: told.subject,
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

/// Keeps a record, and removes those that are too old.
pub async fn keep(settings: &Settings, cluster: &Cluster, evidence: Evidence) {
    let (journal, who, ended) = (journal(cluster), who(), evidence.ended);
    let kept = async {
        let id = journal.append(&who, evidence).await?;
        journal.trim(&who, settings.evidence.keep, ended).await?;
        anyhow::Ok(id)
    };
    match kept.await {
        Ok(id) => tracing::debug!("kept as record {id}"),
        Err(error) => {
            let hint = hints(&error).concat();
            let why = one_line(&error);
            tracing::warn!(
                "no record of this is kept: {why}{}{hint}",
                if hint.is_empty() { "" } else { "\nHINT: " }
            );
        }
    }
}
