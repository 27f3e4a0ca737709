//! Which names a recovered table and what belongs to it get, so that nothing collides with what is there. Pure.

use std::collections::BTreeSet;

use crate::postgres::dump_restore::names::QualifiedName;

/// What PostgreSQL cuts names to, in bytes.
pub const LONGEST: usize = 63;
const SUFFIX: &str = "_recovered";

/// What has a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedKind {
    Table,
    Index,
    Sequence,
    Statistics,
}

impl NamedKind {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "table" => Self::Table,
            "index" => Self::Index,
            "sequence" => Self::Sequence,
            "statistics" => Self::Statistics,
            _ => return None,
        })
    }

    /// As SQL has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "TABLE",
            Self::Index => "INDEX",
            Self::Sequence => "SEQUENCE",
            Self::Statistics => "STATISTICS",
        }
    }
}

/// A new name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    pub kind: NamedKind,
    pub old: QualifiedName,
    pub new: QualifiedName,
}

impl Rename {
    pub fn sql(&self) -> String {
        statement(self.kind, &self.old, &self.new)
    }

    /// The way back.
    pub fn undo(&self) -> String {
        statement(self.kind, &self.new, &self.old)
    }
}

fn statement(kind: NamedKind, from: &QualifiedName, to: &QualifiedName) -> String {
    let to = crate::postgres::dump_restore::sql::quoted(&to.name);
    format!("ALTER {} {} RENAME TO {to}", kind.word(), from.sql())
}

/// The name that a table gets unless somebody names one.
pub fn default_name(name: &str) -> String {
    with_suffix(name, SUFFIX)
}

/// New names for a table, which comes first, and for all that belongs to it. `taken`: what must not be used.
pub fn renames(
    named: &[(NamedKind, QualifiedName)],
    new_name: &str,
    mut taken: BTreeSet<QualifiedName>,
) -> Vec<Rename> {
    let Some((_, root)) = named.first() else {
        return Vec::new();
    };
    // Two old names are never new ones at the same time: each statement finds what it names.
    taken.extend(named.iter().map(|(_, name)| name.clone()));
    taken.remove(&root.beside(new_name));
    let mut found = Vec::new();
    for (at, (kind, old)) in named.iter().enumerate() {
        let wanted = match (at, old.name.strip_prefix(&root.name)) {
            (0, _) => new_name.to_string(),
            (_, Some(rest)) => cut(new_name, rest),
            (_, None) => with_suffix(&old.name, SUFFIX),
        };
        let numbered = (2..).map(|number| with_suffix(&wanted, &format!("_{number}")));
        let mut candidates = std::iter::once(wanted.clone()).chain(numbered);
        let free = candidates.find(|name| at == 0 || !taken.contains(&old.beside(name)));
        let new = old.beside(&free.unwrap_or(wanted));
        taken.insert(new.clone());
        let (kind, old) = (*kind, old.clone());
        found.push(Rename { kind, old, new });
    }
    found
}

/// A beginning with all of an end, the beginning cut where both are too long.
fn cut(begin: &str, end: &str) -> String {
    match begin.len() + end.len() <= LONGEST {
        true => format!("{begin}{end}"),
        false => with_suffix(begin, end),
    }
}

fn with_suffix(name: &str, suffix: &str) -> String {
    let room = LONGEST.saturating_sub(suffix.len());
    let mut end = room.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> QualifiedName {
        QualifiedName::new("public", text)
    }

    fn new_names(named: &[&str], new: &str, taken: &[&str]) -> Vec<String> {
        let named: Vec<_> = named
            .iter()
            .map(|each| (NamedKind::Index, name(each)))
            .collect();
        let taken = taken.iter().map(|each| name(each)).collect();
        let renames = renames(&named, new, taken);
        renames.into_iter().map(|rename| rename.new.name).collect()
    }

    #[test]
    fn what_begins_with_the_table_s_name_keeps_its_end() {
        let named = ["orders", "orders_pkey", "by_customer"];
        assert_eq!(
            new_names(&named, "orders_recovered", &[]),
            [
                "orders_recovered",
                "orders_recovered_pkey",
                "by_customer_recovered"
            ]
        );
        assert_eq!(
            new_names(&named, "orders2", &["orders2_pkey", "orders2_pkey_2"]),
            ["orders2", "orders2_pkey_3", "by_customer_recovered"]
        );
        // A name that another part has, as yet.
        assert_eq!(
            new_names(&["a", "ab", "abb"], "ab", &[]),
            ["ab", "abb_2", "abbb"]
        );
    }

    #[test]
    fn long_names_stay_long_enough_for_postgresql_and_differ() {
        let long = "é".repeat(31);
        let new = default_name(&long);
        assert!(
            new.len() <= LONGEST && new.ends_with("é_recovered"),
            "{new}"
        );
        let parts = [
            long.as_str(),
            &format!("{}x", "i".repeat(62)),
            &format!("{}y", "i".repeat(62)),
        ];
        let new = new_names(&parts, &new, &[]);
        assert!(new.iter().all(|name| name.len() <= LONGEST));
        assert_ne!(new[1], new[2]);
    }

    #[test]
    fn the_way_back_is_the_same_statement_turned_round() {
        let rename = Rename {
            kind: NamedKind::Table,
            old: name("a\"b"),
            new: name("c"),
        };
        assert_eq!(
            rename.sql(),
            "ALTER TABLE \"public\".\"a\"\"b\" RENAME TO \"c\""
        );
        assert_eq!(
            rename.undo(),
            "ALTER TABLE \"public\".\"c\" RENAME TO \"a\"\"b\""
        );
    }
}
