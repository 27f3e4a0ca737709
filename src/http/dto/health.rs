//! How it stands.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::health::{Evidence, Health, HealthReason, Level, Loss, Subject};

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

impl From<&Health> for Rpo {
    fn from(health: &Health) -> Self {
        Self {
            level: health.level_of(Subject::Rpo),
            protected_until: health.protected.map(|protected| protected.until),
            evidence: health.protected.map(|protected| protected.evidence),
            seconds: match health.loss {
                Loss::AtMost(span) => Some(span.as_seconds_f64()),
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
    problems: Vec<HealthReason>,
}

impl From<&Health> for Standing {
    fn from(health: &Health) -> Self {
        Self { level: health.level(), problems: health.reasons.clone() }
    }
}
