//! Judges the archive by what can be restored, never by what was stored, and what is done beside archiving. Pure: here are all
//! rules; the check, `walden status`, `walden target`, the page, the API, the metrics and the alerts show the answer. The
//! settings have the limits.

mod judge;
mod proof;
mod rules;
mod sizes;
#[cfg(test)]
mod tests;
mod upkeep;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

pub use proof::{ActEnd, ActKind, SeenAct};
pub use rules::Rule;
pub use sizes::MOST as SIZES;
pub use upkeep::{DiskUse, NewestDump, RunCount, ScheduledJob, SeenJobs, Upkeep};

pub use crate::postgres::layout::DumpKind;
use crate::postgres::types::TimelineId;

/// Segments are stored several at a time, a later one may come first: what lies behind a gap counts from this age on.
pub const FRESH_GAP: TimeDelta = TimeDelta::seconds(10);

/// How good something is.
// The order is that of what is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Good,
    Warning,
    /// It could not be found out.
    Unknown,
    Critical,
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// How much would be lost now.
    Rpo,
    /// The base backups.
    Backup,
    /// The archived WAL.
    Recovery,
    /// The logical dumps.
    Dump,
    /// What runs by itself.
    Jobs,
    /// What was proven by drills, restores and verifications.
    Proof,
    /// The room that the repository has.
    Space,
    /// The certificate that HTTPS is answered with.
    Certificate,
}

impl Subject {
    /// All of them, with the names of the checks that tell them.
    pub const ALL: [(Self, &str); 8] = [
        (Self::Rpo, "rpo"),
        (Self::Backup, "backup"),
        (Self::Recovery, "recovery"),
        (Self::Dump, "dump"),
        (Self::Jobs, "jobs"),
        (Self::Proof, "proof"),
        (Self::Space, "space"),
        (Self::Certificate, "certificate"),
    ];

    /// The name of its check.
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(subject, _)| *subject == self)
            .map_or("", |(_, name)| name)
    }
}

/// Something that is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthReason {
    /// The rule that is broken; an alert has its name.
    pub rule: Rule,
    /// Which one breaks it, where there are several: a job, a database. Else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// The check of `walden check` that tells it, too.
    pub about: Subject,
    pub level: Level,
    pub what: String,
    /// The next step.
    pub next: String,
}

impl Rule {
    /// Whether only who knows what waits to be archived can judge it.
    pub fn is_of_waiting(self) -> bool {
        matches!(self, Self::WalWaits | Self::Backlog)
    }
}

impl HealthReason {
    fn new(rule: Rule, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            rule,
            of: String::new(),
            about: rule.about(),
            level: rule.level(),
            what: what.into(),
            next: next.into(),
        }
    }

    /// The same of one of several.
    fn of(self, of: &str) -> Self {
        let of = of.to_string();
        Self { of, ..self }
    }
}

/// Why it is known that everything until a moment can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// It is the last commit that can be restored.
    Commit,
    /// The server proved that nothing was committed since.
    Idle,
    /// A base backup ended, and no commit followed.
    Backup,
}

/// Until when everything can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Protected {
    pub timeline: TimelineId,
    pub until: DateTime<Utc>,
    pub evidence: Evidence,
}

/// How much would be lost now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// At most what was committed in this time.
    AtMost(TimeDelta),
    /// Nothing can be restored.
    Everything,
    /// It could not be found out.
    Unknown,
}

/// What is known of archiving by now, beside what is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub time: DateTime<Utc>,
    /// Finished files that wait.
    pub waiting: Option<u64>,
    /// Since when the oldest of them waits.
    pub waiting_since: Option<DateTime<Utc>>,
    /// When the last file could not be stored; `None`: the last one was.
    pub fails_since: Option<DateTime<Utc>>,
    /// When WAL of another server was refused last.
    pub refused_at: Option<DateTime<Utc>>,
}

impl From<DateTime<Utc>> for Now {
    fn from(time: DateTime<Utc>) -> Self {
        Self {
            time,
            waiting: None,
            waiting_since: None,
            fails_since: None,
            refused_at: None,
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Of the newest timeline.
    pub protected: Option<Protected>,
    pub loss: Loss,
    /// When the newest base backup ended that can be used.
    pub backup: Option<DateTime<Utc>>,
    /// Archived segments of the newest timeline that lie behind its last window: they cannot be restored.
    pub beyond: u64,
    /// The worst first.
    pub reasons: Vec<HealthReason>,
}

impl Health {
    /// The worst of all.
    pub fn level(&self) -> Level {
        self.reasons
            .iter()
            .map(|reason| reason.level)
            .max()
            .unwrap_or(Level::Good)
    }

    /// Whether a rule is broken.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.reasons.iter().any(|reason| reason.rule == rule)
    }

    /// The worst about one thing.
    pub fn level_of(&self, about: Subject) -> Level {
        self.about(about)
            .map(|reason| reason.level)
            .max()
            .unwrap_or(Level::Good)
    }

    /// What is not good about one thing, the worst first.
    pub fn about(&self, about: Subject) -> impl Iterator<Item = &HealthReason> {
        self.reasons
            .iter()
            .filter(move |reason| reason.about == about)
    }
}

/// The loss in words.
impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(span) => write!(f, "at most {}", words(*span)),
            Self::Everything => f.write_str("everything"),
            Self::Unknown => f.write_str("not known"),
        }
    }
}

/// A span for people, in its largest unit.
pub fn words(span: TimeDelta) -> String {
    match span.num_seconds().max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// A moment for people, to the second.
pub fn moment(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What to do about a backlog.
pub const BEHIND: &str = "if this does not shrink, look at the speed of the store, and at `wal.workers` and `wal.look_ahead`";
