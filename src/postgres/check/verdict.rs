//! What checks are called and what they answer.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

use crate::error::{hints, one_line};
use crate::health::{HealthReason, Level};

/// A check; in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Configuration,
    Repository,
    Writable,
    CreateOnly,
    CreateOnlyLarge,
    Clock,
    Encryption,
    Lifecycle,
    Space,
    Owner,
    Place,
    Server,
    Identity,
    WalLevel,
    ArchiveMode,
    ArchiveCommand,
    ArchiveTimeout,
    FullPageWrites,
    Privileges,
    Replication,
    Hook,
    Service,
    Certificate,
    EndToEnd,
    Archiver,
    Dump,
    Jobs,
    Proof,
    Backup,
    Recovery,
    Rpo,
}

impl Check {
    /// All of them with their names and what they ask.
    pub const ALL: &[(Self, &'static str, &'static str)] = &[
        (
            Self::Configuration,
            "configuration",
            "Are the settings understood, and safe from other users?",
        ),
        (
            Self::Repository,
            "repository",
            "Can the repository be reached, and is it one?",
        ),
        (
            Self::Writable,
            "writable",
            "Can objects be stored, read back, listed and deleted?",
        ),
        (
            Self::CreateOnly,
            "create-only",
            "Does what is stored stay, whoever else stores under its name?",
        ),
        (
            Self::CreateOnlyLarge,
            "create-only-large",
            "The same for objects that the store takes in parts?",
        ),
        (
            Self::Clock,
            "clock",
            "Do the store and this machine agree on the time?",
        ),
        (
            Self::Encryption,
            "encryption",
            "Does the store encrypt what it keeps?",
        ),
        (
            Self::Lifecycle,
            "lifecycle",
            "Does the bucket leave alone what a restore needs at once?",
        ),
        (
            Self::Space,
            "space",
            "Has the repository's file system room for what comes?",
        ),
        (
            Self::Owner,
            "owner",
            "Does all in the repository belong to one user, the server's?",
        ),
        (
            Self::Place,
            "place",
            "Does the repository lie apart from what it protects?",
        ),
        (
            Self::Server,
            "server",
            "Does PostgreSQL answer, in a version that is supported?",
        ),
        (
            Self::Identity,
            "identity",
            "Is it the cluster that is registered in the repository?",
        ),
        (
            Self::WalLevel,
            "wal-level",
            "Does the WAL hold what a restore needs?",
        ),
        (
            Self::ArchiveMode,
            "archive-mode",
            "Does the server archive?",
        ),
        (
            Self::ArchiveCommand,
            "archive-command",
            "Does it archive with Walden?",
        ),
        (
            Self::ArchiveTimeout,
            "archive-timeout",
            "How old can what is not archived become?",
        ),
        (
            Self::FullPageWrites,
            "full-page-writes",
            "Can torn pages be repaired from WAL?",
        ),
        (
            Self::Privileges,
            "privileges",
            "May the role do what Walden does?",
        ),
        (
            Self::Replication,
            "replication",
            "Is there a way in, and a free WAL sender, for base backups?",
        ),
        (
            Self::Hook,
            "hook",
            "Can the server's user run the program of archive_command?",
        ),
        (
            Self::Service,
            "service",
            "Does `walden serve` answer the hooks?",
        ),
        (
            Self::Certificate,
            "certificate",
            "Will the certificate of HTTPS be valid for some time?",
        ),
        (
            Self::EndToEnd,
            "end-to-end",
            "Does a WAL file that is written now arrive, and come back the same?",
        ),
        (
            Self::Archiver,
            "archiver",
            "Does the server's archiver keep up?",
        ),
        (
            Self::Dump,
            "dump",
            "Are logical dumps taken as often as is scheduled?",
        ),
        (
            Self::Jobs,
            "jobs",
            "Does what is scheduled run, and succeed?",
        ),
        (
            Self::Proof,
            "proof",
            "Did restores and verifications pass lately?",
        ),
        (
            Self::Backup,
            "backup",
            "Is there a base backup that can be used, and is it new?",
        ),
        (
            Self::Recovery,
            "recovery",
            "Can all WAL be restored that is archived?",
        ),
        (
            Self::Rpo,
            "rpo",
            "How much would be lost if the server were lost now?",
        ),
    ];

