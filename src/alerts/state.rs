//! What is known of alerts: what fires, who was told, and who has yet to be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::health::{DumpKind, Health, HealthReason, Level, Rule, Subject, Upkeep};

/// The newest form of the object.
pub const FORMAT: u32 = 1;

/// Seconds.
const STEP: i64 = 300;
/// Of a channel, after a failure.
pub const LONGEST_REST: TimeDelta = TimeDelta::minutes(30);
/// By so much the clocks of two hosts may differ.
pub const SKEW: TimeDelta = TimeDelta::minutes(5);
/// Nobody is silent for longer than that by mistake.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(30 * 86_400);

/// Rules of which the second is broken instead of the first when that gets worse.
pub const WORSE: [(&str, &str); 5] = [
    ("CertificateExpires", "CertificateExpired"),
    ("JobFailed", "JobFailsAgain"),
    ("DiskUsed", "DiskFull"),
    ("BackupSize", "BackupSmall"),
    ("DumpSize", "DumpSmall"),
];

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Critical,
}

impl Severity {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that is not good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The rule that is broken.
    pub rule: String,
    /// Which one breaks it, where there are several: a job, a channel. Else empty.
    pub of: String,
    /// What is judged: while that cannot be found out, what fires about it goes on.
    pub about: String,
    pub severity: Severity,
    /// It could not be found out; what a moment ago was not known is told later than others.
    pub is_unknown: bool,
    pub what: String,
    /// The next step.
    pub next: String,
}

impl Condition {
    /// The alert that it makes.
    pub fn id(&self) -> String {
        id(&self.rule, &self.of)
    }

    /// The alert, as it follows the one of that name before.
    pub fn alert(&self, known: Option<&Alert>, now: DateTime<Utc>) -> Alert {
        let before = known.filter(|known| known.fires());
        Alert {
            rule: self.rule.clone(),
            of: self.of.clone(),
            about: self.about.clone(),
            severity: self.severity,
            what: self.what.clone(),
            next: self.next.clone(),
            since: before.map_or(now, |before| before.since),
            resolved_at: None,
            told_at: known.and_then(|known| known.told_at),
            is_told: before.is_some_and(|before| before.is_told),
            owed: before.map(|before| before.owed.clone()).unwrap_or_default(),
            heard: before
                .map(|before| before.heard.clone())
                .unwrap_or_default(),
        }
    }
}

/// The name of an alert.
pub fn id(rule: &str, of: &str) -> String {
    match of {
        "" => rule.to_string(),
        of => format!("{rule}/{of}"),
    }
}

impl From<&HealthReason> for Condition {
    fn from(reason: &HealthReason) -> Self {
        Self {
            rule: reason.rule.name().to_string(),
            of: reason.of.clone(),
            about: reason.about.name().to_string(),
            severity: match reason.level {
                Level::Critical => Severity::Critical,
                Level::Good | Level::Warning | Level::Unknown => Severity::Warning,
            },
            is_unknown: reason.level == Level::Unknown,
            what: reason.what.clone(),
            next: reason.next.clone(),
        }
    }
}

/// What was found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub conditions: Vec<Condition>,
    /// Rules that nobody can judge now: what fires of them goes on.
    pub unjudged: BTreeSet<String>,
    /// When something succeeded last, by what it is: what heartbeats tell.
    pub successes: BTreeMap<String, DateTime<Utc>>,
}

impl Seen {
    /// What is not good, as it was judged, and what succeeded. `knows_waiting`: what waits to be archived is known.
    pub fn of(health: &Health, upkeep: &Upkeep, knows_waiting: bool, now: DateTime<Utc>) -> Self {
        let jobs = upkeep.jobs.iter();
        let jobs = jobs.filter_map(|job| Some((job.name.clone(), job.succeeded_at?)));
        let mut successes: BTreeMap<String, DateTime<Utc>> = jobs.collect();
        let dump = |kind| Some(upkeep.newest(kind)?.time);
        // Also what no job made.
        for (name, time) in [
            ("backup", health.backup),
            ("dump", dump(DumpKind::Full)),
            ("schema-dump", dump(DumpKind::Schema)),
        ] {
            if let Some(time) = time {
                let known = successes.entry(name.to_string()).or_insert(time);
                *known = time.max(*known);
            }
        }
        // What goes on all the time is told every few minutes.
        let step = now.timestamp().rem_euclid(STEP);
        let now = now - TimeDelta::seconds(step);
        let is_bad = |about| health.level_of(about) > Level::Warning;
        if ![Subject::Rpo, Subject::Recovery].into_iter().any(is_bad) {
            successes.insert("archive".into(), now);
        }
        successes.insert("alerts".into(), now);
        let all = Rule::ALL.iter();
        let unjudged = all.filter(|rule| rule.is_of_waiting() && !knows_waiting);
        Self {
            conditions: health.reasons.iter().map(Condition::from).collect(),
            unjudged: unjudged.map(|rule| rule.name().to_string()).collect(),
            successes,
        }
    }
}

