//! What a commit did that removed relation files: dropped relations, emptied them, or moved their content to new files.
//! The record names files alone; what else is known of the transaction, and names, tell which it was.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::events::{EventKind, FIRST_NORMAL};
use crate::postgres::types::MajorVersion;
use crate::postgres::wal::{Created, RelFileLocator};

/// A relation with a file, as the server's catalogues had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    pub oid: u32,
    /// `pg_class.relkind`.
    pub relkind: char,
    pub schema: String,
    pub name: String,
    /// Of an index, a TOAST table and its index: the OID of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

impl Relation {
    /// `schema.name`.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether nothing is lost by such an event that somebody would miss: the relation is the system's, part of a table,
    /// or made from others.
    pub fn is_minor(&self, kind: EventKind) -> bool {
        let matters = self.relkind == 'r' || self.relkind == 'm' && kind == EventKind::Drop;
        self.oid < FIRST_NORMAL || kind == EventKind::Rewrite || !matters
    }
}

/// A commit that removed files, and what is known of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub files: Vec<RelFileLocator>,
    /// OIDs of relations that lost their statistics, which 15 and later say.
    pub relations: Vec<u32>,
    /// These lists are not whole.
    pub cut: bool,
    pub major: Option<MajorVersion>,
    /// Files that the transaction made.
    pub created: Vec<Created>,
    /// It made no others: nothing of it was left out.
    pub whole: bool,
    /// Rows that it deleted in `pg_class`; `None`: not known.
    pub class_deletes: Option<u64>,
}

/// A relation that lost its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedRelation {
    pub kind: EventKind,
    /// Of files without a name that were removed together: the one with the smallest number.
    pub file: RelFileLocator,
    /// `None`: no name was recorded.
    pub relation: Option<Relation>,
    /// False when the kind was guessed.
    pub exact: bool,
}

impl Removal {
    /// What happened to which relation. Indexes and TOAST tables go with their table; files without a name go together.
    pub fn relations(
        &self,
        name_of: &dyn Fn(RelFileLocator) -> Option<Relation>,
    ) -> Vec<RemovedRelation> {
        let made_here =
            |file: &RelFileLocator| self.created.iter().any(|created| created.file == *file);
        let files = self.files.iter().filter(|file| !made_here(file));
        let named: Vec<(RelFileLocator, Option<Relation>)> =
            files.map(|file| (*file, name_of(*file))).collect();
        let there: BTreeSet<(u32, u32)> = named
            .iter()
            .filter_map(|(file, relation)| Some((file.database, relation.as_ref()?.oid)))
            .collect();
        let mut removed = Vec::new();
        let mut nameless: Vec<RemovedRelation> = Vec::new();
        for (file, relation) in named {
            let table = relation.as_ref().and_then(|relation| relation.table);
            if table.is_some_and(|table| there.contains(&(file.database, table))) {
                continue;
            }
            let (kind, exact) = self.judge(file, relation.as_ref());
            let one = RemovedRelation {
                kind,
                file,
                relation,
                exact: exact && self.whole && !self.cut,
            };
            match one.relation {
                Some(_) => removed.push(one),
                None => add_nameless(&mut nameless, one),
            }
        }
        removed.append(&mut nameless);
        removed.sort_by_key(|removed| removed.file);
        removed
    }

    /// What became of the relation that had this file, and whether that is certain.
    fn judge(&self, file: RelFileLocator, relation: Option<&Relation>) -> (EventKind, bool) {
        let created: Vec<&Created> = self
            .created
            .iter()
            .filter(|created| created.file.database == file.database)
            .collect();
        if created.is_empty() {
            return (EventKind::Drop, true);
        }
        let tells_statistics = self.major.is_some_and(|major| major.number() >= 15) && !self.cut;
        let (kind, exact) = match tells_statistics {
            true => self.judge_by_statistics(file, relation, &created),
            false => self.judge_by_files(file.database, &created),
        };
        match kind {
            EventKind::Truncate
                if relation.is_some_and(|relation| !matches!(relation.relkind, 'r' | 'S')) =>
            {
                // Indexes and materialized views are not truncated alone.
                (EventKind::Rewrite, exact)
            }
            EventKind::Truncate
                if created
                    .iter()
                    .all(|created| created.file.tablespace != file.tablespace) =>
            {
                (EventKind::Rewrite, exact)
            }
            // REINDEX: TRUNCATE leaves the table's own new file without whole pages.
            EventKind::Truncate
                if relation.is_none() && created.iter().all(|created| created.pages) =>
            {
                (EventKind::Rewrite, false)
            }
            kind => (kind, exact),
        }
    }

