//! Tests on real PostgreSQL, in one program, as each links the whole library.

#[path = "../harness/mod.rs"]
mod harness;

mod alert_rules;
mod alerts;
mod archive;
mod backup;
mod backup_crash;
mod check;
mod databases;
mod documents;
mod drill;
mod dump;
mod dump_restore;
mod errors;
mod events;
mod evidence;
mod expiry;
mod find;
mod foundation;
mod http;
mod init;
mod jobs;
mod left_out;
mod oracle;
mod owner;
mod place;
mod recover;
mod replication;
mod repo;
mod restore;
mod restored_settings;
mod s3;
mod small_disk;
mod standby;
mod strangers;
mod summaries;
mod wal;
mod whose;
