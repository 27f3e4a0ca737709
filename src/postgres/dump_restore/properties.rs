//! What is said of a database as a whole: `pg_restore` leaves that out unless it may use the database's own name, and scripts
//! do not say it. Pure.

use super::needs::{DEFAULT_TABLESPACE, RestoreOptions};
use super::sql::{
    NamesRoles, grantee, literal, of_database, quoted, roles_in, statements, tokens,
    without_tablespace,
};
use super::target::TargetFacts;
use super::toc::Toc;
use crate::postgres::dump::manifest::{DatabaseFacts, DatabaseSetting};

/// Settings whose values are lists of names (GUC_LIST_QUOTE).
const LISTS_OF_NAMES: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// From this major on CREATE DATABASE names a provider of locales.
const NAMES_PROVIDER: u32 = 15;

/// SQL about a database as a whole, each statement for the name that it is built under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseProperties {
    pub create: String,
    pub owner: Option<String>,
    /// Settings, limits, privileges, labels.
    pub statements: Vec<String>,
    /// COMMENT ON DATABASE, if it has a comment.
    pub comment: Option<String>,
}

impl DatabaseProperties {
    /// Of a database of which nothing is known.
    pub fn default_of(name: &str) -> Self {
        Self {
            create: of_database("CREATE DATABASE x WITH TEMPLATE = template0", name),
            ..Self::default()
        }
    }

    /// As an archive says it, which `pg_restore` leaves out unless it may use the database's own name. Settings of roles that
    /// the server does not have are left out.
    pub fn of_archive(
        toc: &Toc,
        options: &RestoreOptions,
        name: &str,
        target: &TargetFacts,
    ) -> Self {
        let mut properties = Self::default_of(name);
        for entry in toc.entries.iter().filter(|entry| entry.is_of_database()) {
            let definition = entry.definition();
            let mut said = statements(&definition)
                .into_iter()
                .map(|statement| of_database(statement, name));
            match entry.kind().as_ref() {
                "DATABASE" => {
                    if let Some(create) = said.next() {
                        let create = match options.no_tablespaces {
                            true => without_tablespace(&create),
                            false => create,
                        };
                        properties.create = with_provider(create, target.major);
                    }
                    let owner = Some(entry.owner().into_owned());
                    properties.owner = owner.filter(|owner| !owner.is_empty() && !options.no_owner);
                }
                "COMMENT" => properties.comment = said.next(),
                "ACL" if options.no_privileges => (),
                "DATABASE PROPERTIES" => properties.statements.extend(said.filter(|statement| {
                    roles_in(statement, NamesRoles::RoleSettings).is_subset(&target.roles)
                })),
                _ => properties.statements.extend(said),
            }
        }
        properties
    }

    /// As a manifest says it; settings of roles that the server does not have are left out.
    pub fn of_manifest(facts: &DatabaseFacts, name: &str, target: &TargetFacts) -> Self {
        let name = quoted(name);
        let mut create = format!(
            "CREATE DATABASE {name} WITH TEMPLATE = template0 ENCODING = {} LC_COLLATE = {} LC_CTYPE = {}",
            literal(&facts.encoding),
            literal(&facts.collate),
            literal(&facts.ctype)
        );
        let locale = facts.locale.as_deref().map(literal).unwrap_or_default();
        create += &match facts.provider.as_str() {
            "icu" => format!(" LOCALE_PROVIDER = icu ICU_LOCALE = {locale}"),
            "builtin" => format!(" LOCALE_PROVIDER = builtin BUILTIN_LOCALE = {locale}"),
            _ => String::new(),
        };
        if let Some(rules) = &facts.icu_rules {
            create += &format!(" ICU_RULES = {}", literal(rules));
        }
        if facts.tablespace != DEFAULT_TABLESPACE {
            create += &format!(" TABLESPACE = {}", quoted(&facts.tablespace));
        }
        let mut statements = Vec::new();
        if facts.connection_limit != -1 {
            statements.push(format!(
                "ALTER DATABASE {name} CONNECTION LIMIT = {}",
                facts.connection_limit
            ));
        }
        let has = |role: &String| target.roles.contains(role);
        let settings = facts.settings.iter();
        let settings = settings.filter(|setting| setting.role.as_ref().is_none_or(has));
        statements.extend(settings.map(|setting| set(&name, setting)));
        statements.extend(facts.acl.iter().flat_map(|acl| grants(&name, acl)));
        Self {
            create: with_provider(create, target.major),
            owner: Some(facts.owner.clone()),
            statements,
            comment: facts
                .comment
                .as_ref()
                .map(|comment| format!("COMMENT ON DATABASE {name} IS {}", literal(comment))),
        }
    }
}

