//! What a restore puts on local disk: copies of dumps from a bucket, lists of entries. It holds what the database holds, so
//! nobody else may read it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::anyhow;

use super::target::free;
use crate::error::Hint;
use crate::postgres::dump::spool::Spool;

/// A folder for so many bytes. Errors: also that there is not so much room.
pub fn spool_for(folder: Option<&Path>, bytes: u64) -> anyhow::Result<Spool> {
    let spool = Spool::make(folder)?;
    match free(spool.path()).filter(|free| *free < bytes) {
        None => Ok(spool),
        Some(free) => Err(anyhow!(
            "there is not enough space beside \"{}\": {bytes} bytes are needed, {free} are free",
            spool.path().display()
        ))
        .hint("make room, or name another folder with `dump.spool`"),
    }
}

/// A file that is new, for this user alone.
pub fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