    /// From 15 on the commit names every relation that it dropped, also the transient one by which a table is rewritten,
    /// whose OID is the number of its file.
    fn judge_by_statistics(
        &self,
        file: RelFileLocator,
        relation: Option<&Relation>,
        created: &[&Created],
    ) -> (EventKind, bool) {
        let is_transient = |oid: &u32| created.iter().any(|created| created.file.number == *oid);
        let transient = self.relations.iter().any(is_transient);
        let replaced = if transient {
            EventKind::Rewrite
        } else {
            EventKind::Truncate
        };
        if let Some(relation) = relation {
            let dropped = self.relations.contains(&relation.oid);
            return (if dropped { EventKind::Drop } else { replaced }, true);
        }
        // A relation's first file has its OID as its number, unless another file had that.
        let mut others = self
            .relations
            .iter()
            .filter(|oid| !is_transient(oid) && self.files.iter().all(|f| f.number != **oid));
        match (self.relations.contains(&file.number), others.next()) {
            (true, _) => (EventKind::Drop, false),
            (false, None) => (replaced, true),
            (false, Some(_)) if transient => (EventKind::Rewrite, false),
            (false, Some(_)) => (EventKind::Drop, false),
        }
    }

    /// Before 15 the rows deleted in pg_class tell, and how many files were made.
    fn judge_by_files(&self, database: u32, created: &[&Created]) -> (EventKind, bool) {
        let removed = self
            .files
            .iter()
            .filter(|file| file.database == database)
            .count();
        let replaced_all = created.len() >= removed;
        match (self.class_deletes, replaced_all) {
            (Some(0), _) => (EventKind::Truncate, true),
            (Some(_), true) => (EventKind::Rewrite, true),
            (None, true) if created.iter().any(|created| !created.filled) => {
                (EventKind::Truncate, false)
            }
            (None, true) => (EventKind::Rewrite, false),
            (_, false) => (EventKind::Drop, false),
        }
    }
}

