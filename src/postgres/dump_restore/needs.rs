//! What a dump needs of the server, and what is said of its database as a whole. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::plain::PlainDump;
use super::sql::{NamesRoles, grantee, roles_in, tablespace_of_database, with_roles};
use super::toc::{Toc, TocEntry};
use crate::postgres::dump::manifest::DatabaseFacts;

/// The tablespace that every server has.
pub const DEFAULT_TABLESPACE: &str = "pg_default";

/// What a dump holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpContent {
    /// Made by `pg_dump` in custom, directory or tar format: `pg_restore` restores it.
    Archive(Box<Toc>),
    /// SQL: `psql` restores it.
    Script(PlainDump),
}

/// How much of a dump is restored, and for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// `TABLE` or `SCHEMA.TABLE`; empty: all.
    pub tables: Vec<String>,
    pub schema_only: bool,
    pub no_owner: bool,
    pub no_privileges: bool,
    pub no_tablespaces: bool,
    /// Roles of the dump, and those that take their places.
    pub role_map: BTreeMap<String, String>,
    pub jobs: u32,
    pub single_transaction: bool,
    pub ignore_free_space: bool,
}

/// What must be there before a dump can be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpNeeds {
    pub owners: BTreeSet<String>,
    /// Roles that are granted something, that policies or user mappings are for, that have settings.
    pub grantees: BTreeSet<String>,
    pub extensions: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
}

impl DumpContent {
    /// The version of the server that was dumped.
    pub fn server_major(&self) -> Option<u32> {
        match self {
            Self::Archive(toc) => toc.server_major(),
            Self::Script(script) => script.server_major,
        }
    }

    /// The version of pg_dump.
    pub fn program_major(&self) -> Option<u32> {
        match self {
            Self::Archive(toc) => toc.program_major(),
            Self::Script(script) => script.program_major,
        }
    }

    /// The database that was dumped.
    pub fn database(&self) -> Option<&str> {
        match self {
            Self::Archive(toc) => Some(&toc.database),
            Self::Script(_) => None,
        }
    }

    /// Whether it brings rows, as far as can be told.
    pub fn has_rows(&self) -> bool {
        match self {
            Self::Archive(toc) => toc.entries.iter().any(TocEntry::has_data),
            Self::Script(_) => true,
        }
    }

    /// Whether it brings rows without the tables that they belong to.
    pub fn has_rows_alone(&self) -> bool {
        match self {
            Self::Archive(toc) => {
                let has = |kind: &str| toc.entries.iter().any(|entry| entry.kind() == kind);
                has("TABLE DATA") && !has("TABLE")
            }
            Self::Script(_) => false,
        }
    }

    /// The owners of an archive's entries of some kinds.
    pub fn owners_of(&self, kinds: &[&str]) -> BTreeSet<String> {
        let entries = match self {
            Self::Archive(toc) => &toc.entries[..],
            Self::Script(_) => &[],
        };
        let of_kind = entries
            .iter()
            .filter(|entry| kinds.contains(&entry.kind().as_ref()));
        of_kind.map(|entry| entry.owner().into_owned()).collect()
    }

    /// What it needs; `chosen` are the entries to be restored, `None` all. A script says nothing of its database as a whole:
    /// `facts` do, where a manifest has them.
    pub fn needs(
        &self,
        options: &RestoreOptions,
        chosen: Option<&BTreeSet<i64>>,
        facts: Option<&DatabaseFacts>,
    ) -> DumpNeeds {
        let mut needs = match self {
            Self::Archive(toc) => of_archive(toc, options, chosen),
            Self::Script(script) => of_script(script, facts.map(needs_of).unwrap_or_default()),
        };
        if options.no_owner {
            needs.owners.clear();
        }
        if options.no_tablespaces {
            needs.tablespaces.clear();
        }
        needs
    }
}