/// A rule that was broken, and whom that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    #[schema(example = "JobFailed")]
    pub rule: String,
    /// Which one breaks it, where there are several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "dump")]
    pub of: String,
    pub about: String,
    pub severity: Severity,
    pub what: String,
    pub next: String,
    /// Since when the rule is broken.
    pub since: DateTime<Utc>,
    /// When it was not broken any more; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
    /// When people were told last that it is broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<DateTime<Utc>>,
    /// Whether they were told since it is broken.
    #[serde(default)]
    pub is_told: bool,
    /// Channels that have yet to be told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub owed: BTreeSet<String>,
    /// Channels that were told, or owed it, since it is broken: they are told when it is over.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub heard: BTreeSet<String>,
}

impl Alert {
    pub fn id(&self) -> String {
        id(&self.rule, &self.of)
    }

    /// Whether the rule is broken.
    pub fn fires(&self) -> bool {
        self.resolved_at.is_none()
    }
}

/// A channel whose last messages did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChannelTrouble {
    /// In a row.
    pub failures: u32,
    pub since: DateTime<Utc>,
    /// Not before this it is tried again.
    pub next_try: DateTime<Utc>,
    pub why: String,
    /// Alerts that it answered to and did not take; others do not wait for them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub refused: BTreeSet<String>,
}

/// Somebody does not want to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Silence {
    pub until: DateTime<Utc>,
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Who tells people now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Of the process.
    pub id: String,
    pub host: String,
}

/// All of it, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertState {
    pub format: u32,
    /// By their names.
    #[serde(default)]
    pub alerts: BTreeMap<String, Alert>,
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelTrouble>,
    /// By the name of an alert, or of a rule for all of its alerts.
    #[serde(default)]
    pub silences: BTreeMap<String, Silence>,
    /// Successes that were told last, by heartbeat.
    #[serde(default)]
    pub heartbeats: BTreeMap<String, DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
}

impl Default for AlertState {
    fn default() -> Self {
        Self {
            format: FORMAT,
            alerts: BTreeMap::new(),
            channels: BTreeMap::new(),
            silences: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            sender: None,
        }
    }
}

impl AlertState {
    /// As if no clock had ever been ahead: else nobody would be told until that time comes.
    pub fn not_ahead(&self, now: DateTime<Utc>) -> Self {
        let mut next = self.clone();
        for alert in next.alerts.values_mut() {
            alert.since = alert.since.min(now);
            alert.told_at = alert.told_at.map(|told| told.min(now));
            alert.resolved_at = alert.resolved_at.map(|over| over.min(now));
        }
        for trouble in next.channels.values_mut() {
            trouble.since = trouble.since.min(now);
            trouble.next_try = trouble.next_try.min(now + LONGEST_REST);
        }
        for silence in next.silences.values_mut() {
            silence.until = silence.until.min(now + LONGEST_SILENCE);
        }
        next.heartbeats.retain(|_, told| *told <= now + SKEW);
        next
    }

    /// What fires, the worst and oldest first.
    pub fn firing(&self) -> Vec<&Alert> {
        let mut firing: Vec<&Alert> = self.alerts.values().filter(|alert| alert.fires()).collect();
        firing.sort_by_key(|alert| (std::cmp::Reverse(alert.severity), alert.since));
        firing
    }

    /// Until when nobody is to be told of an alert, and by whom.
    pub fn silence(&self, alert: &Alert, now: DateTime<Utc>) -> Option<&Silence> {
        let of = |name: &str| {
            self.silences
                .get(name)
                .filter(|silence| silence.until > now)
        };
        of(&alert.id()).or_else(|| of(&alert.rule))
    }
}
