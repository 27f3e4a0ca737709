//! Restoring a base backup and having PostgreSQL replay to a target; one file a step: clean, files, recovery, finish,
//! start.

pub mod clean;
mod conf;
pub mod files;
mod queue;
mod reads;
