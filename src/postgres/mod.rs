//! PostgreSQL as a source of what is kept.

pub mod replication;
pub mod types;
