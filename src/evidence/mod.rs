//! Records of what was done to a cluster's data and with what result: drills, restores, verifications, deletions. Knows no
//! source: whoever did it hands over values.
//!
//! [`record`] is what is kept of an act (pure), [`chain`] finds what was removed or changed since (pure),
//! [`settings`] finds what changed in the settings (pure), [`controls`] tells which controls of an audit they meet (pure), [`chart`] places what was
//! measured in a drawing (pure). [`Journal`] stores and reads records, [`LatestRecords`] keeps the newest in memory.

pub mod chain;
pub mod chart;
pub mod controls;
mod journal;
mod latest;
mod newest;
pub mod record;
pub mod settings;

pub use journal::{Journal, LookBack, RecordId, RecordsCopied};
pub use latest::LatestRecords;