    /// Its name, for `--check` and for documents.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(check, ..)| *check == self)
            .map_or("", |(_, name, _)| name)
    }

    pub(super) fn ok(self, message: impl Into<String>) -> Verdict {
        self.verdict(CheckStatus::Ok, message)
    }

    pub(super) fn warning(self, message: impl Into<String>) -> Verdict {
        self.verdict(CheckStatus::Warning, message)
    }

    pub(super) fn critical(self, message: impl Into<String>) -> Verdict {
        self.verdict(CheckStatus::Critical, message)
    }

    pub(super) fn unknown(self, message: impl Into<String>) -> Verdict {
        self.verdict(CheckStatus::Unknown, message)
    }

    pub(super) fn skipped(self, message: impl Into<String>) -> Verdict {
        self.verdict(CheckStatus::Skipped, message)
    }

    /// By the rules: what is not good, the worst first; else that it is good.
    pub(super) fn judged(self, reasons: &[&HealthReason], good: String) -> Verdict {
        let mut reasons = reasons.to_vec();
        reasons.sort_by_key(|reason| Reverse(reason.level));
        let Some(worst) = reasons.first() else {
            return self.ok(good);
        };
        let status = match worst.level {
            Level::Good => CheckStatus::Ok,
            Level::Warning => CheckStatus::Warning,
            Level::Unknown => CheckStatus::Unknown,
            Level::Critical => CheckStatus::Critical,
        };
        let all: Vec<&str> = reasons.iter().map(|reason| reason.what.as_str()).collect();
        self.verdict(status, all.join("; ")).hint(&*worst.next)
    }

    /// Cannot be decided because another check failed.
    pub(super) fn because(self, other: Self) -> Verdict {
        let message = format!("not known, because of \"{}\"", other.name());
        Verdict {
            because: Some(other),
            ..self.verdict(CheckStatus::Unknown, message)
        }
    }

    /// Looking at it failed, and what was looked at must work.
    pub(super) fn failed(self, error: &CheckError) -> Verdict {
        Verdict {
            hint: error.hint.clone(),
            ..self.verdict(CheckStatus::Critical, &*error.what)
        }
    }

    fn verdict(self, status: CheckStatus, message: impl Into<String>) -> Verdict {
        Verdict {
            check: self,
            status,
            message: message.into(),
            hint: None,
            because: None,
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How it is. The order is that of what is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Does not apply, or was not asked for; says nothing.
    Skipped,
    Ok,
    Warning,
    /// Could not be found out: it may be as bad as can be.
    Unknown,
    Critical,
}

/// One check's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    #[serde(rename = "name")]
    pub check: Check,
    pub status: CheckStatus,
    /// One line.
    pub message: String,
    /// The next step, or advice.
    pub hint: Option<String>,
    /// The check that failed before this one could be decided.
    pub because: Option<Check>,
}

impl Verdict {
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

/// The worst of all. What does not apply is no failure, so that servers that change roles are watched in the same way.
pub fn overall(verdicts: &[Verdict]) -> CheckStatus {
    verdicts
        .iter()
        .map(|verdict| verdict.status)
        .max()
        .unwrap_or(CheckStatus::Ok)
        .max(CheckStatus::Ok)
}

/// The verdicts asked for, and those because of which they could not be decided, in order.
pub(super) fn chosen(verdicts: Vec<Verdict>, asked: &BTreeSet<Check>) -> Vec<Verdict> {
    let mut wanted = asked.clone();
    while let Some(cause) = verdicts
        .iter()
        .filter(|verdict| wanted.contains(&verdict.check))
        .find_map(|verdict| verdict.because.filter(|cause| !wanted.contains(cause)))
    {
        wanted.insert(cause);
    }
    let mut chosen: Vec<Verdict> = verdicts
        .into_iter()
        .filter(|verdict| asked.is_empty() || wanted.contains(&verdict.check))
        .collect();
    chosen.sort_by_key(|verdict| verdict.check);
    chosen
}

/// Why something could not be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckError {
    pub what: String,
    pub hint: Option<String>,
}

impl From<&anyhow::Error> for CheckError {
    fn from(error: &anyhow::Error) -> Self {
        // The innermost knows most.
        let hint = hints(error)
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            what: one_line(error),
            hint: (!hint.is_empty()).then_some(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_its_place_in_the_table() {
        for (place, (check, name, _)) in Check::ALL.iter().enumerate() {
            assert_eq!((*check as usize, check.name()), (place, *name));
        }
        assert_eq!(Check::ALL.len(), Check::Rpo as usize + 1);
    }

    #[test]
    fn the_worst_wins_and_what_is_not_known_may_be_worse_than_a_warning() {
        let all = |statuses: &[CheckStatus]| {
            overall(
                &statuses
                    .iter()
                    .map(|status| Check::Clock.verdict(*status, ""))
                    .collect::<Vec<_>>(),
            )
        };
        use CheckStatus::*;
        assert_eq!(all(&[Ok, Skipped]), Ok);
        assert_eq!(all(&[Ok, Warning, Skipped]), Warning);
        assert_eq!(all(&[Unknown, Warning]), Unknown);
        assert_eq!(all(&[Critical, Unknown, Warning, Ok]), Critical);
        assert_eq!(all(&[Skipped]), Ok);
    }

    #[test]
    fn what_was_asked_for_comes_with_its_causes() {
        let verdicts = vec![
            Check::Archiver.because(Check::Server),
            Check::Server.critical("down"),
            Check::Repository.ok("there"),
        ];
        let names = |asked: &[Check]| {
            let chosen = chosen(verdicts.clone(), &asked.iter().copied().collect());
            chosen
                .iter()
                .map(|verdict| verdict.check)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&[Check::Archiver]), [Check::Server, Check::Archiver]);
        assert_eq!(names(&[Check::Repository]), [Check::Repository]);
        assert_eq!(
            names(&[]),
            [Check::Repository, Check::Server, Check::Archiver]
        );
    }
}
