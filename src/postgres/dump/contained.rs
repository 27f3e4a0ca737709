use std::collections::{BTreeSet, HashSet};

use super::manifest::TableEntry;

/// Which tables a dump holds: an archive tells them by OID, SQL by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contained {
    relations: BTreeSet<u32>,
    rows: BTreeSet<u32>,
    named: HashSet<String>,
    named_rows: HashSet<String>,
}

impl Contained {
    /// The dump defines the relation of this OID.
    pub fn add(&mut self, oid: u32) {
        self.relations.insert(oid);
    }

    /// The dump holds its rows.
    pub fn add_rows_of(&mut self, oid: u32) {
        self.rows.insert(oid);
    }

    /// The same of a relation by [`spelled`].
    pub fn add_named(&mut self, spelled: String) {
        self.named.insert(spelled);
    }

    pub fn add_rows_of_named(&mut self, spelled: String) {
        self.named_rows.insert(spelled);
    }

    /// Whether the table's rows are in the dump; `None`: nothing of it is.
    pub fn has(&self, table: &TableEntry) -> Option<bool> {
        let spelled = spelled(&table.name, &table.schema);
        let rows = self.rows.contains(&table.oid) || self.named_rows.contains(&spelled);
        let defined = self.relations.contains(&table.oid) || self.named.contains(&spelled);
        (rows || defined).then_some(rows)
    }
}

/// A relation as `pg_dump` names it in comments: on one line.
pub fn spelled(name: &str, schema: &str) -> String {
    format!("{name}; {schema}").replace(['\n', '\r'], " ")
}
