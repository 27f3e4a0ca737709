//! Which entries of an archive make some of its tables: each table with all that it needs and all that is attached to it.
//! `pg_restore --table` brings the bare table, without its indexes, its sequences or the types of its columns. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::toc::TocEntry;

/// What can be asked for by name.
const RELATIONS: &[&str] = &[
    "TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "FOREIGN TABLE",
    "SEQUENCE",
];
/// What comes with a relation that it belongs to.
const ATTACHED: &[&str] = &[
    "ACL",
    "CHECK CONSTRAINT",
    "COMMENT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW DATA",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS",
    "STATISTICS DATA",
    "TABLE ATTACH",
    "TABLE DATA",
    "TRIGGER",
];
/// What an attached entry may not be without.
const PARTS: &[&str] = &["INDEX", "CONSTRAINT"];

/// Chosen entries by their identifiers. Errors: the tables that the archive does not have.
pub fn select(entries: &[TocEntry], tables: &[String]) -> Result<BTreeSet<i64>, Vec<String>> {
    let mut selection = Selection::of(entries);
    let mut missing = Vec::new();
    for table in tables {
        let found: Vec<i64> = entries
            .iter()
            .filter(|entry| RELATIONS.contains(&entry.kind().as_ref()) && is_named(entry, table))
            .map(|entry| entry.id)
            .collect();
        if found.is_empty() {
            missing.push(table.clone());
        }
        found.into_iter().for_each(|id| selection.add(id));
    }
    if !missing.is_empty() {
        return Err(missing);
    }
    Ok(selection.with_attached(entries))
}

/// These entries with all that they need and all that is attached to them.
pub fn around(entries: &[TocEntry], wanted: &BTreeSet<i64>) -> BTreeSet<i64> {
    let mut selection = Selection::of(entries);
    wanted.iter().for_each(|id| selection.add(*id));
    selection.with_attached(entries)
}

/// Whether `TABLE` or `SCHEMA.TABLE` means this entry.
fn is_named(entry: &TocEntry, name: &str) -> bool {
    let (tag, schema) = (entry.tag(), entry.schema());
    name == tag
        || name
            .strip_suffix(tag.as_ref())
            .and_then(|rest| rest.strip_suffix('.'))
            == Some(&schema)
}

struct Selection<'a> {
    by_id: BTreeMap<i64, &'a TocEntry>,
    chosen: BTreeSet<i64>,
}

impl<'a> Selection<'a> {
    fn of(entries: &'a [TocEntry]) -> Self {
        let by_id = entries
            .iter()
            .filter(|entry| !entry.is_of_database())
            .map(|entry| (entry.id, entry));
        Self {
            by_id: by_id.collect(),
            chosen: BTreeSet::new(),
        }
    }

    fn with_attached(mut self, entries: &[TocEntry]) -> BTreeSet<i64> {
        while self.attach(entries) {}
        self.chosen
    }

