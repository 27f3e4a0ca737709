//! PostgreSQL as a source of what is kept.

pub mod archive;
pub mod backup;
pub mod catalog;
pub mod check;
pub mod cluster;
pub mod command_line;
pub mod idle;
pub mod index;
pub mod layout;
pub mod load;
pub mod names;
pub mod object_problem;
pub mod overview;
pub mod planning;
pub mod replication;
pub mod repository;
pub mod restore;
pub mod types;
pub mod wal;