/// Names libc where nothing is named: from 15 on a new database has the provider of `template0` otherwise.
fn with_provider(create: String, major: u32) -> String {
    let is_named = tokens(&create)
        .0
        .iter()
        .any(|token| token.is("locale_provider"));
    match is_named || major < NAMES_PROVIDER {
        true => create,
        false => format!("{} LOCALE_PROVIDER = libc", create.trim_end_matches(';')),
    }
}

fn set(database: &str, setting: &DatabaseSetting) -> String {
    let DatabaseSetting { role, name, value } = setting;
    let who = match role {
        Some(role) => format!("ROLE {} IN DATABASE {database}", quoted(role)),
        None => format!("DATABASE {database}"),
    };
    // Any role may set a list for itself, with anything in it: each name is quoted again.
    let value = match LISTS_OF_NAMES.contains(&name.to_lowercase().as_str()) {
        true => {
            let names = names(value).unwrap_or_else(|| vec![value.clone()]);
            names
                .iter()
                .map(|name| literal(name))
                .collect::<Vec<_>>()
                .join(", ")
        }
        false => literal(value),
    };
    // Parts of a name that an extension brings are separated by dots.
    let name: Vec<String> = name.split('.').map(quoted).collect();
    format!("ALTER {who} SET {} TO {value}", name.join("."))
}

/// The names in a list as the catalog keeps it: `"$user", public`; `None`: it is none.
fn names(list: &str) -> Option<Vec<String>> {
    let (mut names, mut rest) = (Vec::new(), list.trim());
    loop {
        let (name, behind) = match rest.strip_prefix('"') {
            Some(quoted) => until_quote(quoted)?,
            None => {
                let end = rest
                    .find([',', ' ', '\t', '\n', '\r'])
                    .unwrap_or(rest.len());
                (rest[..end].to_string(), &rest[end..])
            }
        };
        names.push(name);
        match behind.trim_start() {
            "" => return Some(names),
            more => rest = more.strip_prefix(',')?.trim_start(),
        }
    }
}

