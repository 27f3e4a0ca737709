//! Scenarios on real PostgreSQL, every major there is.

#[path = "../harness/mod.rs"]
mod harness;

mod archive;
mod errors;
mod foundation;
mod oracle;
