//! What is kept of an act. Pure.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codec::Digest;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// A restore by itself, with checks.
    Drill,
    Restore,
    DumpRestore,
    TableRecovery,
    /// Stored objects were read and compared with their digests.
    Verification,
    /// Something was deleted: by retention, or by hand.
    Deletion,
    /// Rows were counted on the source, for a drill to compare.
    Count,
    /// The settings in force became others.
    Configuration,
    /// Old records were removed.
    Trim,
    /// A newer Walden's.
    #[serde(other)]
    Other,
}

impl Act {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::Restore => "restore",
            Self::DumpRestore => "dump-restore",
            Self::TableRecovery => "table-recovery",
            Self::Verification => "verification",
            Self::Deletion => "deletion",
            Self::Count => "count",
            Self::Configuration => "configuration",
            Self::Trim => "trim",
            Self::Other => "other",
        }
    }
}

impl Act {
    /// The act of this name; `None`: none that is known.
    pub fn named(name: &str) -> Option<Self> {
        let act = serde_json::from_value(name.into()).ok();
        act.filter(|act| *act != Self::Other)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an act or a check of it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Passed,
    Failed,
    /// What it needs is missing here: neither a pass nor a fault of what was to be proven.
    CouldNotRun,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::CouldNotRun => "could not run",
        })
    }
}

/// A part of an act, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub seconds: f64,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// What was seen; with the reason unless it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub seen: String,
}

/// How much of what there is an act was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    Whole,
    /// A sample, the rest of an interrupted one, or some of the objects.
    Part,
    /// A newer Walden's.
    #[serde(other)]
    Other,
}

/// An act, as whoever did it tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub act: Act,
    /// What it was done to, for people: a backup, a dump, a folder.
    pub subject: String,
    /// Absent where an act is always whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    pub began: DateTime<Utc>,
    pub ended: DateTime<Utc>,
    pub verdict: Verdict,
    /// Why, unless it passed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Measured: from the order to what was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<f64>,
    /// Measured: how old the newest data was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<f64>,
    /// The plan, versions, digests of what was read: as the act has them.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The user of the operating system.
    pub user: String,
    pub host: String,
    /// The name of the HTTP token that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Under which settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsSeen>,
}

/// The settings in force, without their secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsSeen {
    /// The file, or `environment`.
    pub source: String,
    /// Of all that are not the default, with their values.
    pub digest: Digest,
}

impl Who {
    /// User and host, with nothing that a key cannot carry.
    pub fn name(&self) -> String {
        let safe = |text: &str| -> String {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let text: String = text
                .chars()
                .map(|c| if known(c) { c } else { '_' })
                .collect();
            text.trim_start_matches('.').chars().take(60).collect()
        };
        format!("{}-at-{}", safe(&self.user), safe(&self.host))
    }
}

/// The newest record of a chain that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub number: u64,
    /// Of the record's stored bytes.
    pub digest: Digest,
}

/// A record as it is stored. Its place in the chain is told by the digest of the one before it, and by those of the newest
/// records of other writers that were there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub writer: String,
    /// From 1, without holes.
    pub number: u64,
    /// Of the stored bytes of the record before; absent of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, Head>,
    /// Writers of which the newest record could not be read, and why: what they say then is not bound by this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<String, String>,
    pub who: Who,
    /// The version of Walden.
    pub walden: String,
    #[serde(flatten)]
    pub evidence: Evidence,
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// An act that passed.
    pub fn evidence(act: Act) -> Evidence {
        Evidence {
            act,
            subject: "something".into(),
            scope: None,
            began: DateTime::UNIX_EPOCH,
            ended: DateTime::UNIX_EPOCH,
            verdict: Verdict::Passed,
            reason: String::new(),
            phases: Vec::new(),
            checks: Vec::new(),
            rto_seconds: None,
            rpo_seconds: None,
            details: Value::Null,
        }
    }

    /// The first record of a writer.
    pub fn record(evidence: Evidence) -> Record {
        let (user, host) = ("postgres".to_string(), "db1".to_string());
        Record {
            writer: "postgres-at-db1".into(),
            number: 1,
            previous: None,
            others: BTreeMap::new(),
            unread: BTreeMap::new(),
            who: Who {
                user,
                host,
                token: None,
                settings: None,
            },
            walden: "1.0.0".into(),
            evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_a_part_of_a_key_whatever_users_and_hosts_are_called() {
        let writer = |user: &str, host: &str| {
            let (user, host) = (user.to_string(), host.to_string());
            Who {
                user,
                host,
                token: None,
                settings: None,
            }
            .name()
        };
        assert_eq!(writer("postgres", "db1.example"), "postgres-at-db1.example");
        for odd in ["", "..", "a/b", "DOM\\müller", &"x".repeat(300)] {
            let key = format!("main/evidence/{}/1", writer(odd, odd));
            crate::storage::Key::new(key).unwrap();
        }
    }

    #[test]
    fn a_newer_act_can_be_read() {
        let act: Act = serde_json::from_str("\"key-change\"").unwrap();
        assert_eq!(act, Act::Other);
        assert_eq!(
            serde_json::to_string(&Act::DumpRestore).unwrap(),
            "\"dump-restore\""
        );
    }
}
