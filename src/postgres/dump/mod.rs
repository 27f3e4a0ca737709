//! Logical dumps: `pg_dump`'s output in the repository, with all that restoring it elsewhere must know.
//!
//! A dump exists if and only if its manifest does, which is stored last. What was interrupted has none and is a leftover.

pub mod digest;
pub mod list;
pub mod manifest;
