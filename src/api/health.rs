//! How it stands.

use chrono::{DateTime, Utc};

use crate::health::{Evidence, Health, HealthReason, Level, Loss, Subject};

answer! {
    /// The recovery point objective as it is now: how much work would be gone if the server were.
    pub struct Rpo {
        level: Level,
        /// Up to here everything that was committed can be restored, on the newest timeline. What was committed later exists on
        /// the server alone, or in WAL that cannot be restored. Absent when it is not known, or nothing can be restored.
        protected_until?: DateTime<Utc>,
        /// Why that is known.
        evidence?: Evidence,
        /// Seconds since then. A server that commits nothing loses nothing.
        seconds?: f64,
    }
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

answer! {
    /// How it stands, as `walden check` tells it.
    pub struct Standing {
        level: Level,
        /// What is not good, the worst first.
        problems: Vec<HealthReason>,
    }
}

impl From<&Health> for Standing {
    fn from(health: &Health) -> Self {
        Self {
            level: health.level(),
            problems: health.reasons.clone(),
        }
    }
}
