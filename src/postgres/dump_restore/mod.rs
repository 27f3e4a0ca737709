//! Restoring a logical dump: validate → create → fill → end connections → swap.
//!
//! `source` looks into a dump, `target` asks the server, `decide` compares the two: everything that speaks against it is told
//! before anything is done. The new database is built under a name of its own (`building`), filled by `pg_restore` or `psql`,
//! and takes the old one's place by a rename (`swap`). Whatever fails before that costs nothing: the old one stays as it is.

pub mod building;
pub mod decide;
pub mod digests;
mod files;
pub mod job;
pub mod kept;
pub mod names;
pub mod needs;
mod outcome;
pub mod phases;
mod plain;
pub mod program;
mod properties;
pub mod repository;
pub mod selection;
pub mod source;
pub mod sql;
mod swap;
pub mod target;
pub mod toc;
pub mod validate;
