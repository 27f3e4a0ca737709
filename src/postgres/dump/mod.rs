//! Logical dumps: `pg_dump`'s output in the repository, with all that restoring it elsewhere must know.
//!
//! A dump exists if and only if its manifest does, which is stored last. What was interrupted has none and is a leftover.

pub mod archive;
pub mod cleanup;
pub mod command;
pub mod contained;
pub mod delete;
pub mod digest;
mod directory;
pub mod export;
pub mod facts;
pub mod latest;
pub mod list;
pub mod manifest;
pub mod messages;
pub mod newest;
mod one;
mod output;
pub mod programs;
pub mod progress;
pub mod proof;
pub mod read_back;
mod script;
pub mod spool;
pub mod started;
pub mod take;
#[cfg(test)]
pub mod testing;
