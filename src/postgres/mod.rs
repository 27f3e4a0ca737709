//! PostgreSQL as a source: everything that Walden knows of a server, its WAL and its backups.
//!
//! The folders have an order, from `types` and `wal` up to `planning` and `check`. Each may name those before it, so no
//! two of them import each other (`ORDER` in tests/tidy/layers.rs).

pub mod archive;
pub mod backup;
pub mod catalog;
pub mod check;
pub mod cluster;
pub mod command_line;
pub mod drill;
pub mod dump;
pub mod dump_restore;
pub mod expiry;
pub mod idle;
pub mod index;
pub mod layout;
pub mod lifecycle;
pub mod load;
pub mod names;
pub mod object_problem;
pub mod overview;
pub mod planning;
pub mod promotion;
pub mod protection;
pub mod recover;
pub mod replication;
pub mod repository;
pub mod restore;
pub mod types;
pub mod wal;
