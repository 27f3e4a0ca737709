//! The SQL that puts rows, or a whole table, back into their place. Pure.

use super::columns::{Column, list};
use super::compare::{Pair, as_text};
use super::names::QualifiedName;
use super::rename::{NamedKind, Rename};
use crate::postgres::dump_restore::sql::{literal, quoted};

/// A sequence that a column of the present table takes its values from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSequence {
    pub column: String,
    pub sequence: QualifiedName,
}

/// Inserts the recovered rows that are missing now. The first statement's count is that of the rows.
pub fn insert_missing(pair: &Pair<'_>, sequences: &[ColumnSequence]) -> Vec<String> {
    let common = pair.common();
    let (present, key) = (pair.present.0, pair.key());
    let names = list(common.iter().map(|(_, now)| *now));
    let overriding = match common.iter().any(|(_, now)| now.is_identity) {
        true => " OVERRIDING SYSTEM VALUE",
        false => "",
    };
    let values: Vec<String> = common.iter().map(value).collect();
    let values = values.join(", ");
    let (recovered, now) = pair.sources();
    let rows = match key.is_empty() {
        false => format!(
            "SELECT {values} FROM {recovered} r WHERE NOT EXISTS (SELECT 1 FROM {now} p WHERE {})",
            pair.same_key(&key)
        ),
        true => format!(
            "SELECT {values} FROM (SELECT *, {} AS walden_row, \
             row_number() OVER (PARTITION BY {0}) AS walden_copy FROM {recovered}) r \
             LEFT JOIN (SELECT {} AS walden_row, count(*) AS walden_copies FROM {now} GROUP BY 1) p \
             ON r.walden_row OPERATOR(pg_catalog.=) p.walden_row WHERE r.walden_copy > coalesce(p.walden_copies, 0)",
            pair.row_text(0),
            pair.row_text(1)
        ),
    };
    let mut sql = Vec::new();
    // Without a key nothing else keeps somebody from putting the same row in meanwhile.
    if key.is_empty() {
        sql.push(format!(
            "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
            present.sql()
        ));
    }
    sql.push(format!(
        "INSERT INTO {} ({names}){overriding} {rows} ON CONFLICT DO NOTHING",
        present.sql()
    ));
    let served = sequences
        .iter()
        .filter(|served| common.iter().any(|(_, now)| now.name == served.column));
    sql.extend(served.map(|served| advance(present, served)));
    sql
}

/// A recovered value as the present column takes it.
fn value(pair: &(&Column, &Column)) -> String {
    let name = format!("r.{}", quoted(&pair.0.name));
    match pair.0.data_type == pair.1.data_type {
        true => name,
        false => format!("{name}::{}", pair.1.data_type),
    }
}

/// Moves a sequence behind what was put back; never back.
fn advance(table: &QualifiedName, served: &ColumnSequence) -> String {
    let name = served.sequence.sql();
    format!(
        "SELECT pg_catalog.setval({}, m) FROM (SELECT max({})::int8 AS m FROM {}) highest, {name} s \
         WHERE m > s.last_value OR (m = s.last_value AND NOT s.is_called)",
        literal(&name),
        quoted(&served.column),
        table.sql()
    )
}

/// Gives changed rows their recovered values; `None`: there is no key, or nothing beside it.
pub fn revert_changed(pair: &Pair<'_>) -> Option<String> {
    let key = pair.key();
    let common = pair.common();
    let others: Vec<_> = common
        .iter()
        .filter(|pair| !key.iter().any(|(column, _)| column.name == pair.0.name))
        .filter(|(_, now)| !now.is_identity)
        .collect();
    if key.is_empty() || others.is_empty() {
        return None;
    }
    let set: Vec<String> = others
        .iter()
        .map(|pair| format!("{} = {}", quoted(&pair.1.name), value(pair)))
        .collect();
    let side = |of: &str, names: Vec<&String>| {
        let texts = names
            .iter()
            .map(|name| as_text(&format!("{of}.{}", quoted(name))));
        format!("ROW({})", texts.collect::<Vec<_>>().join(", "))
    };
    let then = side("r", others.iter().map(|(then, _)| &then.name).collect());
    let now = side("p", others.iter().map(|(_, now)| &now.name).collect());
    let (recovered, present) = pair.sources();
    Some(format!(
        "UPDATE {present} p SET {} FROM {recovered} r WHERE {} AND {then} IS DISTINCT FROM {now}",
        set.join(", "),
        pair.same_key(&key)
    ))
}

/// Gives a table that is gone its old name back, and all that belongs to it. With `made`: what of that was made.
pub fn take_name(renames: &[Rename], rows_only: bool) -> Vec<String> {
    let made = renames
        .iter()
        .filter(|rename| !rows_only || rename.kind == NamedKind::Table);
    made.map(Rename::undo).collect()
}

/// A script of one transaction.
pub fn script(statements: &[String]) -> String {
    let mut text = String::from("BEGIN;\n");
    for statement in statements {
        text += &format!("{statement};\n");
    }
    text + "COMMIT;\n"
}
