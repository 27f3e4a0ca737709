//! Relation files that transactions made, and whether they put anything in them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::event::EVENTS;
use super::fact::TransactionEnd;
use super::record::{RelFileLocator, Xid};

/// A main file that a transaction made for a relation. A file whose first page was written as a whole counts as made
/// there: its making may be in the segment before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub xid: Xid,
    pub file: RelFileLocator,
    /// The transaction put rows or whole pages in it, in this segment: TRUNCATE alone does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filled: bool,
    /// It put whole pages in it, as VACUUM FULL, CLUSTER and the making of an index do. INSERT, COPY and the rewrites of
    /// ALTER TABLE and REFRESH MATERIALIZED VIEW write rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pages: bool,
}

/// Notes files while records pass.
#[derive(Debug, Default)]
pub(super) struct Creations {
    created: Vec<Created>,
    left_out: u64,
    /// Files of transactions that are still open: their places in `created`.
    open: HashMap<RelFileLocator, usize>,
    /// Which transaction made them.
    made_by: HashMap<Xid, Vec<RelFileLocator>>,
}

impl Creations {
    /// A file was made.
    pub fn add(&mut self, xid: Xid, file: RelFileLocator) {
        if self.created.len() >= EVENTS {
            self.left_out += 1;
            return;
        }
        // Without a number the transaction's end will not be known: what comes into the file later may be another's.
        if xid != 0 {
            self.open.insert(file, self.created.len());
            self.made_by.entry(xid).or_default().push(file);
        }
        self.created.push(Created {
            xid,
            file,
            filled: false,
            pages: false,
        });
    }

    /// A row came into a file.
    pub fn row(&mut self, file: RelFileLocator) {
        if !self.open.is_empty()
            && let Some(index) = self.open.get(&file)
        {
            self.created[*index].filled = true;
        }
    }

    /// A whole page came into a file.
    pub fn page(&mut self, xid: Xid, file: RelFileLocator, block: u32) {
        if block == 0 && xid != 0 && !self.open.contains_key(&file) {
            self.add(xid, file);
        }
        if let Some(index) = self.open.get(&file) {
            (self.created[*index].filled, self.created[*index].pages) = (true, true);
        }
    }

    /// A transaction ended: others see its files from now on.
    pub fn end(&mut self, end: &TransactionEnd<'_>) {
        if self.made_by.is_empty() {
            return;
        }
        for xid in std::iter::once(end.xid).chain(end.subxids.iter()) {
            for file in self.made_by.remove(&xid).into_iter().flatten() {
                self.open.remove(&file);
            }
        }
    }

    /// What was noted, and how many files more there were.
    pub fn finish(self) -> (Vec<Created>, u64) {
        (self.created, self.left_out)
    }
}
