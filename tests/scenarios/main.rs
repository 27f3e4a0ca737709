//! Scenarios on real PostgreSQL, every major there is.

#[path = "../harness/mod.rs"]
mod harness;

mod archive;
mod backup;
mod backup_crash;
mod check;
mod databases;
mod documents;
mod errors;
mod events;
mod find;
mod foundation;
mod http;
mod init;
mod left_out;
mod oracle;
mod owner;
mod place;
mod repo;
mod restore;
mod restored_settings;
mod s3;
mod standby;
mod strangers;
mod summaries;
mod whose;
