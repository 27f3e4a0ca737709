//! What is to happen at the target.

use serde::Serialize;

/// What the server does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAction {
    /// Open the cluster for writing, on a new timeline.
    Promote,
    /// Stay read-only until `pg_wal_replay_resume()`.
    Pause,
    /// Stop the server.
    Shutdown,
}

impl TargetAction {
    /// All, by the names that recovery_target_action has for them.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("promote", Self::Promote),
        ("pause", Self::Pause),
        ("shutdown", Self::Shutdown),
    ];

    /// The value of recovery_target_action.
    pub fn value(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, each)| *each == self)
            .map_or("promote", |(name, _)| name)
    }
}
