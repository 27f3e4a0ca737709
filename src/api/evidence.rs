use chrono::{DateTime, Utc};

use crate::evidence::record::{Check, Phase, Record, Scope, Verdict};

answer! {
    /// What was done, as a record keeps it; `walden evidence show` has its details.
    pub struct EvidenceRecord {
        /// The user, the host and the repository: each has records of its own.
        writer: String,
        /// From 1.
        number: u64,
        who: Actor,
        /// The version of Walden.
        walden: String,
        /// `drill`, `restore`, `dump-restore`, `table-recovery`, `verification`, `deletion`, `configuration`, `trim` or `other`.
        act: String,
        /// What it was done to, for people.
        subject: String,
        /// `whole` or `part`; absent where an act is always whole.
        scope?: &'static str,
        began: DateTime<Utc>,
        ended: DateTime<Utc>,
        /// `passed`, `failed` or `could-not-run`.
        verdict: &'static str,
        /// Why, unless it passed.
        reason?: String,
        phases: Vec<ActPhase>,
        checks: Vec<ActCheck>,
        /// From the order to what was wanted, measured.
        rto_seconds?: f64,
        /// How old the newest data was, measured.
        rpo_seconds?: f64,
    }

    /// Who did it.
    pub struct Actor {
        /// Of the operating system.
        user: String,
        host: String,
        /// The name of the token, of what was asked for over HTTP.
        token?: String,
    }

    /// A part of an act, and how long it took.
    pub struct ActPhase {
        name: String,
        seconds: f64,
    }

    /// One thing that was looked at.
    pub struct ActCheck {
        name: String,
        /// `passed`, `failed` or `could-not-run`.
        verdict: &'static str,
        /// What was seen.
        seen?: String,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::CouldNotRun => "could-not-run",
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

impl From<&Record> for EvidenceRecord {
    fn from(record: &Record) -> Self {
        let (who, evidence) = (&record.who, &record.evidence);
        let phase = |phase: &Phase| ActPhase {
            name: phase.name.clone(),
            seconds: phase.seconds,
        };
        let check = |check: &Check| ActCheck {
            name: check.name.clone(),
            verdict: word(check.verdict),
            seen: some(&check.seen),
        };
        Self {
            writer: record.writer.clone(),
            number: record.number,
            who: Actor {
                user: who.user.clone(),
                host: who.host.clone(),
                token: who.token.clone(),
            },
            walden: record.walden.clone(),
            act: evidence.act.to_string(),
            subject: evidence.subject.clone(),
            scope: evidence.scope.map(|scope| match scope {
                Scope::Whole => "whole",
                Scope::Part | Scope::Other => "part",
            }),
            began: evidence.began,
            ended: evidence.ended,
            verdict: word(evidence.verdict),
            reason: some(&evidence.reason),
            phases: evidence.phases.iter().map(phase).collect(),
            checks: evidence.checks.iter().map(check).collect(),
            rto_seconds: evidence.rto_seconds,
            rpo_seconds: evidence.rpo_seconds,
        }
    }
}