    /// Chooses an entry and all that it needs.
    fn add(&mut self, id: i64) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            if let Some(entry) = self.by_id.get(&id).copied()
                && self.chosen.insert(id)
            {
                waiting.extend(entry.dependencies());
            }
        }
    }

    /// Chooses what is attached to chosen entries; false: there is nothing more.
    fn attach(&mut self, entries: &[TocEntry]) -> bool {
        let before = self.chosen.len();
        for entry in entries
            .iter()
            .filter(|entry| ATTACHED.contains(&entry.kind().as_ref()))
        {
            if self.chosen.contains(&entry.id) {
                continue;
            }
            if let Some(partition) = self.partition(entry) {
                self.add(partition);
            }
            let needs = || entry.dependencies().filter_map(|id| self.by_id.get(&id));
            let is_part = |needed: &&&TocEntry| {
                let kind = needed.kind();
                // A default brings the sequence along that it takes numbers from.
                if entry.kind() == "DEFAULT" && kind == "SEQUENCE" {
                    return false;
                }
                RELATIONS.contains(&kind.as_ref()) || PARTS.contains(&kind.as_ref())
            };
            let is_chosen = |needed: &&TocEntry| self.chosen.contains(&needed.id);
            // A sequence that needs only the schema is one for itself.
            let belongs = match entry.kind() == "SEQUENCE" {
                true => needs().filter(is_part).any(&is_chosen),
                false => needs().any(&is_chosen),
            };
            if belongs && needs().filter(is_part).all(is_chosen) {
                self.add(entry.id);
            }
        }
        self.chosen.len() > before
    }

    /// The partition that this entry attaches to a chosen table: its rows are the table's.
    fn partition(&self, entry: &TocEntry) -> Option<i64> {
        if entry.kind() != "TABLE ATTACH" {
            return None;
        }
        let is_partition =
            |other: &TocEntry| other.tag() == entry.tag() && other.schema() == entry.schema();
        let (partition, parent): (Vec<&TocEntry>, Vec<&TocEntry>) = entry
            .dependencies()
            .filter_map(|id| self.by_id.get(&id).copied())
            .partition(|other| is_partition(other));
        let of_chosen = parent.iter().any(|parent| self.chosen.contains(&parent.id));
        partition
            .first()
            .filter(|_| of_chosen)
            .map(|found| found.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(entries: &[TocEntry], tables: &[&str]) -> Vec<i64> {
        let tables: Vec<String> = tables.iter().map(|table| table.to_string()).collect();
        select(entries, &tables).unwrap().into_iter().collect()
    }

    fn shop() -> Vec<TocEntry> {
        let of = TocEntry::of;
        vec![
            of(1, "DATABASE", "", "shop", &[]),
            of(2, "SCHEMA", "", "sales", &[]),
            of(3, "TYPE", "sales", "state", &[2]),
            of(4, "TABLE", "sales", "orders", &[2, 3]),
            of(5, "SEQUENCE", "sales", "orders_id_seq", &[2, 4]),
            of(6, "DEFAULT", "sales", "orders id", &[4, 5]),
            of(7, "TABLE", "sales", "customers", &[2]),
            of(8, "TABLE DATA", "sales", "orders", &[4]),
            of(9, "TABLE DATA", "sales", "customers", &[7]),
            of(10, "CONSTRAINT", "sales", "orders pk", &[4, 4]),
            of(11, "CONSTRAINT", "sales", "customers pk", &[7]),
            of(12, "FK CONSTRAINT", "sales", "orders fk", &[4, 7, 11]),
            of(13, "FUNCTION", "sales", "f()", &[2]),
            of(14, "TRIGGER", "sales", "orders t", &[4, 13]),
            of(15, "VIEW", "sales", "report", &[4, 7]),
            of(16, "ACL", "sales", "TABLE orders", &[4]),
            of(17, "ACL", "", "DATABASE shop", &[1]),
            of(18, "SEQUENCE SET", "sales", "orders_id_seq", &[5]),
            of(19, "TABLE", "other", "orders", &[]),
            of(20, "SEQUENCE", "sales", "of no table", &[2]),
            of(21, "SEQUENCE", "sales", "shared", &[2]),
            of(22, "DEFAULT", "sales", "customers no", &[7, 21]),
        ]
    }

    #[test]
    fn a_table_comes_with_what_it_needs_and_what_is_attached_to_it_and_no_more() {
        let orders = [2, 3, 4, 5, 6, 8, 10, 13, 14, 16, 18];
        assert_eq!(chosen(&shop(), &["sales.orders"]), orders);
        let both = chosen(&shop(), &["orders"]);
        assert_eq!(both, [&orders[..], &[19]].concat());
        let with_parent = chosen(&shop(), &["sales.orders", "customers"]);
        assert!(
            with_parent.contains(&12),
            "the foreign key has both ends: {with_parent:?}"
        );
        let customers = chosen(&shop(), &["customers"]);
        assert!(
            customers.contains(&21) && customers.contains(&22),
            "a default brings its sequence: {customers:?}"
        );
        let view = chosen(&shop(), &["report"]);
        assert!(
            view.contains(&7) && view.contains(&9),
            "a view needs its tables: {view:?}"
        );
        assert_eq!(
            select(&shop(), &["nothing".into(), "orders".into()]),
            Err(vec!["nothing".to_string()])
        );
    }

    #[test]
    fn a_partitioned_table_comes_with_its_partitions_and_a_partition_alone() {
        let of = TocEntry::of;
        let entries = [
            of(1, "TABLE", "s", "events", &[]),
            of(2, "TABLE", "s", "events_1", &[]),
            of(3, "TABLE ATTACH", "s", "events_1", &[2, 1]),
            of(4, "TABLE DATA", "s", "events_1", &[2]),
            of(5, "INDEX", "s", "events_i", &[1]),
            of(6, "INDEX", "s", "events_1_i", &[2]),
            of(7, "INDEX ATTACH", "s", "events_1_i", &[6, 5]),
        ];
        assert_eq!(chosen(&entries, &["events"]), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(chosen(&entries, &["s.events_1"]), [2, 4, 6]);
    }
}