/// What a manifest's database needs of the server.
pub fn needs_of(facts: &DatabaseFacts) -> DumpNeeds {
    let grantees = facts.acl.iter().flatten().filter_map(|item| grantee(item));
    let tablespace = Some(facts.tablespace.clone()).filter(|name| name != DEFAULT_TABLESPACE);
    DumpNeeds {
        owners: BTreeSet::from([facts.owner.clone()]),
        grantees: grantees
            .map(|(role, _)| role)
            .filter(|role| !role.is_empty())
            .collect(),
        tablespaces: tablespace.into_iter().collect(),
        ..DumpNeeds::default()
    }
}

fn of_script(script: &PlainDump, mut needs: DumpNeeds) -> DumpNeeds {
    needs.owners.extend(script.owners.iter().cloned());
    needs.grantees.extend(script.grantees.iter().cloned());
    needs.extensions.extend(script.extensions.iter().cloned());
    needs.tablespaces.extend(script.tablespaces.iter().cloned());
    needs
}

/// In which way an entry's definition names roles.
fn names_roles(entry: &TocEntry) -> Option<NamesRoles> {
    match entry.kind().as_ref() {
        "ACL" | "DEFAULT ACL" => Some(NamesRoles::Privileges),
        "POLICY" => Some(NamesRoles::Policy),
        "USER MAPPING" => Some(NamesRoles::UserMapping),
        "DATABASE PROPERTIES" => Some(NamesRoles::RoleSettings),
        _ => None,
    }
}

fn of_archive(toc: &Toc, options: &RestoreOptions, chosen: Option<&BTreeSet<i64>>) -> DumpNeeds {
    let mut needs = DumpNeeds::default();
    // What is said of the database is said of the new one, too, however much is restored into it.
    let is_restored = |entry: &&TocEntry| {
        entry.is_of_database() || chosen.is_none_or(|chosen| chosen.contains(&entry.id))
    };
    let some = |text: std::borrow::Cow<'_, str>| (!text.is_empty()).then(|| text.into_owned());
    for entry in toc.entries.iter().filter(is_restored) {
        needs.owners.extend(some(entry.owner()));
        needs.tablespaces.extend(some(entry.tablespace()));
        match entry.kind().as_ref() {
            "EXTENSION" => needs.extensions.extend(some(entry.tag())),
            "DATABASE" => needs
                .tablespaces
                .extend(tablespace_of_database(&entry.definition())),
            _ => (),
        }
        match names_roles(entry) {
            // What a role sets in the database is nothing without the role.
            None | Some(NamesRoles::RoleSettings) => (),
            Some(NamesRoles::Privileges) if options.no_privileges => (),
            Some(names) => needs.grantees.extend(roles_in(&entry.definition(), names)),
        }
    }
    needs
}

/// The roles that have settings of their own in the database.
pub fn roles_with_settings(
    content: &DumpContent,
    facts: Option<&DatabaseFacts>,
) -> BTreeSet<String> {
    match content {
        DumpContent::Archive(toc) => {
            let entries = toc.entries.iter();
            entries
                .filter(|entry| entry.kind() == "DATABASE PROPERTIES")
                .flat_map(|entry| roles_in(&entry.definition(), NamesRoles::RoleSettings))
                .collect()
        }
        DumpContent::Script(_) => {
            let settings = facts.iter().flat_map(|facts| &facts.settings);
            settings
                .filter_map(|setting| setting.role.clone())
                .collect()
        }
    }
}

/// Puts other roles into the places of mapped ones; false: the archive names none of them.
pub fn map_roles(toc: &mut Toc, map: &BTreeMap<String, String>) -> bool {
    let mut changed = false;
    for entry in &mut toc.entries {
        if let Some(other) = map.get(entry.owner().as_ref()) {
            entry.set_owner(other);
            changed = true;
        }
        if let Some(names) = names_roles(entry) {
            let definition = with_roles(&entry.definition(), names, map);
            if definition != entry.definition() {
                entry.set_definition(definition);
                changed = true;
            }
        }
    }
    changed
}
