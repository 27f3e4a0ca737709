//! Tablespaces that are made while WAL is replayed.

use serde::{Deserialize, Serialize};

use crate::postgres::types::Lsn;

/// CREATE TABLESPACE at a place outside the data directory. Replay makes it at that very place, whatever machine and
/// cluster it runs for (tablespace.c, create_tablespace_directories).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceMade {
    pub lsn: Lsn,
    pub oid: u32,
    pub location: String,
}

/// Those of one segment, in their order. A summary without this member was made by a Walden that did not look for them:
/// it is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespaces {
    pub made: Vec<TablespaceMade>,
    /// Those that there was no room for.
    pub left_out: u64,
}

/// Listed at most: nobody makes that many.
const LISTED: usize = 32;

impl Tablespaces {
    pub(super) fn add(&mut self, lsn: Lsn, oid: u32, location: &[u8]) {
        // In the data directory itself: allow_in_place_tablespaces.
        if location.is_empty() {
            return;
        }
        if self.made.len() == LISTED {
            self.left_out += 1;
            return;
        }
        self.made.push(TablespaceMade {
            lsn,
            oid,
            location: String::from_utf8_lossy(location).into_owned(),
        });
    }
}
