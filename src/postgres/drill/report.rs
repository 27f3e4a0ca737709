//! What a drill tells when it is over.

use std::path::PathBuf;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::canary::SeenCanary;
use crate::evidence::record::{Act, Check, Evidence, Phase, Verdict};

/// What a drill proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillKind {
    /// Base backups and WAL.
    Physical,
    Dump,
    /// The way of a dump, by known data: nothing of what is kept.
    RoundTrip,
}

impl DrillKind {
    /// Of a record of a drill.
    pub fn of(evidence: &Evidence) -> Self {
        let kind = serde_json::from_value(evidence.details["kind"].clone());
        kind.unwrap_or(match evidence.details.get("dump") {
            // Of a Walden that did not write it.
            Some(_) => Self::Dump,
            None => Self::Physical,
        })
    }
}

/// How a drill ended.
#[derive(Debug, Serialize)]
pub struct DrillReport {
    pub kind: DrillKind,
    /// What was restored, in words.
    pub target: String,
    pub verdict: Verdict,
    /// Why, unless it passed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub phases: Vec<Phase>,
    pub checks: Vec<Check>,
    /// From the order to a server that was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<f64>,
    /// How old the newest data was that could be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<f64>,
    /// The newest row of walden.canary that came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<SeenCanary>,
    /// Where the restored cluster is, if it was to stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
    pub bytes: u64,
    #[serde(skip)]
    pub began: DateTime<Utc>,
    /// When the work began.
    #[serde(skip)]
    pub clock: Instant,
    /// For the record: the plan, versions, digests.
    #[serde(skip)]
    pub details: Value,
}

impl DrillReport {
    /// Of one that begins now.
    pub fn begin(kind: DrillKind) -> Self {
        Self {
            kind,
            target: "nothing yet".into(),
            verdict: Verdict::CouldNotRun,
            reason: String::new(),
            phases: Vec::new(),
            checks: Vec::new(),
            rto_seconds: None,
            rpo_seconds: None,
            canary: None,
            kept: None,
            bytes: 0,
            began: Utc::now(),
            clock: Instant::now(),
            details: Value::Null,
        }
    }

    /// The record of it.
    pub fn evidence(&self, ended: DateTime<Utc>) -> Evidence {
        let mut details = match &self.details {
            Value::Null => json!({}),
            known => known.clone(),
        };
        if let Some(canary) = &self.canary {
            details["canary"] = json!(canary);
        }
        details["kind"] = json!(self.kind);
        Evidence {
            act: Act::Drill,
            subject: self.target.clone(),
            began: self.began,
            ended,
            verdict: self.verdict,
            reason: self.reason.clone(),
            phases: self.phases.clone(),
            checks: self.checks.clone(),
            scope: None,
            rto_seconds: self.rto_seconds,
            rpo_seconds: self.rpo_seconds,
            details,
        }
    }

    /// Adds a phase that is over.
    pub fn phase(&mut self, name: &str, seconds: f64) {
        let name = name.into();
        self.phases.push(Phase { name, seconds });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_drill_is_in_its_record_and_older_records_tell_it_by_what_they_have() {
        for kind in [DrillKind::Physical, DrillKind::Dump, DrillKind::RoundTrip] {
            let record = DrillReport::begin(kind).evidence(Utc::now());
            assert_eq!(DrillKind::of(&record), kind);
        }
        let mut older = DrillReport::begin(DrillKind::RoundTrip).evidence(Utc::now());
        for (details, kind) in [
            (json!({"dump": "shop/x"}), DrillKind::Dump),
            (json!({"backup": "x"}), DrillKind::Physical),
            (Value::Null, DrillKind::Physical),
        ] {
            older.details = details;
            assert_eq!(DrillKind::of(&older), kind);
        }
    }
}
