//! How it stands.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::health::{self, Health};

/// How good something is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Good,
    Warning,
    /// It could not be found out.
    Unknown,
    Critical,
}

impl From<health::Level> for Level {
    fn from(level: health::Level) -> Self {
        match level {
            health::Level::Good => Self::Good,
            health::Level::Warning => Self::Warning,
            health::Level::Unknown => Self::Unknown,
            health::Level::Critical => Self::Critical,
        }
    }
}

/// The recovery point objective as it is now: how much work would be gone if the server were.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rpo {
    level: Level,
    /// Up to here everything that was committed can be restored, on the newest timeline. What was committed later exists on
    /// the server alone, or in WAL that cannot be restored. Absent when it is not known, or nothing can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    protected_until: Option<DateTime<Utc>>,
    /// Why that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    evidence: Option<Evidence>,
    /// Seconds since then. A server that commits nothing loses nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seconds: Option<f64>,
}

/// Why it is known that everything until a moment can be restored.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// It is the last commit that can be restored.
    Commit,
    /// The server proved that nothing was committed since.
    Quiet,
    /// A base backup ended, and no commit followed.
    Backup,
}

impl From<&Health> for Rpo {
    fn from(health: &Health) -> Self {
        let evidence = |protected: health::Protected| match protected.evidence {
            health::Evidence::Commit => Evidence::Commit,
            health::Evidence::Quiet => Evidence::Quiet,
            health::Evidence::Backup => Evidence::Backup,
        };
        Self {
            level: health.level_of(health::Subject::Rpo).into(),
            protected_until: health.protected.map(|protected| protected.until),
            evidence: health.protected.map(evidence),
            seconds: match health.loss {
                health::Loss::AtMost(span) => Some(span.as_seconds_f64()),
                _ => None,
            },
        }
    }
}

/// How it stands, as `walden check` tells it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Standing {
    level: Level,
    /// What is not good, the worst first.
    problems: Vec<Trouble>,
}

/// Something that is not good.
#[derive(Debug, Serialize, ToSchema)]
pub struct Trouble {
    /// The check of `walden check` that tells it, too.
    about: About,
    level: Level,
    what: String,
    /// The next step.
    next: String,
}

/// What is judged.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum About {
    /// How much would be lost now.
    Rpo,
    /// The base backups.
    Backup,
    /// The archived WAL.
    Recovery,
}

impl From<&Health> for Standing {
    fn from(health: &Health) -> Self {
        let about = |about| match about {
            health::Subject::Rpo => About::Rpo,
            health::Subject::Backup => About::Backup,
            health::Subject::Recovery => About::Recovery,
        };
        let problem = |reason: &health::Reason| Trouble {
            about: about(reason.about),
            level: reason.level.into(),
            what: reason.what.clone(),
            next: reason.next.clone(),
        };
        Self { level: health.level().into(), problems: health.reasons.iter().map(problem).collect() }
    }
}
