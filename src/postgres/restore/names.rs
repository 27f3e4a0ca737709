//! Files of the data directory that several steps know.

use crate::postgres::backup::manifest::RESTORE_CONFIGURATION;

/// The file that makes a folder startable.
pub const PG_CONTROL: &str = "global/pg_control";
/// Lies in a folder while a restore writes into it.
pub const MARKER: &str = "walden-restore-unfinished";
/// Where the restored cluster finds the repository when no configuration file told it: relative, because the server
/// runs its commands in the data directory.
pub const CONFIGURATION: &str = RESTORE_CONFIGURATION;
/// The restored server's log, in its data directory, until it is started by other means.
pub const LOG: &str = "walden-restore.log";
