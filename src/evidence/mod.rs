//! Records of what was done to a cluster's data and with what result: drills, restores, verifications, deletions. Knows no
//! source: whoever did it hands over values.
//!
//! [`record`] is what is kept of an act (pure), [`chain`] finds what was removed or changed since (pure),
//! [`settings`] finds what changed in the settings (pure), [`controls`] tells which controls of an audit they meet (pure), [`Journal`] stores and reads records.

pub mod chain;
pub mod controls;
mod journal;
mod recent;
pub mod record;
pub mod settings;

pub use journal::{Journal, LookBack, RecordId, RecordsCopied};
pub use recent::RecentActs;