/// A name up to its closing quote, and what stands behind that.
fn until_quote(text: &str) -> Option<(String, &str)> {
    let (mut name, mut rest) = (String::new(), text);
    loop {
        let (before, behind) = rest.split_once('"')?;
        name += before;
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

/// What `aclitem`s grant on a database, such as `reader=Tc*/owner`.
fn grants(database: &str, acl: &[String]) -> Vec<String> {
    let mut statements = vec![format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")];
    for item in acl {
        let Some((grantee, rights)) = grantee(item) else {
            continue;
        };
        let who = match grantee.as_str() {
            "" => "PUBLIC".to_string(),
            role => quoted(role),
        };
        for (letter, right) in [('C', "CREATE"), ('T', "TEMPORARY"), ('c', "CONNECT")] {
            let Some(at) = rights.find(letter) else {
                continue;
            };
            let option = match rights[at + 1..].starts_with('*') {
                true => " WITH GRANT OPTION",
                false => "",
            };
            statements.push(format!(
                "GRANT {right} ON DATABASE {database} TO {who}{option}"
            ));
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::super::needs::needs_of;
    use super::super::toc::TocEntry;
    use super::*;

    #[test]
    fn a_manifest_makes_the_database_that_it_tells_of() {
        let setting = |role: Option<&str>, name: &str, value: &str| DatabaseSetting {
            role: role.map(str::to_string),
            name: name.into(),
            value: value.into(),
        };
        let mut facts = DatabaseFacts {
            oid: 5,
            owner: "o\"wner".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "it's".into(),
            provider: "icu".into(),
            locale: Some("de-DE".into()),
            icu_rules: None,
            collation_version: None,
            tablespace: "fast".into(),
            connection_limit: 3,
            size: 1,
            comment: Some("it's".into()),
            acl: Some(vec!["=T/o".into(), "\"Mary \"\"=M\"=Cc*/o".into()]),
            settings: vec![
                setting(None, "search_path", "a, \"B c\""),
                setting(Some("r"), "x.y", "it's"),
                setting(Some("gone"), "x.y", "z"),
            ],
        };
        let mut target = TargetFacts {
            major: 15,
            roles: ["r".to_string()].into(),
            ..TargetFacts::default()
        };
        let properties = DatabaseProperties::of_manifest(&facts, "n\"", &target);
        assert_eq!(
            properties.create,
            "CREATE DATABASE \"n\"\"\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LC_COLLATE = 'C' LC_CTYPE = 'it''s' \
             LOCALE_PROVIDER = icu ICU_LOCALE = 'de-DE' TABLESPACE = \"fast\""
        );
        assert_eq!(
            properties.statements,
            [
                "ALTER DATABASE \"n\"\"\" CONNECTION LIMIT = 3",
                "ALTER DATABASE \"n\"\"\" SET \"search_path\" TO 'a', 'B c'",
                "ALTER ROLE \"r\" IN DATABASE \"n\"\"\" SET \"x\".\"y\" TO 'it''s'",
                "REVOKE ALL ON DATABASE \"n\"\"\" FROM PUBLIC",
                "GRANT TEMPORARY ON DATABASE \"n\"\"\" TO PUBLIC",
                "GRANT CREATE ON DATABASE \"n\"\"\" TO \"Mary \"\"=M\"",
                "GRANT CONNECT ON DATABASE \"n\"\"\" TO \"Mary \"\"=M\" WITH GRANT OPTION",
            ]
        );
        assert_eq!(
            properties.comment.as_deref(),
            Some("COMMENT ON DATABASE \"n\"\"\" IS 'it''s'")
        );
        let needs = needs_of(&facts);
        assert_eq!(needs.owners, ["o\"wner".to_string()].into());
        assert_eq!(needs.grantees, ["Mary \"=M".to_string()].into());
        assert_eq!(needs.tablespaces, ["fast".to_string()].into());

        // A server whose template0 is of ICU makes no database of libc unless it is told to.
        facts.provider = "libc".into();
        let create = |facts: &DatabaseFacts, target: &TargetFacts| {
            DatabaseProperties::of_manifest(facts, "n", target).create
        };
        assert!(create(&facts, &target).ends_with("TABLESPACE = \"fast\" LOCALE_PROVIDER = libc"));
        target.major = 14;
        assert!(create(&facts, &target).ends_with("TABLESPACE = \"fast\""));
    }

    #[test]
    fn an_archive_of_a_server_without_providers_makes_a_database_of_libc() {
        let mut entry = TocEntry::of(1, "DATABASE", "", "d", &[]);
        let made = |entry: &TocEntry, major| {
            let target = TargetFacts {
                major,
                ..TargetFacts::default()
            };
            let toc = Toc::of("13.1", "13.1", vec![entry.clone()]);
            let options = RestoreOptions::default();
            DatabaseProperties::of_archive(&toc, &options, "n", &target).create
        };
        entry.set_definition("CREATE DATABASE d WITH TEMPLATE = template0 LOCALE = 'C';\n".into());
        let old = "CREATE DATABASE \"n\" WITH TEMPLATE = template0 LOCALE = 'C'";
        assert_eq!(made(&entry, 14), old);
        assert_eq!(made(&entry, 15), format!("{old} LOCALE_PROVIDER = libc"));
        let icu = "CREATE DATABASE d WITH LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'de';\n";
        entry.set_definition(icu.into());
        assert!(!made(&entry, 18).contains("libc"));
    }

    #[test]
    fn a_list_of_names_cannot_become_another_statement() {
        let shown = |list: &str| {
            let setting = DatabaseSetting {
                role: None,
                name: "Search_Path".into(),
                value: list.into(),
            };
            let statement = set("\"d\"", &setting);
            statement.split_once(" TO ").unwrap().1.to_string()
        };
        assert_eq!(
            shown("x;alter/**/role/**/evil"),
            "'x;alter/**/role/**/evil'"
        );
        assert_eq!(
            shown("\"$user\", \"a\"\"b, c\",d"),
            "'$user', 'a\"b, c', 'd'"
        );
        assert_eq!(shown("\"\""), "''");
        assert_eq!(shown("a b; it's"), "'a b; it''s'");
    }
}