/// Files without names that one database lost are told as one; what was replaced in part was not dropped.
fn add_nameless(nameless: &mut Vec<RemovedRelation>, one: RemovedRelation) {
    let Some(same) = nameless
        .iter_mut()
        .find(|other| other.file.database == one.file.database)
    else {
        return nameless.push(one);
    };
    if same.kind != one.kind {
        same.exact = false;
        if same.kind == EventKind::Drop || one.kind == EventKind::Rewrite {
            same.kind = one.kind;
        }
    }
    same.exact &= one.exact;
    same.file = same.file.min(one.file);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: u32 = 5;

    fn file(number: u32) -> RelFileLocator {
        RelFileLocator {
            tablespace: 1663,
            database: DATABASE,
            number,
        }
    }

    fn made(number: u32, filled: bool) -> Created {
        Created {
            xid: 700,
            file: file(number),
            filled,
            pages: filled,
        }
    }

    fn removal(major: u32, files: &[u32], relations: &[u32], created: &[Created]) -> Removal {
        Removal {
            files: files.iter().map(|number| file(*number)).collect(),
            relations: relations.to_vec(),
            cut: false,
            major: MajorVersion::new(major).ok(),
            created: created.to_vec(),
            whole: true,
            class_deletes: None,
        }
    }

    /// Table 20000 with file 20000 or 21000, its TOAST table 20003 and index 20004, its key 20005.
    fn orders(file: RelFileLocator) -> Option<Relation> {
        let relation = |oid, relkind, name: &str, table| {
            Some(Relation {
                oid,
                relkind,
                schema: "public".into(),
                name: name.into(),
                table,
            })
        };
        match file.number {
            20000 | 21000 => relation(20000, 'r', "orders", None),
            20003 => relation(20003, 't', "pg_toast_20000", Some(20000)),
            20004 => relation(20004, 'i', "pg_toast_20000_index", Some(20000)),
            20005 => relation(20005, 'i', "orders_pkey", Some(20000)),
            20010 => relation(20010, 'm', "totals", None),
            _ => None,
        }
    }

    fn kinds(removed: &[RemovedRelation]) -> Vec<(EventKind, String, bool)> {
        let name = |removed: &RemovedRelation| {
            removed
                .relation
                .as_ref()
                .map_or("?".into(), |relation| relation.name.clone())
        };
        removed
            .iter()
            .map(|removed| (removed.kind, name(removed), removed.exact))
            .collect()
    }

    const WITH_TOAST: &[u32] = &[20000, 20003, 20004, 20005];

    #[test]
    fn a_dropped_table_takes_its_indexes_and_toast_along() {
        let found = removal(16, WITH_TOAST, WITH_TOAST, &[]).relations(&orders);
        assert_eq!(kinds(&found), [(EventKind::Drop, "orders".into(), true)]);
        let old = removal(13, WITH_TOAST, &[], &[]).relations(&orders);
        assert_eq!(kinds(&old), [(EventKind::Drop, "orders".into(), true)]);
    }

    #[test]
    fn where_facts_were_left_out_the_kind_is_a_guess() {
        for major in [14, 16] {
            let whole = removal(major, WITH_TOAST, WITH_TOAST, &[]);
            let short = Removal {
                whole: false,
                ..whole.clone()
            };
            assert_eq!(
                kinds(&short.relations(&orders)),
                [(EventKind::Drop, "orders".into(), false)]
            );
            let truncated = Removal {
                class_deletes: Some(0),
                ..removal(14, &[20000], &[], &[made(22000, false)])
            };
            let cut = Removal {
                cut: true,
                ..truncated
            };
            assert_eq!(
                kinds(&cut.relations(&orders)),
                [(EventKind::Truncate, "orders".into(), false)]
            );
        }
    }

    #[test]
    fn truncate_is_told_by_new_files_and_nothing_dropped() {
        let created = [
            made(22000, false),
            made(22003, false),
            made(22004, true),
            made(22005, true),
        ];
        let found = removal(16, WITH_TOAST, &[], &created).relations(&orders);
        assert_eq!(
            kinds(&found),
            [(EventKind::Truncate, "orders".into(), true)]
        );
        let old = Removal {
            class_deletes: Some(0),
            ..removal(14, WITH_TOAST, &[], &created)
        };
        assert_eq!(
            kinds(&old.relations(&orders)),
            [(EventKind::Truncate, "orders".into(), true)]
        );
        let guessed = removal(14, WITH_TOAST, &[], &created).relations(&orders);
        assert_eq!(
            kinds(&guessed),
            [(EventKind::Truncate, "orders".into(), false)]
        );
    }

    #[test]
    fn a_rewrite_is_told_by_its_transient_table() {
        let created = [
            made(22000, true),
            made(22003, true),
            made(22004, true),
            made(22005, true),
        ];
        let found = removal(17, WITH_TOAST, &[22000, 20003, 20004], &created).relations(&orders);
        assert_eq!(kinds(&found), [(EventKind::Rewrite, "orders".into(), true)]);
        let old = Removal {
            class_deletes: Some(1),
            ..removal(13, WITH_TOAST, &[], &created)
        };
        assert_eq!(
            kinds(&old.relations(&orders)),
            [(EventKind::Rewrite, "orders".into(), true)]
        );
    }

    #[test]
    fn without_names_a_rewrite_is_no_drop() {
        let created = [
            made(22000, true),
            made(22003, true),
            made(22004, true),
            made(22005, true),
        ];
        let nameless =
            removal(17, WITH_TOAST, &[22000, 20003, 20004], &created).relations(&|_| None);
        assert_eq!(nameless.len(), 1);
        assert_eq!(nameless[0].kind, EventKind::Rewrite);
        let dropped = removal(17, WITH_TOAST, WITH_TOAST, &[]).relations(&|_| None);
        assert_eq!(kinds(&dropped), [(EventKind::Drop, "?".into(), true)]);
    }

    #[test]
    fn without_names_files_that_were_made_a_moment_ago_are_rewritten_or_reindexed() {
        let created = [
            made(23000, true),
            made(23003, true),
            made(23004, true),
            made(23005, true),
        ];
        let again = removal(
            17,
            &[22000, 22003, 22004, 22005],
            &[23000, 20003, 20004],
            &created,
        )
        .relations(&|_| None);
        assert_eq!(kinds(&again), [(EventKind::Rewrite, "?".into(), false)]);
        for major in [14, 17] {
            let reindexed =
                removal(major, &[22005], &[], &[made(23005, true)]).relations(&|_| None);
            assert_eq!(kinds(&reindexed), [(EventKind::Rewrite, "?".into(), false)]);
            let truncated =
                removal(major, &[22000], &[], &[made(23000, false)]).relations(&|_| None);
            assert_eq!(truncated[0].kind, EventKind::Truncate);
        }
    }

    #[test]
    fn a_table_moved_to_another_tablespace_is_not_truncated() {
        let mut created = made(22000, true);
        created.file.tablespace = 30000;
        let found = removal(16, &[20000], &[], &[created]).relations(&orders);
        assert_eq!(kinds(&found), [(EventKind::Rewrite, "orders".into(), true)]);
    }

    #[test]
    fn a_table_truncated_and_another_dropped_in_one_transaction_are_told_apart() {
        let found =
            removal(16, &[20010, 21000], &[20010], &[made(22000, false)]).relations(&orders);
        assert_eq!(
            kinds(&found),
            [
                (EventKind::Drop, "totals".into(), true),
                (EventKind::Truncate, "orders".into(), true)
            ]
        );
    }

    #[test]
    fn what_a_transaction_makes_and_drops_itself_is_no_event() {
        let found = removal(16, &[22000], &[22000], &[made(22000, true)]).relations(&orders);
        assert_eq!(found, []);
    }

    #[test]
    fn a_refreshed_materialized_view_is_rewritten_and_minor() {
        let created = [made(22010, true)];
        let found = removal(16, &[20010], &[22010], &created).relations(&orders);
        assert_eq!(kinds(&found), [(EventKind::Rewrite, "totals".into(), true)]);
        assert!(
            !found[0]
                .relation
                .as_ref()
                .unwrap()
                .is_minor(EventKind::Drop)
        );
        assert!(found[0].relation.as_ref().unwrap().is_minor(found[0].kind));
    }

    #[test]
    fn an_index_by_itself_is_minor() {
        let found = removal(16, &[20005], &[20005], &[]).relations(&orders);
        assert_eq!(
            kinds(&found),
            [(EventKind::Drop, "orders_pkey".into(), true)]
        );
        assert!(found[0].relation.as_ref().unwrap().is_minor(found[0].kind));
    }
}
