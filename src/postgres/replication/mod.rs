//! Connections to PostgreSQL: the replication protocol, and SQL by the simple query protocol.

pub mod conninfo;
